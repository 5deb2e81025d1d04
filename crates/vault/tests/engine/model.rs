//! Histories: whatever happens to a tree between backups, every snapshot stays readable as it was.

use std::sync::Arc;

use proptest::prelude::*;
use vault::{
    backup::{BackupError, PackSink, SinkError, Summary},
    index::ChunkIndex,
    verify,
};

use crate::common::{Done, Lab, Tree, assert_same, dir, file, noise};

#[derive(Debug, Clone)]
enum Step {
    Write(u8, u64, usize),
    Remove(u8),
    Move(u8, u8),
    Touch(u8),
    Backup,
    Increment,
    /// The local index is lost.
    Forget,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![0_usize..200, 1_000_usize..40_000, 60_000_usize..700_000];
    let step = prop_oneof![
        4 => (any::<u8>(), 0_u64..40, size).prop_map(|(n, seed, size)| Step::Write(n, seed, size)),
        1 => any::<u8>().prop_map(Step::Remove),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Step::Move(a, b)),
        1 => any::<u8>().prop_map(Step::Touch),
        1 => Just(Step::Backup),
        2 => Just(Step::Increment),
        1 => Just(Step::Forget),
    ];
    proptest::collection::vec(step, 1..25)
}

fn name(n: u8) -> String {
    match n % 4 {
        0 => format!("top{}", n % 16),
        1 => format!("d/x{}", n % 16),
        2 => format!("d/e/y{}", n % 16),
        _ => format!("d-e/z{}", n % 16),
    }
}

fn apply(tree: &mut Tree, step: &Step, now: &mut i64) {
    *now += 1;
    let key = |n: u8| file(&name(n), "").0;
    let write = |tree: &mut Tree, n: u8, content: Vec<u8>| {
        let (key, mut source) = file(&name(n), content);
        source.entry.mtime.secs = *now;
        tree.insert(key, source);
    };
    match step {
        Step::Write(n, seed, size) => write(tree, *n, noise(*seed, *size)),
        Step::Remove(n) => {
            tree.remove(&key(*n));
        }
        Step::Move(a, b) => {
            if let Some(source) = tree.remove(&key(*a)) {
                write(tree, *b, source.content);
            }
        }
        Step::Touch(n) => {
            if let Some(source) = tree.get(&key(*n)).cloned() {
                write(tree, *n, source.content);
            }
        }
        Step::Backup | Step::Increment | Step::Forget => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_snapshot_of_a_history_stays_what_it_was(seed in 50_u64..1_000_000, steps in steps()) {
        let lab = Lab::new(seed);
        let mut tree: Tree = [dir(""), dir("d"), dir("d/e"), dir("d-e")].into();
        let mut now = 1;
        let mut history: Vec<(Tree, Done)> = Vec::new();
        for step in &steps {
            apply(&mut tree, step, &mut now);
            let done = match (step, history.last()) {
                (Step::Backup, last) => lab.backup(&tree, last.map(|(_, done)| done)),
                (Step::Increment, None) => lab.backup(&tree, None),
                (Step::Increment, Some((_, last))) => lab.increment(&tree, last),
                (Step::Forget, Some((_, last))) => without_index(&lab, &tree, last),
                _ => continue,
            };
            history.push((tree.clone(), done));
        }
        for (tree, done) in &history {
            let reader = lab.reader(done);
            assert_same(&reader, tree);
            let report = verify::quick(&reader);
            prop_assert!(report.is_clean(), "{:?}", report.problems);
        }
        // The same tree has the same root, whatever way led to it.
        if let Some((tree, done)) = history.last() {
            let fresh = Lab::new(seed).backup(tree, None);
            prop_assert_eq!(fresh.finished.root.entries, done.finished.root.entries);
        }
    }
}

/// A backup whose index is rebuilt from the parent's directories.
fn without_index(lab: &Lab, tree: &Tree, parent: &Done) -> Done {
    let reader = Arc::new(lab.reader(parent));
    let index = ChunkIndex::new(lab.keys.vault());
    vault::index::sync(&index, reader.frames(), |_| false).unwrap();
    let mut writer = lab.writer(Arc::new(index)).unwrap();
    for source in tree.values() {
        if source.entry.is_file() {
            writer.add_file(source.entry.clone(), &mut source.content.as_slice(), &[]).unwrap();
        } else {
            writer.add_entry(source.entry.clone()).unwrap();
        }
    }
    let finished = writer.finish(Summary::default()).unwrap();
    lab.commit(finished, Some(parent), tree.len() as u64)
}

#[test]
fn entries_out_of_order_or_of_the_wrong_kind_are_refused() {
    let lab = Lab::new(60);
    let index = Arc::new(ChunkIndex::new(lab.keys.vault()));
    let mut writer = lab.writer(index).unwrap();
    let entry = |path: &str| file(path, "").1.entry;
    writer.add_file(entry("b"), &mut [].as_slice(), &[]).unwrap();
    for path in ["a", "b", ""] {
        let refused = writer.add_file(entry(path), &mut [].as_slice(), &[]);
        assert!(matches!(refused, Err(BackupError::OutOfOrder)));
    }
    let escape = vault::tree::Entry::file(b"c/../d".to_vec());
    let refused = writer.add_file(escape, &mut [].as_slice(), &[]);
    assert!(matches!(refused, Err(BackupError::BadPath(_))));
    assert!(matches!(writer.add_entry(entry("c")), Err(BackupError::BadEntry)));
}

#[test]
fn a_file_that_cannot_be_read_is_left_out_and_the_backup_goes_on() {
    struct Broken(usize);
    impl std::io::Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::ErrorKind::PermissionDenied.into());
            }
            let part = buffer.len().min(self.0);
            buffer[..part].copy_from_slice(&noise(self.0 as u64, part));
            self.0 -= part;
            Ok(part)
        }
    }
    let lab = Lab::new(61);
    let index = Arc::new(ChunkIndex::new(lab.keys.vault()));
    let mut writer = lab.writer(index).unwrap();
    for (path, good) in [("a", 0), ("b", 5_000_000)] {
        let mut entry = file(path, "").1.entry;
        entry.kind =
            vault::tree::EntryKind::File { size: 9_000_000, content: vault::tree::Content::Empty };
        let failed = writer.add_file(entry, &mut Broken(good), &[]);
        assert!(matches!(failed, Err(BackupError::Source(_))));
    }
    let (key, whole) = file("c", noise(4, 100_000));
    writer.add_file(whole.entry.clone(), &mut whole.content.as_slice(), &[]).unwrap();
    // It was announced longer than it is.
    let (short_key, mut short) = file("d", noise(5, 300_000));
    short.content.truncate(200_000);
    let outcome = writer.add_file(short.entry.clone(), &mut short.content.as_slice(), &[]).unwrap();
    assert!(outcome.shrank && outcome.size == 200_000);
    let done = lab.commit(writer.finish(Summary::default()).unwrap(), None, 0);
    assert_eq!(done.finished.stats.new_bytes, 300_000);
    short.entry.flags = vault::tree::Entry::SHRANK;
    short.entry.kind =
        vault::tree::EntryKind::File { size: 200_000, content: vault::tree::Content::Empty };
    let tree: Tree = [(key, whole), (short_key, short)].into();
    let reader = lab.reader(&done);
    assert_same(&reader, &tree);
    let report = verify::quick(&reader);
    assert!(report.is_clean(), "{:?}", report.problems);
}

#[test]
fn hard_links_share_their_content() {
    let lab = Lab::new(62);
    let index = Arc::new(ChunkIndex::new(lab.keys.vault()));
    let mut writer = lab.writer(index).unwrap();
    let mut tree = Tree::new();
    for (n, size) in [(1_u64, 500), (2, 200_000)] {
        for path in [format!("a{n}"), format!("b{n}"), format!("c{n}")] {
            let (key, mut source) = file(&path, noise(n, size));
            source.entry.hardlink = Some(n);
            tree.insert(key, source);
        }
    }
    for source in tree.values() {
        if writer.add_link(source.entry.clone()).unwrap() == vault::backup::Reuse::ReadAgain {
            writer.add_file(source.entry.clone(), &mut source.content.as_slice(), &[]).unwrap();
        }
    }
    let done = lab.commit(writer.finish(Summary::default()).unwrap(), None, 0);
    assert_eq!(done.finished.stats.source_bytes, 200_500);
    assert_same(&lab.reader(&done), &tree);
}

#[test]
fn a_sink_that_fails_ends_the_backup() {
    struct Full;
    impl PackSink for Full {
        fn emit(&self, _pack: vault::pack::SealedPack) -> Result<(), SinkError> {
            Err(SinkError("disk full".into()))
        }
    }
    let lab = Lab::new(63);
    let mut writer = vault::backup::Writer::begin(
        lab.context(),
        Arc::clone(&lab.keys),
        &lab.descriptor,
        Arc::new(ChunkIndex::new(lab.keys.vault())),
        Arc::new(Full),
        Arc::clone(&lab.ids) as Arc<dyn domain::IdGen>,
    )
    .unwrap();
    let mut outcome = Ok(());
    for n in 0..200_u64 {
        let source = file(&format!("f{n:04}"), noise(n, 100_000)).1;
        let added = writer.add_file(source.entry, &mut source.content.as_slice(), &[]);
        outcome = added.map(drop);
        if outcome.is_err() {
            break;
        }
    }
    let outcome = outcome.and_then(|()| writer.finish(Summary::default()).map(drop));
    assert!(matches!(outcome, Err(BackupError::Sink(_))), "{outcome:?}");
}

#[test]
fn an_image_in_blocks_reuses_all_but_the_changed_one() {
    let lab = Lab::new(64);
    let mut image = noise(9, 200 * 256 * 1024);
    let backup = |image: &[u8], parent: Option<&Done>| {
        let mut writer = lab.writer(Arc::new(lab.index())).unwrap();
        let source = file("disk.img", image).1;
        writer.add_image(source.entry.clone(), &mut &*source.content, &[]).unwrap();
        lab.commit(writer.finish(Summary::default()).unwrap(), parent, 0)
    };
    let first = backup(&image, None);
    image[77 * 256 * 1024 + 5] ^= 1;
    let second = backup(&image, Some(&first));
    assert_eq!(second.finished.stats.new_bytes, 256 * 1024);
    let reader = lab.reader(&second);
    let entry = reader.get(b"disk.img").unwrap().unwrap();
    let vault::tree::EntryKind::File { content, .. } = &entry.kind else { panic!("file") };
    assert!(matches!(content, vault::tree::Content::Pieces { depth: 1.., .. }));
    let mut read = Vec::new();
    reader.read_file(&entry, &mut read).unwrap();
    assert!(read == image);
    // Unchanged, with its lists read from the parent.
    let mut writer = lab.writer(Arc::new(lab.index())).unwrap();
    let taken = writer.unchanged(entry, None, reader.frames()).unwrap();
    assert_eq!(taken, vault::backup::Reuse::Taken);
    let third = lab.commit(writer.finish(Summary::default()).unwrap(), Some(&second), 0);
    assert_eq!(third.finished.stats.new_bytes, 0);
    let report = verify::quick(&lab.reader(&third));
    assert!(report.is_clean(), "{:?}", report.problems);
}
