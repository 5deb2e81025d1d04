//! The control plane as the agent sees it: one method per call, all paths in one place.
//!
//! Requests are signed by `api::client`; what may succeed later is tried again with growing, jittered
//! pauses, for a bounded time and never after a cancel. It knows nothing of packs' contents or files.

mod enrol;
pub mod pace;
mod retry;
mod transfer;

use std::{path::Path, sync::Arc};

use api::{
    Page,
    catalog::{
        AllocatePacks, AllocatedPacks, CommitReply, CommitSession, ConfirmPacks, ConfirmedPacks,
        CreateVault, OpenSession, PackFacts, PlatformKeys, RepackCandidates, RequestRestoreGrants,
        RestoreGrants, Session, SessionHeartbeat, Snapshot, Vault, VaultKeys,
    },
    client::{AgentIdentity, Client, Error, Identity as Speaker},
    scheduler::{
        Assignment, CreateRun, FinishRun, HeartbeatReply, PollLease, PollReply, Run, RunHeartbeat,
    },
};
use domain::{Clock, IdGen, PackId, RunId, SessionId, SnapshotId, TenantId, VaultId, WorkloadId};
use serde::de::DeserializeOwned;
use vault::keys::AgentKeys;

use crate::state::Identity;

pub use enrol::{EnrolError, Enrolled, Order, Way, enrol, key_bytes};
pub use pace::{Pace, Rate};
pub use retry::{Patience, pause, retry};
pub use transfer::{Payload, Stored, Transfer, TransferError};

/// Time and randomness, handed to everything that needs them.
#[derive(Clone)]
pub struct World {
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdGen>,
}

impl World {
    /// The machine's own.
    pub fn real() -> Self {
        Self { clock: Arc::new(domain::SystemClock), ids: Arc::new(domain::SystemIds) }
    }
}

/// The enrolled agent's line to its control plane. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    client: Client,
    tenant: TenantId,
    world: World,
    speaker: Arc<AgentIdentity>,
    completes: Option<SnapshotId>,
}

type Reply<T> = Result<T, Error>;

impl Control {
    /// A line for this agent; nothing is sent yet.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn connect(identity: &Identity, keys: &AgentKeys, world: World) -> Reply<Self> {
        let speaker = Arc::new(AgentIdentity::new(
            identity.tenant_id,
            identity.agent_id,
            keys.signing_key(),
            world.clock.clone(),
            world.ids.clone(),
        ));
        let client = Client::http(&identity.server, Speaker::Agent(speaker.clone()))?;
        Ok(Self { client, tenant: identity.tenant_id, world, speaker, completes: None })
    }

    /// The same line; what it reads of snapshots completes another one.
    #[must_use]
    pub fn completing(&self, snapshot: SnapshotId) -> Self {
        Self { completes: Some(snapshot), ..self.clone() }
    }

    pub const fn world(&self) -> &World {
        &self.world
    }
    /// Server time, as far as known.
    pub fn server_now(&self) -> domain::Timestamp {
        self.speaker.server_now()
    }

    fn path(&self, rest: impl std::fmt::Display) -> String {
        format!("/v1/tenants/{}/{rest}", self.tenant)
    }
    async fn again<T, F>(&self, patience: Patience, call: impl Fn() -> F) -> Reply<T>
    where
        F: Future<Output = Reply<T>>,
    {
        retry(patience, self.world.ids.as_ref(), retryable, call).await
    }

    /// Calls `each` for everything in a list, page by page.
    async fn pages<T: DeserializeOwned>(&self, list: &str, mut each: impl FnMut(T)) -> Reply<()> {
        let mut more = String::new();
        loop {
            let path = self.path(format_args!("{list}{more}"));
            let page: Page<T> = self.again(Patience::Short, || self.client.get(&path)).await?;
            page.items.into_iter().for_each(&mut each);
            let Some(cursor) = page.next_cursor else { return Ok(()) };
            more = format!("&cursor={}", url_escape(&cursor));
        }
    }

    // -- enrolment and keys

    pub async fn platform_keys(&self) -> Reply<PlatformKeys> {
        let path = self.path("platform-keys");
        self.again(Patience::Short, || self.client.get(&path)).await
    }
    pub async fn put_vault(&self, vault: VaultId, body: &CreateVault) -> Reply<Vault> {
        let path = self.path(format_args!("vaults/{vault}"));
        self.again(Patience::Short, || self.client.put(&path, body)).await
    }
    pub async fn vault_keys(&self, vault: VaultId) -> Reply<VaultKeys> {
        let path = self.path(format_args!("vaults/{vault}/keys"));
        self.again(Patience::Short, || self.client.get(&path)).await
    }

    // -- runs

    pub async fn start_local_run(&self, body: &CreateRun) -> Reply<Assignment> {
        let path = self.path("local-runs");
        self.again(Patience::Short, || self.client.post(&path, body)).await
    }
    /// One long poll, tried once: the daemon decides about pauses.
    pub async fn poll_lease(&self, wait_s: u32) -> Reply<Option<Assignment>> {
        let path = self.path("leases");
        let reply: PollReply = self.client.post(&path, &PollLease { wait_s }).await?;
        Ok(reply.assignment)
    }
    /// Tried once: the next heartbeat is the retry.
    pub async fn run_heartbeat(&self, run: RunId, body: &RunHeartbeat) -> Reply<HeartbeatReply> {
        let path = self.path(format_args!("runs/{run}/heartbeat"));
        self.client.post(&path, body).await
    }
    pub async fn finish_run(&self, run: RunId, body: &FinishRun) -> Reply<Run> {
        let path = self.path(format_args!("runs/{run}/finish"));
        self.again(Patience::Long, || self.client.post(&path, body)).await
    }

    // -- sessions

    pub async fn open_session(&self, body: &OpenSession) -> Reply<Session> {
        let path = self.path("sessions");
        self.again(Patience::Short, || self.client.post(&path, body)).await
    }
    /// Calls `each` for what earlier sessions uploaded and did not commit.
    pub async fn adopted(&self, id: SessionId, each: impl FnMut(PackFacts)) -> Reply<()> {
        self.pages(&format!("sessions/{id}/adopted?limit=1000"), each).await
    }
    /// Tried once: the next heartbeat is the retry.
    pub async fn session_heartbeat(&self, id: SessionId, body: &SessionHeartbeat) -> Reply<()> {
        let path = self.path(format_args!("sessions/{id}/heartbeat"));
        let _: serde::de::IgnoredAny = self.client.post(&path, body).await?;
        Ok(())
    }
    pub async fn allocate(&self, id: SessionId, body: &AllocatePacks) -> Reply<AllocatedPacks> {
        let path = self.path(format_args!("sessions/{id}/packs"));
        self.again(Patience::Short, || self.client.post(&path, body)).await
    }
    pub async fn confirm(&self, id: SessionId, body: &ConfirmPacks) -> Reply<ConfirmedPacks> {
        let path = self.path(format_args!("sessions/{id}/packs/confirm"));
        self.again(Patience::Short, || self.client.post(&path, body)).await
    }
    pub async fn commit(&self, id: SessionId, body: &CommitSession) -> Reply<CommitReply> {
        let path = self.path(format_args!("sessions/{id}/commit"));
        self.again(Patience::Long, || self.client.post(&path, body)).await
    }

    /// Half-dead packs of the vault that are worth moving, those with most to gain first.
    pub async fn repack_candidates(&self, vault: VaultId) -> Reply<RepackCandidates> {
        let path = self.path(format_args!("vaults/{vault}/repack-candidates"));
        self.again(Patience::Short, || self.client.get(&path)).await
    }

    // -- snapshots

    /// Every snapshot of the workload, newest first.
    pub async fn snapshots(&self, workload: WorkloadId) -> Reply<Vec<Snapshot>> {
        let mut found: Vec<Snapshot> = Vec::new();
        let list = format!("snapshots?workload_id={workload}&limit=1000");
        self.pages(&list, |snapshot| found.push(snapshot)).await?;
        found.sort_by_key(|snapshot| std::cmp::Reverse((snapshot.committed_at, snapshot.id)));
        Ok(found)
    }
    pub async fn snapshot(&self, id: SnapshotId) -> Reply<Snapshot> {
        let path = self.path(format_args!("snapshots/{id}"));
        self.again(Patience::Short, || self.client.get(&path)).await
    }
    /// Every object the snapshot needs, as the catalog knows it.
    pub async fn snapshot_packs(&self, id: SnapshotId) -> Reply<Vec<PackFacts>> {
        let mut found = Vec::new();
        self.pages(&format!("snapshots/{id}/packs?limit=1000"), |pack| found.push(pack)).await?;
        Ok(found)
    }
    /// Grants for at most 256 packs; none named: the manifest chain alone.
    pub async fn restore_grants(&self, id: SnapshotId, packs: Vec<PackId>) -> Reply<RestoreGrants> {
        let path = self.path(format_args!("snapshots/{id}/restore-grants"));
        let body = RequestRestoreGrants { packs, completes: self.completes };
        self.again(Patience::Short, || self.client.post(&path, &body)).await
    }
}

/// Cursors are opaque: anything but plain characters is escaped.
fn url_escape(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Whether a call may succeed later. A fault of the server's own counts: it may be restarting.
pub fn retryable(error: &Error) -> bool {
    error.is_retryable() || error.code() == Some(api::Code::Internal)
}

/// What a person can do about a failed call.
pub fn advice(error: &Error, home: &Path) -> String {
    use api::Code;
    match error {
        Error::Unreachable { .. } => {
            "check the address and the network, and that the server runs; then try again".to_owned()
        }
        Error::Unexpected { .. } => "check the address given with --server".to_owned(),
        Error::Problem(problem) => match problem.code {
            Code::AgentRevoked | Code::SignatureInvalid => format!(
                "ask your administrator; to enrol anew, move {} away and run everhold-agent enroll",
                home.display()
            ),
            Code::ClockSkew => "set this machine's clock".to_owned(),
            Code::EnrolmentTokenInvalid => "ask for a new enrolment token".to_owned(),
            Code::NotFound => "see everhold-agent snapshots for what there is".to_owned(),
            Code::NoSources => "run everhold-agent backup PATH once".to_owned(),
            Code::Fenced | Code::LeaseLost | Code::SessionEnded | Code::PackUnusable => {
                "run the backup again".to_owned()
            }
            _ => match &problem.request_id {
                Some(id) => format!("if it happens again, report request {id}"),
                None => "if it happens again, report it".to_owned(),
            },
        },
    }
}
