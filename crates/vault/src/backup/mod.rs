//! Backups: from entries and bytes to sealed packs and the root of a tree.
//!
//! Owns the data path chunk → id → dedup → compress → seal → pack, with a bounded worker pool. Invariants: the
//! same input makes the same tree, but for bundles a checkpoint ended early; memory does not grow with the source; every chunk a finished snapshot names is
//! in a pack that went through the sink or was in the index. It must not know uploads, sessions or manifests.

mod bundle;
mod flight;
mod haste;
mod pool;
mod store;
mod summary;
mod writer;

use domain::{AgentId, SessionId};

pub use summary::Summary;
pub use writer::{Begun, FileOutcome, Reuse, Writer};

use crate::{
    descriptor::DescriptorError,
    id::ChunkId,
    keys::WrapError,
    manifest::PackUsage,
    pack::{PackError, SealedPack},
    snapshot::ReadError,
    tree::{Root, TreeError, path::BadPath},
};

/// Takes finished packs. May block: that is the back-pressure. Called from several threads.
pub trait PackSink: Send + Sync {
    /// Takes the pack over; an error ends the backup.
    fn emit(&self, pack: SealedPack) -> Result<(), SinkError>;
}

/// The sink could not take a pack.
#[derive(Debug, thiserror::Error)]
#[error("the pack could not be handed over")]
pub struct SinkError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Who writes, and where in the session.
#[derive(Debug, Clone, Copy)]
pub struct BackupContext {
    pub agent: AgentId,
    pub session: SessionId,
    /// Epoch whose key seals new packs.
    pub key_epoch: u32,
    /// First free sequence number of the session.
    pub first_seq: u64,
    /// Threads that hash, compress and seal; at least 1.
    pub workers: usize,
    /// Packs are closed at this size if the vault's own is larger; bytes. Memory holds a few of them.
    pub max_pack: Option<u32>,
}

/// Counts of one backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    pub files: u64,
    pub directories: u64,
    pub others: u64,
    /// Bytes of all files, holes included.
    pub source_bytes: u64,
    /// Content not stored before, before compression, without metadata.
    pub new_bytes: u64,
    /// Bytes of the packs of this backup, as stored.
    pub stored_bytes: u64,
    pub packs: u64,
}

/// A tree and everything it needs, all handed to the sink or stored before.
#[derive(Debug, Clone)]
pub struct FinishedSnapshot {
    pub root: Root,
    /// Id of the sealed [`Summary`].
    pub summary: ChunkId,
    /// Every pack the snapshot uses, new and old, with the frames it uses.
    pub usage: Vec<PackUsage>,
    /// First sequence number not used; the manifest takes it.
    pub next_seq: u64,
    pub stats: Stats,
}

/// The backup cannot go on. Nothing is committed, so nothing is lost.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("entries must come in key order, each path once")]
    OutOfOrder,
    #[error(transparent)]
    BadPath(#[from] BadPath),
    #[error("the entry cannot be stored: it is not of the kind the call is for, or too large")]
    BadEntry,
    #[error("a file could not be read")]
    Source(#[source] std::io::Error),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("a sealed frame did not read back as what was sealed; memory or a library is broken")]
    SelfCheck,
    #[error("a chunk in use is in no known pack")]
    Unlocated,
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    #[error(transparent)]
    Keys(#[from] WrapError),
    #[error("the parent snapshot could not be read")]
    Parent(#[from] ReadError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error("a worker thread ended unexpectedly")]
    Worker,
}
