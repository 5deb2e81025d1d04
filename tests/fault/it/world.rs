//! Real parts, each behind a seam: catalog and PostgreSQL, the embedded store, the agent's own library.
//!
//! Owns their wiring. Invariant: the agent reaches the control plane and the store, and the control plane its
//! database and the store, only through what can be broken.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicBool},
};

use api::{
    Code,
    internal::{VerifiedAgent, VerifyAgentRequest},
    signature,
};
use axum::{extract::State, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use catalog::{Catalog, CatalogConfig};
use devstore::{Config, DevStore, Key, Policy};
use domain::{AgentId, Timestamp, retention::RetentionRule};
use ed25519_dalek::VerifyingKey;
use faults::Verdict as OnDisk;
use runtime::{Caller, Json, Platform, Reply, Role, RoleName};
use testkit::TestApp;
use tokio::{net::TcpListener, task::JoinSet};
use vault::{
    id::Sha256,
    store::{Capabilities, Credentials, S3Store, StoreConfig},
};
use zeroize::Zeroizing;

use crate::{
    front::{self, Backend, Denied, Front, Sent, Watch},
    plan::{Fault, Op, Plan, Seam, Verdict},
    wire,
};

/// Agents as auth knows them.
pub type Enrolled = Arc<Mutex<HashMap<AgentId, VerifiedAgent>>>;

/// An embedded store behind a front.
#[derive(Clone)]
pub struct Place {
    pub devstore: DevStore,
    /// Straight to it, past every seam.
    pub straight: S3Store,
    /// Set: whoever comes through the front gets no answer.
    pub down: Arc<AtomicBool>,
    config: StoreConfig,
    dir: PathBuf,
}

impl Place {
    /// The disk below it changes a byte of an object.
    pub fn spoil(&self, bytes: &[u8], at: u64) {
        testkit::spoil(&self.dir, bytes, usize::try_from(at).expect("a place in it"));
    }
}

type Parts = (Arc<Catalog>, Place, Place);

/// Second copies are configured by this name.
pub const SECOND: &str = "second";

/// A Monday at noon, long after anybody runs this: a file that looks as if it were written just now, or later, is read
/// again by every backup, and nothing would ever be taken over unread.
const LATER_MS: u64 = 2_493_374_400_000;

pub struct World {
    pub app: TestApp,
    pub catalog: Arc<Catalog>,
    pub plan: Arc<Plan>,
    pub enrolled: Enrolled,
    /// Where agents find the control plane.
    pub server: String,
    pub dir: tempfile::TempDir,
    /// Where vaults are.
    pub first: Place,
    /// Where their second copies go.
    pub second: Place,
    sent: Sent,
    denied: Denied,
    /// What listens; it ends with the world.
    _listeners: Listeners,
}

type Listeners = Arc<Mutex<JoinSet<()>>>;

/// A world with everybody alive. One per process: the fault points of the agent are the process's.
pub async fn world() -> World {
    // What is broken here is order, not disks.
    let dir = testkit::scratch();
    let plan = Arc::new(Plan::new());
    let (enrolled, sent, denied) = (Enrolled::default(), Sent::default(), Denied::default());
    let listeners = Listeners::default();
    let made: Arc<OnceLock<Parts>> = Arc::default();
    let sql = listener().await;
    let (port, socket) = (sql.local_addr().expect("address").port(), wire::Socket::default());
    listen(&listeners, wire::serve(sql, socket.clone(), plan.clone()));
    let out = made.clone();
    let watch = Watch { plan: plan.clone(), sent: sent.clone(), denied: denied.clone() };
    let parts = (dir.path().join("server"), watch.clone(), listeners.clone());
    let app = TestApp::builder()
        .beginning(Timestamp::from_unix_millis(LATER_MS))
        .dial(move |url| wire::through(&url, port, &socket))
        .role(RoleName::Auth, {
            let known = enrolled.clone();
            move |_| auth(known)
        })
        .role_async(RoleName::Catalog, async move |platform: Platform| {
            let (path, watch, listeners) = parts;
            let names = [("store", ""), (SECOND, " of the copy")];
            let [first, second] =
                names.map(|name| start_store(&path, name, &platform, &watch, &listeners));
            let (first, second) = (first.await, second.await);
            let config = CatalogConfig {
                store: first.config.clone(),
                copies: BTreeMap::from([(SECOND.to_owned(), second.config.clone())]),
                key_wrapper_file: path.join("wrapper"),
                roster_key_seed: Zeroizing::new([11; 32]),
                receipt_key_seed: Zeroizing::new([12; 32]),
                retention: RetentionRule::default(),
            };
            let catalog = Arc::new(Catalog::new(platform, config).await.expect("catalog"));
            let role = catalog::role_of(&catalog);
            assert!(out.set((catalog, first, second)).is_ok());
            role
        })
        .start()
        .await
        .expect("app");
    let (catalog, first, second) = made.get().cloned().expect("built");
    let listener = listener().await;
    let server = format!("http://{}", listener.local_addr().expect("address"));
    let backend = Backend::ControlPlane(app.assembly().public.clone());
    let front = Front { watch, backend };
    listen(&listeners, front::serve(listener, Arc::new(front)));
    break_disks(plan.clone());
    let _listeners = listeners;
    World { app, catalog, plan, enrolled, server, dir, first, second, sent, denied, _listeners }
}

fn listen(listeners: &Listeners, work: impl Future<Output = ()> + Send + 'static) {
    listeners.lock().unwrap_or_else(PoisonError::into_inner).spawn(work);
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("port")
}

/// The agent's fault points ask the plan.
fn break_disks(plan: Arc<Plan>) {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    const EDQUOT: i32 = 122;
    faults::watch(Arc::new(move |name| {
        match plan.ask(&Op { seam: Seam::Disk, name: name.to_owned() }) {
            Verdict::Pass => OnDisk::Pass,
            Verdict::Do(Fault::Delay) => OnDisk::Delay(10),
            Verdict::Do(Fault::Tear) => {
                // A write is torn by nothing but the end of its process.
                plan.kill(Seam::Disk);
                OnDisk::Tear
            }
            // No space for an attribute, on a disk with space, is nothing that passes.
            Verdict::Do(Fault::FailForever) if name == "restore: attribute" => OnDisk::Fail(EDQUOT),
            Verdict::Do(Fault::FailForever) => OnDisk::Fail(ENOSPC),
            Verdict::Dead | Verdict::Do(_) => OnDisk::Fail(EIO),
        }
    }));
}

async fn start_store(
    dir: &Path,
    (name, of): (&str, &'static str),
    platform: &Platform,
    watch: &Watch,
    listeners: &Listeners,
) -> Place {
    let secret =
        |name: &str| Credentials { access_key: name.into(), secret_key: format!("{name}-secret") };
    let key = |name: &str, policy, bucket: &str| Key {
        access_key: name.into(),
        secret_key: format!("{name}-secret"),
        policy,
        buckets: if bucket.is_empty() { vec![] } else { vec![bucket.into()] },
    };
    let keys = vec![
        key("admin", Policy::Administrator, ""),
        key("ingest", Policy::IngestSigner, "vaults"),
        key("restore", Policy::RestoreSigner, "vaults"),
        key("steward", Policy::Steward, "vaults"),
        key("reaper", Policy::Reaper, "vaults"),
        key("keeper", Policy::KeyKeeper, "keys"),
    ];
    let dir = dir.join(name);
    let config = Config { dir: dir.clone(), keys, clock: platform.clock.clone() };
    let devstore = DevStore::open(config).expect("store opens");
    let (inner, outer) = (listener().await, listener().await);
    let address = inner.local_addr().expect("address");
    let endpoint = format!("http://{}", outer.local_addr().expect("address"));
    let serving = devstore.clone();
    listen(listeners, async move { drop(serving.serve(inner, std::future::pending()).await) });
    let down = Arc::<AtomicBool>::default();
    let backend = Backend::Store { http: reqwest::Client::new(), address, of, down: down.clone() };
    let front = Front { watch: watch.clone(), backend };
    listen(listeners, front::serve(outer, Arc::new(front)));
    let config = StoreConfig {
        endpoint: Some(endpoint.parse().expect("url")),
        region: "us-east-1".into(),
        bucket: "vaults".into(),
        key_bucket: "keys".into(),
        path_style: true,
        admin: Some(secret("admin")),
        ingest: secret("ingest"),
        restore: secret("restore"),
        steward: secret("steward"),
        reaper: secret("reaper"),
        key_keeper: secret("keeper"),
        capabilities: Capabilities::default(),
    };
    let store = S3Store::connect(config.clone()).await.expect("store");
    store.ensure_buckets().await.expect("buckets");
    let straight = StoreConfig {
        endpoint: Some(format!("http://{address}").parse().expect("url")),
        ..config.clone()
    };
    let straight = S3Store::connect(straight).await.expect("store");
    Place { devstore, straight, down, config, dir }
}

/// Auth at its seam: verifies real signatures of the agents it knows.
fn auth(known: Enrolled) -> Role {
    let router = axum::Router::new()
        .route("/internal/v1/auth/agent-request", post(verify))
        .with_state(known);
    Role::new(RoleName::Auth).internal(router)
}

async fn verify(
    State(known): State<Enrolled>,
    _: Caller,
    Json(ask): Json<VerifyAgentRequest>,
) -> Reply<Json<VerifiedAgent>> {
    let invalid = Code::SignatureInvalid;
    let agent = known.lock().expect("lock").get(&ask.agent_id).cloned().ok_or(invalid)?;
    let key: [u8; 32] = BASE64.decode(&agent.verify_key).expect("b64").try_into().expect("32");
    let base =
        String::from_utf8(BASE64.decode(&ask.base).map_err(|_| invalid)?).map_err(|_| invalid)?;
    let bytes =
        BASE64.decode(&ask.signature).ok().and_then(|b| b.try_into().ok()).ok_or(invalid)?;
    let key = VerifyingKey::from_bytes(&key).map_err(|_| invalid)?;
    signature::verify(&key, &base, &bytes).map_err(|_| invalid)?;
    if agent.tenant_id == ask.tenant_id { Ok(Json(agent)) } else { Err(invalid.into()) }
}

impl World {
    pub fn now(&self) -> Timestamp {
        self.app.now()
    }

    /// Time passes, and the store's operator knows.
    pub fn advance(&self, by: std::time::Duration) {
        self.app.advance(by);
        self.first.devstore.confirm_clock();
        self.second.devstore.confirm_clock();
    }

    /// Work of the server that dies when the server does.
    pub async fn on_server<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut life = self.plan.life();
        tokio::select! {
            () = life.over() => None,
            done = work => Some(done),
        }
    }

    /// Whether the store was never asked to let go of something it holds.
    pub fn check_store(&self) -> Result<(), String> {
        let denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        if denied.is_empty() { Ok(()) } else { Err(format!("locked and asked to go: {denied:?}")) }
    }

    /// Whether no salt, and no context of a key, was ever used for two different packs, among all that were
    /// ever sent. Gives how many there were.
    pub fn check_keys(&self) -> Result<usize, String> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen: BTreeMap<&[u8], Sha256> = BTreeMap::new();
        for (header, sha256) in sent.iter() {
            // The salt alone (88..120), and what is mixed with it (8..88: session and number in it).
            for part in [&header[88..120], &header[8..88]] {
                let before = seen.insert(part, *sha256);
                if before.is_some_and(|before| before != *sha256) {
                    return Err(format!("a pack key was used twice, by {sha256} too"));
                }
            }
        }
        Ok(sent.len())
    }
}
