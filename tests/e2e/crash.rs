//! Kill -9 of each part in the middle of a backup: the next backup succeeds without hands, and every earlier
//! snapshot restores.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    compare,
    harness::{Agent, Platform, folder, noise, psql, wait_for},
};

struct Scene {
    dir: tempfile::TempDir,
    platform: Platform,
    agent: Agent,
    small: PathBuf,
    large: PathBuf,
    first: String,
}

/// A platform with one committed snapshot of a small folder, and a large folder whose backup takes a while.
fn scene() -> Scene {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    let small = dir.path().join("small");
    let large = dir.path().join("large");
    fs::create_dir(&small).expect("mkdir");
    fs::create_dir(&large).expect("mkdir");
    for i in 0..200 {
        fs::write(small.join(format!("file-{i}")), format!("content {i}\n").repeat(i))
            .expect("write");
    }
    // Incompressible, so that many packs must travel.
    for i in 0..24 {
        fs::write(large.join(format!("noise-{i}")), noise(i, 8 << 20)).expect("write");
    }
    let first = agent.backup(&[&small])["snapshot_id"].as_str().expect("id").to_owned();
    Scene { dir, platform, agent, small, large, first }
}

impl Scene {
    /// Starts the large backup and waits until packs are on their way into the store.
    fn backup_under_way(&self) -> Child {
        let before = stored_bytes(&self.platform.state);
        let child = self
            .agent
            .command()
            .args(["backup", "--json", "--limit-upload", "20M", "--checkpoint-every", "1"])
            .arg(&self.large)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("agent");
        wait_for("packs to travel", Duration::from_secs(60), || {
            (stored_bytes(&self.platform.state) > before + (60 << 20)).then_some(())
        });
        child
    }

    /// Whether the catalog knows a checkpoint of the backup under way and all packs before it, whose order on the line
    /// is nobody's promise. A copy of it in the agent's cache is older.
    fn has_checkpoint(&self) -> bool {
        let known = "SELECT count(*) > 0 FROM catalog.packs m WHERE kind = 'meta' AND state = 'uploaded' \
                     AND NOT EXISTS (SELECT FROM generate_series(1, m.seq) seq WHERE NOT EXISTS (\
                     SELECT FROM catalog.packs d WHERE d.session_id = m.session_id AND d.seq = seq.seq \
                     AND d.state = 'uploaded'))";
        psql(&self.platform, known).trim() == "t"
    }

    /// The claim itself. Gives what the next backup said.
    fn recovers(&self) -> Value {
        let again = self.agent.backup(&[&self.large]);
        assert_eq!(again["status"], "succeeded", "{again}");
        for (snapshot, source) in [
            (self.first.as_str(), &self.small),
            (again["snapshot_id"].as_str().expect("id"), &self.large),
        ] {
            let target = self.dir.path().join(format!("out-{snapshot}"));
            self.agent.restore(snapshot, &target);
            compare::same_content(
                source,
                &target.join(source.strip_prefix("/").expect("absolute")),
            );
        }
        self.agent.run(["verify", "--read-data"]).expect(0);
        again
    }
}

fn stored_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .filter(|entry| entry.file_name() != "postgres")
        .map(|entry| match entry.metadata() {
            Ok(m) if m.is_dir() => stored_bytes(&entry.path()),
            Ok(m) => m.len(),
            Err(_) => 0,
        })
        .sum()
}

/// The folder of the private cluster, wherever below the state folder it is.
fn postmaster(dir: &Path) -> Option<Pid> {
    let entries = fs::read_dir(dir).ok()?;
    for entry in entries.flatten() {
        if entry.file_name() == "postmaster.pid" {
            let text = fs::read_to_string(entry.path()).ok()?;
            return Pid::from_raw(text.lines().next()?.trim().parse().ok()?);
        }
        if entry.file_type().is_ok_and(|t| t.is_dir())
            && let Some(pid) = postmaster(&entry.path())
        {
            return Some(pid);
        }
    }
    None
}

#[test]
fn the_agent_killed_in_the_middle_backs_up_next_time() {
    let scene = scene();
    let mut backup = scene.backup_under_way();
    wait_for("a checkpoint in the catalog", Duration::from_secs(60), || {
        scene.has_checkpoint().then_some(())
    });
    backup.kill().expect("kill -9");
    backup.wait().expect("reap");
    let again = scene.recovers();
    // It went on from a checkpoint: files of before are not read again, and nothing of them is stored twice.
    let all = 24 * (8 << 20);
    for what in ["read_bytes", "new_bytes"] {
        let bytes = again[what].as_u64().expect("bytes");
        assert!(bytes <= all - (8 << 20), "{what}: {again}");
    }
}

#[test]
fn the_server_and_its_store_killed_in_the_middle_lose_nothing() {
    let mut scene = scene();
    let mut backup = scene.backup_under_way();
    scene.platform.kill_and_restart();
    backup.wait().expect("the agent ends by itself, well or not");
    scene.recovers();
}

#[test]
fn postgres_killed_in_the_middle_comes_back_and_loses_nothing() {
    let scene = scene();
    let mut backup = scene.backup_under_way();
    let pid = postmaster(&scene.platform.state).expect("the cluster runs");
    kill_process(pid, Signal::KILL).expect("kill -9");
    backup.wait().expect("the agent ends by itself, well or not");
    wait_for("the cluster to be started again", Duration::from_secs(60), || {
        postmaster(&scene.platform.state).filter(|now| *now != pid)
    });
    scene.recovers();
}

#[test]
fn a_second_start_finds_the_earlier_data_and_the_same_passwords() {
    let mut scene = scene();
    let password = scene.platform.get("/tenant/password").to_owned();
    let (state, token) =
        (scene.platform.state.clone(), scene.platform.get("/enrolment_token").to_owned());
    scene.platform.stop();
    assert!(!state.join("postgres/postmaster.pid").exists());
    let again = Platform::start(&state);
    assert_eq!(again.get("/tenant/password"), password);
    assert_ne!(again.get("/enrolment_token"), token, "a fresh token is minted at every start");
    let listed = scene.agent.run(["snapshots", "--json"]);
    // The port may have changed: the agent must be told, or find the server at the same one.
    let listed = listed.expect(0).json();
    assert_eq!(listed[0]["id"], scene.first.as_str());
}
