//! What the kernel knows: inode numbers and the places they stand for.
//!
//! A number is the hash of the place (names of one file share a number), so that the same file has the same number
//! whenever it is met; where two places hash alike the second takes the next free number. Invariant: a number stands
//! for one place as long as the kernel holds it, and is dropped when the kernel forgets it.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use domain::SnapshotId;

/// The number of the mounted root; the kernel's own.
pub const ROOT: u64 = 1;

/// Something that can be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The folder of all snapshots.
    Shelf,
    /// The link to the newest snapshot.
    Latest,
    /// An entry of a snapshot. `link`: the group of names of one file.
    Entry { snapshot: SnapshotId, path: Vec<u8>, link: Option<u64> },
}

impl Place {
    fn same_file(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Entry { snapshot: a, link: Some(first), .. },
                Self::Entry { snapshot: b, link: Some(second), .. },
            ) => a == b && first == second,
            _ => self == other,
        }
    }

    /// The number it has unless another place took it first.
    pub fn number(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self {
            Self::Shelf => return ROOT,
            Self::Latest => 0_u8.hash(&mut hasher),
            Self::Entry { snapshot, link: Some(link), .. } => {
                (1_u8, snapshot, link).hash(&mut hasher);
            }
            Self::Entry { snapshot, path, link: None } => {
                (2_u8, snapshot, path).hash(&mut hasher);
            }
        }
        hasher.finish().max(ROOT + 1)
    }
}

struct Known {
    place: Arc<Place>,
    /// How often the kernel was told of it.
    lookups: u64,
    /// By which folder and name it was told last, for asking the kernel to let go.
    by: Option<(u64, Box<[u8]>)>,
}

#[derive(Default)]
struct State {
    known: HashMap<u64, Known>,
    /// Numbers in order of their first arrival, some of them gone.
    order: VecDeque<u64>,
}

/// The table of numbers. Cheap to share between threads.
#[derive(Default)]
pub struct Nodes(Mutex<State>);

impl Nodes {
    /// With `root` under the root's number.
    pub fn new(root: Place) -> Self {
        let nodes = Self::default();
        let root = Known { place: Arc::new(root), lookups: u64::MAX, by: None };
        nodes.state().known.insert(ROOT, root);
        nodes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn place(&self, number: u64) -> Option<Arc<Place>> {
        self.state().known.get(&number).map(|known| Arc::clone(&known.place))
    }

    /// The kernel is told of `place`, found under `name` in the folder `parent`: its number, held until it is
    /// forgotten.
    pub fn remember(&self, place: Place, parent: u64, name: &[u8]) -> u64 {
        let mut state = self.state();
        let mut number = place.number();
        loop {
            match state.known.get_mut(&number) {
                Some(known) if known.place.same_file(&place) => {
                    known.lookups = known.lookups.saturating_add(1);
                    known.by = Some((parent, name.into()));
                    return number;
                }
                Some(_) => number = number.checked_add(1).unwrap_or(ROOT + 1),
                None => {
                    let by = Some((parent, name.into()));
                    let known = Known { place: Arc::new(place), lookups: 1, by };
                    state.known.insert(number, known);
                    state.order.push_back(number);
                    return number;
                }
            }
        }
    }

    /// The kernel lets go of so many of its lookups.
    pub fn forget(&self, number: u64, lookups: u64) {
        let mut state = self.state();
        if number == ROOT {
            return;
        }
        if let Some(known) = state.known.get_mut(&number) {
            known.lookups = known.lookups.saturating_sub(lookups);
            if known.lookups == 0 {
                state.known.remove(&number);
            }
        }
        // The order keeps what is gone; it is swept when that is most of it.
        if state.order.len() > 1_024 && state.order.len() > state.known.len() * 2 {
            let State { known, order } = &mut *state;
            order.retain(|number| known.contains_key(number));
        }
    }

    pub fn count(&self) -> usize {
        self.state().known.len()
    }

    /// Up to `most` of the places that were met longest ago, to be let go by the kernel: folder and name. They move to
    /// the end of the row, for the kernel may still need them.
    pub fn oldest(&self, most: usize) -> Vec<(u64, Box<[u8]>)> {
        let mut state = self.state();
        let mut found = Vec::new();
        for _ in 0..state.order.len() {
            let Some(number) = state.order.pop_front() else { break };
            let Some(known) = state.known.get(&number) else { continue };
            found.extend(known.by.clone());
            state.order.push_back(number);
            if found.len() == most {
                break;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, link: Option<u64>) -> Place {
        let snapshot = SnapshotId::from_bytes([1; 16]);
        Place::Entry { snapshot, path: path.as_bytes().to_vec(), link }
    }

    #[test]
    fn a_number_lives_as_long_as_the_kernel_holds_it_and_comes_back_the_same() {
        let nodes = Nodes::new(Place::Shelf);
        let first = nodes.remember(entry("a", None), ROOT, b"a");
        assert_eq!(nodes.remember(entry("a", None), ROOT, b"a"), first);
        assert_ne!(nodes.remember(entry("b", None), ROOT, b"b"), first);
        nodes.forget(first, 1);
        assert!(nodes.place(first).is_some());
        nodes.forget(first, 1);
        assert!(nodes.place(first).is_none());
        assert_eq!(nodes.remember(entry("a", None), ROOT, b"a"), first);
        nodes.forget(ROOT, 10);
        assert!(nodes.place(ROOT).is_some());
    }

    #[test]
    fn names_of_one_file_share_a_number_and_others_never_do() {
        let nodes = Nodes::new(Place::Shelf);
        let first = nodes.remember(entry("a", Some(7)), ROOT, b"a");
        assert_eq!(nodes.remember(entry("b", Some(7)), ROOT, b"b"), first);
        // A place that hashes like another one: put there by hand.
        let squatter = entry("elsewhere", None);
        let wanted = entry("c", None).number();
        let known = Known { place: Arc::new(squatter), lookups: 1, by: None };
        nodes.state().known.insert(wanted, known);
        assert_eq!(nodes.remember(entry("c", None), ROOT, b"c"), wanted + 1);
        assert_eq!(nodes.remember(entry("c", None), ROOT, b"c"), wanted + 1);
    }

    #[test]
    fn the_oldest_are_named_first_and_all_in_turn() {
        let nodes = Nodes::new(Place::Shelf);
        for name in ["a", "b", "c"] {
            nodes.remember(entry(name, None), ROOT, name.as_bytes());
        }
        let names = |found: Vec<(u64, Box<[u8]>)>| -> Vec<Vec<u8>> {
            found.into_iter().map(|(_, name)| name.into_vec()).collect()
        };
        assert_eq!(names(nodes.oldest(2)), [b"a", b"b"]);
        assert_eq!(names(nodes.oldest(2)), [b"c", b"a"]);
        assert_eq!(nodes.count(), 4);
    }
}
