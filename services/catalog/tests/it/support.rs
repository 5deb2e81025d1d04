//! The world of these tests: a store, a catalog, agents that do what an agent does.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use api::{
    Code, Page,
    catalog::{
        AllocatePack, AllocatePacks, AllocatedPacks, CommitReply, CommitSession, ConfirmPack,
        ConfirmPacks, ConfirmedPacks, CreateVault, CreateWorkload, KeyMode, KeyWrap, OpenSession,
        PackFacts, PackKind, PlatformKeys, PresignedRequest, RecipientKind, Session, SnapshotStats,
        Vault,
    },
    client::{Client, Error},
    internal::{VerifiedAgent, VerifyAgentRequest},
    signature,
};
use axum::{extract::State, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use catalog::{
    Catalog, CatalogConfig,
    collection::{expiry_store, letting_go::UNDO},
    holds,
};
use devstore::{Config, DevStore, Key, Policy};
use domain::{
    AgentId, HoldId, IdGen, PackId, RunId, SnapshotId, TenantId, Timestamp, VaultId, WorkloadId,
    retention::RetentionRule,
};
use ed25519_dalek::VerifyingKey;
use pg::{OperationalReason, TenantTx};
use runtime::{Caller, Json, LeaseClaims, Platform, Reply, Role, RoleName};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use testkit::TestApp;
use vault::{
    descriptor::{self, VaultDescriptor},
    id,
    keys::{AgentKeys, Recipient, VaultKeys},
    manifest::{FrameBitmap, Manifest, PackList, PackRef, PackSet, SignedManifest},
    store::{Capabilities, Credentials, S3Store, StoreConfig},
    tree::Root,
};
use zeroize::Zeroizing;

pub const DAY: Duration = Duration::from_secs(86_400);

/// Agents as auth knows them.
type Enrolled = Arc<Mutex<HashMap<AgentId, VerifiedAgent>>>;

/// What comes out of building the role.
type Parts = (Arc<Catalog>, S3Store, Stores);

/// The vault's store and the one for second copies, each with its configuration.
type Stores = [(DevStore, StoreConfig); 2];

/// A catalog with a store, in test time.
pub struct World {
    pub app: TestApp,
    pub catalog: Arc<Catalog>,
    /// With every key, the administrator's among them.
    pub store: S3Store,
    pub devstore: DevStore,
    pub store_config: StoreConfig,
    /// The store for second copies, with every key.
    pub second: S3Store,
    pub second_devstore: DevStore,
    pub second_config: StoreConfig,
    enrolled: Enrolled,
    _dir: tempfile::TempDir,
}

pub async fn world() -> World {
    world_under(RetentionRule::default()).await
}

/// A world in which new snapshots are promised this.
pub async fn world_under(retention: RetentionRule) -> World {
    let dir = testkit::scratch();
    let enrolled = Enrolled::default();
    let made: Arc<OnceLock<Parts>> = Arc::default();
    let (out, path) = (made.clone(), dir.path().to_owned());
    let app = TestApp::builder()
        .role(RoleName::Auth, {
            let known = enrolled.clone();
            move |_| auth(known)
        })
        .role_async(RoleName::Catalog, async move |platform: Platform| {
            let (devstore, config) = start_store(path.join("store"), &platform).await;
            let store = S3Store::connect(config.clone()).await.expect("store");
            store.ensure_buckets().await.expect("buckets");
            let second = start_store(path.join("second"), &platform).await;
            let stores = [(devstore, config.clone()), second.clone()];
            let config = CatalogConfig {
                store: config,
                copies: copies(&second.1),
                key_wrapper_file: path.join("wrapper"),
                roster_key_seed: Zeroizing::new([11; 32]),
                receipt_key_seed: Zeroizing::new([12; 32]),
                retention,
            };
            let catalog = Arc::new(Catalog::new(platform, config).await.expect("catalog"));
            let role = catalog::role_of(&catalog);
            assert!(out.set((catalog, store, stores)).is_ok());
            role
        })
        .start()
        .await
        .expect("app");
    let (catalog, store, stores) = made.get().cloned().expect("built");
    let [(devstore, store_config), (second_devstore, second_config)] = stores;
    let second = S3Store::connect(second_config.clone()).await.expect("store");
    second.ensure_buckets().await.expect("buckets");
    World {
        app,
        catalog,
        store,
        devstore,
        store_config,
        second,
        second_devstore,
        second_config,
        enrolled,
        _dir: dir,
    }
}

/// As a configuration would name it: the good place, and one whose bucket has no Object Lock.
fn copies(config: &StoreConfig) -> BTreeMap<String, StoreConfig> {
    let admin = config.admin.clone().expect("admin");
    let open = StoreConfig {
        bucket: "keys".into(),
        ingest: admin.clone(),
        restore: admin.clone(),
        steward: admin.clone(),
        reaper: admin,
        ..config.clone()
    };
    BTreeMap::from([("second".into(), config.clone()), ("unlocked".into(), open)])
}

async fn start_store(dir: std::path::PathBuf, platform: &Platform) -> (DevStore, StoreConfig) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
    let address = listener.local_addr().expect("address");
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
    let config = Config { dir, keys, clock: platform.clock.clone() };
    let devstore = DevStore::open(config).expect("store opens");
    let serving = devstore.clone();
    tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
    let config = StoreConfig {
        endpoint: Some(format!("http://{address}").parse().expect("url")),
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
    (devstore, config)
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

/// An agent with its vault, and everything it keeps on its machine.
pub struct Agent {
    pub tenant: TenantId,
    pub id: AgentId,
    pub keys: AgentKeys,
    pub client: Client,
    pub vault: VaultId,
    pub workload: WorkloadId,
    pub vault_keys: Arc<VaultKeys>,
    pub descriptor: VaultDescriptor,
    pub run: RunId,
    ids: Arc<dyn IdGen>,
}

/// A pack as an agent made it: bytes and what the server said about them.
#[derive(Clone)]
pub struct Made {
    pub seq: u64,
    pub kind: PackKind,
    pub bytes: Bytes,
    pub facts: Option<PackFacts>,
}

impl Made {
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }
    pub fn ask(&self) -> AllocatePack {
        AllocatePack {
            seq: self.seq,
            kind: self.kind,
            sha256: hex::encode(self.sha256()),
            md5: Some(BASE64.encode(md5::Md5::digest(&self.bytes))),
            length: self.bytes.len() as u64,
        }
    }
    pub fn id(&self) -> PackId {
        self.facts.as_ref().expect("allocated").id
    }
    pub fn reference(&self) -> PackRef {
        let facts = self.facts.as_ref().expect("confirmed");
        let kind = match self.kind {
            PackKind::Data => vault::pack::PackKind::Data,
            PackKind::Meta | PackKind::Manifest => vault::pack::PackKind::Meta,
        };
        let mut used = FrameBitmap::default();
        used.insert(0);
        PackRef {
            id: facts.id,
            kind,
            sha256: id::Sha256(self.sha256()),
            length: facts.length,
            version_id: facts.version_id.clone().expect("confirmed"),
            frames: 1,
            used,
        }
    }
}

impl World {
    pub fn now(&self) -> Timestamp {
        self.app.now()
    }

    /// Time passes, and the store's operator knows.
    pub fn advance(&self, by: Duration) {
        self.app.advance(by);
        self.devstore.confirm_clock();
        self.second_devstore.confirm_clock();
    }

    pub fn platform(&self) -> &Platform {
        self.app.platform(RoleName::Catalog)
    }

    /// An enrolled agent with a managed vault, key objects stored.
    pub async fn agent(&self, tenant: TenantId) -> Agent {
        let agent = self.enrol(tenant);
        let body = agent.create_vault(self).await;
        agent.put::<Vault>(&format!("vaults/{}", agent.vault), &body).await.expect("vault");
        agent
    }

    /// An enrolled agent without a vault.
    pub fn enrol(&self, tenant: TenantId) -> Agent {
        let ids = self.app.ids().clone();
        let (id, vault): (AgentId, VaultId) = (self.app.id(), self.app.id());
        let keys = AgentKeys::generate(&*ids);
        let verified = VerifiedAgent {
            tenant_id: tenant,
            agent_id: id,
            verify_key: BASE64.encode(keys.verify_key()),
            hpke_key: BASE64.encode(keys.hpke_public()),
        };
        self.enrolled.lock().expect("lock").insert(id, verified);
        let client = self.app.agent_with(tenant, id, keys.signing_key()).client;
        let mode = descriptor::KeyMode::Managed;
        Agent {
            tenant,
            id,
            client,
            vault,
            workload: self.app.id(),
            vault_keys: Arc::new(VaultKeys::generate(tenant, vault, &*ids)),
            descriptor: VaultDescriptor::new(tenant, vault, self.now(), mode),
            keys,
            run: self.app.id(),
            ids,
        }
    }

    pub fn lease(&self, agent: &Agent, epoch: u64) -> String {
        let claims = LeaseClaims {
            tenant: agent.tenant,
            agent: agent.id,
            workload: agent.workload,
            run: agent.run,
            epoch,
            lease_until: self.now() + Duration::from_secs(300),
        };
        self.platform().service_keys.sign_lease(&claims, self.now()).expect("lease")
    }

    pub async fn open(&self, agent: &Agent) -> Session {
        self.try_open(agent, 1, None).await.expect("session")
    }

    pub async fn try_open(
        &self,
        agent: &Agent,
        epoch: u64,
        last_receipt: Option<String>,
    ) -> Result<Session, Error> {
        let lease_token = self.lease(agent, epoch);
        let body = OpenSession { workload_id: agent.workload, lease_token, last_receipt };
        agent.post("sessions", &body).await
    }

    /// A whole backup: these packs (and those of the parent, minus `dropped`), a manifest, the commit.
    pub async fn backup(
        &self,
        agent: &Agent,
        chain: &mut Vec<SignedManifest>,
        count: u64,
        dropped: &[PackId],
    ) -> CommitReply {
        let session = self.open(agent).await;
        let packs = self.upload_some(agent, &session, 0..count).await;
        let manifest = self.manifest(agent, &session, chain, &packs, dropped).await;
        agent.commit(&session, manifest.id()).await.expect("commit")
    }

    /// Packs of random bytes, uploaded and confirmed.
    pub async fn upload_some(
        &self,
        agent: &Agent,
        session: &Session,
        seqs: std::ops::Range<u64>,
    ) -> Vec<Made> {
        let mut made: Vec<Made> = seqs
            .map(|seq| {
                let kind = if seq % 2 == 0 { PackKind::Data } else { PackKind::Meta };
                agent.random_pack(seq, kind)
            })
            .collect();
        if !made.is_empty() {
            agent.upload(session, &mut made).await.expect("upload");
        }
        made
    }

    /// Builds, signs, uploads and confirms a manifest; the chain then starts with it.
    pub async fn manifest(
        &self,
        agent: &Agent,
        session: &Session,
        chain: &mut Vec<SignedManifest>,
        packs: &[Made],
        dropped: &[PackId],
    ) -> Made {
        let manifest = agent.build(self, session, chain, packs, dropped);
        let made = agent.upload_manifest(session, &manifest, &agent.keys).await;
        chain.insert(0, SignedManifest::decode(made.id(), &made.bytes).expect("ours"));
        made
    }

    /// Puts an object into the vault bucket with the administrator's key and no lock.
    pub async fn put_unlocked(&self, key: &str, bytes: Bytes) {
        let admin = self.store_config.admin.clone().expect("admin");
        let config = StoreConfig {
            key_bucket: "vaults".into(),
            key_keeper: admin,
            ..self.store_config.clone()
        };
        let store = S3Store::connect(config).await.expect("store");
        store.put_key_object(key, bytes).await.expect("planted");
    }

    /// A request's context, for calling use cases without the router.
    pub fn cx(&self, agent: &Agent) -> runtime::Cx {
        runtime::Cx {
            actor: agent.actor(),
            clock: self.app.clock(),
            ids: self.app.ids().clone(),
            request_id: "req_test".into(),
        }
    }

    /// A catalog on the same database whose steward has no right to extend a lock, at either store.
    pub async fn without_steward(&self) -> Catalog {
        let powerless =
            |of: &StoreConfig| StoreConfig { steward: of.restore.clone(), ..of.clone() };
        let config = CatalogConfig {
            store: powerless(&self.store_config),
            copies: copies(&powerless(&self.second_config)),
            key_wrapper_file: self._dir.path().join("wrapper"),
            roster_key_seed: Zeroizing::new([11; 32]),
            receipt_key_seed: Zeroizing::new([12; 32]),
            retention: self.catalog.retention,
        };
        Catalog::new(self.platform().clone(), config).await.expect("catalog")
    }

    /// Softly expires one snapshot, whatever the plan says. Whether that was allowed.
    pub async fn soft_expire(&self, agent: &Agent, id: SnapshotId) -> bool {
        let mut tx = TenantTx::begin(&self.catalog.db, agent.scope()).await.expect("tx");
        let done = expiry_store::set_expired(&mut tx, id, self.now()).await.expect("expired");
        tx.commit_operational(OperationalReason::JobState).await.expect("commit");
        done
    }

    /// Places a hold on one of the agent's snapshots.
    pub async fn hold(&self, agent: &Agent, id: SnapshotId) -> HoldId {
        let (scope, by) = (agent.scope(), agent.actor());
        let held = holds::place(&self.catalog, scope, &by, id, "lawsuit", None).await;
        held.expect("held").id
    }

    pub async fn release(&self, agent: &Agent, id: HoldId) {
        let (scope, by) = (agent.scope(), agent.actor());
        let done = holds::release(&self.catalog, scope, &by, id, "it is settled").await;
        done.expect("released");
    }

    /// Softly expires one snapshot, waits for the undo to end and forgets it, whatever the plan says.
    pub async fn let_go(&self, agent: &Agent, id: SnapshotId) {
        assert!(self.soft_expire(agent, id).await, "it may go");
        self.advance(UNDO);
        let now = self.now();
        let mut tx = TenantTx::begin(&self.catalog.db, agent.scope()).await.expect("tx");
        let gone = expiry_store::set_forgetting(&mut tx, id, now - UNDO, now).await;
        gone.expect("decided").expect("its undo is over");
        expiry_store::set_forgotten(&mut tx, id, "v", now).await.expect("forgotten");
        tx.commit_operational(OperationalReason::JobState).await.expect("commit");
    }

    /// One figure, as the superuser sees it.
    pub async fn count(&self, sql: &'static str) -> i64 {
        let mut connection = self.app.database().superuser().await.expect("superuser");
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("figure")
    }

    /// Flips a bit of what a store holds of these bytes, behind its back. `store`: its folder, `store` or `second`.
    pub fn spoil(&self, store: &str, bytes: &Bytes) {
        self.spoil_at(store, bytes, 0);
    }
    pub fn spoil_at(&self, store: &str, bytes: &Bytes, at: usize) {
        testkit::spoil(&self._dir.path().join(store), bytes, at);
    }

    pub async fn execute(&self, sql: &'static str) {
        let mut connection = self.app.database().superuser().await.expect("superuser");
        sqlx::raw_sql(sql).execute(&mut connection).await.expect("statement");
    }
}

impl Agent {
    pub const fn actor(&self) -> authz::Actor {
        authz::Actor::Agent { tenant: self.tenant, id: self.id }
    }
    pub fn permit<A: authz::Action>(&self) -> authz::Permit<A> {
        let resource = authz::Resource { tenant: self.tenant };
        authz::Permit::decide(self.actor(), resource).expect("agents may")
    }
    pub fn scope(&self) -> authz::Scope {
        authz::Scope::without_permit(self.tenant, authz::ScopeReason::Reconcile)
    }
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/tenants/{}/{rest}", self.tenant)
    }
    pub async fn get<R: DeserializeOwned>(&self, rest: &str) -> Result<R, Error> {
        self.client.get(&self.path(rest)).await
    }
    /// What a session may use of earlier ones, two to a page.
    pub async fn adopted(&self, session: &Session) -> Vec<PackFacts> {
        let mut found = Vec::new();
        let mut more = String::new();
        loop {
            let path = format!("sessions/{}/adopted?limit=2{more}", session.id);
            let page: Page<PackFacts> = self.get(&path).await.expect("a page");
            assert!(page.items.len() <= 2);
            found.extend(page.items);
            let Some(cursor) = page.next_cursor else { return found };
            more = format!("&cursor={cursor}");
        }
    }
    pub async fn post<R: DeserializeOwned>(
        &self,
        rest: &str,
        body: &impl serde::Serialize,
    ) -> Result<R, Error> {
        self.client.post(&self.path(rest), body).await
    }
    pub async fn put<R: DeserializeOwned>(
        &self,
        rest: &str,
        body: &impl serde::Serialize,
    ) -> Result<R, Error> {
        self.client.put(&self.path(rest), body).await
    }

    /// The request for a managed vault without a kit.
    pub async fn create_vault(&self, world: &World) -> CreateVault {
        let platform: PlatformKeys = self.get("platform-keys").await.expect("platform keys");
        let wrap_key: [u8; 32] =
            BASE64.decode(&platform.wrap_key).expect("b64").try_into().expect("32");
        let to_platform = Recipient::keyed(vault::keys::RecipientKind::Platform, wrap_key);
        let wrap = |to, kind, recipient_id| KeyWrap {
            epoch: 1,
            recipient_kind: kind,
            recipient_id,
            wrap: BASE64.encode(
                self.vault_keys.wrap_for(1, to, &**world.app.ids()).expect("wrap").encode(),
            ),
        };
        CreateVault {
            name: "laptop".into(),
            key_mode: KeyMode::Managed,
            descriptor: BASE64.encode(self.descriptor.encode()),
            roster: None,
            wraps: vec![
                wrap(self.keys.recipient(self.id), RecipientKind::Agent, self.id.to_string()),
                wrap(to_platform, RecipientKind::Platform, platform.wrap_key_id.clone()),
            ],
            workload: CreateWorkload {
                id: self.workload,
                kind: "files".into(),
                name: "files".into(),
            },
        }
    }

    pub fn random_pack(&self, seq: u64, kind: PackKind) -> Made {
        let mut bytes = vec![0; 512];
        self.ids.fill(&mut bytes);
        Made { seq, kind, bytes: bytes.into(), facts: None }
    }

    pub async fn allocate(
        &self,
        session: &Session,
        made: &[Made],
    ) -> Result<AllocatedPacks, Error> {
        let packs = made.iter().map(Made::ask).collect();
        let body = AllocatePacks { fence: session.fence, packs };
        self.post(&format!("sessions/{}/packs", session.id), &body).await
    }

    pub async fn confirm(
        &self,
        session: &Session,
        packs: Vec<ConfirmPack>,
    ) -> Result<ConfirmedPacks, Error> {
        let body = ConfirmPacks { fence: session.fence, packs };
        self.post(&format!("sessions/{}/packs/confirm", session.id), &body).await
    }

    /// Allocate, PUT, confirm.
    pub async fn upload(&self, session: &Session, made: &mut [Made]) -> Result<(), Error> {
        for batch in made.chunks_mut(64) {
            let grants = self.allocate(session, batch).await?.grants;
            let mut confirms = Vec::new();
            for (pack, grant) in batch.iter_mut().zip(grants) {
                let version_id = match &grant.put {
                    Some(put) => put_object(put, pack.bytes.clone()).await.1,
                    None => None,
                };
                confirms.push(ConfirmPack { id: grant.pack.id, version_id });
            }
            let confirmed = self.confirm(session, confirms).await?.packs;
            for (pack, facts) in batch.iter_mut().zip(confirmed) {
                pack.facts = Some(facts);
            }
        }
        Ok(())
    }

    pub async fn upload_manifest(
        &self,
        session: &Session,
        manifest: &Manifest,
        signer: &AgentKeys,
    ) -> Made {
        let bytes = Bytes::from(manifest.sign(&signer.signing_key()));
        // Far from the packs' numbers.
        let mut made = [Made { seq: 1_000_000, kind: PackKind::Manifest, bytes, facts: None }];
        self.upload(session, &mut made).await.expect("manifest");
        made[0].clone()
    }

    /// The manifest over the chain's set, with these packs added and those dropped.
    pub fn build(
        &self,
        world: &World,
        session: &Session,
        chain: &[SignedManifest],
        packs: &[Made],
        dropped: &[PackId],
    ) -> Manifest {
        let before = if chain.is_empty() {
            PackSet::default()
        } else {
            vault::manifest::resolve(chain).expect("set")
        };
        let mut set = before;
        dropped.iter().for_each(|id| drop(set.0.remove(id)));
        let mut added: Vec<PackRef> = packs.iter().map(Made::reference).collect();
        added.sort_by_key(|pack| pack.id);
        set.0.extend(added.iter().map(|pack| (pack.id, pack.clone())));
        let parent = chain.first();
        let depth =
            parent.map_or(0, |parent| (parent.manifest.depth + 1) % vault::manifest::FULL_EVERY);
        let mut removed = dropped.to_vec();
        removed.sort_unstable();
        let list = if depth == 0 {
            PackList::Full(set.0.values().cloned().collect())
        } else {
            PackList::Delta { added, removed, changed: vec![] }
        };
        let chunk = id::ChunkId([7; 32]);
        Manifest {
            tenant: self.tenant,
            vault: self.vault,
            workload: self.workload,
            agent: self.id,
            session: session.id,
            fence: session.fence,
            key_epoch: session.key_epoch,
            created: world.now(),
            root: Root { node: chunk, level: 0, entries: 1 },
            summary: chunk,
            parent: parent.map(SignedManifest::as_parent),
            depth,
            packs: list,
            set_hash: set.hash(),
        }
    }

    pub async fn commit(&self, session: &Session, manifest: PackId) -> Result<CommitReply, Error> {
        self.post(&format!("sessions/{}/commit", session.id), &commit_body(session, manifest)).await
    }
}

pub fn commit_body(session: &Session, manifest_id: PackId) -> CommitSession {
    CommitSession {
        fence: session.fence,
        manifest_id,
        paths: vec!["/home".into()],
        tags: BTreeMap::new(),
        stats: SnapshotStats { files: 1, source_bytes: 10, ..SnapshotStats::default() },
    }
}

/// Sends a granted upload as it must be sent. Gives the status and the version id.
pub async fn put_object(put: &PresignedRequest, bytes: Bytes) -> (u16, Option<String>) {
    let mut request = reqwest::Client::new().put(&put.url).body(bytes);
    for header in &put.headers {
        request = request.header(&header.name, &header.value);
    }
    let response = request.send().await.expect("the store answers");
    let version = response.headers().get("x-amz-version-id");
    let version = version.and_then(|v| v.to_str().ok()).map(str::to_owned);
    (response.status().as_u16(), version)
}

pub fn code_of<T>(result: &Result<T, Error>) -> Option<Code> {
    result.as_ref().err().and_then(Error::code)
}
