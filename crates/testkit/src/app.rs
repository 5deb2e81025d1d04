//! Roles in process, on a database of their own, in a time the test moves.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use api::client::{Client, Identity};
use axum::{Router, body::Body};
use bytes::Bytes;
use domain::{Clock, IdGen, ManualClock, SystemIds, Timestamp};
use ed25519_dalek::SigningKey;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use runtime::{
    AccessSigner, Assembly, Edge, Limits, Metrics, Peers, Platform, Role, RoleName, ServiceKeys,
    TokenVerifier, VerifyKey,
};
use tower::ServiceExt as _;

use crate::{TestDb, auth_stand_in::StandIn};

/// Where tests stand in time until they move: a Monday at noon.
const START_MS: u64 = 1_768_219_200_000;
const ORIGIN: &str = "http://everhold.test";

type Dial = Box<dyn Fn(String) -> String>;
type Build = Box<dyn FnOnce(Platform) -> Pin<Box<dyn Future<Output = Role>>>>;

/// Which roles a test runs, and how they are built.
#[derive(Default)]
pub struct TestAppBuilder {
    roles: Vec<(RoleName, Build)>,
    limits: Option<Limits>,
    ids: Option<Arc<dyn IdGen>>,
    dial: Option<Dial>,
    start: Option<Timestamp>,
}

impl TestAppBuilder {
    /// Adds a role: `.role(RoleName::Audit, |platform| audit::role(platform, config))`.
    #[must_use]
    pub fn role(self, name: RoleName, build: impl FnOnce(Platform) -> Role + 'static) -> Self {
        self.role_async(name, async move |platform| build(platform))
    }
    /// The same for a role that has to wait for something while it is built.
    #[must_use]
    pub fn role_async(
        mut self,
        name: RoleName,
        build: impl AsyncFnOnce(Platform) -> Role + 'static,
    ) -> Self {
        self.roles.push((name, Box::new(move |platform| Box::pin(build(platform)))));
        self
    }
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }
    /// Another source of ids than the system's (`SeededIds` where a test wants the same ids every time).
    #[must_use]
    pub fn ids(mut self, ids: Arc<dyn IdGen>) -> Self {
        self.ids = Some(ids);
        self
    }
    /// Another way to the same databases, for what stands between: gets and gives URLs.
    #[must_use]
    pub fn dial(mut self, by: impl Fn(String) -> String + 'static) -> Self {
        self.dial = Some(Box::new(by));
        self
    }

    /// Another time to begin at, for what compares the platform's clock with the system's.
    #[must_use]
    pub const fn beginning(mut self, at: Timestamp) -> Self {
        self.start = Some(at);
        self
    }

    /// Starts it all. Workers are not run: tests take the steps themselves (see [`TestApp::settle`]).
    ///
    /// # Errors
    /// When there is no database.
    pub async fn start(self) -> Result<TestApp> {
        let database = TestDb::create().await?;
        let start = self.start.unwrap_or(Timestamp::from_unix_millis(START_MS));
        let clock = Arc::new(ManualClock::at(start));
        let ids = self.ids.unwrap_or_else(|| Arc::new(SystemIds));
        let key = |n: u8| SigningKey::from_bytes(&[n; 32]);
        let service_keys = ServiceKeys::new(&key(1))?;
        let verifier = TokenVerifier::new(ORIGIN, clock.clone());
        verifier.set_keys(vec![VerifyKey::of(&key(2))]);
        let peers = Peers::new(service_keys.clone(), clock.clone(), &BTreeMap::new())?;
        let mut platforms = BTreeMap::new();
        for name in RoleName::ALL {
            let platform = Platform {
                clock: clock.clone(),
                ids: ids.clone(),
                db: dialled(&database, name, self.dial.as_deref()).await?,
                verifier: verifier.clone(),
                service_keys: service_keys.clone(),
                peers: peers.as_seen_by(name),
                public_url: ORIGIN.into(),
            };
            platforms.insert(name, platform);
        }
        let stand_in = StandIn::default();
        let mut roles = Vec::new();
        if !self.roles.iter().any(|(name, _)| *name == RoleName::Auth) {
            roles.push(stand_in.role());
        }
        for (name, build) in self.roles {
            roles.push(build(platforms[&name].clone()).await);
        }
        let edge = Edge::new(
            &platforms[&RoleName::Auth],
            Metrics::new()?,
            self.limits.unwrap_or_default(),
        );
        let assembly = runtime::assemble(&edge, roles);
        Ok(TestApp {
            clock,
            signer: AccessSigner::new(&key(2))?,
            platforms,
            assembly,
            stand_in,
            edge,
            database,
        })
    }
}

async fn dialled(
    database: &TestDb,
    name: RoleName,
    dial: Option<&dyn Fn(String) -> String>,
) -> Result<pg::Db> {
    let mut config = database.config(name);
    if let Some(dial) = dial {
        config.url = dial(config.url);
        config.system_url = dial(config.system_url);
    }
    Ok(pg::Db::connect(name, &config).await?)
}

/// Everything a test talks to.
pub struct TestApp {
    clock: Arc<ManualClock>,
    signer: AccessSigner,
    platforms: BTreeMap<RoleName, Platform>,
    assembly: Assembly,
    stand_in: StandIn,
    edge: Edge,
    // Last: dropped after the pools that use it.
    database: TestDb,
}

impl TestApp {
    pub fn builder() -> TestAppBuilder {
        TestAppBuilder::default()
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }
    pub fn ids(&self) -> &Arc<dyn IdGen> {
        &self.platforms[&RoleName::Auth].ids
    }
    pub const fn database(&self) -> &TestDb {
        &self.database
    }
    /// What the role of this name was built on.
    pub fn platform(&self, role: RoleName) -> &Platform {
        &self.platforms[&role]
    }
    pub fn verifier(&self) -> &TokenVerifier {
        &self.platforms[&RoleName::Auth].verifier
    }
    pub fn peers(&self) -> &Peers {
        &self.platforms[&RoleName::Auth].peers
    }
    pub const fn signer(&self) -> &AccessSigner {
        &self.signer
    }
    pub const fn edge(&self) -> &Edge {
        &self.edge
    }
    /// The public router, its document, the workers.
    pub const fn assembly(&self) -> &Assembly {
        &self.assembly
    }
    pub(crate) const fn stand_in(&self) -> &StandIn {
        &self.stand_in
    }

    /// A client of the public operations, as nobody.
    pub fn client(&self) -> Client {
        let router = runtime::in_process(self.assembly.public.clone());
        Client::in_process(ORIGIN, router, Identity::Anonymous)
    }

    /// A request as it is, for what the client would not send.
    pub async fn raw(&self, request: Request<Bytes>) -> Response<Bytes> {
        call(self.assembly.public.clone(), request).await
    }

    /// Hands every fact in every outbox to its receiver, and waits for those a transaction elsewhere in
    /// the cluster still holds back.
    ///
    /// # Errors
    /// When a receiver refuses, or facts are left after ten seconds.
    pub async fn settle(&self) -> Result<()> {
        for (name, platform) in &self.platforms {
            // An outbox only its role's migrations make.
            if !self.has_outbox(*name).await? {
                continue;
            }
            let waiting = pg::outbox::Relay::new(
                platform.db.clone(),
                &["audit", "meter", "snapshot_committed"],
            );
            let mut rounds = 0;
            loop {
                runtime::deliver_pending(platform).await?;
                if waiting.backlog().await? == 0 {
                    break;
                }
                rounds += 1;
                if rounds > 2_000 {
                    bail!("facts of {name} are not delivered");
                }
                // The xmin horizon is the cluster's: another test's transaction has to end first.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }

    async fn has_outbox(&self, role: RoleName) -> Result<bool> {
        let mut connection = self.database.superuser().await?;
        let there = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(format!("{role}.outbox"))
            .fetch_one(&mut connection)
            .await?;
        Ok(there)
    }
}

async fn call(router: Router, request: Request<Bytes>) -> Response<Bytes> {
    let response = match router.oneshot(request.map(Body::from)).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body in memory ends").to_bytes();
    Response::from_parts(parts, bytes)
}
