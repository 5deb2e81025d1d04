//! The walk over real folders.

use std::{
    convert::Infallible,
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use domain::{
    Clock as _, SystemClock,
    source::{ExceptionKind, RunException},
};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{
    Excluded, Excludes, Found, Kind, OpenFile, Roots, Stat, Verdict, Visitor, Walk, WalkOptions,
    display_path, glob_rules,
};

type OnOpen = Box<dyn FnMut(&[u8])>;

/// Collects everything, reads every file, and can act in the middle of a read.
#[derive(Default)]
struct Collect {
    entries: Vec<Found>,
    contents: Vec<(Vec<u8>, Vec<u8>, Verdict)>,
    exceptions: Vec<RunException>,
    excluded: Vec<(String, Excluded)>,
    on_open: Option<OnOpen>,
    /// Acts between the stat of a file and its opening.
    before_open: Option<OnOpen>,
}

impl Visitor for Collect {
    type Error = Infallible;

    fn take_unchanged(&mut self, path: &[u8], _: &Stat) -> Result<bool, Infallible> {
        if let Some(act) = &mut self.before_open {
            act(path);
        }
        Ok(false)
    }
    fn file(&mut self, found: Found, mut content: OpenFile) -> Result<(), Infallible> {
        if let Some(act) = &mut self.on_open {
            act(&found.path);
        }
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).expect("readable");
        self.contents.push((found.path.clone(), bytes, content.verdict(SystemClock.now())));
        self.entries.push(found);
        Ok(())
    }
    fn entry(&mut self, found: Found) -> Result<(), Infallible> {
        self.entries.push(found);
        Ok(())
    }
    fn exception(&mut self, exception: RunException) {
        self.exceptions.push(exception);
    }
    fn excluded(&mut self, path: &[u8], why: Excluded) {
        self.excluded.push((display_path(path), why));
    }
}

struct Place {
    _dir: tempfile::TempDir,
    base: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().expect("tempdir");
    let base = fs::canonicalize(dir.path()).expect("canonical");
    Place { _dir: dir, base }
}

impl Place {
    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.base.join(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("dirs");
        fs::write(&path, content).expect("write");
        path
    }
    fn walk_with(&self, excludes: Excludes, mut collect: Collect) -> Collect {
        let options = WalkOptions { excludes, ..WalkOptions::default() };
        let roots =
            Roots::resolve(std::slice::from_ref(&self.base), Path::new("/")).expect("roots");
        match Walk::run(&roots, &options, &mut collect) {
            Ok(()) => collect,
            Err(never) => match never {},
        }
    }
    fn walk(&self) -> Collect {
        self.walk_with(Excludes::default(), Collect::default())
    }
    /// Paths below the place, in the order they came.
    fn names(&self, collect: &Collect) -> Vec<String> {
        let base = format!("{}/", self.base.display());
        let shown = collect.entries.iter().map(|found| display_path(&found.path));
        shown.filter_map(|path| path.strip_prefix(&base).map(str::to_owned)).collect()
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_folder_is_listed_whole_before_what_lies_below() {
    let place = place();
    for name in ["b/x", "a/z", "a/y/deep", "a-b", "c"] {
        place.file(name, b"");
    }
    let names = place.names(&place.walk());
    assert_eq!(names, ["a", "a-b", "b", "c", "a/y", "a/z", "a/y/deep", "b/x"]);
}

#[test]
fn folders_above_a_source_are_kept_without_their_other_content() {
    let place = place();
    place.file("in/kept", b"1");
    place.file("out/not", b"1");
    let roots = Roots::resolve(&[place.base.join("in")], Path::new("/")).expect("roots");
    let mut collect = Collect::default();
    let options = WalkOptions::default();
    Walk::run(&roots, &options, &mut collect).expect("walk");
    assert_eq!(place.names(&collect), ["in", "in/kept"]);
    assert!(
        collect
            .entries
            .iter()
            .any(|found| display_path(&found.path) == place.base.to_str().expect("utf8"))
    );
}

#[test]
fn links_are_never_followed_and_loops_end() {
    let place = place();
    place.file("real/file", b"x");
    symlink("..", place.base.join("real/up")).expect("link");
    symlink("loop", place.base.join("loop")).expect("link");
    symlink("/nowhere", place.base.join("dangling")).expect("link");
    let collect = place.walk();
    assert_eq!(place.names(&collect), ["dangling", "loop", "real", "real/file", "real/up"]);
    let target = collect.entries.iter().find_map(|found| {
        found.path.ends_with(b"/dangling").then(|| found.meta.link_target.clone()).flatten()
    });
    assert_eq!(target.as_deref(), Some(&b"/nowhere"[..]));
    assert!(collect.exceptions.is_empty());
}

#[test]
fn pipes_sockets_and_odd_names_are_recorded_and_never_opened() {
    let place = place();
    mknodat(CWD, place.base.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .expect("fifo");
    let _listener =
        std::os::unix::net::UnixListener::bind(place.base.join("socket")).expect("socket");
    let odd = place.base.join(std::ffi::OsStr::from_bytes(b"\xff\xfe\n"));
    fs::write(&odd, b"odd").expect("write");
    let collect = place.walk();
    let kinds: Vec<Kind> = collect.entries.iter().map(|found| found.meta.stat.kind).collect();
    assert!(kinds.contains(&Kind::Fifo));
    assert!(kinds.contains(&Kind::Socket));
    assert!(
        collect
            .contents
            .iter()
            .any(|(path, bytes, _)| path.ends_with(b"\xff\xfe\n") && bytes == b"odd")
    );
    assert!(collect.exceptions.is_empty());
}

#[test]
fn holes_are_found_and_not_read() {
    let place = place();
    let path = place.base.join("sparse");
    let mut file = fs::File::create(&path).expect("create");
    file.set_len(5 << 30).expect("grow");
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 1 << 30).expect("write");
    file.flush().expect("flush");
    let collect = place.walk();
    let (_, bytes, verdict) = collect.contents.first().expect("one file");
    assert!(bytes.len() < 1 << 20, "{} bytes read of a hole", bytes.len());
    assert!(bytes.windows(6).any(|window| window == b"middle"));
    assert_eq!(*verdict, Verdict::Steady);
}

#[test]
fn a_file_that_grows_while_read_ends_where_it_was_opened() {
    let place = place();
    let path = place.file("log", b"before");
    let grow = path.clone();
    let collect = Collect {
        on_open: Some(Box::new(move |_| {
            let mut file = fs::OpenOptions::new().append(true).open(&grow).expect("open");
            file.write_all(b" and after").expect("write");
        })),
        ..Collect::default()
    };
    let collect = place.walk_with(Excludes::default(), collect);
    assert_eq!(
        collect.contents.first().map(|(_, b, v)| (&b[..], *v)),
        Some((&b"before"[..], Verdict::Changed))
    );
}

#[test]
fn a_file_that_shrinks_while_read_says_so() {
    let place = place();
    let path = place.file("log", b"0123456789");
    let cut = path.clone();
    let collect = Collect {
        on_open: Some(Box::new(move |_| {
            fs::OpenOptions::new().write(true).open(&cut).and_then(|f| f.set_len(3)).expect("cut");
        })),
        ..Collect::default()
    };
    let collect = place.walk_with(Excludes::default(), collect);
    assert_eq!(
        collect.contents.first().map(|(_, b, v)| (&b[..], *v)),
        Some((&b"012"[..], Verdict::Shrank))
    );
}

#[test]
fn what_vanishes_between_listing_and_opening_is_told() {
    let place = place();
    place.file("a", b"");
    let doomed = place.file("b", b"");
    let collect = Collect {
        on_open: Some(Box::new(move |_| {
            // Gone before its turn comes.
            let _ = fs::remove_file(&doomed);
        })),
        ..Collect::default()
    };
    let collect = place.walk_with(Excludes::default(), collect);
    let kinds: Vec<ExceptionKind> = collect.exceptions.iter().map(|e| e.kind).collect();
    assert_eq!(kinds, [ExceptionKind::Vanished]);
}

#[test]
fn what_is_gone_or_swapped_when_opened_is_told_and_never_blocks() {
    let place = place();
    let (gone, swapped) = (place.file("gone", b"x"), place.file("swapped", b"x"));
    let to_link = place.file("to-link", b"x");
    let collect = Collect {
        before_open: Some(Box::new(move |path| {
            if path.ends_with(b"/gone") {
                fs::remove_file(&gone).expect("remove");
            } else if path.ends_with(b"/swapped") {
                fs::remove_file(&swapped).expect("remove");
                mknodat(CWD, &swapped, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                    .expect("fifo");
            } else {
                fs::remove_file(&to_link).expect("remove");
                symlink("/etc/hostname", &to_link).expect("link");
            }
        })),
        ..Collect::default()
    };
    let collect = place.walk_with(Excludes::default(), collect);
    assert!(collect.contents.is_empty());
    assert_eq!(collect.exceptions.len(), 3, "{:?}", collect.exceptions);
}

#[test]
fn what_may_not_be_read_is_told_and_the_rest_goes_on() {
    if is_root() {
        eprintln!("skipped: root may read everything; run the tests as a normal user for this one");
        return;
    }
    let place = place();
    let secret = place.file("secret", b"x");
    place.file("open", b"x");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o0)).expect("chmod");
    let collect = place.walk();
    assert_eq!(collect.exceptions.first().map(|e| e.kind), Some(ExceptionKind::Unreadable));
    assert_eq!(place.names(&collect), ["open"]);
}

#[test]
fn what_is_left_out_is_listed() {
    let place = place();
    place.file("keep", b"");
    place.file("drop.tmp", b"");
    place.file("state/secret", b"");
    place.file("cache/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n");
    place.file("cache/big", b"");
    let home = fs::metadata(place.base.join("state")).expect("stat");
    let excludes = Excludes {
        patterns: glob_rules(&["*.tmp"]).expect("pattern"),
        caches: true,
        agent_home: Some((home.dev(), home.ino())),
        ..Excludes::default()
    };
    let collect = place.walk_with(excludes, Collect::default());
    assert_eq!(place.names(&collect), ["cache", "keep", "cache/CACHEDIR.TAG"]);
    let why: Vec<Excluded> = collect.excluded.iter().map(|(_, why)| *why).collect();
    assert_eq!(why, [Excluded::Pattern, Excluded::AgentHome, Excluded::Cache]);
}

#[test]
fn the_systems_own_file_systems_are_left_out_and_listed() {
    let excludes = Excludes { one_file_system: true, ..Excludes::default() };
    let options = WalkOptions { excludes, ..WalkOptions::default() };
    let roots =
        Roots::resolve(&[PathBuf::from("/proc/self/fdinfo")], Path::new("/")).expect("roots");
    let mut collect = Collect::default();
    Walk::run(&roots, &options, &mut collect).expect("walk");
    // Named outright, even a virtual file system is walked: somebody wanted it.
    assert!(collect.entries.len() > 3);
    assert_eq!(super::exclude::virtual_by_path(b"proc"), Some("proc"));
    assert_eq!(super::exclude::virtual_by_magic(0x9fa0), Some("proc"));
    assert_eq!(super::exclude::virtual_by_magic(0xef53), None);
}

#[test]
fn attributes_of_files_folders_and_links_are_read() {
    let place = place();
    let path = place.file("tagged", b"x");
    let file = fs::File::open(&path).expect("open");
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::fsetxattr(&file, "user.color", b"green\0", flags).is_err() {
        eprintln!("skipped: the temporary folder's file system has no user attributes");
        return;
    }
    rustix::fs::fsetxattr(&file, "user.big", &[7; 3000], flags).expect("big attribute");
    let collect = place.walk();
    let found = collect.entries.iter().find(|f| f.path.ends_with(b"/tagged")).expect("found");
    let color = found.meta.xattrs.iter().find(|(name, _)| name == b"user.color");
    assert_eq!(color.map(|(_, value)| value.as_slice()), Some(&b"green\0"[..]));
    assert!(
        found.meta.xattrs.iter().any(|(name, value)| name == b"user.big" && value.len() == 3000)
    );
}

#[test]
fn depth_beyond_the_handle_budget_and_long_paths_are_ordinary() {
    let place = place();
    let mut handle =
        rustix::fs::open(&place.base, rustix::fs::OFlags::PATH, Mode::empty()).expect("open");
    let depth = 600;
    for _ in 0..depth {
        let name = "a_folder_name";
        rustix::fs::mkdirat(&handle, name, Mode::from_raw_mode(0o700)).expect("mkdir");
        // A sibling after the deep one: to be listed, `..` must have led back rightly.
        rustix::fs::mkdirat(&handle, "b", Mode::from_raw_mode(0o700)).expect("mkdir");
        handle = rustix::fs::openat(&handle, name, rustix::fs::OFlags::PATH, Mode::empty())
            .expect("open");
    }
    let collect = place.walk();
    assert_eq!(collect.exceptions, []);
    assert_eq!(place.names(&collect).len(), depth * 2);
    assert!(collect.entries.iter().map(|f| f.path.len()).max() > Some(4096));
}

#[test]
fn hard_links_share_their_identity() {
    let place = place();
    let path = place.file("one", b"x");
    fs::hard_link(&path, place.base.join("two")).expect("link");
    let collect = place.walk();
    let ids: Vec<_> = collect
        .entries
        .iter()
        .filter(|f| f.meta.stat.kind == Kind::File)
        .map(|f| (f.meta.stat.identity(), f.meta.stat.links))
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids.first(), ids.last());
    assert_eq!(ids.first().map(|id| id.1), Some(2));
}
