//! The metadata tree against a plain map.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use proptest::prelude::*;
use vault::{
    descriptor::NodeSizes,
    id::ChunkId,
    tree::{
        Cursor, Diff, Entry, EntryKind, Node, NodeSink, NodeSource, Root, Tree, TreeBuilder,
        TreeError, path,
    },
};

#[derive(Default)]
struct Nodes(HashMap<ChunkId, Vec<u8>>);

impl NodeSink for Nodes {
    type Error = TreeError;
    fn store(&mut self, node: Vec<u8>) -> Result<ChunkId, TreeError> {
        let id = ChunkId(vault::id::Sha256::of(&node).0);
        self.0.insert(id, node);
        Ok(id)
    }
}

impl NodeSource for Nodes {
    fn node(&self, id: &ChunkId) -> Result<Arc<Node>, TreeError> {
        Ok(Arc::new(Node::decode(&self.0[id])?))
    }
}

type Model = BTreeMap<Vec<u8>, Entry>;

const SMALL: NodeSizes = NodeSizes { min: 64, target: 256, max: 1_024 };

fn build(model: &Model) -> (Arc<Nodes>, Root) {
    let mut nodes = Nodes::default();
    let mut builder = TreeBuilder::new(&[9; 32], SMALL);
    for (key, entry) in model {
        builder.push(key, &entry.encode(), &mut nodes).unwrap();
    }
    let root = builder.finish(&mut nodes).unwrap();
    (Arc::new(nodes), root)
}

fn open(model: &Model) -> Arc<Tree<Arc<Nodes>>> {
    let (nodes, root) = build(model);
    Arc::new(Tree::new(nodes, root))
}

fn model(paths: &BTreeMap<Vec<u8>, u64>) -> Model {
    let entry = |(path, inode): (&Vec<u8>, &u64)| {
        let mut entry = Entry::new(path.clone(), EntryKind::Directory);
        entry.inode = *inode;
        (path::key(path).unwrap(), entry)
    };
    paths.iter().map(entry).collect()
}

fn paths() -> impl Strategy<Value = BTreeMap<Vec<u8>, u64>> {
    let name = "[a-d\u{80}-]{1,3}".prop_map(String::into_bytes);
    let path = proptest::collection::vec(name, 1..4).prop_map(|names| names.join(&b'/'));
    proptest::collection::btree_map(path, 0_u64..3, 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_tree_answers_like_a_map(paths in paths(), ask in paths()) {
        let model = model(&paths);
        let tree = open(&model);
        prop_assert_eq!(tree.root().entries, model.len() as u64);
        for path in ask.keys().chain(paths.keys()) {
            let key = path::key(path).unwrap();
            let found = tree.get(path).unwrap();
            prop_assert_eq!(found.as_ref(), model.get(&key));
            let mut cursor = Cursor::at(Arc::clone(&tree), &key).unwrap();
            let next = cursor.next_entry().unwrap();
            prop_assert_eq!(next.as_ref(), model.range(key..).next().map(|(_, entry)| entry));
        }
        let mut cursor = Cursor::at(Arc::clone(&tree), &[]).unwrap();
        for entry in model.values() {
            let next = cursor.next_entry().unwrap();
            prop_assert_eq!(next.as_ref(), Some(entry));
        }
        prop_assert!(cursor.next_entry().unwrap().is_none());
    }

    #[test]
    fn differences_are_those_of_the_maps(a in paths(), b in paths(), shared in paths()) {
        let with = |own: &BTreeMap<_, _>| {
            let mut all = shared.clone();
            all.extend(own.clone());
            model(&all)
        };
        let (before, after) = (with(&a), with(&b));
        let mut diff = Diff::new(open(&before), open(&after));
        let mut found = BTreeMap::new();
        while let Some(change) = diff.next_change().unwrap() {
            let key = path::key(change.path()).unwrap();
            found.insert(key, (change.before, change.after));
        }
        let mut expected = BTreeMap::new();
        for key in before.keys().chain(after.keys()) {
            let pair = (before.get(key).cloned(), after.get(key).cloned());
            if pair.0 != pair.1 {
                expected.insert(key.clone(), pair);
            }
        }
        prop_assert_eq!(found, expected);
    }
}

fn many() -> Model {
    let paths = (0..20_000).map(|n| (format!("d{:03}/file{n:05}", n % 200).into_bytes(), n));
    model(&paths.collect())
}

#[test]
fn one_change_costs_one_node_a_level() {
    let mut model = many();
    let (before, _) = build(&model);
    let key = path::key(b"d077/file10077").unwrap();
    model.get_mut(&key).unwrap().inode = 99_999_999;
    let (after, root) = build(&model);
    let new = after.0.keys().filter(|id| !before.0.contains_key(*id)).count();
    assert!(new <= usize::from(root.level) + 2, "{new} new nodes, {} levels", root.level);
}

#[test]
fn a_difference_reads_what_changed_and_not_the_rest() {
    struct Counting(Arc<Nodes>, std::sync::atomic::AtomicUsize);
    impl NodeSource for Counting {
        fn node(&self, id: &ChunkId) -> Result<Arc<Node>, TreeError> {
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.0.node(id)
        }
    }
    let mut model = many();
    let (old, old_root) = build(&model);
    model.remove(&path::key(b"d077/file10077").unwrap());
    model.remove(&path::key(b"d150/file00150").unwrap());
    let (new, new_root) = build(&model);
    let total = new.0.len();
    let [a, b] = [old, new].map(|nodes| Arc::new(Counting(nodes, 0.into())));
    let trees = (Tree::new(Arc::clone(&a), old_root), Tree::new(Arc::clone(&b), new_root));
    let mut diff = Diff::new(Arc::new(trees.0), Arc::new(trees.1));
    let mut changes = 0;
    while diff.next_change().unwrap().is_some() {
        changes += 1;
    }
    let read = a.1.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(changes, 2);
    assert!(read * 20 < total, "{read} of {total} nodes read");
}

/// Names below a path of 60 000 bytes: nodes of a few hundred kilobytes would take far more written out.
#[test]
fn long_paths_with_many_entries_make_nodes_that_are_read_again() {
    let folder = vec![vec![b'p'; 250]; 240].join(&b'/');
    let paths = (0..900_u64).map(|at| ([&folder[..], format!("/{at:04}").as_bytes()].concat(), at));
    let model = model(&paths.collect());
    let mut nodes = Nodes::default();
    let sizes = NodeSizes { min: 4 << 10, target: 12 << 10, max: 1 << 20 };
    let mut builder = TreeBuilder::new(&[9; 32], sizes);
    for (key, entry) in &model {
        builder.push(key, &entry.encode(), &mut nodes).unwrap();
    }
    let root = builder.finish(&mut nodes).unwrap();
    let tree = Tree::new(Arc::new(nodes), root);
    assert_eq!(tree.root().entries, 900);
    for entry in model.values().step_by(90) {
        assert_eq!(tree.get(&entry.path).unwrap().as_ref(), Some(entry));
    }
}
