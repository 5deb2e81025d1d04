//! Ten million files by simulation, and what a look-up costs:
//! `cargo test --release -p vault --test engine -- --ignored ten_million --nocapture`.

use std::{hint::black_box, time::Instant};

use domain::VaultId;
use vault::{
    id::{ChunkId, FileId, FrameKind, Sha256},
    index::{Budget, ChunkIndex},
    pack::{Directory, FrameInfo, PackKind, Part},
};

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

/// The most memory this process ever had, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
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
    eprintln!("{what}: {cpu:.3} CPU s, {each:.0} ns each, {wall:.3} s; peak {} MiB", peak());
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
