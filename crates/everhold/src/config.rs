//! Configuration of the server: what `everhold serve` reads and `everhold dev` makes up.
//!
//! Defaults → TOML → `EVERHOLD__SECTION__KEY`; every secret also as `<key>_file` (crates/process). It only says
//! what there is; [`crate::server`] builds from it.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context as _;
use domain::retention::RetentionRule;
use process::{config::Secret, telemetry::TelemetryConfig};
use runtime::RoleName;
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;
use vault::store::{Capabilities, Credentials, StoreConfig};

/// The whole file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Origin people and agents use, e.g. `https://backup.example`: scheme, host and port, nothing after.
    pub public_url: String,
    #[serde(default)]
    pub listen: Listen,
    /// Base URLs of the internal listeners of roles that run in other processes, by role name.
    #[serde(default)]
    pub peers: BTreeMap<String, String>,
    pub database: Database,
    pub keys: Keys,
    pub store: Store,
    /// Stores for second copies of vaults, by name. A name means one place for good: what is there is known by it.
    #[serde(default)]
    pub copies: BTreeMap<String, Store>,
    #[serde(default)]
    pub retention: Retention,
    /// Folder of the built portal (`web/dist`). Without one, a page says how to build it.
    #[serde(default)]
    pub portal: Option<PathBuf>,
    #[serde(default)]
    pub telemetry: TelemetryConfig,
}

/// Where to listen. The internal listener is off unless it is named: one process needs none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    pub public: String,
    /// `/livez`, `/readyz`, `/metrics`. Never to be published.
    pub admin: String,
    /// Only for other roles of this platform; to be reachable from them alone.
    pub internal: Option<String>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            public: "127.0.0.1:8080".to_owned(),
            admin: "127.0.0.1:9090".to_owned(),
            internal: None,
        }
    }
}

/// PostgreSQL 15 to 18.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `postgres://host:port/database?sslmode=verify-full`, without a user: each role has its own.
    pub url: Secret,
    /// As a login that may create roles and owns the database; only `everhold migrate` and `doctor` use it.
    #[serde(default)]
    pub owner_url: Option<Secret>,
    /// Passwords of the roles' logins by role name; a login's system twin has `<role>_system`. Without one the
    /// server is trusted to know the login otherwise (peer, certificate).
    #[serde(default)]
    pub passwords: BTreeMap<String, Secret>,
    /// Per role.
    #[serde(default = "default_connections")]
    pub max_connections: u32,
}

const fn default_connections() -> u32 {
    10
}

/// Keys of the platform: Ed25519 private keys as PKCS#8 PEM or 32 bytes in base64.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Signs access tokens.
    pub access: Secret,
    /// Public keys that verify access tokens besides: the one before, the one to come.
    #[serde(default)]
    pub access_verification: Vec<String>,
    /// Signs what roles say to each other, and leases.
    pub service: Secret,
    /// Signs receipts of commits.
    pub receipt: Secret,
    /// Signs rosters of managed vaults without a kit.
    pub roster: Secret,
    /// File of the platform's `KeyWrapper` (32 bytes, mode 0600); made at first start.
    pub wrapper_file: PathBuf,
}

/// The object store, with one key for each job.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Absent: AWS itself.
    #[serde(default)]
    pub endpoint: Option<String>,
    #[serde(default = "default_region")]
    pub region: String,
    pub bucket: String,
    pub key_bucket: String,
    #[serde(default)]
    pub path_style: bool,
    pub ingest: StoreKey,
    pub restore: StoreKey,
    pub steward: StoreKey,
    pub reaper: StoreKey,
    pub key_keeper: StoreKey,
    #[serde(default)]
    pub capabilities: StoreCapabilities,
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreKey {
    pub access_key: String,
    pub secret_key: Secret,
}

/// What `everhold store probe` found the store to enforce.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreCapabilities {
    pub create_only: bool,
    pub checksum_sha256: bool,
    pub content_md5: bool,
    pub unsigned_headers_refused: bool,
}

impl Default for StoreCapabilities {
    fn default() -> Self {
        let all = Capabilities::default();
        Self {
            create_only: all.create_only,
            checksum_sha256: all.checksum_sha256,
            content_md5: all.content_md5,
            unsigned_headers_refused: all.unsigned_headers_refused,
        }
    }
}

/// What new snapshots are promised, until policies say more.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    pub within_days: u32,
    pub hourly: u32,
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
    /// The newest snapshots of a workload, whatever their age.
    pub keep_last: u32,
}

impl Default for Retention {
    fn default() -> Self {
        let rule = RetentionRule::default();
        Self {
            within_days: rule.within_days,
            hourly: rule.hourly,
            daily: rule.daily,
            weekly: rule.weekly,
            monthly: rule.monthly,
            yearly: rule.yearly,
            keep_last: rule.keep_last,
        }
    }
}

impl Retention {
    pub const fn rule(self) -> RetentionRule {
        RetentionRule {
            within_days: self.within_days,
            hourly: self.hourly,
            daily: self.daily,
            weekly: self.weekly,
            monthly: self.monthly,
            yearly: self.yearly,
            keep_last: self.keep_last,
        }
    }
}

impl ServerConfig {
    /// What the schema cannot say.
    pub fn check(&self) -> anyhow::Result<()> {
        let url = Url::parse(&self.public_url).context("public_url is not a URL")?;
        let bare = url.path() == "/" && url.query().is_none() && !self.public_url.ends_with('/');
        if !matches!(url.scheme(), "http" | "https") || !bare {
            anyhow::bail!(
                "public_url must be an origin like https://backup.example, without a path"
            );
        }
        for name in self.peers.keys() {
            RoleName::parse(name).with_context(|| format!("peers: there is no role {name}"))?;
        }
        for name in self.copies.keys() {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if !(1..=40).contains(&name.len()) || !name.chars().all(plain) {
                anyhow::bail!("copies: {name:?} is no name: 1 to 40 of a-z, 0-9 and -");
            }
        }
        for name in self.database.passwords.keys() {
            let role = name.strip_suffix("_system").unwrap_or(name);
            RoleName::parse(role)
                .with_context(|| format!("database.passwords: there is no login {name}"))?;
        }
        Ok(())
    }
}

impl Database {
    /// How a role reaches its schema.
    pub fn of_role(&self, role: RoleName) -> anyhow::Result<pg::DbConfig> {
        let system = format!("{role}_system");
        Ok(pg::DbConfig {
            url: self.login_url(role.login(), role.as_str())?,
            system_url: self.login_url(role.system_login(), &system)?,
            max_connections: self.max_connections,
        })
    }

    pub fn password(&self, name: &str) -> Option<&str> {
        self.passwords.get(name).map(Secret::expose)
    }

    fn login_url(&self, login: &str, name: &str) -> anyhow::Result<String> {
        // The cause could repeat the URL, and with it a password.
        let wrong = || anyhow::anyhow!("database.url is not a PostgreSQL URL with a host");
        let mut url = Url::parse(self.url.expose()).map_err(|_| wrong())?;
        url.set_username(login).map_err(|()| wrong())?;
        url.set_password(self.password(name)).map_err(|()| wrong())?;
        Ok(url.into())
    }
}

impl StoreKey {
    fn credentials(&self) -> Credentials {
        Credentials {
            access_key: self.access_key.clone(),
            secret_key: self.secret_key.expose().to_owned(),
        }
    }
}

impl Store {
    /// For the engine's client. `admin` only where buckets are to be made.
    pub fn engine(&self, admin: Option<Credentials>) -> anyhow::Result<StoreConfig> {
        let endpoint = self.endpoint.as_deref().map(Url::parse).transpose();
        Ok(StoreConfig {
            endpoint: endpoint.context("store.endpoint is not a URL")?,
            region: self.region.clone(),
            bucket: self.bucket.clone(),
            key_bucket: self.key_bucket.clone(),
            path_style: self.path_style,
            admin,
            ingest: self.ingest.credentials(),
            restore: self.restore.credentials(),
            steward: self.steward.credentials(),
            reaper: self.reaper.credentials(),
            key_keeper: self.key_keeper.credentials(),
            capabilities: Capabilities {
                create_only: self.capabilities.create_only,
                checksum_sha256: self.capabilities.checksum_sha256,
                content_md5: self.capabilities.content_md5,
                unsigned_headers_refused: self.capabilities.unsigned_headers_refused,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
        public_url = "https://backup.example"
        [database]
        url = "postgres://db.example:5432/everhold?sslmode=verify-full"
        [database.passwords]
        auth = "a:b@c"
        [keys]
        access = "A"
        service = "B"
        receipt = "C"
        roster = "D"
        wrapper_file = "/etc/everhold/wrapper.key"
        [store]
        bucket = "vaults"
        key_bucket = "keys"
        ingest = { access_key = "i", secret_key = "s" }
        restore = { access_key = "r", secret_key = "s" }
        steward = { access_key = "t", secret_key = "s" }
        reaper = { access_key = "e", secret_key = "s" }
        key_keeper = { access_key = "k", secret_key = "s" }
    "#;

    fn example() -> ServerConfig {
        process::config::load_from(Some(EXAMPLE), []).expect("valid")
    }

    #[test]
    fn a_minimal_file_is_enough_and_roles_get_their_logins() {
        let config = example();
        config.check().expect("good");
        let auth = config.database.of_role(RoleName::Auth).expect("urls");
        assert_eq!(
            auth.url,
            "postgres://everhold_auth:a%3Ab%40c@db.example:5432/everhold?sslmode=verify-full"
        );
        assert!(auth.system_url.starts_with("postgres://everhold_auth_system@db.example"));
        assert!(!format!("{config:?}").contains("a:b@c"));
    }

    #[test]
    fn a_public_url_with_a_path_and_unknown_roles_are_refused() {
        let mut config = example();
        config.public_url = "https://backup.example/".into();
        assert!(config.check().is_err());
        config = example();
        config.peers.insert("cataloge".into(), "http://x".into());
        assert!(config.check().is_err());
    }
}
