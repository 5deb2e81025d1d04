//! Packs: the objects of the vault bucket that hold frames.
//!
//! Owns the byte layout of a pack: header, directory, frames, padding, directory again, header again, tail.
//! Invariant: a pack opens only if its header commits to the key, both lengths tile the object exactly and the
//! sealed directory lists every frame; so truncation, reordering and splicing fail before a byte is used.
//! It must not know what frames mean.

mod directory;
mod header;
mod pieces;
mod read;
mod write;

pub use directory::{Directory, FrameInfo, Part};
pub use header::{HEADER_LEN, Header};
pub use pieces::Pieces;
pub use read::{Decoder, OpenPack, PackError, TAIL_LEN};
pub use write::{FrameTicket, PackBuilder, SealedFrame};

use crate::{id::Sha256, layout::ObjectKind};

/// Content and metadata never share a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PackKind {
    /// Chunks and bundles.
    Data,
    /// Nodes, lists and summaries.
    Meta,
}

impl PackKind {
    /// The number in headers and manifests.
    pub const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Meta => 2,
        }
    }
    /// The kind with this number.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Data),
            2 => Some(Self::Meta),
            _ => None,
        }
    }
    /// The word in keys and in the API.
    pub const fn as_str(self) -> &'static str {
        self.object().as_str()
    }
    /// The same, among all kinds of objects.
    pub const fn object(self) -> ObjectKind {
        match self {
            Self::Data => ObjectKind::Data,
            Self::Meta => ObjectKind::Meta,
        }
    }
}

/// A finished pack, ready to be stored: ciphertext only.
#[derive(Clone)]
pub struct SealedPack {
    pub kind: PackKind,
    /// Number inside the session, as sealed into the header.
    pub seq: u64,
    pub sha256: Sha256,
    pub bytes: Pieces,
    /// What is inside; goes into the index, stays on this machine.
    pub directory: Directory,
}
