//! How a workload stands with its policy, and what an event changes about it. Pure.
//!
//! Invariants: what is due follows from the plan and the moment; many missed ticks become one run; a retry never moves
//! the next tick; the objective is measured from the beginning of the newest run that succeeded.

use std::time::Duration;

use api::policy::PolicySettings;
use domain::{Timestamp, WorkloadId, run::RunState};

use super::{
    store::{Plan, Standing},
    timetable::{Tick, Timetable},
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

/// The timetable of a plan, if it has one that can be read.
pub fn timetable(plan: &PolicySettings, now: Timestamp) -> Option<Timetable> {
    Timetable::read(plan.schedule.as_ref()?, now).ok()
}

/// Lets `plan` hold from `now` on. A schedule that stays as it was moves nothing.
pub fn plan(standing: &mut Standing, plan: Option<Plan>, is_paused: bool, now: Timestamp) {
    let schedule =
        |plan: &Option<Plan>| plan.as_ref().and_then(|plan| plan.settings.schedule.clone());
    let stays =
        schedule(&plan) == schedule(&standing.plan) && standing.due_at.is_some() && !is_paused;
    let before = objective(standing);
    standing.plan = plan;
    if !stays {
        let planned = standing.plan.as_ref().filter(|_| !is_paused);
        let table = planned.and_then(|plan| timetable(&plan.settings, now));
        set_next(standing, table.as_ref(), now);
    }
    set_objective(standing, before, now);
}

/// What becomes of a due workload, and when it is due next.
pub fn dispatch(standing: &mut Standing, table: &Timetable, now: Timestamp) -> Dispatch {
    let (due, tick) = (standing.due_at, standing.tick_at);
    set_next(standing, Some(table), now);
    let Some(tick) = tick.and_then(|tick| this_tick(table, standing.workload_id, tick)) else {
        // Another attempt: in the window it falls into, within an hour.
        return match table.window(due.unwrap_or(now).max(now)) {
            Some((opens, closes)) => Dispatch::Queue((Some(opens), Some(closes))),
            None => Dispatch::Queue((None, (!table.run_if_missed()).then(|| now + 60 * MINUTE))),
        };
    };
    match tick.start_by {
        Some(start_by) if start_by <= now && !table.run_if_missed() => Dispatch::Missed,
        Some(start_by) if start_by <= now => Dispatch::Queue(made_up(table, now)),
        start_by => Dispatch::Queue((None, start_by)),
    }
}

/// Where a run that was not started in its time waits next: in the next window, or anywhere.
pub fn made_up(table: &Timetable, now: Timestamp) -> Start {
    table.window(now).map_or((None, None), |(opens, closes)| (Some(opens), Some(closes)))
}

/// A run of the workload has ended.
pub fn ended(
    standing: &mut Standing,
    state: RunState,
    started_at: Option<Timestamp>,
    is_scheduled: bool,
    now: Timestamp,
) {
    match state {
        RunState::Succeeded | RunState::SucceededWithExceptions => {
            standing.protected_at = standing.protected_at.max(started_at);
            standing.failures = 0;
            if standing.tick_at.is_none() && standing.due_at.is_some() {
                // An attempt was to come; it is no longer needed.
                let table = standing.plan.as_ref().and_then(|plan| timetable(&plan.settings, now));
                set_next(standing, table.as_ref(), now);
            }
            let minutes = objective(standing);
            set_objective(standing, minutes, now);
        }
        RunState::Failed | RunState::Lost => {
            standing.failures = standing.failures.saturating_add(1);
            if is_scheduled {
                retry(standing, now);
            }
        }
        RunState::Queued | RunState::Running | RunState::Canceled | RunState::Missed => {}
    }
}

/// Another attempt, if the plan has one left and it comes before the next tick.
fn retry(standing: &mut Standing, now: Timestamp) {
    let Some(rule) = standing.plan.as_ref().and_then(|plan| plan.settings.retry) else { return };
    if standing.failures > rule.attempts || standing.due_at.is_none() {
        return;
    }
    let doubled = 1_u32 << (standing.failures - 1).min(10);
    let at = now + MINUTE * rule.after_minutes.saturating_mul(doubled);
    if standing.due_at.is_some_and(|due| at < due) {
        standing.due_at = Some(at);
        standing.tick_at = None;
    }
}

fn set_next(standing: &mut Standing, table: Option<&Timetable>, now: Timestamp) {
    let next = table.and_then(|table| table.next(standing.workload_id, now));
    standing.due_at = next.map(|tick| tick.start);
    standing.tick_at = next.map(|tick| tick.at);
}

fn this_tick(table: &Timetable, workload: WorkloadId, at: Timestamp) -> Option<Tick> {
    table.next(workload, at - Duration::from_secs(1)).filter(|tick| tick.at == at)
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
