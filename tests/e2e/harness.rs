//! Real processes for a test: the embedded platform, agents, and the tools a stranger would use.
//!
//! Owns starting, waiting and stopping; everything is stopped by process id when the test ends, however it
//! ends. Knows only what a user knows: command lines, `dev.json`, HTTP.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A program of this checkout, as built.
pub fn bin(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("a running test has a path");
    let profile = exe.parent().and_then(Path::parent).and_then(Path::file_name);
    // Not beside the test itself: intermediates may be shared by several checkouts (`build.build-dir`), and
    // another checkout's program must not be what is tested.
    let path = root().join("target").join(profile.expect("<profile>/deps/e2e")).join(name);
    assert!(
        path.exists(),
        "{} is not built: cargo build -p {name}, into target/ of this checkout (CARGO_TARGET_DIR=$PWD/target; intermediates may be elsewhere: CARGO_BUILD_BUILD_DIR)",
        path.display()
    );
    path
}

/// The project's folder.
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A short temporary folder (socket paths are short).
pub fn folder() -> TempDir {
    tempfile::Builder::new().prefix("evh-").tempdir().expect("temporary folder")
}

/// So many bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut noise = vec![0; length];
    let mut state = seed + 1;
    for block in noise.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.copy_from_slice(&state.to_le_bytes()[..block.len()]);
    }
    noise
}

/// Looks until `what` is there; the limit is generous because CI machines are busy.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `everhold dev` on a state folder.
pub struct Platform {
    child: Child,
    pub state: PathBuf,
    pub dev: Value,
    args: Vec<OsString>,
}

impl Platform {
    pub fn start(state: &Path) -> Self {
        Self::start_with(state, &[])
    }

    pub fn start_with(state: &Path, args: &[&OsStr]) -> Self {
        let args: Vec<OsString> = args.iter().map(|a| (*a).to_owned()).collect();
        let (child, dev) = launch(state, &args);
        Self { child, state: state.to_owned(), dev, args }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Kills without warning, as a power cut would, and starts again on the same folder.
    pub fn kill_and_restart(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("reap");
        (self.child, self.dev) = launch(&self.state, &self.args);
    }

    /// SIGTERM, and it must be gone within 20 seconds.
    pub fn stop(&mut self) {
        kill_process(self.pid(), Signal::TERM).expect("signal");
        let child = &mut self.child;
        let status = wait_for("the platform to stop", Duration::from_secs(20), || {
            child.try_wait().expect("wait")
        });
        assert!(status.success(), "everhold dev stopped with {status}");
    }

    /// A value of `dev.json` by pointer, e.g. `/tenant/email`.
    pub fn get(&self, pointer: &str) -> &str {
        self.dev
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{pointer} in dev.json"))
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(self.pid(), Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(20);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A process that is told to end, and waited for, when the test is over.
pub struct Stop(pub Child);

impl Drop for Stop {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

fn launch(state: &Path, args: &[OsString]) -> (Child, Value) {
    fs::create_dir_all(state).expect("state folder");
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(state.join("test.log"))
        .expect("log file");
    let mut child = Command::new(bin("everhold"))
        .arg("dev")
        .arg("--state")
        .arg(state)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("log"))
        .stderr(log)
        .spawn()
        .expect("everhold dev starts");
    let file = state.join("dev.json");
    let started = std::time::Instant::now();
    let dev = wait_for("dev.json", Duration::from_secs(120), || {
        if let Ok(Some(status)) = child.try_wait() {
            let log = fs::read_to_string(state.join("test.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            panic!(
                "everhold dev ended with {status}:\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        // A file from before a crash may still be there for a moment: it names another process.
        let text = fs::read(&file).ok()?;
        let fresh = fs::metadata(&file).and_then(|m| m.modified()).ok()?.elapsed().ok()?
            <= started.elapsed();
        if fresh { serde_json::from_slice::<Value>(&text).ok() } else { None }
    });
    (child, dev)
}

/// One agent with a home of its own.
pub struct Agent {
    pub home: PathBuf,
}

/// What an agent's command said.
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
    /// The last line, as JSON.
    #[track_caller]
    pub fn last_json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line)
            .unwrap_or_else(|e| panic!("{e} in last line of:\n{}", self.stdout))
    }
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e} in:\n{}", self.stdout))
    }
}

impl Agent {
    /// Enrols a new agent with the first tenant's token.
    pub fn enrol(platform: &Platform, home: &Path, kit: Option<&Path>) -> Self {
        Self::enrol_at(platform, platform.get("/api_url"), home, kit)
    }

    /// The same at another server of the same platform.
    pub fn enrol_at(platform: &Platform, server: &str, home: &Path, kit: Option<&Path>) -> Self {
        let agent = Self { home: home.to_owned() };
        let mut command = agent.command();
        command.args(["enroll", "--server", server]);
        command.args(["--token", platform.get("/enrolment_token"), "--name", "e2e"]);
        if let Some(kit) = kit {
            command.arg("--kit-out").arg(kit);
        }
        Said::of(&command.output().expect("agent runs")).expect(0);
        agent
    }

    /// The enrolled agent is told another address of its platform.
    pub fn move_to(&self, server: &str) -> Said {
        self.run(["enroll", "--server", server, "--token", "not needed", "--json"])
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(bin("everhold-agent"));
        command.env("EVERHOLD_AGENT_HOME", &self.home).stdin(Stdio::null());
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Said {
        Said::of(&self.command().args(args).output().expect("agent runs"))
    }

    /// The same, with the most memory the process held at once, in bytes (up to its last milliseconds).
    pub fn run_measured<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> (Said, u64) {
        let mut command = self.command();
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("agent runs");
        let status = format!("/proc/{}/status", child.id());
        let done = std::thread::spawn(move || child.wait_with_output());
        let mut peak = 0;
        while !done.is_finished() {
            let told = fs::read_to_string(&status).unwrap_or_default();
            let line = told.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
            peak = peak.max(kibibytes.unwrap_or(0_u64));
            std::thread::sleep(Duration::from_millis(2));
        }
        let output = done.join().expect("no panic").expect("its output");
        (Said::of(&output), peak * 1024)
    }

    /// `backup --json PATH…`; any exit code of 0 or 3 is a committed snapshot.
    #[track_caller]
    pub fn backup(&self, paths: &[&Path]) -> Value {
        let mut args: Vec<&OsStr> = vec!["backup".as_ref(), "--json".as_ref()];
        args.extend(paths.iter().map(|p| p.as_os_str()));
        let said = self.run(args);
        assert!(matches!(said.code, 0 | 3), "stdout:\n{}\nstderr:\n{}", said.stdout, said.stderr);
        said.last_json()
    }

    #[track_caller]
    pub fn restore(&self, snapshot: &str, target: &Path) -> Value {
        let args: [&OsStr; 5] = [
            "restore".as_ref(),
            snapshot.as_ref(),
            "--target".as_ref(),
            target.as_ref(),
            "--json".as_ref(),
        ];
        self.run(args).expect(0).last_json()
    }
}

/// Runs a tool; its standard output.
#[track_caller]
pub fn tool(program: &str, args: &[&OsStr]) -> Said {
    Said::of(
        &Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("{program} cannot run ({e}): make deps-test installs it")),
    )
}

/// What the platform's database answers: a line a row, fields between bars.
#[track_caller]
pub fn psql(platform: &Platform, sql: &str) -> String {
    let args = ["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, platform.get("/postgres_url")];
    tool("psql", &args.map(AsRef::as_ref)).expect(0).stdout
}

/// Whether the test runs as root; what needs root says so and is skipped.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
