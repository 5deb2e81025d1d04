//! The index against a map: whatever is added, forgotten, spilled, merged, saved, torn or altered, it never says a
//! place that is not, and forgets nothing that is well kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::*;
use crate::pack::{FrameInfo, Part};

const VAULT: VaultId = VaultId::from_bytes([7; 16]);

fn chunk_id(n: u32) -> ChunkId {
    let mut id = *blake3::hash(&n.to_be_bytes()).as_bytes();
    // Many that begin alike: fences alone do not tell them apart.
    if n.is_multiple_of(3) {
        id[..12].fill(0x55);
    }
    ChunkId(id)
}
fn file_id(n: u32) -> FileId {
    let mut id = FileId([0; 16]);
    id.0.copy_from_slice(&blake3::hash(&[n.to_be_bytes(), [1; 4]].concat()).as_bytes()[..16]);
    if n.is_multiple_of(5) {
        id.0[..9].fill(0xaa);
    }
    id
}
fn sha(n: u32) -> Sha256 {
    Sha256::of(&n.to_be_bytes())
}

/// A pack of the chunks `from..from + count`, every fourth a bundle of three files.
fn directory(from: u32, count: u32) -> Directory {
    let mut directory = Directory::default();
    for n in from..from + count {
        let bundle = n.is_multiple_of(4);
        let parts = if bundle { (n * 3..n * 3 + 3).collect() } else { Vec::new() };
        directory.frames.push(FrameInfo {
            kind: if bundle { FrameKind::Bundle } else { FrameKind::Chunk },
            id: chunk_id(n),
            sealed_len: 10,
            raw_len: n,
            parts: parts.iter().map(|n| Part { file: file_id(*n), length: 5 + n % 7 }).collect(),
        });
    }
    directory.frames.push(FrameInfo {
        kind: FrameKind::Pad,
        id: ChunkId([0; 32]),
        sealed_len: 9,
        raw_len: 0,
        parts: Vec::new(),
    });
    directory
}

/// What a plain map knows: packs in order, with their directories.
#[derive(Default, Clone)]
struct Model(BTreeMap<Sha256, (u32, u32)>);

impl Model {
    fn add(&mut self, index: &ChunkIndex, n: u32, from: u32, count: u32) {
        index.add(PackKind::Data, sha(n), 100, &directory(from, count));
        self.0.entry(sha(n)).or_insert((from, count));
    }
    fn holds(&self, n: u32) -> bool {
        self.0.values().any(|(from, count)| (*from..from + count).contains(&n))
    }
    /// The index says a true place for everything that has one and nothing else; `all`: nothing was lost.
    fn check(&self, index: &ChunkIndex, upto: u32, all: bool) {
        for n in 0..upto {
            let place = index.chunk(&chunk_id(n));
            if let Some(place) = place {
                let pack = index.pack(place.pack).unwrap();
                let (from, _) = self.0[&pack.sha256];
                assert_eq!(from + place.frame, n, "a place that is not");
                assert_eq!((place.offset, place.length, pack.front()), (u32::MAX, 10, None));
                assert_eq!(place.kind == FrameKind::Bundle, n.is_multiple_of(4));
            }
            assert!(!all || place.is_some() == self.holds(n), "chunk {n}: {place:?}");
            for (file, before) in [(n * 3, 0), (n * 3 + 1, 1), (n * 3 + 2, 2)] {
                let place = index.file(&file_id(file));
                let here = n.is_multiple_of(4) && self.holds(n);
                assert!(place.is_none() || here, "a file that is not");
                assert!(!all || place.is_some() == here, "file {file}");
                if let Some(place) = place {
                    let offset = (n * 3..n * 3 + before).map(|n| 5 + n % 7).sum();
                    let length = 5 + file % 7;
                    assert_eq!(place, FilePlace { bundle: chunk_id(n), offset, length });
                }
            }
        }
        assert_eq!(index.packs().len(), self.0.len());
        assert!(self.0.keys().all(|sha256| index.has_pack(sha256)));
    }
}

fn open(folder: &Path, bytes: usize) -> ChunkIndex {
    ChunkIndex::open(folder, VAULT, 5, Budget { bytes }).unwrap()
}
fn runs_in(folder: &Path) -> BTreeSet<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "run")).collect()
}
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

#[derive(Debug, Clone)]
enum Step {
    Add(u32, u32),
    Retain(u32),
    Save,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u32..300, 1_u32..60).prop_map(|(from, count)| Step::Add(from, count)),
        1 => (2_u32..5).prop_map(Step::Retain),
        1 => Just(Step::Save),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_index_is_a_map_whatever_its_budget(steps in steps(), budget in prop_oneof![Just(1_000), 2_000_usize..50_000, Just(1 << 20)]) {
        let home = tempfile::tempdir().unwrap();
        let (mut index, mut model) = (open(home.path(), budget), Model::default());
        let mut saved = model.clone();
        for (n, step) in (0..).zip(&steps) {
            match step {
                Step::Add(from, count) => model.add(&index, n, *from, *count),
                Step::Retain(part) => {
                    let keep = |sha256: &Sha256| !u32::from(sha256.0[0]).is_multiple_of(*part);
                    index.retain(keep);
                    model.0.retain(|sha256, _| keep(sha256));
                }
                Step::Save => {
                    index.save(home.path(), 5).unwrap();
                    saved = model.clone();
                    let (loaded, generation) = ChunkIndex::load(home.path(), VAULT).unwrap();
                    prop_assert_eq!(generation, 5);
                    model.check(&loaded, 360, true);
                }
                // As after a kill: what was not saved is gone, the rest is there.
                Step::Reopen => {
                    drop(index);
                    index = open(home.path(), budget);
                    model = saved.clone();
                }
            }
            let (chunks, files) = index.runs();
            prop_assert!(chunks <= 6 && files <= 6, "{chunks} and {files} runs");
        }
        model.check(&index, 360, true);
        index.save(home.path(), 5).unwrap();
        let named = index.runs();
        drop(index);
        prop_assert_eq!(runs_in(home.path()).len(), named.0 + named.1, "files nobody names");
        model.check(&open(home.path(), budget), 360, true);
    }

    #[test]
    fn an_altered_or_torn_file_never_says_a_wrong_place(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        bit in 0..8,
        cut: bool,
    ) {
        let home = tempfile::tempdir().unwrap();
        let (index, mut model) = (open(home.path(), 4_000), Model::default());
        for n in 0..8 {
            model.add(&index, n, n * 100, 100);
        }
        index.save(home.path(), 5).unwrap();
        drop(index);
        let files: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().path()).collect();
        let path = which.get(&files);
        let mut bytes = std::fs::read(path).unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1_u8 << bit }
        std::fs::write(path, bytes).unwrap();
        let loaded = ChunkIndex::load(home.path(), VAULT);
        let head = path.ends_with(head::HEAD);
        prop_assert!(loaded.is_none() || !head && !cut, "a torn file or altered head loads");
        if let Some((loaded, _)) = loaded {
            model.check(&loaded, 800, false);
        }
        // The backup after it begins anew or finds the damage; what it leaves is good.
        let index = open(home.path(), 4_000);
        index.packs().is_empty().then(|| model.0.clear());
        model.check(&index, 800, false);
        let seen = index.chunks.is_broken() || index.files.is_broken();
        prop_assert_eq!(index.save(home.path(), 5).is_err(), seen);
        prop_assert!(!seen || ChunkIndex::load(home.path(), VAULT).is_none());
        drop(index);
        let index = open(home.path(), 4_000);
        model.0.clear();
        index.retain(|_| false);
        model.add(&index, 50, 0, 300);
        index.chunks.merge_all(&|_| true).and_then(|()| index.save(home.path(), 5)).ok();
        if let Some((loaded, _)) = ChunkIndex::load(home.path(), VAULT) && !index.chunks.is_broken() && !index.files.is_broken() {
            model.check(&loaded, 300, false);
        }
    }
}

#[test]
fn an_index_of_another_vault_or_generation_is_nothing_and_is_cleared_away() {
    let home = tempfile::tempdir().unwrap();
    let (index, mut model) = (open(home.path(), 500), Model::default());
    model.add(&index, 1, 0, 200);
    index.save(home.path(), 5).unwrap();
    drop(index);
    let other = VaultId::from_bytes([8; 16]);
    assert!(ChunkIndex::load(home.path(), other).is_none());
    assert!(ChunkIndex::load(home.path(), VAULT).is_some());
    let copied = copy(home.path());
    assert!(ChunkIndex::open(copied.path(), VAULT, 6, Budget::SMALL).unwrap().is_empty());
    assert!(ChunkIndex::open(home.path(), other, 5, Budget::SMALL).unwrap().is_empty());
    for folder in [copied.path(), home.path()] {
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
    }
}

#[test]
fn runs_of_another_index_under_the_same_names_are_not_taken() {
    let [mine, theirs] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for (home, from) in [(&mine, 0), (&theirs, 300)] {
        let index = open(home.path(), 1 << 20);
        Model::default().add(&index, from, from, 300);
        index.save(home.path(), 5).unwrap();
    }
    for path in runs_in(theirs.path()) {
        std::fs::copy(&path, mine.path().join(path.file_name().unwrap())).unwrap();
    }
    assert!(ChunkIndex::load(mine.path(), VAULT).is_none());
}

#[test]
fn a_crash_between_any_two_writes_leaves_the_index_before_or_after() {
    let home = tempfile::tempdir().unwrap();
    let (index, mut model) = (open(home.path(), 3_000), Model::default());
    for n in 0..6 {
        model.add(&index, n, n * 50, 50);
    }
    index.save(home.path(), 5).unwrap();
    let before = model.clone();
    let old_runs = copy(home.path());
    for n in 6..12 {
        model.add(&index, n, n * 50, 50);
    }
    index.retain(|sha256| *sha256 != sha(1) && *sha256 != sha(2) && *sha256 != sha(3));
    let spilled = copy(home.path());
    let (chunks, files) = index.settle().unwrap();
    let settled = copy(home.path());
    let head = index.head(5, 1_000, chunks, files);
    let torn = copy(home.path());
    std::fs::write(torn.path().join("head.new"), b"EVHIDX02 and no more").unwrap();
    head.save(home.path()).unwrap();
    let headed = copy(home.path());
    drop(index);
    for folder in [&old_runs, &spilled, &settled, &torn] {
        before.check(&ChunkIndex::load(folder.path(), VAULT).unwrap().0, 600, true);
        before.check(&open(folder.path(), 3_000), 600, true);
        assert!(!folder.path().join("head.new").exists());
    }
    // What the new head does not name any more is still there: not in the way, and removed.
    for path in runs_in(old_runs.path()) {
        let to = headed.path().join(path.file_name().unwrap());
        drop(std::fs::copy(&path, to));
    }
    model.0.retain(|sha256, _| *sha256 != sha(1) && *sha256 != sha(2) && *sha256 != sha(3));
    let index = open(headed.path(), 3_000);
    model.check(&index, 600, true);
    let named = index.runs();
    assert_eq!(runs_in(headed.path()).len(), named.0 + named.1);
}

#[test]
fn a_reader_goes_on_while_a_backup_spills_merges_and_saves_beside_it() {
    let home = tempfile::tempdir().unwrap();
    let (index, mut model) = (open(home.path(), 2_000), Model::default());
    model.add(&index, 0, 0, 400);
    index.save(home.path(), 5).unwrap();
    let (reader, _) = ChunkIndex::load(home.path(), VAULT).unwrap();
    let then = model.clone();
    for n in 1..10 {
        model.add(&index, n, n * 400, 400);
    }
    index.retain(|sha256| *sha256 != sha(0));
    index.save(home.path(), 5).unwrap();
    then.check(&reader, 500, true);
    model.0.remove(&sha(0));
    model.check(&index, 4_000, true);
}

#[test]
fn forgetting_packs_writes_nothing_until_a_quarter_is_dead() {
    let home = tempfile::tempdir().unwrap();
    let (index, mut model) = (open(home.path(), 1 << 20), Model::default());
    for n in 0..20 {
        model.add(&index, n, n * 50, 50);
    }
    index.save(home.path(), 5).unwrap();
    let written = runs_in(home.path());
    let mut forget = |few: u32| {
        index.retain(|sha256| (few..20).any(|n| *sha256 == sha(n)));
        index.save(home.path(), 5).unwrap();
        model.0.retain(|sha256, _| (few..20).any(|n| *sha256 == sha(n)));
        model.check(&index, 1_000, true);
        runs_in(home.path())
    };
    assert_eq!(forget(4), written);
    assert!(forget(8).is_disjoint(&written));
    assert_eq!(index.chunks.count(), 12 * 50);
}

#[test]
fn what_the_index_holds_stays_within_its_budget() {
    let home = tempfile::tempdir().unwrap();
    let budget = Budget { bytes: 400 << 10 };
    let index = ChunkIndex::open(home.path(), VAULT, 5, budget).unwrap();
    let (mut most, mut tops) = (0, 0);
    for n in 0..100_u32 {
        index.add(PackKind::Data, sha(n), 100, &directory(n * 2_000, 2_000));
        for probe in 0..500 {
            assert!(index.chunk(&chunk_id(n * 2_000 + probe)).is_some());
            assert_eq!(index.chunk(&chunk_id(10_000_000 + probe)), None);
        }
        most = most.max(index.held());
        // Sixteen bytes of top and as many of slots for every 128 KiB of records, and some for growth.
        let records = index.chunks.count() * CHUNK as u64 + index.files.count() * 60;
        tops = 64 * (usize::try_from(records).unwrap() / (128 << 10) + 14);
    }
    assert!(most <= budget.bytes + tops, "{most} bytes held, {tops} of tops");
    assert!(index.chunks.count() + index.files.count() == 350_000);
    assert!(tops < 20_000);
}

#[test]
fn places_beyond_their_memory_are_found_and_leave_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places::new(Some(dir.path()), 64 << 10);
    let id = |pack: u32, at: u32| {
        let hash = blake3::hash(&[pack.to_be_bytes(), at.to_be_bytes()].concat());
        ChunkId(*hash.as_bytes())
    };
    let frame = |pack, at| FrameInfo {
        kind: FrameKind::Chunk,
        id: id(pack, at),
        sealed_len: 1,
        raw_len: 1,
        parts: Vec::new(),
    };
    for pack in 0..60_u32 {
        let frames: Vec<FrameInfo> = (0..500).map(|at| frame(pack, at)).collect();
        places.insert(pack, &frames);
        assert!(places.held() <= 64 << 10, "{}", places.held());
    }
    // Once more in another pack: both are found.
    places.insert(99, &[frame(7, 3)]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "files have no names");
    for (pack, at) in (0..60).flat_map(|pack| (0..500).step_by(17).map(move |at| (pack, at))) {
        let found = places.find(&id(pack, at), |p, a| (p == pack).then_some(a));
        assert_eq!(found, Some(at));
    }
    let mut all = Vec::new();
    places.find(&id(7, 3), |pack, at| {
        all.push((pack, at));
        None::<()>
    });
    all.sort_unstable();
    assert_eq!(all, [(7, 3), (99, 0)]);
    assert_eq!(places.find(&id(60, 0), |p, a| Some((p, a))), None);
    assert!(!places.is_broken());
}

#[test]
fn a_temporary_shelf_keeps_the_newest_value_beyond_its_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::temporary(dir.path(), 64 << 10);
    for round in 0..2_u64 {
        for number in 0..5_000 {
            shelf.put(number, format!("{round}: a path of {number}").as_bytes());
            assert!(shelf.held() <= 64 << 10, "{}", shelf.held());
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "files have no names");
    for number in (0..5_000).step_by(7) {
        let value = format!("1: a path of {number}");
        assert_eq!(shelf.get(number).as_deref(), Some(value.as_bytes()));
    }
    assert!(shelf.get(5_000).is_none() && !shelf.is_broken());
}

#[test]
fn a_temporary_shelf_without_a_disk_keeps_all_in_memory() {
    let mut shelf = Shelf::temporary(Path::new("/nonexistent/folder"), 64 << 10);
    for number in 0..20_000 {
        shelf.put(number, format!("a path of {number}").as_bytes());
    }
    for number in 0..20_000 {
        assert_eq!(shelf.get(number), Some(format!("a path of {number}").into_bytes()));
    }
    assert!(!shelf.is_broken());
}

#[test]
fn where_a_frame_is_in_its_pack_is_told_for_a_whole_directory_and_no_other() {
    let whole = directory(0, 40);
    let length = (0..1 << 20).find(|length| whole.frames_at(*length).is_some()).unwrap();
    let mut second = whole.clone();
    second.frames.iter_mut().for_each(|frame| frame.parts.clear());
    let at = u32::try_from(whole.frames_at(length).unwrap()).unwrap();
    for (n, directory, front) in [(1, whole, Some(at)), (2, second, None)] {
        let index = ChunkIndex::new(VAULT);
        index.add(PackKind::Data, sha(n), length, &directory);
        assert_eq!(index.known_pack(&sha(n)).unwrap().front(), front.map(u64::from));
        for frame in 0..40 {
            let place = index.chunk(&chunk_id(frame)).unwrap();
            let offset = front.map_or(u32::MAX, |front| front + 10 * frame);
            assert_eq!((place.frame, place.offset, place.length), (frame, offset, 10));
        }
    }
}
