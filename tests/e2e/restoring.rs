//! Restores through real processes: killed in the middle, held to a bandwidth, into pipes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{
    compare,
    harness::{Agent, Platform, folder, noise, wait_for},
};

struct Scene {
    dir: tempfile::TempDir,
    _platform: Platform,
    agent: Agent,
    source: PathBuf,
}

/// A snapshot of some small files and of noise that does not compress: so many mebibytes of it.
fn scene(mebibytes: u64) -> Scene {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    let source = dir.path().join("source");
    fs::create_dir(&source).expect("mkdir");
    for at in 0..300 {
        fs::write(source.join(format!("small-{at}")), format!("{at}\n").repeat(at)).expect("write");
    }
    for at in 0..mebibytes / 8 {
        fs::write(source.join(format!("noise-{at}")), noise(at, 8 << 20)).expect("write");
    }
    agent.backup(&[&source]);
    Scene { dir, _platform: platform, agent, source }
}

impl Scene {
    fn restore(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.agent.command();
        command.args(["restore", "latest", "--json"]).args(args);
        command.arg("--target").arg(self.target());
        command
    }
    fn target(&self) -> PathBuf {
        self.dir.path().join("out")
    }
    fn arrived(&self) -> PathBuf {
        self.target().join(self.source.strip_prefix("/").expect("absolute"))
    }
}

fn allocated(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let blocks = entries.filter_map(|entry| entry.metadata().ok());
    blocks.map(|meta| std::os::unix::fs::MetadataExt::blocks(&meta) * 512).sum()
}

#[test]
fn a_restore_killed_in_the_middle_goes_on_where_it_was() {
    let scene = scene(96);
    let mut first = scene
        .restore(&["--limit-download", "30M"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("agent");
    wait_for("some of it to arrive", Duration::from_secs(60), || {
        (allocated(&scene.arrived()) > 32 << 20).then_some(())
    });
    first.kill().expect("kill -9");
    first.wait().expect("reap");
    assert!(scene.target().join(".everhold-restoring").exists(), "it was in the middle");
    let again = scene.restore(&["--verify"]).output().expect("agent");
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    let said: serde_json::Value = serde_json::from_slice(&again.stdout).expect("json");
    let number = |name: &str| said[name].as_u64().expect("a number");
    let there = number("matched_bytes") + number("kept") * 1_000;
    assert!(there > 0, "{said}");
    assert!(number("restored_bytes") < 96 << 20, "it did not begin anew: {said}");
    assert_eq!(number("verified"), 300 + 12);
    compare::same_content(&scene.source, &scene.arrived());
    compare::same_attributes(&scene.source, &scene.arrived());
    let left = fs::read_dir(scene.arrived()).expect("list").flatten();
    assert_eq!(left.filter(|e| e.file_name().to_string_lossy().starts_with('.')).count(), 0);
}

#[test]
fn a_limit_on_downloads_is_held() {
    let scene = scene(48);
    let started = Instant::now();
    let done = scene.restore(&["--limit-download", "8M"]).output().expect("agent");
    let took = started.elapsed().as_secs_f64();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    // 48 MiB at 8 MiB/s; a busy machine may be slower, never faster.
    assert!(took > 6.0 * 0.95, "{took} s");
    compare::same_content(&scene.source, &scene.arrived());
}

#[test]
fn limits_on_reads_and_uploads_are_held() {
    let scene = scene(8);
    for (seed, limit) in [(100, "--limit-read"), (200, "--limit-upload")] {
        let source = scene.dir.path().join(limit);
        fs::create_dir(&source).expect("mkdir");
        fs::write(source.join("noise"), noise(seed, 24 << 20)).expect("write");
        let started = Instant::now();
        let mut agent = scene.agent.command();
        let done = agent.args(["backup", "--json", limit, "8M"]).arg(&source).output();
        let took = started.elapsed().as_secs_f64();
        let done = done.expect("agent");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        // 24 MiB at 8 MiB/s; a busy machine may be slower, never faster.
        assert!(took > 3.0 * 0.95, "{limit}: {took} s");
    }
}

#[test]
fn one_file_and_a_folder_go_into_pipes() {
    let scene = scene(8);
    let path = scene.source.join("noise-0").display().to_string();
    let mut file = scene.agent.command();
    file.args(["restore", "latest", "--stdout", "--path", &path]);
    let file = file.output().expect("agent");
    assert!(file.status.success(), "{}", String::from_utf8_lossy(&file.stderr));
    assert!(file.stdout == fs::read(&path).expect("read"));
    let target = scene.dir.path().join("untarred");
    fs::create_dir(&target).expect("mkdir");
    let mut agent = scene.agent.command();
    agent.args(["restore", "latest", "--tar", "--path"]).arg(&scene.source);
    let mut agent = agent.stdout(Stdio::piped()).spawn().expect("agent");
    let archive = agent.stdout.take().expect("pipe");
    let mut tar = std::process::Command::new("tar");
    tar.args(["-x", "-p", "-C"]).arg(&target).stdin(archive);
    assert!(tar.status().expect("tar").success());
    assert!(agent.wait().expect("agent").success());
    let untarred = target.join(scene.source.strip_prefix("/").expect("absolute"));
    compare::same_content(&scene.source, &untarred);
    compare::same_attributes(&scene.source, &untarred);
}
