//! Files that change under the backup, and restores that meet something.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
};

use domain::{ManualClock, Timestamp, source::ExceptionKind};
use everhold_agent::{
    restore::{Overwrite, ProblemKind, RestoreError},
    sources::{Excludes, GlobRules, glob_rules},
};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use tokio_util::sync::CancellationToken;

use crate::support::{
    Act, Meanwhile, Vault, arrived, describe, place, restore_all, restore_until, try_restore,
};

fn set_mtime(path: &Path, secs: i64) {
    let moment = Timespec { tv_sec: secs, tv_nsec: 0 };
    let times = Timestamps { last_access: moment, last_modification: moment };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("utimens");
}

const STAMP: i64 = 1_700_000_000;

#[test]
fn a_write_hidden_behind_a_stamp_of_whole_seconds_is_read_by_the_next_backup() {
    let (_a, source) = place();
    let file = source.join("file");
    fs::write(&file, b"before").expect("write");
    let mut vault = Vault::new();
    let now = Timestamp::from_unix_secs(STAMP + 1).expect("time");
    vault.clock = Arc::new(ManualClock::at(now));
    let coarse = || Meanwhile { stamp: Some(STAMP), ..Meanwhile::default() };
    let first = vault.back_up_while(&[&source], None, Excludes::default(), coarse());
    fs::write(&file, b"after!").expect("write");
    let second = vault.back_up_while(&[&source], Some(&first), Excludes::default(), coarse());
    assert_eq!(second.read.len(), 1);
    let (_b, target) = place();
    restore_all(&second, &target, Overwrite::Never);
    let there = arrived(&target, &source).join("file");
    assert_eq!(fs::read(there).expect("read"), b"after!");
}

#[test]
fn a_write_between_the_readings_of_two_names_is_in_this_snapshot_and_the_next() {
    let (_a, source) = place();
    let first_name = source.join("a");
    fs::write(&first_name, b"before").expect("write");
    fs::hard_link(&first_name, source.join("b")).expect("link");
    set_mtime(&first_name, 1_000);
    let vault = Vault::new();
    let before: Act = Box::new(move |path| {
        if path.ends_with(b"/b") {
            fs::write(&first_name, b"after!").expect("write");
        }
    });
    let meanwhile = Meanwhile { before: Some(before), ..Meanwhile::default() };
    let first = vault.back_up_while(&[&source], None, Excludes::default(), meanwhile);
    let kinds: Vec<_> = first.exceptions.iter().map(|told| told.kind).collect();
    assert_eq!(kinds, [ExceptionKind::ChangedWhileRead]);
    let second = vault.back_up(&[&source], Some(&first), Excludes::default());
    for (taken, a) in [(&first, &b"before"[..]), (&second, b"after!")] {
        let (_b, target) = place();
        assert_eq!(restore_all(taken, &target, Overwrite::Never).problems, []);
        let there = arrived(&target, &source);
        assert_eq!(fs::read(there.join("a")).expect("read"), a);
        assert_eq!(fs::read(there.join("b")).expect("read"), b"after!");
    }
    let (_c, target) = place();
    let only = glob_rules(&["b"]).expect("glob");
    try_restore(&second, &target, Overwrite::Never, only).expect("restores");
    let there = arrived(&target, &source).join("b");
    assert_eq!(fs::read(there).expect("read"), b"after!");
    assert_eq!(second.exceptions, []);
}

#[test]
fn a_write_after_the_first_name_was_taken_over_unread_is_not_lost_under_the_second() {
    let (_a, source) = place();
    let first_name = source.join("a");
    fs::write(&first_name, b"before").expect("write");
    fs::hard_link(&first_name, source.join("b")).expect("link");
    set_mtime(&first_name, 1_000);
    let vault = Vault::new();
    let first = vault.back_up(&[&source], None, Excludes::default());
    let before: Act = Box::new(move |path| {
        if path.ends_with(b"/b") {
            fs::write(&first_name, b"after!").expect("write");
        }
    });
    let meanwhile = Meanwhile { before: Some(before), ..Meanwhile::default() };
    // The second name is listed unchanged, then opened changed: it may be taken over, never half of each.
    let second = vault.back_up_while(&[&source], Some(&first), Excludes::default(), meanwhile);
    let third = vault.back_up(&[&source], Some(&second), Excludes::default());
    let (_b, target) = place();
    assert_eq!(restore_all(&third, &target, Overwrite::Never).problems, []);
    assert_eq!(describe(&arrived(&target, &source)), describe(&source));
}

#[test]
fn a_kept_newer_file_lends_its_content_to_no_other_name() {
    let ((_a, source), (_b, target)) = (place(), place());
    fs::write(source.join("a"), b"of the snapshot").expect("write");
    for name in ["b", "c"] {
        fs::hard_link(source.join("a"), source.join(name)).expect("link");
    }
    set_mtime(&source.join("a"), 1_000);
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let there = arrived(&target, &source);
    fs::create_dir_all(&there).expect("dirs");
    fs::write(there.join("a"), b"of the user").expect("write");
    set_mtime(&there.join("a"), 2_000);
    restore_all(&taken, &target, Overwrite::Older);
    let read = |name: &str| fs::read(there.join(name)).expect("read");
    assert_eq!(read("a"), b"of the user");
    assert_eq!((read("b"), read("c")), (b"of the snapshot".to_vec(), b"of the snapshot".to_vec()));
    let inode = |name: &str| fs::metadata(there.join(name)).expect("stat").ino();
    assert_eq!(inode("b"), inode("c"));
}

const MARKER: &str = ".everhold-restoring";
const LEFTOVER: &str = ".everhold-0123456789abcdef0123";

#[test]
fn an_interrupted_restore_leaves_a_marker_and_the_next_one_finishes_it() {
    let ((_a, source), (_b, target)) = (place(), place());
    fs::create_dir(source.join("folder")).expect("dir");
    fs::write(source.join("folder/file"), b"x").expect("write");
    fs::set_permissions(source.join("folder"), fs::Permissions::from_mode(0o751)).expect("chmod");
    set_mtime(&source.join("folder"), 1_000);
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let canceled = CancellationToken::new();
    canceled.cancel();
    let everything = GlobRules::default();
    let stopped = restore_until(&taken, &target, Overwrite::Never, everything, canceled);
    assert!(matches!(stopped, Err(RestoreError::Canceled)));
    assert!(target.join(MARKER).exists());
    // As a process leaves it that dies in the middle.
    let there = arrived(&target, &source);
    fs::create_dir_all(there.join("folder")).expect("dirs");
    let made = there.join("folder");
    for folder in made.ancestors().take_while(|folder| **folder != target) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("chmod");
    }
    fs::write(there.join("folder").join(LEFTOVER), b"half").expect("write");
    fs::write(target.join(LEFTOVER), b"half").expect("write");
    let report = restore_all(&taken, &target, Overwrite::Never);
    assert_eq!(report.problems, []);
    assert_eq!(describe(&there), describe(&source));
    assert!(!target.join(MARKER).exists() && !target.join(LEFTOVER).exists());
}

#[test]
fn a_folder_that_was_there_keeps_its_rights_and_says_so() {
    let ((_a, source), (_b, target)) = (place(), place());
    fs::create_dir(source.join("folder")).expect("dir");
    fs::set_permissions(source.join("folder"), fs::Permissions::from_mode(0o751)).expect("chmod");
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let folder = arrived(&target, &source).join("folder");
    restore_all(&taken, &target, Overwrite::Never);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("chmod");
    fs::write(folder.join(LEFTOVER), b"somebody's").expect("write");
    let report = restore_all(&taken, &target, Overwrite::Never);
    let kinds: Vec<_> = report.problems.iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [ProblemKind::Kept]);
    let mode = fs::metadata(&folder).expect("stat").permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    assert!(folder.join(LEFTOVER).exists(), "without a marker nothing is swept");
}

#[test]
fn a_restore_of_nothing_fails_and_leaves_nothing() {
    let ((_a, source), (_b, target)) = (place(), place());
    fs::write(source.join("file"), b"x").expect("write");
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let include = glob_rules(&["no-such-name"]).expect("glob");
    let report = try_restore(&taken, &target, Overwrite::Never, include);
    assert!(matches!(report, Err(RestoreError::NothingMatches)), "{report:?}");
    assert_eq!(fs::read_dir(&target).expect("list").count(), 0);
}

#[test]
fn what_the_server_knows_beside_the_parent_stays_in_the_index() {
    let (_a, source) = place();
    fs::write(source.join("file"), b"x").expect("write");
    let vault = Vault::new();
    let taken = vault.back_up(&[&source], None, Excludes::default());
    let others = vault.confirmed.lock().expect("lock").clone();
    let (before, kept) = vault.index_after(&taken, &others);
    assert!(before > 0 && kept.packs().len() == before);
    let (_, nothing) = vault.index_after(&taken, &std::collections::BTreeMap::new());
    assert_eq!(nothing.packs().len(), 0);
}
