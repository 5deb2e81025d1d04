//! Repack: the same tree over fewer dead bytes, and nothing of a dead frame read or kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use domain::{IdGen, PackId};
use vault::{
    backup::{FinishedSnapshot, PackSink},
    manifest::{PackSet, resolve},
    repack::{Liveness, Repack, RepackError, half_dead},
    snapshot::PackSource,
    verify,
};

use crate::common::{Done, Lab, Tree, assert_same, dir, file, noise};

fn run(
    lab: &Lab,
    done: &Done,
    victims: &BTreeSet<PackId>,
) -> Result<FinishedSnapshot, RepackError> {
    let set = resolve(&done.chain).unwrap();
    let sink = Arc::clone(&lab.bucket);
    let repack = Repack {
        context: lab.context(),
        keys: Arc::clone(&lab.keys),
        descriptor: &lab.descriptor,
        source: Arc::clone(&lab.bucket) as Arc<dyn PackSource>,
        sink: &*sink as &dyn PackSink,
        ids: &*lab.ids as &dyn IdGen,
    };
    repack.run(&done.chain[0].manifest, &set, victims)
}

fn all() -> u64 {
    u64::MAX
}

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

fn dead(set: &PackSet) -> u64 {
    set.iter().map(|pack| Liveness::of(pack).dead_bytes()).sum()
}

#[test]
fn the_same_tree_stands_on_new_packs_and_the_old_ones_are_named_no_more() {
    let lab = Lab::new(90);
    let (tree, worn) = worn(&lab);
    let before = resolve(&worn.chain).unwrap();
    let victims = half_dead(&before, all());
    assert!(!victims.is_empty(), "there is something to do");
    let finished = run(&lab, &worn, &victims).unwrap();
    assert_eq!((finished.root, finished.summary), (worn.finished.root, worn.finished.summary));
    assert!(finished.stats.stored_bytes > 0);
    let done = lab.commit(finished, Some(&worn), 0);
    let after = resolve(&done.chain).unwrap();
    assert!(after.iter().all(|pack| !victims.contains(&pack.id)));
    assert!(dead(&after) < dead(&before) / 2, "{} of {}", dead(&after), dead(&before));
    assert!(half_dead(&after, all()).is_empty(), "once is enough");
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
fn keys_and_sequence_numbers_are_as_new_as_those_of_a_backup() {
    let lab = Lab::new(91);
    let (_, worn) = worn(&lab);
    let old: BTreeSet<_> = lab.bucket.packs.lock().unwrap().keys().copied().collect();
    let victims = half_dead(&resolve(&worn.chain).unwrap(), all());
    let finished = run(&lab, &worn, &victims).unwrap();
    let packs = lab.bucket.packs.lock().unwrap();
    let new: Vec<_> = packs.iter().filter(|(sha256, _)| !old.contains(*sha256)).collect();
    let numbers: BTreeSet<u64> = new.iter().map(|(_, pack)| pack.seq).collect();
    assert_eq!(numbers, (0..new.len() as u64).collect());
    assert_eq!(finished.next_seq, new.len() as u64);
    assert_eq!(finished.stats.packs, new.len() as u64);
    let target = u64::from(lab.descriptor.packs.target);
    assert!(new.iter().all(|(_, pack)| (pack.bytes.len() as u64) < target * 2));
}

#[test]
fn a_damaged_live_frame_stops_it_and_a_damaged_dead_one_does_not_matter() {
    let lab = Lab::new(92);
    let (_, worn) = worn(&lab);
    let set = resolve(&worn.chain).unwrap();
    let victims = half_dead(&set, all());
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
    run(&lab, &worn, &victims).expect("nobody reads what is dead");
    spoil(true);
    assert!(matches!(run(&lab, &worn, &victims), Err(RepackError::Read(_))));
    // Missing altogether: the same.
    lab.bucket.packs.lock().unwrap().remove(&victim.sha256);
    assert!(matches!(run(&lab, &worn, &victims), Err(RepackError::Read(_))));
}

/// Offset of a frame, from the length of the first directory in front of it.
fn frames_start(bytes: &[u8], frames: u64, from_end: u64) -> usize {
    let header = vault::pack::HEADER_LEN;
    let first = u32::from_be_bytes(bytes[header..header + 4].try_into().unwrap()) as usize;
    header + 4 + first + usize::try_from(frames - from_end).unwrap()
}

#[test]
fn the_budget_takes_the_most_dead_first_and_a_pack_of_another_snapshot_is_refused() {
    let lab = Lab::new(93);
    let (_, worn) = worn(&lab);
    let set = resolve(&worn.chain).unwrap();
    let every = half_dead(&set, all());
    let gains: BTreeMap<PackId, u64> =
        every.iter().map(|id| (*id, Liveness::of(&set.0[id]).dead_bytes())).collect();
    let best = *gains.iter().max_by_key(|(id, gain)| (**gain, std::cmp::Reverse(**id))).unwrap().0;
    let pack = &set.0[&best];
    let live = pack.length - Liveness::of(pack).dead_bytes();
    assert_eq!(half_dead(&set, live), [best].into());
    assert!(half_dead(&set, live - 1).is_empty() && half_dead(&set, 0).is_empty());
    let foreign = PackId::fresh(&*lab.ids, lab.now);
    assert!(
        matches!(run(&lab, &worn, &[foreign].into()), Err(RepackError::Unknown(id)) if id == foreign)
    );
    // Nothing to do is no error: the parent's set as it is.
    let idle = run(&lab, &worn, &BTreeSet::new()).unwrap();
    assert_eq!((idle.stats.packs, idle.usage.len()), (0, set.len()));
}
