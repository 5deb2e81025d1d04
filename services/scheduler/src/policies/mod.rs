//! Policies: what is backed up when, inherited and protected, and what workloads owe them.
//!
//! Use cases only; when something is due is decided in [`timetable`], what holds in [`settings`], what an event
//! changes about a workload in [`standing`]. Invariant: whoever changes a policy plans every workload it holds for in
//! the same transaction, so that nothing follows a policy that is no longer there.

pub mod http;
pub mod jobs;
mod settings;
pub mod standing;
pub mod store;
mod timetable;

use std::collections::BTreeMap;

use api::scheduler::Run;
use api::{
    Problem,
    policy::{
        AssignPolicy, Policy, Protection, Setting, SimulatePolicy, SimulatedTick, Simulation,
        WritePolicy,
    },
};
use domain::{PolicyId, TenantId, Timestamp, WorkloadId, run::RunState};
use pg::{Scope, TenantTx};
use runtime::Cx;
use uuid::Uuid;

use crate::{
    runs::{Error, validate},
    state::Scheduler,
};
use settings::{InForce, Level};
use store::{Plan, PolicyRow, Standing};
use timetable::Timetable;

/// Of one tenant.
pub const MOST_POLICIES: usize = 200;
/// Of one simulation.
const MOST_TICKS: u32 = 100;
/// Policies one under another, the last one counted.
const LONGEST_CHAIN: usize = 5;
const NAME_KEY: &str = "policies_tenant_id_name_key_key";
const DEFAULT_KEY: &str = "policies_tenant_id_default_key";

impl Scheduler {
    pub async fn list_policies(&self, scope: Scope) -> Result<Vec<Policy>, Error> {
        let tenant = scope.tenant();
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        let all = Policies(store::list(tx.conn(), tenant).await?);
        let counts = store::count_workloads(tx.conn(), tenant).await?;
        Ok(all.0.iter().map(|row| all.show(tenant, row, &counts)).collect())
    }

    pub async fn get_policy(&self, scope: Scope, id: PolicyId) -> Result<Policy, Error> {
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        self.show_policy(&mut tx, id).await
    }

    async fn show_policy(&self, tx: &mut TenantTx, id: PolicyId) -> Result<Policy, Error> {
        let tenant = tx.tenant();
        let all = Policies(store::list(tx.conn(), tenant).await?);
        let counts = store::count_workloads(tx.conn(), tenant).await?;
        let row = all.find(id).ok_or(Error::NotFound)?;
        Ok(all.show(tenant, row, &counts))
    }

    pub async fn create_policy(
        &self,
        cx: &Cx,
        scope: Scope,
        body: WritePolicy,
    ) -> Result<Policy, Error> {
        let (tenant, now) = (scope.tenant(), cx.now());
        let row = read(cx.id(), &body, now, now)?;
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        store::lock(tx.conn(), tenant).await?;
        let mut all = Policies(store::list(tx.conn(), tenant).await?);
        if all.0.len() >= MOST_POLICIES {
            return Err(Error::Conflict(format!("a tenant has at most {MOST_POLICIES} policies")));
        }
        all.0.push(row.clone());
        all.check(&row)?;
        store::insert(tx.conn(), tenant, &row).await.map_err(taken)?;
        let planned = plan_all(&mut tx, &all, &[row.id], row.is_default, now).await?;
        let made = self.show_policy(&mut tx, row.id).await?;
        tx.commit(event(cx, "policy.created", &row).detail("workloads", planned)).await?;
        Ok(made)
    }

    /// Replaces a policy. What is queued or running goes on as it was; everything later follows the new one.
    pub async fn replace_policy(
        &self,
        cx: &Cx,
        scope: Scope,
        id: PolicyId,
        body: WritePolicy,
    ) -> Result<Policy, Error> {
        let (tenant, now) = (scope.tenant(), cx.now());
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        store::lock(tx.conn(), tenant).await?;
        let mut all = Policies(store::list(tx.conn(), tenant).await?);
        let before = all.find(id).ok_or(Error::NotFound)?.clone();
        if body.revision.is_some_and(|read| read != before.revision) {
            return Err(Error::Conflict(format!(
                "the policy was changed meanwhile (it is at revision {}); read it again",
                before.revision
            )));
        }
        let row = read(id, &body, before.created_at, now)?;
        all.put(row.clone());
        // Those below it too: what it protects now may be more than before, which overrules and breaks nothing; but
        // a chain may have become too long, or a circle.
        all.check(&row)?;
        for below in all.below(id) {
            all.check_chain(below)?;
        }
        store::update(tx.conn(), tenant, &row).await.map_err(taken)?;
        let touched: Vec<PolicyId> = all.below(id).map(|below| below.id).chain([id]).collect();
        let defaults =
            before.is_default || all.0.iter().any(|p| p.is_default && touched.contains(&p.id));
        let planned = plan_all(&mut tx, &all, &touched, defaults, now).await?;
        let made = self.show_policy(&mut tx, id).await?;
        let said = event(cx, "policy.changed", &row)
            .detail("revision", made.revision)
            .detail("workloads", planned);
        tx.commit(said).await?;
        Ok(made)
    }

    /// Removes a policy nothing depends on.
    pub async fn remove_policy(&self, cx: &Cx, scope: Scope, id: PolicyId) -> Result<(), Error> {
        let tenant = scope.tenant();
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        store::lock(tx.conn(), tenant).await?;
        let all = Policies(store::list(tx.conn(), tenant).await?);
        let row = all.find(id).ok_or(Error::NotFound)?;
        let counts = store::count_workloads(tx.conn(), tenant).await?;
        let held = all.held_by(row, &counts);
        if held > 0 {
            return Err(Error::Conflict(format!(
                "it holds for {held} workloads; give them another policy, or make another one the default, first"
            )));
        }
        if let Some(below) = all.0.iter().find(|below| below.extends == Some(id)) {
            return Err(Error::Conflict(format!(
                "the policy {:?} extends it; change that one first",
                below.name
            )));
        }
        store::delete(tx.conn(), tenant, id).await?;
        tx.commit(event(cx, "policy.removed", row)).await?;
        Ok(())
    }

    /// Gives a workload a policy, or lets the default hold for it.
    pub async fn assign_policy(
        &self,
        cx: &Cx,
        scope: Scope,
        workload: WorkloadId,
        body: &AssignPolicy,
    ) -> Result<Protection, Error> {
        let tenant = scope.tenant();
        self.learn_workload(scope, workload, cx.now()).await?;
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        store::lock(tx.conn(), tenant).await?;
        let all = Policies(store::list(tx.conn(), tenant).await?);
        if let Some(id) = body.policy_id
            && all.find(id).is_none()
        {
            return Err(Problem::validation("policy_id", "the tenant has no such policy").into());
        }
        let standing = store::lock_standing(tx.conn(), tenant, workload).await?;
        let mut standing = standing.ok_or(Error::NotFound)?;
        standing.policy = body.policy_id;
        all.in_force_for_all().plan(&mut standing, cx.now());
        store::set_standing(tx.conn(), tenant, &standing).await?;
        let said = cx
            .event("workload.policy_assigned", "workload", &workload)
            .detail("policy_id", standing.policy);
        tx.commit(said).await?;
        Ok(all.protection(&standing))
    }

    /// How workloads stand, in the order of their ids.
    pub async fn list_protections(
        &self,
        scope: Scope,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Protection>, Error> {
        let tenant = scope.tenant();
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        let all = Policies(store::list(tx.conn(), tenant).await?);
        let standings = store::list_standings(tx.conn(), tenant, after, limit).await?;
        Ok(standings.iter().map(|standing| all.protection(standing)).collect())
    }

    /// What a schedule would do. Nothing is stored.
    pub async fn simulate(
        &self,
        tenant: TenantId,
        body: SimulatePolicy,
    ) -> Result<Simulation, Error> {
        if !(1..=MOST_TICKS).contains(&body.ticks) {
            return Err(Problem::validation("ticks", format!("1 to {MOST_TICKS}")).into());
        }
        let from = body.from.unwrap_or_else(|| self.clock.now());
        // A schedule made to be slow takes a thread that serves nobody.
        let _one_at_a_time = self.simulating.lock().await;
        let task = tokio::task::spawn_blocking(move || simulated(tenant, &body, from));
        task.await.map_err(|_| Error::Conflict("the simulation ended early".to_owned()))?
    }
}

fn simulated(
    tenant: TenantId,
    body: &SimulatePolicy,
    mut from: Timestamp,
) -> Result<Simulation, Error> {
    let table = Timetable::read(&body.schedule, from).map_err(|wrong| refuse("schedule", wrong))?;
    // A schedule is shown for a workload that does not exist: ticks as they are, its own spread left out.
    let nobody = WorkloadId::from_bytes(tenant.into_bytes());
    let mut ticks = Vec::new();
    while ticks.len() < body.ticks as usize {
        let Some(tick) = table.next(nobody, from) else { break };
        ticks.push(SimulatedTick {
            at: tick.at,
            local: table.local(tick.at),
            start_by: tick.start_by,
        });
        from = tick.at;
    }
    Ok(Simulation { ticks, words: table.words() })
}

/// Plans a workload that has just become known. The tenant's policies are held by the caller.
pub async fn plan_new(
    tx: &mut TenantTx,
    workload: WorkloadId,
    now: Timestamp,
) -> Result<(), Error> {
    let tenant = tx.tenant();
    let all = Policies(store::list(tx.conn(), tenant).await?);
    if all.default().is_none() {
        return Ok(());
    }
    let Some(mut standing) = store::lock_standing(tx.conn(), tenant, workload).await? else {
        return Ok(());
    };
    all.in_force_for_all().plan(&mut standing, now);
    store::set_standing(tx.conn(), tenant, &standing).await?;
    Ok(())
}

/// What the end of a run means for its workload. The workload's row is held by the caller.
pub async fn run_ended(
    tx: &mut TenantTx,
    run: &Run,
    state: RunState,
    now: Timestamp,
) -> Result<(), Error> {
    let tenant = tx.tenant();
    let Some(mut standing) = store::lock_standing(tx.conn(), tenant, run.workload_id).await? else {
        return Ok(());
    };
    standing::ended(&mut standing, state, run, now);
    store::set_standing(tx.conn(), tenant, &standing).await?;
    Ok(())
}

/// When a planned run that did not start in its time may start instead; `None`: it is missed.
pub async fn next_start(
    tx: &mut TenantTx,
    workload: WorkloadId,
    now: Timestamp,
) -> Result<Option<(Option<Timestamp>, Option<Timestamp>)>, Error> {
    let tenant = tx.tenant();
    let standing = store::lock_standing(tx.conn(), tenant, workload).await?;
    let plan = standing.and_then(|standing| standing.plan);
    let table = plan.and_then(|plan| standing::timetable(&plan.settings));
    Ok(table.filter(Timetable::run_if_missed).map(|table| standing::made_up(&table, now)))
}

/// Plans the workloads that were given one of `touched`, and with `defaults` those that were given none.
async fn plan_all(
    tx: &mut TenantTx,
    all: &Policies,
    touched: &[PolicyId],
    defaults: bool,
    now: Timestamp,
) -> Result<usize, Error> {
    let tenant = tx.tenant();
    let mut standings = store::lock_standings_of(tx.conn(), tenant, touched, defaults).await?;
    let mut in_force = all.in_force_for_all();
    for standing in &mut standings {
        in_force.plan(standing, now);
        store::set_standing(tx.conn(), tenant, standing).await?;
    }
    Ok(standings.len())
}

/// All policies of a tenant.
struct Policies(Vec<PolicyRow>);

impl Policies {
    fn find(&self, id: PolicyId) -> Option<&PolicyRow> {
        self.0.iter().find(|row| row.id == id)
    }
    fn default(&self) -> Option<&PolicyRow> {
        self.0.iter().find(|row| row.is_default)
    }
    fn put(&mut self, row: PolicyRow) {
        self.0.retain(|other| other.id != row.id);
        self.0.push(row);
    }

    /// From the policy that extends none down to `row`; at most one more than are allowed, so that a circle ends.
    fn chain<'a>(&'a self, row: &'a PolicyRow) -> Vec<&'a PolicyRow> {
        let mut chain = vec![row];
        let mut at = row;
        while let Some(above) = at.extends.and_then(|id| self.find(id)) {
            chain.push(above);
            if chain.len() > LONGEST_CHAIN {
                break;
            }
            at = above;
        }
        chain.reverse();
        chain
    }

    /// Every policy that extends this one, through others too.
    fn below(&self, id: PolicyId) -> impl Iterator<Item = &PolicyRow> {
        self.0
            .iter()
            .filter(move |row| row.id != id && self.chain(row).iter().any(|above| above.id == id))
    }

    fn in_force(&self, row: &PolicyRow) -> InForce {
        let level = |row: &&PolicyRow| Level {
            settings: row.settings.clone(),
            protected: row.protected.clone(),
        };
        settings::in_force(&self.chain(row).iter().map(level).collect::<Vec<_>>())
    }

    /// Refuses a policy that cannot be in force as it was written.
    fn check(&self, row: &PolicyRow) -> Result<(), Error> {
        self.check_chain(row)?;
        if self.is_pause_overruled(row) {
            let words = "a policy this one extends protects its schedule, which a pause would end";
            return Err(Problem::validation("is_paused", words).into());
        }
        let overruled = self.in_force(row).overruled;
        if overruled.is_empty() {
            return Ok(());
        }
        let wrong = overruled.iter().fold(Problem::new(api::Code::Validation), |wrong, setting| {
            let (field, detail) = match setting {
                Setting::Source => {
                    ("settings/source", "every path stays, and nothing more is excluded")
                }
                Setting::Schedule => {
                    ("settings/schedule", "the schedule stays as it is: leave it out")
                }
                Setting::Retry => ("settings/retry", "at least as many attempts, and none later"),
                Setting::Rpo => ("settings/rpo_minutes", "at most as many minutes"),
            };
            wrong.field(field, format!("a policy this one extends protects it: {detail}"))
        });
        Err(wrong.into())
    }

    fn check_chain(&self, row: &PolicyRow) -> Result<(), Error> {
        if let Some(above) = row.extends
            && self.find(above).is_none()
        {
            return Err(Problem::validation("extends", "the tenant has no such policy").into());
        }
        let chain = self.chain(row);
        let first = chain.iter().rposition(|above| above.id == row.id);
        if chain.iter().position(|above| above.id == row.id) != first {
            return Err(Problem::validation(
                "extends",
                "that policy extends this one already, perhaps through others",
            )
            .into());
        }
        if chain.len() > LONGEST_CHAIN {
            let detail = format!("at most {LONGEST_CHAIN} policies one under another");
            return Err(Problem::validation("extends", detail).into());
        }
        Ok(())
    }

    /// The policy that holds for a workload.
    fn of(&self, standing: &Standing) -> Option<&PolicyRow> {
        match standing.policy {
            Some(id) => self.find(id),
            None => self.default(),
        }
    }

    /// What the workloads of each policy follow, read once for all of them.
    fn in_force_for_all(&self) -> InForceForAll<'_> {
        InForceForAll { policies: self, read: BTreeMap::new() }
    }

    /// Paused, and allowed to be: what protects its schedule from above does not let it stand still.
    fn is_paused(&self, row: &PolicyRow) -> bool {
        row.is_paused && !self.is_pause_overruled(row)
    }

    fn is_pause_overruled(&self, row: &PolicyRow) -> bool {
        let above = self.chain(row).into_iter().filter(|above| above.id != row.id);
        row.is_paused && above.into_iter().any(|above| above.protected.contains(&Setting::Schedule))
    }

    fn held_by(&self, row: &PolicyRow, counts: &[(Option<PolicyId>, u64)]) -> u64 {
        let counts: BTreeMap<_, _> = counts.iter().copied().collect();
        let given = counts.get(&Some(row.id)).copied().unwrap_or(0);
        let rest = if row.is_default { counts.get(&None).copied().unwrap_or(0) } else { 0 };
        given + rest
    }

    fn show(
        &self,
        tenant: TenantId,
        row: &PolicyRow,
        counts: &[(Option<PolicyId>, u64)],
    ) -> Policy {
        let force = self.in_force(row);
        Policy {
            id: row.id,
            tenant_id: tenant,
            name: row.name.clone(),
            extends: row.extends,
            schedule_words: standing::timetable(&force.settings).map(|table| table.words()),
            settings: row.settings.clone(),
            effective: force.settings,
            overruled: force.overruled,
            protected: row.protected.clone(),
            is_default: row.is_default,
            is_paused: row.is_paused,
            revision: row.revision,
            created_at: row.created_at,
            updated_at: row.updated_at,
            workloads: self.held_by(row, counts),
        }
    }

    fn protection(&self, standing: &Standing) -> Protection {
        Protection {
            workload_id: standing.workload_id,
            policy_id: self.of(standing).map(|row| row.id),
            is_assigned: standing.policy.is_some(),
            next_due_at: standing.due_at,
            protected_at: standing.protected_at,
            rpo_due_at: standing.rpo_due_at,
            rpo_breached_at: standing.rpo_breached_at,
            failures: standing.failures,
        }
    }
}

/// What is in force by a policy, and its timetable.
struct InForceForAll<'a> {
    policies: &'a Policies,
    read: BTreeMap<PolicyId, (Plan, Option<Timetable>)>,
}

impl InForceForAll<'_> {
    fn plan(&mut self, standing: &mut Standing, now: Timestamp) {
        let Some(policy) = self.policies.of(standing) else {
            return standing::plan(standing, None, None, false, now);
        };
        let (plan, table) = self.read.entry(policy.id).or_insert_with(|| {
            let settings = self.policies.in_force(policy).settings;
            let table = standing::timetable(&settings);
            (Plan { policy_id: policy.id, settings }, table)
        });
        let is_paused = self.policies.is_paused(policy);
        standing::plan(standing, Some(plan.clone()), table.as_ref(), is_paused, now);
    }
}

/// Every wrong field at once.
fn read(
    id: PolicyId,
    body: &WritePolicy,
    created_at: Timestamp,
    now: Timestamp,
) -> Result<PolicyRow, Problem> {
    let mut wrong = Problem::new(api::Code::Validation);
    let name = api::names::name("name", &body.name).unwrap_or_else(|problem| {
        wrong.fields.extend(problem.fields);
        String::new()
    });
    let settings = &body.settings;
    if let Some(schedule) = &settings.schedule
        && let Err(errors) = Timetable::read(schedule, now)
    {
        wrong.fields.extend(refuse("settings/schedule", errors).fields);
    }
    if let Some(source) = &settings.source
        && let Err(problem) = validate::source(source)
    {
        let under = problem.fields.into_iter().map(|mut wrong| {
            wrong.field = format!("settings/{}", wrong.field);
            wrong
        });
        wrong.fields.extend(under);
    }
    if let Some(retry) = settings.retry {
        if retry.attempts > 10 {
            wrong = wrong.field("settings/retry/attempts", "0 to 10");
        }
        if !(1..=1_440).contains(&retry.after_minutes) {
            wrong = wrong.field("settings/retry/after_minutes", "1 to 1440");
        }
    }
    if settings.rpo_minutes.is_some_and(|minutes| !(15..=527_040).contains(&minutes)) {
        wrong = wrong.field("settings/rpo_minutes", "15 to 527040 (a year)");
    }
    if !wrong.fields.is_empty() {
        wrong.fields.truncate(20);
        return Err(wrong);
    }
    let mut protected = body.protected.clone();
    protected.sort_unstable();
    protected.dedup();
    Ok(PolicyRow {
        id,
        name,
        extends: body.extends,
        settings: settings.clone(),
        protected,
        is_default: body.is_default,
        is_paused: body.is_paused,
        revision: 1,
        created_at,
        updated_at: now,
    })
}

fn refuse(under: &str, wrong: Vec<timetable::Wrong>) -> Problem {
    wrong.into_iter().fold(Problem::new(api::Code::Validation), |problem, wrong| {
        problem.field(format!("{under}/{}", wrong.field), wrong.detail)
    })
}

fn taken(error: pg::Error) -> Error {
    if error.violates(NAME_KEY) {
        Problem::new(api::Code::AlreadyExists)
            .field("name", "the tenant has a policy of this name")
            .into()
    } else if error.violates(DEFAULT_KEY) {
        Problem::new(api::Code::AlreadyExists)
            .field("is_default", "another policy is the tenant's default; make that one none first")
            .into()
    } else {
        Error::Database(error)
    }
}

fn event(cx: &Cx, action: &'static str, policy: &PolicyRow) -> pg::AuditEvent {
    cx.event(action, "policy", &policy.id)
        .detail("name", &policy.name)
        .detail("is_default", policy.is_default)
        .detail("is_paused", policy.is_paused)
}
