//! Reading snapshots: entries, folders, differences, file content.
//!
//! Owns the way from a manifest's pack set to plaintext. Invariant: every frame that is returned was authenticated
//! and its keyed id compared; a chunk that is in no pack is an error, never zeros. It must not know where packs come
//! from ([`PackSource`]).

pub(crate) mod content;
mod frames;
mod kept;
mod reader;

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

pub use content::{FilePiece, PieceSource};
pub(crate) use frames::damaged;
pub use frames::{Early, Frames, Spot};
pub use reader::{Reader, Walk};

use crate::{
    cbor::CborError,
    id::{ChunkId, Sha256},
    manifest::{PackRef, PackSet},
    pack::PackError,
    tree::TreeError,
};

/// Gives stretches of packs. Blocking; called from several threads.
pub trait PackSource: Send + Sync {
    /// Exactly the bytes `range` of the object, or an error. The range lies within `pack.length`.
    fn read(&self, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError>;

    /// In how many places a pack may be. Whoever found that what [`Self::read`] gave is not what it should be goes
    /// through them by their numbers, for each stretch anew: two copies may have rotted in different ones.
    fn places(&self, _pack: &PackRef) -> u8 {
        0
    }

    /// As [`Self::read`], from this place alone, past every cache.
    fn read_at(&self, _place: u8, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        self.read(pack, range)
    }

    /// What this place gave was right: [`Self::read`] begins with it from now on.
    fn prefer(&self, _place: u8, _pack: &PackRef) {}

    /// Packs of other snapshots of the vault, and where to read them: what a lost pack held may have been stored anew
    /// since. Asked once, when something is lost.
    fn others(&self) -> Option<Others> {
        None
    }
}

/// Packs beside those of a snapshot.
pub struct Others {
    pub packs: PackSet,
    pub source: Arc<dyn PackSource>,
}

/// A source that knows of others.
pub struct Beside<F> {
    pub own: Arc<dyn PackSource>,
    pub others: F,
}

impl<F: Fn() -> Option<Others> + Send + Sync> PackSource for Beside<F> {
    fn read(&self, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        self.own.read(pack, range)
    }
    fn places(&self, pack: &PackRef) -> u8 {
        self.own.places(pack)
    }
    fn read_at(&self, place: u8, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        self.own.read_at(place, pack, range)
    }
    fn prefer(&self, place: u8, pack: &PackRef) {
        self.own.prefer(place, pack);
    }
    fn others(&self) -> Option<Others> {
        (self.others)()
    }
}

/// A pack could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("the object is not there")]
    Missing,
    #[error("the object is not what its name says")]
    Wrong,
    #[error("the object could not be read")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The snapshot, or a part of it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("pack {pack} could not be read")]
    Source { pack: Sha256, source: SourceError },
    #[error("pack {pack} is damaged")]
    Pack { pack: Sha256, source: PackError },
    #[error("pack {pack} is not what its name says")]
    WrongHash { pack: Sha256 },
    #[error("chunk {0} is in no pack of the snapshot")]
    Unlocated(ChunkId),
    #[error("chunk {0} is not what its id says")]
    WrongId(ChunkId),
    #[error("a content list or summary is damaged: {0}")]
    Cbor(#[from] CborError),
    #[error("a file's content contradicts its entry")]
    WrongContent,
    #[error("the entry is not a regular file")]
    NotAFile,
    #[error(transparent)]
    Tree(Box<TreeError>),
    /// Everything from one path, included, to another, excluded, or to the end, in the order of the tree.
    #[error("a part of the tree is lost: {source}")]
    Stretch { from: Vec<u8>, until: Option<Vec<u8>>, source: Box<ReadError> },
    #[error("the output could not be written")]
    Output(#[source] std::io::Error),
    #[error(transparent)]
    Keys(#[from] crate::keys::WrapError),
}

impl ReadError {
    /// The bytes are gone or wrong where they should be; asking again changes nothing.
    pub const fn is_loss(&self) -> bool {
        match self {
            Self::Source { source, .. } => {
                matches!(source, SourceError::Missing | SourceError::Wrong)
            }
            Self::Pack { .. } | Self::WrongHash { .. } | Self::Unlocated(_) | Self::WrongId(_) => {
                true
            }
            Self::Stretch { source, .. } => source.is_loss(),
            _ => false,
        }
    }

    /// Nobody answered: another time the bytes may be had.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Source { source: SourceError::Failed(_), .. } => true,
            Self::Stretch { source, .. } => source.is_passing(),
            Self::Tree(error) => matches!(&**error, TreeError::Read(error) if error.is_passing()),
            _ => false,
        }
    }

    /// The pack it is about.
    fn pack(&self) -> Option<Sha256> {
        match self {
            Self::Source { pack, .. } | Self::Pack { pack, .. } => Some(*pack),
            _ => None,
        }
    }

    /// Why a pack could not be opened, told once more.
    fn again(&self) -> Self {
        let source = |pack: &Sha256, source| Self::Source { pack: *pack, source };
        match self {
            Self::Source { pack, source: SourceError::Missing } => {
                source(pack, SourceError::Missing)
            }
            Self::Source { pack, source: SourceError::Wrong } => source(pack, SourceError::Wrong),
            Self::Source { pack, source: SourceError::Failed(why) } => {
                source(pack, SourceError::Failed(why.to_string().into()))
            }
            Self::Pack { pack, source } => Self::Pack { pack: *pack, source: *source },
            // Nothing else comes of opening.
            _ => Self::WrongContent,
        }
    }
}

impl From<TreeError> for ReadError {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Read(inner) => *inner,
            other => Self::Tree(Box::new(other)),
        }
    }
}
