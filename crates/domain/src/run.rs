//! Runs: one execution of a backup, restore or verification, as a state machine (R12).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a run stands. The last six are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Waiting for its agent.
    Queued,
    /// An agent holds the lease.
    Running,
    Succeeded,
    /// Everything else was protected; each exception is listed.
    SucceededWithExceptions,
    Failed,
    Canceled,
    /// Never started in its window.
    Missed,
    /// The lease ran out and nothing was heard again.
    Lost,
}

impl RunState {
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::SucceededWithExceptions,
        Self::Failed,
        Self::Canceled,
        Self::Missed,
        Self::Lost,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::SucceededWithExceptions => "succeeded_with_exceptions",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Missed => "missed",
            Self::Lost => "lost",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
    /// Whether the step is one a run may take. A lost run may still end well: the agent was only silent.
    /// A success may be corrected to one with exceptions, never the other way.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Queued => matches!(next, Self::Running | Self::Canceled | Self::Missed),
            Self::Running => next.is_final() && !matches!(next, Self::Missed),
            // What was skipped may become known after the proof of what was not.
            Self::Succeeded => matches!(next, Self::SucceededWithExceptions),
            Self::Lost => matches!(
                next,
                Self::Succeeded | Self::SucceededWithExceptions | Self::Failed | Self::Canceled
            ),
            _ => false,
        }
    }
}

impl std::fmt::Display for RunState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for state in RunState::ALL {
            assert_eq!(RunState::parse(state.as_str()), Some(state));
        }
        assert_eq!(RunState::parse("done"), None);
    }

    #[test]
    fn an_ended_run_never_starts_again() {
        for ended in RunState::ALL.into_iter().filter(|s| s.is_final()) {
            assert!(!ended.may_become(RunState::Queued));
            assert!(!ended.may_become(RunState::Running));
        }
        assert!(!RunState::Succeeded.may_become(RunState::Failed));
        assert!(RunState::Lost.may_become(RunState::Succeeded));
    }
}
