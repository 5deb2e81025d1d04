//! Nodes: a run of entries, or of children, in key order.
//!
//! One CBOR array. Leaf: `[0, shared, suffix, value, …]`; inner: `[level, shared, suffix, id, entries, …]` where
//! the key of an item is `shared` bytes of the key before it, then `suffix`. Invariant: keys ascend strictly
//! and `shared` is as long as it can be, so a list of items has one encoding.

use crate::{
    cbor::{CborError, Reader, Writer},
    id::ChunkId,
};

/// Trees are not deeper: with 40 children a node, 16 levels hold 2^85 entries.
pub(super) const MAX_LEVEL: u8 = 16;

/// What a decoded node may take: keys and values written out, and [`ITEM`] for each of its items. Keys are stored
/// without what they share, so that a node of a few megabytes could name many gigabytes of them.
const MAX_DECODED: usize = 32 << 20;
/// A node ends when it takes this much decoded; an item of the greatest length more is still allowed.
const ENOUGH_DECODED: usize = 8 << 20;
/// What an item takes besides its bytes.
const ITEM: usize = 64;
/// So much of a key counts at most where nodes end: the first key of a node is written out, and if that alone filled it,
/// every node would have one item and the tree no end.
const KEY_COUNTS: usize = 1 << 10;

/// A child of an inner node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Smallest key below it.
    pub first: Vec<u8>,
    pub id: ChunkId,
    /// Entries below it.
    pub entries: u64,
}

/// One decoded node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Keys and encoded entries.
    Leaf(Vec<(Vec<u8>, Vec<u8>)>),
    Inner {
        level: u8,
        children: Vec<Child>,
    },
}

impl Node {
    /// 0 for leaves.
    pub const fn level(&self) -> u8 {
        match self {
            Self::Leaf(_) => 0,
            Self::Inner { level, .. } => *level,
        }
    }
    /// Its smallest key; only the root of an empty tree has none.
    pub fn first(&self) -> Option<&[u8]> {
        match self {
            Self::Leaf(items) => items.first().map(|(key, _)| key.as_slice()),
            Self::Inner { children, .. } => children.first().map(|child| child.first.as_slice()),
        }
    }
    /// Entries in and below the node; `None` if a hostile count overflows.
    pub fn entries(&self) -> Option<u64> {
        match self {
            Self::Leaf(items) => Some(items.len() as u64),
            Self::Inner { children, .. } => {
                children.iter().try_fold(0_u64, |sum, child| sum.checked_add(child.entries))
            }
        }
    }

    /// Strict decoder.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(bytes);
        let r = &mut reader;
        let items = r.array()?;
        if items == 0 {
            return Err(CborError::OutOfBounds);
        }
        let level = r.u8()?;
        let width = if level == 0 { 3 } else { 4 };
        if level > MAX_LEVEL || !(items - 1).is_multiple_of(width) || (level > 0 && items == 1) {
            return Err(CborError::OutOfBounds);
        }
        let count = (items - 1) / width;
        let mut room = MAX_DECODED;
        let mut take = |bytes: usize| {
            room = room.checked_sub(bytes).ok_or(CborError::OutOfBounds)?;
            Ok::<_, CborError>(())
        };
        take(count.checked_mul(ITEM).ok_or(CborError::OutOfBounds)?)?;
        let node = if level == 0 {
            let mut leaf: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(count);
            for _ in 0..count {
                let key = read_key(r, leaf.last().map(|(key, _)| key.as_slice()))?;
                let value = r.bytes()?;
                take(key.len() + value.len())?;
                leaf.push((key, value.to_vec()));
            }
            Self::Leaf(leaf)
        } else {
            let mut children: Vec<Child> = Vec::with_capacity(count);
            for _ in 0..count {
                let first = read_key(r, children.last().map(|child| child.first.as_slice()))?;
                take(first.len())?;
                children.push(Child { first, id: ChunkId(r.array_of()?), entries: r.u64()? });
            }
            Self::Inner { level, children }
        };
        reader.end()?;
        Ok(node)
    }
}

fn read_key(r: &mut Reader<'_>, previous: Option<&[u8]>) -> Result<Vec<u8>, CborError> {
    let shared = usize::try_from(r.u64()?).map_err(|_| CborError::OutOfBounds)?;
    let suffix = r.bytes()?;
    let before = previous.unwrap_or_default();
    let prefix = before.get(..shared).ok_or(CborError::OutOfBounds)?;
    let mut key = Vec::with_capacity(shared + suffix.len());
    key.extend_from_slice(prefix);
    key.extend_from_slice(suffix);
    let ascends = previous.is_none_or(|previous| previous < key.as_slice());
    if !ascends || common(before, &key) != shared {
        return Err(CborError::NotDeterministic);
    }
    if key.len() > super::path::MAX_PATH_BYTES + 2 {
        return Err(CborError::OutOfBounds);
    }
    Ok(key)
}

fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A leaf with one item.
pub(crate) fn leaf_of_one(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut leaf = NodeWriter::new(0);
    leaf.entry(key, value);
    leaf.finish()
}

/// A node under construction.
#[derive(Clone)]
pub(super) struct NodeWriter {
    level: u8,
    body: Writer,
    items: usize,
    pub(super) first: Option<Vec<u8>>,
    last: Vec<u8>,
    pub(super) entries: u64,
    /// What it takes decoded.
    decoded: usize,
    /// Bytes of keys beyond those that count.
    beyond: usize,
}

impl NodeWriter {
    pub(super) const fn new(level: u8) -> Self {
        Self {
            level,
            body: Writer::new(),
            items: 0,
            first: None,
            last: Vec::new(),
            entries: 0,
            decoded: 0,
            beyond: 0,
        }
    }
    fn key(&mut self, key: &[u8]) -> &mut Writer {
        let shared = common(&self.last, key);
        self.body.uint(shared as u64).bytes(&key[shared..]);
        if self.first.is_none() {
            self.first = Some(key.to_vec());
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        self.decoded += ITEM + key.len();
        self.beyond += (key.len() - shared).saturating_sub(KEY_COUNTS);
        &mut self.body
    }
    pub(super) fn entry(&mut self, key: &[u8], value: &[u8]) {
        self.decoded += value.len();
        self.key(key).bytes(value);
        self.items += 3;
        self.entries += 1;
    }
    pub(super) fn child(&mut self, child: &Child) {
        self.key(&child.first).bytes(&child.id.0).uint(child.entries);
        self.items += 4;
        self.entries += child.entries;
    }
    pub(super) const fn is_empty(&self) -> bool {
        self.items == 0
    }
    /// Whether it must end for what it takes decoded, however short it is.
    pub(super) const fn is_full(&self) -> bool {
        self.decoded >= ENOUGH_DECODED
    }
    /// Bytes of the items so far that count where nodes end.
    pub(super) fn len(&self) -> usize {
        self.body.len() - self.beyond
    }
    pub(super) fn finish(self) -> Vec<u8> {
        let mut out = Writer::new();
        out.array(1 + self.items).uint(self.level).raw(&self.body.into_bytes());
        out.into_bytes()
    }
}
