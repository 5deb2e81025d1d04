//! No flipped bit, missing byte or misplaced part of any object goes unnoticed.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use domain::{PackId, RunId, SnapshotId};
use vault::{
    backup::PackSink as _,
    compress::Codec,
    id::{FrameKind, IdKeys, Sha256},
    keys::{KitVault, Recipient, RecipientKind, RecoveryKit, Roster, VaultKeys, Wrap},
    manifest::{FrameBitmap, ManifestError, PackRef, PackSet, SignedManifest},
    pack::{Decoder, Header, OpenPack, PackBuilder, PackError, PackKind, SealedPack},
    receipt::{ForgetRecord, Receipt},
    seal::{FrameCounter, PackKeys},
    snapshot::{Frames, PackSource, ReadError},
    tree::Entry,
    verify,
};

use crate::common::{Done, Lab, Tree, dir, file, noise, read_back};

fn small() -> Tree {
    let mut tree: Tree = [dir(""), dir("d")].into();
    tree.extend([file("d/a", "first file"), file("d/b", "second file".repeat(9))]);
    tree.extend([file("d/c", noise(3, 70_000))]);
    tree
}

fn packs(lab: &Lab) -> Vec<SealedPack> {
    lab.bucket.packs.lock().unwrap().values().cloned().collect()
}

fn check(lab: &Lab, kind: PackKind, bytes: &[u8]) -> Result<(), PackError> {
    let ids = IdKeys::of(&lab.keys);
    OpenPack::check_whole(&lab.keys, &ids, kind, bytes).map(drop)
}

#[test]
fn every_flipped_bit_of_a_pack_is_found_without_its_hash() {
    let lab = Lab::new(10);
    lab.backup(&small(), None);
    for pack in packs(&lab) {
        check(&lab, pack.kind, &pack.bytes.joined()).unwrap();
        let mut bytes = pack.bytes.to_vec();
        // Every byte of the small pack, every 61st of the larger one; another bit each time.
        let step = if bytes.len() < 20_000 { 1 } else { 61 };
        for at in (0..bytes.len()).step_by(step) {
            bytes[at] ^= 1 << (at % 8);
            assert!(check(&lab, pack.kind, &bytes).is_err(), "byte {at} of {:?}", pack.kind);
            bytes[at] ^= 1 << (at % 8);
        }
    }
}

#[test]
fn every_truncation_and_extension_of_a_pack_is_found() {
    let lab = Lab::new(11);
    lab.backup(&small(), None);
    for pack in packs(&lab) {
        let length = pack.bytes.len();
        for cut in (0..length).step_by(if length < 20_000 { 17 } else { 997 }) {
            assert!(check(&lab, pack.kind, &pack.bytes.joined()[..cut]).is_err());
        }
        let mut longer = pack.bytes.to_vec();
        longer.push(0);
        assert!(check(&lab, pack.kind, &longer).is_err());
    }
}

#[test]
fn a_damaged_pack_gives_right_bytes_or_an_error_never_wrong_bytes() {
    let lab = Lab::new(12);
    let done = lab.backup(&small(), None);
    let right = read_back(&lab.reader(&done));
    for pack in packs(&lab) {
        for at in (0..pack.bytes.len()).step_by(101) {
            let mut bytes = pack.bytes.to_vec();
            bytes[at] ^= 0x40;
            let damaged = SealedPack { bytes: bytes.into(), ..pack.clone() };
            lab.bucket.packs.lock().unwrap().insert(pack.sha256, damaged);
            let reader = lab.reader(&done);
            // An error at the root is an error as it should be.
            let entries = reader.entries().into_iter().flatten().filter_map(Result::ok);
            for entry in entries.filter(vault::tree::Entry::is_file) {
                let mut content = Vec::new();
                if reader.read_file(&entry, &mut content).is_ok() {
                    let key = vault::tree::path::key(&entry.path).unwrap();
                    assert_eq!(content, right[&key].1);
                }
            }
            assert!(!verify::deep(&reader, |_| ()).is_clean(), "byte {at}");
        }
        lab.bucket.emit(pack.clone()).unwrap();
    }
    assert!(verify::deep(&lab.reader(&done), |_| ()).is_clean());
}

#[test]
fn a_pack_survives_the_loss_of_its_front_or_of_its_end() {
    let lab = Lab::new(13);
    let done = lab.backup(&small(), None);
    let right = read_back(&lab.reader(&done));
    for pack in packs(&lab) {
        for range in [0..200, pack.bytes.len() - 300..pack.bytes.len()] {
            let mut bytes = pack.bytes.to_vec();
            bytes[range].fill(0xaa);
            let damaged = SealedPack { bytes: bytes.into(), ..pack.clone() };
            lab.bucket.packs.lock().unwrap().insert(pack.sha256, damaged);
            assert_eq!(read_back(&lab.reader(&done)), right);
        }
        lab.bucket.emit(pack).unwrap();
    }
}

#[test]
fn what_stands_before_a_packs_early_end_is_read() {
    // Packs that are read whole, and one of several windows.
    for length in [0, 900_000] {
        let lab = Lab::new(20);
        let mut tree = small();
        tree.extend([file("e", noise(4, length))]);
        let done = lab.backup(&tree, None);
        let right = read_back(&lab.reader(&done));
        for pack in packs(&lab) {
            let bytes = pack.bytes.to_vec();
            // Neither holds more than lists and an end.
            for cut in [1, 300] {
                let bytes = bytes[..bytes.len() - cut].to_vec().into();
                let cut = SealedPack { bytes, ..pack.clone() };
                lab.bucket.packs.lock().unwrap().insert(pack.sha256, cut);
                assert_eq!(read_back(&lab.reader(&done)), right);
                assert!(!verify::deep(&lab.reader(&done), |_| ()).is_clean());
            }
            lab.bucket.emit(pack).unwrap();
        }
    }
}

/// Entries by path, and what is lost: from where, up to where.
type Walked = (Vec<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn walk(walk: impl Iterator<Item = Result<Entry, ReadError>>) -> Walked {
    let mut walked = Walked::default();
    for item in walk {
        match item {
            Ok(entry) => walked.0.push(entry.path),
            Err(ReadError::Stretch { from, until, .. }) => walked.1.push((from, until)),
            Err(other) => panic!("{other}"),
        }
    }
    walked
}

#[test]
fn a_lost_node_takes_its_own_entries_and_no_others() {
    let lab = Lab::new(21);
    let files = |folder: &'static str| {
        (0..2_000).map(move |n| file(&format!("{folder}/some-file-{n:04}"), format!("{n}")))
    };
    let mut tree: Tree = [dir(""), dir("a"), dir("b")].into();
    tree.extend(files("a").chain(files("b")));
    let done = lab.backup(&tree, None);
    let (all, lost) = walk(lab.reader(&done).entries().unwrap());
    assert!(all.len() == tree.len() && lost.is_empty());
    let meta = packs(&lab).into_iter().find(|pack| pack.kind == PackKind::Meta).unwrap();
    let opened = open(&lab, &meta);
    let nodes = opened.directory.frames.iter().filter(|frame| frame.kind == FrameKind::Node);
    let (count, root) = (nodes.count(), done.finished.root.node);
    assert!(count > 10, "{count} nodes");
    let mut told = BTreeSet::new();
    for (at, frame) in (0..).zip(&opened.directory.frames) {
        if frame.kind != FrameKind::Node {
            continue;
        }
        let mut bytes = meta.bytes.to_vec();
        bytes[opened.range(at).unwrap().start as usize + 20] ^= 1;
        let damaged = SealedPack { bytes: bytes.into(), ..meta.clone() };
        lab.bucket.packs.lock().unwrap().insert(meta.sha256, damaged);
        let reader = lab.reader(&done);
        assert_eq!(frame.id == root, reader.entries().is_err());
        let report = verify::quick(&reader);
        assert!(!report.is_clean());
        if frame.id == root {
            continue;
        }
        // What is said to be lost and what is there are all there was.
        let (there, lost) = walk(reader.entries().unwrap());
        let [(from, until)] = &lost[..] else { panic!("{lost:?}") };
        let from = all.iter().position(|path| path == from).unwrap();
        let until = until.as_ref().map(|path| all.iter().position(|at| at == path).unwrap());
        let missing = from..until.unwrap_or(all.len());
        assert!(!missing.is_empty() && there.len() + missing.len() == all.len());
        assert_eq!(there, [&all[..missing.start], &all[missing.end..]].concat());
        assert_eq!(report.entries as usize, there.len());
        // A folder says so if it is its own.
        for folder in ["a", "b"] {
            let (there, lost) = walk(reader.walk(folder.as_bytes()).unwrap());
            assert_eq!(
                walk(reader.list_dir(folder.as_bytes(), None).unwrap()),
                (there.clone(), lost.clone())
            );
            let below = |path: &Vec<u8>| path.starts_with(format!("{folder}/").as_bytes());
            let touches = all[missing.clone()].iter().any(below);
            assert_eq!(lost.len(), usize::from(touches));
            assert_eq!(there.len() == 2_000, !touches);
        }
        told.insert(lost);
    }
    // Each of them, the first and the last included.
    assert_eq!(told.len(), count - 1);
    assert!(told.iter().any(|lost| lost[0].0.is_empty()));
    assert!(told.iter().any(|lost| lost[0].1.is_none()));
}

/// Every third entry of the pack's nodes stands; what is lost in a row is told once.
#[test]
fn lost_nodes_in_a_row_are_one_stretch() {
    let lab = Lab::new(22);
    let mut tree: Tree = [dir(""), dir("a"), dir("b")].into();
    for folder in ["a", "b"] {
        tree.extend(
            (0..3_000).map(|n| file(&format!("{folder}/some-file-{n:04}"), format!("{n}"))),
        );
    }
    let done = lab.backup(&tree, None);
    let (all, _) = walk(lab.reader(&done).entries().unwrap());
    let meta = packs(&lab).into_iter().find(|pack| pack.kind == PackKind::Meta).unwrap();
    let opened = open(&lab, &meta);
    let frames = (0..).zip(&opened.directory.frames).map(|(at, frame)| (at, frame.kind, frame.id));
    let root = done.finished.root.node;
    let nodes: Vec<u32> = frames
        .filter(|(_, kind, id)| *kind == FrameKind::Node && *id != root)
        .map(|(at, ..)| at)
        .collect();
    for stands in [2, 3, 5, usize::MAX] {
        let mut bytes = meta.bytes.to_vec();
        for (number, node) in nodes.iter().enumerate() {
            if number % stands != stands - 1 {
                bytes[opened.range(*node).unwrap().start as usize + 20] ^= 1;
            }
        }
        let damaged = SealedPack { bytes: bytes.into(), ..meta.clone() };
        lab.bucket.packs.lock().unwrap().insert(meta.sha256, damaged);
        let reader = lab.reader(&done);
        let (there, lost) = walk(reader.entries().unwrap());
        let place = |path: &Vec<u8>| all.iter().position(|at| at == path).unwrap();
        let mut expected = Vec::new();
        let mut at = 0;
        for (from, until) in &lost {
            let from = place(from);
            assert!(from > at || at == 0, "something stands between two stretches");
            expected.extend_from_slice(&all[at..from]);
            at = until.as_ref().map_or(all.len(), place);
            assert!(at > from);
        }
        expected.extend_from_slice(&all[at..]);
        assert_eq!(there, expected, "one in {stands} stands");
        assert_eq!(lost.len() == 1, stands == usize::MAX, "{lost:?}");
        let report = verify::quick(&reader);
        assert_eq!(report.entries as usize, there.len());
        // What of another folder is lost is not this one's.
        let (below, lost) = walk(reader.list_dir(b"a", None).unwrap());
        let ours = |path: &Vec<u8>| path.starts_with(b"a/");
        assert_eq!(below, there.iter().filter(|path| ours(path)).cloned().collect::<Vec<_>>());
        assert!(lost.iter().all(|(from, _)| ours(from) || from < &b"a/".to_vec()), "{lost:?}");
    }
}

#[test]
fn frames_cannot_be_swapped_and_packs_cannot_be_spliced() {
    let lab = Lab::new(14);
    let mut tree = small();
    tree.extend([file("d/e", noise(5, 70_000))]);
    lab.backup(&tree, None);
    let all = packs(&lab);
    let pack = all.iter().find(|pack| pack.kind == PackKind::Data).unwrap();
    let open = open(&lab, pack);
    // Two frames of one length (noise is stored raw) change places.
    let (a, b) = (0..pack.directory.len())
        .flat_map(|a| (0..a).map(move |b| (a, b)))
        .find(|(a, b)| {
            let length = |at: u32| pack.directory.frames[at as usize].sealed_len;
            length(*a) == length(*b)
        })
        .unwrap();
    let (ra, rb) = (open.range(a).unwrap(), open.range(b).unwrap());
    let cut = |r: &std::ops::Range<u64>| r.start as usize..r.end as usize;
    let mut swapped = pack.bytes.to_vec();
    swapped[cut(&ra)].copy_from_slice(&pack.bytes.joined()[cut(&rb)]);
    swapped[cut(&rb)].copy_from_slice(&pack.bytes.joined()[cut(&ra)]);
    assert_eq!(check(&lab, pack.kind, &swapped), Err(PackError::Frame));
    // A metadata pack is no data pack, and the other way round.
    assert_eq!(check(&lab, PackKind::Meta, &pack.bytes.joined()), Err(PackError::Foreign));
    // Session, agent, sequence number, epoch: every field of the header is in the key.
    for at in [47, 50, 70, 87] {
        let mut moved = pack.bytes.to_vec();
        let length = moved.len();
        moved[at] ^= 1;
        moved[length - 176 + at] ^= 1;
        assert!(matches!(
            check(&lab, pack.kind, &moved),
            Err(PackError::Commitment | PackError::NoKey)
        ));
    }
}

fn open(lab: &Lab, pack: &SealedPack) -> OpenPack {
    let read = |range: std::ops::Range<u64>| -> Result<Bytes, PackError> {
        Ok(pack.bytes.joined().slice(range.start as usize..range.end as usize))
    };
    OpenPack::open(&lab.keys, pack.kind, pack.bytes.len() as u64, None, read).unwrap()
}

#[test]
fn a_pack_of_another_vault_or_key_is_refused() {
    let (lab, other) = (Lab::new(15), Lab::new(16));
    lab.backup(&small(), None);
    other.backup(&small(), None);
    let pack = packs(&lab).remove(0);
    assert_eq!(check(&other, pack.kind, &pack.bytes.joined()), Err(PackError::Foreign));
    // The same vault under another key: the commitment says so before anything is decrypted.
    let keys = VaultKeys::generate(lab.keys.tenant(), lab.keys.vault(), &*other.ids);
    let ids = IdKeys::of(&keys);
    let refused = OpenPack::check_whole(&keys, &ids, pack.kind, &pack.bytes.joined());
    assert_eq!(refused.err(), Some(PackError::Commitment));
}

#[test]
fn a_manifest_that_names_packs_of_another_session_does_not_read_them() {
    let lab = Lab::new(17);
    let done = lab.backup(&small(), None);
    // Somebody stores one pack under the name of another.
    let all = packs(&lab);
    let stolen = SealedPack { bytes: all[1].bytes.clone(), ..all[0].clone() };
    lab.bucket.packs.lock().unwrap().insert(all[0].sha256, stolen);
    let reader = lab.reader(&done);
    let read: Result<Vec<_>, ReadError> = reader.entries().and_then(Iterator::collect);
    let contents = read.map(|entries| {
        entries
            .iter()
            .filter(|e| e.is_file())
            .map(|e| reader.read_file(e, &mut Vec::new()))
            .collect()
    });
    assert!(!contents.is_ok_and(|all: Result<Vec<()>, _>| all.is_ok()));
}

fn flips(bytes: &[u8], refused: impl Fn(&[u8]) -> bool) {
    let mut copy = bytes.to_vec();
    for at in 0..copy.len() {
        copy[at] ^= 1 << (at % 8);
        assert!(refused(&copy), "flip in byte {at} of {} went unnoticed", copy.len());
        copy[at] ^= 1 << (at % 8);
    }
    for cut in 0..bytes.len() {
        assert!(refused(&bytes[..cut]), "cut at {cut}");
    }
}

#[test]
fn every_flipped_bit_of_a_signed_object_is_found() {
    let lab = Lab::new(18);
    let Done { object, chain, .. } = lab.backup(&small(), None);
    let roster = lab.roster();
    flips(&object, |bytes| {
        !SignedManifest::decode(chain[0].id, bytes).is_ok_and(|m| m.verify(&roster).is_ok())
    });
    flips(&lab.roster, |bytes| Roster::open(bytes, &[lab.root.authority()]).is_err());
    let key = lab.agent_keys.signing_key();
    let public = key.verifying_key().to_bytes();
    let receipt = receipt(&lab, &chain[0]);
    assert_eq!(Receipt::open(&receipt.sign(&key), &public).unwrap(), receipt);
    flips(&receipt.sign(&key), |bytes| Receipt::open(bytes, &public).is_err());
    let record = ForgetRecord {
        tenant: receipt.tenant,
        vault: receipt.vault,
        snapshot: receipt.snapshot,
        manifest: receipt.manifest,
        manifest_sha256: receipt.manifest_sha256,
        forgotten_at: lab.now,
        by: "rule".into(),
        reason: "expired".into(),
    };
    assert_eq!(ForgetRecord::open(&record.sign(&key), &public).unwrap(), record);
    flips(&record.sign(&key), |bytes| ForgetRecord::open(bytes, &public).is_err());
    // A signature for one kind of object is none for another.
    assert!(Receipt::open(&record.sign(&key), &public).is_err());
    assert!(SignedManifest::decode(chain[0].id, &receipt.sign(&key)).is_err());
}

fn receipt(lab: &Lab, manifest: &SignedManifest) -> Receipt {
    Receipt {
        tenant: lab.keys.tenant(),
        vault: lab.keys.vault(),
        workload: lab.workload,
        agent: lab.agent,
        run: RunId::fresh(&*lab.ids, lab.now),
        session: lab.session(),
        fence: 9,
        snapshot: SnapshotId::fresh(&*lab.ids, lab.now),
        manifest: manifest.id,
        manifest_sha256: manifest.sha256,
        manifest_version: "v1".into(),
        committed_at: lab.now,
        protect_until: lab.now,
    }
}

#[test]
fn every_flipped_bit_of_a_wrap_or_descriptor_is_found() {
    let lab = Lab::new(19);
    let recipient = lab.agent_keys.recipient(lab.agent);
    let wrap = lab.keys.wrap_for(1, recipient, &*lab.ids).unwrap();
    let opens = |bytes: &[u8]| {
        let wrap = Wrap::decode(bytes);
        wrap.is_ok_and(|wrap| {
            VaultKeys::open([&wrap], &recipient, lab.agent_keys.hpke_secret()).is_ok()
        })
    };
    assert!(opens(&wrap.encode()));
    flips(&wrap.encode(), |bytes| !opens(bytes));
    let roster = lab.roster();
    flips(&lab.descriptor.encode(), |bytes| {
        let descriptor = vault::descriptor::VaultDescriptor::decode(bytes);
        !descriptor.is_ok_and(|descriptor| roster.check_descriptor(&descriptor).is_ok())
    });
}

#[test]
fn a_kit_opens_its_vault_and_any_changed_character_of_it_is_found() {
    let lab = Lab::new(20);
    let wrap = lab.keys.wrap_for(1, lab.root.recipient(), &*lab.ids).unwrap();
    let vault = KitVault {
        vault: lab.keys.vault(),
        descriptor: lab.descriptor.clone(),
        roster: lab.roster.clone(),
        wraps: vec![wrap],
    };
    let Lab { root, keys, now, .. } = lab;
    let kit = RecoveryKit {
        tenant: keys.tenant(),
        created: now,
        root,
        vaults: vec![vault],
        platform_roster_key: None,
        receipt_key: Some([7; 32]),
        location: [("bucket".to_owned(), "backups".to_owned())].into(),
    };
    let text = kit.to_json().unwrap();
    let read = RecoveryKit::from_json(&text).unwrap();
    let opened = read.rehearse().unwrap();
    assert_eq!(opened[0].vault(), keys.vault());
    assert_eq!(IdKeys::of(&opened[0]).file(b"x"), IdKeys::of(&keys).file(b"x"));
    // Characters of the text for people may change; everything else is covered.
    let body = text.find("\"checksum\"").unwrap();
    let bytes = text.as_bytes();
    for at in (body..bytes.len()).filter(|at| !bytes[*at].is_ascii_whitespace()) {
        let mut changed = bytes.to_vec();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let same =
            String::from_utf8(changed).is_ok_and(|text| RecoveryKit::from_json(&text).is_ok());
        assert!(!same, "character {at}: {}", &text[at.saturating_sub(20)..at + 1]);
    }
}

#[test]
fn a_wrap_opens_for_its_recipient_alone() {
    let lab = Lab::new(21);
    let other = vault::keys::AgentKeys::generate(&*lab.ids);
    let mine = lab.agent_keys.recipient(lab.agent);
    let wrap = lab.keys.wrap_for(1, mine, &*lab.ids).unwrap();
    assert!(VaultKeys::open([&wrap], &mine, other.hpke_secret()).is_err());
    assert!(VaultKeys::open([&wrap], &other.recipient(lab.agent), other.hpke_secret()).is_err());
    let low_order = Recipient::keyed(RecipientKind::Platform, [0; 32]);
    assert!(lab.keys.wrap_for(1, low_order, &*lab.ids).is_err());
    assert!(lab.keys.wrap_for(2, mine, &*lab.ids).is_err());
}

#[test]
fn a_manifest_of_an_agent_that_is_not_on_the_roster_is_refused() {
    let (lab, mallory) = (Lab::new(22), Lab::new(23));
    let done = lab.backup(&small(), None);
    let manifest = &done.chain[0].manifest;
    let forged = manifest.sign(&mallory.agent_keys.signing_key());
    let forged = SignedManifest::decode(PackId::fresh(&*lab.ids, lab.now), &forged).unwrap();
    assert_eq!(forged.verify(&lab.roster()).err(), Some(ManifestError::Untrusted));
    assert_eq!(done.chain[0].verify(&mallory.roster()).err(), Some(ManifestError::Foreign));
}

#[test]
fn no_salt_and_no_nonce_is_used_twice() {
    let lab = Lab::new(24);
    let mut tree = small();
    let mut last = lab.backup(&tree, None);
    for n in 0..6 {
        tree.extend([file(&format!("d/new{n}"), noise(100 + n, 1_500_000))]);
        last = lab.increment(&tree, &last);
    }
    let mut salts = BTreeSet::new();
    let mut ciphertexts = BTreeSet::new();
    for pack in packs(&lab) {
        assert_eq!(pack.sha256, Sha256::of(&pack.bytes.joined()));
        assert!(salts.insert(open(&lab, &pack).header.salt), "a salt came twice");
        // Equal first blocks of frames would betray an equal key stream over equal plaintext heads.
        let open = open(&lab, &pack);
        for index in 0..pack.directory.len() {
            let start = open.range(index).unwrap().start as usize;
            // Codec and raw length are the first five bytes; with the next eleven a clash is no accident.
            assert!(ciphertexts.insert(pack.bytes.joined()[start..start + 16].to_vec()));
        }
    }
    assert!(salts.len() > 10 && last.reread == 1);
}

#[test]
fn a_frame_that_is_not_what_its_id_says_is_refused_even_from_a_holder_of_the_key() {
    let lab = Lab::new(25);
    let ids = IdKeys::of(&lab.keys);
    let header = Header {
        kind: PackKind::Data,
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
    let (said, sealed) =
        (b"what the index promises".as_slice(), b"what a bad member sealed".as_slice());
    let id = ids.chunk(FrameKind::Chunk, said);
    let ticket = pack.reserve(FrameKind::Chunk, id, Vec::new(), sealed.len());
    pack.place(ticket.seal(Codec::Raw, sealed, sealed, &mut Decoder::default()).unwrap());
    let pack = pack.finish().unwrap();
    assert_eq!(check(&lab, PackKind::Data, &pack.bytes.joined()), Err(PackError::WrongId));
    let reference = PackRef {
        id: PackId::fresh(&*lab.ids, lab.now),
        kind: PackKind::Data,
        sha256: pack.sha256,
        length: pack.bytes.len() as u64,
        version_id: String::new(),
        frames: pack.directory.len(),
        used: FrameBitmap::default(),
    };
    lab.bucket.emit(pack).unwrap();
    let set = PackSet([(reference.id, reference)].into());
    let source = Arc::clone(&lab.bucket) as Arc<dyn PackSource>;
    let frames = Frames::new(Arc::clone(&lab.keys), &set, source, None);
    let read = frames.frame(FrameKind::Chunk, &id);
    assert!(matches!(read, Err(ReadError::WrongId(wrong)) if wrong == id));
}

#[test]
fn two_frames_of_a_pack_never_share_a_key_stream() {
    let keys = PackKeys::derive(&[1; 32], &[2; 32], &[3; 80]);
    let mut counter = FrameCounter::new();
    let mut sealed = BTreeSet::new();
    for _ in 0..1_000 {
        let mut frame = vec![0; 64];
        keys.seal_frame(counter.next_number(), b"", &mut frame);
        assert!(sealed.insert(frame[..16].to_vec()), "the key stream repeats");
    }
    let [a, b] = keys.seal_directories(counter, [(b"", vec![0; 64]), (b"", vec![0; 64])]);
    assert!(sealed.insert(a[..16].to_vec()) && sealed.insert(b[..16].to_vec()));
}

#[test]
fn of_a_long_list_of_lost_files_the_first_are_named_and_all_are_counted() {
    const FILES: usize = 11_000;
    let lab = Lab::new(19);
    let tree = (0..FILES).map(|n| file(&format!("f{n:05}"), format!("{n}")));
    let done = lab.backup(&tree.chain([dir("")]).collect(), None);
    lab.bucket.packs.lock().unwrap().retain(|_, pack| pack.kind == PackKind::Meta);
    let report = verify::quick(&lab.reader(&done));
    let lost = report.problems.iter().filter(|p| matches!(p, verify::Problem::Content { .. }));
    let packs = report.problems.len() - lost.count();
    assert_eq!((report.problems.len(), packs), (10_000, 1));
    assert_eq!(report.unlisted as usize, FILES + packs - 10_000);
    assert!(!report.is_clean());
}
