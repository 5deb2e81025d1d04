//! How a run ends: the agent's claim, the catalog's word and the lease, weighed. Pure.
//!
//! Invariant (R12): a run succeeds only if a snapshot is proven, by the platform's receipt or by the
//! catalog's own fact. What is proven beats what is claimed: an agent that calls a committed run failed is
//! not believed, and a silent one whose snapshot committed has succeeded. What anybody says was skipped was
//! skipped: a run with an exception never ends, or stays, plainly succeeded.

use domain::{SnapshotId, run::RunState};

/// What is known of a run when something happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub state: RunState,
    /// Success claimed by the agent or coloured by the catalog, not yet settled.
    pub claimed: Option<RunState>,
    /// Proven by the catalog's fact.
    pub snapshot: Option<SnapshotId>,
    /// What the agent last said it skipped.
    pub exceptions: u64,
}

/// What to write down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The run ends in this state.
    End { state: RunState, snapshot: Option<SnapshotId> },
    /// It goes on; remember the claim and, if known, the snapshot.
    Remember { claimed: RunState, snapshot: Option<SnapshotId> },
    /// Nothing new: the same was said before.
    Nothing,
}

/// The state does not allow this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the run has not been leased")]
    NotLeased,
    #[error("the run has ended as {0}")]
    Ended(RunState),
}

const fn is_success(state: RunState) -> bool {
    matches!(state, RunState::Succeeded | RunState::SucceededWithExceptions)
}

const fn success(exceptions: u64) -> RunState {
    if exceptions == 0 { RunState::Succeeded } else { RunState::SucceededWithExceptions }
}

/// A success that knows of exceptions says so; other ends stay as they are.
const fn coloured(state: RunState, exceptions: u64) -> RunState {
    if is_success(state) && exceptions > 0 { RunState::SucceededWithExceptions } else { state }
}

/// Of two words about one success the worse.
fn with_the_worse(state: RunState, other: Option<RunState>) -> RunState {
    coloured(state, u64::from(other == Some(RunState::SucceededWithExceptions)))
}

/// The agent says how it ended and how much it skipped. `proof`: the snapshot of a receipt that was verified.
pub fn finish(
    now: Standing,
    claim: RunState,
    exceptions: u64,
    proof: Option<SnapshotId>,
) -> Result<Outcome, Refused> {
    let proven = now.snapshot.or(proof);
    let claim = with_the_worse(coloured(claim, exceptions), now.claimed);
    match now.state {
        RunState::Queued => Err(Refused::NotLeased),
        RunState::Running | RunState::Lost => Ok(match (is_success(claim), proven) {
            (true, Some(_)) => Outcome::End { state: claim, snapshot: proven },
            (true, None) => Outcome::Remember { claimed: claim, snapshot: None },
            (false, Some(_)) => {
                let state = now.claimed.unwrap_or(RunState::SucceededWithExceptions);
                Outcome::End { state: coloured(state, exceptions), snapshot: proven }
            }
            (false, None) => Outcome::End { state: claim, snapshot: None },
        }),
        // Its report was late, the catalog's word or the lease ended it: what it skipped still counts.
        RunState::Succeeded if claim == RunState::SucceededWithExceptions => {
            Ok(Outcome::End { state: claim, snapshot: now.snapshot })
        }
        ended if ended == claim || (is_success(ended) && is_success(claim)) => Ok(Outcome::Nothing),
        ended => Err(Refused::Ended(ended)),
    }
}

/// The catalog committed a snapshot for this run.
pub fn committed(now: Standing, snapshot: SnapshotId, exceptions: u64) -> Outcome {
    let exceptions = exceptions.max(now.exceptions);
    if now.snapshot.is_some_and(|known| known != snapshot) {
        return Outcome::Nothing;
    }
    if now.snapshot.is_some() {
        // A receipt said that it committed; this word says what was skipped.
        return match coloured(now.state, exceptions) {
            state if state != now.state => Outcome::End { state, snapshot: now.snapshot },
            _ => Outcome::Nothing,
        };
    }
    let snapshot = Some(snapshot);
    match (now.state, now.claimed) {
        // The agent said so before and only waited for this word.
        (RunState::Running | RunState::Lost, Some(claimed)) => {
            Outcome::End { state: coloured(claimed, exceptions), snapshot }
        }
        (RunState::Lost, None) => Outcome::End { state: success(exceptions), snapshot },
        // Its report is still to come, and says more than we know.
        (RunState::Running, None) => Outcome::Remember { claimed: success(exceptions), snapshot },
        _ => Outcome::Nothing,
    }
}

/// The lease of a running run is over and nothing was heard.
pub fn lease_over(now: Standing) -> RunState {
    match (now.snapshot, now.claimed) {
        (Some(_), Some(claimed)) => coloured(claimed, now.exceptions),
        (Some(_), None) => success(now.exceptions),
        (None, _) => RunState::Lost,
    }
}

#[cfg(test)]
mod tests {
    use domain::Id;

    use super::*;

    const DONE: RunState = RunState::Succeeded;
    const PARTLY: RunState = RunState::SucceededWithExceptions;

    fn snapshot() -> SnapshotId {
        Id::from_bytes([7; 16])
    }
    fn standing(state: RunState) -> Standing {
        Standing { state, claimed: None, snapshot: None, exceptions: 0 }
    }

    #[test]
    fn no_success_without_proof() {
        for state in [RunState::Running, RunState::Lost] {
            let outcome = finish(standing(state), DONE, 0, None);
            assert_eq!(outcome, Ok(Outcome::Remember { claimed: DONE, snapshot: None }));
        }
        assert_eq!(
            lease_over(Standing { claimed: Some(DONE), ..standing(RunState::Running) }),
            RunState::Lost
        );
    }

    #[test]
    fn a_receipt_or_the_catalogs_word_ends_it() {
        let proof = Some(snapshot());
        let end = |state| Outcome::End { state, snapshot: proof };
        assert_eq!(finish(standing(RunState::Running), PARTLY, 0, proof), Ok(end(PARTLY)));
        let claimed = Standing { claimed: Some(PARTLY), ..standing(RunState::Running) };
        assert_eq!(committed(claimed, snapshot(), 0), end(PARTLY));
        assert_eq!(committed(standing(RunState::Lost), snapshot(), 3), end(PARTLY));
        assert_eq!(committed(standing(RunState::Lost), snapshot(), 0), end(DONE));
    }

    #[test]
    fn the_catalogs_word_before_the_report_waits_for_the_report_or_the_lease() {
        let outcome = committed(standing(RunState::Running), snapshot(), 0);
        assert_eq!(outcome, Outcome::Remember { claimed: DONE, snapshot: Some(snapshot()) });
        let known = Standing {
            claimed: Some(DONE),
            snapshot: Some(snapshot()),
            ..standing(RunState::Running)
        };
        assert_eq!(lease_over(known), DONE);
        assert_eq!(
            finish(known, RunState::Failed, 0, None),
            Ok(Outcome::End { state: DONE, snapshot: Some(snapshot()) })
        );
    }

    #[test]
    fn whoever_knows_of_exceptions_is_heard() {
        let proof = Some(snapshot());
        let end = Outcome::End { state: PARTLY, snapshot: proof };
        let running = standing(RunState::Running);
        // The report's own figures against its own claim.
        assert_eq!(finish(running, DONE, 1, proof), Ok(end));
        let waits = Outcome::Remember { claimed: PARTLY, snapshot: None };
        assert_eq!(finish(running, DONE, 1, None), Ok(waits));
        // The catalog's word before the report, and after a claim.
        let told = Standing { claimed: Some(PARTLY), snapshot: proof, ..running };
        assert_eq!(finish(told, DONE, 0, None), Ok(end));
        let claimed = Standing { claimed: Some(DONE), ..running };
        assert_eq!(committed(claimed, snapshot(), 2), end);
        assert_eq!(committed(Standing { exceptions: 1, ..claimed }, snapshot(), 0), end);
        // After the end: a receipt ended it before the catalog spoke, or the lease before the report came.
        let done = Standing { snapshot: proof, ..standing(DONE) };
        assert_eq!(committed(done, snapshot(), 2), end);
        assert_eq!(finish(done, DONE, 3, None), Ok(end));
        assert_eq!(committed(done, Id::from_bytes([8; 16]), 2), Outcome::Nothing);
        let partly = Standing { state: PARTLY, ..done };
        assert_eq!(committed(partly, snapshot(), 0), Outcome::Nothing);
        assert_eq!(finish(partly, DONE, 0, None), Ok(Outcome::Nothing));
        // Silence after a heartbeat that named some.
        let silent = Standing { exceptions: 1, snapshot: proof, ..running };
        assert_eq!(lease_over(silent), PARTLY);
        assert_eq!(lease_over(Standing { claimed: Some(DONE), ..silent }), PARTLY);
        // What failed has failed, whatever it skipped.
        let failed = Outcome::End { state: RunState::Failed, snapshot: None };
        assert_eq!(finish(running, RunState::Failed, 4, None), Ok(failed));
    }

    #[test]
    fn every_step_is_one_the_state_machine_knows() {
        for state in RunState::ALL {
            for claim in [DONE, PARTLY, RunState::Failed, RunState::Canceled] {
                for proof in [None, Some(snapshot())] {
                    if let Ok(Outcome::End { state: next, snapshot }) =
                        finish(standing(state), claim, 1, proof)
                    {
                        assert!(state.may_become(next), "{state} to {next}");
                        assert!(!is_success(next) || snapshot.is_some() || state == DONE);
                    }
                }
            }
            if let Outcome::End { state: next, .. } = committed(standing(state), snapshot(), 1) {
                assert!(state.may_become(next), "{state} to {next}");
            }
        }
    }

    #[test]
    fn saying_it_twice_changes_nothing_and_changing_ones_mind_is_refused() {
        assert_eq!(finish(standing(DONE), DONE, 0, None), Ok(Outcome::Nothing));
        assert_eq!(finish(standing(DONE), RunState::Failed, 0, None), Err(Refused::Ended(DONE)));
        assert_eq!(finish(standing(RunState::Queued), DONE, 0, None), Err(Refused::NotLeased));
        let again = Standing { snapshot: Some(snapshot()), ..standing(RunState::Lost) };
        assert_eq!(committed(again, snapshot(), 0), Outcome::Nothing);
    }
}
