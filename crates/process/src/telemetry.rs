//! Logs and traces: fmt (JSON or human) always, OpenTelemetry over OTLP when an endpoint is configured.

use std::collections::HashMap;

use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The current span's W3C `traceparent`, if it is traced.
pub fn traceparent() -> Option<String> {
    let mut carrier = HashMap::new();
    let context = tracing::Span::current().context();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove("traceparent")
}

struct Headers<F>(F);

impl<F: Fn(&str) -> Option<String>> Headers<F> {
    fn carrier(&self) -> HashMap<String, String> {
        let names = ["traceparent", "tracestate"];
        names.iter().filter_map(|n| Some(((*n).to_owned(), (self.0)(n)?))).collect()
    }
}

/// Makes `span` a child of the trace the headers name, if they name one.
pub fn continue_trace(span: &tracing::Span, header: impl Fn(&str) -> Option<String>) {
    let carrier = Headers(header).carrier();
    if Extractor::get(&carrier, "traceparent").is_some() {
        let context = TraceContextPropagator::new().extract(&carrier);
        // Without an OpenTelemetry layer there is no trace to join.
        let _ = span.set_parent(context);
    }
}
