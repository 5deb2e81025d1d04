//! Snapshots made by an enemy: whatever they say, nothing outside the target is touched.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use crate::support::{Taken, Vault, place, restore_all};
use everhold_agent::restore::{Overwrite, ProblemKind};
use proptest::prelude::*;
use vault::{
    backup::Summary,
    tree::{Entry, EntryKind, Xattr, path},
};

struct Scene {
    _dir: tempfile::TempDir,
    outside: PathBuf,
    target: PathBuf,
}

/// A target beside a folder that must stay as it is.
fn scene() -> Scene {
    let (dir, base) = place();
    let outside = base.join("outside");
    fs::create_dir(&outside).expect("dir");
    fs::write(outside.join("sentinel"), b"untouched").expect("write");
    fs::set_permissions(outside.join("sentinel"), fs::Permissions::from_mode(0o640))
        .expect("chmod");
    let target = base.join("target");
    fs::create_dir(&target).expect("dir");
    Scene { _dir: dir, outside, target }
}

impl Scene {
    fn fingerprint(&self) -> String {
        let base = self.outside.parent().expect("base");
        let names = |path: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(path).expect("list").map(|e| e.expect("entry").file_name()).collect();
            names.sort();
            names
        };
        let sentinel = fs::symlink_metadata(self.outside.join("sentinel")).expect("stat");
        let folder = fs::symlink_metadata(&self.outside).expect("stat");
        format!(
            "{:?} {:?} {:?} {:o} {} {} {:o} {}",
            names(base),
            names(&self.outside),
            fs::read(self.outside.join("sentinel")).expect("read"),
            sentinel.mode(),
            sentinel.nlink(),
            sentinel.mtime(),
            folder.mode(),
            folder.mtime_nsec(),
        )
    }
}

fn forge(vault: &Vault, mut entries: Vec<(Entry, Vec<u8>)>) -> Taken {
    entries.sort_by(|(a, _), (b, _)| path::compare(&a.path, &b.path));
    entries.dedup_by(|(a, _), (b, _)| a.path == b.path);
    let mut writer = vault.writer(1);
    for (mut entry, content) in entries {
        if let EntryKind::File { size, .. } = &mut entry.kind {
            *size = content.len() as u64;
            writer.add_file(entry, &mut content.as_slice(), &[]).expect("file");
        } else {
            writer.add_entry(entry).expect("entry");
        }
    }
    let finished = writer.finish(Summary::default()).expect("finish");
    vault.taken(finished, None, Vec::new(), Vec::new(), Vec::new())
}

fn entry(path: &str, kind: EntryKind) -> (Entry, Vec<u8>) {
    let mut entry = Entry::new(path.as_bytes().to_vec(), kind);
    entry.mode = 0o755;
    (entry, Vec::new())
}

fn link(path: &str, target: &Path) -> (Entry, Vec<u8>) {
    entry(path, EntryKind::Symlink { target: target.to_str().expect("utf8").as_bytes().to_vec() })
}

fn file(path: &str) -> (Entry, Vec<u8>) {
    let mut entry = Entry::file(path.as_bytes().to_vec());
    entry.mode = 0o666;
    (entry, b"hostile".to_vec())
}

#[test]
fn children_of_a_link_stay_unwritten_and_are_told() {
    let scene = scene();
    let before = scene.fingerprint();
    let vault = Vault::new();
    let taken = forge(
        &vault,
        vec![
            link("door", &scene.outside),
            file("door/sentinel"),
            file("door/planted"),
            entry("door/folder", EntryKind::Directory),
            entry("door/fifo", EntryKind::Fifo),
            file("good"),
        ],
    );
    for overwrite in [Overwrite::Never, Overwrite::Always] {
        let report = restore_all(&taken, &scene.target, overwrite);
        assert_eq!(scene.fingerprint(), before);
        assert!(scene.target.join("good").exists());
        // Either the link or what hides behind it: both cannot be.
        assert!(!report.problems.is_empty());
    }
}

#[test]
fn a_link_waiting_in_the_target_is_not_walked_through() {
    let scene = scene();
    let before = scene.fingerprint();
    symlink(&scene.outside, scene.target.join("a")).expect("link");
    symlink(scene.outside.join("sentinel"), scene.target.join("file")).expect("link");
    let vault = Vault::new();
    let taken =
        forge(&vault, vec![entry("a", EntryKind::Directory), file("a/sentinel"), file("file")]);
    let report = restore_all(&taken, &scene.target, Overwrite::Changed);
    assert_eq!(scene.fingerprint(), before);
    assert!(!report.problems.is_empty());
    // A link in a file's place is replaced itself.
    let meta = fs::symlink_metadata(scene.target.join("file")).expect("stat");
    assert!(meta.is_file());
    // With `always`, so is one in a folder's place.
    restore_all(&taken, &scene.target, Overwrite::Always);
    assert_eq!(scene.fingerprint(), before);
    assert!(fs::symlink_metadata(scene.target.join("a")).expect("stat").is_dir());
}

#[test]
fn metadata_is_not_set_through_links() {
    let scene = scene();
    let before = scene.fingerprint();
    let vault = Vault::new();
    let mut door = link("door", &scene.outside.join("sentinel"));
    door.0.mode = 0o4777;
    door.0.mtime.secs = 1;
    door.0.xattrs = vec![Xattr { name: b"user.planted".to_vec(), value: b"x".to_vec() }];
    restore_all(&forge(&vault, vec![door]), &scene.target, Overwrite::Never);
    assert_eq!(scene.fingerprint(), before);
}

#[test]
fn a_hard_link_group_led_by_a_link_does_not_reach_outside() {
    let scene = scene();
    let before = scene.fingerprint();
    let vault = Vault::new();
    let mut door = link("door", &scene.outside.join("sentinel"));
    let mut named = file("named");
    door.0.hardlink = Some(1);
    named.0.hardlink = Some(1);
    restore_all(&forge(&vault, vec![door, named]), &scene.target, Overwrite::Never);
    // A second name of the sentinel would show as a second link to it.
    assert_eq!(scene.fingerprint(), before);
}

#[test]
fn the_engine_itself_refuses_names_that_climb() {
    let vault = Vault::new();
    for path in ["..", "a/../b", "a//b", "/a", "a/.", "a\0b"] {
        let mut writer = vault.writer(1);
        let refused = writer.add_entry(Entry::new(path.as_bytes().to_vec(), EntryKind::Fifo));
        assert!(refused.is_err(), "{path:?}");
    }
}

#[test]
fn impossible_owners_and_times_are_told_and_do_no_harm() {
    let scene = scene();
    let vault = Vault::new();
    let mut odd = file("odd");
    (odd.0.uid, odd.0.gid, odd.0.mode) = (u32::MAX, u32::MAX, 0o6755);
    (odd.0.mtime.secs, odd.0.mtime.nanos) = (i64::MAX, 999_999_999);
    let report = restore_all(&forge(&vault, vec![odd]), &scene.target, Overwrite::Never);
    assert_eq!(report.problems.first().map(|p| p.kind), Some(ProblemKind::MetadataIncomplete));
    let meta = fs::metadata(scene.target.join("odd")).expect("restored");
    assert_eq!(meta.mode() & 0o6000, 0, "nobody's setuid is nobody's");
}

fn hostile_entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let outside = PathBuf::from("/OUTSIDE");
    let component =
        prop_oneof![Just("a"), Just("b"), Just("door"), Just("sentinel"), Just("outside")];
    let path = proptest::collection::vec(component, 1..4).prop_map(|names| names.join("/"));
    let targets = prop_oneof![
        Just(outside.clone()),
        Just(outside.join("sentinel")),
        Just(PathBuf::from("../outside")),
        Just(PathBuf::from("../../outside/sentinel")),
        Just(PathBuf::from("a")),
        Just(PathBuf::from("/proc/self/root")),
    ];
    (path, 0..6_u8, targets, proptest::option::of(0..2_u64), 0..0o7777_u32).prop_map(
        |(path, kind, to, group, mode)| {
            let (mut entry, content) = match kind {
                0 | 1 => file(&path),
                2 => entry(&path, EntryKind::Directory),
                3 => entry(&path, EntryKind::Fifo),
                _ => link(&path, &to),
            };
            entry.mode = mode;
            if !entry.is_dir() {
                entry.hardlink = group;
            }
            (entry, content)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_forged_tree_changes_anything_outside(
        entries in proptest::collection::vec(hostile_entry(), 1..16),
        overwrite in prop_oneof![Just(Overwrite::Never), Just(Overwrite::Changed), Just(Overwrite::Always)],
    ) {
        let scene = scene();
        let before = scene.fingerprint();
        // The strategy cannot know the place; absolute targets are moved there.
        let entries = entries.into_iter().map(|(mut entry, content)| {
            if let EntryKind::Symlink { target } = &mut entry.kind
                && let Some(rest) = target.strip_prefix(b"/OUTSIDE")
            {
                *target = [scene.outside.to_str().expect("utf8").as_bytes(), rest].concat();
            }
            (entry, content)
        });
        let vault = Vault::new();
        let taken = forge(&vault, entries.collect());
        for _ in 0..2 {
            let _ = restore_all(&taken, &scene.target, overwrite);
            prop_assert_eq!(scene.fingerprint(), before.clone());
        }
    }
}
