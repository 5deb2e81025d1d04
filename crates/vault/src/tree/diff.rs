//! Differences between two trees, without looking into what they share.

use super::{
    Entry, Node, Tree, TreeError,
    read::{NodeSource, decode},
};
use crate::id::ChunkId;

/// One path that is not the same in both trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub before: Option<Entry>,
    pub after: Option<Entry>,
}

impl Change {
    /// The path both entries have.
    pub fn path(&self) -> &[u8] {
        self.after.as_ref().or(self.before.as_ref()).map_or(&[], |entry| &entry.path)
    }
}

enum Item {
    Node { first: Vec<u8>, id: ChunkId, level: u8 },
    Entry((Vec<u8>, Vec<u8>)),
}

struct Side<T> {
    tree: T,
    /// Next item last.
    pending: Vec<Item>,
}

impl<S: NodeSource, T: std::ops::Deref<Target = Tree<S>>> Side<T> {
    fn new(tree: T) -> Self {
        let root = tree.root();
        let pending = vec![Item::Node { first: Vec::new(), id: root.node, level: root.level }];
        Self { tree, pending }
    }
    /// Replaces the node on top by what is in it.
    fn expand(&mut self) -> Result<(), TreeError> {
        let Some(Item::Node { id, level, .. }) = self.pending.pop() else {
            return Err(TreeError::Shape);
        };
        match &*self.tree.node(&id, level)? {
            Node::Leaf(items) => {
                self.pending.extend(items.iter().rev().cloned().map(Item::Entry));
            }
            Node::Inner { children, level } => {
                let below = level - 1;
                self.pending.extend(children.iter().rev().map(|child| Item::Node {
                    first: child.first.clone(),
                    id: child.id,
                    level: below,
                }));
            }
        }
        Ok(())
    }
    fn take(&mut self) -> Result<Option<Entry>, TreeError> {
        match self.pending.pop() {
            Some(Item::Entry(item)) => decode(&item).map(Some),
            _ => Err(TreeError::Shape),
        }
    }
}

/// Iterator over changes, in key order. Reads O(changes) nodes.
pub struct Diff<A, B> {
    before: Side<A>,
    after: Side<B>,
}

enum Step {
    End,
    Skip,
    ExpandBefore,
    ExpandAfter,
    ExpandBoth,
    TakeBefore,
    TakeAfter,
    TakeBoth,
}

impl<S, R, A, B> Diff<A, B>
where
    S: NodeSource,
    R: NodeSource,
    A: std::ops::Deref<Target = Tree<S>>,
    B: std::ops::Deref<Target = Tree<R>>,
{
    pub fn new(before: A, after: B) -> Self {
        Self { before: Side::new(before), after: Side::new(after) }
    }

    fn step(&self) -> Step {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match (self.before.pending.last(), self.after.pending.last()) {
            (None, None) => Step::End,
            (Some(Item::Node { .. }), None) => Step::ExpandBefore,
            (Some(Item::Entry(_)), None) => Step::TakeBefore,
            (None, Some(Item::Node { .. })) => Step::ExpandAfter,
            (None, Some(Item::Entry(_))) => Step::TakeAfter,
            (Some(Item::Node { .. }), Some(Item::Entry(_))) => Step::ExpandBefore,
            (Some(Item::Entry(_)), Some(Item::Node { .. })) => Step::ExpandAfter,
            (
                Some(Item::Node { first: f, id: i, level: l }),
                Some(Item::Node { first: g, id: j, level: m }),
            ) => match (i == j, f.cmp(g), l.cmp(m)) {
                (true, ..) => Step::Skip,
                (_, Less, _) | (_, Equal, Greater) => Step::ExpandBefore,
                (_, Greater, _) | (_, Equal, Less) => Step::ExpandAfter,
                (_, Equal, Equal) => Step::ExpandBoth,
            },
            (Some(Item::Entry(a)), Some(Item::Entry(b))) => match a.0.cmp(&b.0) {
                Less => Step::TakeBefore,
                Greater => Step::TakeAfter,
                Equal if a.1 == b.1 => Step::Skip,
                Equal => Step::TakeBoth,
            },
        }
    }

    /// The next change.
    pub fn next_change(&mut self) -> Result<Option<Change>, TreeError> {
        loop {
            match self.step() {
                Step::End => return Ok(None),
                Step::Skip => {
                    self.before.pending.pop();
                    self.after.pending.pop();
                }
                Step::ExpandBefore => self.before.expand()?,
                Step::ExpandAfter => self.after.expand()?,
                Step::ExpandBoth => {
                    self.before.expand()?;
                    self.after.expand()?;
                }
                Step::TakeBefore => {
                    return Ok(Some(Change { before: self.before.take()?, after: None }));
                }
                Step::TakeAfter => {
                    return Ok(Some(Change { before: None, after: self.after.take()? }));
                }
                Step::TakeBoth => {
                    let (before, after) = (self.before.take()?, self.after.take()?);
                    return Ok(Some(Change { before, after }));
                }
            }
        }
    }
}
