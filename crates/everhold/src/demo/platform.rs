//! The embedded platform as a child process, known only by what `dev.json` says.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use api::{
    auth::{TokenReply, TokenRequest},
    client::{Client, Identity},
};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

use super::Demo;

/// What the job reads of `dev.json`.
#[derive(Deserialize)]
pub struct Dev {
    pub portal_url: String,
    pub api_url: String,
    pub s3: Store,
    pub admin: Account,
    pub msp: Account,
    pub tenant: TenantAccount,
    pub enrolment_token: String,
}

#[derive(Deserialize)]
pub struct Store {
    pub endpoint: String,
    pub region: String,
    pub bucket: String,
    pub access_key: String,
    pub secret_key: String,
}

#[derive(Deserialize)]
pub struct Account {
    pub email: String,
    pub password: String,
}

#[derive(Deserialize)]
pub struct TenantAccount {
    pub id: domain::TenantId,
    pub email: String,
    pub password: String,
}

/// A started platform.
pub struct Platform {
    child: Child,
    pub state: PathBuf,
    pub dev: Dev,
    pub ready_in: Duration,
}

/// Ctrl-C or SIGTERM.
pub async fn stop_requested() {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

impl Platform {
    /// Starts `everhold dev` and waits until everything answers.
    pub async fn start(demo: &Demo) -> Result<Self> {
        let program = std::env::current_exe().context("this program's own path")?;
        std::fs::create_dir_all(&demo.state)
            .with_context(|| format!("{} cannot be made", demo.state.display()))?;
        let state = demo.state.canonicalize()?;
        let log_path = state.join("platform.log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&log_path)?;
        let mut command = Command::new(program);
        command.arg("dev").arg("--state").arg(&state);
        if let Some(port) = demo.port {
            command.arg("--port").arg(port.to_string());
        }
        let started = Instant::now();
        // A group of its own: Ctrl-C reaches this process, which stops the platform in order.
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("start the platform")?;
        let mut starting = Starting { child, state, log_path };
        let dev = starting.wait().await?;
        let Starting { child, state, .. } = starting;
        Ok(Self { child, state, dev, ready_in: started.elapsed() })
    }

    /// A client signed in as the first tenant's administrator.
    pub async fn as_tenant(&self) -> Result<Client> {
        let anonymous = Client::http(&self.dev.api_url, Identity::Anonymous)?;
        let request = TokenRequest::Password {
            email: self.dev.tenant.email.clone(),
            password: self.dev.tenant.password.clone(),
            tenant_id: None,
        };
        let reply: TokenReply =
            anonymous.post("/v1/auth/token", &request).await.context("sign in")?;
        Ok(anonymous.with_identity(Identity::Bearer(reply.access_token)))
    }

    /// Asks it to stop and waits.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            kill_process(pid, Signal::TERM).context("stop the platform")?;
        }
        let status = tokio::time::timeout(Duration::from_secs(25), self.child.wait())
            .await
            .context("the platform did not stop within 25 seconds")??;
        if !status.success() {
            bail!(
                "the platform stopped with {status}: see {}",
                self.state.join("platform.log").display()
            );
        }
        Ok(())
    }
}

struct Starting {
    child: Child,
    state: PathBuf,
    log_path: PathBuf,
}

impl Starting {
    async fn wait(&mut self) -> Result<Dev> {
        let deadline = Instant::now() + Duration::from_secs(120);
        // The child removes an old file before it makes a new one; one that is older than this start is not it.
        let before = modified(&self.state.join("dev.json"));
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the platform ended with {status}:\n{}", tail(&self.log_path));
            }
            let file = self.state.join("dev.json");
            let now = modified(&file);
            if now.is_some() && now != before {
                let text = std::fs::read(&file)?;
                return serde_json::from_slice(&text).context("dev.json is not what was expected");
            }
            if Instant::now() > deadline {
                bail!("the platform was not ready within two minutes:\n{}", tail(&self.log_path));
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
