//! Look-up and scans.

use std::sync::Arc;

use super::{
    Entry, Node, Root,
    path::{self, BadPath},
};
use crate::{cbor::CborError, id::ChunkId, snapshot::ReadError};

/// Gives nodes by id; they are authenticated and re-identified.
pub trait NodeSource {
    /// The node with this id.
    fn node(&self, id: &ChunkId) -> Result<Arc<Node>, TreeError>;
}

impl<S: NodeSource + ?Sized> NodeSource for Arc<S> {
    fn node(&self, id: &ChunkId) -> Result<Arc<Node>, TreeError> {
        (**self).node(id)
    }
}

/// The tree cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("a node of the tree is damaged: {0}")]
    Cbor(#[from] CborError),
    #[error("a node of the tree is not where it belongs")]
    Shape,
    #[error(transparent)]
    BadPath(#[from] BadPath),
    #[error(transparent)]
    Read(Box<ReadError>),
}

impl From<ReadError> for TreeError {
    fn from(error: ReadError) -> Self {
        Self::Read(Box::new(error))
    }
}

/// A tree to read.
pub struct Tree<S> {
    source: S,
    root: Root,
}

impl<S: NodeSource> Tree<S> {
    pub const fn new(source: S, root: Root) -> Self {
        Self { source, root }
    }
    pub const fn root(&self) -> Root {
        self.root
    }
    pub const fn source(&self) -> &S {
        &self.source
    }
    pub(super) fn node(&self, id: &ChunkId, level: u8) -> Result<Arc<Node>, TreeError> {
        let node = self.source.node(id)?;
        if node.level() == level { Ok(node) } else { Err(TreeError::Shape) }
    }
    /// The entry at `path`.
    pub fn get(&self, path: &[u8]) -> Result<Option<Entry>, TreeError> {
        let key = path::key(path)?;
        let (mut id, mut level) = (self.root.node, self.root.level);
        loop {
            match &*self.node(&id, level)? {
                Node::Leaf(items) => {
                    let found = items.binary_search_by(|(k, _)| k.as_slice().cmp(&key));
                    return found.ok().map(|at| decode(&items[at])).transpose();
                }
                Node::Inner { children, .. } => {
                    let after = children.partition_point(|child| child.first <= key);
                    let Some(child) = after.checked_sub(1).and_then(|at| children.get(at)) else {
                        return Ok(None);
                    };
                    (id, level) = (child.id, level - 1);
                }
            }
        }
    }
}

/// Key and encoded entry.
pub type KeyedEntry = (Vec<u8>, Vec<u8>);

pub(crate) fn decode((key, value): &KeyedEntry) -> Result<Entry, TreeError> {
    Ok(Entry::decode(path::from_key(key)?, value)?)
}

/// A place in a tree, moving forward.
pub struct Cursor<T> {
    tree: T,
    /// From the root down: node and the index of the next item.
    stack: Vec<(Arc<Node>, usize)>,
    /// Last key of the leaf before, or first key of a node that could not be read: keys ascend over the whole tree, so
    /// a tree that leads into itself ends at the first repetition.
    before: Option<Vec<u8>>,
}

impl<S: NodeSource, T: std::ops::Deref<Target = Tree<S>>> Cursor<T> {
    /// At the first entry whose key is not below `key`.
    pub fn at(tree: T, key: &[u8]) -> Result<Self, TreeError> {
        let mut cursor = Self::nowhere(tree);
        cursor.seek(key)?;
        Ok(cursor)
    }
    /// In no place yet.
    pub const fn nowhere(tree: T) -> Self {
        Self { tree, stack: Vec::new(), before: None }
    }

    /// Moves to the first entry whose key is not below `key`; cheap when it is near.
    pub fn seek(&mut self, key: &[u8]) -> Result<(), TreeError> {
        if let Some((node, at)) = self.stack.last_mut()
            && let Node::Leaf(items) = &**node
        {
            let within = || {
                items.first().is_some_and(|(first, _)| first.as_slice() <= key)
                    && items.last().is_some_and(|(last, _)| last.as_slice() >= key)
            };
            // Who asks in order asks for this one.
            if items.get(*at).is_some_and(|(item, _)| item == key) {
                return Ok(());
            }
            if within() {
                *at = items.partition_point(|(item, _)| item.as_slice() < key);
                return Ok(());
            }
        }
        self.stack.clear();
        self.before = None;
        let Root { node, level, .. } = self.tree.root;
        let (mut id, mut level) = (node, level);
        loop {
            let node = self.tree.node(&id, level)?;
            match &*node {
                Node::Leaf(items) => {
                    let at = items.partition_point(|(item, _)| item.as_slice() < key);
                    self.stack.push((node, at));
                    return Ok(());
                }
                Node::Inner { children, .. } => {
                    let after = children.partition_point(|child| child.first.as_slice() <= key);
                    let at = after.saturating_sub(1);
                    id = children.get(at).ok_or(TreeError::Shape)?.id;
                    level -= 1;
                    self.stack.push((Arc::clone(&node), at + 1));
                }
            }
        }
    }

    /// After a node could not be read: its first key, and that of what follows it, if anything does. The cursor stands
    /// behind it. `None`: it was the root.
    pub fn passed_over(&self) -> Option<(&[u8], Option<&[u8]>)> {
        fn child((node, next): &(Arc<Node>, usize), back: usize) -> Option<&[u8]> {
            let Node::Inner { children, .. } = &**node else { return None };
            Some(&children.get(next.checked_sub(back)?)?.first)
        }
        let first = child(self.stack.last()?, 1)?;
        Some((first, self.stack.iter().rev().find_map(|place| child(place, 0))))
    }

    /// Key and encoded entry at the cursor; moves on.
    pub fn next_item(&mut self) -> Result<Option<KeyedEntry>, TreeError> {
        loop {
            let Some((node, at)) = self.stack.last_mut() else { return Ok(None) };
            match &**node {
                Node::Leaf(items) => {
                    if let Some(item) = items.get(*at) {
                        *at += 1;
                        return Ok(Some(item.clone()));
                    }
                    self.before = items.last().map(|(key, _)| key.clone());
                    self.stack.pop();
                }
                Node::Inner { children, level } => {
                    if let Some(child) = children.get(*at) {
                        *at += 1;
                        if self.before.as_ref().is_some_and(|before| *before >= child.first) {
                            return Err(TreeError::Shape);
                        }
                        let node = self.tree.node(&child.id, level - 1).inspect_err(|_| {
                            self.before = Some(child.first.clone());
                        })?;
                        if node.first() != Some(&child.first) {
                            return Err(TreeError::Shape);
                        }
                        self.stack.push((node, 0));
                    } else {
                        self.stack.pop();
                    }
                }
            }
        }
    }

    /// The entry at the cursor; moves on.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TreeError> {
        self.next_item()?.as_ref().map(decode).transpose()
    }

    /// The entry at `path`, if there is one, and its encoding; paths must come in key order for this to be cheap.
    pub fn find(&mut self, path: &[u8]) -> Result<Option<(Entry, Vec<u8>)>, TreeError> {
        let key = path::key(path)?;
        self.seek(&key)?;
        // A key that is in the tree is in the leaf it was sought in.
        let Some((node, at)) = self.stack.last_mut() else { return Ok(None) };
        let Node::Leaf(items) = &**node else { return Ok(None) };
        let Some((_, encoded)) = items.get(*at).filter(|(found, _)| *found == key) else {
            return Ok(None);
        };
        *at += 1;
        Ok(Some((Entry::decode(path.to_vec(), encoded)?, encoded.clone())))
    }
}
