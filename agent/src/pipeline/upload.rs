//! From the journal into the store: allocate, PUT, confirm, a few packs at a time.
//!
//! [`UploadSink`] is the engine's side (blocking, and the back-pressure: it waits while the queue is
//! full); [`Uploads`] is the network's. Every step may be repeated: allocation and confirmation are
//! idempotent, and a PUT that got through unheard answers "exists".

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use api::{
    Code,
    catalog::{
        AllocatePack, AllocatePacks, ConfirmPack, ConfirmPacks, PackFacts, PackKind, UploadGrant,
    },
    client,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::SessionId;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use vault::{
    backup::{PackSink, SinkError},
    id::Sha256,
    manifest::Confirmed,
    pack::SealedPack,
};

use super::{
    source::Cache,
    spool::{Spool, Spooled},
};
use crate::control::{Control, Stored, Transfer, TransferError, pause, retryable};

/// Packs in the air at once.
const IN_FLIGHT: usize = 4;
/// Packs waiting in the journal before the engine has to wait.
const QUEUE: usize = 2;
/// Tries per pack, with pauses up to 30 s: about ten minutes of a store that is away.
const TRIES: u32 = 25;
/// A grant may run out under way, but fresh ones in a row that are all refused mean no.
const DENIED: u32 = 4;

/// An upload that ended the run.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("the control plane refused a pack: {0}")]
    Control(#[from] client::Error),
    #[error("a pack could not be stored: {0}")]
    Store(#[from] TransferError),
    #[error("the journal cannot be written: {0}; is the disk of the agent's home full?")]
    Journal(#[source] std::io::Error),
    #[error("the server's answer does not fit the pack that was asked about")]
    Confused,
    #[error("the run was canceled")]
    Canceled,
    #[error("an upload task ended unexpectedly")]
    Task,
}

/// The session uploads belong to.
#[derive(Clone)]
pub struct Lane {
    pub control: Control,
    pub transfer: Transfer,
    pub session: SessionId,
    pub fence: u64,
    pub cache: Cache,
    pub cancel: CancellationToken,
}

/// The engine's side.
pub struct UploadSink {
    spool: Spool,
    queue: mpsc::Sender<Spooled>,
    cancel: CancellationToken,
    /// Bytes of packs sealed so far, for progress.
    stored: Arc<AtomicU64>,
}

/// Confirmed packs by the hash of their ciphertext.
pub type ConfirmedPacks = BTreeMap<Sha256, Confirmed>;

/// The network's side: a task that ends when every sink is dropped and every pack confirmed.
pub struct Uploads {
    task: tokio::task::JoinHandle<Result<ConfirmedPacks, UploadError>>,
}

/// Starts uploading. The sink's end is the end of the queue.
pub fn start(lane: Lane, spool: Spool, stored: Arc<AtomicU64>) -> (UploadSink, Uploads) {
    let (queue, waiting) = mpsc::channel(QUEUE);
    // A failed upload stops the engine at its next pack, but is no cancel by a person.
    let stop = lane.cancel.child_token();
    let sink = UploadSink { spool, queue, cancel: stop.clone(), stored };
    let task = tokio::spawn(run(lane, waiting, stop));
    (sink, Uploads { task })
}

impl Uploads {
    /// Waits for the last confirmation.
    ///
    /// # Errors
    /// The first upload that failed for good.
    pub async fn finish(self) -> Result<ConfirmedPacks, UploadError> {
        self.task.await.map_err(|_| UploadError::Task)?
    }
}

impl PackSink for UploadSink {
    fn emit(&self, pack: SealedPack) -> Result<(), SinkError> {
        let refuse = |error: UploadError| SinkError(Box::new(error));
        if self.cancel.is_cancelled() {
            return Err(refuse(UploadError::Canceled));
        }
        let kind = match pack.kind {
            vault::pack::PackKind::Data => PackKind::Data,
            vault::pack::PackKind::Meta => PackKind::Meta,
        };
        let spooled = self
            .spool
            .put(kind, pack.seq, pack.sha256, pack.bytes)
            .map_err(|error| refuse(UploadError::Journal(error)))?;
        self.stored.fetch_add(spooled.length, Ordering::Relaxed);
        self.queue.blocking_send(spooled).map_err(|_| refuse(UploadError::Canceled))
    }
}

async fn run(
    lane: Lane,
    mut waiting: mpsc::Receiver<Spooled>,
    stop: CancellationToken,
) -> Result<ConfirmedPacks, UploadError> {
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut flying: JoinSet<Result<(Sha256, Confirmed), UploadError>> = JoinSet::new();
    let mut confirmed = BTreeMap::new();
    let outcome = loop {
        tokio::select! {
            () = lane.cancel.cancelled() => break Err(UploadError::Canceled),
            Some(done) = flying.join_next() => match done {
                Ok(Ok((sha256, facts))) => { confirmed.insert(sha256, facts); }
                Ok(Err(error)) => break Err(error),
                Err(_) => break Err(UploadError::Task),
            },
            next = next_pack(&mut waiting, &slots) => match next {
                Some((pack, slot)) => {
                    let lane = lane.clone();
                    flying.spawn(async move {
                        let facts = upload(&lane, &pack).await?;
                        pack.release(&lane.cache).map_err(UploadError::Journal)?;
                        drop(slot);
                        Ok((pack.sha256, facts))
                    });
                }
                None => break Ok(()),
            },
        }
    };
    if outcome.is_err() {
        stop.cancel();
    }
    outcome?;
    while let Some(done) = flying.join_next().await {
        let (sha256, facts) = done.map_err(|_| UploadError::Task)??;
        confirmed.insert(sha256, facts);
    }
    Ok(confirmed)
}

async fn next_pack(
    waiting: &mut mpsc::Receiver<Spooled>,
    slots: &Arc<Semaphore>,
) -> Option<(Spooled, tokio::sync::OwnedSemaphorePermit)> {
    // The slot first: what is taken off the queue and then dropped would be lost.
    let slot = slots.clone().acquire_owned().await.ok()?;
    waiting.recv().await.map(|pack| (pack, slot))
}

/// One object, until the control plane confirms it.
///
/// # Errors
/// When it was refused for good or tried too often.
pub async fn upload(lane: &Lane, pack: &Spooled) -> Result<Confirmed, UploadError> {
    let (mut attempt, mut denied) = (1, 0);
    loop {
        let tried = try_once(lane, pack).await;
        let is_denied = matches!(&tried, Err(UploadError::Store(error)) if error.is_denied());
        denied = if is_denied { denied + 1 } else { 0 };
        match tried {
            Ok(facts) => return facts_to_confirmed(facts),
            Err(error) if attempt < TRIES && denied < DENIED && worth_another_try(&error) => {
                tracing::warn!(seq = pack.seq, attempt, %error, "upload is tried again");
                let pause = pause(attempt, lane.control.world().ids.as_ref());
                tokio::select! {
                    () = lane.cancel.cancelled() => return Err(UploadError::Canceled),
                    () = tokio::time::sleep(pause) => attempt += 1,
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn worth_another_try(error: &UploadError) -> bool {
    match error {
        UploadError::Control(error) => {
            retryable(error) || error.code() == Some(Code::PackNotConfirmed)
        }
        UploadError::Store(error) => error.is_retryable(),
        UploadError::Journal(_)
        | UploadError::Confused
        | UploadError::Canceled
        | UploadError::Task => false,
    }
}

async fn try_once(lane: &Lane, pack: &Spooled) -> Result<PackFacts, UploadError> {
    let grant = allocate(lane, pack).await?;
    let Some(put) = &grant.put else { return Ok(grant.pack) };
    let version_id = match lane.transfer.put(put, &pack.payload, pack.length).await? {
        Stored::Now(version) => version,
        Stored::Before => None,
    };
    let packs = vec![ConfirmPack { id: grant.pack.id, version_id }];
    let body = ConfirmPacks { fence: lane.fence, packs };
    let reply = lane.control.confirm(lane.session, &body).await?;
    let facts = reply.packs.into_iter().find(|facts| facts.id == grant.pack.id);
    facts.ok_or(UploadError::Confused)
}

async fn allocate(lane: &Lane, pack: &Spooled) -> Result<UploadGrant, UploadError> {
    let wanted = AllocatePack {
        seq: pack.seq,
        kind: pack.kind,
        sha256: pack.sha256.to_string(),
        md5: pack.md5.map(|md5| BASE64.encode(md5)),
        length: pack.length,
    };
    let body = AllocatePacks { fence: lane.fence, packs: vec![wanted] };
    let reply = lane.control.allocate(lane.session, &body).await?;
    let grant = reply.grants.into_iter().next().ok_or(UploadError::Confused)?;
    let fits = grant.pack.sha256 == pack.sha256.to_string() && grant.pack.length == pack.length;
    if fits { Ok(grant) } else { Err(UploadError::Confused) }
}

fn facts_to_confirmed(facts: PackFacts) -> Result<Confirmed, UploadError> {
    // A store without versions would break R2; the server never confirms one.
    let version_id = facts.version_id.ok_or(UploadError::Confused)?;
    Ok(Confirmed { id: facts.id, version_id })
}
