//! Stopping: one token for the whole process, tasks that are known by name, a drain that ends.

use std::{sync::Arc, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The process's tasks and the token that stops them.
#[derive(Clone, Default)]
pub struct Lifecycle {
    stop: CancellationToken,
    tasks: TaskTracker,
    failed: Arc<std::sync::atomic::AtomicBool>,
}

impl Lifecycle {
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the process shall stop.
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Stops everything now.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Stops on SIGTERM or SIGINT.
    ///
    /// # Errors
    /// When signals cannot be watched.
    pub fn stop_on_signals(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                () = stop.cancelled() => return,
            };
            tracing::info!(signal = name, "stopping");
            stop.cancel();
        });
        Ok(())
    }

    /// Runs a task that shall live as long as the process. If it panics, the process stops: half a
    /// server is worse than none.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (stop, failed) = (self.stop.clone(), self.failed.clone());
        let inner = tokio::spawn(task);
        self.tasks.spawn(async move {
            if let Err(error) = inner.await
                && error.is_panic()
            {
                tracing::error!(task = name, "a task panicked; stopping");
                failed.store(true, std::sync::atomic::Ordering::Relaxed);
                stop.cancel();
            }
        });
    }

    /// Waits until the process shall stop, then for its tasks, at most `within`. True when all ended, and
    /// none by a panic.
    pub async fn drain(&self, within: Duration) -> bool {
        self.stop.cancelled().await;
        self.tasks.close();
        let ended = tokio::time::timeout(within, self.tasks.wait()).await.is_ok();
        if !ended {
            tracing::warn!(left = self.tasks.len(), "tasks were cut off");
        }
        ended && !self.failed.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_tasks_but_not_for_ever() {
        let life = Lifecycle::new();
        let stop = life.token();
        life.spawn("good", async move { stop.cancelled().await });
        life.stop();
        assert!(life.drain(Duration::from_secs(5)).await);

        let life = Lifecycle::new();
        life.spawn("stuck", std::future::pending());
        life.stop();
        assert!(!life.drain(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_panicking_task_stops_the_process() {
        let life = Lifecycle::new();
        life.spawn("bad", async { panic!("on purpose") });
        assert!(!life.drain(Duration::from_secs(5)).await);
    }
}
