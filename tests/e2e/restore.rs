//! What was backed up comes back: bit for bit, attribute for attribute, and what could not be read is said.

use std::{
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
};

use serde_json::Value;

use crate::{
    compare,
    harness::{Agent, Platform, Said, folder, is_root, noise, tool},
};

fn setup() -> (tempfile::TempDir, Platform, Agent) {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    (dir, platform, agent)
}

fn sh(dir: &Path, script: &str) {
    let status =
        Command::new("bash").args(["-euc", script]).current_dir(dir).status().expect("bash");
    assert!(status.success(), "{script}");
}

#[test]
fn system_folders_come_back_equal_in_every_attribute() {
    if !is_root() {
        eprintln!("skipped: reading and restoring owners needs root");
        return;
    }
    let (dir, _platform, agent) = setup();
    let said = agent.backup(&[Path::new("/usr/share"), Path::new("/etc")]);
    assert_eq!(said["status"], "succeeded", "{said}");
    let target = dir.path().join("out");
    agent.restore("latest", &target);
    for source in ["/usr/share", "/etc"] {
        let (source, restored) = (Path::new(source), target.join(&source[1..]));
        compare::same_content(source, &restored);
        compare::same_attributes(source, &restored);
        compare::same_acls_and_xattrs(source, &restored);
        compare::same_hard_links(source, &restored);
    }
}

#[test]
fn acls_xattrs_hard_links_and_holes_are_kept() {
    let (dir, _platform, agent) = setup();
    let source = dir.path().join("source");
    fs::create_dir(&source).expect("mkdir");
    sh(
        &source,
        "
        mkdir -m 2751 sub; echo one > sub/a; ln sub/a sub/b; ln sub/a c
        setfattr -n user.note -v hello sub/a; setfacl -m u:1:r sub/a; setfacl -d -m g:2:rx sub
        ln -s missing dangling; ln -s loop2 loop1; ln -s loop1 loop2
        truncate -s 50M holes; printf x | dd of=holes bs=1 seek=20M conv=notrunc status=none
        : > empty; mkdir nothing; touch -d '1969-12-31T23:59:59.123456789Z' old
        head -c 3000000 /dev/urandom > big; chmod 0000 nothing; chmod 4755 empty",
    );
    let said = agent.backup(&[&source]);
    assert_eq!(
        said["exceptions"].as_array().map(Vec::len),
        Some(if is_root() { 0 } else { 1 }),
        "{said}"
    );
    let target = dir.path().join("out");
    agent.restore("latest", &target);
    let restored = target.join(source.strip_prefix("/").expect("absolute"));
    compare::same_content(&source, &restored);
    compare::same_attributes(&source, &restored);
    compare::same_acls_and_xattrs(&source, &restored);
    compare::same_hard_links(&source, &restored);
    compare::same_holes(&source.join("holes"), &restored.join("holes"));
}

#[test]
fn ten_tebibytes_of_holes_are_kept_within_the_promised_memory() {
    const SIZE: u64 = 10 << 40;
    let (dir, _platform, agent) = setup();
    let source = dir.path().join("source");
    fs::create_dir(&source).expect("mkdir");
    let file = fs::File::create(source.join("disk.img")).expect("create");
    file.set_len(SIZE).expect("a file system with files of 10 TiB");
    let data = noise(9, 300_000);
    // At its beginning, across an odd place in its middle, and up to its last byte.
    let places = [0, SIZE / 2 + 4_097, SIZE - data.len() as u64];
    let write = |at: u64| file.write_all_at(&data, at).expect("write");
    places.into_iter().for_each(write);
    let within = |what: &str, (said, peak): (Said, u64), most: u64| {
        let said = said.expect(0);
        println!("{what}: {} MB at most", peak / 1_000_000);
        assert!((1..=most).contains(&peak), "{what}: {peak} bytes of memory");
        said.last_json()
    };
    let path = source.as_os_str();
    let backup = ["backup".as_ref(), "--json".as_ref(), path];
    within("first backup", agent.run_measured(backup), 192_000_000);
    write(SIZE / 4);
    let small = [&backup[..], &["--memory".as_ref(), "small".as_ref()]].concat();
    let said = within("changed, small", agent.run_measured(small), 96_000_000);
    assert_eq!(said["source_bytes"], SIZE, "{said}");

    let target = dir.path().join("out");
    let target_path = target.as_os_str();
    let restore: [&std::ffi::OsStr; 5] = [
        "restore".as_ref(),
        "latest".as_ref(),
        "--json".as_ref(),
        "--target".as_ref(),
        target_path,
    ];
    within("restore", agent.run_measured(restore), 128_000_000);
    let restored = target.join(source.strip_prefix("/").expect("absolute")).join("disk.img");
    compare::same_holes(&source.join("disk.img"), &restored);
    let restored = fs::File::open(restored).expect("restored");
    for at in places.into_iter().chain([SIZE / 4]) {
        let mut got = vec![0; data.len()];
        restored.read_exact_at(&mut got, at).expect("read");
        assert!(got == data, "at {at}");
    }
}

#[test]
fn a_folder_of_oddities_ends_listed_and_the_rest_restores() {
    let (dir, _platform, agent) = setup();
    let source = dir.path().join("odd");
    fs::create_dir(&source).expect("mkdir");
    sh(
        &source,
        r#"
        printf x > "$(printf 'not\xffutf8')"; mkfifo fifo; ln -s nowhere dangling; ln -s loop loop
        truncate -s 5G sparse; printf end | dd of=sparse bs=1 seek=5G conv=notrunc status=none
        echo good > good; echo secret > unreadable; chmod 000 unreadable; : > growing
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'"#,
    );
    if is_root() {
        sh(&source, "mknod device c 1 3");
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let mut writer = Command::new("bash")
        .args([
            "-c",
            "for i in $(seq 600); do head -c 200000 /dev/zero >> growing; sleep 0.02; done",
        ])
        .current_dir(&source)
        .spawn()
        .expect("writer");
    let said = agent.run(["backup".as_ref(), "--json".as_ref(), source.as_os_str()]);
    writer.kill().expect("kill writer");
    writer.wait().expect("reap writer");
    let result = said.last_json();
    let kinds: Vec<&str> = result["exceptions"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|e| e["kind"].as_str())
        .collect();
    // As root nothing is unreadable; the growing file may be caught in the act or not.
    let expected = if kinds.is_empty() { 0 } else { 3 };
    let said = said.expect(expected);
    assert_eq!(said.last_json()["exceptions"].as_array().map(Vec::len), Some(kinds.len()));
    if !is_root() {
        assert!(kinds.contains(&"unreadable"), "{result}");
    }
    assert!(
        !result.to_string().contains("socket"),
        "a socket is recorded, not an exception: {result}"
    );

    let target = dir.path().join("out");
    let restored =
        agent.run(["restore".as_ref(), "latest".as_ref(), "--target".as_ref(), target.as_os_str()]);
    assert!(matches!(restored.code, 0 | 3), "{}", restored.stderr);
    let out = target.join(source.strip_prefix("/").expect("absolute"));
    let same = "diff good $OUT/good && cmp \"$(printf 'not\\xffutf8')\" \"$OUT/$(printf 'not\\xffutf8')\" && test -p $OUT/fifo && test -L $OUT/dangling && test -L $OUT/loop && cmp sparse $OUT/sparse";
    sh(&source, &same.replace("$OUT", &out.display().to_string()));
    compare::same_holes(&source.join("sparse"), &out.join("sparse"));
    if is_root() {
        sh(&out, "test \"$(stat -c '%F %t %T' device)\" = 'character special file 1 3'");
    }
}

#[test]
fn an_unreadable_file_is_an_exception_for_a_normal_user() {
    if !is_root() {
        eprintln!("skipped here: the test above covers it for a normal user");
        return;
    }
    let (dir, platform, _) = setup();
    let user = dir.path().join("user");
    fs::create_dir(&user).expect("mkdir");
    sh(
        &user,
        "mkdir data; echo good > data/good; echo secret > data/unreadable; chmod 600 data/unreadable; chown -R 65534 .; chown 0 data/unreadable",
    );
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    // The build folder may be closed to others: the normal user runs a copy.
    let program = user.join("everhold-agent");
    fs::copy(crate::harness::bin("everhold-agent"), &program).expect("copy");
    let run = |args: &[&str]| {
        let mut all = vec!["--reuid=65534", "--regid=65534", "--clear-groups", "env"];
        let home = format!("EVERHOLD_AGENT_HOME={}", user.join("home").display());
        let program = program.display().to_string();
        all.extend([home.as_str(), program.as_str()]);
        all.extend(args);
        let all: Vec<&std::ffi::OsStr> = all.iter().map(AsRef::as_ref).collect();
        tool("setpriv", &all)
    };
    let (url, token) = (platform.get("/api_url"), platform.get("/enrolment_token"));
    run(&["enroll", "--server", url, "--token", token]).expect(0);
    let data = user.join("data").display().to_string();
    let result: Value = run(&["backup", "--json", &data]).expect(3).last_json();
    assert_eq!(result["status"], "succeeded_with_exceptions");
    let exceptions = result["exceptions"].as_array().expect("a list");
    assert_eq!(exceptions.len(), 1, "{result}");
    assert_eq!(exceptions[0]["kind"], "unreadable");
    assert_eq!(exceptions[0]["path"], format!("{data}/unreadable"));
    let out = user.join("out").display().to_string();
    run(&["restore", "latest", "--target", &out]);
    assert_eq!(fs::read_to_string(format!("{out}{data}/good")).expect("restored"), "good\n");
}
