//! Memory: how much a backup may use changes how long it takes, never what it makes.

use std::{io::Read, sync::Arc};

use vault::{
    backup::{BackupError, Reuse, Summary},
    index::{Budget, ChunkIndex},
    tree::{Content, EntryKind},
    verify,
};

use crate::common::{Done, Lab, Tree, assert_same, dir, file, noise};

/// Small files twice over, large ones, hard links far apart, and an image that shares blocks.
fn tree() -> Tree {
    let mut tree: Tree = [dir(""), dir("d"), dir("e")].into();
    for n in 0..900 {
        tree.extend([file(&format!("d/small{n:04}"), noise(n % 700, 300 + n as usize))]);
    }
    for n in 0..12 {
        tree.extend([file(&format!("d/vast{n:02}"), noise(1_000 + n % 9, 700_000))]);
    }
    for n in 0..300_u64 {
        for folder in ["d", "e"] {
            let size = if n.is_multiple_of(50) { 150_000 } else { 900 };
            let (key, mut source) = file(&format!("{folder}/link{n:03}"), noise(2_000 + n, size));
            source.entry.hardlink = Some(n);
            tree.insert(key, source);
        }
    }
    tree
}

/// Gives some bytes and fails.
struct Failing(Vec<u8>);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.0.is_empty() {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
        let part = buffer.len().min(self.0.len());
        buffer[..part].copy_from_slice(&self.0[..part]);
        self.0.drain(..part);
        Ok(part)
    }
}

/// Backs the tree up with this index, taking what it can from the parent; before every tenth file comes one that
/// cannot be read to its end and whose first part is that of the next.
fn back_up(lab: &Lab, tree: &Tree, parent: Option<&Done>, index: &Arc<ChunkIndex>) -> Done {
    let before = parent.map(|done| Arc::new(lab.reader(done)));
    let mut writer = lab.writer(Arc::clone(index)).unwrap();
    let mut cursor = before.as_ref().map(|reader| reader.cursor().unwrap());
    for (n, source) in tree.values().enumerate() {
        if !source.entry.is_file() {
            writer.add_entry(source.entry.clone()).unwrap();
            continue;
        }
        if source.content.len() > 100_000 {
            let mut entry = source.entry.clone();
            entry.path.pop();
            entry.path.push(b'-');
            entry.path.extend(n.to_string().bytes());
            entry.kind = EntryKind::File { size: 5_000_000, content: Content::Empty };
            entry.hardlink = None;
            let mut bytes = noise(9_000 + n as u64, 600_000);
            bytes.splice(..0, source.content[..].iter().copied());
            // The order of names decides; only some of them fit there.
            match writer.add_file(entry, &mut Failing(bytes), &[]) {
                Err(BackupError::Source(_) | BackupError::OutOfOrder) => {}
                other => panic!("{other:?}"),
            }
        }
        if writer.add_link(source.entry.clone()).unwrap() == Reuse::Taken {
            continue;
        }
        let old = cursor.as_mut().and_then(|cursor| cursor.find(&source.entry.path).unwrap());
        if let Some(before) = &before
            && let Some((old, _)) = old.filter(|(old, _)| old.looks_unchanged(&source.entry))
        {
            let mut entry = source.entry.clone();
            entry.kind = old.kind;
            if writer.unchanged(entry, None, before.frames()).unwrap() == Reuse::Taken {
                continue;
            }
        }
        writer.add_file(source.entry.clone(), &mut source.content.as_slice(), &[]).unwrap();
    }
    lab.commit(writer.finish(Summary::default()).unwrap(), parent, 0)
}

#[test]
fn a_backup_makes_the_same_packs_and_tree_with_any_memory() {
    let tree = tree();
    let mut later = tree.clone();
    later.extend([file("e/new", noise(77, 400_000)), file("e/old", noise(3, 303))]);
    let made = [0, 20_000, 300_000, 64 << 20].map(|bytes| {
        let mut lab = Lab::new(90);
        (lab.workers, lab.descriptor.packs.target) = (1, 1 << 20);
        let home = tempfile::tempdir().unwrap();
        let open = || ChunkIndex::open(home.path(), lab.keys.vault(), 1, Budget { bytes }).unwrap();
        let index = Arc::new(open());
        let first = back_up(&lab, &tree, None, &index);
        index.save(home.path(), 1).unwrap();
        drop(index);
        // What the backup stored is known to the next one without a look at any pack.
        let index = Arc::new(open());
        let second = back_up(&lab, &later, Some(&first), &index);
        assert!(second.finished.stats.new_bytes == 400_000);
        drop(index);
        for (done, tree) in [(&first, &tree), (&second, &later)] {
            let reader = lab.reader(done);
            assert_same(&reader, tree);
            let report = verify::quick(&reader);
            assert!(report.is_clean(), "{:?}", report.problems);
        }
        let of = |done: &Done| {
            let done = &done.finished;
            (done.root, done.summary, done.usage.clone(), done.next_seq, done.stats)
        };
        (of(&first), of(&second))
    });
    assert!(made[0].0.2.len() > 5, "several packs");
    for other in &made[1..] {
        assert_eq!(made[0], *other);
    }
}

#[test]
fn smaller_packs_hold_the_same_tree() {
    let tree = tree();
    let made = [None, Some(100_000), Some(2 << 20)].map(|max_pack| {
        let mut lab = Lab::new(92);
        (lab.workers, lab.max_pack) = (1, max_pack);
        let done = back_up(&lab, &tree, None, &Arc::new(lab.index()));
        assert_same(&lab.reader(&done), &tree);
        let longest = done.finished.usage.iter().map(|pack| pack.length).max();
        (done.finished.root, longest)
    });
    let [(root, usual), (same, small), (again, large)] = made;
    assert!(root == same && root == again);
    // A pack is closed by the frame that reaches its size; the vault's own is never exceeded.
    assert!(small < usual && small < Some(1_300_000), "{small:?} {usual:?}");
    assert_eq!(large, usual);
}

#[test]
fn what_a_failed_file_stored_counts_only_if_another_uses_it() {
    let lab = Lab::new(91);
    let index = Arc::new(lab.index());
    let mut writer = lab.writer(index).unwrap();
    let content = noise(1, 9_000_000);
    let entry = |path: &str| {
        let mut entry = file(path, "").1.entry;
        entry.kind = EntryKind::File { size: 20_000_000, content: Content::Empty };
        entry
    };
    // Large enough that some of its packs are finished and some are not when it fails.
    let failed = writer.add_file(entry("a"), &mut Failing(content.clone()), &[]);
    assert!(matches!(failed, Err(BackupError::Source(_))));
    let half = file("b", &content[..3_000_000]);
    writer.add_file(half.1.entry.clone(), &mut half.1.content.as_slice(), &[]).unwrap();
    let done = lab.commit(writer.finish(Summary::default()).unwrap(), None, 0);
    let reader = lab.reader(&done);
    let index = lab.index();
    let mut used = 0;
    for usage in &done.finished.usage {
        let number = index.packs().iter().position(|pack| pack.sha256 == usage.sha256).unwrap();
        assert_eq!(index.packs()[number].frames, usage.frames);
        used += usage.used.count();
    }
    let stored: u32 = done.finished.usage.iter().map(|usage| usage.frames).sum();
    assert!(used * 2 < index.len() as u32 && used < stored, "{used} of {}", index.len());
    assert_same(&reader, &[half].into());
    assert!(verify::quick(&reader).is_clean());
}

#[test]
fn files_of_a_few_bytes_do_not_fill_one_pack_without_end() {
    let lab = Lab::new(92);
    let mut writer = lab.writer(Arc::new(lab.index())).unwrap();
    for n in 0..150_000_u32 {
        let source = file(&format!("f{n:06}"), n.to_string()).1;
        writer.add_file(source.entry, &mut source.content.as_slice(), &[]).unwrap();
    }
    let done = lab.commit(writer.finish(Summary::default()).unwrap(), None, 0);
    assert_eq!(done.finished.stats.files, 150_000);
    let packs = lab.bucket.packs.lock().unwrap();
    let parts = packs
        .values()
        .map(|pack| pack.directory.frames.iter().map(|frame| frame.parts.len()).sum::<usize>());
    let parts: Vec<usize> = parts.filter(|parts| *parts > 0).collect();
    // What was full, and one bundle more.
    assert!(parts.iter().all(|parts| *parts < 65_536 + 16_384 + 1), "{parts:?}");
    assert_eq!(parts.iter().sum::<usize>(), 150_000);
}
