//! Rate, errors and duration per route template. Never a tenant, a path or an id as a label.

use std::time::Duration;

use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// The process's metrics.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    pub(crate) in_flight: IntGauge,
}

impl Metrics {
    /// # Errors
    /// When a name is registered twice: a bug.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("everhold_http_requests_total", "Requests by route and status"),
            &["method", "route", "status"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new("everhold_http_request_duration_seconds", "Time to answer").buckets(
                vec![0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0],
            ),
            &["method", "route"],
        )?;
        let in_flight =
            IntGauge::new("everhold_http_requests_in_flight", "Requests being answered")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        Ok(Self { registry, requests, durations, in_flight })
    }

    pub(crate) fn observe(&self, method: &str, route: &str, status: u16, took: Duration) {
        self.requests.with_label_values(&[method, route, &status.to_string()]).inc();
        self.durations.with_label_values(&[method, route]).observe(took.as_secs_f64());
    }

    /// For other parts of the process to add their own.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The text Prometheus reads.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}
