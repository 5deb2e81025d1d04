//! Ten million files by simulation, and what a look-up costs:
//! `cargo test --release -p vault --test engine -- --ignored ten_million --nocapture --test-threads 1`.

use std::{
    fs,
    hint::black_box,
    io::Write as _,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use domain::{IdGen, VaultId};
use vault::{
    backup::{PackSink, Reuse, SinkError, Stats, Summary, Writer},
    id::{ChunkId, FileId, FrameKind, Sha256},
    index::{Budget, ChunkIndex},
    manifest::{PackRef, resolve},
    pack::{Directory, FrameInfo, PackKind, Part, SealedPack},
    snapshot::{PackSource, Reader, SourceError},
    tree::{Entry, EntryKind},
};

use crate::common::{Done, Lab, dir, file};

const VAULT: VaultId = VaultId::from_bytes([3; 16]);
/// Chunks of a pack, every tenth a bundle of as many files.
const CHUNKS: u64 = 1_000;
const PARTS: u64 = 10;
const PACKS: u64 = 10_000;

fn hash(kind: u8, n: u64) -> [u8; 32] {
    let mut bytes = [kind; 9];
    bytes[1..].copy_from_slice(&n.to_be_bytes());
    *blake3::hash(&bytes).as_bytes()
}
fn chunk(n: u64) -> ChunkId {
    ChunkId(hash(1, n))
}
fn small_file(n: u64) -> FileId {
    FileId::from_slice(&hash(2, n)[..16]).unwrap()
}

fn directory(pack: u64) -> Directory {
    let frame = |n: u64| {
        let bundle = n.is_multiple_of(PARTS);
        let files = if bundle { n..n + PARTS } else { 0..0 };
        FrameInfo {
            kind: if bundle { FrameKind::Bundle } else { FrameKind::Chunk },
            id: chunk(n),
            sealed_len: 1,
            raw_len: 2,
            parts: files.map(|n| Part { file: small_file(n), length: 4_000 }).collect(),
        }
    };
    Directory { frames: (pack * CHUNKS..(pack + 1) * CHUNKS).map(frame).collect() }
}

/// The most memory this process had, in MB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024 / 1_000_000
}

/// Nanoseconds this thread was on a processor: a busy machine does not change it.
fn on_cpu() -> u64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    times.split(' ').next().unwrap().parse().unwrap()
}

fn timed<T>(what: &str, count: u64, work: impl FnOnce() -> T) -> T {
    let (started, before) = (Instant::now(), on_cpu());
    let made = work();
    let (spent, wall) = (on_cpu() - before, started.elapsed().as_secs_f64());
    let (cpu, each) = (spent as f64 / 1e9, spent as f64 / count as f64);
    eprintln!("{what}: {cpu:.3} CPU s, {each:.0} ns each, {wall:.3} s; peak {} MB", peak());
    made
}

#[test]
#[ignore = "a measurement of minutes and gigabytes of disk"]
fn ten_million_chunks_and_files_fit_the_budget() {
    const ALL: u64 = PACKS * CHUNKS;
    for budget in [Budget::SMALL, Budget::NORMAL] {
        eprintln!("budget {} MiB", budget.bytes >> 20);
        let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let open = || ChunkIndex::open(home.path(), VAULT, 1, budget).unwrap();
        let index = open();
        timed("directories alone", 2 * ALL, || {
            (0..PACKS).for_each(|n| drop(black_box(directory(n))));
        });
        timed("add", 2 * ALL, || {
            for n in 0..PACKS {
                index.add(PackKind::Data, Sha256(hash(3, n)), 1, &directory(n));
            }
        });
        timed("save", 2 * ALL, || index.save(home.path(), 1).unwrap());
        eprintln!("runs {:?}, held {} KiB", index.runs(), index.held() >> 10);
        drop(index);
        let index = timed("open", 1, open);
        timed("first ten look-ups", 10, || {
            (0..10).for_each(|n| assert!(index.chunk(&chunk(n * 999_983)).is_some()));
        });
        let some = 200_000;
        let spread = |n: u64| chunk(n * 7_919 % ALL);
        timed("ids alone", some, || assert!((0..some).all(|n| black_box(spread(n)).0 != [0; 32])));
        timed("hits", some, || (0..some).for_each(|n| assert!(index.chunk(&spread(n)).is_some())));
        timed("misses", some, || {
            assert!((0..some).all(|n| index.chunk(&chunk(ALL + n)).is_none()));
        });
        timed("misses again", some, || {
            assert!((0..some).all(|n| index.chunk(&chunk(2 * ALL + n)).is_none()));
        });
        eprintln!("held {} KiB", index.held() >> 10);
        let disk: u64 = std::fs::read_dir(home.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        eprintln!("on disk {} MiB", disk >> 20);
        assert!(index.held() < budget.bytes + (2 << 20));
    }
}

/// Packs as files of a folder: memory is for the engine.
struct Shelf(PathBuf);

impl Shelf {
    fn path(&self, pack: &Sha256) -> PathBuf {
        self.0.join(pack.to_string())
    }
}

impl PackSink for Shelf {
    fn emit(&self, pack: SealedPack) -> Result<(), SinkError> {
        let mut file = fs::File::create(self.path(&pack.sha256)).unwrap();
        pack.bytes.iter().for_each(|piece| file.write_all(piece).unwrap());
        Ok(())
    }
}

impl PackSource for Shelf {
    fn read(&self, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let file = fs::File::open(self.path(&pack.sha256)).unwrap();
        file.read_exact_at(&mut bytes, range.start).unwrap();
        Ok(bytes.into())
    }
}

/// Ten thousand folders with a thousand files of some words each, in the order of keys: the folders, then what is in
/// them.
fn ten_million() -> impl Iterator<Item = (Entry, String)> {
    let name = |folder: u32| format!("folder-{folder:05}");
    let folders = (0..10_000).map(move |folder| (dir(&name(folder)).1.entry, String::new()));
    let files = (0..10_000_000).map(move |n| {
        let (folder, number) = (n / 1_000, n % 1_000);
        let said = format!("what file {number} of folder {folder} has to say, and no other");
        let path = format!("{}/file-with-a-usual-name-{number:03}.txt", name(folder));
        (file(&path, said.as_str()).1.entry, said)
    });
    std::iter::once((dir("").1.entry, String::new())).chain(folders).chain(files)
}

/// From here on [`peak`] is what is used from here on.
fn forget_the_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

struct Vast {
    lab: Lab,
    shelf: Arc<Shelf>,
    budget: Budget,
    index: PathBuf,
}

impl Vast {
    fn new(folder: &Path, budget: Budget, max_pack: u32, workers: usize) -> Self {
        let mut lab = Lab::new(93);
        lab.descriptor.packs.target = 32 << 20;
        (lab.max_pack, lab.workers) = (Some(max_pack), workers);
        let [packs, index] = ["packs", "index"].map(|name| folder.join(name));
        fs::create_dir(&packs).unwrap();
        fs::create_dir(&index).unwrap();
        Self { lab, shelf: Arc::new(Shelf(packs)), budget, index }
    }

    fn open_index(&self) -> Arc<ChunkIndex> {
        let vault = self.lab.descriptor.vault;
        Arc::new(ChunkIndex::open(&self.index, vault, 1, self.budget).unwrap())
    }

    fn reader(&self, done: &Done) -> Reader {
        let set = resolve(&done.chain).unwrap();
        let source = Arc::clone(&self.shelf) as Arc<dyn PackSource>;
        let manifest = done.chain[0].verify(&self.lab.roster()).unwrap();
        Reader::open(manifest, &set, Arc::clone(&self.lab.keys), source, Some(self.open_index()))
    }

    fn back_up(&self, parent: Option<&Done>) -> (Done, Stats) {
        let index = self.open_index();
        let (sink, ids) = (Arc::clone(&self.shelf), Arc::clone(&self.lab.ids) as Arc<dyn IdGen>);
        let (keys, known) = (Arc::clone(&self.lab.keys), Arc::clone(&index));
        let context = self.lab.context();
        let descriptor = &self.lab.descriptor;
        let mut writer = Writer::begin(context, keys, descriptor, known, sink, ids).unwrap();
        let before = parent.map(|done| self.reader(done));
        let mut cursor = before.as_ref().map(|reader| reader.cursor().unwrap());
        for (mut entry, said) in ten_million() {
            if !entry.is_file() {
                writer.add_entry(entry).unwrap();
                continue;
            }
            let old = cursor.as_mut().and_then(|cursor| cursor.find(&entry.path).unwrap());
            let Some(((old, encoded), before)) = old.zip(before.as_ref()) else {
                writer.add_file(entry, &mut said.as_bytes(), &[]).unwrap();
                continue;
            };
            assert!(old.looks_unchanged(&entry));
            entry.kind = old.kind;
            let taken = writer.unchanged(entry, Some(encoded), before.frames()).unwrap();
            assert_eq!(taken, Reuse::Taken);
        }
        let finished = writer.finish(Summary::default()).unwrap();
        index.save(&self.index, 1).unwrap();
        let stats = finished.stats;
        let used = finished.usage.iter().map(|pack| pack.sha256).collect();
        (self.lab.commit_of(finished, parent, used), stats)
    }
}

/// First, unchanged and read back with an index, packs and workers as the agent has them, in so many MB.
fn ten_million_files_in(promised: u64, budget: Budget, max_pack: u32, workers: usize) {
    const FILES: u64 = 10_000_000;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let vast = Vast::new(folder.path(), budget, max_pack, workers);
    eprintln!("{workers} workers, index {} MiB, promised {promised} MB", budget.bytes >> 20);
    forget_the_peak();
    let (first, stats) = timed("first backup", FILES, || vast.back_up(None));
    eprintln!("{stats:?}");
    assert!(stats.files == FILES && peak() <= promised, "{} MB", peak());
    forget_the_peak();
    let (second, stats) = timed("unchanged", FILES, || vast.back_up(Some(&first)));
    eprintln!("{stats:?}");
    assert!(stats.files == FILES && stats.new_bytes == 0 && peak() <= promised, "{} MB", peak());
    // Read back, every entry of it, and of every thousandth file what it says.
    forget_the_peak();
    timed("read back", FILES, || {
        let reader = vast.reader(&second);
        let mut there = reader.entries().unwrap();
        for (n, (entry, said)) in (0_u64..).zip(ten_million()) {
            let restored = there.next().unwrap().unwrap();
            assert_eq!(restored.path, entry.path);
            if let EntryKind::File { size, .. } = &restored.kind
                && n.is_multiple_of(1_000)
            {
                let mut content = Vec::new();
                reader.read_file(&restored, &mut content).unwrap();
                assert!(content == said.as_bytes() && *size == said.len() as u64);
            }
        }
        assert!(there.next().is_none());
    });
    assert!(peak() <= promised, "{} MB", peak());
}

#[test]
#[ignore = "a measurement of minutes and gigabytes of disk"]
fn ten_million_files_with_memory_small() {
    ten_million_files_in(96, Budget::SMALL, 16 << 20, 1);
}

#[test]
#[ignore = "a measurement of minutes and gigabytes of disk"]
fn ten_million_files_with_two_workers() {
    ten_million_files_in(192, Budget::NORMAL, 24 << 20, 2);
}

#[test]
#[ignore = "a measurement of minutes and gigabytes of disk"]
fn ten_million_files_with_as_many_workers_as_there_may_be() {
    ten_million_files_in(192, Budget::NORMAL, 24 << 20, 8);
}
