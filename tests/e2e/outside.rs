//! Others reading and writing: our decoder in Python, restic and rclone on our store, SeaweedFS under our platform.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::{FileExt as _, symlink},
    path::Path,
};

use crate::{
    borders::python,
    compare,
    harness::{Agent, Platform, bin, folder, is_root, noise, root, tool},
};

#[test]
fn the_python_decoder_restores_a_vault_from_bucket_key_store_and_kit() {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let kit = dir.path().join("kit.json");
    let agent = Agent::enrol(&platform, &dir.path().join("home"), Some(&kit));
    let source = dir.path().join("source");
    // Trees of several levels, files with lists of chunks, several packs, a bundle, a hole.
    for folder in 0..20 {
        let folder = source.join(format!("folder {folder}"));
        fs::create_dir_all(&folder).expect("mkdir");
        for file in 0..150 {
            fs::write(folder.join(format!("{file}.txt")), format!("{file} of {folder:?}"))
                .expect("write");
        }
    }
    let mut noise = noise(300, 40 << 20);
    fs::write(source.join("large"), &noise).expect("write");
    let sparse = fs::File::create(source.join("sparse")).expect("create");
    sparse.set_len(3 << 20).expect("length");
    sparse.write_all_at(b"in the middle", 1 << 20).expect("write");
    symlink("folder 7/7.txt", source.join("link")).expect("link");
    fs::write(source.join("empty"), "").expect("write");

    let mut kept = Vec::new();
    for round in 0..3_usize {
        // Changed, gone and new: every snapshot but the first is a difference.
        noise[round << 23] ^= 1;
        fs::write(source.join("large"), &noise).expect("write");
        fs::write(source.join(format!("folder {round}/1.txt")), "changed").expect("write");
        fs::remove_file(source.join(format!("folder {round}/2.txt"))).expect("remove");
        fs::write(source.join(format!("new {round}")), format!("new in {round}")).expect("write");
        let snapshot = agent.backup(&[&source])["snapshot_id"].as_str().expect("an id").to_owned();
        let copy = dir.path().join(format!("as it was {round}"));
        tool("cp", &["-a".as_ref(), source.as_ref(), copy.as_ref()]).expect(0);
        kept.push((snapshot, copy));
    }

    let decoder = root().join("tests/decoder/everhold_decode.py");
    let dev = platform.state.join("dev.json");
    let decode = |snapshot: &str, rest: &[&OsStr]| {
        let base: [&OsStr; 6] = [
            "--dev-json".as_ref(),
            dev.as_ref(),
            "--kit".as_ref(),
            kit.as_ref(),
            "--snapshot".as_ref(),
            snapshot.as_ref(),
        ];
        python(&decoder, &[&base[..], rest].concat())
    };
    for (round, (snapshot, copy)) in kept.iter().enumerate() {
        let out = dir.path().join(format!("restored {round}"));
        decode(snapshot, &["restore".as_ref(), out.as_ref()]);
        let restored = out.join(source.strip_prefix("/").expect("absolute"));
        compare::same_content(copy, &restored);
        let times = "find . -type f -printf '%m %T@ %p\n' | LC_ALL=C sort -k3";
        compare::same_listing(copy, &restored, "modes and times", times);
        let verified = decode(snapshot, &["verify".as_ref()]);
        assert!(verified.starts_with("verified "), "{verified}");
    }
    let path = source.join("folder 1/1.txt");
    let listed = decode("latest", &["list".as_ref()]);
    assert!(listed.contains(path.to_str().expect("UTF-8")), "{listed}");
    let out = dir.path().join("extracted");
    decode("latest", &["extract".as_ref(), path.as_ref(), out.as_ref()]);
    assert_eq!(fs::read_to_string(out).expect("extracted"), "changed");
}

#[test]
fn restic_and_rclone_work_against_the_embedded_store() {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let dev = platform.state.join("dev.json");
    for script in ["restic.sh", "rclone.sh"] {
        let path = root().join("tests/strangers").join(script);
        tool("bash", &[path.as_ref(), dev.as_ref()]).expect(0);
    }
}

#[test]
fn the_probe_passes_on_the_embedded_store() {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let server = bin("everhold").display().to_string();
    let said = tool(
        &server,
        &[
            "store".as_ref(),
            "probe".as_ref(),
            "--json".as_ref(),
            "--state".as_ref(),
            platform.state.as_ref(),
        ],
    )
    .expect(0);
    let report: serde_json::Value = said.json();
    let cases = report["cases"].as_array().expect("cases");
    assert!(cases.len() > 15, "{report}");
    assert!(cases.iter().all(|case| case["outcome"] == "pass"), "{report:#}");
}

#[test]
fn the_whole_job_runs_on_seaweedfs_too() {
    let dir = folder();
    let script = root().join("scripts/seaweedfs.sh");
    let store = dir.path().join("seaweedfs");
    struct Stop<'a>(&'a Path, &'a Path);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            tool("bash", &[self.0.as_ref(), "stop".as_ref(), self.1.as_ref()]);
        }
    }
    let _stop = Stop(&script, &store);
    tool("bash", &[script.as_ref(), "start".as_ref(), store.as_ref()]).expect(0);
    let settings = store.join("store.toml");
    let platform =
        Platform::start_with(&dir.path().join("state"), &["--store".as_ref(), settings.as_ref()]);
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    let source = dir.path().join("source");
    fs::create_dir(&source).expect("mkdir");
    for i in 0..300 {
        fs::write(source.join(format!("file-{i}")), format!("{i}").repeat(i * 7)).expect("write");
    }
    agent.backup(&[&source]);
    let target = dir.path().join("out");
    agent.restore("latest", &target);
    compare::same_content(&source, &target.join(source.strip_prefix("/").expect("absolute")));
}

#[test]
fn the_main_job_of_make_run_passes_and_finds_its_data_again() {
    let dir = folder();
    let state = dir.path().join("state");
    let (server, agent) = (bin("everhold"), bin("everhold-agent"));
    for start in 0..3 {
        if start == 2 {
            // Somebody else has the port by now: the platform has another, and its agent follows.
            let ports = fs::read(state.join("ports.json")).expect("ports");
            let ports: serde_json::Value = serde_json::from_slice(&ports).expect("JSON");
            let port = u16::try_from(ports["public"].as_u64().expect("a port")).expect("a port");
            let listener = TcpListener::bind(("127.0.0.1", port));
            std::thread::spawn(move || {
                // Where it is not free, the platform of another test has it.
                for caller in listener.iter().flat_map(TcpListener::incoming) {
                    let nothing = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
                    let _ = caller.and_then(|mut caller| caller.write_all(nothing));
                }
            });
        }
        let args: [&OsStr; 6] = [
            "demo".as_ref(),
            "--once".as_ref(),
            "--state".as_ref(),
            state.as_ref(),
            "--agent".as_ref(),
            agent.as_ref(),
        ];
        let said = tool(&server.display().to_string(), &args).expect(0);
        assert!(said.stdout.contains("refused"), "the refused deletion is shown:\n{}", said.stdout);
        let again = said.stdout.contains("enrolled by an earlier start");
        assert_eq!(again, start > 0, "{}", said.stdout);
        let followed = said.stdout.contains("the platform is at ");
        // Another test may have had the port the second time.
        assert!(followed || start < 2, "{}", said.stdout);
    }
}

#[test]
fn the_main_job_passes_for_a_normal_user() {
    if !is_root() {
        eprintln!("skipped here: the test above ran as a normal user already");
        return;
    }
    let dir = folder();
    // The build folder may be closed to others: the normal user runs copies.
    for program in ["everhold", "everhold-agent"] {
        fs::copy(bin(program), dir.path().join(program)).expect("copy");
    }
    let path = |name: &str| dir.path().join(name).display().to_string();
    tool("chown", &["-R".as_ref(), "65534:65534".as_ref(), dir.path().as_ref()]).expect(0);
    let (server, agent, state) = (path("everhold"), path("everhold-agent"), path("state"));
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let job = [server.as_str(), "demo", "--once", "--state", &state, "--agent", &agent];
    let args: Vec<&OsStr> = user.iter().chain(&job).map(OsStr::new).collect();
    let said = tool("setpriv", &args).expect(0);
    assert!(said.stdout.contains("all equal"), "{}", said.stdout);
}
