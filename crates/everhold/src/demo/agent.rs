//! The real agent as a child process.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::process::Command;

/// The agent's program with a home of its own.
pub struct Agent {
    pub program: PathBuf,
    pub home: PathBuf,
}

/// Last line of `backup --json`.
#[derive(Debug, Deserialize)]
pub struct BackedUp {
    pub snapshot_id: String,
    pub status: String,
    pub files: u64,
    pub source_bytes: u64,
    pub new_bytes: u64,
    pub stored_bytes: u64,
    pub duration_ms: u64,
    #[serde(default)]
    pub exceptions: Vec<serde_json::Value>,
}

/// `enroll --json`.
#[derive(Debug, Deserialize)]
struct Enrolled {
    moved: bool,
}

/// One of `snapshots --json`.
#[derive(Debug, Deserialize)]
pub struct Listed {
    pub id: String,
}

impl Agent {
    /// Whether an earlier start enrolled it: whoever is not enrolled cannot list snapshots.
    pub async fn snapshots(&self) -> anyhow::Result<Vec<Listed>> {
        let said = self.run([OsStr::new("snapshots"), OsStr::new("--json")], &[0]).await?;
        serde_json::from_str(&said).context("the agent's list of snapshots is not what was agreed")
    }

    /// True: it was enrolled, and follows its platform to this address.
    pub async fn enrol(&self, server: &str, token: &str, kit: &Path) -> anyhow::Result<bool> {
        let args: [&OsStr; 10] = [
            "enroll".as_ref(),
            "--server".as_ref(),
            server.as_ref(),
            "--token".as_ref(),
            token.as_ref(),
            "--name".as_ref(),
            "this machine".as_ref(),
            "--kit-out".as_ref(),
            kit.as_ref(),
            "--json".as_ref(),
        ];
        let said: Enrolled = last_line(&self.run(args, &[0]).await?)?;
        Ok(said.moved)
    }

    /// Exit code 3 is a committed snapshot with exceptions listed.
    pub async fn back_up(&self, paths: &[&Path]) -> anyhow::Result<BackedUp> {
        let mut args: Vec<&OsStr> = vec!["backup".as_ref(), "--json".as_ref()];
        args.extend(paths.iter().map(|path| path.as_os_str()));
        last_line(&self.run(args, &[0, 3]).await?)
    }

    pub async fn restore(&self, snapshot: &str, target: &Path) -> anyhow::Result<()> {
        let args: [&OsStr; 5] = [
            "restore".as_ref(),
            snapshot.as_ref(),
            "--target".as_ref(),
            target.as_ref(),
            "--json".as_ref(),
        ];
        // A normal user cannot give files back to their owners; the agent lists each and ends with 3. What else may
        // differ, the comparison finds.
        let good: &[i32] = if rustix::process::geteuid().is_root() { &[0] } else { &[0, 3] };
        self.run(args, good).await.map(|_| ())
    }

    async fn run<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        good: &[i32],
    ) -> anyhow::Result<String> {
        let output = Command::new(&self.program)
            .args(args)
            .env("EVERHOLD_AGENT_HOME", &self.home)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.code().is_some_and(|code| good.contains(&code)) {
            return Ok(said);
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = words.lines().rev().take(5).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("the agent ended with {}: {}", output.status, tail.join(" | "))
    }
}

fn last_line<T: DeserializeOwned>(said: &str) -> anyhow::Result<T> {
    let line = said.lines().last().unwrap_or_default();
    serde_json::from_str(line)
        .with_context(|| format!("the agent's last line is not what was agreed: {line}"))
}
