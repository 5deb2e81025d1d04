//! The command line. Exit codes: 0 done, 1 it failed or found something wrong, 2 it was asked wrongly (arguments,
//! configuration).

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "everhold",
    version,
    about = "The Everhold server: backup as a service that keeps its word.",
    after_help = "Exit codes: 0 done; 1 failed, or a check found something wrong; 2 wrong arguments or configuration."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve roles from a configuration; all five in one process when none is named.
    Serve {
        /// auth, catalog, scheduler, audit, billing.
        #[arg(value_name = "ROLE")]
        roles: Vec<String>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Bring the database up to date, and set the logins' passwords.
    Migrate {
        #[command(flatten)]
        config: ConfigFile,
        /// One JSON object instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Check an installation, and say what to do next.
    Doctor {
        #[command(flatten)]
        config: ConfigFile,
        /// One JSON object instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// The object store.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// The whole platform on this machine: PostgreSQL, object store, every role, portal, demonstration tenants.
    Dev(Dev),
    /// `dev`, and the main job in front of your eyes: enrol, back up, browse, restore, compare.
    Demo(Demo),
    /// The embedded object store alone. For one machine: it refuses any address but loopback.
    Devstore {
        /// Folder of the store; nothing else may live in it.
        #[arg(long)]
        dir: PathBuf,
        #[arg(long, default_value = "127.0.0.1:9000")]
        listen: SocketAddr,
        /// JSON array of {access_key, secret_key, policy, buckets}; policy: administrator, ingest_signer,
        /// restore_signer, steward, reaper, key_keeper.
        #[arg(long)]
        keys: PathBuf,
    },
    /// By hand, beside a running platform or after its loss: scrub, declare packs lost, rebuild the catalog.
    Admin {
        #[command(subcommand)]
        command: AdminCommand,
    },
    #[command(flatten)]
    Console(crate::console::Noun),
    /// Print the OpenAPI document.
    Openapi,
    /// The configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Args)]
pub struct ConfigFile {
    /// TOML; `EVERHOLD__SECTION__KEY` variables win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Dev {
    /// Everything lives in this folder and survives a restart.
    #[arg(long, default_value = ".everhold")]
    pub state: PathBuf,
    /// Of portal and API, on localhost. A free one is picked, and kept, when it is left out.
    #[arg(long)]
    pub port: Option<u16>,
    /// Folder of PostgreSQL's server programs; searched for when left out.
    #[arg(long, env = "PG_BIN")]
    pub pg_bin: Option<PathBuf>,
    /// Folder of the built portal; `web/dist` above this program or the working folder when left out.
    #[arg(long)]
    pub portal: Option<PathBuf>,
    /// Use another S3 store than the embedded one, for trying it: a TOML file with `endpoint`, `access_key` and
    /// `secret_key` of an administrator.
    #[arg(long)]
    pub store: Option<PathBuf>,
    /// A store for second copies of vaults, under the name `second`: a file like that of --store.
    #[arg(long, value_name = "FILE")]
    pub copy_store: Option<PathBuf>,
    /// Run the main job (as `demo` does) and exit.
    #[arg(long)]
    pub once: bool,
    /// The agent's program for `--once`; beside this one when left out.
    #[arg(long)]
    pub agent: Option<PathBuf>,
    /// `tracing` filter of the log on standard error.
    #[arg(long, default_value = "info")]
    pub log: String,
    /// Base URL of an OTLP/HTTP receiver for traces.
    #[arg(long, default_value = "")]
    pub otlp_endpoint: String,
}

#[derive(Debug, Args)]
pub struct Demo {
    #[command(flatten)]
    pub dev: Dev,
    /// Back up this folder instead of one found on the machine.
    #[arg(long)]
    pub source: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Try out what a store really enforces: locks, versions, grants. One line for each case; exit code 1 when a
    /// case fails.
    Probe(Probe),
}

#[derive(Debug, Args)]
pub struct Probe {
    #[command(flatten)]
    pub config: ConfigFile,
    /// The embedded store of a running `everhold dev`.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "endpoint"])]
    pub state: Option<PathBuf>,
    /// Any S3 endpoint, with one key for every job (the probe then says which scopes are not separate).
    #[arg(long, requires_all = ["bucket", "access_key", "secret_key"], conflicts_with = "config")]
    pub endpoint: Option<String>,
    #[arg(long, default_value = "us-east-1")]
    pub region: String,
    #[arg(long)]
    pub bucket: Option<String>,
    /// Unlocked bucket; the vault bucket's name and `-keys` when left out.
    #[arg(long)]
    pub key_bucket: Option<String>,
    #[arg(long, env = "AWS_ACCESS_KEY_ID")]
    pub access_key: Option<String>,
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    pub secret_key: Option<String>,
    /// Make the buckets where they are missing (with `--endpoint`).
    #[arg(long)]
    pub make_buckets: bool,
    /// The report as one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the JSON Schema of the configuration.
    Schema,
}

#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Make the catalog's rows of a tenant again from its bucket and key store, after the database was lost. Says what
    /// it would write; --apply writes it. Rows that are there stay as they are, so it can be repeated; but a snapshot that
    /// stands in them and has a forget record in the bucket is forgotten, unless it is under hold.
    RebuildCatalog(Rebuild),
    /// Read a vault's objects and compare each with its hash: no keys needed. Changes nothing, unless --repair says so.
    Scrub(Scrub),
    /// The second copy of a vault: another store that holds what its snapshots need, under locks of its own.
    Replica {
        #[command(subcommand)]
        command: ReplicaCommand,
    },
    /// Declare packs lost, after looking at each once more: no commit names them again. The next backup of a workload
    /// that needs one of them reads again what was in it, and only that.
    DeclareLost(DeclareLost),
    /// List what keeps a tenant's collection, expiry and key destruction standing still. Exit code 1 when anything does.
    Freezes(List),
    /// Lift freezes once a person has decided about what raised them. The reason goes into the audit record; what was
    /// decided about does not freeze the tenant again.
    LiftFreeze(LiftFreeze),
    /// Place a legal hold on snapshots: they stay, whatever their policy says, until every hold of them was released.
    /// Softly expired ones come back. The reason goes into the audit record.
    Hold(PlaceHold),
    /// List a tenant's legal holds that stand, with their reasons.
    Holds(List),
    /// Release legal holds. The reason goes into the audit record. One person is enough so far: release by four eyes
    /// is still to come.
    ReleaseHold(ReleaseHold),
    /// List snapshots their policy let go and that can still be taken back.
    Expired(List),
    /// Take the expiry of snapshots back: their policy leaves them alone for another 14 days.
    UndoExpiry(UndoExpiry),
}

/// Which platform, which tenant.
#[derive(Debug, Args)]
pub struct Platform {
    #[command(flatten)]
    pub config: ConfigFile,
    /// The state folder of a running `everhold dev`.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub state: Option<PathBuf>,
    #[arg(long, value_name = "TENANT")]
    pub tenant: domain::TenantId,
    /// Only this vault.
    #[arg(long, value_name = "VAULT")]
    pub vault: Option<domain::VaultId>,
}

#[derive(Debug, Args)]
pub struct Rebuild {
    #[command(flatten)]
    pub platform: Platform,
    /// Write, instead of only saying what would be written.
    #[arg(long)]
    pub apply: bool,
    /// The report as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Scrub {
    #[command(flatten)]
    pub platform: Platform,
    /// How much to read: full, a share of the bytes (5%), or so many (10GiB).
    #[arg(long, value_name = "SHARE", default_value = "full")]
    pub sample: crate::commands::admin::SampleArg,
    /// Read the second copy instead of the first.
    #[arg(long)]
    pub second: bool,
    /// Write what is missing or damaged anew from the vault's other copy: a new version, under a lock of its own.
    #[arg(long)]
    pub repair: bool,
    /// Chooses the sample; the same seed reads the same packs. Random when left out, and printed.
    #[arg(long)]
    pub seed: Option<u64>,
    /// The report as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum ReplicaCommand {
    /// Give a vault a second copy, or change its term. The place is probed first: without Object Lock it is refused.
    Set(ReplicaSet),
    /// Where the second copy is, and how far it is behind. Exit code 1 while a snapshot is not whole there.
    Status(ReplicaAt),
    /// Copy now what is missing, instead of waiting for the server to do it.
    Copy(ReplicaAt),
}

#[derive(Debug, Args)]
pub struct ReplicaSet {
    #[command(flatten)]
    pub platform: Platform,
    /// The store, as the configuration names it under `copies`.
    #[arg(long, value_name = "NAME")]
    pub store: String,
    /// Least days something is locked for there; never less than at the first store.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub lock_days: u16,
    /// The outcome as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ReplicaAt {
    #[command(flatten)]
    pub platform: Platform,
    /// The status as JSON.
    #[arg(long)]
    pub json: bool,
}

/// A list of something of a tenant.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    pub platform: Platform,
    /// The list as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PlaceHold {
    #[command(flatten)]
    pub platform: Platform,
    /// Why they have to stay, for the audit record.
    #[arg(long, value_name = "TEXT", value_parser = crate::commands::admin::reason)]
    pub reason: String,
    /// Ids of snapshots (snp_…).
    #[arg(required = true, value_name = "SNAPSHOT")]
    pub snapshots: Vec<domain::SnapshotId>,
    /// The holds as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ReleaseHold {
    #[command(flatten)]
    pub platform: Platform,
    /// What was decided and why, for the audit record.
    #[arg(long, value_name = "TEXT", value_parser = crate::commands::admin::reason)]
    pub reason: String,
    /// Ids as `admin holds` names them (hld_…).
    #[arg(required = true, value_name = "HOLD")]
    pub holds: Vec<domain::HoldId>,
    /// The holds as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct UndoExpiry {
    #[command(flatten)]
    pub platform: Platform,
    /// Ids as `admin expired` names them (snp_…).
    #[arg(required = true, value_name = "SNAPSHOT")]
    pub snapshots: Vec<domain::SnapshotId>,
    /// The snapshots as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct LiftFreeze {
    #[command(flatten)]
    pub platform: Platform,
    /// What was decided and why, for the audit record.
    #[arg(long, value_name = "TEXT", value_parser = crate::commands::admin::reason)]
    pub reason: String,
    /// Ids as `admin freezes` names them (evt_…).
    #[arg(required = true, value_name = "FREEZE")]
    pub freezes: Vec<domain::EventId>,
    /// What was lifted as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DeclareLost {
    #[command(flatten)]
    pub platform: Platform,
    /// Ids as a scrub names them (pck_…).
    #[arg(required = true, value_name = "PACK")]
    pub packs: Vec<domain::PackId>,
    /// The outcome as JSON.
    #[arg(long)]
    pub json: bool,
}
