//! Reading in windows and in order: everything arrives once, memory stays within its bounds, losses are told.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use vault::{
    id::Sha256,
    manifest::{PackRef, resolve},
    pack::PackKind,
    restore::{Delivery, Gauge, Limits, Segment, Sink, Want, ordered, run},
    snapshot::{PackSource, PieceSource, ReadError, Reader, SourceError},
    tree::Entry,
};

use crate::common::{Bucket, Done, Lab, Tree, dir, file, noise};

pub const SMALL: Limits = Limits { pieces: 16, buffers: 256 << 10, fetchers: 3, workers: 2 };

/// Small files, large files, a file of holes, and content that several files share.
fn mixed() -> Tree {
    let mut tree: Tree = [dir(""), dir("d")].into();
    for at in 0..300_u64 {
        tree.extend([file(&format!("d/small-{at:03}"), noise(at, 40 + 13 * at as usize))]);
    }
    for at in 0..6 {
        tree.extend([file(&format!("d/large-{at}"), noise(500 + at % 4, 1_500_000))]);
    }
    let mut content = vec![0; 3 << 20];
    content[1 << 20..(1 << 20) + 70_000].copy_from_slice(&noise(7, 70_000));
    let (key, mut sparse) = file("d/sparse", content);
    sparse.holes = vec![0..1 << 20, (1 << 20) + 70_000..3 << 20];
    tree.insert(key, sparse);
    tree
}

pub fn wants(reader: &Reader, number: u64, entry: &Entry, mut each: impl FnMut(Want<u64>)) {
    let own = entry.bundled();
    let pieces = reader.pieces::<ReadError>(entry, |piece| {
        if let PieceSource::Frame { kind, id, at } = piece.from {
            let length = u32::try_from(piece.length).unwrap();
            each(Want { to: number, offset: piece.offset, length, at, kind, id, own });
        }
        Ok(())
    });
    pieces.unwrap();
}

/// Puts files together in memory.
#[derive(Default)]
pub struct Files {
    pub content: Mutex<BTreeMap<u64, Vec<u8>>>,
    pub failed: Mutex<BTreeMap<u64, String>>,
    pub bytes: Mutex<u64>,
    stop_after: Option<u64>,
    stopped: AtomicBool,
}

impl Sink<u64> for Files {
    fn deliver(&self, want: Want<u64>, bytes: Delivery<'_>) {
        match bytes {
            Ok(bytes) => {
                let mut content = self.content.lock().unwrap();
                let at = want.offset as usize;
                let file = content.get_mut(&want.to).unwrap();
                file[at..at + bytes.len()].copy_from_slice(bytes);
                *self.bytes.lock().unwrap() += bytes.len() as u64;
            }
            Err(error) => drop(self.failed.lock().unwrap().insert(want.to, error.to_string())),
        }
        let done = *self.bytes.lock().unwrap();
        if self.stop_after.is_some_and(|stop| done > stop) {
            self.stopped.store(true, Ordering::Relaxed);
        }
    }
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

pub fn files(reader: &Reader) -> Vec<Entry> {
    reader.entries().unwrap().map(Result::unwrap).filter(Entry::is_file).collect()
}

pub fn read_all(reader: &Reader, limits: Limits, gauge: &Gauge, sink: &Files) {
    let files = files(reader);
    for (number, entry) in (0_u64..).zip(&files) {
        let empty = vec![0; entry.size() as usize];
        sink.content.lock().unwrap().insert(number, empty);
    }
    run(reader.frames(), limits, gauge, sink, |feed| {
        for (number, entry) in (0_u64..).zip(&files) {
            wants(reader, number, entry, |want| feed.push(want));
        }
    });
}

fn taken(lab: &Lab) -> (Tree, Done) {
    let tree = mixed();
    let done = lab.backup(&tree, None);
    (tree, done)
}

#[test]
fn every_piece_arrives_once_whatever_the_window() {
    let lab = Lab::new(40);
    let (tree, done) = taken(&lab);
    let reader = lab.reader(&done);
    let entries = files(&reader);
    for pieces in [1, 16, 1 << 20] {
        let (sink, gauge) = (Files::default(), Gauge::default());
        read_all(&reader, Limits { pieces, ..SMALL }, &gauge, &sink);
        assert!(sink.failed.lock().unwrap().is_empty());
        let content = sink.content.lock().unwrap();
        for (number, entry) in (0_u64..).zip(&entries) {
            let key = vault::tree::path::key(&entry.path).unwrap();
            assert!(content[&number] == tree[&key].content, "{}", entry.path.escape_ascii());
        }
        let holes: u64 = tree.values().flat_map(|s| &s.holes).map(|h| h.end - h.start).sum();
        let sizes: u64 = entries.iter().map(Entry::size).sum();
        assert_eq!(*sink.bytes.lock().unwrap(), sizes - holes);
    }
}

#[test]
fn memory_is_bounded_by_the_limits_and_not_by_the_tree() {
    let lab = Lab::new(41);
    let (_, done) = taken(&lab);
    let (sink, gauge) = (Files::default(), Gauge::default());
    read_all(&lab.reader(&done), SMALL, &gauge, &sink);
    let most = gauge.most_pieces.load(Ordering::Relaxed);
    assert!(most <= 2 * SMALL.pieces as u64 && most > 0, "{most} pieces");
    // One read may be larger than the limit: a frame of a mebibyte.
    let most = gauge.most_buffered.load(Ordering::Relaxed);
    assert!(most <= SMALL.buffers.max(1_100_000), "{most} bytes");
}

#[test]
fn in_one_window_every_byte_of_a_pack_is_read_once_and_in_few_reads() {
    let lab = Lab::new(42);
    let (_, done) = taken(&lab);
    let reader = lab.reader(&done);
    let (sink, gauge) = (Files::default(), Gauge::default());
    let limits = Limits { pieces: 1 << 20, buffers: 64 << 20, ..SMALL };
    read_all(&reader, limits, &gauge, &sink);
    let packs = reader.frames().packs().filter(|pack| pack.kind == vault::pack::PackKind::Data);
    let (count, stored) = packs.fold((0, 0), |(n, sum), pack| (n + 1, sum + pack.length));
    assert!(gauge.read_bytes.load(Ordering::Relaxed) <= stored);
    assert_eq!(gauge.reads.load(Ordering::Relaxed), count, "packs of a mebibyte: one read each");
}

#[test]
fn a_lost_or_damaged_pack_costs_its_pieces_and_no_others() {
    let lab = Lab::new(43);
    let (_, done) = taken(&lab);
    let victim = {
        let mut packs = lab.bucket.packs.lock().unwrap();
        let data = |pack: &&mut vault::pack::SealedPack| pack.kind == vault::pack::PackKind::Data;
        let pack = packs.values_mut().filter(data).last().unwrap();
        let mut bytes = pack.bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        pack.bytes = bytes.into();
        pack.sha256
    };
    let reader = lab.reader(&done);
    let total = files(&reader).len();
    let (sink, gauge) = (Files::default(), Gauge::default());
    read_all(&reader, SMALL, &gauge, &sink);
    let flipped = sink.failed.lock().unwrap().len();
    assert!(flipped > 0 && flipped < total / 2, "{flipped} of {total}");
    lab.bucket.packs.lock().unwrap().remove(&victim);
    let index = lab.index();
    assert!(index.packs().len() > 1);
    let (sink, gauge) = (Files::default(), Gauge::default());
    read_all(&lab.reader(&done), SMALL, &gauge, &sink);
    let lost = sink.failed.lock().unwrap().len();
    assert!(lost >= flipped && lost < total, "{lost} of {total}");
}

#[test]
fn a_stop_ends_the_reading_soon() {
    let lab = Lab::new(44);
    let (_, done) = taken(&lab);
    let (sink, gauge) = (Files { stop_after: Some(1000), ..Files::default() }, Gauge::default());
    read_all(&lab.reader(&done), SMALL, &gauge, &sink);
    let read = *sink.bytes.lock().unwrap();
    assert!((1000..6_000_000).contains(&read), "{read}");
}

#[test]
fn a_stream_comes_in_order_with_its_marks_and_ends_when_nobody_takes_it() {
    let lab = Lab::new(45);
    let (tree, done) = taken(&lab);
    let reader = lab.reader(&done);
    let entries = files(&reader);
    let feed = |segments: &mut vault::restore::Segments<'_, '_, '_, usize>| {
        for (at, entry) in entries.iter().enumerate() {
            let mut ended = segments.mark(at).is_err();
            wants(&reader, 0, entry, |want| {
                let place = (want.kind, want.id, want.at);
                ended |= segments.bytes(place, want.length, want.own).is_err();
            });
            if ended {
                return at;
            }
        }
        entries.len()
    };
    let (mut streamed, gauge) = (Vec::new(), Gauge::default());
    let fed = ordered(reader.frames(), SMALL, &gauge, feed, |segment| {
        match segment {
            Segment::Mark(at) => streamed.push((at, Vec::new())),
            Segment::Bytes { bytes, .. } => {
                streamed.last_mut().unwrap().1.extend(bytes.map_err(|_| ())?);
            }
        }
        Ok::<(), ()>(())
    });
    assert_eq!(fed, Ok(entries.len()));
    for ((at, content), entry) in streamed.iter().zip(&entries) {
        let key = vault::tree::path::key(&entry.path).unwrap();
        let source = &tree[&key];
        let length = source.content.len() as u64;
        let mut data = Vec::new();
        let mut from = 0;
        for hole in source.holes.iter().chain([&(length..length)]) {
            data.extend_from_slice(&source.content[from as usize..hole.start as usize]);
            from = hole.end;
        }
        assert!(*content == data, "{at}");
    }
    assert_eq!(streamed.len(), entries.len());

    let mut left = 3;
    let ended = ordered(reader.frames(), SMALL, &gauge, feed, |_| {
        left -= 1;
        if left == 0 { Err("enough") } else { Ok(()) }
    });
    assert_eq!(ended, Err("enough"));
}

/// Answers nothing about a pack until it was asked for two stretches of it, or for all.
#[derive(Default)]
struct Pairs {
    bucket: Arc<Bucket>,
    asked: Mutex<BTreeMap<Sha256, Vec<Range<u64>>>>,
    changed: Condvar,
}

impl PackSource for Pairs {
    fn read(&self, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.entry(pack.sha256).or_default().push(range.clone());
        self.changed.notify_all();
        let all = 0..pack.length;
        let is_alone =
            |asked: &mut BTreeMap<Sha256, Vec<_>>| asked[&pack.sha256].len() < 2 && range != all;
        let long = Duration::from_secs(10);
        let (asked, waited) = self.changed.wait_timeout_while(asked, long, is_alone).unwrap();
        assert!(!waited.timed_out(), "{range:?} was asked for alone");
        drop(asked);
        self.bucket.read(pack, range)
    }
}

#[test]
fn with_an_index_a_pack_is_opened_and_read_in_one_round_trip() {
    let lab = Lab::new(44);
    let (tree, done) = taken(&lab);
    let set = resolve(&done.chain).unwrap();
    let reading = || {
        let source = Arc::new(Pairs { bucket: Arc::clone(&lab.bucket), ..Pairs::default() });
        let (keys, index) = (Arc::clone(&lab.keys), Some(Arc::new(lab.index())));
        let shared = Arc::clone(&source) as Arc<dyn PackSource>;
        (Reader::open(&done.chain[0].manifest, &set, keys, shared, index), source)
    };

    let (reader, source) = reading();
    let entry = reader.get(b"d/small-007").unwrap().unwrap();
    let mut content = Vec::new();
    reader.read_file(&entry, &mut content).unwrap();
    assert_eq!(content, tree[&vault::tree::path::key(&entry.path).unwrap()].content);
    let asked = source.asked.lock().unwrap();
    assert_eq!(asked.len(), 2, "one pack of nodes, one of data");
    for (sha256, ranges) in asked.iter() {
        let pack = &lab.bucket.packs.lock().unwrap()[sha256];
        match pack.kind {
            PackKind::Meta => {
                let all = 0..pack.bytes.len() as u64;
                assert!(ranges.iter().eq([&all]), "{ranges:?}");
            }
            PackKind::Data => {
                let front = pack.directory.frames_at(pack.bytes.len() as u64).unwrap();
                assert!(ranges.contains(&(0..front)), "{ranges:?}");
                assert_eq!(ranges.len(), 2, "{ranges:?}");
            }
        }
    }

    let (reader, source) = reading();
    let (sink, gauge) = (Files::default(), Gauge::default());
    read_all(&reader, SMALL, &gauge, &sink);
    assert!(sink.failed.lock().unwrap().is_empty());
    let packs = source.asked.lock().unwrap().len();
    assert!(packs > 2, "{packs}");
}
