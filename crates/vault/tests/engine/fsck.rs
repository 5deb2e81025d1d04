//! The checker: clean on what is sound, never silent and never in a panic on what is not.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use domain::{IdGen as _, PackId, SeededIds};
use vault::{
    fsck::{self, Depth, Loss, Options, Report, Severity, What},
    layout::{Name, ObjectKind},
    manifest::{FrameBitmap, SignedManifest, resolve},
    rescue::{Inventory, Listed, Objects, OpenVault, Snapshots},
    snapshot::SourceError,
    tree::path,
};

use crate::{
    bucket::{Memory, confirm, filled, forget, open},
    common::{Done, Lab, Tree, dir, file, noise, read_back},
};

/// Points per kind of object and kind of damage.
const POINTS: u64 = 64;

fn first() -> Tree {
    let mut tree: Tree = [dir(""), dir("d"), dir("e")].into();
    tree.extend([file("d/a", "first file"), file("d/b", "second file".repeat(9))]);
    tree.extend([file("d/large", noise(3, 70_000)), file("e/other", noise(4, 66_000))]);
    tree
}

fn second() -> Tree {
    let mut tree = first();
    tree.extend([file("d/a", "changed"), file("e/new", noise(9, 68_000))]);
    tree
}

struct World {
    lab: Lab,
    bucket: Arc<Memory>,
    dones: Vec<Done>,
}

/// Three snapshots, one on the other; the oldest is forgotten, the newest not confirmed yet.
fn world(seed: u64) -> World {
    let lab = Lab::new(seed);
    let one = lab.backup(&first(), None);
    let two = lab.increment(&second(), &one);
    let mut newest = second();
    newest.extend([file("e/third", "third")]);
    let three = lab.increment(&newest, &two);
    let bucket = filled(&lab, &[&one, &two, &three]);
    let oldest = confirm(&lab, &bucket, &one);
    confirm(&lab, &bucket, &two);
    forget(&lab, &bucket, &one, oldest);
    World { lab, bucket, dones: vec![one, two, three] }
}

/// What is said, with room for directories and without.
fn run(vault: &OpenVault, depth: Depth) -> Report {
    let check = |directories| {
        fsck::check(vault, &Options { depth, directories, ..Options::default() }).unwrap()
    };
    let report = check(Options::default().directories);
    assert_eq!(report, check(0));
    report
}

impl World {
    fn vault(&self) -> OpenVault {
        open(&self.lab, &self.bucket)
    }
    fn deep(&self) -> Report {
        run(&self.vault(), Depth::Data)
    }

    /// Whatever of the newest committed snapshot can be read is right.
    fn assert_no_wrong_bytes(&self, right: &BTreeMap<Vec<u8>, Vec<u8>>) {
        let vault = self.vault();
        let inventory = Inventory::take(&*vault.objects, vault.tenant, vault.vault).unwrap();
        let snapshots = Snapshots::read(&vault, &inventory);
        let two = self.dones[1].chain[0].sha256;
        let Some(found) = snapshots.found.iter().find(|found| found.signed.sha256 == two) else {
            return;
        };
        let Ok(reader) = snapshots.reader(&vault, found) else { return };
        for entry in reader.entries().into_iter().flatten().filter_map(Result::ok) {
            let mut content = Vec::new();
            if entry.is_file() && reader.read_file(&entry, &mut content).is_ok() {
                assert!(content == right[&path::key(&entry.path).unwrap()]);
            }
        }
    }
}

fn contents(world: &World) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let read = read_back(&world.lab.reader(&world.dones[1]));
    read.into_iter().map(|(key, (_, content))| (key, content)).collect()
}

#[test]
fn a_sound_vault_is_clean_at_both_depths() {
    let world = world(900);
    for depth in [Depth::Structure, Depth::Data] {
        let report = run(&world.vault(), depth);
        assert!(report.is_clean(), "{:?}", report.findings);
        assert_eq!((report.manifests, report.snapshots), (3, 2));
        assert_eq!((report.forgotten, report.unconfirmed), (1, 1));
        assert!(report.entries > 0 && report.coverage.frames > 0);
    }
    let report = world.deep();
    assert_eq!(report.coverage.packs, report.coverage.packs_whole);
}

/// Flips, cuts, empties and exchanges objects of one kind at seeded places; every one must be told, and no byte that
/// can still be read may be wrong.
fn torture(kind: &str, seed: u64) {
    let world = world(seed);
    let right = contents(&world);
    let ids = SeededIds::new(seed);
    let random = move || {
        let mut bytes = [0; 8];
        ids.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    };
    let keys = world.bucket.keys(kind);
    assert!(!keys.is_empty());
    for point in 0..POINTS {
        let key = &keys[random() as usize % keys.len()];
        let sound = world.bucket.get(key);
        let mut bytes = sound.to_vec();
        let at = random() as usize % bytes.len();
        match point % 4 {
            0 | 1 => bytes[at] ^= 1 << (random() % 8),
            2 => bytes.truncate(at),
            _ => bytes.extend_from_slice(&sound[..at.max(1)]),
        }
        world.bucket.put(key, bytes);
        assert!(!world.deep().is_clean(), "{kind} {key} at {at}, kind of damage {}", point % 4);
        world.assert_no_wrong_bytes(&right);
        world.bucket.put(key, sound);
    }
    for key in &keys {
        let sound = world.bucket.get(key);
        world.bucket.put(key, Bytes::new());
        assert!(!world.deep().is_clean(), "{key} is empty");
        // The bytes of any other object, older ones among them, under this name.
        for other in keys.iter().filter(|other| *other != key) {
            world.bucket.put(key, world.bucket.get(other));
            assert!(!world.deep().is_clean(), "{key} holds {other}");
            world.assert_no_wrong_bytes(&right);
        }
        world.bucket.put(key, sound);
    }
    assert!(world.deep().is_clean());
}

#[test]
fn no_damage_to_data_packs_is_silent() {
    torture("data", 901);
}
#[test]
fn no_damage_to_metadata_packs_is_silent() {
    torture("meta", 902);
}
#[test]
fn no_damage_to_manifests_is_silent() {
    torture("manifest", 903);
}
#[test]
fn no_damage_to_receipts_is_silent() {
    torture("receipt", 904);
}
#[test]
fn no_damage_to_forget_records_is_silent() {
    torture("forget", 905);
}

#[test]
fn a_missing_pack_or_manifest_is_told_with_the_snapshots_that_need_it() {
    let world = world(906);
    let needed = resolve(&world.dones[1].chain).unwrap();
    for kind in ["data", "meta"] {
        for key in world.bucket.keys(kind) {
            if !needed.iter().any(|pack| key.contains(&pack.sha256.to_string())) {
                continue;
            }
            let sound = world.bucket.take(&key);
            for depth in [Depth::Structure, Depth::Data] {
                let report = run(&world.vault(), depth);
                let told = report.findings.iter().any(|found| {
                    found.what == What::Missing
                        && found.severity == Severity::Damage
                        && found.object.as_deref() == Some(&key)
                        && found.snapshot.is_some()
                });
                assert!(told, "{key}: {:?}", report.findings);
            }
            world.bucket.put(&key, sound);
        }
    }
    // A parent's manifest is a link of its child's chain, forgotten or not.
    let oldest = &world.dones[0].chain[0].sha256;
    let key = world.bucket.keys("manifest");
    let key = key.iter().find(|key| key.contains(&oldest.to_string())).unwrap();
    world.bucket.take(key);
    assert!(world.deep().count(What::Chain) >= 2);
}

#[test]
fn an_object_replayed_under_another_upload_id_is_told() {
    let world = world(907);
    let (tenant, vault) = (world.lab.descriptor.tenant, world.lab.descriptor.vault);
    let upload = PackId::fresh(&*world.lab.ids, world.lab.now);
    for (kind, word) in
        [(ObjectKind::Data, "data"), (ObjectKind::Meta, "meta"), (ObjectKind::Manifest, "manifest")]
    {
        for key in world.bucket.keys(word) {
            let bytes = world.bucket.get(&key);
            let copy = Name::Object(kind, vault::id::Sha256::of(&bytes), upload).key(tenant, vault);
            world.bucket.put(&copy, bytes);
            let report = world.deep();
            assert_eq!(report.count(What::Replayed), 1, "{key}: {:?}", report.findings);
            assert!(report.findings.iter().all(|found| found.severity != Severity::Damage));
            world.bucket.take(&copy);
        }
    }
}

#[test]
fn names_that_are_none_of_ours_are_told() {
    let world = world(908);
    let prefix =
        vault::layout::vault_prefix(world.lab.descriptor.tenant, world.lab.descriptor.vault);
    for name in ["data/x", "data/../../x", "receipt/snp_1", "else", "data/", "manifest/AB-cd"] {
        let key = format!("{prefix}/{name}");
        world.bucket.put(&key, "what is this");
        assert_eq!(world.deep().count(What::Stray), 1, "{name}");
        world.bucket.take(&key);
    }
}

/// A bucket whose listing repeats what manifests say, as one that can only be read by grants.
struct Unlisted {
    bucket: Arc<Memory>,
    listed: BTreeMap<String, u64>,
}

impl Objects for Unlisted {
    fn list(&self, prefix: &str, each: &mut dyn FnMut(Listed)) -> Result<(), SourceError> {
        let below = self.listed.iter().filter(|(key, _)| key.starts_with(prefix));
        below.for_each(|(key, length)| each(Listed { key: key.clone(), length: *length }));
        Ok(())
    }
    fn read(&self, key: &str, v: Option<&str>, range: Range<u64>) -> Result<Bytes, SourceError> {
        self.bucket.read(key, v, range)
    }
    fn told_length(&self, key: &str) -> Option<u64> {
        Some(self.bucket.get(key).len() as u64)
    }
}

#[test]
fn bytes_behind_the_end_of_a_pack_are_told_at_both_depths_whoever_lists() {
    let world = world(907);
    let mut listed = BTreeMap::new();
    let mut note = |one: Listed| {
        listed.insert(one.key, one.length);
    };
    world.bucket.list("", &mut note).unwrap();
    let named = resolve(&world.dones[1].chain).unwrap();
    assert!(named.len() > 1);
    for pack in named.iter() {
        let descriptor = &world.lab.descriptor;
        let name = Name::Object(pack.kind.object(), pack.sha256, pack.id);
        let key = name.key(descriptor.tenant, descriptor.vault);
        let sound = world.bucket.get(&key);
        world.bucket.put(&key, [&sound[..], b"behind its end"].concat());
        for depth in [Depth::Structure, Depth::Data] {
            let mut unlisted = world.vault();
            let (bucket, listed) = (Arc::clone(&world.bucket), listed.clone());
            unlisted.bucket.objects = Arc::new(Unlisted { bucket, listed });
            for vault in [world.vault(), unlisted] {
                let found = run(&vault, depth).findings;
                let told = |f: &fsck::Finding| {
                    f.object.as_deref() == Some(&key) && f.what == What::WrongLength
                };
                assert!(found.iter().any(told), "{key} {depth:?} {found:?}");
            }
        }
        world.bucket.put(&key, sound);
    }
}

#[test]
fn a_damaged_front_is_told_without_reading_data_although_the_end_still_opens_the_pack() {
    let world = world(909);
    for key in world.bucket.keys("data") {
        let sound = world.bucket.get(&key);
        for at in [20, 150, 170, sound.len() - 5, sound.len() - 100, sound.len() - 300] {
            let mut bytes = sound.to_vec();
            bytes[at] ^= 1;
            world.bucket.put(&key, bytes);
            let report = run(&world.vault(), Depth::Structure);
            assert!(!report.is_clean(), "{key} at {at}");
            assert_eq!(report.count(What::Content), 0, "one copy was enough for the files");
        }
        world.bucket.put(&key, sound);
    }
}

#[test]
fn a_damaged_frame_leads_to_its_files_and_to_no_others() {
    let world = world(910);
    let two = &world.dones[1];
    let reader = world.lab.reader(two);
    let entry = reader.get(b"d/large").unwrap().unwrap();
    let mut packs = Vec::new();
    let located = reader.pieces::<vault::snapshot::ReadError>(&entry, |piece| {
        let vault::snapshot::PieceSource::Frame { id, .. } = piece.from else { return Ok(()) };
        packs.push(reader.frames().locate(&id, vault::pack::PackKind::Data)?.pack.clone());
        Ok(())
    });
    located.unwrap();
    packs.sort_by_key(|pack| pack.id);
    let pack = packs[0].clone();
    let key = Name::Object(pack.kind.object(), pack.sha256, pack.id);
    let key = key.key(world.lab.descriptor.tenant, world.lab.descriptor.vault);
    let frame = {
        let mut at = None;
        reader
            .pieces::<vault::snapshot::ReadError>(&entry, |piece| {
                let vault::snapshot::PieceSource::Frame { id, .. } = piece.from else {
                    return Ok(());
                };
                let frame = reader.frames().locate(&id, pack.kind)?.frame;
                at.get_or_insert(frame);
                Ok(())
            })
            .unwrap();
        reader.frames().open(&pack).unwrap().range(at.unwrap()).unwrap()
    };
    let whole = fsck::affected(&world.vault(), &pack.sha256).unwrap().unwrap();
    assert_eq!(whole.loss, Loss::Nothing);
    let users = whole.paths().len();
    assert!(users > 1 && whole.snapshots.len() == 2);

    let sound = world.bucket.get(&key);
    let mut bytes = sound.to_vec();
    bytes[frame.start as usize + 40] ^= 1;
    world.bucket.put(&key, bytes);
    let affected = fsck::affected(&world.vault(), &pack.sha256).unwrap().unwrap();
    assert_eq!(affected.loss, Loss::Frames(1));
    assert_eq!(affected.paths().into_iter().collect::<Vec<_>>(), [b"d/large"]);
    let report = world.deep();
    let paths: Vec<_> = report.findings.iter().filter_map(|found| found.path.clone()).collect();
    assert!(paths.iter().all(|path| path == b"d/large") && paths.len() == 2, "{paths:?}");

    world.bucket.take(&key);
    let affected = fsck::affected(&world.vault(), &pack.sha256).unwrap().unwrap();
    assert_eq!(affected.loss, Loss::Everything);
    assert_eq!(affected.paths().len(), users);
    assert!(fsck::affected(&world.vault(), &vault::id::Sha256([0; 32])).unwrap().is_none());
}

#[test]
fn a_manifest_that_lists_other_frames_than_its_tree_uses_is_told() {
    let world = world(911);
    let mut manifest = world.dones[2].chain[0].manifest.clone();
    let mut set = resolve(&world.dones[2].chain).unwrap();
    let pack = set.0.values_mut().find(|pack| pack.frames > 1).unwrap();
    let mut more = FrameBitmap::default();
    (0..pack.frames).for_each(|frame| more.insert(frame));
    pack.used = more;
    manifest.depth = 0;
    manifest.parent = None;
    manifest.set_hash = set.hash();
    manifest.packs = vault::manifest::PackList::Full(set.iter().cloned().collect());
    let object = manifest.sign(&world.lab.agent_keys.signing_key());
    let id = PackId::fresh(&*world.lab.ids, world.lab.now);
    let signed = SignedManifest::decode(id, &object).unwrap();
    let name = Name::Object(ObjectKind::Manifest, signed.sha256, id);
    let key = name.key(world.lab.descriptor.tenant, world.lab.descriptor.vault);
    world.bucket.put(&key, object);
    let report = world.deep();
    assert_eq!(report.count(What::Usage), 1, "{:?}", report.findings);
}

#[test]
fn two_packs_with_one_salt_are_told() {
    // The same random numbers, sessions and sequence numbers twice: what a cloned machine without entropy would do.
    let (lab, again) = (Lab::new(912), Lab::new(912));
    let one = lab.backup(&first(), None);
    let bucket = filled(&lab, &[&one]);
    assert!(run(&open(&lab, &bucket), Depth::Data).is_clean());
    let other = again.backup(&second(), None);
    let theirs = filled(&again, &[&other]);
    for (key, bytes) in theirs.0.lock().unwrap().iter() {
        bucket.put(key, bytes.clone());
    }
    let report = run(&open(&lab, &bucket), Depth::Data);
    assert!(report.count(What::SaltReused) > 0, "{:?}", report.findings);
}
