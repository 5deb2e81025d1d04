//! How a workload stands with its policy, and what an event changes about it. Pure.
//!
//! Invariants: what is due follows from the plan and the moment; many missed ticks become one run; a retry never moves
//! the next tick; the objective is measured from the beginning of the newest run that succeeded and read everything the
//! plan says.

use std::time::Duration;

use api::{policy::PolicySettings, scheduler::Run};
use domain::{Timestamp, run::RunState};

use super::{
    settings::reads_less,
    store::{Plan, Standing},
    timetable::Timetable,
};

const MINUTE: Duration = Duration::from_secs(60);

/// From when and until when a run may start.
pub type Start = (Option<Timestamp>, Option<Timestamp>);

/// What is to be done with a workload that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispatch {
    Queue(Start),
    /// It could not start in its time, and is not made up for.
    Missed,
}

/// The timetable of settings that were checked when they were saved.
pub fn timetable(settings: &PolicySettings) -> Option<Timetable> {
    Timetable::parse(settings.schedule.as_ref()?).ok()
}

/// Lets `plan`, whose schedule is `table`, hold from `now` on. A schedule that stays as it was moves nothing.
pub fn plan(
    standing: &mut Standing,
    plan: Option<Plan>,
    table: Option<&Timetable>,
    is_paused: bool,
    now: Timestamp,
) {
    let schedule =
        |plan: &Option<Plan>| plan.as_ref().and_then(|plan| plan.settings.schedule.clone());
    let stays =
        schedule(&plan) == schedule(&standing.plan) && standing.due_at.is_some() && !is_paused;
    let before = objective(standing);
    standing.plan = plan;
    standing.is_unreadable = false;
    if !stays {
        set_next(standing, table.filter(|_| !is_paused), now);
    }
    set_objective(standing, before, now);
}

/// What becomes of a due workload, and when it is due next.
pub fn dispatch(standing: &mut Standing, table: &Timetable, now: Timestamp) -> Dispatch {
    let (due_by, is_retry) = (standing.due_by, standing.is_retry);
    if !is_retry {
        standing.attempts = 0;
    }
    set_next(standing, Some(table), now);
    if is_retry {
        // In a window, or within an hour.
        return Dispatch::Queue(match table.window(now) {
            Some((opens, closes)) => (Some(opens), Some(closes)),
            None => (None, (!table.run_if_missed()).then(|| now + 60 * MINUTE)),
        });
    }
    match due_by {
        Some(due_by) if due_by <= now && !table.run_if_missed() => Dispatch::Missed,
        Some(due_by) if due_by <= now => Dispatch::Queue(made_up(table, now)),
        due_by => Dispatch::Queue((None, due_by)),
    }
}

/// Where a run that was not started in its time waits next: in the next window, or anywhere.
pub fn made_up(table: &Timetable, now: Timestamp) -> Start {
    table.window(now).map_or((None, None), |(opens, closes)| (Some(opens), Some(closes)))
}

/// A run of the workload has ended in `state`.
pub fn ended(standing: &mut Standing, state: RunState, run: &Run, now: Timestamp) {
    match state {
        RunState::Succeeded | RunState::SucceededWithExceptions => {
            let wanted = standing.plan.as_ref().and_then(|plan| plan.settings.source.as_ref());
            if wanted.is_some_and(|wanted| reads_less(&run.source, wanted)) {
                // A success, but not of what is to be protected.
                return;
            }
            standing.protected_at = standing.protected_at.max(run.started_at);
            (standing.failures, standing.attempts) = (0, 0);
            if standing.is_retry {
                // An attempt was to come; it is no longer needed.
                let table = standing.plan.as_ref().and_then(|plan| timetable(&plan.settings));
                set_next(standing, table.as_ref(), now);
            }
            let minutes = objective(standing);
            set_objective(standing, minutes, now);
        }
        RunState::Failed | RunState::Lost => {
            standing.failures = standing.failures.saturating_add(1);
            if run.trigger.is_planned() {
                standing.attempts = standing.attempts.saturating_add(1);
                retry(standing, now);
            }
        }
        RunState::Queued | RunState::Running | RunState::Canceled | RunState::Missed => {}
    }
}

/// Another attempt, if the plan has one left and it comes before the next tick.
fn retry(standing: &mut Standing, now: Timestamp) {
    let Some(rule) = standing.plan.as_ref().and_then(|plan| plan.settings.retry) else { return };
    if standing.attempts > rule.attempts || standing.due_at.is_none() {
        return;
    }
    let doubled = 1_u32 << (standing.attempts - 1).min(10);
    let at = now + MINUTE * rule.after_minutes.saturating_mul(doubled);
    if standing.due_at.is_some_and(|due| at < due) {
        standing.due_at = Some(at);
        standing.due_by = None;
        standing.is_retry = true;
    }
}

fn set_next(standing: &mut Standing, table: Option<&Timetable>, now: Timestamp) {
    let next = table.and_then(|table| table.next_start(standing.workload_id, now));
    standing.due_at = next.map(|tick| tick.start);
    standing.due_by = next.and_then(|tick| tick.start_by);
    standing.is_retry = false;
}

fn objective(standing: &Standing) -> Option<u32> {
    standing.plan.as_ref().and_then(|plan| plan.settings.rpo_minutes)
}

/// A workload that never succeeded has the objective's time from when it was set. `before`: what it was then.
fn set_objective(standing: &mut Standing, before: Option<u32>, now: Timestamp) {
    let minutes = objective(standing);
    let runs_already = standing.rpo_due_at.filter(|_| minutes == before);
    standing.rpo_due_at = minutes.map(|minutes| match standing.protected_at {
        Some(protected) => protected + MINUTE * minutes,
        None => runs_already.unwrap_or(now + MINUTE * minutes),
    });
    if standing.rpo_due_at.is_none_or(|due| due > now) {
        standing.rpo_breached_at = None;
    }
}
