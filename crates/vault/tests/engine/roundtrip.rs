//! What goes in comes out, and what is stored once is not stored again.

use crate::common::{Lab, Tree, assert_same, dir, file, noise};
use vault::{
    tree::{Content, EntryKind},
    verify,
};

fn mixed() -> Tree {
    let mut tree: Tree = [dir(""), dir("data"), dir("data/sub"), file("data/empty", "")].into();
    for n in 0..300 {
        let text = format!("file number {n} ").repeat(n % 97 + 1);
        tree.extend([file(&format!("data/sub/f{n:04}"), text)]);
    }
    tree.extend([file("data/large", noise(7, 3_000_000))]);
    let (key, mut sparse) = file("data/sparse", vec![0; 2_000_000]);
    sparse.content[1_200_000..1_300_000].copy_from_slice(&noise(8, 100_000));
    sparse.holes = vec![0..1_200_000, 1_300_000..2_000_000];
    tree.insert(key, sparse);
    tree
}

#[test]
fn a_snapshot_reads_back_as_the_source() {
    let lab = Lab::new(1);
    let tree = mixed();
    let done = lab.backup(&tree, None);
    let reader = lab.reader(&done);
    assert_same(&reader, &tree);
    let report = verify::deep(&reader, |_| ());
    assert!(report.is_clean(), "{:?}", report.problems);
    assert_eq!(report.entries, tree.len() as u64);
    let sparse = reader.get(b"data/sparse").unwrap().unwrap();
    let EntryKind::File { content: Content::Pieces { depth: 0, pieces }, .. } = sparse.kind else {
        panic!("pieces")
    };
    assert!(matches!(pieces[0], vault::tree::Piece::Hole { length: 1_200_000 }));
}

#[test]
fn a_second_backup_of_the_same_adds_no_data_and_the_same_root() {
    let lab = Lab::new(2);
    let tree = mixed();
    let first = lab.backup(&tree, None);
    let second = lab.backup(&tree, Some(&first));
    assert_eq!(second.finished.stats.new_bytes, 0);
    assert_eq!(second.finished.root, first.finished.root);
    let third = lab.increment(&tree, &second);
    assert_eq!((third.reread, third.finished.root), (0, first.finished.root));
    assert_same(&lab.reader(&third), &tree);
    assert!(verify::quick(&lab.reader(&third)).is_clean());
}

#[test]
fn a_moved_or_copied_small_file_adds_no_data() {
    let lab = Lab::new(3);
    let mut tree = mixed();
    let first = lab.backup(&tree, None);
    let content = tree[&file("data/sub/f0042", "").0].content.clone();
    tree.remove(&file("data/sub/f0042", "").0);
    tree.extend([file("data/moved", content.clone()), file("data/sub/zz-copy", content)]);
    let second = lab.backup(&tree, Some(&first));
    assert_eq!(second.finished.stats.new_bytes, 0);
    assert_same(&lab.reader(&second), &tree);
}

#[test]
fn the_tree_does_not_depend_on_threads_or_packs() {
    let roots = [1, 2, 4].map(|workers| {
        let mut lab = Lab::new(4);
        lab.workers = workers;
        lab.backup(&mixed(), None).finished.root
    });
    assert_eq!(roots[0], roots[1]);
    assert_eq!(roots[0], roots[2]);
}
