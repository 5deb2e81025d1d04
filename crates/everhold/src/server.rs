//! From configuration to a running server: the roles wanted, their listeners and workers.
//!
//! Owns the wiring and nothing else: which role gets which database, key and peer. One process may run any set
//! of roles; those it does not run are reached over their internal listeners.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use axum::{Router, extract::Request, response::IntoResponse as _};
use domain::{Clock, IdGen};
use ed25519_dalek::SigningKey;
use process::lifecycle::Lifecycle;
use runtime::{
    Assembly, Edge, Limits, Metrics, Peers, Platform, Role, RoleName, ServiceKeys, TokenVerifier,
    assemble,
};
use tokio::net::TcpListener;
use tower::ServiceExt as _;
use vault::store::Credentials;
use zeroize::Zeroizing;

use crate::{config::ServerConfig, portal, receipts::PlatformReceipts};

/// Roles, assembled and not yet serving.
pub struct Server {
    pub assembly: Assembly,
    metrics: Metrics,
    /// By role, for what has to be done beside serving (first accounts).
    pub platforms: BTreeMap<RoleName, Platform>,
    portal: Router,
}

/// The sockets of a server.
pub struct Listeners {
    /// Several, because `localhost` has two addresses.
    pub public: Vec<TcpListener>,
    pub admin: TcpListener,
    pub internal: Option<TcpListener>,
}

impl Server {
    /// Builds `roles`. Speaks to nobody yet.
    pub async fn build(
        config: &ServerConfig,
        roles: &[RoleName],
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdGen>,
        store_admin: Option<Credentials>,
    ) -> anyhow::Result<Self> {
        config.check()?;
        let service_keys = ServiceKeys::new(&signing_key("keys.service", &config.keys.service)?)?;
        let remote = remote_peers(config, roles)?;
        let peers = Peers::new(service_keys.clone(), clock.clone(), &remote)?;
        let verifier = TokenVerifier::new(&config.public_url, clock.clone());
        let access = access_config(config)?;
        verifier.set_keys(access.keys.public().to_vec());

        let mut platforms = BTreeMap::new();
        for &role in roles {
            let db = pg::Db::connect(role, &config.database.of_role(role)?).await?;
            let platform = Platform {
                clock: clock.clone(),
                ids: ids.clone(),
                db,
                verifier: verifier.clone(),
                service_keys: service_keys.clone(),
                peers: peers.as_seen_by(role),
                public_url: config.public_url.as_str().into(),
            };
            platforms.insert(role, platform);
        }
        let first = platforms.values().next().context("no role to serve")?;
        let metrics = Metrics::new()?;
        let edge = Edge::new(first, metrics.clone(), Limits::default());
        let mut built = Vec::new();
        for (&role, platform) in &platforms {
            built.push(build_role(role, platform, config, store_admin.clone()).await?);
        }
        let assembly = assemble(&edge, built);
        let portal = portal::router(config.portal.clone());
        Ok(Self { assembly, metrics, platforms, portal })
    }

    /// Starts listeners and workers as tasks of `life`.
    pub fn start(self, life: &Lifecycle, listeners: Listeners) {
        let public = one_origin(self.assembly.public, self.portal);
        for listener in listeners.public {
            let (router, stop) = (public.clone(), life.token());
            life.spawn("public", async move {
                report("public", runtime::serve_public(listener, router, stop).await);
            });
        }
        let admin = runtime::admin::router(self.metrics, self.assembly.readiness);
        let stop = life.token();
        life.spawn("admin", async move {
            report("admin", runtime::serve_public(listeners.admin, admin, stop).await);
        });
        if let Some(listener) = listeners.internal {
            let (router, stop) = (self.assembly.internal, life.token());
            life.spawn("internal", async move {
                report("internal", runtime::serve_internal(listener, router, stop).await);
            });
        }
        for worker in self.assembly.workers {
            life.spawn(worker.name, (worker.run)(life.token()));
        }
    }
}

fn report(listener: &str, ended: std::io::Result<()>) {
    if let Err(error) = ended {
        tracing::error!(listener, %error, "listener ended");
    }
}

/// The API and the portal behind one origin: no CORS, and cookies that stay at home.
fn one_origin(api: Router, portal: Router) -> Router {
    Router::new().fallback(move |request: Request| {
        let router = if is_api(request.uri().path()) { api.clone() } else { portal.clone() };
        async move {
            match router.oneshot(request).await {
                Ok(response) => response.into_response(),
                Err(never) => match never {},
            }
        }
    })
}

fn is_api(path: &str) -> bool {
    path == "/v1"
        || path == "/openapi.json"
        || ["/v1/", "/internal/", "/.well-known/"].iter().any(|p| path.starts_with(p))
}

async fn build_role(
    role: RoleName,
    platform: &Platform,
    config: &ServerConfig,
    store_admin: Option<Credentials>,
) -> anyhow::Result<Role> {
    let receipt_key = signing_key("keys.receipt", &config.keys.receipt)?;
    Ok(match role {
        RoleName::Auth => auth::role(platform, access_config(config)?),
        RoleName::Catalog => {
            catalog::role(platform.clone(), catalog_config(config, store_admin)?).await?
        }
        RoleName::Scheduler => {
            let receipt_key = receipt_key.verifying_key().to_bytes();
            let receipts = Arc::new(PlatformReceipts { receipt_key });
            scheduler::role(platform, scheduler::SchedulerConfig::new(receipts))
        }
        RoleName::Audit => audit::role(platform),
        RoleName::Billing => billing::role(platform),
    })
}

fn catalog_config(
    config: &ServerConfig,
    store_admin: Option<Credentials>,
) -> anyhow::Result<catalog::CatalogConfig> {
    let seed =
        |name, key| -> anyhow::Result<_> { Ok(Zeroizing::new(signing_key(name, key)?.to_bytes())) };
    let copies = config.copies.iter().map(|(name, store)| Ok((name.clone(), store.engine(None)?)));
    Ok(catalog::CatalogConfig {
        store: config.store.engine(store_admin)?,
        copies: copies.collect::<anyhow::Result<_>>()?,
        key_wrapper_file: config.keys.wrapper_file.clone(),
        roster_key_seed: seed("keys.roster", &config.keys.roster)?,
        receipt_key_seed: seed("keys.receipt", &config.keys.receipt)?,
        retention: config.retention.rule(),
    })
}

/// The catalog's parts without a server around them, for `everhold admin`.
pub async fn catalog_alone(
    config: &ServerConfig,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
) -> anyhow::Result<catalog::Catalog> {
    config.check()?;
    let service_keys = ServiceKeys::new(&signing_key("keys.service", &config.keys.service)?)?;
    // It calls no other role.
    let peers = Peers::new(service_keys.clone(), clock.clone(), &BTreeMap::new())?;
    let role = RoleName::Catalog;
    let platform = Platform {
        verifier: TokenVerifier::new(&config.public_url, clock.clone()),
        clock,
        ids,
        db: pg::Db::connect(role, &config.database.of_role(role)?).await?,
        service_keys,
        peers: peers.as_seen_by(role),
        public_url: config.public_url.as_str().into(),
    };
    Ok(catalog::Catalog::new(platform, catalog_config(config, None)?).await?)
}

fn access_config(config: &ServerConfig) -> anyhow::Result<auth::AuthConfig> {
    let keys = &config.keys;
    auth::AuthConfig::new(keys.access.expose(), &keys.access_verification, parallel_passwords())
        .context("keys.access")
}

/// Hashing takes a core for a moment; one is left for everything else.
fn parallel_passwords() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1).clamp(1, 4))
}

fn signing_key(name: &str, secret: &process::config::Secret) -> anyhow::Result<SigningKey> {
    auth::keys::parse_signing_key(secret.expose()).with_context(|| name.to_owned())
}

/// Where the roles that do not run here are.
fn remote_peers(
    config: &ServerConfig,
    here: &[RoleName],
) -> anyhow::Result<BTreeMap<RoleName, String>> {
    let mut remote = BTreeMap::new();
    for role in RoleName::ALL.into_iter().filter(|role| !here.contains(role)) {
        let url = config.peers.get(role.as_str()).with_context(|| {
            format!("this process does not run {role}: name its internal listener as peers.{role}")
        })?;
        remote.insert(role, url.clone());
    }
    Ok(remote)
}

/// The document of every role, for `everhold openapi`: needs no database and no store.
pub async fn openapi() -> anyhow::Result<String> {
    let folder = std::env::temp_dir().join(format!("everhold-openapi-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let config = crate::dev::sample_config(&folder)?;
    let clock = Arc::new(domain::SystemClock);
    let ids = Arc::new(domain::SystemIds);
    let built = Server::build(&config, &RoleName::ALL, clock, ids, None).await;
    std::fs::remove_dir_all(&folder)?;
    Ok(serde_json::to_string_pretty(built?.assembly.openapi.as_ref())?)
}
