//! The admin port: liveness, readiness, metrics. Never on the public listener.

use axum::{Router, extract::State, routing::get};
use http::StatusCode;

use crate::{Check, Metrics};

#[derive(Clone)]
struct Admin {
    metrics: Metrics,
    checks: Vec<(&'static str, Check)>,
}

/// `/livez` (the process answers), `/readyz` (every check passes; else 503 and what is missing), `/metrics`.
pub fn router(metrics: Metrics, checks: Vec<(&'static str, Check)>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state(Admin { metrics, checks })
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    let mut missing = String::new();
    for (role, check) in &admin.checks {
        if let Err(why) = (check.run)().await {
            missing.push_str(&format!("{role}: {}: {why}\n", check.name));
        }
    }
    if missing.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, missing)
    }
}

async fn render(State(admin): State<Admin>) -> ([(http::HeaderName, &'static str); 1], String) {
    ([(http::header::CONTENT_TYPE, "text/plain; version=0.0.4")], admin.metrics.render())
}
