//! `everhold dev`: the whole platform on one machine, in one folder.
//!
//! Owns the order of starting and stopping: folder ≺ secrets ≺ PostgreSQL and store ≺ migrations, buckets,
//! accounts ≺ roles ≺ `dev.json`; the other way round at the end. Invariant: everything survives a restart and a
//! kill at any moment, and nothing it started outlives an orderly stop. What it builds on is configuration of the
//! same server that `everhold serve` runs.

mod accounts;
mod folder;
pub mod manifest;
mod ports;
pub mod postgres;
pub mod secrets;
pub mod store;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use devstore::DevStore;
use domain::{Clock, IdGen, SystemClock, SystemIds};
use pg::migrate::{Migrator, Passwords};
use process::{config::Secret, lifecycle::Lifecycle, telemetry::TelemetryConfig};
use runtime::RoleName;
use tokio::{net::TcpListener, task::spawn_blocking};
use tokio_util::sync::CancellationToken;
use vault::store::S3Store;

pub use folder::InUse;
use folder::StateFolder;
use manifest::{Login, Manifest, S3, TenantLogin};
use ports::Bound;
use postgres::{Cluster, Started};
use secrets::Secrets;
use store::Prepared;

use crate::{
    config::{self, Database, Keys, Listen, Retention, ServerConfig},
    server::{Listeners, Server},
};

pub const REGION: &str = "us-east-1";
pub const BUCKET: &str = "everhold-vaults";
pub const KEY_BUCKET: &str = "everhold-keys";
const DATABASE: &str = "everhold";
/// Of the 20 seconds a stop may take: what PostgreSQL needs is kept back.
const DRAIN_WITHIN: Duration = Duration::from_secs(11);

/// How to start.
#[derive(Debug, Clone)]
pub struct Options {
    pub state: PathBuf,
    pub port: Option<u16>,
    pub pg_bin: Option<PathBuf>,
    pub portal: Option<PathBuf>,
    /// Settings of a store to use instead of the embedded one.
    pub store: Option<PathBuf>,
    /// Settings of a store for second copies.
    pub copy_store: Option<PathBuf>,
    pub telemetry: TelemetryConfig,
}

/// A platform that answers.
pub struct Running {
    pub manifest: Manifest,
    pub admin_url: String,
    life: Lifecycle,
    store_stop: CancellationToken,
    store_task: tokio::task::JoinHandle<()>,
    cluster: Cluster,
    databases: Vec<pg::Db>,
    _folder: StateFolder,
}

/// Starts everything and writes `dev.json`. SIGTERM and SIGINT are watched from here on.
pub async fn start(options: &Options) -> anyhow::Result<Running> {
    let folder = StateFolder::take(&options.state)?;
    Manifest::remove(folder.path())?;
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn IdGen>) =
        (Arc::new(SystemClock), Arc::new(SystemIds));
    let secrets = Secrets::load_or_make(&folder.secrets(), &*ids, folder.has_data())?;
    let life = Lifecycle::new();
    life.stop_on_signals()?;
    let bound = ports::bind(folder.path(), options.port).await?;
    let endpoint = format!("http://127.0.0.1:{}", bound.ports.store);
    let (cluster, store) = tokio::try_join!(
        start_postgres(folder.postgres(), options.pg_bin.clone()),
        Prepared::open(
            options.store.as_deref(),
            folder.store(),
            &secrets,
            &endpoint,
            clock.clone()
        ),
    )?;
    // From here on PostgreSQL runs: whatever fails, it is stopped again.
    match assemble(options, folder, secrets, life, bound, cluster.clone(), store, clock, ids).await
    {
        Ok(running) => Ok(running),
        Err(error) => {
            let stopped = spawn_blocking(move || cluster.stop()).await?;
            stopped.context("PostgreSQL is left running")?;
            Err(error)
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of a start, each made just before")]
async fn assemble(
    options: &Options,
    folder: StateFolder,
    secrets: Secrets,
    life: Lifecycle,
    bound: Bound,
    cluster: Cluster,
    store: Prepared,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
) -> anyhow::Result<Running> {
    let stopping = life.token();
    let api_url = format!("http://localhost:{}", bound.ports.public);
    let owner_url = cluster.url("postgres", DATABASE);
    migrate(&cluster, &owner_url).await?;

    let store_stop = CancellationToken::new();
    let store_task = tokio::spawn(serve_store(store.embedded, bound.store, store_stop.clone()));
    let mut config = server_config(options, &folder, &secrets, &cluster, &api_url, store.config);
    let copy_store = options.copy_store.as_deref().map(std::path::absolute).transpose()?;
    let (copies, copy_admin) = store::copies(copy_store.as_deref())?;
    for store in copies.values() {
        S3Store::connect(store.engine(copy_admin.clone())?).await?.ensure_buckets().await?;
    }
    config.copies = copies;
    let (endpoint, bucket) = (config.store.endpoint.clone(), config.store.bucket.clone());
    let region = config.store.region.clone();
    S3Store::connect(config.store.engine(Some(store.admin.clone()))?)
        .await?
        .ensure_buckets()
        .await?;
    let server = Server::build(&config, &RoleName::ALL, clock, ids, None).await?;
    let platform = server.platforms.get(&RoleName::Auth).context("auth is built")?.clone();
    let databases = server.platforms.values().map(|platform| platform.db.clone()).collect();
    let installed = accounts::ensure(&platform, &secrets).await?;
    let enrolment_token = accounts::enrolment_token(&platform, &installed).await?;
    let admin_url = format!("http://127.0.0.1:{}", bound.ports.admin);
    server.start(&life, Listeners { public: bound.public, admin: bound.admin, internal: None });
    life.spawn("postgres_supervisor", supervise(cluster.clone(), life.token()));
    wait_until_ready(&api_url, &admin_url, &stopping).await?;

    let manifest = Manifest {
        portal_url: api_url.clone(),
        api_url,
        s3: S3 {
            endpoint: endpoint.unwrap_or_default(),
            region,
            bucket,
            access_key: store.admin.access_key,
            secret_key: store.admin.secret_key,
        },
        postgres_url: owner_url,
        admin: Login { email: accounts::ADMIN.to_owned(), password: secrets.admin_password },
        msp: Login { email: accounts::MSP.to_owned(), password: secrets.msp_password },
        tenant: TenantLogin {
            id: installed.tenant.tenant_id,
            email: accounts::TENANT.to_owned(),
            password: secrets.tenant_password,
        },
        other_tenant: TenantLogin {
            id: installed.other_tenant.tenant_id,
            email: accounts::OTHER_TENANT.to_owned(),
            password: secrets.other_tenant_password,
        },
        enrolment_token,
        copy_store,
    };
    manifest.write(folder.path())?;
    Ok(Running {
        manifest,
        admin_url,
        life,
        store_stop,
        store_task,
        cluster,
        databases,
        _folder: folder,
    })
}

impl Running {
    /// Cancelled when a signal asked for the end.
    pub fn stopping(&self) -> CancellationToken {
        self.life.token()
    }

    /// Stops roles, then the store, then PostgreSQL. Within 20 seconds.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.life.stop();
        let drained = self.life.drain(DRAIN_WITHIN).await;
        self.store_stop.cancel();
        if tokio::time::timeout(Duration::from_secs(3), self.store_task).await.is_err() {
            tracing::warn!("requests to the embedded store were cut off");
        }
        for db in &self.databases {
            // An idle pool closes at once; one that does not would only delay the stop that ends it anyway.
            let _ = tokio::time::timeout(Duration::from_millis(300), db.close()).await;
        }
        let cluster = self.cluster;
        spawn_blocking(move || cluster.stop()).await??;
        if !drained {
            bail!("a part of the platform did not stop in time");
        }
        Ok(())
    }
}

/// Serves the embedded store until told to stop; there is nothing to serve for another one.
async fn serve_store(store: Option<DevStore>, listener: TcpListener, stop: CancellationToken) {
    let Some(store) = store else { return };
    if let Err(error) = store.serve(listener, async move { stop.cancelled().await }).await {
        tracing::error!(%error, "the embedded store ended");
    }
}

async fn start_postgres(folder: PathBuf, pg_bin: Option<PathBuf>) -> anyhow::Result<Cluster> {
    spawn_blocking(move || {
        let cluster = Cluster::open(&folder, pg_bin.as_deref())?;
        let started = cluster.start()?;
        let binaries = cluster.binaries();
        tracing::info!(version = binaries.major, folder = %binaries.folder.display(), "PostgreSQL");
        if started == Started::Adopted {
            tracing::info!("took over the PostgreSQL an earlier process left running");
        }
        anyhow::Ok(cluster)
    })
    .await?
}

/// Makes the database if it is not there, and brings it up to date.
async fn migrate(cluster: &Cluster, owner_url: &str) -> anyhow::Result<()> {
    crate::database::ensure(&cluster.url("postgres", "postgres"), DATABASE).await?;
    let report = Migrator::embedded()?.run(owner_url, &Passwords::default()).await?;
    if !report.applied.is_empty() {
        tracing::info!(applied = report.applied.len(), "database migrated");
    }
    Ok(())
}

/// Starts PostgreSQL again when it is gone without having been stopped by us.
async fn supervise(cluster: Cluster, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        let cluster = cluster.clone();
        let checked =
            spawn_blocking(
                move || {
                    if cluster.is_running() { Ok(None) } else { cluster.start().map(Some) }
                },
            );
        match checked.await {
            Ok(Ok(Some(_))) => tracing::warn!("PostgreSQL was gone and has been started again"),
            Ok(Err(error)) => {
                tracing::error!(error = format!("{error:#}"), "PostgreSQL does not start");
            }
            Ok(Ok(None)) | Err(_) => {}
        }
    }
}

/// Everything answers: the public door, and every role's own checks.
async fn wait_until_ready(
    api_url: &str,
    admin_url: &str,
    stopping: &CancellationToken,
) -> anyhow::Result<()> {
    for _ in 0..300 {
        if stopping.is_cancelled() {
            bail!("stopped while starting");
        }
        let ready = crate::http::status(&format!("{admin_url}/readyz")).await == Some(200)
            && crate::http::status(&format!("{api_url}/openapi.json")).await == Some(200);
        if ready {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("the platform was started but does not answer; see the log above")
}

fn server_config(
    options: &Options,
    folder: &StateFolder,
    secrets: &Secrets,
    cluster: &Cluster,
    api_url: &str,
    store: config::Store,
) -> ServerConfig {
    let wrapper_file = folder.secrets().join("platform-wrapper.key");
    ServerConfig {
        public_url: api_url.to_owned(),
        portal: options.portal.clone(),
        telemetry: options.telemetry.clone(),
        ..config_of(secrets, cluster.url("everhold", DATABASE), store, wrapper_file)
    }
}

fn config_of(
    secrets: &Secrets,
    url: String,
    store: config::Store,
    wrapper_file: PathBuf,
) -> ServerConfig {
    let secret = |text: &str| Secret::new(text.to_owned());
    ServerConfig {
        public_url: "http://localhost".to_owned(),
        listen: Listen::default(),
        peers: BTreeMap::new(),
        database: Database {
            url: Secret::new(url),
            owner_url: None,
            passwords: BTreeMap::new(),
            max_connections: 16,
        },
        keys: Keys {
            access: secret(&secrets.access),
            access_verification: Vec::new(),
            service: secret(&secrets.service),
            receipt: secret(&secrets.receipt),
            roster: secret(&secrets.roster),
            wrapper_file,
        },
        store,
        copies: BTreeMap::new(),
        retention: Retention::default(),
        portal: None,
        telemetry: TelemetryConfig::default(),
    }
}

/// The configuration of a running `everhold dev`, from its state folder.
pub fn config_of_state(state: &Path) -> anyhow::Result<ServerConfig> {
    let secrets = Secrets::load_or_make(&state.join("secrets"), &SystemIds, true)?;
    let manifest = Manifest::read(state)?;
    let store = store::of_state(state)?;
    let wrapper_file = state.join("secrets").join("platform-wrapper.key");
    let config = config_of(&secrets, manifest.postgres_url, store, wrapper_file);
    let copies = store::copies(manifest.copy_store.as_deref())?.0;
    Ok(ServerConfig { public_url: manifest.api_url, copies, ..config })
}

/// A complete configuration that leads nowhere: to build the roles for their OpenAPI document. `folder` must
/// exist.
pub fn sample_config(folder: &Path) -> anyhow::Result<ServerConfig> {
    let secrets = Secrets::load_or_make(&folder.join("secrets"), &SystemIds, false)?;
    let url = "postgres://everhold@localhost/everhold".to_owned();
    let store = store::scoped(&secrets, "http://127.0.0.1:1");
    Ok(config_of(&secrets, url, store, folder.join("wrapper.key")))
}
