//! Hostile bytes: flips, truncations, swaps and replays in every kind of object.
//!
//! Owns the objects of a small vault and who must notice a change in each. Invariant: what is altered is either
//! noticed or reads exactly as before (a word of the kit's explanation); nothing panics, nothing wrong is read.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use domain::{PackId, RunId, SeededIds, SnapshotId};
use vault::{
    certificate::LockCertificate,
    compress::{Compressor, Effort},
    descriptor::VaultDescriptor,
    id::{FrameKind, Sha256},
    keys::{AgentKeys, KitVault, RecoveryKit, RootKey, Roster, VaultKeys, Wrap},
    layout::{self, Name, ObjectKind},
    manifest::SignedManifest,
    pack::PackKind,
    receipt::{ForgetRecord, Receipt},
    tree::Node,
};

use crate::{
    common::{Done, Lab, Source, Tree, dir, file, noise, read_back},
    mutate::below,
};

/// One object as it lies somewhere, with others of its kind that could be put in its place.
pub struct Object {
    pub kind: &'static str,
    pub bytes: Vec<u8>,
    /// Good ones of the same kind that are put in its place: `replay`, one that was right before, or `swap`, one of
    /// another name, recipient or vault.
    others: Vec<(&'static str, Vec<u8>)>,
    /// Which pack it is, for packs.
    sha256: Sha256,
}

/// Objects, and insides of packs for those who begin there.
pub struct Samples {
    pub objects: Vec<Object>,
    pub directory: Vec<u8>,
    pub nodes: Vec<Vec<u8>>,
    pub entries: Vec<Vec<u8>>,
    pub summary: Vec<u8>,
    /// Keys below the vault's prefix.
    pub names: Vec<String>,
    pub compressed: Vec<u8>,
    vault: Bench,
}

/// The vault they are of, and what reads them.
struct Bench {
    lab: Lab,
    newest: Done,
    content: BTreeMap<Vec<u8>, (vault::tree::Entry, Vec<u8>)>,
    receipt_key: ed25519_dalek::SigningKey,
    receipt: Receipt,
    forget: ForgetRecord,
    kit: String,
}

fn tree(version: u64) -> Tree {
    // Changed at another time: what looks as before is not read.
    let at_that_time = |(key, mut source): (Vec<u8>, Source)| {
        source.entry.mtime.secs += i64::try_from(version).expect("a small number");
        (key, source)
    };
    Tree::from([
        dir(""),
        dir("a"),
        at_that_time(file("a/small", format!("small {version}"))),
        file("a/other", "the same in every version"),
        file("a/empty", ""),
        file("big", noise(7, 60_000)),
        at_that_time(file("changed", noise(100 + version, 40_000))),
    ])
}

pub fn samples() -> Samples {
    let mut lab = Lab::new(5);
    // What two make depends on who is first, and the beginnings of the fuzz targets are checked in.
    lab.workers = 1;
    let first = lab.backup(&tree(1), None);
    let newest = lab.increment(&tree(2), &first);
    assert_eq!(newest.reread, 2, "the second version is stored");
    // Of another machine, with its own chain.
    let sibling = lab.backup(&tree(3), None).object;
    let content = read_back(&lab.reader(&newest));
    let receipt_key = lab.agent_keys.signing_key();
    let bench = |lab: Lab| {
        let receipt = receipt(&lab, &newest);
        let forget = forget(&lab, &newest);
        let kit = kit(&lab);
        Bench { content, receipt_key, receipt, forget, kit, newest, lab }
    };
    let mut objects = packs(&lab);
    let vault = bench(lab);
    objects.extend(vault.others(vec![("replay", first.object), ("swap", sibling)]));
    let reader = vault.lab.reader(&vault.newest);
    objects.retain(|object| {
        !object.kind.ends_with("pack") || reader.frames().pack_ref(&object.sha256).is_some()
    });
    let entries = reader.entries().expect("entries").map(|entry| entry.expect("entry").encode());
    let entries = entries.collect();
    let nodes = nodes(&reader, &vault.newest);
    let summary = &vault.newest.chain[0].manifest.summary;
    let summary = reader.frames().frame(FrameKind::Summary, summary).expect("a summary").to_vec();
    let names = names(&vault.receipt);
    drop(reader);
    let mut compressor = Compressor::default();
    let compressed = compressor.compress(Effort::Level(3), &[b'x'; 1_000]).1.to_vec();
    // Of a directory the shape only: one frame of padding.
    let directory = vec![1, 0, 0, 0, 0, 0];
    Samples { objects, directory, nodes, entries, summary, names, compressed, vault }
}

fn nodes(reader: &vault::snapshot::Reader, done: &Done) -> Vec<Vec<u8>> {
    let root = &done.chain[0].manifest.root;
    let raw = reader.frames().frame(FrameKind::Node, &root.node).expect("the root");
    assert!(Node::decode(&raw).is_ok());
    vec![raw.to_vec()]
}

fn names(receipt: &Receipt) -> Vec<String> {
    let (sha256, upload) = (receipt.manifest_sha256, receipt.manifest);
    let objects = ObjectKind::ALL.map(|kind| Name::Object(kind, sha256, upload));
    let records = [Name::Receipt(receipt.snapshot), Name::Forget(receipt.snapshot)];
    let prefix = layout::vault_prefix(receipt.tenant, receipt.vault);
    let below = |name: Name| {
        let key = name.key(receipt.tenant, receipt.vault);
        key[prefix.len() + 1..].to_owned()
    };
    objects.into_iter().chain(records).map(below).collect()
}

fn packs(lab: &Lab) -> Vec<Object> {
    let packs = lab.bucket.packs.lock().expect("lock").clone();
    let of = |kind: PackKind| packs.values().filter(move |pack| pack.kind == kind);
    packs
        .values()
        .map(|pack| Object {
            kind: if pack.kind == PackKind::Data { "data pack" } else { "meta pack" },
            bytes: pack.bytes.to_vec(),
            others: of(pack.kind)
                .filter(|other| other.sha256 != pack.sha256)
                .map(|other| ("swap", other.bytes.to_vec()))
                .collect(),
            sha256: pack.sha256,
        })
        .collect()
}

fn receipt(lab: &Lab, done: &Done) -> Receipt {
    let manifest = &done.chain[0];
    Receipt {
        tenant: lab.descriptor.tenant,
        vault: lab.descriptor.vault,
        workload: lab.workload,
        agent: lab.agent,
        run: RunId::fresh(&*lab.ids, lab.now),
        session: manifest.manifest.session,
        fence: 1,
        snapshot: SnapshotId::fresh(&*lab.ids, lab.now),
        manifest: manifest.id,
        manifest_sha256: Sha256::of(&done.object),
        manifest_version: "v".into(),
        committed_at: lab.now,
        protect_until: lab.now,
    }
}

fn forget(lab: &Lab, done: &Done) -> ForgetRecord {
    ForgetRecord {
        tenant: lab.descriptor.tenant,
        vault: lab.descriptor.vault,
        snapshot: SnapshotId::fresh(&*lab.ids, lab.now),
        manifest: done.chain[0].id,
        manifest_sha256: Sha256::of(&done.object),
        forgotten_at: lab.now,
        by: "rule".into(),
        reason: "past its promise".into(),
    }
}

fn certificate(lab: &Lab, receipt: &Receipt) -> LockCertificate {
    LockCertificate {
        tenant: receipt.tenant,
        vault: receipt.vault,
        snapshot: receipt.snapshot,
        manifest: receipt.manifest,
        manifest_sha256: receipt.manifest_sha256,
        objects: 3,
        objects_hash: Sha256::of(b"objects"),
        locked_until: receipt.protect_until,
        checked_from: lab.now,
        checked_to: lab.now,
        issued_at: lab.now,
    }
}

fn kit(lab: &Lab) -> String {
    let root = RootKey::generate(&*lab.ids);
    let wrap = lab.keys.wrap_for(1, root.recipient(), &*lab.ids).expect("wrap");
    let roster = Roster { signer: root.authority(), ..lab.roster() };
    let roster = roster.sign(&root.roster_key()).expect("roster");
    let kit = RecoveryKit {
        tenant: lab.descriptor.tenant,
        created: lab.now,
        root,
        vaults: vec![KitVault {
            vault: lab.descriptor.vault,
            descriptor: lab.descriptor.clone(),
            roster,
            wraps: vec![wrap],
        }],
        platform_roster_key: None,
        receipt_key: None,
        location: BTreeMap::from([("server".to_owned(), "http://localhost".to_owned())]),
    };
    kit.to_json().expect("json").to_string()
}

impl Bench {
    /// Everything that is no pack.
    fn others(&self, other_manifests: Vec<(&'static str, Vec<u8>)>) -> Vec<Object> {
        let lab = &self.lab;
        let object = |kind, bytes: Vec<u8>, others: Vec<(&'static str, Vec<u8>)>| {
            let sha256 = Sha256::of(&bytes);
            Object { kind, bytes, others, sha256 }
        };
        let mut stranger = lab.descriptor.clone();
        stranger.created = lab.now + std::time::Duration::from_secs(1);
        let second = Roster { generation: 2, ..lab.roster() };
        let second = second.sign(&lab.root.roster_key()).expect("roster");
        let strange_root = RootKey::generate(&*lab.ids);
        let strange_roster = Roster { signer: strange_root.authority(), ..lab.roster() };
        let strange_roster = strange_roster.sign(&strange_root.roster_key()).expect("roster");
        let to_agent = lab.agent_keys.recipient(lab.agent);
        let wrap = |to| lab.keys.wrap_for(1, to, &*lab.ids).expect("wrap").encode();
        let other_agent = AgentKeys::generate(&*lab.ids);
        let other_vault = VaultKeys::generate(
            lab.keys.tenant(),
            domain::VaultId::fresh(&*lab.ids, lab.now),
            &*lab.ids,
        );
        let foreign = other_vault.wrap_for(1, to_agent, &*lab.ids).expect("wrap").encode();
        let mut later = self.receipt.clone();
        later.snapshot = SnapshotId::fresh(&*lab.ids, lab.now);
        let mut other_forget = self.forget.clone();
        other_forget.snapshot = later.snapshot;
        vec![
            object("manifest", self.newest.object.clone(), other_manifests),
            object(
                "receipt",
                self.receipt.sign(&self.receipt_key),
                vec![
                    ("swap", later.sign(&self.receipt_key)),
                    ("swap", self.forget.sign(&self.receipt_key)),
                ],
            ),
            object(
                "forget record",
                self.forget.sign(&self.receipt_key),
                vec![
                    ("swap", other_forget.sign(&self.receipt_key)),
                    ("swap", self.receipt.sign(&self.receipt_key)),
                ],
            ),
            object("descriptor", lab.descriptor.encode(), vec![("swap", stranger.encode())]),
            // Of two generations the newer one is asked for.
            object(
                "roster",
                second,
                vec![("replay", lab.roster.clone()), ("swap", strange_roster)],
            ),
            object(
                "wrap",
                wrap(to_agent),
                vec![
                    ("swap", wrap(lab.root.recipient())),
                    ("swap", wrap(other_agent.recipient(lab.agent))),
                    ("swap", foreign),
                ],
            ),
            // A kit is whole by itself: another one in its place is another kit.
            object(
                "certificate",
                certificate(lab, &self.receipt).sign(&self.receipt_key),
                vec![("swap", certificate(lab, &later).sign(&self.receipt_key))],
            ),
            object("kit", self.kit.clone().into_bytes(), vec![]),
        ]
    }

    /// Whether the altered object is noticed by whoever reads it, or reads exactly as the good one.
    fn notices(&self, object: &Object, altered: &[u8]) -> Result<(), String> {
        let lab = &self.lab;
        let silent = |what: &str| Err(format!("{}: {what}", object.kind));
        match object.kind {
            "data pack" | "meta pack" => self.notices_pack(object, altered),
            "manifest" => {
                // As the agent and the catalog read it: the hash they were told, then signature and chain.
                let decoded = SignedManifest::decode(PackId::from_bytes([9; 16]), altered);
                let Ok(signed) = decoded else { return Ok(()) };
                let known = Sha256::of(altered) == self.receipt.manifest_sha256;
                let fits = signed.verify(&lab.roster()).is_ok();
                let whole = Sha256::of(altered) == object.sha256;
                let replayed = object.others.iter().any(|(_, other)| other == altered);
                // A flipped bit must break the signature itself, not only the hash around it.
                if whole || (fits && (known || !replayed)) { silent("believed") } else { Ok(()) }
            }
            "receipt" => match Receipt::open(altered, &self.receipt_key.verifying_key().to_bytes())
            {
                Ok(read) if read.snapshot == self.receipt.snapshot => silent("believed"),
                _ => Ok(()),
            },
            "forget record" => {
                match ForgetRecord::open(altered, &self.receipt_key.verifying_key().to_bytes()) {
                    Ok(read) if read.snapshot == self.forget.snapshot => silent("believed"),
                    _ => Ok(()),
                }
            }
            "certificate" => {
                match LockCertificate::open(altered, &self.receipt_key.verifying_key().to_bytes()) {
                    Ok(read) if read.snapshot == self.receipt.snapshot => silent("believed"),
                    _ => Ok(()),
                }
            }
            "descriptor" => match VaultDescriptor::decode(altered) {
                Ok(read) if lab.roster().check_descriptor(&read).is_ok() => silent("believed"),
                _ => Ok(()),
            },
            "roster" => match Roster::open(altered, &[lab.root.authority()]) {
                // The generation is in the object's name, and compared.
                Ok(read) if read.generation == 2 => silent("believed"),
                _ => Ok(()),
            },
            "wrap" => self.notices_wrap(altered),
            "kit" => self.notices_kit(altered),
            other => silent(&format!("nobody looks at a {other}")),
        }
    }

    fn notices_pack(&self, object: &Object, altered: &[u8]) -> Result<(), String> {
        let lab = &self.lab;
        {
            let mut packs = lab.bucket.packs.lock().expect("lock");
            let pack = packs.get_mut(&object.sha256).expect("a pack");
            pack.bytes = altered.to_vec().into();
        }
        let reader = lab.reader(&self.newest);
        let used = reader.frames().pack_ref(&object.sha256).is_some();
        let clean = used && vault::verify::deep(&reader, |_| {}).is_clean();
        let read = self.reads_right(&reader);
        let mut packs = lab.bucket.packs.lock().expect("lock");
        packs.get_mut(&object.sha256).expect("a pack").bytes = object.bytes.clone().into();
        drop(packs);
        // Bytes behind the end of a pack are never asked for: it reads exactly as before.
        if clean && !altered.starts_with(&object.bytes) {
            return Err(format!("{}: verified", object.kind));
        }
        read
    }

    /// Errors are fine, other bytes are not.
    fn reads_right(&self, reader: &vault::snapshot::Reader) -> Result<(), String> {
        let Ok(entries) = reader.entries() else { return Ok(()) };
        for entry in entries {
            let Ok(entry) = entry else { continue };
            let key = vault::tree::path::key(&entry.path).map_err(|error| error.to_string())?;
            let Some((known, content)) = self.content.get(&key) else {
                return Err("an entry nobody backed up".to_owned());
            };
            let mut got = Vec::new();
            let read = !entry.is_file() || reader.read_file(&entry, &mut got).is_ok();
            if *known != entry || (read && got != *content) {
                return Err("other bytes were read".to_owned());
            }
        }
        Ok(())
    }

    fn notices_wrap(&self, altered: &[u8]) -> Result<(), String> {
        let lab = &self.lab;
        let Ok(wrap) = Wrap::decode(altered) else { return Ok(()) };
        let recipient = lab.agent_keys.recipient(lab.agent);
        match VaultKeys::open([&wrap], &recipient, lab.agent_keys.hpke_secret()) {
            // Of another vault: whoever opens it compares.
            Ok(keys) if keys.vault() == lab.keys.vault() => Err("wrap: opened".to_owned()),
            _ => Ok(()),
        }
    }

    fn notices_kit(&self, altered: &[u8]) -> Result<(), String> {
        let Ok(text) = std::str::from_utf8(altered) else { return Ok(()) };
        let Ok(kit) = RecoveryKit::from_json(text) else { return Ok(()) };
        let value = |text: &str| {
            let json: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
            json.get("kit").cloned()
        };
        let same = value(text) == value(&self.kit);
        if kit.rehearse().is_ok() && !same {
            Err("kit: another kit opens".to_owned())
        } else {
            Ok(())
        }
    }
}

/// One alteration in words and as bytes.
fn alterations(object: &Object, count: usize, random: &SeededIds) -> Vec<(&'static str, Vec<u8>)> {
    let mut found = object.others.clone();
    let length = object.bytes.len();
    for round in 0..count {
        match round % 8 {
            0 => found.push(("truncation", object.bytes[..below(random, length)].to_vec())),
            1 => {
                let mut bytes = object.bytes.clone();
                bytes.extend_from_slice(&object.bytes[..1 + below(random, 32.min(length - 1))]);
                found.push(("extension", bytes));
            }
            2 => {
                // Two stretches of the object change places.
                let mut bytes = object.bytes.clone();
                let size = 1 + below(random, 48.min(length / 3));
                let (a, b) = (
                    below(random, length / 2 - size),
                    length / 2 + below(random, length / 2 - size),
                );
                for offset in 0..size {
                    bytes.swap(a + offset, b + offset);
                }
                if bytes != object.bytes {
                    found.push(("inner swap", bytes));
                }
            }
            _ => {
                let mut bytes = object.bytes.clone();
                bytes[below(random, length)] ^= 1 << below(random, 8);
                found.push(("bit flip", bytes));
            }
        }
    }
    found
}

/// How many for each object: more where there are fewer of a kind.
fn share(kind: &str, long: bool) -> usize {
    match (kind, long) {
        ("data pack" | "meta pack", false) => 48,
        ("data pack" | "meta pack", true) => 2_000,
        (_, false) => 64,
        (_, true) => 1_000,
    }
}

#[test]
fn no_altered_object_is_silent_and_none_panics() {
    let started = Instant::now();
    let samples = samples();
    let random = SeededIds::new(11);
    let mut figures: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let mut silent = Vec::new();
    for object in &samples.objects {
        let alone = object.others.is_empty();
        assert_eq!(alone, object.kind == "kit", "{}: what to put in its place", object.kind);
        // The good one is read as good: the judge can tell.
        if !matches!(object.kind, "kit" | "data pack" | "meta pack") {
            assert!(samples.vault.notices(object, &object.bytes).is_err(), "{}", object.kind);
        }
        let count = share(object.kind, long());
        for (what, bytes) in alterations(object, count, &random) {
            let judged = catch_unwind(AssertUnwindSafe(|| samples.vault.notices(object, &bytes)));
            *figures.entry((object.kind, what)).or_default() += 1;
            match judged {
                Ok(Ok(())) => {}
                Ok(Err(why)) => silent.push(format!("{what}: {why}")),
                Err(_) => silent.push(format!("{what} in a {}: panicked", object.kind)),
            }
        }
    }
    let total: u32 = figures.values().sum();
    let seconds = started.elapsed().as_secs_f64();
    println!("{total} alterations, {} silent, {seconds:.1} s", silent.len());
    let by = figures.iter().map(|((kind, what), count)| (format!("{kind}|{what}"), *count));
    let by = by.collect();
    let silent_ones = silent.len();
    let told = HostileFigures { long: long(), total, silent: silent_ones, seconds, by };
    keep(&told);
    assert!(silent.is_empty(), "{:#?}", silent.iter().take(12).collect::<Vec<_>>());
}

#[derive(serde::Serialize)]
struct HostileFigures {
    long: bool,
    total: u32,
    silent: usize,
    seconds: f64,
    by: BTreeMap<String, u32>,
}

/// More than 10 000, instead of some hundreds: `make fault LONG=1`.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration of their own")]
fn long() -> bool {
    std::env::var("FAULT_LONG").is_ok()
}

/// For `scripts/fault_report.py`, beside the other products of a build.
fn keep(figures: &HostileFigures) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fault");
    std::fs::create_dir_all(&folder).expect("folder");
    let file = folder.join(if figures.long { "hostile.long.json" } else { "hostile.json" });
    std::fs::write(file, serde_json::to_string_pretty(figures).expect("json")).expect("figures");
}
