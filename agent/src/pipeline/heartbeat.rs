//! Signs of life during a run: to the scheduler with progress, to the catalog for the session.
//!
//! A heartbeat that does not get through is nothing: the next one is its retry, and the lease decides.
//! Only a clear word (cancel, fenced, lease lost) stops the run.

use std::{
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use api::{
    Code,
    catalog::SessionHeartbeat,
    client::Error,
    scheduler::{Progress, RunHeartbeat},
};
use domain::{RunId, SessionId};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::feed::Counters;
use crate::control::Control;

/// Progress is shown to somebody who waits: every two seconds.
const PROGRESS: Duration = Duration::from_secs(2);

/// Why a run was stopped from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Somebody asked for it, here or in the portal.
    Canceled,
    /// Another session or the server's clock took the run away.
    Lost(Code),
}

/// What beats.
#[derive(Clone)]
pub struct Heart {
    pub control: Control,
    pub run: RunId,
    pub epoch: u64,
    pub session: SessionId,
    pub fence: u64,
    pub session_every: Duration,
    pub counters: Arc<Counters>,
    pub cancel: CancellationToken,
    pub stop: Arc<OnceLock<Stop>>,
}

impl Counters {
    /// As the scheduler wants it.
    pub fn progress(&self, phase: &str) -> Progress {
        let stored = self.stored_bytes.load(Ordering::Relaxed);
        Progress {
            files: self.files.load(Ordering::Relaxed),
            source_bytes: self.source_bytes.load(Ordering::Relaxed),
            new_bytes: stored,
            stored_bytes: stored,
            exceptions: self.exceptions.load(Ordering::Relaxed),
            phase: phase.to_owned(),
        }
    }
}

impl Heart {
    /// Beats until aborted.
    pub async fn beat(self) {
        let mut ticks = interval(PROGRESS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut session_due = Instant::now() + self.session_every;
        loop {
            ticks.tick().await;
            let body =
                RunHeartbeat { epoch: self.epoch, progress: self.counters.progress("uploading") };
            match self.control.run_heartbeat(self.run, &body).await {
                Ok(reply) if reply.cancel => self.stop(Stop::Canceled),
                Ok(_) => {}
                Err(error) => self.consider(&error),
            }
            if Instant::now() >= session_due {
                session_due = Instant::now() + self.session_every;
                let body = SessionHeartbeat { fence: self.fence };
                if let Err(error) = self.control.session_heartbeat(self.session, &body).await {
                    self.consider(&error);
                }
            }
        }
    }

    fn consider(&self, error: &Error) {
        match error.code() {
            Some(
                code @ (Code::Fenced | Code::SessionEnded | Code::LeaseLost | Code::AgentRevoked),
            ) => self.stop(Stop::Lost(code)),
            _ => tracing::debug!(%error, "a heartbeat did not get through"),
        }
    }

    fn stop(&self, why: Stop) {
        // The first reason is the one to tell.
        let _ = self.stop.set(why);
        self.cancel.cancel();
    }
}
