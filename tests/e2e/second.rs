//! The second copy, through real processes: copied, the first store destroyed, restored from the second, repaired,
//! restored from the first again, and opened from the second alone.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    compare,
    faulty::{devstore, noisy},
    harness::{Agent, Platform, Said, bin, folder, tool},
};

/// `everhold admin … --json` about the agent's vault.
fn admin(platform: &Platform, vault: &str, what: &[&str], more: &[&str]) -> Said {
    let mut args: Vec<&OsStr> = vec!["admin".as_ref()];
    args.extend(what.iter().map(OsStr::new));
    args.extend(["--state".as_ref(), platform.state.as_os_str()]);
    args.extend(["--tenant", platform.get("/tenant/id"), "--vault", vault].map(OsStr::new));
    args.extend(more.iter().map(OsStr::new));
    args.push("--json".as_ref());
    tool(&bin("everhold").display().to_string(), &args)
}

fn blobs(store: &Path) -> Vec<PathBuf> {
    let shards = fs::read_dir(store.join("blobs")).expect("blobs");
    let files = |shard: fs::DirEntry| fs::read_dir(shard.path()).expect("shard");
    let all = shards.flat_map(|shard| files(shard.expect("shard")));
    all.map(|blob| blob.expect("blob").path()).collect()
}

/// Restores without the agent's cache, compares, and gives the summary.
fn restored(agent: &Agent, source: &Path, target: &Path) -> Value {
    fs::remove_dir_all(agent.home.join("cache")).expect("cache");
    fs::create_dir(agent.home.join("cache")).expect("cache");
    let args = ["restore".as_ref(), "latest".as_ref(), "--target".as_ref(), target.as_os_str()];
    let said = agent.run(args.into_iter().chain([OsStr::new("--json")])).expect(0);
    compare::same_content(source, &target.join(source.strip_prefix("/").expect("absolute")));
    said.last_json()
}

#[test]
fn a_vault_lives_on_from_its_second_copy_and_is_repaired_from_it() {
    let dir = folder();
    fs::create_dir(dir.path().join("second")).expect("mkdir");
    let (process, address) = devstore(&dir.path().join("second"));
    let settings = dir.path().join("second.toml");
    let text = format!(
        "endpoint = \"http://{address}\"\naccess_key = \"admin\"\nsecret_key = \"a secret of this test\"\n"
    );
    fs::write(&settings, text).expect("settings");
    let args: [&OsStr; 2] = ["--copy-store".as_ref(), settings.as_ref()];
    let platform = Platform::start_with(&dir.path().join("state"), &args);
    let kit = dir.path().join("kit.json");
    let agent = Agent::enrol(&platform, &dir.path().join("home"), Some(&kit));
    let source = noisy(&dir.path().join("source"));
    agent.backup(&[&source]);
    fs::write(source.join("later"), "a second snapshot, built on the first").expect("write");
    agent.backup(&[&source]);

    let own: Value =
        serde_json::from_slice(&fs::read(agent.home.join("agent.json")).expect("state"))
            .expect("json");
    let vault = own["vault_id"].as_str().expect("its id").to_owned();
    let set = admin(&platform, &vault, &["replica", "set"], &["--store", "second"]).expect(0);
    assert_eq!(set.json()["snapshots_behind"], 2);
    let copied = admin(&platform, &vault, &["replica", "copy"], &[]);
    // The server's own worker may be at it this moment: then it does it.
    let copied = if copied.code == 0 { copied } else { wait(&platform, &vault) };
    assert_eq!(copied.json()["packs_behind"], 0);
    let whole = restored(&agent, &source, &dir.path().join("out-0"));
    assert_eq!(whole["second_copy_reads"], 0, "the first store is asked while it answers");

    // Every object of the first store is gone: it answers with errors.
    let store = platform.state.join("store");
    let (gone, away) = (blobs(&store), dir.path().join("away"));
    fs::create_dir(&away).expect("mkdir");
    for blob in &gone {
        fs::rename(blob, away.join(blob.file_name().expect("name"))).expect("moved");
    }
    let from_second = restored(&agent, &source, &dir.path().join("out-1"));
    assert!(from_second["second_copy_reads"].as_u64() > Some(0), "{from_second}");
    assert_eq!(from_second["problems"], Value::Array(Vec::new()));

    // They are back, and packs of content are rotten in their first halves, those of the second store in the others; no
    // chunk is in both.
    const CHUNK: usize = (1 << 20) + (1 << 16);
    let second = dir.path().join("second/store");
    let rot = |blob: &Path, length: usize, from: usize, to: usize| {
        let mut bytes = fs::read(blob).expect("read");
        assert_eq!(bytes.len(), length);
        (from..to).step_by(1 << 16).for_each(|at| bytes[at] ^= 1);
        fs::write(blob, bytes).expect("spoiled");
    };
    let large = |folder: &Path| {
        let all = blobs(folder).into_iter();
        let sized = all.map(|blob| (fs::metadata(&blob).expect("stat").len() as usize, blob));
        sized.filter(|(length, _)| *length > 1 << 20).collect::<Vec<_>>()
    };
    for blob in &gone {
        fs::copy(away.join(blob.file_name().expect("name")), blob).expect("back");
    }
    large(&store)
        .iter()
        .for_each(|(length, blob)| rot(blob, *length, 0, (length / 2).saturating_sub(CHUNK)));
    let of_second = large(&second);
    assert!(!of_second.is_empty(), "packs of content");
    of_second.iter().for_each(|(length, blob)| rot(blob, *length, length / 2, *length));
    let from_both = restored(&agent, &source, &dir.path().join("out-both"));
    assert_eq!(from_both["problems"], Value::Array(Vec::new()));
    of_second.iter().for_each(|(length, blob)| rot(blob, *length, length / 2, *length));

    // The second is whole again, and of the first every object has a wrong byte in each stretch of 64 KiB.
    for blob in &gone {
        fs::copy(away.join(blob.file_name().expect("name")), blob).expect("back");
        let length = fs::metadata(blob).expect("stat").len() as usize;
        rot(blob, length, length.min(1 << 16) / 2, length);
    }
    let from_second = restored(&agent, &source, &dir.path().join("out-2"));
    assert!(from_second["second_copy_reads"].as_u64() > Some(0), "{from_second}");
    let verified = agent.run(["verify", "latest", "--json"]);
    assert_ne!(verified.code, 0, "verification is about the first store: {}", verified.stdout);

    let found = admin(&platform, &vault, &["scrub"], &[]).expect(1).json();
    let bad = found["findings"].as_array().expect("findings").len();
    assert!(bad >= 4, "packs and manifests: {found}");
    let repaired = admin(&platform, &vault, &["scrub"], &["--repair"]).expect(0).json();
    assert_eq!(repaired["repaired"].as_array().expect("repaired").len(), bad);
    admin(&platform, &vault, &["scrub"], &[]).expect(0);

    // The first store stands on its own again, and backups go on.
    drop(process);
    let from_first = restored(&agent, &source, &dir.path().join("out-3"));
    assert_eq!(from_first["second_copy_reads"], 0);
    fs::write(source.join("last"), "after the repair").expect("write");
    agent.backup(&[&source]);
    agent.run(["verify", "latest", "--json"]).expect(0);
    fs::remove_file(source.join("last")).expect("remove");
    drop(platform);
    rescued(dir.path(), &kit, &source);
}

fn wait(platform: &Platform, vault: &str) -> Said {
    crate::harness::wait_for("the copy", std::time::Duration::from_secs(120), || {
        let said = admin(platform, vault, &["replica", "status"], &[]);
        (said.code == 0).then_some(said)
    })
}

/// No platform, no first store: the second one and the kit.
fn rescued(dir: &Path, kit: &Path, source: &Path) {
    let (_process, address) = devstore(&dir.join("second"));
    let (endpoint, target) = (format!("http://{address}"), dir.join("rescued"));
    let mut command = std::process::Command::new(bin("everhold-agent"));
    command.env("AWS_ACCESS_KEY_ID", "admin").env("AWS_SECRET_ACCESS_KEY", "a secret of this test");
    command.arg("rescue").arg("--kit").arg(kit);
    command.args(["--s3-endpoint", &endpoint, "--bucket", "everhold-vaults"]);
    command.args(["--key-bucket", "everhold-keys", "restore", "latest", "--to"]).arg(&target);
    let output = command.output().expect("agent runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    compare::same_content(source, &target.join(source.strip_prefix("/").expect("absolute")));
}
