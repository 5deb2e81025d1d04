//! Repack: a backup carries the live frames of half-dead packs over, and nothing of a dead frame is read or kept.

use std::collections::BTreeSet;

use domain::PackId;
use vault::{
    manifest::{PackRef, PackSet, resolve},
    pack::PackKind,
    repack::Liveness,
    verify,
};

use crate::common::{Done, Lab, Tree, assert_same, dir, file, noise};

/// A vault most of whose first packs nobody needs any more: large files, bundles and their metadata.
fn worn(lab: &Lab) -> (Tree, Done) {
    let mut tree: Tree = [dir("")].into();
    tree.extend((0..40).map(|n| file(&format!("big{n:02}"), noise(n, 300_000))));
    tree.extend((0..900).map(|n| file(&format!("small{n:03}"), noise(1_000 + n, 2_000))));
    let first = lab.backup(&tree, None);
    // Three of ten stay.
    tree.retain(|_, source| {
        !source.entry.is_file() || source.entry.path.last().is_some_and(|digit| digit % 4 == 0)
    });
    let second = lab.increment(&tree, &first);
    (tree, second)
}

fn half_dead(set: &PackSet) -> BTreeSet<PackId> {
    set.iter().filter(|pack| Liveness::of(pack).is_half_dead()).map(|pack| pack.id).collect()
}

fn dead(set: &PackSet) -> u64 {
    set.iter().map(|pack| Liveness::of(pack).dead_bytes()).sum()
}

#[test]
fn the_same_tree_stands_on_new_packs_and_the_old_ones_are_named_no_more() {
    let lab = Lab::new(90);
    let (tree, worn) = worn(&lab);
    let before = resolve(&worn.chain).unwrap();
    let victims = half_dead(&before);
    assert!(!victims.is_empty(), "there is something to do");
    let done = lab.repack(&tree, &worn, &victims);
    assert_eq!(done.finished.root, worn.finished.root);
    assert_eq!((done.reread, done.finished.stats.new_bytes), (0, 0), "the source is not read");
    assert!(done.finished.stats.stored_bytes > 0);
    let after = resolve(&done.chain).unwrap();
    assert!(after.iter().all(|pack| !victims.contains(&pack.id)));
    // How frames fall into packs differs from run to run, and with it how much is dead in packs that are not half-dead
    // yet: exactly that stays, nothing of the victims and nothing new.
    let spared =
        PackSet(before.0.clone().into_iter().filter(|(id, _)| !victims.contains(id)).collect());
    assert_eq!(dead(&after), dead(&spared));
    assert!(half_dead(&after).is_empty(), "once is enough");
    // The victims may go: everything reads back without them.
    let gone: Vec<_> = victims.iter().map(|id| before.0[id].sha256).collect();
    lab.bucket.packs.lock().unwrap().retain(|sha256, _| !gone.contains(sha256));
    let reader = lab.reader(&done);
    assert_same(&reader, &tree);
    let report = verify::deep(&reader, |_| {});
    assert!(report.is_clean(), "{:?}", report.problems);
    // And the next backup builds on it, small files found again in their moved bundles.
    let again = lab.backup(&tree, Some(&done));
    assert_eq!(again.finished.stats.new_bytes, 0);
}

#[test]
fn what_the_backup_needs_no_more_is_carried_and_counts_as_unused() {
    let lab = Lab::new(91);
    let (mut tree, worn) = worn(&lab);
    let set = resolve(&worn.chain).unwrap();
    let victims = half_dead(&set);
    // Half of what is left goes while the packs are carried over.
    let mut stays = false;
    tree.retain(|_, source| {
        stays = !stays;
        !source.entry.is_file() || stays
    });
    let done = lab.repack(&tree, &worn, &victims);
    assert_same(&lab.reader(&done), &tree);
    let after = resolve(&done.chain).unwrap();
    assert!(after.iter().all(|pack| !victims.contains(&pack.id)));
    // Chunks of their own: those of files that went are in the packs, and no bitmap has them.
    let dead_chunks = after.iter().any(|pack| Liveness::of(pack).dead_bytes() > 0);
    assert!(dead_chunks, "carried, and not used");
    let used = |set: &PackSet| set.iter().map(|pack| pack.used.count()).sum::<u32>();
    assert!(used(&after) < used(&set));
}

#[test]
fn a_damaged_live_frame_is_read_from_its_source_and_a_damaged_dead_one_does_not_matter() {
    let lab = Lab::new(92);
    let (tree, worn) = worn(&lab);
    let set = resolve(&worn.chain).unwrap();
    let data = |id: &&PackId| set.0[id].kind == PackKind::Data;
    let victims: BTreeSet<PackId> = half_dead(&set).iter().filter(data).copied().collect();
    let victim = &set.0[victims.iter().find(|id| set.0[id].used.count() > 0).expect("some live")];
    let whole = lab.bucket.packs.lock().unwrap()[&victim.sha256].clone();
    let spoil = |live: bool| {
        let mut bytes = whole.bytes.to_vec();
        let at = (0..whole.directory.len() - 1).find(|at| victim.used.contains(*at) == live);
        let at = at.expect("a frame of that kind");
        let from_end = whole.directory.frames_len() - whole.directory.offset(at);
        // Behind the frames come the second directory and the tail; the frames end where padding ends.
        let start = frames_start(&bytes, whole.directory.frames_len(), from_end);
        bytes[start + 8] ^= 1;
        let mut packs = lab.bucket.packs.lock().unwrap();
        packs.get_mut(&victim.sha256).unwrap().bytes = bytes.into();
    };
    spoil(false);
    assert_eq!(lab.repack(&tree, &worn, &victims).reread, 0, "nobody reads what is dead");
    // The new packs are in the bucket now, and would be found.
    lab.bucket
        .packs
        .lock()
        .unwrap()
        .retain(|_, pack| set.iter().any(|old| old.sha256 == pack.sha256));
    spoil(true);
    let done = lab.repack(&tree, &worn, &victims);
    assert!(done.reread > 0);
    assert_same(&lab.reader(&done), &tree);
    assert!(resolve(&done.chain).unwrap().iter().all(|pack| !victims.contains(&pack.id)));
}

/// Offset of a frame, from the length of the first directory in front of it.
fn frames_start(bytes: &[u8], frames: u64, from_end: u64) -> usize {
    let header = vault::pack::HEADER_LEN;
    let first = u32::from_be_bytes(bytes[header..header + 4].try_into().unwrap()) as usize;
    header + 4 + first + usize::try_from(frames - from_end).unwrap()
}

#[test]
fn a_pack_opened_by_its_second_directory_hands_no_bundle_on_without_its_list() {
    let lab = Lab::new(93);
    let (tree, worn) = worn(&lab);
    let set = resolve(&worn.chain).unwrap();
    // All of them: bundles are in the fuller ones.
    let data = |pack: &&PackRef| pack.kind == PackKind::Data;
    let victims: BTreeSet<PackId> = set.iter().filter(data).map(|pack| pack.id).collect();
    for id in &victims {
        let mut packs = lab.bucket.packs.lock().unwrap();
        let pack = packs.get_mut(&set.0[id].sha256).unwrap();
        let mut bytes = pack.bytes.to_vec();
        bytes[vault::pack::HEADER_LEN + 10] ^= 1;
        pack.bytes = bytes.into();
    }
    let done = lab.repack(&tree, &worn, &victims);
    assert!(done.reread > 0, "its files are read from their source");
    assert_same(&lab.reader(&done), &tree);
    // Every pack of the new snapshot that was stored now has both directories.
    let ids = vault::id::IdKeys::of(&lab.keys);
    for pack in resolve(&done.chain).unwrap().iter().filter(|pack| !set.0.contains_key(&pack.id)) {
        let bytes = lab.bucket.packs.lock().unwrap()[&pack.sha256].bytes.joined();
        let whole = vault::pack::OpenPack::check_whole(&lab.keys, &ids, pack.kind, &bytes);
        assert!(whole.is_ok(), "{:?}", whole.err());
    }
}
