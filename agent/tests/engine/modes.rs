//! Restores into targets that are not empty, were interrupted, are damaged, full or closed; and to pipes.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use domain::SystemIds;
use everhold_agent::{
    restore::{
        Afterwards, Durability, Figures, Options, Order, Overwrite, ProblemKind, Report,
        RestoreError, Selection, Unreadable, restore,
        stream::{Shape, stream},
    },
    sources::{Excludes, GlobRules, glob_rules},
};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use tokio_util::sync::CancellationToken;
use vault::{backup::PackSink as _, id::Sha256, restore::Limits};

use crate::support::{Taken, Vault, arrived, describe, is_root, place, restore_all};

pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn ordered(
    taken: &Taken,
    target: &Path,
    overwrite: Overwrite,
    options: Options,
) -> (Result<Report, RestoreError>, Arc<Figures>) {
    let figures = Arc::new(Figures::default());
    let order =
        Order { target: target.to_path_buf(), include: GlobRules::default(), overwrite, options };
    let cancel = CancellationToken::new();
    (restore(&taken.reader, &order, &SystemIds, figures.clone(), cancel), figures)
}

/// A source with one large file, and where it arrives.
fn large(content: &[u8]) -> (tempfile::TempDir, PathBuf, Vault, Taken) {
    let (dir, source) = place();
    fs::write(source.join("large"), content).expect("write");
    let vault = Vault::new();
    let taken = vault.back_up(&[&source], None, Excludes::default());
    (dir, source, vault, taken)
}

/// A folder that waits for no disk, where there is such a thing.
fn in_memory() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir_in("/dev/shm");
    dir.map_or_else(
        |_| place(),
        |dir| {
            let path = dir.path().to_path_buf();
            (dir, path)
        },
    )
}

fn part_of(name: &str) -> String {
    let hash = Sha256::of(name.as_bytes()).to_string();
    format!(".everhold-{}.part", &hash[..20])
}

/// The name under which a file that was there is changed.
fn aside(name: &str) -> String {
    part_of(name).replace(".part", ".was")
}

fn names_in(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("list").map(|entry| entry.expect("entry").file_name());
    let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

const LARGE: usize = 8 << 20;

#[test]
fn a_delta_writes_what_differs_and_nothing_else() {
    let content = noise(1, LARGE);
    let (_a, source, _vault, taken) = large(&content);
    let (_b, target) = place();
    restore_all(&taken, &target, Overwrite::Never);
    let there = arrived(&target, &source).join("large");
    let before = fs::metadata(&there).expect("stat").ino();
    let file = fs::OpenOptions::new().write(true).open(&there).expect("open");
    file.write_all_at(b"changed", 3_000_000).expect("write");
    file.write_all_at(b"changed", 7_000_000).expect("write");
    for overwrite in [Overwrite::Changed, Overwrite::Always] {
        let (report, _) = ordered(&taken, &target, overwrite, Options::default());
        let report = report.expect("restores");
        assert_eq!(report.problems, []);
        // Two chunks of at most a mebibyte the first time, nothing the second.
        let most = if overwrite == Overwrite::Changed { 2 << 20 } else { 0 };
        assert!(report.bytes <= most, "{} bytes written", report.bytes);
        assert!((report.bytes > 0) == (most > 0));
        assert_eq!(report.bytes + report.matched, LARGE as u64);
        assert_eq!(describe(&arrived(&target, &source)), describe(&source));
    }
    assert_eq!(fs::metadata(&there).expect("stat").ino(), before, "the same file was changed");
}

#[test]
fn a_longer_a_shorter_and_an_emptied_file_become_the_snapshots() {
    let content = noise(2, LARGE);
    let (_a, source, _vault, taken) = large(&content);
    let (_b, target) = place();
    restore_all(&taken, &target, Overwrite::Never);
    let there = arrived(&target, &source).join("large");
    for length in [LARGE + 5_000, LARGE - 5_000_000, 1, 0] {
        let file = fs::OpenOptions::new().write(true).open(&there).expect("open");
        file.set_len(length as u64).expect("length");
        let (report, _) = ordered(&taken, &target, Overwrite::Changed, Options::default());
        let report = report.expect("restores");
        assert_eq!(report.problems, []);
        let lost = LARGE.saturating_sub(length) as u64;
        assert!(report.bytes <= lost + (1 << 20), "{length}: {} bytes", report.bytes);
        assert_eq!(describe(&arrived(&target, &source)), describe(&source));
    }
}

#[test]
fn a_file_with_another_name_is_replaced_and_the_other_name_keeps_its_content() {
    let content = noise(3, LARGE);
    let (_a, source, _vault, taken) = large(&content);
    let (_b, target) = place();
    restore_all(&taken, &target, Overwrite::Never);
    let there = arrived(&target, &source).join("large");
    fs::write(&there, b"somebody's").expect("write");
    fs::hard_link(&there, target.join("other")).expect("link");
    restore_all(&taken, &target, Overwrite::Changed);
    assert!(fs::read(&there).expect("read") == content);
    assert_eq!(fs::read(target.join("other")).expect("read"), b"somebody's");
}

#[test]
fn a_hole_is_a_hole_again_where_somebody_wrote() {
    let (_a, source) = place();
    let sparse = fs::File::create(source.join("sparse")).expect("create");
    sparse.set_len(64 << 20).expect("grow");
    sparse.write_all_at(&noise(4, 100_000), 32 << 20).expect("write");
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let (_b, target) = place();
    restore_all(&taken, &target, Overwrite::Never);
    let there = arrived(&target, &source).join("sparse");
    let file = fs::OpenOptions::new().write(true).open(&there).expect("open");
    file.write_all_at(&noise(5, 8 << 20), 0).expect("write");
    let (report, _) = ordered(&taken, &target, Overwrite::Changed, Options::default());
    let report = report.expect("restores");
    assert_eq!((report.problems, report.bytes), (vec![], 0));
    assert_eq!(describe(&arrived(&target, &source)), describe(&source));
    assert!(fs::metadata(&there).expect("stat").blocks() * 512 < 4 << 20);
}

#[test]
fn an_interrupted_large_file_is_taken_up_where_it_was() {
    let content = noise(6, LARGE);
    let (_a, source, _vault, taken) = large(&content);
    let (_b, target) = place();
    let there = arrived(&target, &source);
    // As a process leaves it that dies in the middle.
    fs::create_dir_all(&there).expect("dirs");
    fs::write(target.join(".everhold-restoring"), b"").expect("marker");
    let mut half = content[..LARGE / 2].to_vec();
    half.resize(LARGE, 0);
    fs::write(there.join(part_of("large")), half).expect("part");
    fs::write(there.join(part_of("gone")), b"of a file that is not in this snapshot")
        .expect("part");
    let (report, _) = ordered(&taken, &target, Overwrite::Never, Options::default());
    let report = report.expect("restores");
    assert!(report.matched > 3 << 20, "{} bytes were there", report.matched);
    assert_eq!(report.bytes + report.matched, LARGE as u64);
    assert!(fs::read(there.join("large")).expect("read") == content);
    assert_eq!(names_in(&there), ["large"], "nothing is left over");
}

#[test]
fn a_part_that_is_not_ours_alone_is_not_written_into() {
    let content = noise(7, LARGE);
    let (_a, source, _vault, taken) = large(&content);
    let (_b, target) = place();
    let there = arrived(&target, &source);
    fs::create_dir_all(&there).expect("dirs");
    fs::write(target.join(".everhold-restoring"), b"").expect("marker");
    fs::write(target.join("precious"), b"precious").expect("write");
    fs::hard_link(target.join("precious"), there.join(part_of("large"))).expect("trap");
    restore_all(&taken, &target, Overwrite::Never);
    assert!(fs::read(there.join("large")).expect("read") == content);
    assert_eq!(fs::read(target.join("precious")).expect("read"), b"precious");
}

#[test]
fn a_delta_that_cannot_be_finished_does_not_pretend_and_a_repeat_finishes_it() {
    let content = noise(8, LARGE);
    let (_a, source, vault, taken) = large(&content);
    let (_b, target) = place();
    restore_all(&taken, &target, Overwrite::Never);
    let there = arrived(&target, &source).join("large");
    let wanted = describe(&source);
    for overwrite in [Overwrite::Changed, Overwrite::Older] {
        // Both ends differ, older than the snapshot's; only the pack of one end is there.
        let file = fs::OpenOptions::new().write(true).open(&there).expect("open");
        file.write_all_at(b"differs", 0).expect("write");
        file.set_len(100_000).expect("shorten");
        set_mtime(&there, 1_000);
        vault.store.hide_data(true);
        let fresh = vault.reopened(&taken);
        let (report, _) = ordered(&fresh, &target, overwrite, Options::default());
        let report = report.expect("ends");
        assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
        assert_eq!(report.problems[0].kind, ProblemKind::NotRestored);
        let meta = fs::metadata(&there).expect("the name is there");
        assert!(meta.mtime() <= 1_000, "it does not look like the snapshot's");
        vault.store.hide_data(false);
        let (report, _) = ordered(&vault.reopened(&taken), &target, overwrite, Options::default());
        assert_eq!(report.expect("restores").problems, []);
        assert_eq!(describe(&arrived(&target, &source)), wanted);
    }
}

/// As a process leaves it that dies while it changes a file that was there.
fn killed_in_a_delta(target: &Path, there: &Path, name: &str) {
    fs::write(target.join(".everhold-restoring"), b"").expect("marker");
    fs::rename(there.join(name), there.join(aside(name))).expect("aside");
}

#[test]
fn a_file_that_was_being_changed_is_never_removed_and_gets_its_name_back() {
    let (_a, source) = place();
    let content = noise(8, LARGE);
    fs::write(source.join("large"), &content).expect("write");
    fs::write(source.join("small"), b"small").expect("write");
    let vault = Vault::new();
    let taken = vault.back_up(&[&source], None, Excludes::default());
    let (_b, target) = place();
    restore_all(&taken, &target, Overwrite::Never);
    let there = arrived(&target, &source);
    let file = fs::OpenOptions::new().write(true).open(there.join("large")).expect("open");
    file.write_all_at(b"differs", 0).expect("write");
    let was = fs::read(there.join("large")).expect("read");
    let mode = |name: &str| fs::metadata(there.join(name)).expect("stat").mode();
    let before = mode("large");

    // Another file is restored: that one is told of and stays.
    killed_in_a_delta(&target, &there, "large");
    let order = Order {
        target: target.clone(),
        include: glob_rules(&["**/small"]).expect("rule"),
        overwrite: Overwrite::Changed,
        options: Options::default(),
    };
    let other =
        restore(&taken.reader, &order, &SystemIds, Arc::default(), CancellationToken::new());
    let problems = other.expect("restores").problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].path.ends_with(&aside("large")), "{problems:?}");
    assert!(fs::read(there.join(aside("large"))).expect("still there") == was);

    // So does one that finds nothing to restore, and one beside a restore that is alive.
    let nothing = Order { include: glob_rules(&["**/none"]).expect("rule"), ..order };
    let cancel = CancellationToken::new();
    let refused = restore(&taken.reader, &nothing, &SystemIds, Arc::default(), cancel);
    assert!(matches!(refused, Err(RestoreError::NothingMatches)), "{refused:?}");
    let marker = fs::File::open(target.join(".everhold-restoring")).expect("the marker stays");
    rustix::fs::flock(&marker, rustix::fs::FlockOperation::LockExclusive).expect("alive");
    let (beside, _) = ordered(&taken, &target, Overwrite::Never, Options::default());
    assert_eq!(beside.expect("restores").problems, []);
    assert!(fs::read(there.join(aside("large"))).expect("still there") == was);
    fs::remove_file(there.join("large")).expect("as it was");
    drop(marker);

    // What it needs cannot be had: it has its name again, and nobody takes it for restored.
    vault.store.hide_data(true);
    let (failed, _) =
        ordered(&vault.reopened(&taken), &target, Overwrite::Changed, Options::default());
    let problems = failed.expect("ends").problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(names_in(&there), ["large", "small"]);
    assert!(fs::read(there.join("large")).expect("read") == was);
    assert_eq!(mode("large"), before);
    assert!(fs::metadata(there.join("large")).expect("stat").mtime() <= 0);

    vault.store.hide_data(false);
    killed_in_a_delta(&target, &there, "large");
    let (report, _) =
        ordered(&vault.reopened(&taken), &target, Overwrite::Older, Options::default());
    let report = report.expect("restores");
    assert_eq!(report.problems, []);
    assert!(report.bytes <= 2 << 20, "{} bytes written", report.bytes);
    assert_eq!(describe(&there), describe(&source));
    assert_eq!(names_in(&there), ["large", "small"]);
}

#[test]
fn what_an_interrupted_restore_left_is_not_restored_as_somebodys_file() {
    let (_a, source) = place();
    fs::write(source.join("file"), b"file").expect("write");
    fs::write(source.join(part_of("file")), b"part").expect("write");
    fs::write(source.join(aside("other")), b"somebody's").expect("write");
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let (_b, target) = place();
    let (report, _) = ordered(&taken, &target, Overwrite::Never, Options::default());
    let report = report.expect("restores");
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert!(report.problems[0].path.ends_with(".part"));
    assert_eq!(names_in(&arrived(&target, &source)), [aside("other"), "file".to_owned()]);
}

fn set_mtime(path: &Path, secs: i64) {
    let stamp = Timespec { tv_sec: secs, tv_nsec: 0 };
    let times = Timestamps { last_access: stamp, last_modification: stamp };
    utimensat(CWD, path, &times, AtFlags::empty()).expect("utimensat");
}

#[test]
fn what_is_lost_can_be_zeros_and_is_listed() {
    let (_a, source) = place();
    fs::write(source.join("small"), b"small").expect("write");
    fs::write(source.join("large"), noise(9, LARGE)).expect("write");
    let vault = Vault::new();
    let taken = vault.back_up(&[&source], None, Excludes::default());
    let (_b, target) = place();
    let there = arrived(&target, &source);
    let zero = Options { unreadable: Unreadable::Zero, ..Options::default() };
    let kinds = |options: &Options, overwrite| {
        let (report, _) = ordered(&vault.reopened(&taken), &target, overwrite, options.clone());
        let problems = report.expect("restores").problems;
        problems.iter().map(|problem| problem.kind).collect::<Vec<_>>()
    };
    // A store that does not answer has lost nothing.
    vault.store.hide_data(true);
    assert_eq!(kinds(&zero, Overwrite::Never), [ProblemKind::NotRestored; 2]);
    assert_eq!(names_in(&there).len(), 0);
    vault.store.hide_data(false);
    let packs = vault.store.take_data();
    assert_eq!(kinds(&zero, Overwrite::Never), [ProblemKind::Zeroed; 2]);
    assert_eq!(fs::read(there.join("small")).expect("read"), [0; 5]);
    assert!(fs::read(there.join("large")).expect("read") == vec![0; LARGE]);
    // What was lost is here again: nobody takes the zeros for what they stand for.
    packs.into_iter().for_each(|pack| vault.store.emit(pack).expect("stored"));
    for overwrite in [Overwrite::Never, Overwrite::Older, Overwrite::Changed] {
        let kept = if overwrite == Overwrite::Never { 2 } else { 0 };
        assert_eq!(kinds(&zero, overwrite), vec![ProblemKind::Kept; kept]);
    }
    assert_eq!(describe(&there), describe(&source));
}

#[test]
fn reading_back_finds_what_is_not_the_snapshots() {
    let content = noise(10, LARGE);
    let (_a, source, _vault, taken) = large(&content);
    fs::write(source.join("small"), b"small").expect("write");
    let (_b, target) = place();
    let verify = || Options { afterwards: Afterwards::Verify, ..Options::default() };
    let (report, _) = ordered(&taken, &target, Overwrite::Never, verify());
    let report = report.expect("restores");
    assert_eq!((report.problems, report.verified), (vec![], 1));
    // Another byte under the same size and time.
    let there = arrived(&target, &source).join("large");
    let meta = fs::metadata(&there).expect("stat");
    let file = fs::OpenOptions::new().write(true).open(&there).expect("open");
    file.write_all_at(&[content[4_000_000] ^ 1], 4_000_000).expect("write");
    let stamp = Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() };
    let times = Timestamps { last_access: stamp, last_modification: stamp };
    utimensat(CWD, &there, &times, AtFlags::empty()).expect("utimensat");
    let (report, _) = ordered(&taken, &target, Overwrite::Changed, verify());
    let report = report.expect("restores");
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].kind, ProblemKind::Mismatch);
    let (report, _) = ordered(&taken, &target, Overwrite::Always, verify());
    assert_eq!(report.expect("restores").problems, []);
}

#[test]
fn a_file_that_lets_others_in_is_replaced_and_not_written_into() {
    let (_a, source) = place();
    for name in ["secret", "open"] {
        fs::write(source.join(name), noise(5, 300_000)).expect("write");
        fs::set_permissions(source.join(name), fs::Permissions::from_mode(0o640)).expect("chmod");
    }
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let (_b, target) = place();
    let (report, _) = ordered(&taken, &target, Overwrite::Never, Options::default());
    assert_eq!(report.expect("restores").problems, []);
    let there = arrived(&target, &source);
    // Others may have opened the one; the other is as it should be, with one byte changed.
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(there.join("secret"), mode).expect("chmod");
    let mut held = Vec::new();
    for name in ["secret", "open"] {
        let file = fs::OpenOptions::new().read(true).write(true).open(there.join(name));
        let file = file.expect("open");
        file.write_all_at(b"x", 7).expect("write");
        held.push((name, file.metadata().expect("stat").ino()));
    }
    let (report, _) = ordered(&taken, &target, Overwrite::Changed, Options::default());
    assert_eq!(report.expect("restores").problems, []);
    assert_eq!(describe(&there), describe(&source));
    let kept = held.into_iter().map(|(name, number)| {
        (name, fs::metadata(there.join(name)).expect("stat").ino() == number)
    });
    assert_eq!(kept.collect::<Vec<_>>(), [("secret", false), ("open", true)]);
}

#[test]
fn only_the_paths_named_come_back_with_what_leads_there() {
    let (_a, source) = place();
    fs::create_dir_all(source.join("a/b")).expect("dirs");
    for name in ["a/b/one", "a/b/two", "a/beside", "top"] {
        fs::write(source.join(name), name).expect("write");
    }
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let (_b, target) = place();
    let path = |name: &str| {
        let path = source.join(name);
        path.to_str().expect("text").trim_start_matches('/').as_bytes().to_vec()
    };
    let paths = vec![path("a/b"), path("a/b/one"), path("top")];
    let options = Options { paths, ..Options::default() };
    let (report, _) = ordered(&taken, &target, Overwrite::Never, options);
    assert_eq!(report.expect("restores").files, 3);
    let (mut wanted, found) = (describe(&source), describe(&arrived(&target, &source)));
    wanted.remove("a/beside");
    assert_eq!(found, wanted);
    let options = Options { paths: vec![b"not/there".to_vec()], ..Options::default() };
    let (report, _) = ordered(&taken, &target, Overwrite::Never, options);
    assert!(matches!(report, Err(RestoreError::NothingMatches)));
    // One that is there does not hide one that is not.
    let paths = vec![path("top"), b"not/there".to_vec()];
    let options = Options { paths, ..Options::default() };
    let (report, _) = ordered(&taken, &target, Overwrite::Never, options);
    let problems = report.expect("restores").problems;
    let told: Vec<_> =
        problems.iter().map(|problem| (problem.path.as_str(), problem.kind)).collect();
    assert_eq!(told, [("/not/there", ProblemKind::NotRestored)]);
}

#[test]
fn a_hundred_thousand_entries_in_a_folder_take_no_more_memory_than_the_limits_say() {
    let ((_a, source), (_b, target)) = (in_memory(), in_memory());
    for at in 0..100_000 {
        fs::write(source.join(format!("{at}")), format!("content of {at}")).expect("write");
    }
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let limits = Limits { pieces: 1_000, buffers: 1 << 20, fetchers: 2, workers: 2 };
    let durability = Durability::Unsynced;
    let options = Options { limits: Some(limits), durability, ..Options::default() };
    let (report, figures) = ordered(&taken, &target, Overwrite::Never, options);
    let report = report.expect("restores");
    assert_eq!((report.files, report.problems), (100_000, vec![]));
    let most = figures.gauge.most_pieces.load(Ordering::Relaxed);
    assert!(most <= 2 * 1_000, "{most} pieces at once");
    let most = figures.gauge.most_buffered.load(Ordering::Relaxed);
    assert!(most <= 1 << 20, "{most} bytes at once");
    let there = arrived(&target, &source);
    assert_eq!(fs::read(there.join("99999")).expect("read"), b"content of 99999");
    assert_eq!(fs::read_dir(&there).expect("list").count(), 100_000);
}

struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).expect("mount point");
        let mounted = is_root()
            && Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={size}"), "everhold-test"])
                .arg(at)
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success());
        mounted.then(|| Self(at.to_path_buf()))
    }
    fn remount(&self, options: &str) {
        let remounted = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.0)
            .status()
            .expect("mount");
        assert!(remounted.success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_or_closed_target_ends_the_restore_and_with_room_it_goes_on() {
    let (_a, source) = place();
    for at in 0..12 {
        fs::write(source.join(format!("{at}")), noise(at, 1 << 20)).expect("write");
    }
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let (_b, base) = place();
    let Some(mounted) = Mounted::tmpfs(&base.join("small"), "5m") else {
        eprintln!("skipped: a small file system needs root and mount");
        return;
    };
    let (full, _) = ordered(&taken, &mounted.0, Overwrite::Never, Options::default());
    assert!(matches!(full, Err(RestoreError::TargetFull(_))), "{full:?}");
    let restored = |there: &Path| names_in(there).iter().filter(|n| n.len() <= 2).count();
    let there = arrived(&mounted.0, &source);
    let first = restored(&there);
    assert!(first > 0 && first < 12, "{first} files");
    mounted.remount("size=40m,ro");
    let (closed, _) = ordered(&taken, &mounted.0, Overwrite::Never, Options::default());
    assert!(matches!(closed, Err(RestoreError::TargetFull(_))), "{closed:?}");
    mounted.remount("rw");
    let (report, _) = ordered(&taken, &mounted.0, Overwrite::Never, Options::default());
    let report = report.expect("restores");
    assert_eq!(report.problems, []);
    assert_eq!(report.files + report.kept, 12);
    assert!(report.kept >= first as u64);
    assert_eq!(describe(&there), describe(&source));
    assert_eq!(names_in(&mounted.0).iter().filter(|name| name.starts_with('.')).count(), 0);
}

#[test]
fn a_target_that_changes_under_the_restore_leads_nowhere_else() {
    let (_a, source) = place();
    for folder in 0..20 {
        fs::create_dir(source.join(format!("d{folder}"))).expect("dir");
        for at in 0..30 {
            fs::write(source.join(format!("d{folder}/{at}")), noise(at, 3_000)).expect("write");
        }
    }
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let ((_b, target), (_c, outside)) = (place(), place());
    let there = arrived(&target, &source);
    let done = Arc::new(AtomicBool::new(false));
    let swapping = {
        let (done, there, outside) = (done.clone(), there.clone(), outside.clone());
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                for folder in 0..20 {
                    let (name, aside) = (there.join(format!("d{folder}")), there.join("aside"));
                    if fs::rename(&name, &aside).is_ok() {
                        let _ = symlink(&outside, &name);
                        let _ = fs::remove_file(&name);
                        let _ = fs::rename(&aside, &name);
                    }
                }
            }
        })
    };
    for overwrite in [Overwrite::Never, Overwrite::Always] {
        let (report, _) = ordered(&taken, &target, overwrite, Options::default());
        assert!(report.is_ok(), "{report:?}");
    }
    done.store(true, Ordering::Relaxed);
    swapping.join().expect("swaps");
    assert_eq!(fs::read_dir(&outside).expect("list").count(), 0, "nothing came out");
}

fn selection(source: &Path, name: &str) -> Selection {
    let path = source.join(name);
    let bare = path.to_str().expect("text").trim_matches('/').as_bytes().to_vec();
    Selection { paths: vec![bare], ..Selection::default() }
}

#[test]
fn one_file_goes_to_a_pipe_bit_for_bit_and_a_folder_is_no_file() {
    let mut content = noise(11, 40 << 20);
    content[5 << 20..25 << 20].fill(0);
    let (_a, source, vault, taken) = large(&content);
    let mut out = Vec::new();
    let one = selection(&source, "large");
    let streamed = stream(&taken.reader, &one, Shape::Bare, Unreadable::Skip, &mut out);
    assert_eq!(streamed.expect("streams").bytes, content.len() as u64);
    assert!(out == content);
    let folder = selection(&source, "");
    fs::write(source.join("second"), b"2").expect("write");
    let two = vault.back_up(&[&source], None, Excludes::default());
    let refused = stream(&two.reader, &folder, Shape::Bare, Unreadable::Skip, &mut Vec::new());
    assert!(matches!(refused, Err(RestoreError::NotOneFile)), "{refused:?}");
    let none = selection(&source, "none");
    let nothing = stream(&taken.reader, &none, Shape::Bare, Unreadable::Skip, &mut Vec::new());
    assert!(matches!(nothing, Err(RestoreError::NotInSnapshot(_))), "{nothing:?}");
    vault.store.lose(vault::pack::PackKind::Data);
    let lost = vault.reopened(&taken);
    let refused = stream(&lost.reader, &one, Shape::Bare, Unreadable::Skip, &mut Vec::new());
    assert!(matches!(refused, Err(RestoreError::StreamLost { .. })), "{refused:?}");
    let mut out = Vec::new();
    let zeroed = stream(&lost.reader, &one, Shape::Bare, Unreadable::Zero, &mut out);
    assert!(!zeroed.expect("streams").problems.is_empty());
    assert!(out == vec![0; content.len()]);
}

#[test]
fn a_tar_stream_is_what_tar_understands() {
    let (_a, source) = place();
    let long = "n".repeat(120);
    fs::create_dir_all(source.join("deep").join(&long)).expect("dirs");
    fs::write(source.join("deep").join(&long).join("file"), noise(12, 700_000)).expect("write");
    fs::write(source.join("exact"), noise(13, 1_024)).expect("write");
    fs::write(source.join("empty"), b"").expect("write");
    fs::hard_link(source.join("exact"), source.join("z-again")).expect("link");
    symlink("deep", source.join("link")).expect("link");
    symlink("t".repeat(200), source.join("long-link")).expect("link");
    rustix::fs::setxattr(
        source.join("exact"),
        "user.note",
        b"a=b\nc",
        rustix::fs::XattrFlags::empty(),
    )
    .expect("xattr");
    set_mtime(&source.join("empty"), -5);
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let mut archive = Vec::new();
    let folder = selection(&source, "");
    stream(&taken.reader, &folder, Shape::Tar, Unreadable::Skip, &mut archive).expect("streams");
    let (_b, target) = place();
    let mut tar = Command::new("tar")
        .args(["--extract", "--xattrs", "--xattrs-include=*", "--same-permissions", "--file=-"])
        .arg("-C")
        .arg(&target)
        .stdin(Stdio::piped())
        .spawn()
        .expect("tar");
    tar.stdin.take().expect("pipe").write_all(&archive).expect("tar takes it");
    assert!(tar.wait().expect("tar").success());
    assert_eq!(describe(&arrived(&target, &source)), describe(&source));
}

#[test]
fn a_long_list_of_problems_is_whole_in_its_file_and_short_in_memory() {
    let (_a, source) = place();
    for number in 0..10_500 {
        fs::write(source.join(format!("file-{number:05}")), "as it was").expect("write");
    }
    let vault = Vault::new();
    let taken = vault.back_up(&[&source], None, Excludes::default());
    let (_b, target) = place();
    restore_all(&taken, &target, Overwrite::Never);
    for file in fs::read_dir(arrived(&target, &source)).expect("list") {
        fs::write(file.expect("file").path(), "somebody's own").expect("write");
    }
    let long_list = target.join("problems.jsonl");
    let mut order = Order::new(target.clone(), GlobRules::default(), Overwrite::Never);
    order.options.durability = Durability::Unsynced;
    order.options.long_list = Some(long_list.clone());
    let restored = || {
        restore(&taken.reader, &order, &SystemIds, Arc::default(), CancellationToken::new())
            .expect("restores")
    };
    let report = restored();
    assert_eq!(
        (report.problems.len(), report.unlisted, report.exceptions()),
        (10_000, 500, 10_500)
    );
    assert_eq!(report.long_list.as_deref(), Some(long_list.as_path()));
    let text = fs::read_to_string(&long_list).expect("the list");
    let lines: BTreeSet<&str> = text.lines().collect();
    assert_eq!((text.lines().count(), lines.len()), (10_500, 10_500));
    // All in memory for whoever has to go through them.
    let all = restore_all(&taken, &target, Overwrite::Never);
    assert_eq!((all.problems.len(), all.unlisted), (10_500, 0));
}
