//! What a role hands over: routes, workers, readiness.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::RoleName;

/// One role of the platform, ready to be served.
pub struct Role {
    pub name: RoleName,
    /// Public operations, documented. State already given.
    pub router: OpenApiRouter,
    /// `/internal/v1/…`, for other roles only.
    pub internal: axum::Router,
    pub workers: Vec<Worker>,
    pub readiness: Vec<Check>,
    /// Figures of its own, beside those of requests.
    pub collectors: Vec<Box<dyn prometheus::core::Collector>>,
}

impl Role {
    /// A role with nothing in it yet.
    pub fn new(name: RoleName) -> Self {
        Self {
            name,
            router: OpenApiRouter::new(),
            internal: axum::Router::new(),
            workers: Vec::new(),
            readiness: Vec::new(),
            collectors: Vec::new(),
        }
    }
    #[must_use]
    pub fn public(mut self, router: OpenApiRouter) -> Self {
        self.router = self.router.merge(router);
        self
    }
    #[must_use]
    pub fn internal(mut self, router: axum::Router) -> Self {
        self.internal = self.internal.merge(router);
        self
    }
    #[must_use]
    pub fn worker(mut self, worker: Worker) -> Self {
        self.workers.push(worker);
        self
    }
    #[must_use]
    pub fn workers(mut self, workers: impl IntoIterator<Item = Worker>) -> Self {
        self.workers.extend(workers);
        self
    }
    #[must_use]
    pub fn collectors(
        mut self,
        collectors: impl IntoIterator<Item = Box<dyn prometheus::core::Collector>>,
    ) -> Self {
        self.collectors.extend(collectors);
        self
    }
    #[must_use]
    pub fn ready_when(mut self, check: Check) -> Self {
        self.readiness.push(check);
        self
    }
}

/// Work a role does by itself: relays, reconcilers, expiry. Runs until the token is cancelled.
pub struct Worker {
    pub name: &'static str,
    pub run: Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send>,
}

impl Worker {
    pub fn new<F>(
        name: &'static str,
        run: impl FnOnce(CancellationToken) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self { name, run: Box::new(move |stop| Box::pin(run(stop))) }
    }

    /// Runs `step` again and again: at once while it returns true (there was work), else after `pause`.
    /// A failing step is logged and tried again after a growing pause, up to a minute.
    pub fn every<F, E>(
        name: &'static str,
        pause: Duration,
        mut step: impl FnMut() -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<bool, E>> + Send,
        E: std::error::Error + 'static,
    {
        Self::new(name, move |stop| async move {
            let mut failures = 0_u32;
            while !stop.is_cancelled() {
                let wait = match step().await {
                    Ok(true) => {
                        failures = 0;
                        continue;
                    }
                    Ok(false) => {
                        failures = 0;
                        pause
                    }
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        let text = crate::failure::chain(&error);
                        drop(error);
                        tracing::warn!(worker = name, failures, error = %text, "worker failed");
                        (pause * 2_u32.saturating_pow(failures.min(8))).min(Duration::from_secs(60))
                    }
                };
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
        })
    }
}

/// A condition without which a role should get no requests.
#[derive(Clone)]
pub struct Check {
    pub name: &'static str,
    /// Err: what is missing, for the operator.
    pub run: Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

impl Check {
    pub fn new<F>(name: &'static str, run: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { name, run: Arc::new(move || Box::pin(run())) }
    }

    /// The role's database answers.
    pub fn database(db: &pg::Db) -> Self {
        let db = db.clone();
        Self::new("database", move || {
            let db = db.clone();
            async move { db.ping().await.map_err(|error| error.to_string()) }
        })
    }
}
