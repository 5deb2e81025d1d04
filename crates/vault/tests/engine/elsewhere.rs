//! What a lost pack held, out of the packs of other snapshots: every byte if it is there, and no others.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use vault::{
    id::Sha256,
    manifest::{PackRef, PackSet, resolve},
    pack::{PackKind, SealedPack},
    restore::Gauge,
    snapshot::{Others, PackSource, Reader, SourceError},
    verify::{self, Problem},
};

use crate::{
    common::{Bucket, Done, Lab, Tree, assert_same, file, noise},
    distrust::{assert_restores, twins},
    reading::{Files, SMALL, files, read_all},
};

/// The bucket, and what else is in it by another snapshot.
struct Vault {
    bucket: Arc<Bucket>,
    others: PackSet,
    asked: AtomicU64,
    /// Reads fail without saying that anything is lost.
    stands: bool,
}

impl PackSource for Vault {
    fn read(&self, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        if self.stands {
            return Err(SourceError::Failed("the line is down".into()));
        }
        self.bucket.read(pack, range)
    }
    fn others(&self) -> Option<Others> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let source = Arc::clone(&self.bucket) as Arc<dyn PackSource>;
        Some(Others { packs: self.others.clone(), source })
    }
}

fn source(lab: &Lab, healed: &Done) -> Arc<Vault> {
    Arc::new(Vault {
        bucket: Arc::clone(&lab.bucket),
        others: resolve(&healed.chain).unwrap(),
        asked: AtomicU64::new(0),
        stands: false,
    })
}

fn reader(lab: &Lab, done: &Done, source: &Arc<Vault>) -> Reader {
    let set = resolve(&done.chain).unwrap();
    let source = Arc::clone(source) as Arc<dyn PackSource>;
    Reader::open(&done.chain[0].manifest, &set, Arc::clone(&lab.keys), source, None)
}

fn packs(lab: &Lab, kind: PackKind) -> Vec<SealedPack> {
    let packs = lab.bucket.packs.lock().unwrap();
    packs.values().filter(|pack| pack.kind == kind).cloned().collect()
}

fn remove(lab: &Lab, pack: &Sha256) {
    lab.bucket.packs.lock().unwrap().remove(pack);
}

fn put(lab: &Lab, pack: &SealedPack, bytes: Vec<u8>) {
    let pack = SealedPack { bytes: Bytes::from(bytes).into(), ..pack.clone() };
    lab.bucket.packs.lock().unwrap().insert(pack.sha256, pack);
}

#[test]
fn what_was_stored_anew_heals_older_snapshots() {
    let lab = Lab::new(70);
    let tree = twins();
    let first = lab.backup(&tree, None);
    let data = packs(&lab, PackKind::Data);
    let meta = packs(&lab, PackKind::Meta);
    assert!(data.len() > 2);
    // Every pack of the first snapshot is gone when the second one is made: it stores everything anew.
    data.iter().chain(&meta).for_each(|pack| remove(&lab, &pack.sha256));
    let second = lab.backup(&tree, None);
    let back =
        || data.iter().chain(&meta).for_each(|pack| put(&lab, pack, pack.bytes.joined().into()));
    for lost in data.iter().chain(&meta) {
        back();
        let whole = pack_bytes(lost);
        let mut flipped = whole.clone();
        // The directory stays as it was: single frames do not open.
        flipped.iter_mut().skip(whole.len() / 3).take(whole.len() / 3).for_each(|byte| *byte ^= 1);
        let gone = vec![0; whole.len()];
        for bytes in [None, Some(flipped), Some(gone), Some(whole[..whole.len() / 2].to_vec())] {
            match bytes {
                None => remove(&lab, &lost.sha256),
                Some(bytes) => put(&lab, lost, bytes),
            }
            let source = source(&lab, &second);
            assert_same(&reader(&lab, &first, &source), &tree);
            let reader = reader(&lab, &first, &source);
            assert_restores(&reader, &tree);
            assert!(reader.frames().from_others().0 > 0);
            assert_eq!(source.asked.load(Ordering::Relaxed), 2, "once by each reader");
        }
    }
    back();
    let source = source(&lab, &second);
    assert_restores(&reader(&lab, &first, &source), &tree);
    assert_eq!(source.asked.load(Ordering::Relaxed), 0, "nothing is lost");
}

fn pack_bytes(pack: &SealedPack) -> Vec<u8> {
    pack.bytes.joined().to_vec()
}

#[test]
fn what_is_nowhere_is_told_and_not_searched_for_again_and_again() {
    let lab = Lab::new(71);
    let tree = twins();
    let first = lab.backup(&tree, None);
    let data = packs(&lab, PackKind::Data);
    remove(&lab, &data[0].sha256);
    // Another snapshot with many packs of its own, and nothing of what was lost.
    let mut other = Lab::new(71);
    other.bucket = Arc::clone(&lab.bucket);
    let far = other.backup(
        &crate::common::Tree::from([
            crate::common::dir(""),
            crate::common::file("x", crate::common::noise(9, 9_000_000)),
        ]),
        None,
    );
    let source = source(&lab, &far);
    let reader = reader(&lab, &first, &source);
    let (sink, gauge) = (Files::default(), Gauge::default());
    let before = lab.bucket.reads.load(Ordering::Relaxed);
    read_all(&reader, SMALL, &gauge, &sink);
    let failed = sink.failed.lock().unwrap().len() as u64;
    assert!(failed > 5 && failed < files(&reader).len() as u64);
    assert_eq!(reader.frames().from_others(), (0, 0));
    // Directories, content, and a few searches side by side; not one search for each lost frame.
    let searched =
        lab.bucket.reads.load(Ordering::Relaxed) - before - gauge.reads.load(Ordering::Relaxed);
    let there = packs(&lab, PackKind::Data).len() as u64;
    assert!(searched < 4 * there + 40, "{searched} reads, {there} packs, {failed} files");
}

#[test]
fn a_store_that_does_not_answer_is_no_reason_to_look_elsewhere() {
    let lab = Lab::new(72);
    let tree = twins();
    let first = lab.backup(&tree, None);
    let second = lab.backup(&tree, None);
    let source =
        Arc::new(Vault { stands: true, ..Arc::into_inner(source(&lab, &second)).unwrap() });
    assert!(reader(&lab, &first, &source).entries().is_err());
    assert_eq!(source.asked.load(Ordering::Relaxed), 0);
}

#[test]
fn a_snapshot_that_needs_others_does_not_verify_and_says_what_it_can_give() {
    let lab = Lab::new(73);
    let tree = twins();
    let first = lab.backup(&tree, None);
    let lost = packs(&lab, PackKind::Data).swap_remove(1);
    remove(&lab, &lost.sha256);
    let alone = verify::quick(&lab.reader(&first));
    let contents = |report: &verify::Report| {
        let of_files = |problem: &&Problem| matches!(problem, Problem::Content { .. });
        report.problems.iter().filter(of_files).count() as u64
    };
    assert!(contents(&alone) > 0 && alone.elsewhere == 0);
    let second = lab.backup(&tree, None);
    let source = source(&lab, &second);
    for report in [
        verify::quick(&reader(&lab, &first, &source)),
        verify::deep(&reader(&lab, &first, &source), |_| ()),
    ] {
        assert!(!report.is_clean());
        assert_eq!((contents(&report), report.elsewhere), (0, contents(&alone)));
    }
    assert!(verify::quick(&lab.reader(&second)).is_clean());
}

#[test]
fn a_snapshot_whose_manifest_forgot_a_pack_does_not_verify() {
    let lab = Lab::new(74);
    let done = lab.backup(&twins(), None);
    let whole = resolve(&done.chain).unwrap();
    for kind in [PackKind::Data, PackKind::Meta] {
        let mut set = whole.clone();
        let forgotten = whole.iter().filter(|pack| pack.kind == kind).last().unwrap();
        set.0.remove(&forgotten.id);
        let source = source(&lab, &done) as Arc<dyn PackSource>;
        let manifest = &done.chain[0].manifest;
        let reader = Reader::open(manifest, &set, Arc::clone(&lab.keys), source, None);
        let report = verify::quick(&reader);
        let told =
            |problem: &Problem| matches!(problem, Problem::Elsewhere { times } if *times > 0);
        assert!(report.problems.iter().any(told), "{kind:?}: {:?}", report.problems);
    }
}

/// The tree with every ninth small file changed, and another ninth gone.
fn changed(tree: &Tree, from: usize) -> Tree {
    let mut changed = tree.clone();
    for (n, name) in (from..).zip((0..200).map(|n| format!("d/small{n:03}"))) {
        let (key, source) = file(&name, noise(9_000 + from as u64, 4_000));
        if n % 9 == 4 {
            changed.insert(key, source);
        } else if n % 9 == 7 {
            changed.remove(&key);
        }
    }
    changed
}

/// Every file of a snapshot comes back that has the same content in `there`, one by one and by the restore's way, and
/// no other. Gives how many.
fn assert_gives(lab: &Lab, done: &Done, source: &Arc<Vault>, tree: &Tree, there: &Tree) -> u64 {
    let still = |key: &Vec<u8>| there.get(key).is_some_and(|now| now.content == tree[key].content);
    let (by_one, by_many) = (reader(lab, done, source), reader(lab, done, source));
    let sink = Files::default();
    read_all(&by_many, SMALL, &Gauge::default(), &sink);
    let (content, failed) = (sink.content.into_inner().unwrap(), sink.failed.into_inner().unwrap());
    let mut back = 0;
    for (number, entry) in (0..).zip(files(&by_one)) {
        let key = vault::tree::path::key(&entry.path).unwrap();
        let mut read = Vec::new();
        let is_read = by_one.read_file(&entry, &mut read).is_ok();
        assert_eq!((is_read, !failed.contains_key(&number)), (still(&key), still(&key)));
        if is_read {
            back += 1;
            assert!(read == tree[&key].content && content[&number] == tree[&key].content);
        }
    }
    back
}

#[test]
fn a_small_file_comes_back_though_others_of_its_bundle_changed() {
    let lab = Lab::new(75);
    let tree = twins();
    let first = lab.backup(&tree, None);
    let forget = |packs: &[SealedPack]| packs.iter().for_each(|pack| remove(&lab, &pack.sha256));
    forget(&packs(&lab, PackKind::Data));
    let now = changed(&tree, 0);
    let second = lab.backup(&now, None);
    let of_second = packs(&lab, PackKind::Data);
    let heals = source(&lab, &second);
    let back = assert_gives(&lab, &first, &heals, &tree, &now);
    assert!(back > 150, "{back}");
    let report = verify::quick(&reader(&lab, &first, &heals));
    assert_eq!((report.elsewhere, report.is_clean()), (back, false));

    // The first bundle that says it has a file need not be the one that gives it.
    forget(&of_second);
    let later = changed(&tree, 3);
    let third = lab.backup(&later, None);
    for pack in &of_second {
        let mut bytes = pack_bytes(pack);
        let frames = pack.directory.frames_at(bytes.len() as u64).unwrap() as usize;
        let last = bytes.len() - frames;
        bytes[frames..last].iter_mut().for_each(|byte| *byte ^= 1);
        put(&lab, pack, bytes);
    }
    let mut both = source(&lab, &second).others.clone();
    both.0.extend(resolve(&third.chain).unwrap().0);
    let heals = Arc::new(Vault { others: both, ..Arc::into_inner(source(&lab, &third)).unwrap() });
    assert!(assert_gives(&lab, &first, &heals, &tree, &later) > 150);
}
