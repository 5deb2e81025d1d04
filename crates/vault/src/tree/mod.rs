//! The metadata tree: what was backed up, as an ordered content-addressed tree keyed by path.
//!
//! Owns entries, their order and encoding, nodes with content-defined boundaries (a prolly tree), look-up,
//! range scans and differences. Invariant: the same entries make the same nodes, so unchanged parts are shared
//! by id. It must not know packs: nodes are fetched and stored through [`NodeSource`] and [`NodeSink`].

mod build;
mod diff;
mod entry;
mod node;
pub mod path;
mod read;

pub use build::{NodeSink, TreeBuilder};
pub use diff::{Change, Diff};
pub use entry::{Content, Entry, EntryKind, FileTime, MAX_ENTRY_BYTES, Piece, Xattr};
pub(crate) use entry::{decode_pieces, encode_pieces, total};
pub(crate) use node::leaf_of_one;
pub use node::{Child, Node};
pub(crate) use read::decode as decode_item;
pub use read::{Cursor, KeyedEntry, NodeSource, Tree, TreeError};

use crate::id::ChunkId;

/// Name of a tree: its root node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Root {
    pub node: ChunkId,
    /// Level of the root node; leaves are level 0.
    pub level: u8,
    /// Entries in the whole tree.
    pub entries: u64,
}
