//! Rescue: kit and bucket are enough, and nothing is believed because of where it lies.

use std::{fs, sync::Arc};

use domain::{AgentId, PackId};
use vault::{
    keys::{AgentKeys, Roster},
    layout::{self, Name, ObjectKind},
    manifest::SignedManifest,
    rescue::{Folder, Inventory, Objects, OpenVault, Snapshots, Standing, open_kit},
};

use crate::{
    bucket::{Memory, confirm, filled, forget, kit},
    common::{Lab, Tree, assert_same, dir, file, noise},
};

fn tree() -> Tree {
    let mut tree: Tree = [dir(""), dir("d")].into();
    tree.extend([file("d/a", "first file"), file("d/large", noise(3, 70_000))]);
    tree
}

fn read(vault: &OpenVault) -> Arc<Snapshots> {
    let inventory = Inventory::take(&*vault.objects, vault.tenant, vault.vault).unwrap();
    Arc::new(Snapshots::read(vault, &inventory))
}

fn only(lab: &Lab, seed: u64, bucket: &Arc<Memory>, keys: Option<&Memory>) -> OpenVault {
    let objects = Arc::clone(bucket) as Arc<dyn Objects>;
    let keys = keys.map(|keys| keys as &dyn Objects);
    let mut opened = open_kit(&kit(lab, seed), &objects, keys);
    assert!(opened.closed.is_empty(), "{:?}", opened.closed);
    opened.vaults.pop().unwrap()
}

#[test]
fn a_kit_and_a_folder_of_keys_give_back_every_snapshot() {
    let lab = Lab::new(920);
    let one = lab.backup(&tree(), None);
    let mut newer = tree();
    newer.extend([file("d/b", "second file")]);
    let two = lab.increment(&newer, &one);
    let bucket = filled(&lab, &[&one, &two]);
    let (first, latest) = (confirm(&lab, &bucket, &one), confirm(&lab, &bucket, &two));
    forget(&lab, &bucket, &one, first);
    let folder = tempfile::tempdir().unwrap();
    for (key, bytes) in bucket.0.lock().unwrap().iter() {
        let path = folder.path().join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let objects: Arc<dyn Objects> = Arc::new(Folder::at(folder.path()));
    let opened = open_kit(&kit(&lab, 920), &objects, None);
    let vault = &opened.vaults[0];
    let snapshots = read(vault);
    assert!(snapshots.findings.is_empty());
    let newest = snapshots.find("latest").unwrap();
    assert_eq!(newest.name(), latest.to_string());
    assert_same(&snapshots.reader(vault, newest).unwrap(), &newer);
    let oldest = snapshots.find(&first.to_string()).unwrap();
    assert!(matches!(oldest.standing, Standing::Forgotten(_)));
    assert_same(&snapshots.reader(vault, oldest).unwrap(), &tree());
    // A link out of the copy, a pipe and a name from nowhere are not objects.
    let below = folder.path().join(layout::vault_prefix(vault.tenant, vault.vault)).join("data");
    std::os::unix::fs::symlink("/etc/hostname", below.join("0-0")).unwrap();
    assert!(read(vault).findings.is_empty());
}

#[test]
fn what_a_later_backup_stored_anew_is_found_for_the_snapshots_before_it() {
    let lab = Lab::new(927);
    let one = lab.backup(&tree(), None);
    let before: Vec<_> = lab.bucket.packs.lock().unwrap().keys().copied().collect();
    let lost = std::mem::take(&mut *lab.bucket.packs.lock().unwrap());
    let two = lab.backup(&tree(), None);
    lab.bucket.packs.lock().unwrap().extend(lost);
    let bucket = filled(&lab, &[&one, &two]);
    let (first, _) = (confirm(&lab, &bucket, &one), confirm(&lab, &bucket, &two));
    let vault = only(&lab, 927, &bucket, None);
    let snapshots = read(&vault);
    let all = [bucket.keys("data"), bucket.keys("meta")].concat();
    let is_old = |key: &&String| before.iter().any(|sha256| key.contains(&sha256.to_string()));
    let old: Vec<&String> = all.iter().filter(is_old).collect();
    assert_eq!(old.len(), before.len());
    for key in old {
        let sound = bucket.take(key);
        let found = snapshots.find(&first.to_string()).unwrap();
        assert_same(&snapshots.reader_of_all(&vault, found).unwrap(), &tree());
        bucket.put(key, sound);
    }
}

#[test]
fn a_manifest_of_a_stranger_is_not_a_snapshot() {
    let lab = Lab::new(921);
    let one = lab.backup(&tree(), None);
    let bucket = filled(&lab, &[&one]);
    let stranger = AgentKeys::generate(&*lab.ids);
    let mut manifest = one.chain[0].manifest.clone();
    for agent in [manifest.agent, AgentId::fresh(&*lab.ids, lab.now)] {
        manifest.agent = agent;
        let object = manifest.sign(&stranger.signing_key());
        let id = PackId::fresh(&*lab.ids, lab.now);
        let signed = SignedManifest::decode(id, &object).unwrap();
        let name = Name::Object(ObjectKind::Manifest, signed.sha256, id);
        bucket.put(&name.key(manifest.tenant, manifest.vault), object);
    }
    let snapshots = read(&only(&lab, 921, &bucket, None));
    assert_eq!((snapshots.found.len(), snapshots.findings.len()), (1, 2));
    assert_eq!(snapshots.found[0].standing, Standing::Unconfirmed);
}

#[test]
fn the_key_store_adds_epochs_and_members_and_can_take_nothing_away() {
    let mut lab = Lab::new(922);
    let one = lab.backup(&tree(), None);
    let bucket = filled(&lab, &[&one]);
    let old = kit(&lab, 922);
    // A later epoch and a second agent, both only in the key store.
    let mut keys = old.root.open(&old.vaults[0].wraps).unwrap();
    keys.add_epoch(2, &*lab.ids);
    let wrap = keys.wrap_for(2, old.root.recipient(), &*lab.ids).unwrap();
    let (agent, agent_keys) = (AgentId::fresh(&*lab.ids, lab.now), AgentKeys::generate(&*lab.ids));
    let mut roster = lab.roster();
    roster.generation = 2;
    roster.members.push(agent_keys.member(agent));
    let signed = roster.sign(&lab.root.roster_key()).unwrap();
    (lab.keys, lab.epoch) = (Arc::new(keys), 2);
    (lab.agent, lab.agent_keys) = (agent, agent_keys);
    let mut newer = tree();
    newer.extend([file("d/b", "second file")]);
    let two = lab.increment(&newer, &one);
    crate::bucket::store(&lab, &bucket, &two);

    let store = Memory::default();
    let prefix = layout::vault_prefix(lab.descriptor.tenant, lab.descriptor.vault);
    let objects = Arc::clone(&bucket) as Arc<dyn Objects>;
    // What anybody could put there: noise, a roster of somebody else, a wrap of another secret for epoch 2.
    store.put(&format!("{prefix}/descriptor"), "noise");
    store.put(&format!("{prefix}/wrap-1-root-00"), "noise");
    let foreign = Roster { signer: Lab::new(7).root.authority(), ..roster.clone() };
    store.put(&format!("{prefix}/roster-9"), foreign.sign(&Lab::new(7).root.roster_key()).unwrap());
    let made_up =
        vault::keys::VaultKeys::generate(lab.descriptor.tenant, lab.descriptor.vault, &*lab.ids);
    let lure = made_up.wrap_for(1, old.root.recipient(), &*lab.ids).unwrap();
    store.put(&format!("{prefix}/wrap-0-root-11"), lure.encode());

    let without = open_kit(&old, &objects, Some(&store));
    assert_eq!(without.notes.len(), 3, "{:?}", without.notes);
    let snapshots = read(&without.vaults[0]);
    assert_eq!(snapshots.found.len(), 1, "the second agent is nobody to the kit");
    assert_same(&snapshots.reader(&without.vaults[0], &snapshots.found[0]).unwrap(), &tree());

    store.put(&format!("{prefix}/wrap-2-root-22"), wrap.encode());
    store.put(&format!("{prefix}/roster-2"), signed);
    let with = open_kit(&old, &objects, Some(&store));
    let snapshots = read(&with.vaults[0]);
    assert_eq!(snapshots.found.len(), 2, "{:?}", snapshots.findings);
    let newest = snapshots.found.iter().find(|found| found.signed.manifest.agent == agent).unwrap();
    assert_same(&snapshots.reader(&with.vaults[0], newest).unwrap(), &newer);
}

#[test]
fn an_older_roster_in_a_newer_ones_place_and_a_key_store_set_back_are_told() {
    let lab = Lab::new(923);
    let bucket = filled(&lab, &[&lab.backup(&tree(), None)]);
    let objects = Arc::clone(&bucket) as Arc<dyn Objects>;
    let sign = |generation| {
        let roster = Roster { generation, ..lab.roster() };
        roster.sign(&lab.root.roster_key()).unwrap()
    };
    let mut kit = kit(&lab, 923);
    kit.vaults[0].roster = sign(3);
    let prefix = layout::vault_prefix(lab.descriptor.tenant, lab.descriptor.vault);
    let notes = |rosters: &[(u64, u64)]| {
        let store = Memory::default();
        for (place, generation) in rosters {
            store.put(&format!("{prefix}/roster-{place}"), sign(*generation));
        }
        let opened = open_kit(&kit, &objects, Some(&store));
        let known = opened.vaults[0].rosters.iter().map(|roster| roster.generation);
        (known.collect::<Vec<_>>(), opened.notes)
    };
    // As it should be, newer than the kit or as new.
    for sound in [&[(1, 1), (2, 2), (3, 3)][..], &[(3, 3), (4, 4)]] {
        assert_eq!(notes(sound).1, Vec::<String>::new());
    }
    // Generation 4 replaced by the bytes of generation 1, which names members that were removed since.
    let (known, told) = notes(&[(3, 3), (4, 1)]);
    assert_eq!(known, [3, 3]);
    assert!(told.len() == 1 && told[0].contains("roster-4") && told[0].contains("generation 1"));
    let (_, told) = notes(&[(1, 1), (2, 2)]);
    assert!(told.len() == 1 && told[0].contains("generation 2, the kit's is 3"), "{told:?}");
}
