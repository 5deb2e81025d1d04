//! Folders through the real engine and back.

use std::{
    fs,
    io::Write as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::Path,
    sync::Arc,
    time::Instant,
};

use crate::support::{Vault, arrived, describe, is_root, place, restore_all, try_restore};
use domain::{SystemClock, source::ExceptionKind};
use everhold_agent::{
    restore::{Action, Order, Overwrite, ProblemKind, dry_run},
    sources::{Excluded, Excludes, GlobRules, glob_rules},
};
use proptest::prelude::*;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, utimensat,
};

fn set_mtime(path: &Path, secs: i64, nanos: i64) {
    let moment = Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = Timestamps { last_access: moment, last_modification: moment };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("utimens");
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    if rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).is_err() {
        eprintln!("skipped: {name} cannot be set here (file system or rights)");
    }
}

fn bytes(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..length).map(step).collect()
}

/// One of everything Linux has.
fn furnish(base: &Path) {
    for (name, size) in [
        ("empty", 0),
        ("one", 1),
        ("just-under", 65_535),
        ("just", 65_536),
        ("over", 65_537),
        ("big", 3_000_000),
    ] {
        fs::write(base.join(name), bytes(size, 7)).expect("write");
    }
    fs::create_dir_all(base.join("deep/er")).expect("dirs");
    fs::write(base.join("deep/er/file"), b"deep").expect("write");
    fs::hard_link(base.join("big"), base.join("deep/big-again")).expect("link");
    fs::hard_link(base.join("one"), base.join("another-one")).expect("link");
    symlink("nowhere/at/all", base.join("dangling")).expect("link");
    symlink("loop", base.join("loop")).expect("link");
    symlink("../../..", base.join("deep/up")).expect("link");
    fs::write(base.join(std::ffi::OsStr::from_bytes(b"not\xffutf8\n\\ *")), b"odd").expect("write");
    mknodat(CWD, base.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).expect("fifo");
    drop(std::os::unix::net::UnixListener::bind(base.join("socket")).expect("socket"));
    let sparse = fs::File::create(base.join("sparse")).expect("create");
    sparse.set_len(20 << 20).expect("grow");
    sparse.write_all_at(b"in the middle", 9 << 20).expect("write");
    fs::set_permissions(base.join("over"), fs::Permissions::from_mode(0o4751)).expect("chmod");
    fs::set_permissions(base.join("one"), fs::Permissions::from_mode(0o400)).expect("chmod");
    set_xattr(&base.join("just"), "user.note", b"a\0b");
    set_xattr(&base.join("deep"), "user.folder", b"yes");
    // user:0:rw-, a named user, mask: version 2 of the kernel's ACL form.
    let acl = [
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 57, 48, 0, 0, 4, 0, 4, 0, 255, 255,
        255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
    ];
    set_xattr(&base.join("just-under"), "system.posix_acl_access", &acl);
    set_xattr(&base.join("deep"), "system.posix_acl_default", &acl);
    set_mtime(&base.join("empty"), -86_400, 1);
    set_mtime(&base.join("dangling"), 1_000_000_000, 123_456_789);
    if is_root() {
        let device = rustix::fs::makedev(1, 3);
        mknodat(
            CWD,
            base.join("null"),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            device,
        )
        .expect("device");
        let owner = (
            Some(rustix::fs::Uid::from_raw(12_345)),
            Some(rustix::fs::Gid::from_raw(4_294_967_294)),
        );
        rustix::fs::chownat(
            CWD,
            base.join("dangling"),
            owner.0,
            owner.1,
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .expect("chown");
        rustix::fs::chownat(CWD, base.join("deep/er/file"), owner.0, owner.1, AtFlags::empty())
            .expect("chown");
        set_xattr(&base.join("over"), "trusted.secret", b"root only");
        set_xattr(
            &base.join("big"),
            "security.capability",
            &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        );
        set_xattr(&base.join("dangling"), "trusted.link", b"on the link");
    } else {
        eprintln!("skipped: owners, devices, trusted.* and capabilities need root");
    }
    fs::set_permissions(base.join("deep/er"), fs::Permissions::from_mode(0o500)).expect("chmod");
    set_mtime(&base.join("deep/er"), 5, 6);
    set_mtime(&base.join("deep"), 1_600_000_000, 999_999_999);
}

#[test]
fn everything_linux_has_comes_back_as_it_was() {
    let ((_a, source), (_b, target)) = (place(), place());
    furnish(&source);
    let before = describe(&source);
    let vault = Vault::new();
    let taken = vault.back_up(&[&source], None, Excludes::default());
    assert_eq!(taken.exceptions, []);
    let report = restore_all(&taken, &target, Overwrite::Never);
    assert_eq!(report.problems, []);
    let after = describe(&arrived(&target, &source));
    for (path, wanted) in &before {
        assert_eq!(after.get(path), Some(wanted), "{path}");
    }
    assert_eq!(before.len(), after.len());
}

#[test]
fn a_second_backup_reads_only_what_changed_and_stores_nothing_twice() {
    let (_a, source) = place();
    furnish(&source);
    let vault = Vault::new();
    let first = vault.back_up(&[&source], None, Excludes::default());
    fs::write(source.join("one-more"), b"new content").expect("write");
    fs::write(source.join("deep/er-too"), bytes(3_000_000, 7)).expect("write");
    let second = vault.back_up(&[&source], Some(&first), Excludes::default());
    let mut read: Vec<_> =
        second.read.iter().map(|p| p.rsplit('/').next().expect("name")).collect();
    read.sort_unstable();
    assert_eq!(read, ["er-too", "one-more"]);
    // The copy of a stored file adds nothing.
    assert_eq!(second.finished.stats.new_bytes, 11);
    let (_b, target) = place();
    assert_eq!(restore_all(&second, &target, Overwrite::Never).problems, []);
    assert_eq!(describe(&arrived(&target, &source)), describe(&source));
}

#[test]
fn a_change_too_fresh_for_its_time_stamp_is_read_again() {
    let (_a, source) = place();
    fs::write(source.join("file"), b"before").expect("write");
    let mut vault = Vault::new();
    vault.clock = Arc::new(SystemClock);
    let first = vault.back_up(&[&source], None, Excludes::default());
    let second = vault.back_up(&[&source], Some(&first), Excludes::default());
    assert_eq!(second.read.len(), 1, "written within the tick of its own time stamp");
}

#[test]
fn five_sparse_gibibytes_are_quick_and_stay_sparse() {
    let ((_a, source), (_b, target)) = (place(), place());
    let file = fs::File::create(source.join("sparse")).expect("create");
    file.set_len(5 << 30).expect("grow");
    file.write_all_at(b"needle", 3 << 30).expect("write");
    let begun = Instant::now();
    let vault = Vault::new();
    let taken = vault.back_up(&[&source], None, Excludes::default());
    assert_eq!(restore_all(&taken, &target, Overwrite::Never).problems, []);
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    let restored = arrived(&target, &source).join("sparse");
    let meta = fs::metadata(&restored).expect("stat");
    assert_eq!(meta.len(), 5 << 30);
    assert!(meta.blocks() < 1000, "{} blocks", meta.blocks());
    let mut found = [0; 6];
    fs::File::open(&restored).expect("open").read_exact_at(&mut found, 3 << 30).expect("read");
    assert_eq!(&found, b"needle");
}

#[test]
fn what_cannot_be_read_is_listed_and_the_rest_is_restored() {
    let ((_a, source), (_b, target)) = (place(), place());
    fs::write(source.join("good"), b"good").expect("write");
    fs::create_dir(source.join("closed")).expect("dir");
    fs::write(source.join("closed/inside"), b"x").expect("write");
    if is_root() {
        // Root reads everything; a file of the kernel that refuses does as well.
        eprintln!("skipped: unreadable for root; /proc/self/mem stands in");
        let vault = Vault::new();
        let taken = vault.back_up(
            &[Path::new("/proc/self/mem"), &source.join("good")],
            None,
            Excludes::default(),
        );
        let kinds: Vec<_> = taken.exceptions.iter().map(|e| e.kind).collect();
        assert!(
            kinds
                .iter()
                .all(|k| *k == ExceptionKind::Unreadable || *k == ExceptionKind::ChangedWhileRead),
            "{kinds:?}"
        );
        let report = restore_all(&taken, &target, Overwrite::Never);
        assert!(arrived(&target, &source).join("good").exists(), "{report:?}");
        return;
    }
    fs::write(source.join("secret"), b"x").expect("write");
    for name in ["secret", "closed"] {
        fs::set_permissions(source.join(name), fs::Permissions::from_mode(0o000)).expect("chmod");
    }
    let vault = Vault::new();
    let taken = vault.back_up(&[&source], None, Excludes::default());
    fs::set_permissions(source.join("closed"), fs::Permissions::from_mode(0o700)).expect("chmod");
    let mut listed: Vec<_> = taken
        .exceptions
        .iter()
        .map(|e| (e.path.rsplit('/').next().expect("name"), e.kind))
        .collect();
    listed.sort_by_key(|(name, _)| *name);
    assert_eq!(
        listed,
        [("closed", ExceptionKind::Unreadable), ("secret", ExceptionKind::Unreadable)]
    );
    restore_all(&taken, &target, Overwrite::Never);
    let names = fs::read_dir(arrived(&target, &source)).expect("list").count();
    assert_eq!(names, 2, "the readable file, and the closed folder itself");
}

#[test]
fn exclusions_are_listed_and_not_in_the_snapshot() {
    let (_a, source) = place();
    for name in ["keep", "drop.tmp"] {
        fs::write(source.join(name), b"x").expect("write");
    }
    let excludes =
        Excludes { patterns: glob_rules(&["*.tmp"]).expect("glob"), ..Excludes::default() };
    let taken = Vault::new().back_up(&[&source], None, excludes);
    assert_eq!(taken.left_out.iter().map(|l| l.why).collect::<Vec<_>>(), [Excluded::Pattern]);
    assert!(taken.exceptions.is_empty());
    let names: Vec<_> =
        taken.reader.entries().expect("walk").map(|e| e.expect("entry").name().to_vec()).collect();
    assert!(names.contains(&b"keep".to_vec()) && !names.contains(&b"drop.tmp".to_vec()));
}

#[test]
fn existing_files_give_way_only_as_told() {
    let ((_a, source), (_b, target)) = (place(), place());
    for name in ["same", "older", "newer"] {
        fs::write(source.join(name), b"of the snapshot").expect("write");
        set_mtime(&source.join(name), 1_000, 0);
    }
    let vault = Vault::new();
    let taken = vault.back_up(&[&source], None, Excludes::default());
    restore_all(&taken, &target, Overwrite::Never);
    let there = arrived(&target, &source);
    let disturb = || {
        for (name, secs) in [("older", 500), ("newer", 2_000)] {
            fs::write(there.join(name), b"of the user").expect("write");
            set_mtime(&there.join(name), secs, 0);
        }
    };
    let users = |name: &str| fs::read(there.join(name)).expect("read") == b"of the user";
    disturb();
    let report = restore_all(&taken, &target, Overwrite::Never);
    assert_eq!(report.kept, 3);
    assert_eq!(report.problems.iter().map(|p| p.kind).collect::<Vec<_>>(), [ProblemKind::Kept; 2]);
    assert!(users("older") && users("newer"));
    restore_all(&taken, &target, Overwrite::Older);
    assert!(!users("older") && users("newer"));
    disturb();
    let report = restore_all(&taken, &target, Overwrite::Changed);
    assert!(!users("older") && !users("newer"));
    assert_eq!((report.files, report.kept), (2, 1));
    let report = restore_all(&taken, &target, Overwrite::Always);
    assert_eq!(report.files, 3);
    assert_eq!(describe(&there), describe(&source));
}

#[test]
fn a_dry_run_says_what_would_happen_and_touches_nothing() {
    let ((_a, source), (_b, target)) = (place(), place());
    fs::write(source.join("file"), b"x").expect("write");
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let order = Order::new(target.join("new"), GlobRules::default(), Overwrite::Never);
    let mut planned = Vec::new();
    let problems = dry_run(&taken.reader, &order, |line| planned.push(line)).expect("dry run");
    assert!(problems.is_empty());
    assert!(planned.iter().all(|line| line.action == Action::Create));
    assert!(planned.iter().any(|line| line.path.ends_with("/file")));
    assert!(!target.join("new").exists());
}

#[test]
fn only_what_is_included_comes_back_with_the_folders_that_lead_there() {
    let ((_a, source), (_b, target)) = (place(), place());
    fs::create_dir_all(source.join("a/b")).expect("dirs");
    fs::create_dir(source.join("c")).expect("dir");
    for name in ["a/b/want.conf", "a/skip", "c/skip"] {
        fs::write(source.join(name), b"x").expect("write");
    }
    fs::set_permissions(source.join("a"), fs::Permissions::from_mode(0o711)).expect("chmod");
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let include = glob_rules(&["*.conf"]).expect("glob");
    try_restore(&taken, &target, Overwrite::Never, include).expect("restores");
    let there = describe(&arrived(&target, &source));
    assert_eq!(there.keys().collect::<Vec<_>>(), ["", "a", "a/b", "a/b/want.conf"]);
    assert_eq!(there.get("a"), describe(&source).get("a"));
}

#[test]
fn a_lost_pack_costs_its_files_and_nothing_else() {
    let ((_a, source), (_b, target)) = (place(), place());
    fs::write(source.join("content"), bytes(200_000, 1)).expect("write");
    fs::write(source.join("empty"), b"").expect("write");
    symlink("content", source.join("link")).expect("link");
    let vault = Vault::new();
    let taken = vault.back_up(&[&source], None, Excludes::default());
    vault.store.lose(vault::pack::PackKind::Data);
    let report = restore_all(&taken, &target, Overwrite::Never);
    let lost: Vec<_> =
        report.problems.iter().map(|p| (p.kind, p.path.ends_with("/content"))).collect();
    assert_eq!(lost, [(ProblemKind::NotRestored, true)]);
    let mut names: Vec<_> = fs::read_dir(arrived(&target, &source))
        .expect("list")
        .map(|e| e.expect("entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["empty", "link"], "no half file and no temporary one stays");
}

#[test]
fn a_folder_of_many_entries_is_ordinary() {
    let ((_a, source), (_b, target)) = (place(), place());
    for number in 0..20_000 {
        fs::File::create(source.join(format!("{number:05}")))
            .and_then(|mut f| write!(f, "{number}"))
            .expect("write");
    }
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let report = restore_all(&taken, &target, Overwrite::Never);
    assert_eq!((report.files, report.problems.len()), (20_000, 0));
    assert_eq!(fs::read(arrived(&target, &source).join("12345")).expect("read"), b"12345");
}

#[derive(Debug, Clone)]
enum Thing {
    File(usize, u32),
    Sparse(u64),
    Folder,
    Link(Vec<u8>),
    HardLink(usize),
    Fifo,
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        4 => (prop_oneof![Just(0_usize), 1..200_usize, 60_000..70_000_usize, 300_000..600_000_usize], 0..4_u32).prop_map(|(n, s)| Thing::File(n, s)),
        1 => (0..40_u64).prop_map(|n| Thing::Sparse(n << 16)),
        3 => Just(Thing::Folder),
        1 => proptest::collection::vec(1..=255_u8, 1..40).prop_map(Thing::Link),
        1 => (0..8_usize).prop_map(Thing::HardLink),
        1 => Just(Thing::Fifo),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(
        prop_oneof![
            Just(b'a'),
            Just(b'b'),
            Just(b'-'),
            Just(b'.'),
            Just(b' '),
            Just(0xff),
            1..=255_u8
        ],
        1..6,
    )
    .prop_filter("a name", |n| !n.contains(&b'/') && !matches!(n.as_slice(), b"." | b".."))
}

type Growth = Vec<(Vec<u8>, usize, Thing, u32, i64, u32)>;

/// Grows a tree: each thing goes into one of the folders there are.
fn grow(base: &Path, growth: &Growth) {
    let mut folders = vec![base.to_path_buf()];
    let mut files = Vec::new();
    for (name, folder, thing, mode, secs, nanos) in growth {
        let path = folders[folder % folders.len()].join(std::ffi::OsStr::from_bytes(name));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match thing {
            Thing::File(size, seed) => {
                fs::write(&path, bytes(*size, *seed)).expect("write");
                files.push(path.clone());
            }
            Thing::Sparse(at) => {
                let file = fs::File::create(&path).expect("create");
                file.set_len(4 << 20).expect("grow");
                file.write_all_at(b"data", *at).expect("write");
            }
            Thing::Folder => {
                fs::create_dir(&path).expect("dir");
                folders.push(path);
                continue;
            }
            Thing::Link(target) => {
                symlink(std::ffi::OsStr::from_bytes(target), &path).expect("link");
                set_mtime(&path, *secs, i64::from(*nanos));
                continue;
            }
            Thing::HardLink(which) => match files.get(which % files.len().max(1)) {
                Some(file) => fs::hard_link(file, &path).expect("hard link"),
                None => continue,
            },
            Thing::Fifo => {
                mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("fifo");
            }
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400 | mode & 0o7777))
            .expect("chmod");
        set_mtime(&path, *secs, i64::from(*nanos));
    }
    for folder in folders.iter().rev() {
        set_mtime(folder, 1_234_567_890, 42);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_back_as_it_was(
        growth in proptest::collection::vec(
            (name(), 0..8_usize, thing(), 0..0o7777_u32, -3_000_000_000..5_000_000_000_i64, 0..1_000_000_000_u32),
            0..40,
        ),
        more in proptest::collection::vec(
            (name(), 0..8_usize, thing(), 0..0o7777_u32, 0..5_000_000_000_i64, 0..1_000_000_000_u32),
            0..8,
        ),
    ) {
        let ((_a, source), (_b, target), (_c, again)) = (place(), place(), place());
        grow(&source, &growth);
        let before = describe(&source);
        let vault = Vault::new();
        let taken = vault.back_up(&[&source], None, Excludes::default());
        prop_assert_eq!(&taken.exceptions, &[]);
        let report = restore_all(&taken, &target, Overwrite::Never);
        prop_assert_eq!(&report.problems, &[]);
        prop_assert_eq!(describe(&arrived(&target, &source)), before);
        // And on top of it, a second one that reads only changes.
        grow(&source, &more);
        let before = describe(&source);
        let second = vault.back_up(&[&source], Some(&taken), Excludes::default());
        let report = restore_all(&second, &again, Overwrite::Never);
        prop_assert_eq!(&report.problems, &[]);
        prop_assert_eq!(describe(&arrived(&again, &source)), before);
    }
}

#[test]
fn a_disk_image_is_cut_into_aligned_blocks_and_comes_back() {
    let vault = Vault::new();
    let (_from, from) = place();
    let (_to, to) = place();
    let file = fs::File::create(from.join("disk")).expect("create");
    let mut head = bytes(1 << 20, 3);
    head[1080..1082].copy_from_slice(b"\x53\xef");
    file.write_all_at(&head, 0).expect("write");
    file.write_all_at(&bytes(700_000, 4), 70 << 20).expect("write");
    file.set_len(80 << 20).expect("length");
    fs::write(from.join("no-image"), bytes(3 << 20, 5)).expect("write");
    let taken = vault.back_up(&[&from], None, Excludes::default());
    let lengths = |name: &str| {
        let path = from.join(name);
        let path = path.as_os_str().as_bytes().strip_prefix(b"/").expect("absolute").to_vec();
        let entry = taken.reader.get(&path).expect("reads").expect("is there");
        let mut lengths = Vec::new();
        let each = |piece: vault::snapshot::FilePiece| -> Result<(), vault::snapshot::ReadError> {
            if !matches!(piece.from, vault::snapshot::PieceSource::Hole) {
                lengths.push(piece.length);
            }
            Ok(())
        };
        taken.reader.pieces(&entry, each).expect("pieces");
        lengths
    };
    let image = lengths("disk");
    assert!(image.len() >= 6, "{image:?}");
    let odd = image.iter().filter(|length| **length != 128 << 10).count();
    assert!(odd <= 2, "only the last block of a stretch is short: {image:?}");
    assert!(lengths("no-image").iter().any(|length| *length != 128 << 10));
    restore_all(&taken, &to, Overwrite::Never);
    assert_eq!(describe(&from), describe(&arrived(&to, &from)));
}
