//! Claims about runs, on a real database, with real signatures and tokens, in a time the test moves.

mod ending;
mod leasing;
mod policies;
mod queueing;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use api::{
    Code,
    catalog::Workload,
    client::{Client, Error},
    internal::{DeliverFacts, Fact, SnapshotCommitted},
    scheduler::{
        Assignment, CreateRun, FinishRun, HeartbeatReply, PollLease, PollReply, Progress, Run,
        RunHeartbeat, RunSource,
    },
};
use axum::{Router, extract::State, routing::get};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::{RunId, SnapshotId, TenantId, VaultId, WorkloadId, run::RunState};
use runtime::{Failure, Json, Path, Reply, Role, RoleName};
use testkit::{TestAgent, TestApp};

use crate::{ProvenCommit, ReceiptVerifier, SchedulerConfig, role_of, state::Scheduler};

type Catalog = Arc<Mutex<BTreeMap<(TenantId, WorkloadId), Workload>>>;

/// "Signed" by being readable: the engine's receipts are the engine's business.
struct PlainReceipts;

impl ReceiptVerifier for PlainReceipts {
    fn verify(&self, receipt: &[u8]) -> Option<ProvenCommit> {
        let (ids, _) = receipt.as_chunks::<16>();
        let [tenant, run, snapshot] = ids else { return None };
        Some(ProvenCommit {
            tenant_id: TenantId::from_bytes(*tenant),
            run_id: RunId::from_bytes(*run),
            snapshot_id: SnapshotId::from_bytes(*snapshot),
        })
    }
}

struct World {
    app: TestApp,
    state: Arc<Scheduler>,
    catalog: Catalog,
    tenant: TenantId,
    agent: TestAgent,
    workload: WorkloadId,
    admin: Client,
}

async fn world() -> World {
    world_with(Duration::from_millis(20)).await
}

async fn world_with(knock: Duration) -> World {
    world_of(knock, runtime::Limits::default()).await
}

async fn world_of(knock: Duration, limits: runtime::Limits) -> World {
    let slot: Arc<OnceLock<Arc<Scheduler>>> = Arc::default();
    let catalog = Catalog::default();
    let (filled, known) = (slot.clone(), catalog.clone());
    let app = TestApp::builder()
        .role(RoleName::Scheduler, move |platform| {
            let config = SchedulerConfig { knock, ..SchedulerConfig::new(Arc::new(PlainReceipts)) };
            let state = Arc::new(Scheduler::new(&platform, config));
            let _ = filled.set(state.clone());
            role_of(&platform, state)
        })
        .role(RoleName::Catalog, move |_| stand_in_for_catalog(known))
        .limits(limits)
        .start()
        .await
        .expect("starts");
    let state = slot.get().expect("built").clone();
    let tenant = app.tenant();
    let agent = app.agent(tenant);
    let workload = app.id();
    let admin = app.user(tenant, authz::Role::TenantAdmin);
    World { app, state, catalog, tenant, agent, workload, admin }
}

/// What the scheduler asks the catalog about workloads nobody has run yet.
fn stand_in_for_catalog(known: Catalog) -> Role {
    async fn find(
        State(known): State<Catalog>,
        Path(ids): Path<(TenantId, WorkloadId)>,
    ) -> Reply<Json<Workload>> {
        let known = known.lock().expect("unpoisoned");
        known.get(&ids).cloned().map(Json).ok_or_else(Failure::not_found)
    }
    let path = "/internal/v1/catalog/tenants/{tenant_id}/workloads/{workload_id}";
    Role::new(RoleName::Catalog).internal(Router::new().route(path, get(find)).with_state(known))
}

fn source(paths: &[&str]) -> RunSource {
    RunSource { paths: paths.iter().map(|&path| path.to_owned()).collect(), ..RunSource::default() }
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> Code {
    result.expect_err("refused").code().expect("a problem")
}

fn figures(files: u64) -> Progress {
    Progress { files, source_bytes: files * 10, phase: "uploading".into(), ..Progress::default() }
}

impl World {
    fn path(&self, rest: impl std::fmt::Display) -> String {
        format!("/v1/tenants/{}/{rest}", self.tenant)
    }
    fn create(&self, paths: &[&str]) -> CreateRun {
        CreateRun { workload_id: self.workload, source: Some(source(paths)) }
    }
    async fn start(&self, agent: &TestAgent) -> Result<Assigned, Error> {
        let body = self.create(&["/srv"]);
        agent.client.post(&self.path("local-runs"), &body).await.map(Assigned)
    }
    async fn poll(&self, wait_s: u32) -> Result<Option<Assigned>, Error> {
        let path = self.path("leases");
        let reply: PollReply = self.agent.client.post(&path, &PollLease { wait_s }).await?;
        Ok(reply.assignment.map(Assigned))
    }
    async fn beat(&self, run: RunId, epoch: u64) -> Result<HeartbeatReply, Error> {
        let body = RunHeartbeat { epoch, progress: figures(5) };
        self.agent.client.post(&self.path(format_args!("runs/{run}/heartbeat")), &body).await
    }
    async fn finish(&self, run: RunId, body: &FinishRun) -> Result<Run, Error> {
        self.agent.client.post(&self.path(format_args!("runs/{run}/finish")), body).await
    }
    async fn cancel(&self, run: RunId) -> Result<Run, Error> {
        let path = self.path(format_args!("runs/{run}/cancel"));
        self.admin.post(&path, &serde_json::json!({})).await
    }
    async fn get(&self, run: RunId) -> Run {
        self.admin.get(&self.path(format_args!("runs/{run}"))).await.expect("there")
    }
    fn receipt(&self, run: RunId, snapshot: SnapshotId) -> String {
        let ids = [self.tenant.into_bytes(), run.into_bytes(), snapshot.into_bytes()];
        BASE64.encode(ids.concat())
    }
    fn end(&self, of: &Assigned, state: RunState, snapshot: Option<SnapshotId>) -> FinishRun {
        FinishRun {
            epoch: of.0.epoch,
            state,
            progress: figures(7),
            receipt: snapshot.map(|snapshot| self.receipt(of.run(), snapshot)),
            snapshot_id: snapshot,
            exceptions: Vec::new(),
            error: None,
        }
    }
    async fn commit(&self, run: RunId, snapshot: SnapshotId, from: RoleName) -> Result<(), Error> {
        self.commit_skipping(0, run, snapshot, from).await
    }
    async fn commit_skipping(
        &self,
        exceptions: u64,
        run: RunId,
        snapshot: SnapshotId,
        from: RoleName,
    ) -> Result<(), Error> {
        let fact = Fact::SnapshotCommitted(SnapshotCommitted {
            event_id: self.app.id(),
            tenant_id: self.tenant,
            run_id: run,
            snapshot_id: snapshot,
            exceptions,
            committed_at: self.app.now(),
        });
        let catalog = self.app.service(from, RoleName::Scheduler);
        catalog.post("/internal/v1/outbox", &DeliverFacts { facts: vec![fact] }).await
    }
    /// Actions in the outbox, in order.
    async fn events(&self) -> Vec<String> {
        let mut looking = self.app.database().superuser().await.expect("connects");
        sqlx::query_scalar(
            "SELECT payload->>'action' FROM scheduler.outbox WHERE topic = 'audit' ORDER BY xid, position",
        )
        .fetch_all(&mut looking)
        .await
        .expect("rows")
    }
    fn knows(&self, workload: WorkloadId) {
        let entry = Workload {
            id: workload,
            tenant_id: self.tenant,
            kind: "files".into(),
            name: "home".into(),
            agent_id: self.agent.id,
            vault_id: self.app.id::<domain::id::Vault>() as VaultId,
            created_at: self.app.now(),
            last_snapshot_at: None,
            last_snapshot_id: None,
            snapshots: 0,
        };
        self.catalog.lock().expect("unpoisoned").insert((self.tenant, workload), entry);
    }
}

/// An assignment with a shorter way to its run.
struct Assigned(Assignment);

impl Assigned {
    fn run(&self) -> RunId {
        self.0.run.id
    }
}

impl std::fmt::Debug for Assigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at epoch {}", self.run(), self.0.epoch)
    }
}
