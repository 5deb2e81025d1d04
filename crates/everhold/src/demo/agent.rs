//! The real agent, as a child process with a home of its own.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use tokio::process::Command;

use super::platform::Dev;

/// Exit code of a command that did its work and lists exceptions.
const WITH_EXCEPTIONS: i32 = 3;

/// One agent.
pub struct Agent {
    program: PathBuf,
    home: PathBuf,
}

/// The last line of `backup --json`.
#[derive(Deserialize)]
pub struct Backup {
    pub snapshot_id: domain::SnapshotId,
    pub status: String,
    pub files: u64,
    pub source_bytes: u64,
    pub new_bytes: u64,
    pub stored_bytes: u64,
    pub duration_ms: u64,
    pub exceptions: Vec<serde_json::Value>,
}

impl Agent {
    pub fn new(program: Option<&Path>, home: &Path) -> Result<Self> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => std::env::current_exe()?.with_file_name("everhold-agent"),
        };
        let program = program.canonicalize().with_context(|| {
            format!(
                "there is no agent at {}: cargo build --release -p everhold-agent",
                program.display()
            )
        })?;
        Ok(Self { program, home: home.to_owned() })
    }

    /// Whether this home was enrolled by an earlier start.
    pub fn is_enrolled(&self) -> bool {
        std::fs::read_dir(&self.home).is_ok_and(|mut entries| entries.next().is_some())
    }

    pub async fn enrol(&self, dev: &Dev, kit: &Path) -> Result<()> {
        let args: [&OsStr; 9] = [
            "enroll".as_ref(),
            "--server".as_ref(),
            dev.api_url.as_ref(),
            "--token".as_ref(),
            dev.enrolment_token.as_ref(),
            "--name".as_ref(),
            "this machine".as_ref(),
            "--kit-out".as_ref(),
            kit.as_ref(),
        ];
        self.run(&args).await.map(drop)
    }

    pub async fn snapshots(&self) -> Result<Vec<serde_json::Value>> {
        let text = self.run(&["snapshots".as_ref(), "--json".as_ref()]).await?;
        serde_json::from_str(&text).context("the agent's list of snapshots")
    }

    pub async fn backup(&self, paths: &[&Path]) -> Result<Backup> {
        let mut args: Vec<&OsStr> = vec!["backup".as_ref(), "--json".as_ref()];
        args.extend(paths.iter().map(|path| path.as_os_str()));
        let text = self.run(&args).await?;
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str(last).context("the agent's report of a backup")
    }

    pub async fn restore(&self, snapshot: &domain::SnapshotId, target: &Path) -> Result<()> {
        let snapshot = snapshot.to_string();
        let args: [&OsStr; 4] =
            ["restore".as_ref(), snapshot.as_ref(), "--target".as_ref(), target.as_ref()];
        self.run(&args).await.map(drop)
    }

    /// Standard output of a command that did its work.
    async fn run(&self, args: &[&OsStr]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(args)
            .env("EVERHOLD_AGENT_HOME", &self.home)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("run {}", self.program.display()))?;
        if !output.status.success() && output.status.code() != Some(WITH_EXCEPTIONS) {
            let command = args.first().map(|arg| arg.to_string_lossy()).unwrap_or_default();
            bail!(
                "everhold-agent {command}: {}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
