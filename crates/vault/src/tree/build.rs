//! Building a tree from entries in key order, a node at a time.

use super::{
    Child, Root,
    node::{MAX_LEVEL, NodeWriter},
};
use crate::{descriptor::NodeSizes, id::ChunkId, seal::derive_key};

/// Stores nodes. A node may be stored already; its id is what matters.
pub trait NodeSink {
    type Error;
    /// Stores the plaintext of a node and names it.
    fn store(&mut self, node: Vec<u8>) -> Result<ChunkId, Self::Error>;
}

/// Where nodes end: after an item whose keyed hash is below a bound in proportion to the item's length, once the
/// node has its least size; at the latest at its greatest, or when it takes much memory decoded. The hash is over level
/// and key alone, so changing an entry moves at most the one boundary after it.
struct Cutter {
    key: zeroize::Zeroizing<[u8; 32]>,
    sizes: NodeSizes,
}

impl Cutter {
    fn cuts(&self, level: u8, key: &[u8], item_len: usize, node_len: usize) -> bool {
        if node_len < self.sizes.min as usize {
            return false;
        }
        if node_len >= self.sizes.max as usize {
            return true;
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&[level]).update(key);
        let mut first = [0; 4];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..4]);
        let span = u64::from(self.sizes.target - self.sizes.min);
        u64::from(u32::from_le_bytes(first)) * span < ((item_len as u64) << 32)
    }
}

/// Streaming builder. Memory: one open node per level.
pub struct TreeBuilder {
    cutter: Cutter,
    levels: Vec<Level>,
}

struct Level {
    open: NodeWriter,
    /// Nodes closed so far.
    closed: u64,
    last: Option<Child>,
}

impl Level {
    const fn new(level: u8) -> Self {
        Self { open: NodeWriter::new(level), closed: 0, last: None }
    }
}

impl TreeBuilder {
    /// `id_secret` keys the boundaries.
    pub fn new(id_secret: &[u8; 32], sizes: NodeSizes) -> Self {
        let key = derive_key(id_secret, "everhold/v1/tree/boundary");
        Self { cutter: Cutter { key, sizes }, levels: vec![Level::new(0)] }
    }

    /// Adds an entry; keys must ascend (the caller checks).
    pub fn push<S: NodeSink>(
        &mut self,
        key: &[u8],
        value: &[u8],
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let leaf = &mut self.levels[0].open;
        let before = leaf.len();
        leaf.entry(key, value);
        let (item, node) = (leaf.len() - before, leaf.len());
        if leaf.is_full() || self.cutter.cuts(0, key, item, node) {
            self.close(0, sink)?;
        }
        Ok(())
    }

    fn close<S: NodeSink>(&mut self, from: u8, sink: &mut S) -> Result<(), S::Error> {
        let mut level = from;
        loop {
            let child = self.flush(level, sink)?;
            let above = level + 1;
            if self.levels.len() == usize::from(above) {
                self.levels.push(Level::new(above));
            }
            let open = &mut self.levels[usize::from(above)].open;
            let before = open.len();
            open.child(&child);
            let (item, node) = (open.len() - before, open.len());
            let ends = open.is_full() || self.cutter.cuts(above, &child.first, item, node);
            if above >= MAX_LEVEL || !ends {
                return Ok(());
            }
            level = above;
        }
    }

    fn flush<S: NodeSink>(&mut self, level: u8, sink: &mut S) -> Result<Child, S::Error> {
        let at = &mut self.levels[usize::from(level)];
        let node = std::mem::replace(&mut at.open, NodeWriter::new(level));
        let first = node.first.clone().unwrap_or_default();
        let entries = node.entries;
        let child = Child { first, id: sink.store(node.finish())?, entries };
        at.closed += 1;
        at.last = Some(child.clone());
        Ok(child)
    }

    /// The leaf under construction as if it ended here; `None` if nothing is in it.
    pub fn open_leaf(&self) -> Option<Vec<u8>> {
        let leaf = &self.levels[0].open;
        (!leaf.is_empty()).then(|| leaf.clone().finish())
    }

    /// Closes what is open; the root is the first level that has only one node.
    pub fn finish<S: NodeSink>(mut self, sink: &mut S) -> Result<Root, S::Error> {
        let mut level = 0;
        loop {
            let at = &self.levels[usize::from(level)];
            let only = at.closed == 0;
            if !at.open.is_empty() || only {
                if only {
                    let child = self.flush(level, sink)?;
                    return Ok(Root { node: child.id, level, entries: child.entries });
                }
                self.close(level, sink)?;
            }
            let at = &self.levels[usize::from(level)];
            if at.closed == 1
                && let Some(child) = &at.last
            {
                return Ok(Root { node: child.id, level, entries: child.entries });
            }
            level += 1;
        }
    }
}
