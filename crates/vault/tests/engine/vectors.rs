//! Golden vectors: `tests/vectors/` holds a small vault as it must be, byte for byte.
//!
//! `EVERHOLD_WRITE_VECTORS=1` writes them anew, which is a change of format and needs a new version. The
//! independent decoder in `tests/decoder` reads the same files.

use std::{collections::BTreeMap, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use domain::{IdGen as _, RunId, SnapshotId};
use serde_json::{Value, json};
use vault::{
    chunk::{Chunker, Gear},
    descriptor::{Chunking, PackSizes},
    id::{FrameKind, IdKeys, Sha256},
    keys::{KitVault, RecoveryKit},
    layout::{self, ObjectKind},
    receipt::Receipt,
    seal::PackKeys,
    tree::{Entry, EntryKind, Xattr, path},
};

use crate::common::{Lab, Source, Tree, dir, file, noise};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

/// Compares with the file, or writes it.
#[expect(clippy::disallowed_methods, reason = "asked by hand only: write the vectors anew")]
fn golden(name: &str, found: &Value) {
    let path = folder().join(name);
    let text = serde_json::to_string_pretty(found).unwrap() + "\n";
    if std::env::var("EVERHOLD_WRITE_VECTORS").is_ok() {
        std::fs::create_dir_all(folder()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(text == expected, "{name} differs: the format changed");
}

#[test]
fn primitives_are_those_of_the_vectors() {
    let secret = [7; 32];
    let ids = IdKeys::new(&secret);
    let kinds = [FrameKind::Chunk, FrameKind::Bundle, FrameKind::Node, FrameKind::List];
    let named = |bytes: &[u8]| {
        let by_kind = kinds.map(|kind| json!([kind.code(), ids.chunk(kind, bytes).to_string()]));
        json!({"plaintext": hex::encode(bytes), "ids": by_kind, "file": ids.file(bytes).to_string()})
    };
    let keys = PackKeys::derive(&[8; 32], &[9; 32], &[10; 80]);
    let aad = b"aad";
    let mut sealed = b"frame".to_vec();
    let mut counter = vault::seal::FrameCounter::new();
    counter.next_number();
    keys.seal_frame(counter.next_number(), aad, &mut sealed);
    let paths = ["", "etc", "usr/share", "usr/share/doc/a", "usr-local", "a b/\u{e9}"];
    let paths = paths.map(|p| json!([p, hex::encode(path::key(p.as_bytes()).unwrap())]));
    golden(
        "primitives.json",
        &json!({
            "ids": {"secret": hex::encode(secret), "of": [named(b""), named(b"everhold")]},
            "pack_keys": {
                "epoch_key": hex::encode([8; 32]), "salt": hex::encode([9; 32]),
                "context": hex::encode([10; 80]), "commitment": hex::encode(keys.commitment()),
                "frame_1": {"aad": hex::encode(aad), "plaintext": hex::encode("frame"),
                            "sealed": hex::encode(sealed)},
            },
            "path_keys": paths,
        }),
    );
}

#[test]
fn chunks_end_where_the_vectors_say() {
    let gear = Gear::new(&[7; 32]);
    let data = noise(77, 1_500_000);
    let cuts = |chunking| {
        let mut buffer = Vec::new();
        let mut chunker = Chunker::new(&gear, chunking, 0, &mut buffer);
        let mut input = data.as_slice();
        let mut lengths = Vec::new();
        while let Some(chunk) = chunker.next_chunk(&mut input).unwrap() {
            lengths.push(chunk.len());
        }
        lengths
    };
    let default = Chunking::FastCdc { min: 64 << 10, avg: 256 << 10, max: 1 << 20 };
    let small = Chunking::FastCdc { min: 2 << 10, avg: 8 << 10, max: 64 << 10 };
    golden(
        "chunks.json",
        &json!({
            "secret": hex::encode([7; 32]),
            "input": {"generator": "splitmix64, seed 77", "length": data.len(),
                      "sha256": Sha256::of(&data).to_string()},
            "fastcdc_64k_256k_1m": cuts(default),
            "fastcdc_2k_8k_64k": cuts(small),
            "fixed_256k": cuts(Chunking::Fixed { block: 256 << 10 }),
        }),
    );
}

fn tree() -> Tree {
    let mut tree: Tree = [dir(""), dir("home"), dir("home/a"), file("home/a/empty", "")].into();
    tree.extend([file("home/a/hello.txt", "Hello, Everhold!\n")]);
    tree.extend([file("home/a/notes.txt", "one line of notes\n".repeat(200))]);
    tree.extend([file("home/large.bin", noise(5, 300_000))]);
    let (key, mut sparse) = file("home/sparse.img", vec![0; 1 << 20]);
    sparse.content[500_000..570_000].copy_from_slice(&noise(6, 70_000));
    sparse.holes = vec![0..500_000, 570_000..1 << 20];
    tree.insert(key, sparse);
    let others = [
        ("home/link", EntryKind::Symlink { target: b"a/hello.txt".to_vec() }),
        ("home/pipe", EntryKind::Fifo),
        ("home/null", EntryKind::CharDevice { major: 1, minor: 3 }),
    ];
    for (name, kind) in others {
        let mut entry = Entry::new(name.as_bytes().to_vec(), kind);
        entry.mode = 0o777;
        entry.xattrs = vec![Xattr { name: b"user.note".to_vec(), value: b"\0\xff".to_vec() }];
        let source = Source { entry, content: Vec::new(), holes: Vec::new() };
        tree.insert(path::key(name.as_bytes()).unwrap(), source);
    }
    let mut strange = file("home/strange", "not UTF-8\n").1;
    strange.entry.path = b"home/\xff\xfe".to_vec();
    tree.insert(path::key(b"home/\xff\xfe").unwrap(), strange);
    tree
}

#[test]
fn a_small_vault_is_that_of_the_vectors() {
    let mut lab = Lab::new(99);
    // One thread: the order of frames is then fixed as well.
    lab.workers = 1;
    lab.descriptor.packs = PackSizes { target: 1 << 20, max_frames: 65_536 };
    let tree = tree();
    let done = lab.backup(&tree, None);
    let (tenant, vault) = (lab.keys.tenant(), lab.keys.vault());
    let mut bucket = BTreeMap::new();
    let packs = lab.bucket.packs.lock().unwrap().clone();
    let set = vault::manifest::resolve(&done.chain).unwrap();
    for pack in set.iter() {
        let key = layout::object_key(tenant, vault, pack.kind.object(), &pack.sha256, pack.id);
        bucket.insert(key, STANDARD.encode(packs[&pack.sha256].bytes.joined()));
    }
    let manifest = &done.chain[0];
    let key =
        layout::object_key(tenant, vault, ObjectKind::Manifest, &manifest.sha256, manifest.id);
    bucket.insert(key, STANDARD.encode(&done.object));
    let receipt_key = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
    let receipt = Receipt {
        tenant,
        vault,
        workload: lab.workload,
        agent: lab.agent,
        run: RunId::fresh(&*lab.ids, lab.now),
        session: lab.session(),
        fence: 1,
        snapshot: SnapshotId::fresh(&*lab.ids, lab.now),
        manifest: manifest.id,
        manifest_sha256: manifest.sha256,
        manifest_version: "version-1".into(),
        committed_at: lab.now,
        protect_until: lab.now,
    };
    let key = layout::receipt_key(tenant, vault, receipt.snapshot);
    bucket.insert(key, STANDARD.encode(receipt.sign(&receipt_key)));
    let wraps = [lab.root.recipient(), lab.agent_keys.recipient(lab.agent)];
    let wraps = wraps.map(|to| lab.keys.wrap_for(1, to, &*lab.ids).unwrap());
    let mut store = BTreeMap::new();
    store.insert(layout::descriptor_key(tenant, vault), lab.descriptor.encode());
    store.insert(layout::roster_key(tenant, vault, 1), lab.roster.clone());
    for wrap in &wraps {
        let (kind, id) = (wrap.recipient.kind, wrap.recipient.id);
        store.insert(layout::wrap_key(tenant, vault, 1, kind, &id), wrap.encode());
    }
    let store: BTreeMap<_, _> =
        store.into_iter().map(|(key, bytes)| (key, STANDARD.encode(bytes))).collect();
    let kit = RecoveryKit {
        tenant,
        created: lab.now,
        root: lab.root,
        vaults: vec![KitVault {
            vault,
            descriptor: lab.descriptor.clone(),
            roster: lab.roster.clone(),
            wraps: wraps.to_vec(),
        }],
        platform_roster_key: None,
        receipt_key: Some(receipt_key.verifying_key().to_bytes()),
        location: BTreeMap::new(),
    };
    let entries: Vec<_> = tree.values().map(expected).collect();
    golden(
        "vault.json",
        &json!({
            "bucket": bucket,
            "key_store": store,
            "kit": serde_json::from_str::<Value>(&kit.to_json().unwrap()).unwrap(),
            "snapshot": receipt.snapshot.to_string(),
            "root": {"node": done.finished.root.node.to_string(),
                     "level": done.finished.root.level, "entries": done.finished.root.entries},
            "entries": entries,
        }),
    );
}

fn expected(source: &Source) -> Value {
    let kind = match &source.entry.kind {
        EntryKind::File { .. } => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink { .. } => "symlink",
        EntryKind::Fifo => "fifo",
        EntryKind::Socket => "socket",
        EntryKind::CharDevice { .. } => "char",
        EntryKind::BlockDevice { .. } => "block",
    };
    json!({
        "path_hex": hex::encode(&source.entry.path),
        "kind": kind,
        "mode": source.entry.mode,
        "size": source.entry.size(),
        "sha256": source.entry.is_file().then(|| Sha256::of(&source.content).to_string()),
    })
}

#[test]
fn the_seeded_generator_is_the_one_the_vectors_name() {
    let mut bytes = [0; 8];
    domain::SeededIds::new(77).fill(&mut bytes);
    assert_eq!(bytes.as_slice(), &noise(77, 8));
}
