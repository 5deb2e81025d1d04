//! One backup, from the lease to the receipt (B0 to B6).

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, OnceLock, atomic::Ordering},
    time::{Duration, Instant},
};

use api::{
    catalog::{
        CommitReply, CommitSession, OpenSession, PackKind, Session, SnapshotSource, SnapshotStats,
    },
    scheduler::{Assignment, FinishRun, RunSource},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::{PackId, RunId, SnapshotId, Timestamp, run::RunState, source::RunException};
use tokio_util::sync::CancellationToken;
use vault::{
    backup::{BackupContext, FinishedSnapshot, Summary, Writer},
    id::Sha256,
    index::{Budget, ChunkIndex},
    manifest::{Builder, Manifest, PackRef, SignedManifest, resolve},
    receipt::Receipt,
    snapshot::Reader,
};

use super::{
    feed::{Counters, FeedError, Feeder, LeftOut},
    half_dead,
    heartbeat::{Heart, Stop},
    member::Member,
    parent::{self, Adopted, ParentCursor},
    salvage::Salvage,
    second::SecondCopy,
    source::{Cache, Caching, Chain, FetchError, GrantSource, fetch_chain},
    spool::Spool,
    told::{Telling, Told},
    upload::{self, ConfirmedPacks, Lane, UploadError, UploadSink},
};
use crate::{
    control::{Pace, Rate, Transfer, TransferError, key_bytes},
    sources::{Roots, Walk, WalkOptions},
    state::{LastCommit, Running, StateError},
};

/// How much memory a run may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Memory {
    /// Under 192 MB.
    #[default]
    Normal,
    /// Under 96 MB, for machines that have little; slower.
    Small,
}

impl Memory {
    /// Threads that hash, compress and seal.
    fn workers(self) -> usize {
        match self {
            Self::Normal => {
                std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(8)
            }
            Self::Small => 1,
        }
    }
    /// For what grows with the number of files.
    const fn index(self) -> Budget {
        match self {
            Self::Normal => Budget::NORMAL,
            Self::Small => Budget::SMALL,
        }
    }
    /// Packs that wait for the network in memory; more go through the journal.
    const fn packs_in_memory(self) -> usize {
        match self {
            Self::Normal => 1,
            Self::Small => 0,
        }
    }
    /// What is in memory while a pack is filled.
    const fn max_pack(self) -> u32 {
        match self {
            Self::Normal => 24 << 20,
            Self::Small => 16 << 20,
        }
    }
}

/// What was read is made safe this often, if nobody asks for another time: an interruption costs no more. Two packs
/// more in this time are nothing.
pub const CHECKPOINT: Duration = Duration::from_secs(300);

/// Files in the agent's home with the whole of a list too long to show.
const EXCEPTIONS: &str = "exceptions.jsonl";
const LEFT_OUT: &str = "left-out.jsonl";

/// A run that did not end in a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    // Not transparent: the advice for people is found by the cause itself.
    #[error("{0}")]
    Control(#[from] api::client::Error),
    // Not transparent: the advice for people is found by the cause itself.
    #[error("{0}")]
    Transfer(#[from] TransferError),
    #[error("the parent snapshot cannot be had: {0}")]
    Parent(#[from] FetchError),
    #[error(transparent)]
    Upload(#[from] UploadError),
    #[error("the backup stopped: {0}")]
    Feed(#[from] FeedError),
    #[error("the journal in the agent's home cannot be used: {0}")]
    Journal(#[source] io::Error),
    #[error("the manifest cannot be made: {0}")]
    Manifest(#[from] vault::manifest::ManifestError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the run was canceled")]
    Canceled,
    #[error("the run was taken away from this agent ({}); another one may be under way", .0.as_str())]
    Lost(api::Code),
    #[error("a part of the agent ended unexpectedly; please report it")]
    Crashed,
}

/// What to back up.
pub struct Plan {
    pub roots: Roots,
    pub options: WalkOptions,
    pub source: RunSource,
    pub memory: Memory,
    pub limits: Limits,
    /// How often what was read is made safe.
    pub checkpoint: Duration,
}

/// What a run may take from others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Bytes per second to the store, all transfers together.
    pub upload: Option<Rate>,
    /// Bytes per second from the store: what is carried over, the parent's tree.
    pub download: Option<Rate>,
    /// Bytes per second read from files.
    pub read: Option<Rate>,
}

/// A committed backup.
#[derive(Debug, Clone)]
pub struct Done {
    pub snapshot_id: SnapshotId,
    pub status: RunState,
    pub stats: SnapshotStats,
    /// Read from files, what was read twice counted twice.
    pub read_bytes: u64,
    pub exceptions: Told<RunException>,
    pub left_out: Told<LeftOut>,
    pub locked_until: Timestamp,
    /// What went wrong after the commit; the snapshot stands.
    pub warnings: Vec<String>,
}

/// How a run is watched and stopped.
#[derive(Clone, Default)]
pub struct Watch {
    pub counters: Arc<Counters>,
    pub cancel: CancellationToken,
}

/// Carries out a leased run and tells the scheduler how it ended.
///
/// # Errors
/// See [`RunError`]; the run is then finished as failed or canceled, as far as the server can be told.
pub async fn execute(
    member: &Arc<Member>,
    plan: Plan,
    assignment: &Assignment,
    watch: &Watch,
) -> Result<Done, RunError> {
    let stop = Arc::new(OnceLock::new());
    let running = Running { run_id: assignment.run.id, epoch: assignment.epoch };
    member.home.save_running(&running)?;
    let result = attempt(member, plan, assignment, watch, &stop).await;
    let result = result.map_err(|error| match stop.get() {
        Some(Stop::Lost(code)) => RunError::Lost(*code),
        Some(Stop::Canceled) => RunError::Canceled,
        None if watch.cancel.is_cancelled() => RunError::Canceled,
        None => error,
    });
    if let Err(error) = &result {
        tell_failure(member, assignment, watch, error).await;
    }
    member.home.forget_running();
    result
}

/// Ends the run a dead process of this home left, so that nobody waits for its lease. The caller holds
/// the run lock.
pub async fn bury_predecessor(member: &Member) {
    let Some(dead) = member.home.running() else { return };
    let body = FinishRun {
        epoch: dead.epoch,
        state: RunState::Failed,
        progress: Counters::default().progress("ended"),
        receipt: None,
        snapshot_id: None,
        exceptions: Vec::new(),
        error: Some("the agent was interrupted; the next run goes on from what it uploaded".into()),
    };
    // An error is as good: the run ended already, or its lease will.
    if let Err(error) = member.control.finish_run(dead.run_id, &body).await {
        tracing::debug!(%error, "the run of a dead process was not ended");
    }
    member.home.forget_running();
}

/// Finishes a run that cannot even begin.
pub async fn refuse(member: &Member, assignment: &Assignment, why: &str) {
    finish_badly(member, assignment, &Watch::default(), RunState::Failed, why.to_owned()).await;
}

async fn tell_failure(member: &Member, assignment: &Assignment, watch: &Watch, error: &RunError) {
    let state = match error {
        RunError::Lost(_) => return,
        RunError::Canceled => RunState::Canceled,
        _ => RunState::Failed,
    };
    finish_badly(member, assignment, watch, state, error.to_string()).await;
}

async fn finish_badly(
    member: &Member,
    assignment: &Assignment,
    watch: &Watch,
    state: RunState,
    error: String,
) {
    let body = FinishRun {
        epoch: assignment.epoch,
        state,
        progress: watch.counters.progress("ended"),
        receipt: None,
        snapshot_id: None,
        exceptions: Vec::new(),
        error: Some(error),
    };
    // A server that is away learns it from the lease that runs out.
    let told = member.control.finish_run(assignment.run.id, &body);
    if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(20), told).await {
        tracing::warn!(%error, "the server could not be told that the run failed");
    }
}

async fn attempt(
    member: &Arc<Member>,
    plan: Plan,
    assignment: &Assignment,
    watch: &Watch,
    stop: &Arc<OnceLock<Stop>>,
) -> Result<Done, RunError> {
    let started = Instant::now();
    let spool = Spool::start(&member.home.journal()).map_err(RunError::Journal)?;
    let (session, packs) = open_session(member, assignment).await?;
    let spool = spool.with_md5(session.content_md5).with_rooms(plan.memory.packs_in_memory());
    let lane = Lane {
        control: member.control.clone(),
        transfer: Transfer::new()?
            .with_upload_limit(Pace::shared(plan.limits.upload))
            .with_download_limit(Pace::shared(plan.limits.download)),
        session: session.id,
        fence: session.fence,
        cache: Cache::at(&member.home.cache()),
        cancel: watch.cancel.clone(),
    };
    let heart = Heart {
        control: member.control.clone(),
        run: assignment.run.id,
        epoch: assignment.epoch,
        session: session.id,
        fence: session.fence,
        session_every: Duration::from_secs(session.heartbeat_interval_s.clamp(5, 3600).into()),
        counters: watch.counters.clone(),
        cancel: watch.cancel.clone(),
        stop: stop.clone(),
    };
    let heart = AbortOnDrop(tokio::spawn(heart.beat()));
    let chain = match &session.parent {
        Some(source) => {
            let second = SecondCopy::when(Caching::Use);
            Some(fetch_chain(member, &lane.transfer, source.snapshot_id, &second).await?)
        }
        None => None,
    };
    let half_dead = match &chain {
        Some(chain) => half_dead::of(member, chain).await,
        None => Vec::new(),
    };
    let tags = plan.source.tags.clone();
    let paths = plan.roots.display();
    let engine = Engine {
        member: member.clone(),
        session: session.clone(),
        packs,
        chain,
        half_dead,
        watch: watch.clone(),
    };
    let made = make(engine, plan, &lane, spool.clone()).await?;
    let mut stats = made.stats();
    stats.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let manifest = made.manifest(member, &session)?;
    let bytes = manifest.sign(&member.keys.signing_key());
    let stored = store_manifest(&lane, &spool, made.finished.next_seq, &bytes).await?;
    let commit = CommitSession { fence: session.fence, manifest_id: stored.id, paths, tags, stats };
    let reply = member.control.commit(session.id, &commit).await?;
    // From here on the snapshot exists: nothing below may call the run failed.
    drop(heart);
    let warnings = settle(member, &made, &manifest, &stored, &bytes, &reply);
    finish(member, assignment, &made, &reply).await;
    let exceptions = made.exceptions;
    Ok(Done {
        snapshot_id: reply.snapshot.id,
        status: reply.snapshot.status,
        stats: commit.stats,
        read_bytes: watch.counters.read_bytes.load(Ordering::Relaxed),
        exceptions,
        left_out: made.left_out,
        locked_until: reply.snapshot.locked_until,
        warnings,
    })
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Packs the server tells of.
struct Offered {
    adopted: Vec<Adopted>,
    known: ConfirmedPacks,
}

async fn open_session(
    member: &Member,
    assignment: &Assignment,
) -> Result<(Session, Offered), RunError> {
    let last_receipt = member.home.last_commit().map(|last| last.receipt);
    let body = OpenSession {
        workload_id: assignment.run.workload_id,
        lease_token: assignment.lease_token.clone(),
        last_receipt,
    };
    let mut session = member.control.open_session(&body).await?;
    let known = parent::places_of(&std::mem::take(&mut session.known));
    let mut adopted = Vec::new();
    member.control.adopted(session.id, |facts| adopted.extend(Adopted::of(&facts))).await?;
    Ok((session, Offered { adopted, known }))
}

/// What the engine's thread needs.
struct Engine {
    member: Arc<Member>,
    session: Session,
    packs: Offered,
    chain: Option<Chain>,
    /// Packs of the parent that are carried over.
    half_dead: Vec<PackRef>,
    watch: Watch,
}

/// What it made: everything is confirmed, nothing committed.
struct Made {
    finished: FinishedSnapshot,
    chain: Option<Chain>,
    confirmed: ConfirmedPacks,
    /// Packs of the vault beside the parent's.
    others: Arc<ConfirmedPacks>,
    index: Arc<ChunkIndex>,
    exceptions: Told<RunException>,
    left_out: Told<LeftOut>,
}

/// Walk, read, seal and upload, until every pack is confirmed.
async fn make(engine: Engine, plan: Plan, lane: &Lane, spool: Spool) -> Result<Made, RunError> {
    let Offered { adopted, known } = engine.packs;
    let others = Arc::new(known);
    let mut places: ConfirmedPacks = (*others).clone();
    places.extend(parent::places(&adopted));
    let reader = engine.chain.as_ref().and_then(|chain| {
        open_parent(&engine.member, lane, engine.session.parent.as_ref()?, chain)
    });
    let (sink, uploads) =
        upload::start(lane.clone(), spool, engine.watch.counters.stored_bytes.clone());
    let chain = engine.chain;
    let seat = Seat {
        member: engine.member,
        session: engine.session,
        half_dead: engine.half_dead,
        watch: engine.watch,
        others: others.clone(),
    };
    let fed = tokio::task::spawn_blocking(move || seat.feed(plan, reader.as_ref(), &adopted, sink));
    let fed = fed.await.map_err(|_| RunError::Crashed)?;
    let uploaded = uploads.finish().await;
    // When both failed, the upload is the cause: the engine only saw its sink close.
    let (fed, confirmed) = match (fed, uploaded) {
        (Ok(fed), Ok(confirmed)) => (fed, confirmed),
        (Err(fed), Ok(_)) => return Err(fed.into()),
        (_, Err(upload)) => return Err(upload.into()),
    };
    places.extend(confirmed);
    Ok(Made {
        finished: fed.finished,
        chain,
        confirmed: places,
        others,
        index: fed.index,
        exceptions: fed.exceptions,
        left_out: fed.left_out,
    })
}

fn open_parent(
    member: &Member,
    lane: &Lane,
    parent: &SnapshotSource,
    chain: &Chain,
) -> Option<Reader> {
    let newest = chain.newest()?;
    let transfer = lane.transfer.clone();
    let lost = parent.lost.iter().copied().collect();
    let packs = parent::readable(&chain.packs, &lost, &lane.cache);
    let second = SecondCopy::when(Caching::Use);
    let id = parent.snapshot_id;
    let source = GrantSource::new(member, transfer, id, &packs, Caching::Sound, second);
    let index = parent::stored_index(member.home.path(), &member.vault);
    let keys = member.vault.clone();
    Some(Reader::open(&newest.manifest, &packs, keys, source, index))
}

/// The engine's side of a run; lives on a thread of its own.
struct Seat {
    member: Arc<Member>,
    session: Session,
    half_dead: Vec<PackRef>,
    watch: Watch,
    others: Arc<ConfirmedPacks>,
}

struct Fed {
    finished: FinishedSnapshot,
    index: Arc<ChunkIndex>,
    exceptions: Told<RunException>,
    left_out: Told<LeftOut>,
}

impl Seat {
    fn feed(
        self,
        plan: Plan,
        parent: Option<&Reader>,
        adopted: &[Adopted],
        sink: UploadSink,
    ) -> Result<Fed, FeedError> {
        let Self { member, session, half_dead, watch, others } = self;
        let home = member.home.path();
        let lost = session.parent.iter().flat_map(|parent| &parent.lost);
        let half_dead_ids = half_dead.iter().map(|pack| &pack.id);
        let damaged = parent.map(|parent| parent::damaged_metadata(parent, &watch.cancel));
        let damaged = damaged.unwrap_or_default();
        let left: BTreeSet<PackId> = lost.chain(half_dead_ids).chain(&damaged).copied().collect();
        let limits = (plan.memory.index(), &watch.cancel);
        let cache = Cache::at(&member.home.cache());
        let adopted = (adopted, &cache);
        let index = parent::index_of(home, &member.vault, parent, &left, adopted, &others, limits);
        let index = Arc::new(index);
        let salvage = Salvage::of(&member.vault, adopted, parent, &index);
        let context = BackupContext {
            agent: member.identity.agent_id,
            session: session.id,
            key_epoch: session.key_epoch,
            first_seq: 1,
            workers: plan.memory.workers(),
            max_pack: Some(plan.memory.max_pack()),
        };
        let cursor = parent.and_then(|parent| ParentCursor::of(parent).ok());
        let world = member.control.world();
        let mut writer = Writer::begin(
            context,
            member.vault.clone(),
            &member.descriptor,
            index.clone(),
            Arc::new(sink),
            world.ids.clone(),
        )?;
        writer.checkpoint_every(faults::every(plan.checkpoint));
        if let Some(parent) = parent {
            half_dead::carry_over(&mut writer, parent.frames(), &half_dead, &watch.cancel)?;
        }
        let names = &plan.options.names;
        let mut feeder = Feeder::new(
            &mut writer,
            cursor,
            names,
            watch.counters,
            watch.cancel,
            world.clock.clone(),
        );
        feeder.pace = Pace::shared(plan.limits.read);
        feeder.exceptions = Telling::to(&home.join(EXCEPTIONS));
        feeder.left_out = Telling::to(&home.join(LEFT_OUT));
        feeder.salvage = salvage;
        Walk::run(&plan.roots, &plan.options, &mut feeder)?;
        let (exceptions, left_out) = (feeder.exceptions.finish(), feeder.left_out.finish());
        let summary = Summary {
            paths: plan.roots.paths().iter().map(|path| path.join(&b'/')).collect(),
            tags: plan.source.tags,
            host: member.identity.name.clone(),
            exceptions: exceptions.count(),
            ..Summary::default()
        };
        let finished = writer.finish(summary)?;
        Ok(Fed { finished, index, exceptions, left_out })
    }
}

impl Made {
    fn stats(&self) -> SnapshotStats {
        let stats = self.finished.stats;
        SnapshotStats {
            files: stats.files,
            directories: stats.directories,
            others: stats.others,
            source_bytes: stats.source_bytes,
            new_bytes: stats.new_bytes,
            stored_bytes: stats.stored_bytes,
            exceptions: self.exceptions.count(),
            duration_ms: 0,
        }
    }

    fn manifest(&self, member: &Member, session: &Session) -> Result<Manifest, RunError> {
        let builder = Builder {
            descriptor: &member.descriptor,
            workload: member.identity.workload_id,
            agent: member.identity.agent_id,
            session: session.id,
            fence: session.fence,
            key_epoch: session.key_epoch,
            created: member.control.server_now(),
            parent: self.chain.as_ref().map_or(&[], |chain| &chain.manifests),
        };
        Ok(builder.build(&self.finished, &self.confirmed)?)
    }
}

async fn store_manifest(
    lane: &Lane,
    spool: &Spool,
    seq: u64,
    bytes: &[u8],
) -> Result<vault::manifest::Confirmed, RunError> {
    let spooled = spool
        .put(PackKind::Manifest, seq, Sha256::of(bytes), bytes.to_vec().into())
        .map_err(RunError::Journal)?;
    let stored = upload::upload(lane, &spooled).await?;
    spooled.release(&lane.cache).map_err(RunError::Journal)?;
    Ok(stored)
}

/// Keeps the receipt and what the next run can use. The snapshot is committed: what fails here is told,
/// in words, and fails nothing.
fn settle(
    member: &Member,
    made: &Made,
    manifest: &Manifest,
    stored: &vault::manifest::Confirmed,
    bytes: &[u8],
    reply: &CommitReply,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let key = member.identity.receipt_key.as_deref().and_then(key_bytes);
    if receipt_fits(key, stored, bytes, reply) {
        let commit = LastCommit {
            snapshot_id: reply.snapshot.id,
            committed_at: reply.snapshot.committed_at,
            receipt: reply.receipt.clone(),
        };
        if let Err(error) = member.home.save_last_commit(&commit) {
            warnings.push(format!("the receipt could not be kept: {error}"));
        }
    } else {
        warnings.push(BAD_RECEIPT.to_owned());
    }
    if let Err(error) = keep_for_next_run(member, made, manifest, stored, bytes) {
        warnings.push(format!("the index could not be kept, the next backup is slower: {error}"));
    }
    warnings
}

const BAD_RECEIPT: &str = "the server's receipt is not for what was committed; verify this snapshot before you rely on it";

fn receipt_fits(
    key: Option<[u8; 32]>,
    stored: &vault::manifest::Confirmed,
    bytes: &[u8],
    reply: &CommitReply,
) -> bool {
    let receipt = BASE64.decode(&reply.receipt).ok().zip(key);
    let receipt = receipt.and_then(|(receipt, key)| Receipt::open(&receipt, &key).ok());
    receipt.is_some_and(|receipt| {
        receipt.snapshot == reply.snapshot.id
            && receipt.manifest == stored.id
            && receipt.manifest_sha256 == Sha256::of(bytes)
    })
}

fn keep_for_next_run(
    member: &Member,
    made: &Made,
    manifest: &Manifest,
    stored: &vault::manifest::Confirmed,
    bytes: &[u8],
) -> io::Result<()> {
    let Ok(own) = SignedManifest::decode(stored.id, bytes) else { return Ok(()) };
    let before = made.chain.as_ref().map_or(&[][..], |chain| &chain.manifests);
    let chain: Vec<SignedManifest> = std::iter::once(own).chain(before.iter().cloned()).collect();
    let Ok(set) = resolve(&chain) else { return Ok(()) };
    debug_assert_eq!(set.hash(), manifest.set_hash);
    let used = set.by_hash();
    // Another path set's packs stay known, or alternating two sets would upload each anew.
    let keep = |sha256: &Sha256| used.contains_key(sha256) || made.others.contains_key(sha256);
    made.index.retain(keep);
    Cache::at(&member.home.cache()).retain(keep);
    parent::save_index(member.home.path(), &made.index)
}

/// The first thousand exceptions travel; all are counted and shown here.
const TOLD: usize = 1000;

async fn finish(member: &Member, assignment: &Assignment, made: &Made, reply: &CommitReply) {
    let stats = &reply.snapshot.stats;
    let body = FinishRun {
        epoch: assignment.epoch,
        state: reply.snapshot.status,
        progress: api::scheduler::Progress {
            files: stats.files,
            source_bytes: stats.source_bytes,
            new_bytes: stats.new_bytes,
            stored_bytes: stats.stored_bytes,
            exceptions: stats.exceptions,
            phase: "ended".to_owned(),
        },
        receipt: Some(reply.receipt.clone()),
        snapshot_id: Some(reply.snapshot.id),
        exceptions: made.exceptions.iter().take(TOLD).cloned().collect(),
        error: None,
    };
    let run: RunId = assignment.run.id;
    if let Err(error) = member.control.finish_run(run, &body).await {
        // The catalog tells the scheduler of every commit; only the list of exceptions is late.
        tracing::warn!(%error, "the scheduler could not be told of the end of the run");
    }
}
