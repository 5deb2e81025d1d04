//! Logs and traces: fmt (JSON or human) always, OpenTelemetry over OTLP when an endpoint is configured.
//!
//! Everything goes to stderr; stdout belongs to commands. No secret, no customer's path, no tenant label.

use std::{collections::HashMap, io::IsTerminal as _};

use opentelemetry::{propagation::TextMapPropagator as _, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{
    EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    #[default]
    Auto,
    Human,
    Json,
}

/// `[telemetry]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    pub format: LogFormat,
    /// `tracing` filter: `info`, `info,pg=debug`.
    pub filter: String,
    /// Base URL of an OTLP/HTTP receiver, e.g. `http://localhost:4318`. Empty: no traces leave.
    pub otlp_endpoint: String,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info".to_owned(), otlp_endpoint: String::new() }
    }
}

/// Telemetry was not set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("telemetry.filter cannot be read")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("the OTLP exporter cannot be built")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error("logging is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    #[error("the OTLP exporter's thread died")]
    Thread,
}

/// Keeps exporting until [`Self::flush`]; hold it in `main`.
#[must_use]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sends what is left. Blocks for a moment; call it last, outside of async code.
    pub fn flush(self) {
        if let Some(provider) = self.provider
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Sets up logging and, if configured, tracing for the whole process.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(service: &'static str, config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let filter = EnvFilter::try_new(&config.filter)?;
    let human = match config.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if human {
        lines.with_target(false).boxed()
    } else {
        lines.json().flatten_event(true).boxed()
    };
    let provider = match config.otlp_endpoint.as_str() {
        "" => None,
        endpoint => Some(exporter(service, endpoint.to_owned())?),
    };
    let traces = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(service)));
    tracing_subscriber::registry().with(filter).with(lines).with(traces).try_init()?;
    Ok(Telemetry { provider })
}

/// The exporter's HTTP client blocks and must not be made inside an async runtime.
fn exporter(service: &'static str, endpoint: String) -> Result<SdkTracerProvider, TelemetryError> {
    let build = move || {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .build()?;
        let resource = Resource::builder().with_service_name(service).build();
        Ok(SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build())
    };
    std::thread::spawn(build).join().map_err(|_| TelemetryError::Thread)?
}

/// The current span's W3C `traceparent`, if it is traced. Travels on outbox rows, jobs and calls.
pub fn traceparent() -> Option<String> {
    let mut carrier = HashMap::new();
    let context = tracing::Span::current().context();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove("traceparent")
}

/// Makes `span` a child of the trace the headers name, if they name one.
pub fn continue_trace(span: &tracing::Span, header: impl Fn(&str) -> Option<String>) {
    let names = ["traceparent", "tracestate"];
    let carrier: HashMap<String, String> =
        names.iter().filter_map(|name| Some(((*name).to_owned(), header(name)?))).collect();
    if carrier.contains_key("traceparent") {
        let context = TraceContextPropagator::new().extract(&carrier);
        // Without an OpenTelemetry layer there is no trace to join.
        let _ = span.set_parent(context);
    }
}
