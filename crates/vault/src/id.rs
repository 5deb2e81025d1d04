//! Keyed content ids: what a piece of plaintext is called, and the proof that it is that piece.
//!
//! An id is keyed BLAKE3 over the length and the bytes, under a key of the vault and of the kind, so an id
//! of one kind or vault means nothing in another. Invariant: every read compares the id again.
//! Chunk ids have 32 bytes; the id of a small file 16 (it sits beside the 32-byte id of its bundle and costs
//! space a million times).

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::seal::derive_key;

macro_rules! content_id {
    ($name:ident, $len:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Reads an id from exactly as many bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

content_id!(
    ChunkId,
    32,
    "Keyed id of one frame's plaintext: chunk, bundle, list, node or summary."
);
content_id!(
    FileId,
    16,
    "Keyed id of one small file's content (the first 16 bytes of keyed BLAKE3)."
);
content_id!(Sha256, 32, "SHA-256 of an object as stored; the object's name.");

impl Sha256 {
    /// Hashes an object.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

/// What a frame holds. The number is in the pack directory, the AAD and, by key, in the chunk id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// Encrypted zeros that hide the pack's true length.
    Pad = 0,
    /// One piece of one or more files.
    Chunk = 1,
    /// Several small files, one after the other.
    Bundle = 2,
    /// A node of the metadata tree.
    Node = 3,
    /// A part of a long content list.
    List = 4,
    /// What a snapshot says about itself (paths, tags, counts).
    Summary = 5,
}

impl FrameKind {
    /// The kind with this number.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Pad,
            1 => Self::Chunk,
            2 => Self::Bundle,
            3 => Self::Node,
            4 => Self::List,
            5 => Self::Summary,
            _ => return None,
        })
    }
    /// The number of the kind.
    pub const fn code(self) -> u8 {
        self as u8
    }
    const fn label(self) -> &'static str {
        match self {
            Self::Pad => "everhold/v1/id/pad",
            Self::Chunk => "everhold/v1/id/chunk",
            Self::Bundle => "everhold/v1/id/bundle",
            Self::Node => "everhold/v1/id/node",
            Self::List => "everhold/v1/id/list",
            Self::Summary => "everhold/v1/id/summary",
        }
    }
}

/// The id keys of a vault, one per kind, derived from its id secret.
pub struct IdKeys {
    frames: [Zeroizing<[u8; 32]>; 6],
    file: Zeroizing<[u8; 32]>,
}

impl IdKeys {
    /// Derives the keys. `secret` is the vault's id secret and stays the same through all epochs.
    pub fn new(secret: &[u8; 32]) -> Self {
        use FrameKind::{Bundle, Chunk, List, Node, Pad, Summary};
        let key = |kind: FrameKind| derive_key(secret, kind.label());
        Self {
            frames: [key(Pad), key(Chunk), key(Bundle), key(Node), key(List), key(Summary)],
            file: derive_key(secret, "everhold/v1/id/file"),
        }
    }

    /// The id keys of a vault.
    pub fn of(keys: &crate::keys::VaultKeys) -> Self {
        Self::new(keys.id_secret())
    }

    /// The id of a frame's plaintext.
    pub fn chunk(&self, kind: FrameKind, plaintext: &[u8]) -> ChunkId {
        ChunkId(keyed(&self.frames[usize::from(kind.code())], plaintext))
    }

    /// The id of a small file's content.
    pub fn file(&self, content: &[u8]) -> FileId {
        let mut id = [0; 16];
        id.copy_from_slice(&keyed(&self.file, content)[..16]);
        FileId(id)
    }

    /// Whether `plaintext` is what `id` names.
    pub fn matches(&self, kind: FrameKind, id: &ChunkId, plaintext: &[u8]) -> bool {
        bool::from(self.chunk(kind, plaintext).0.ct_eq(&id.0))
    }
}

fn keyed(key: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
    hasher.finalize().into()
}
