//! A wrong index, a lost pack and a hostile tree: an error or the right bytes, never others, and never for ever.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use domain::PackId;
use vault::{
    backup::PackSink as _,
    cbor::Writer,
    compress::Codec,
    id::{ChunkId, FrameKind, IdKeys, Sha256},
    index::ChunkIndex,
    manifest::{FrameBitmap, PackRef, PackSet, resolve},
    pack::{Decoder, Directory, HEADER_LEN, Header, PackBuilder, PackKind, SealedPack},
    restore::{Gauge, run},
    snapshot::{PackSource, ReadError, Reader, SourceError},
    tree::{Content, Entry, EntryKind, Root},
    verify::{self, Problem},
};

use crate::{
    common::{Done, Lab, Tree, assert_same, dir, file, noise},
    reading::{Files, SMALL, files, read_all, wants},
};

/// Chunks of one length and several bundles, in several packs.
pub fn twins() -> Tree {
    let mut tree: Tree = [dir(""), dir("d")].into();
    for n in 0..30 {
        tree.extend([file(&format!("d/large{n:02}"), noise(100 + n, 70_000))]);
    }
    for n in 0..200 {
        tree.extend([file(&format!("d/small{n:03}"), noise(500 + n, 9_000))]);
    }
    tree
}

fn reader_with(lab: &Lab, done: &Done, index: ChunkIndex) -> Reader {
    let set = resolve(&done.chain).unwrap();
    let source = Arc::clone(&lab.bucket) as Arc<dyn PackSource>;
    let manifest = &done.chain[0].manifest;
    Reader::open(manifest, &set, Arc::clone(&lab.keys), source, Some(Arc::new(index)))
}

/// Every frame under the name of another one of its kind and pack.
fn rotated(lab: &Lab) -> ChunkIndex {
    let index = ChunkIndex::new(lab.keys.vault());
    for pack in lab.bucket.packs.lock().unwrap().values() {
        let mut directory = pack.directory.clone();
        for kind in [FrameKind::Chunk, FrameKind::Bundle, FrameKind::Node] {
            let frames = &mut directory.frames;
            let of = (0..frames.len()).filter(|at| frames[*at].kind == kind).collect::<Vec<_>>();
            let ids = of.iter().map(|at| frames[*at].id).collect::<Vec<_>>();
            for (at, id) in of.iter().zip(ids.iter().cycle().skip(1)) {
                frames[*at].id = *id;
            }
        }
        index.add(pack.kind, pack.sha256, pack.bytes.len() as u64, &directory);
    }
    index
}

/// The directories of one pack under the name of the next.
fn exchanged(lab: &Lab) -> ChunkIndex {
    let index = ChunkIndex::new(lab.keys.vault());
    let packs: Vec<_> = lab.bucket.packs.lock().unwrap().values().cloned().collect();
    for (at, pack) in packs.iter().enumerate() {
        let other = &packs[(at + 1) % packs.len()].directory;
        index.add(pack.kind, pack.sha256, pack.bytes.len() as u64, other);
    }
    index
}

/// Every file by the restore's own way, beside the reader's.
pub fn assert_restores(reader: &Reader, tree: &Tree) {
    let sink = Files::default();
    read_all(reader, SMALL, &Gauge::default(), &sink);
    assert_eq!(*sink.failed.lock().unwrap(), BTreeMap::new());
    let content = sink.content.into_inner().unwrap();
    for (entry, content) in files(reader).iter().zip(content.into_values()) {
        let key = vault::tree::path::key(&entry.path).unwrap();
        assert!(content == tree[&key].content, "{}", String::from_utf8_lossy(&entry.path));
    }
}

#[test]
fn a_wrong_index_costs_time_and_never_a_byte() {
    let lab = Lab::new(60);
    let tree = twins();
    let done = lab.backup(&tree, None);
    let count = |kind| {
        let packs = lab.bucket.packs.lock().unwrap();
        packs.values().filter(|pack| pack.kind == kind).count()
    };
    assert!(count(PackKind::Data) > 2);
    for index in [rotated, exchanged] {
        assert_restores(&reader_with(&lab, &done, index(&lab)), &tree);
        assert_same(&reader_with(&lab, &done, index(&lab)), &tree);
        let report = verify::quick(&reader_with(&lab, &done, index(&lab)));
        assert!(report.is_clean(), "{:?}", report.problems);
    }
}

#[test]
fn a_restore_gives_out_whole_chunks_and_small_files_under_their_own_ids_alone() {
    let lab = Lab::new(61);
    let done = lab.backup(&twins(), None);
    let reader = lab.reader(&done);
    let refused = |entry: &Entry| {
        let sink = Files::default();
        sink.content.lock().unwrap().insert(0, vec![0; entry.size() as usize]);
        run(reader.frames(), SMALL, &Gauge::default(), &sink, |feed| {
            wants(&reader, 0, entry, |want| feed.push(want));
        });
        let told = sink.failed.into_inner().unwrap();
        assert_eq!(told, [(0, ReadError::WrongContent.to_string())].into());
        assert_eq!(*sink.bytes.lock().unwrap(), 0, "wrong bytes were given out");
    };
    let mut large = reader.get(b"d/large00").unwrap().unwrap();
    let EntryKind::File { size, content: Content::Pieces { pieces, .. } } = &mut large.kind else {
        panic!("pieces")
    };
    let Some(vault::tree::Piece::Data { length, .. }) = pieces.last_mut() else { panic!("data") };
    *length -= 1;
    *size -= 1;
    refused(&large);
    for change in 0..2 {
        let mut small = reader.get(b"d/small003").unwrap().unwrap();
        let EntryKind::File { content: Content::Bundled { offset, file, .. }, .. } =
            &mut small.kind
        else {
            panic!("bundled")
        };
        if change == 0 {
            file.0[3] ^= 1;
        } else {
            *offset ^= 1;
        }
        refused(&small);
    }
}

/// Two copies of every pack, rotten in different frames; the directory of the first has gone too.
struct TwoCopies {
    copies: [BTreeMap<Sha256, Vec<u8>>; 2],
    preferred: Mutex<BTreeMap<Sha256, u8>>,
}

impl TwoCopies {
    fn of(lab: &Lab) -> Self {
        let packs = lab.bucket.packs.lock().unwrap();
        let copy = |rotten: usize| {
            let spoiled = |pack: &SealedPack| {
                let mut bytes = pack.bytes.joined().to_vec();
                if rotten == 0 {
                    bytes[HEADER_LEN + 10] ^= 1;
                }
                let first = pack.directory.frames_at(bytes.len() as u64).unwrap();
                for at in (0..pack.directory.len()).filter(|at| *at as usize % 2 == rotten) {
                    bytes[(first + pack.directory.offset(at)) as usize + 8] ^= 1;
                }
                (pack.sha256, bytes)
            };
            packs.values().map(spoiled).collect()
        };
        Self { copies: [copy(0), copy(1)], preferred: Mutex::default() }
    }
}

impl PackSource for TwoCopies {
    fn read(&self, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        let place = self.preferred.lock().unwrap().get(&pack.sha256).copied();
        self.read_at(place.unwrap_or(0), pack, range)
    }
    fn places(&self, _: &PackRef) -> u8 {
        2
    }
    fn read_at(&self, place: u8, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        let bytes = &self.copies[usize::from(place)][&pack.sha256];
        Ok(Bytes::copy_from_slice(&bytes[range.start as usize..range.end as usize]))
    }
    fn prefer(&self, place: u8, pack: &PackRef) {
        self.preferred.lock().unwrap().insert(pack.sha256, place);
    }
}

#[test]
fn of_two_copies_that_rotted_in_different_places_everything_comes_back() {
    let lab = Lab::new(66);
    let tree = twins();
    let done = lab.backup(&tree, None);
    let set = resolve(&done.chain).unwrap();
    let reader = || {
        let (keys, source) = (Arc::clone(&lab.keys), Arc::new(TwoCopies::of(&lab)));
        Reader::open(&done.chain[0].manifest, &set, keys, source, None)
    };
    assert_same(&reader(), &tree);
    assert_restores(&reader(), &tree);
}

#[test]
fn a_lost_pack_costs_what_was_in_it_and_nothing_else() {
    let lab = Lab::new(62);
    let tree = twins();
    let done = lab.backup(&tree, None);
    let packs: Vec<_> = lab.bucket.packs.lock().unwrap().values().cloned().collect();
    let mut lost_files = 0;
    for lost in packs.iter().filter(|pack| pack.kind == PackKind::Data) {
        lab.bucket.packs.lock().unwrap().remove(&lost.sha256);
        let holds = |entry: &Entry| {
            let EntryKind::File { content, .. } = &entry.kind else { return false };
            let ids: Vec<ChunkId> = match content {
                Content::Empty => Vec::new(),
                Content::Bundled { bundle, .. } => vec![*bundle],
                Content::Pieces { pieces, .. } => {
                    let data = |piece: &_| match piece {
                        vault::tree::Piece::Data { id, .. } => Some(*id),
                        vault::tree::Piece::Hole { .. } => None,
                    };
                    pieces.iter().filter_map(data).collect()
                }
            };
            ids.iter().any(|id| lost.directory.frames.iter().any(|frame| frame.id == *id))
        };
        let whole = lab.reader(&done);
        for entry in whole.entries().unwrap().map(Result::unwrap).filter(Entry::is_file) {
            // A reader of its own, so that nothing is known from the files before.
            let read = lab.reader(&done).read_file(&entry, &mut Vec::new());
            if holds(&entry) {
                let missing = matches!(
                    read,
                    Err(ReadError::Source { pack, source: SourceError::Missing }) if pack == lost.sha256
                );
                assert!(missing, "{read:?}");
                lost_files += 1;
            } else {
                read.unwrap();
            }
        }
        lab.bucket.emit(lost.clone()).unwrap();
    }
    assert!(lost_files > 0);
}

/// A pack of hand-made nodes, in a snapshot of its own; the last node is the root.
fn hand_made(lab: &Lab, nodes: &[Vec<u8>], level: u8, entries: u64) -> Reader {
    let ids = IdKeys::of(&lab.keys);
    let header = Header {
        kind: PackKind::Meta,
        tenant: lab.keys.tenant(),
        vault: lab.keys.vault(),
        epoch: 1,
        agent: lab.agent,
        session: lab.session(),
        seq: 0,
        salt: [0; 32],
        commitment: [0; 32],
    };
    let mut pack = PackBuilder::new(header, lab.keys.epoch(1).unwrap(), &*lab.ids);
    let mut used = FrameBitmap::default();
    for (at, node) in (0_u32..).zip(nodes) {
        let ticket =
            pack.reserve(FrameKind::Node, ids.chunk(FrameKind::Node, node), Vec::new(), node.len());
        pack.place(ticket.seal(Codec::Raw, node, node, &mut Decoder::default()).unwrap());
        used.insert(at);
    }
    let pack = pack.finish().unwrap();
    let reference = PackRef {
        id: PackId::fresh(&*lab.ids, lab.now),
        kind: PackKind::Meta,
        sha256: pack.sha256,
        length: pack.bytes.len() as u64,
        version_id: String::new(),
        frames: Directory::len(&pack.directory),
        used,
    };
    lab.bucket.emit(pack).unwrap();
    let node = ids.chunk(FrameKind::Node, nodes.last().unwrap());
    let root = Root { node, level, entries };
    let set = PackSet(BTreeMap::from([(reference.id, reference)]));
    let source = Arc::clone(&lab.bucket) as Arc<dyn PackSource>;
    Reader::at(root, node, &set, Arc::clone(&lab.keys), source, None)
}

fn leaf(key: &[u8]) -> Vec<u8> {
    let entry = Entry::new(Vec::new(), EntryKind::Directory).encode();
    let mut out = Writer::new();
    out.array(4).uint(0_u8).uint(0_u8).bytes(key).bytes(&entry);
    out.into_bytes()
}

/// An inner node that names one node under keys `first`, `first` + 1, ….
fn fan(level: u8, below: &ChunkId, children: u8, entries: u64) -> Vec<u8> {
    let mut out = Writer::new();
    out.array(1 + 4 * usize::from(children)).uint(level);
    for child in 0..children {
        // "\0a", "\0b", …: the first byte is shared with the key before.
        let key = [0, b'a' + child];
        let shared = u8::from(child > 0);
        out.uint(shared).bytes(&key[usize::from(shared)..]).bytes(&below.0).uint(entries);
    }
    out.into_bytes()
}

/// Every node of level n names the only node of level n-1 `width` times.
fn bomb(lab: &Lab, width: u8, levels: u8) -> Reader {
    let ids = IdKeys::of(&lab.keys);
    let mut nodes = vec![leaf(b"\0a")];
    for level in 1..=levels {
        let below = ids.chunk(FrameKind::Node, nodes.last().unwrap());
        nodes.push(fan(level, &below, width, 1));
    }
    hand_made(lab, &nodes, levels, 1)
}

fn has_tree_problem(report: &verify::Report) -> bool {
    report.problems.iter().any(|problem| matches!(problem, Problem::Tree { .. }))
}

#[test]
fn a_tree_that_names_a_node_again_and_again_is_found_out_at_the_first_repetition() {
    let lab = Lab::new(63);
    // Small enough to count to its end: this is 2^12 entries, of which the root admits one.
    let reader = bomb(&lab, 2, 12);
    let report = verify::quick(&reader);
    assert!(report.entries <= 1, "{} entries", report.entries);
    assert!(has_tree_problem(&report), "{:?}", report.problems);
    let walked = reader.entries().unwrap().collect::<Vec<_>>();
    assert!(walked.len() <= 2 && walked.last().is_some_and(Result::is_err), "{}", walked.len());
}

#[test]
fn a_tree_bomb_of_sixteen_levels_ends_at_once() {
    let lab = Lab::new(64);
    let reader = bomb(&lab, 25, 16);
    assert!(has_tree_problem(&verify::quick(&reader)));
    assert!(has_tree_problem(&verify::deep(&reader, |_| ())));
    assert!(reader.entries().unwrap().last().unwrap().is_err());
}

#[test]
fn a_tree_bomb_whose_leaves_are_lost_ends_at_once() {
    let lab = Lab::new(65);
    let mut nodes = Vec::new();
    let ids = IdKeys::of(&lab.keys);
    let mut below = ids.chunk(FrameKind::Node, &leaf(b"\0a"));
    for level in 1..=16 {
        nodes.push(fan(level, &below, 25, 1));
        below = ids.chunk(FrameKind::Node, nodes.last().unwrap());
    }
    let reader = hand_made(&lab, &nodes, 16, 1);
    let walked = reader.entries().unwrap().collect::<Vec<_>>();
    assert!((1..100).contains(&walked.len()), "{}", walked.len());
    assert!(walked.iter().all(Result::is_err));
    assert!(has_tree_problem(&verify::quick(&reader)));
}

#[test]
fn a_node_of_another_level_and_a_wrong_count_are_found() {
    let lab = Lab::new(65);
    let ids = IdKeys::of(&lab.keys);
    let bottom = leaf(b"\0a");
    let below = ids.chunk(FrameKind::Node, &bottom);
    // Level 1 says it is level 3, and the root agrees with nobody.
    let skipping = hand_made(&lab, &[bottom.clone(), fan(3, &below, 1, 1)], 3, 1);
    assert!(has_tree_problem(&verify::quick(&skipping)));
    let disguised = hand_made(&lab, &[bottom.clone(), fan(1, &below, 1, 1)], 2, 1);
    assert!(has_tree_problem(&verify::quick(&disguised)));
    for (said, counted) in [(1, 7), (7, 7), (7, 1)] {
        let counts = hand_made(&lab, &[bottom.clone(), fan(1, &below, 1, counted)], 1, said);
        assert!(has_tree_problem(&verify::quick(&counts)), "{said} {counted}");
    }
    // A child's key is the first one below it.
    let moved = hand_made(
        &lab,
        &[leaf(b"\0b"), fan(1, &ids.chunk(FrameKind::Node, &leaf(b"\0b")), 1, 1)],
        1,
        1,
    );
    assert!(has_tree_problem(&verify::quick(&moved)));
}
