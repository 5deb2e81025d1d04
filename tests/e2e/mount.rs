//! `everhold-agent mount`: a snapshot as a file system is the source again to every tool, and never anything else.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use testkit::proxy::{Fault, Rule};

use crate::{
    compare,
    faulty::{Faulty, is_get},
    harness::{Agent, Platform, folder, is_root, tool, wait_for},
};

/// Whether this machine lets us mount; says so when it does not.
fn can_mount() -> bool {
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let helper = || Command::new("fusermount3").arg("-V").output().is_ok();
    let can = device.is_ok() && (is_root() || helper());
    if !can {
        eprintln!("SKIPPED: mounting needs /dev/fuse and root (or fusermount3): {device:?}");
    }
    can
}

/// A mounting agent, unmounted at the end however it ends.
struct Mounted {
    child: Child,
    point: PathBuf,
    /// Its line about what it mounted.
    said: String,
    log: PathBuf,
}

impl Mounted {
    fn start(agent: &Agent, point: &Path, args: &[&str]) -> Self {
        // A dead mount is neither there nor not there.
        let _ = fs::create_dir(point);
        let log = point.with_extension("log");
        let mut child = agent
            .command()
            .arg("mount")
            .arg(point)
            .args(args)
            .arg("--json")
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("log"))
            .spawn()
            .expect("agent runs");
        let mut said = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut said).expect("a line");
        let mounted = Self { child, point: point.to_owned(), said, log };
        assert!(mounted.said.contains("mounted"), "{}\n{}", mounted.said, mounted.log());
        mounted
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn kill(&mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("reap");
    }

    /// SIGTERM: it unmounts and ends well.
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("signal");
        let child = &mut self.child;
        let status = wait_for("the mount to end", Duration::from_secs(20), || {
            child.try_wait().expect("wait")
        });
        assert!(status.success(), "{status}: {}", self.log());
        assert!(!is_mounted(&self.point), "it is unmounted");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if is_mounted(&self.point) {
            let _ = Command::new("umount").arg("-l").arg(&self.point).status();
        }
    }
}

fn is_mounted(point: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    mounts.contains(&format!(" {} ", point.display()))
}

fn sh(dir: &Path, script: &str) -> String {
    let output =
        Command::new("bash").args(["-euc", script]).current_dir(dir).output().expect("bash");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Tools see what stands of a folder, and fail.
pub(crate) fn a_folder_partly_lost_gives_the_rest(agent: &Agent, folder: &Path, stand: usize) {
    if !can_mount() {
        return;
    }
    let mounted =
        Mounted::start(agent, &agent.home.with_file_name("partly"), &["--snapshot", "latest"]);
    let lossy = mounted.point.join(folder.strip_prefix("/").expect("absolute"));
    let output = Command::new("ls").arg("-f").arg(&lossy).output().expect("ls");
    let names = String::from_utf8(output.stdout).expect("text");
    assert_eq!(names.lines().filter(|name| !name.starts_with('.')).count(), stand);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("Input/output error"), "{error}");
    assert!(mounted.log().contains("tree is lost"), "{}", mounted.log());
    mounted.stop();
}

/// A tree with one of everything.
fn odd_tree(dir: &Path) -> PathBuf {
    let source = dir.join("source");
    fs::create_dir(&source).expect("mkdir");
    sh(
        &source,
        r#"
        mkdir -m 2751 sub; echo one > sub/a; ln sub/a sub/b; ln sub/a c
        setfattr -n user.note -v hello sub/a; setfacl -m u:1:r sub/a; setfacl -d -m g:2:rx sub
        ln -s missing dangling; ln -s sub/a link; mkfifo fifo
        truncate -s 50M holes; printf x | dd of=holes bs=1 seek=20M conv=notrunc status=none
        : > empty; mkdir nothing; touch -d '1969-12-31T23:59:59.123456789Z' old
        head -c 9000000 /dev/urandom > big; yes compressible | head -c 3000000 > text
        printf x > "$(printf 'not\xffutf8')"; mkdir "$(printf 'folder\xfe')"; echo y > "$(printf 'folder\xfe')/in it"
        chmod 4755 empty; mkdir many; cd many; for i in $(seq 300); do echo "$i" > "file $i"; done
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'"#,
    );
    if is_root() {
        sh(&source, "mknod device c 1 3; mknod block b 259 70000; chown 12:34 text");
    }
    source
}

/// Pseudo-random numbers below `most`.
fn random(state: &mut u64, most: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % most
}

fn same_ranges(a: &Path, b: &Path, count: usize) {
    let (left, right) = (File::open(a).expect("open"), File::open(b).expect("open"));
    let size = left.metadata().expect("stat").len();
    let mut state = 42;
    for _ in 0..count {
        let offset = random(&mut state, size + 1_000);
        let length = usize::try_from(random(&mut state, 700_000)).expect("small");
        let (mut one, mut other) = (vec![0; length], vec![1; length]);
        let read = |file: &File, into: &mut [u8]| {
            let mut got = 0;
            while got < into.len() {
                match file.read_at(&mut into[got..], offset + got as u64).expect("read") {
                    0 => break,
                    more => got += more,
                }
            }
            got
        };
        let (first, second) = (read(&left, &mut one), read(&right, &mut other));
        assert_eq!(first, second, "{} at {offset}, {length}", a.display());
        assert!(one[..first] == other[..first], "{} at {offset}, {length}", a.display());
    }
}

#[test]
fn a_mounted_snapshot_is_the_source_again_to_every_tool() {
    if !can_mount() {
        return;
    }
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    let source = odd_tree(dir.path());
    agent.backup(&[&source]);
    let mounted = Mounted::start(&agent, &dir.path().join("mnt"), &["--snapshot", "latest"]);
    let seen = mounted.point.join(source.strip_prefix("/").expect("absolute"));
    compare::same_content(&source, &seen);
    compare::same_attributes(&source, &seen);
    compare::same_acls_and_xattrs(&source, &seen);
    compare::same_hard_links(&source, &seen);
    compare::same_holes(&source.join("holes"), &seen.join("holes"));
    for file in ["big", "text", "holes", "sub/a"] {
        same_ranges(&source.join(file), &seen.join(file), 60);
    }
    // Holes are told, so copies stay sparse.
    let out = dir.path().join("copy");
    sh(dir.path(), &format!("cp --sparse=auto {} {}", seen.join("holes").display(), out.display()));
    compare::same_holes(&source.join("holes"), &out);
    sh(
        &seen,
        "tar -cSf - . | tar -tf - | wc -l; test -p fifo; test -S many/socket; df . | grep everhold",
    );
    if is_root() {
        sh(
            &seen,
            "test \"$(stat -c '%F %t %T' device block | tr '\\n' ,)\" = 'character special file 1 3,block special file 103 11170,'",
        );
        // Shown, not usable.
        assert!(File::open(seen.join("device")).is_err());
    }
    let options = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let line = options.lines().find(|line| line.contains("mnt ")).expect("our line");
    assert!(line.contains("ro,nosuid,nodev,noatime"), "{line}");
    let read_only = rustix::io::Errno::ROFS.raw_os_error();
    let errors = [
        fs::write(seen.join("new"), "x").expect_err("new file"),
        fs::write(seen.join("text"), "x").expect_err("write"),
        fs::remove_file(seen.join("text")).expect_err("unlink"),
        fs::create_dir(seen.join("folder")).expect_err("mkdir"),
        fs::rename(seen.join("text"), seen.join("text2")).expect_err("rename"),
        fs::set_permissions(seen.join("text"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect_err("chmod"),
    ];
    for error in errors {
        assert_eq!(error.raw_os_error(), Some(read_only), "{error}");
    }
    mounted.stop();
}

/// Content of every file below a folder, by eight threads in different orders.
fn read_by_eight(a: &Path, b: &Path) {
    let listed = sh(a, "find . -type f -size -4M | LC_ALL=C sort");
    let files: Vec<&str> = listed.lines().filter(|name| !name.contains('\u{fffd}')).collect();
    assert!(files.len() > 100);
    std::thread::scope(|scope| {
        for reader in 0..8_usize {
            let files = &files;
            scope.spawn(move || {
                let skip = reader * files.len() / 8;
                for name in files.iter().cycle().skip(skip).take(files.len()) {
                    let same = fs::read(a.join(name)).expect("source")
                        == fs::read(b.join(name)).expect("mounted");
                    assert!(same, "{name}");
                }
            });
        }
    });
}

#[test]
fn all_snapshots_are_there_by_date_and_large_folders_and_many_readers_are_fine() {
    if !can_mount() {
        return;
    }
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    let source = odd_tree(dir.path());
    agent.backup(&[&source]);
    let point = dir.path().join("mnt");
    let mounted = Mounted::start(&agent, &point, &[]);
    let names = || sh(&point, "LC_ALL=C ls").lines().map(str::to_owned).collect::<Vec<_>>();
    let first = names();
    assert_eq!((first.len(), first[1].as_str()), (2, "latest"), "{first:?}");
    assert_eq!(first[0].len(), "2026-11-22T10-30-00Z".len(), "{first:?}");
    let inside = source.strip_prefix("/").expect("absolute");
    compare::same_content(&source, &point.join("latest").join(inside));
    read_by_eight(&source, &point.join(&first[0]).join(inside));

    // A second snapshot appears without mounting again, and the first one stays what it was.
    sh(
        &source,
        "mkdir large; cd large; for i in $(seq 20000); do : > entry-$i; done; echo new > ../text",
    );
    agent.backup(&[&source]);
    let both = wait_for("the new snapshot", Duration::from_secs(60), || {
        Some(names()).filter(|names| names.len() == 3)
    });
    let newest = fs::read_link(point.join("latest")).expect("link");
    assert_eq!(newest, Path::new(&both[1]));
    let count = |from: &Path| sh(from, "ls -f large | grep -c entry-").trim().to_owned();
    assert_eq!(count(&point.join(&both[1]).join(inside)), "20000");
    let large = "LC_ALL=C ls -l --time-style=full-iso large | tail -n +2 | sha256sum";
    assert_eq!(sh(&point.join(&both[1]).join(inside), large), sh(&source, large));
    let text = |name: &str| fs::metadata(point.join(name).join(inside).join("text")).expect("stat");
    assert_eq!((text(&both[0]).len(), text(&both[1]).len()), (3_000_000, 4));
    mounted.stop();
}

#[test]
fn the_mount_of_a_killed_agent_is_taken_away_by_the_next_one() {
    if !can_mount() {
        return;
    }
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    let source = odd_tree(dir.path());
    agent.backup(&[&source]);
    let point = dir.path().join("mnt");
    let mut mounted = Mounted::start(&agent, &point, &[]);
    let refused = agent.run(["mount".as_ref(), point.as_os_str()]).expect(1);
    assert!(refused.stderr.contains("mounted already"), "{}", refused.stderr);
    mounted.kill();
    let dead = fs::read_dir(&point).expect_err("a dead mount");
    assert_eq!(dead.raw_os_error(), Some(rustix::io::Errno::NOTCONN.raw_os_error()), "{dead}");
    let again = Mounted::start(&agent, &point, &[]);
    assert!(again.log().contains("killed"), "{}", again.log());
    let inside = source.strip_prefix("/").expect("absolute");
    compare::same_content(&source.join("many"), &point.join("latest").join(inside).join("many"));

    // While somebody is in it, it still goes.
    let open = File::open(point.join("latest").join(inside).join("big")).expect("open");
    again.stop();
    assert!(open.read_at(&mut [0; 10], 5_000_000).is_err(), "nobody answers any more");
    // And without an agent's help.
    let last = Mounted::start(&agent, &point, &[]);
    tool("umount", &[point.as_ref()]).expect(0);
    let mut last = last;
    let status = wait_for("the agent to notice", Duration::from_secs(20), || {
        last.child.try_wait().expect("wait")
    });
    assert!(status.success(), "{status}: {}", last.log());

    fs::write(point.join("mine"), "x").expect("write");
    let refused = agent.run(["mount".as_ref(), point.as_os_str()]).expect(1);
    assert!(refused.stderr.contains("not empty"), "{}", refused.stderr);
}

#[test]
fn what_cannot_be_believed_is_an_input_error_and_never_other_bytes() {
    if !can_mount() {
        return;
    }
    let scene = Faulty::start();
    let source = scene.source();
    scene.agent.backup(&[&source]);
    let point = scene.dir.path().join("mnt");
    let mounted = Mounted::start(&scene.agent, &point, &["--snapshot", "latest"]);
    let seen = point.join(source.strip_prefix("/").expect("absolute"));
    assert_eq!(
        fs::read(seen.join("small-0")).expect("read"),
        fs::read(source.join("small-0")).expect("read")
    );
    // From now on every answer has a bit turned in each stretch that matters.
    scene.store.add(Rule::new(Fault::FlipBit { at: 1_000 }).when(is_get).for_ever());
    let bad = fs::read(seen.join("noise-5"));
    assert_eq!(
        bad.expect_err("damaged").raw_os_error(),
        Some(rustix::io::Errno::IO.raw_os_error())
    );
    assert!(scene.store.struck() > 0);
    assert!(mounted.log().contains("noise-5"), "{}", mounted.log());
    scene.store.clear();
    // A store that answers badly and then well is no lasting harm.
    for fault in [Fault::s3_error(500, "InternalError"), Fault::html_as_200(), Fault::Refuse] {
        scene.store.add(Rule::new(fault).when(is_get));
    }
    compare::same_content(&source, &seen);
    assert_eq!(
        fs::read(seen.join("noise-5")).expect("read"),
        fs::read(source.join("noise-5")).expect("read")
    );
    mounted.stop();
}
