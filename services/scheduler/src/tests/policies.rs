//! Policies: what becomes due, for whom, once; across changes of the clock, replicas and outages.

use api::{
    Page,
    internal::WorkloadCreated,
    policy::{
        AssignPolicy, Policy, PolicySettings, Protection, Retry, Schedule, Setting, SimulatePolicy,
        Simulation, WritePolicy,
    },
    scheduler::Trigger,
};

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn at_two(zone: &str) -> Schedule {
    Schedule {
        cron: vec!["0 2 * * *".into()],
        every_minutes: None,
        zone: zone.into(),
        windows: Vec::new(),
        jitter_minutes: 0,
        run_if_missed: false,
    }
}

pub fn policy(name: &str) -> WritePolicy {
    WritePolicy {
        name: name.into(),
        extends: None,
        settings: PolicySettings {
            source: Some(source(&["/srv"])),
            schedule: Some(at_two("UTC")),
            ..PolicySettings::default()
        },
        protected: Vec::new(),
        is_default: true,
        is_paused: false,
        revision: None,
    }
}

impl World {
    /// The administrator with a token of today: the days of these tests outlive any.
    fn today(&self) -> Client {
        self.app.user(self.tenant, authz::Role::TenantAdmin)
    }
    pub async fn write(&self, body: &WritePolicy) -> Result<Policy, Error> {
        self.today().post(&self.path("policies"), body).await
    }
    async fn replace(&self, id: domain::PolicyId, body: &WritePolicy) -> Result<Policy, Error> {
        self.today().put(&self.path(format_args!("policies/{id}")), body).await
    }
    async fn remove(&self, id: domain::PolicyId) -> Result<(), Error> {
        self.today().delete(&self.path(format_args!("policies/{id}"))).await
    }
    async fn assign(&self, policy: Option<domain::PolicyId>) -> Result<Protection, Error> {
        let path = self.path(format_args!("workloads/{}/policy", self.workload));
        self.today().put(&path, &AssignPolicy { policy_id: policy }).await
    }
    /// The catalog tells of the workload, as when its machine was enrolled.
    async fn enrolled(&self) {
        self.enrolled_as(self.workload).await;
    }
    async fn enrolled_as(&self, workload: WorkloadId) {
        let fact = Fact::WorkloadCreated(WorkloadCreated {
            event_id: self.app.id(),
            tenant_id: self.tenant,
            workload_id: workload,
            agent_id: self.agent.id,
        });
        let catalog = self.app.service(RoleName::Catalog, RoleName::Scheduler);
        let sent = DeliverFacts { facts: vec![fact] };
        catalog.post::<_, ()>("/internal/v1/outbox", &sent).await.expect("taken");
    }
    async fn standing(&self) -> Protection {
        let page: Page<Protection> =
            self.today().get(&self.path("protections")).await.expect("listed");
        page.items.into_iter().find(|one| one.workload_id == self.workload).expect("known")
    }
    async fn runs(&self) -> Vec<Run> {
        let page: Page<Run> = self.today().get(&self.path("runs")).await.expect("listed");
        let mut runs = page.items;
        runs.reverse();
        runs
    }
    /// What the reconcilers do once a second.
    async fn tick(&self) {
        self.state.dispatch(self.app.now()).await.expect("dispatches");
        self.state.expire(self.app.now()).await.expect("expires");
        self.state.say_breaches(self.app.now()).await.expect("says");
    }
    async fn wait(&self, for_: Duration) {
        self.app.advance(for_);
        self.tick().await;
    }
    /// The machine is on: it fetches its run and carries it out.
    async fn carry_out(&self, state: RunState) -> Option<Run> {
        let assigned = self.poll(0).await.expect("polls")?;
        let snapshot = (state == RunState::Succeeded).then(|| self.app.id());
        let end = self.end(&assigned, state, snapshot);
        Some(self.finish(assigned.run(), &end).await.expect("ends"))
    }
}

fn utc(text: &str) -> domain::Timestamp {
    text.parse().expect("a time")
}

#[tokio::test]
async fn a_new_machine_is_protected_by_the_default_policy_before_it_ever_ran() {
    let world = world().await;
    let made = world.write(&policy("nightly")).await.expect("made");
    assert_eq!((made.revision, made.workloads), (1, 0));
    assert_eq!(made.schedule_words.as_deref(), Some("At 02:00 (UTC)"));
    world.enrolled().await;
    let standing = world.standing().await;
    assert_eq!((standing.policy_id, standing.is_assigned), (Some(made.id), false));
    let due = standing.next_due_at.expect("due");
    assert_eq!(&due.to_string()[11..19], "02:00:00");
    world.wait(due.since(world.app.now())).await;
    let run = world.carry_out(RunState::Succeeded).await.expect("queued");
    assert_eq!(
        (run.trigger, run.source, run.due_at),
        (Trigger::Schedule, source(&["/srv"]), Some(due))
    );
    let after = world.standing().await;
    assert_eq!(after.protected_at, run.started_at);
    assert_eq!(after.next_due_at, Some(due + 24 * HOUR));
    let events = world.events().await;
    assert_eq!(events, ["policy.created", "run.queued", "run.started", "run.finished"]);
}

#[tokio::test]
async fn of_many_replicas_that_see_a_tick_one_makes_the_run() {
    let world = world().await;
    world.write(&policy("nightly")).await.expect("made");
    world.enrolled().await;
    for day in 1..=3 {
        let due = world.standing().await.next_due_at.expect("due");
        world.app.advance(due.since(world.app.now()));
        let now = world.app.now();
        let looks = (0..6).map(|_| world.state.dispatch(now));
        let done = futures::future::join_all(looks).await;
        let taken: usize = done.into_iter().map(|done| done.expect("dispatches")).sum();
        assert_eq!(taken, 1, "day {day}");
        world.carry_out(RunState::Succeeded).await.expect("one run");
        assert_eq!(world.runs().await.len(), day);
    }
}

#[tokio::test]
async fn every_night_has_one_run_when_the_clock_is_changed() {
    let world = world().await;
    let mut body = policy("nightly");
    let schedule = body.settings.schedule.as_mut().expect("one");
    schedule.cron = vec!["30 2 * * *".into()];
    schedule.zone = "Europe/Berlin".into();
    world.write(&body).await.expect("made");
    world.enrolled().await;
    // Three weeks around each of the two changes of 2027.
    let mut gaps = Vec::new();
    for start in ["2027-03-18T12:00:00Z", "2027-10-21T12:00:00Z"] {
        world.wait(utc(start).since(world.app.now())).await;
        let mut nights = Vec::new();
        for _ in 0..21 {
            let due = world.standing().await.next_due_at.expect("due");
            world.wait(due.since(world.app.now())).await;
            let run = world.carry_out(RunState::Succeeded).await.expect("a run");
            nights.push(run.due_at.expect("due"));
        }
        gaps.extend(nights.windows(2).map(|two| two[1].since(two[0]).as_secs() / 60));
    }
    assert_eq!(gaps.iter().filter(|gap| **gap == 24 * 60).count(), 37);
    let gaps: std::collections::BTreeSet<u64> = gaps.into_iter().collect();
    // A day; half an hour less and more around the night without 02:30; an hour more where 02:30 came twice.
    assert_eq!(gaps, [23 * 60 + 30, 24 * 60, 25 * 60].into());
}

#[tokio::test]
async fn a_machine_that_was_off_misses_its_run_or_makes_up_for_all_of_them_once() {
    let world = world().await;
    let mut body = policy("nightly");
    let made = world.write(&body).await.expect("made");
    world.enrolled().await;
    let due = world.standing().await.next_due_at.expect("due");
    world.wait(due.since(world.app.now())).await;
    world.wait(HOUR).await;
    assert_eq!(world.runs().await.pop().expect("one").state, RunState::Missed);
    assert!(world.poll(0).await.expect("polls").is_none());
    // The same, made up for: a month off, then one run.
    body.settings.schedule.as_mut().expect("one").run_if_missed = true;
    body.revision = Some(made.revision);
    world.replace(made.id, &body).await.expect("replaced");
    for _ in 0..30 {
        world.wait(24 * HOUR).await;
    }
    let waiting: Vec<Run> =
        world.runs().await.into_iter().filter(|run| !run.state.is_final()).collect();
    assert_eq!(waiting.len(), 1, "missed ticks are one run");
    world.carry_out(RunState::Succeeded).await.expect("made up for");
    assert!(world.poll(0).await.expect("polls").is_none(), "once");
}

#[tokio::test]
async fn a_platform_that_was_away_catches_up_with_one_run_or_says_what_was_missed() {
    let world = world().await;
    let mut body = policy("nightly");
    let made = world.write(&body).await.expect("made");
    world.enrolled().await;
    // Nobody dispatched for five days.
    world.wait(5 * 24 * HOUR).await;
    let runs = world.runs().await;
    assert_eq!(runs.iter().map(|run| run.state).collect::<Vec<_>>(), [RunState::Missed]);
    assert!(runs[0].error.as_deref().expect("said").contains("run_if_missed"));
    body.settings.schedule.as_mut().expect("one").run_if_missed = true;
    world.replace(made.id, &body).await.expect("replaced");
    world.wait(5 * 24 * HOUR).await;
    world.carry_out(RunState::Succeeded).await.expect("one run for five days");
    assert_eq!(world.runs().await.len(), 2);
}

#[tokio::test]
async fn a_run_starts_in_its_window_and_waits_for_the_next_one() {
    let world = world().await;
    let mut body = policy("nightly");
    let schedule = body.settings.schedule.as_mut().expect("one");
    schedule.windows =
        serde_json::from_value(serde_json::json!([{"from": "01:00", "to": "04:00"}]))
            .expect("reads");
    schedule.run_if_missed = true;
    world.write(&body).await.expect("made");
    world.enrolled().await;
    let due = world.standing().await.next_due_at.expect("due");
    world.wait(due.since(world.app.now())).await;
    world.wait(3 * HOUR).await;
    let waiting = world.runs().await.pop().expect("one");
    assert_eq!(waiting.state, RunState::Queued, "it is made up for");
    assert_eq!(waiting.start_after, Some(due + 23 * HOUR));
    assert!(world.poll(0).await.expect("polls").is_none(), "not outside its window");
    world.wait(20 * HOUR).await;
    assert_eq!(world.carry_out(RunState::Succeeded).await.expect("in its window").id, waiting.id);
}

#[tokio::test]
async fn what_failed_is_tried_again_later_each_time_and_not_for_ever() {
    let world = world().await;
    let mut body = policy("nightly");
    body.settings.retry = Some(Retry { attempts: 2, after_minutes: 10 });
    world.write(&body).await.expect("made");
    world.enrolled().await;
    let due = world.standing().await.next_due_at.expect("due");
    world.wait(due.since(world.app.now())).await;
    world.carry_out(RunState::Failed).await.expect("fails");
    for minutes in [10, 20] {
        world.wait(Duration::from_secs(minutes * 60 - 1)).await;
        assert!(world.poll(0).await.expect("polls").is_none());
        world.wait(Duration::from_secs(1)).await;
        let again = world.carry_out(RunState::Failed).await.expect("another attempt");
        assert_eq!(again.trigger, Trigger::Retry);
    }
    assert_eq!(world.standing().await.failures, 3);
    assert_eq!(
        world.standing().await.next_due_at,
        Some(due + 24 * HOUR),
        "the next tick is where it was"
    );
    // A success in between makes a further attempt needless.
    world.wait(24 * HOUR - Duration::from_secs(30 * 60)).await;
    world.carry_out(RunState::Succeeded).await.expect("succeeds");
    assert_eq!(world.standing().await.failures, 0);
    world.wait(2 * HOUR).await;
    assert!(world.poll(0).await.expect("polls").is_none());
}

#[tokio::test]
async fn a_bad_night_does_not_use_up_the_attempts_of_the_next() {
    let world = world().await;
    let mut body = policy("nightly");
    body.settings.retry = Some(Retry { attempts: 1, after_minutes: 10 });
    world.write(&body).await.expect("made");
    world.enrolled().await;
    for night in 1..=3 {
        let due = world.standing().await.next_due_at.expect("due");
        world.wait(due.since(world.app.now())).await;
        world.carry_out(RunState::Failed).await.expect("fails");
        world.wait(Duration::from_secs(600)).await;
        let again = world.carry_out(RunState::Failed).await.expect("another attempt");
        assert_eq!(again.trigger, Trigger::Retry, "night {night}");
        world.wait(HOUR).await;
        assert!(world.poll(0).await.expect("polls").is_none(), "no second one");
    }
    assert_eq!(world.standing().await.failures, 6);
}

#[tokio::test]
async fn a_backup_of_something_else_protects_nothing() {
    let world = world().await;
    let mut body = policy("nightly");
    body.settings.rpo_minutes = Some(60);
    world.write(&body).await.expect("made");
    world.enrolled().await;
    let other = CreateRun { workload_id: world.workload, source: Some(source(&["/tmp/empty"])) };
    let path = world.path("local-runs");
    let assigned: Assignment = world.agent.client.post(&path, &other).await.expect("starts");
    let assigned = Assigned(assigned);
    let end = world.end(&assigned, RunState::Succeeded, Some(world.app.id()));
    world.finish(assigned.run(), &end).await.expect("ends");
    assert_eq!(world.standing().await.protected_at, None);
    world.wait(HOUR).await;
    assert!(world.standing().await.rpo_breached_at.is_some());
    let more = CreateRun { workload_id: world.workload, source: Some(source(&["/srv", "/home"])) };
    let assigned = Assigned(world.agent.client.post(&path, &more).await.expect("starts"));
    let end = world.end(&assigned, RunState::Succeeded, Some(world.app.id()));
    world.finish(assigned.run(), &end).await.expect("ends");
    assert_eq!(world.standing().await.rpo_breached_at, None);
}

#[tokio::test]
async fn a_run_somebody_asked_for_does_not_stand_in_for_one_that_reads_more() {
    let world = world().await;
    world.write(&policy("nightly")).await.expect("made");
    world.enrolled().await;
    let due = world.standing().await.next_due_at.expect("due");
    world.app.advance(due.since(world.app.now()) - Duration::from_secs(60));
    let body = CreateRun { workload_id: world.workload, source: Some(source(&["/tmp/empty"])) };
    let asked: Run = world.today().post(&world.path("runs"), &body).await.expect("queued");
    world.wait(Duration::from_secs(60)).await;
    assert_eq!(world.carry_out(RunState::Succeeded).await.expect("first").id, asked.id);
    world.wait(Duration::from_secs(30)).await;
    let planned = world.carry_out(RunState::Succeeded).await.expect("and then the planned one");
    assert_eq!((planned.trigger, planned.source), (Trigger::Schedule, source(&["/srv"])));
}

#[tokio::test]
async fn run_now_starts_the_run_that_waits_for_its_window() {
    let world = world().await;
    let mut body = policy("nightly");
    let schedule = body.settings.schedule.as_mut().expect("one");
    schedule.windows =
        serde_json::from_value(serde_json::json!([{"from": "01:00", "to": "04:00"}]))
            .expect("reads");
    schedule.run_if_missed = true;
    world.write(&body).await.expect("made");
    world.enrolled().await;
    let due = world.standing().await.next_due_at.expect("due");
    world.wait(due.since(world.app.now())).await;
    world.wait(3 * HOUR).await;
    assert!(world.poll(0).await.expect("polls").is_none());
    let now = CreateRun { workload_id: world.workload, source: None };
    let advanced: Run = world.today().post(&world.path("runs"), &now).await.expect("taken");
    assert_eq!(advanced.trigger, Trigger::Schedule);
    assert_eq!(world.carry_out(RunState::Succeeded).await.expect("now").id, advanced.id);
}

#[tokio::test]
async fn what_protects_its_schedule_is_not_paused_below() {
    let world = world().await;
    let mut above = policy("above");
    above.protected = vec![Setting::Schedule];
    let above_made = world.write(&above).await.expect("made");
    let mut below = policy("below");
    (below.is_default, below.extends, below.is_paused) = (false, Some(above_made.id), true);
    below.settings = PolicySettings::default();
    let Err(Error::Problem(problem)) = world.write(&below).await else { panic!("accepted") };
    assert_eq!(problem.fields[0].field, "is_paused");
    // Paused before it was protected: it goes on by the protected schedule.
    above.protected.clear();
    world.replace(above_made.id, &above).await.expect("unprotected");
    let made = world.write(&below).await.expect("made");
    world.enrolled().await;
    assert_eq!(world.assign(Some(made.id)).await.expect("assigned").next_due_at, None);
    above.protected = vec![Setting::Schedule];
    world.replace(above_made.id, &above).await.expect("protected");
    assert!(world.standing().await.next_due_at.is_some());
}

#[tokio::test]
async fn a_plan_nobody_can_read_stops_nobody_else() {
    let world = world().await;
    let made = world.write(&policy("nightly")).await.expect("made");
    world.enrolled().await;
    let other: WorkloadId = world.app.id();
    world.enrolled_as(other).await;
    let mut hand = world.app.database().superuser().await.expect("connects");
    sqlx::query("UPDATE scheduler.workloads SET plan = '{\"from\": \"the future\"}' WHERE id = $1")
        .bind(other.uuid())
        .execute(&mut hand)
        .await
        .expect("spoiled");
    let due = world.standing().await.next_due_at.expect("due");
    world.wait(due.since(world.app.now())).await;
    world.carry_out(RunState::Succeeded).await.expect("its neighbour runs");
    // Saving the policy plans it anew.
    world.replace(made.id, &policy("nightly")).await.expect("replaced");
    world.wait(24 * HOUR).await;
    let ran: std::collections::BTreeSet<WorkloadId> =
        world.runs().await.into_iter().map(|run| run.workload_id).collect();
    assert!(ran.contains(&other));
}

#[tokio::test]
async fn an_objective_that_is_breached_is_said_once_and_ends_with_a_success() {
    let world = world().await;
    let mut body = policy("nightly");
    body.settings.rpo_minutes = Some(26 * 60);
    world.write(&body).await.expect("made");
    world.enrolled().await;
    world.wait(26 * HOUR).await;
    world.wait(HOUR).await;
    let breached = world.standing().await;
    assert!(breached.rpo_breached_at.is_some() && breached.protected_at.is_none());
    let said = |events: Vec<String>| events.iter().filter(|event| *event == "rpo.breached").count();
    assert_eq!(said(world.events().await), 1);
    let due = world.standing().await.next_due_at.expect("due");
    world.wait(due.since(world.app.now())).await;
    world.carry_out(RunState::Succeeded).await.expect("a run");
    assert_eq!(world.standing().await.rpo_breached_at, None);
    world.wait(26 * HOUR - Duration::from_secs(1)).await;
    assert_eq!(world.standing().await.rpo_breached_at, None);
    world.wait(Duration::from_secs(1)).await;
    assert!(world.standing().await.rpo_breached_at.is_some());
    assert_eq!(said(world.events().await), 2);
}

#[tokio::test]
async fn a_policy_extends_another_and_may_not_loosen_what_that_protects() {
    let world = world().await;
    let mut floor = policy("floor");
    floor.settings.rpo_minutes = Some(1_440);
    floor.protected = vec![Setting::Rpo];
    let floor_made = world.write(&floor).await.expect("made");
    let mut below = policy("servers");
    below.is_default = false;
    below.extends = Some(floor_made.id);
    below.settings = PolicySettings { rpo_minutes: Some(2_880), ..PolicySettings::default() };
    let refused = world.write(&below).await;
    let Err(Error::Problem(problem)) = refused else { panic!("accepted") };
    assert_eq!(problem.fields[0].field, "settings/rpo_minutes");
    below.settings.rpo_minutes = Some(60);
    let made = world.write(&below).await.expect("made");
    assert_eq!(made.effective.schedule, floor.settings.schedule);
    assert_eq!(made.effective.rpo_minutes, Some(60));
    // What is protected later overrules what was stored before, for the workloads too.
    world.enrolled().await;
    world.assign(Some(made.id)).await.expect("assigned");
    floor.settings.rpo_minutes = Some(30);
    world.replace(floor_made.id, &floor).await.expect("replaced");
    let path = world.path(format_args!("policies/{}", made.id));
    let overruled: Policy = world.today().get(&path).await.expect("there");
    assert_eq!(
        (overruled.effective.rpo_minutes, overruled.overruled),
        (Some(30), vec![Setting::Rpo])
    );
    world.wait(Duration::from_secs(30 * 60)).await;
    assert!(world.standing().await.rpo_breached_at.is_some());
    // A circle is refused, and so is removing what others stand on.
    floor.extends = Some(made.id);
    assert_eq!(code(world.replace(floor_made.id, &floor).await), Code::Validation);
    assert_eq!(code(world.remove(floor_made.id).await), Code::Conflict);
    assert_eq!(code(world.remove(made.id).await), Code::Conflict, "a workload has it");
    world.assign(None).await.expect("the default holds");
    world.remove(made.id).await.expect("nothing needs it");
}

#[tokio::test]
async fn a_paused_policy_lets_nothing_become_due_and_another_default_is_refused() {
    let world = world().await;
    let mut body = policy("nightly");
    let made = world.write(&body).await.expect("made");
    world.enrolled().await;
    body.is_paused = true;
    body.revision = Some(made.revision);
    let paused = world.replace(made.id, &body).await.expect("paused");
    assert_eq!(world.standing().await.next_due_at, None);
    world.wait(48 * HOUR).await;
    assert!(world.runs().await.is_empty());
    assert_eq!(code(world.replace(made.id, &body).await), Code::Conflict, "an old revision");
    body.is_paused = false;
    body.revision = Some(paused.revision);
    world.replace(made.id, &body).await.expect("goes on");
    assert!(world.standing().await.next_due_at.is_some());
    assert_eq!(code(world.write(&policy("NIGHTLY")).await), Code::AlreadyExists);
    assert_eq!(code(world.write(&policy("another default")).await), Code::AlreadyExists);
}

#[tokio::test]
async fn a_change_of_something_else_does_not_move_what_is_due() {
    let world = world().await;
    let mut body = policy("hourly");
    let schedule = body.settings.schedule.as_mut().expect("one");
    *schedule = Schedule { cron: Vec::new(), every_minutes: Some(60), ..at_two("UTC") };
    let made = world.write(&body).await.expect("made");
    world.enrolled().await;
    let due = world.standing().await.next_due_at;
    world.app.advance(Duration::from_secs(60));
    body.settings.rpo_minutes = Some(600);
    world.replace(made.id, &body).await.expect("replaced");
    assert_eq!(world.standing().await.next_due_at, due);
}

#[tokio::test]
async fn a_machine_enrolled_while_its_policy_is_saved_follows_it() {
    let world = world().await;
    let mut body = policy("nightly");
    let mut made = world.write(&body).await.expect("made");
    for round in 0..15 {
        body.is_default = false;
        made = world.replace(made.id, &body).await.expect("none is the default");
        let fresh: Vec<WorkloadId> = (0..6).map(|_| world.app.id()).collect();
        body.is_default = true;
        let enrolled = fresh.iter().map(|workload| world.enrolled_as(*workload));
        let (saved, _) =
            tokio::join!(world.replace(made.id, &body), futures::future::join_all(enrolled));
        saved.expect("the default again");
        let page: Page<Protection> =
            world.today().get(&world.path("protections?limit=1000")).await.expect("listed");
        let unplanned = page.items.iter().filter(|one| one.next_due_at.is_none()).count();
        assert_eq!((page.items.len(), unplanned), ((round + 1) * 6, 0));
    }
}

#[tokio::test]
async fn a_schedule_is_shown_before_it_is_saved() {
    let world = world().await;
    let mut schedule = at_two("America/New_York");
    let body = SimulatePolicy {
        schedule: schedule.clone(),
        from: Some(utc("2027-03-12T12:00:00Z")),
        ticks: 3,
    };
    let path = world.path("policy-simulations");
    let shown: Simulation = world.today().post(&path, &body).await.expect("shown");
    let local: Vec<&str> = shown.ticks.iter().map(|tick| &tick.local[..22]).collect();
    // 02:00 does not exist on 14 March 2027 in New York.
    assert_eq!(
        local,
        ["2027-03-13T02:00:00-05", "2027-03-14T03:00:00-04", "2027-03-15T02:00:00-04"]
    );
    schedule.cron = vec!["0 0 31 2 *".into()];
    let never = SimulatePolicy { schedule, from: None, ticks: 3 };
    let Err(Error::Problem(problem)) = world.today().post::<_, Simulation>(&path, &never).await
    else {
        panic!("accepted")
    };
    assert_eq!(problem.fields[0].field, "schedule/cron/0");
}

#[tokio::test]
async fn policies_are_the_administrators_and_stay_in_their_tenant() {
    let world = world().await;
    let made = world.write(&policy("nightly")).await.expect("made");
    let path = world.path("policies");
    for role in [authz::Role::TenantOperator, authz::Role::Auditor] {
        let person = world.app.user(world.tenant, role);
        assert!(person.get::<Page<Policy>>(&path).await.is_ok());
        assert_eq!(code(person.post::<_, Policy>(&path, &policy("x")).await), Code::Forbidden);
    }
    assert_eq!(code(world.agent.client.get::<Page<Policy>>(&path).await), Code::Forbidden);
    let other = world.app.tenant();
    let stranger = world.app.user(other, authz::Role::TenantAdmin);
    let one = format!("/v1/tenants/{other}/policies/{}", made.id);
    assert_eq!(code(stranger.get::<Policy>(&one).await), Code::NotFound);
    let theirs = AssignPolicy { policy_id: Some(made.id) };
    let assign = format!("/v1/tenants/{other}/workloads/{}/policy", world.workload);
    assert_eq!(code(stranger.put::<_, Protection>(&assign, &theirs).await), Code::NotFound);
    world.enrolled().await;
    assert_eq!(code(world.assign(Some(world.app.id())).await), Code::Validation);
}
