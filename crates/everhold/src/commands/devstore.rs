//! `everhold devstore`: the embedded store alone.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use devstore::{Config, DevStore, Key, Policy};
use domain::SystemClock;
use process::{config::Secret, lifecycle::Lifecycle};
use serde::Deserialize;
use tokio::{net::TcpListener, task::spawn_blocking};

use super::Usage;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyLine {
    access_key: String,
    secret_key: Secret,
    policy: Policy,
    #[serde(default)]
    buckets: Vec<String>,
}

pub async fn run(dir: PathBuf, listen: SocketAddr, keys: &Path) -> anyhow::Result<ExitCode> {
    if !listen.ip().is_loopback() {
        let text = format!("{listen} is not a loopback address; this store is for one machine");
        return Err(Usage(text).into());
    }
    let keys = read_keys(keys)?;
    let clock = Arc::new(SystemClock);
    let store = spawn_blocking(move || DevStore::open(Config { dir, keys, clock })).await??;
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    println!("http://{}", listener.local_addr()?);
    let life = Lifecycle::new();
    life.stop_on_signals()?;
    let stop = life.token();
    store.serve(listener, async move { stop.cancelled().await }).await?;
    Ok(ExitCode::SUCCESS)
}

fn read_keys(path: &Path) -> anyhow::Result<Vec<Key>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines: Vec<KeyLine> = serde_json::from_slice(&bytes)
        .map_err(|error| Usage(format!("{} is not a list of keys: {error}", path.display())))?;
    let key = |line: KeyLine| Key {
        access_key: line.access_key,
        secret_key: line.secret_key.expose().to_owned(),
        policy: line.policy,
        buckets: line.buckets,
    };
    Ok(lines.into_iter().map(key).collect())
}
