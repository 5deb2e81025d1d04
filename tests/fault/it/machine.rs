//! A machine with an agent: its files, its home, and what each of its snapshots must give back.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use api::{
    catalog::{CreateVault, CreateWorkload, KeyMode, KeyWrap, PlatformKeys, RecipientKind},
    internal::VerifiedAgent,
    scheduler::{Assignment, Progress, Run, RunSource, Trigger},
};
use authz::{Scope, ScopeReason};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::{
    AgentId, IdGen as _, PackId, RunId, SeededIds, SnapshotId, TenantId, Timestamp, VaultId,
    WorkloadId, run::RunState,
};
use everhold_agent::{
    cmd::open,
    control::{Control, Transfer, World as Outside},
    pipeline::{
        backup::{CHECKPOINT, Done, Limits, Memory, Plan, Watch, bury_predecessor, execute},
        member::Member,
        second::SecondCopy,
        source::{Caching, fetch_chain},
    },
    rescue::granted,
    restore::{Figures, Order, Overwrite, restore},
    sources::{Excludes, GlobRules, Names, Roots, WalkOptions},
    state::{Home, Identity, Stage, VaultFile},
};
use runtime::{LeaseClaims, RoleName};
use tokio_util::sync::CancellationToken;
use vault::{
    descriptor::{self, PackSizes, VaultDescriptor},
    id::FrameKind,
    keys::{AgentKeys, Recipient, VaultKeys},
    layout::{self, ObjectKind},
    manifest::{PackRef, SignedManifest},
    pack::PackKind,
    snapshot::Reader,
    tree::{Content, EntryKind},
};

use crate::world::World;

/// An attribute that one file has where the file system knows such.
const NOTE: &str = "user.note";

/// A folder described for comparison: path below it → kind, mode, that attribute, time, content.
pub type Described = BTreeMap<PathBuf, String>;

pub struct Machine {
    pub tenant: TenantId,
    pub vault: VaultId,
    pub home: Home,
    pub source: PathBuf,
    agent: AgentId,
    pub workload: WorkloadId,
    epoch: u64,
    /// What every committed snapshot must give back.
    pub committed: BTreeMap<SnapshotId, Described>,
    base: PathBuf,
    noise: SeededIds,
}

/// Time and randomness of the agent.
fn outside(world: &World) -> Outside {
    Outside { clock: world.app.clock(), ids: world.app.ids().clone() }
}

/// An enrolled agent with a vault of small packs, and some files.
pub async fn machine(world: &World, seed: u64) -> Machine {
    let ids = world.app.ids().clone();
    let (tenant, agent): (TenantId, AgentId) = (world.app.tenant(), world.app.id());
    let (vault, workload): (VaultId, WorkloadId) = (world.app.id(), world.app.id());
    let base = world.dir.path().join(format!("machine-{}", hex(agent)));
    let home = Home::at(base.join("home"));
    home.prepare().expect("home");
    let keys = AgentKeys::generate(&*ids);
    let verified = VerifiedAgent {
        tenant_id: tenant,
        agent_id: agent,
        verify_key: BASE64.encode(keys.verify_key()),
        hpke_key: BASE64.encode(keys.hpke_public()),
    };
    world.enrolled.lock().expect("lock").insert(agent, verified);
    let mut identity = Identity {
        version: 1,
        stage: Stage::Ready,
        server: world.server.clone(),
        tenant_id: tenant,
        tenant_name: "tenant".into(),
        agent_id: agent,
        name: "machine".into(),
        vault_id: vault,
        workload_id: workload,
        enrolled_at: world.now(),
        platform_roster_key: None,
        kit_roster_key: None,
        receipt_key: None,
        kit_file: None,
    };
    let control = Control::connect(&identity, &keys, outside(world)).expect("line");
    let platform = control.platform_keys().await.expect("platform keys");
    identity.platform_roster_key = Some(platform.roster_key.clone());
    identity.receipt_key = Some(platform.receipt_key.clone());
    let mut descriptor =
        VaultDescriptor::new(tenant, vault, world.now(), descriptor::KeyMode::Managed);
    descriptor.packs = PackSizes { target: 64 << 10, max_frames: 4_096 };
    let vault_keys = VaultKeys::generate(tenant, vault, &*ids);
    let wraps = wraps(world, &vault_keys, &keys, agent, &platform);
    let own = wraps.first().map(|wrap| wrap.wrap.clone()).into_iter().collect();
    let encoded = BASE64.encode(descriptor.encode());
    let body = CreateVault {
        name: "machine".into(),
        key_mode: KeyMode::Managed,
        descriptor: encoded.clone(),
        roster: None,
        wraps,
        workload: CreateWorkload { id: workload, kind: "files".into(), name: "machine".into() },
    };
    control.put_vault(vault, &body).await.expect("vault");
    let stored = control.vault_keys(vault).await.expect("keys");
    let file = VaultFile { descriptor: encoded, roster: Some(stored.roster), wraps: own };
    home.save_keys(&keys).expect("keys");
    home.save_vault(&file).expect("vault");
    home.save_identity(&identity).expect("identity");
    let source = base.join("source");
    let noise = SeededIds::new(seed);
    let committed = BTreeMap::new();
    let machine =
        Machine { tenant, vault, home, source, agent, workload, epoch: 0, committed, base, noise };
    machine.fill();
    machine
}

fn hex(agent: AgentId) -> String {
    agent.uuid().simple().to_string()
}

fn wraps(
    world: &World,
    vault: &VaultKeys,
    keys: &AgentKeys,
    agent: AgentId,
    platform: &PlatformKeys,
) -> Vec<KeyWrap> {
    let wrap_key = BASE64.decode(&platform.wrap_key).expect("b64").try_into().expect("32");
    let to_platform = Recipient::keyed(vault::keys::RecipientKind::Platform, wrap_key);
    let wrap = |to, kind, recipient_id| KeyWrap {
        epoch: 1,
        recipient_kind: kind,
        recipient_id,
        wrap: BASE64.encode(vault.wrap_for(1, to, &**world.app.ids()).expect("wrap").encode()),
    };
    vec![
        wrap(keys.recipient(agent), RecipientKind::Agent, agent.to_string()),
        wrap(to_platform, RecipientKind::Platform, platform.wrap_key_id.clone()),
    ]
}

impl Machine {
    pub const fn scope(&self) -> Scope {
        Scope::without_permit(self.tenant, ScopeReason::Reconcile)
    }

    fn bytes(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.noise.fill(&mut bytes);
        bytes
    }

    /// Small files, files of several chunks, an empty one, links, a sparse one.
    fn fill(&self) {
        let at = |name: &str| self.source.join(name);
        for folder in ["etc/deep/er", "data", "empty"] {
            fs::create_dir_all(at(folder)).expect("folder");
        }
        for number in 0..12 {
            let text = format!("{number} ").repeat(50 + number * 40);
            fs::write(at(&format!("etc/file-{number}")), text).expect("file");
        }
        fs::write(at("etc/deep/er/none"), b"").expect("file");
        for (name, length) in [("data/a", 90_000), ("data/b", 150_000), ("data/c", 70_000)] {
            fs::write(at(name), self.bytes(length)).expect("file");
        }
        fs::hard_link(at("data/a"), at("data/a-again")).expect("hard link");
        std::os::unix::fs::symlink("../etc/file-1", at("data/link")).expect("link");
        let sparse = fs::File::create(at("data/sparse")).expect("sparse");
        sparse.set_len(3 << 20).expect("sparse");
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 1 << 20)
            .expect("write");
        fs::set_permissions(at("etc/deep"), fs::Permissions::from_mode(0o710)).expect("mode");
        let flags = rustix::fs::XattrFlags::empty();
        let _ = rustix::fs::setxattr(at("etc/file-2"), NOTE, b" noted", flags);
    }

    /// A file of several chunks that comes before the others.
    pub fn write_large(&self) {
        fs::write(self.source.join("data/0"), self.bytes(5 << 19)).expect("file");
    }

    /// So many files that the tree has leaves a change does not touch.
    pub fn crowd(&self) {
        fs::create_dir_all(self.source.join("crowd")).expect("folder");
        for number in 0..900 {
            fs::write(self.source.join(format!("crowd/{number:03}")), "one of many").expect("file");
        }
    }

    /// Files that are several to a pack.
    pub fn stack(&self) {
        fs::create_dir_all(self.source.join("stack")).expect("folder");
        for number in 0..24 {
            let text = format!("{number} of {number} ").repeat(8_000);
            fs::write(self.source.join(format!("stack/{number:02}")), text).expect("file");
        }
    }

    /// Three of four of them go.
    pub fn thin_out(&self) {
        for number in (0..24).filter(|number| number % 4 != 0) {
            fs::remove_file(self.source.join(format!("stack/{number:02}"))).expect("goes");
        }
    }

    /// Some files change, one comes, one goes.
    pub fn change(&self) {
        let at = |name: &str| self.source.join(name);
        let tag = self.bytes(4).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        fs::write(at("etc/file-3"), format!("changed {tag}")).expect("file");
        fs::write(at("data/b"), self.bytes(150_000)).expect("file");
        fs::write(at(&format!("data/new-{tag}")), self.bytes(80_000)).expect("file");
        let sparse = fs::File::options().write(true).open(at("data/sparse")).expect("sparse");
        std::os::unix::fs::FileExt::write_all_at(&sparse, tag.as_bytes(), 2 << 20).expect("write");
        let _ = fs::remove_file(at("etc/file-5"));
    }

    pub fn member(&self, world: &World) -> Result<Arc<Member>, String> {
        Member::open(self.home.clone(), outside(world)).map(Arc::new).map_err(|e| e.to_string())
    }

    /// What `everhold-agent backup` does, in a process of its own as far as anybody can tell.
    pub async fn back_up(&mut self, world: &World) -> Result<Done, String> {
        let lock = self.home.lock_for_run().map_err(|busy| busy.to_string())?;
        let member = self.member(world)?;
        bury_predecessor(&member).await;
        let roots = Roots::resolve(std::slice::from_ref(&self.source), Path::new("/"));
        let options =
            WalkOptions { excludes: Excludes::default(), names: Names::of_this_machine() };
        let roots = roots.map_err(|error| error.to_string())?;
        let plan = Plan {
            roots,
            options,
            source: RunSource::default(),
            // By turns in memory and through the journal.
            memory: if self.epoch.is_multiple_of(2) { Memory::Normal } else { Memory::Small },
            limits: Limits::default(),
            checkpoint: CHECKPOINT,
        };
        let assignment = self.lease(world);
        let done = execute(&member, plan, &assignment, &Watch::default()).await;
        drop(lock);
        done.map_err(|error| error.to_string())
    }

    /// A run of a newer lease, as the scheduler gives it.
    pub fn lease(&mut self, world: &World) -> Assignment {
        self.epoch += 1;
        let run: RunId = world.app.id();
        let lease_until = world.now() + std::time::Duration::from_secs(300);
        let claims = LeaseClaims {
            tenant: self.tenant,
            agent: self.agent,
            workload: self.workload,
            run,
            epoch: self.epoch,
            lease_until,
        };
        let keys = &world.app.platform(RoleName::Catalog).service_keys;
        let run = Run {
            id: run,
            tenant_id: self.tenant,
            workload_id: self.workload,
            agent_id: self.agent,
            trigger: Trigger::Local,
            state: RunState::Running,
            source: RunSource::default(),
            created_at: world.now(),
            started_at: None,
            ended_at: None,
            cancel_requested: false,
            progress: Progress::default(),
            snapshot_id: None,
            exceptions: Vec::new(),
            error: None,
            policy_id: None,
            due_at: None,
            start_after: None,
            start_by: None,
        };
        let lease_token = keys.sign_lease(&claims, world.now()).expect("lease");
        Assignment { run, epoch: self.epoch, lease_until, lease_token }
    }

    /// The ids of the snapshots the server has.
    pub async fn snapshots(&self, world: &World) -> Result<Vec<SnapshotId>, String> {
        let member = self.member(world)?;
        let found = member.control.snapshots(self.workload).await;
        Ok(found.map_err(|error| error.to_string())?.into_iter().map(|found| found.id).collect())
    }

    /// A snapshot, open for reading.
    async fn reader(&self, world: &World, id: SnapshotId) -> Result<Arc<Reader>, String> {
        let member = self.member(world)?;
        let snapshot = member.control.snapshot(id).await.map_err(|error| error.to_string())?;
        open::reader(&member, &snapshot, Caching::Use).await.map_err(|error| format!("{error:#}"))
    }

    /// As [`Self::back_up`], with nothing to be said about it, and noted for comparison.
    pub async fn back_up_cleanly(&mut self, world: &World) -> Result<SnapshotId, String> {
        let described = describe(&self.source);
        let done = self.back_up(world).await?;
        if !done.exceptions.is_empty() || !done.warnings.is_empty() {
            return Err(format!("{:?} {:?}", done.exceptions, done.warnings));
        }
        self.committed.insert(done.snapshot_id, described);
        Ok(done.snapshot_id)
    }

    /// What `everhold-agent fsck` does: past every cache, every byte of every pack of these snapshots.
    pub async fn fsck(&self, world: &World, ids: &[SnapshotId]) -> Result<(), String> {
        let member = self.member(world)?;
        let vault = granted::open(&member, ids).await.map_err(|error| error.to_string())?;
        let report = blocking(move || vault::fsck::check(&vault, &vault::fsck::Options::default()));
        let report = report.await.map_err(|error| error.to_string())?;
        // The server's snapshots and no others.
        let whole = report.is_clean() && report.snapshots == ids.len() as u64;
        if whole { Ok(()) } else { Err(format!("fsck: {:?}", report.findings)) }
    }

    /// The objects a snapshot is read from, by key.
    pub async fn needs(&self, world: &World, id: SnapshotId) -> Result<Vec<String>, String> {
        let member = self.member(world)?;
        let transfer = Transfer::new().map_err(|error| error.to_string())?;
        Ok(self.objects(&member, &transfer, id).await?.into_iter().map(|(key, _)| key).collect())
    }

    /// Where a pack lies.
    fn key_of(&self, pack: &PackRef) -> String {
        layout::object_key(self.tenant, self.vault, pack.kind.object(), &pack.sha256, pack.id)
    }

    /// Keys of the packs and manifests of a snapshot, with the version where one is named.
    async fn objects(
        &self,
        member: &Member,
        transfer: &Transfer,
        id: SnapshotId,
    ) -> Result<Vec<(String, Option<String>)>, String> {
        let second = SecondCopy::when(Caching::Use);
        let chain = fetch_chain(member, transfer, id, &second).await;
        let chain = chain.map_err(|error| error.to_string())?;
        let of_pack = |pack| (self.key_of(pack), Some(pack.version_id.clone()));
        let of_manifest = |manifest: &SignedManifest| {
            let (kind, sha256) = (ObjectKind::Manifest, &manifest.sha256);
            (layout::object_key(self.tenant, self.vault, kind, sha256, manifest.id), None)
        };
        let packs = chain.packs.iter().map(of_pack);
        Ok(packs.chain(chain.manifests.iter().map(of_manifest)).collect())
    }

    /// The disk below the first store spoils the bundle of small files in a snapshot.
    pub async fn spoil_a_bundle(&self, world: &World, id: SnapshotId) -> PackId {
        let reader = self.reader(world, id).await.expect("the snapshot");
        let looked = blocking(move || {
            let bundle = reader.entries().expect("entries").find_map(|entry| {
                match entry.expect("an entry").kind {
                    EntryKind::File { content: Content::Bundled { bundle, .. }, .. } => {
                        Some(bundle)
                    }
                    _ => None,
                }
            });
            let spot = reader.frames().locate(&bundle.expect("a bundle"), PackKind::Data);
            let spot = spot.expect("its place");
            let range = reader.frames().open(spot.pack).expect("its pack").range(spot.frame);
            (spot.pack.clone(), range.expect("its frame"))
        });
        let (pack, range) = looked.await;
        self.spoil(world, &pack, range.start + 40).await;
        self.forget_cache().expect("the cache goes");
        pack.id
    }

    /// It spoils a node in one of the two metadata packs of a snapshot.
    pub async fn spoil_metadata(&self, world: &World, id: SnapshotId, which: usize) {
        let reader = self.reader(world, id).await.expect("the snapshot");
        let looked = blocking(move || {
            let metadata = reader.frames().packs().filter(|pack| pack.kind == PackKind::Meta);
            let metadata: Vec<PackRef> = metadata.cloned().collect();
            assert_eq!(metadata.len(), 2);
            let open = reader.frames().open(&metadata[which]).expect("its directory");
            let mut frames = (0..).zip(&open.directory.frames);
            let (node, _) = frames.find(|(_, it)| it.kind == FrameKind::Node).expect("a node");
            (metadata[which].clone(), open.range(node).expect("its place"))
        });
        let (pack, range) = looked.await;
        self.spoil(world, &pack, range.start + 40).await;
        self.forget_cache().expect("the cache goes");
    }

    async fn spoil(&self, world: &World, pack: &PackRef, at: u64) {
        let key = self.key_of(pack);
        let bytes = world.first.straight.get(&key, &pack.version_id).await.expect("the pack");
        world.first.spoil(&bytes, at);
    }

    /// What was read once must be fetched again.
    pub fn forget_cache(&self) -> Result<(), String> {
        match fs::remove_dir_all(self.home.cache()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
            _ => self.home.prepare().map_err(|error| error.to_string()),
        }
    }

    /// When the store lets go of each object of every snapshot, its manifests and receipt too, by key; of the earliest
    /// promise that names it.
    pub async fn lock_ends(&self, world: &World) -> Result<BTreeMap<String, Timestamp>, String> {
        let member = self.member(world)?;
        let transfer = Transfer::new().map_err(|error| error.to_string())?;
        let found = member.control.snapshots(self.workload).await.map_err(|e| e.to_string())?;
        let mut ends = BTreeMap::new();
        for snapshot in found {
            let mut objects = self.objects(&member, &transfer, snapshot.id).await?;
            let receipt = layout::receipt_key(self.tenant, self.vault, snapshot.id);
            objects.push((receipt.clone(), None));
            for (key, version) in objects {
                let facts = world.first.straight.head(&key, version.as_deref()).await;
                let facts = facts.map_err(|error| error.to_string())?;
                if facts.is_none() && key == receipt {
                    // Still on its way: the next round of records brings it.
                    continue;
                }
                let end = facts.and_then(|facts| facts.lock_until);
                let end = end.ok_or_else(|| format!("{key} is not locked"))?;
                if end < snapshot.protect_until.max(snapshot.locked_until) {
                    let promised = (snapshot.protect_until, snapshot.locked_until);
                    return Err(format!("{key} is locked until {end}, promised {promised:?}"));
                }
                ends.insert(key, end);
            }
        }
        Ok(ends)
    }

    /// No promise is longer than a lock.
    pub async fn check_locks(&self, world: &World) -> Result<(), String> {
        self.lock_ends(world).await.map(drop)
    }

    /// What `everhold-agent restore` does, into `target`. Gives the entries that did not come back.
    pub async fn restore(
        &self,
        world: &World,
        id: SnapshotId,
        target: &Path,
    ) -> Result<Vec<String>, String> {
        let reader = self.reader(world, id).await?;
        let order = Order::new(target.to_owned(), GlobRules::default(), Overwrite::Changed);
        let ids = world.app.ids().clone();
        let figures = Arc::new(Figures::default());
        let work =
            move || restore(&reader, &order, ids.as_ref(), figures, CancellationToken::new());
        let report = blocking(work).await.map_err(|error| error.to_string())?;
        Ok(report.problems.iter().map(|p| format!("{}: {}", p.path, p.detail)).collect())
    }

    /// A folder nothing is in yet.
    pub fn fresh(&self, world: &World) -> PathBuf {
        let id: RunId = world.app.id();
        self.base.join(format!("target-{}", id.uuid().simple()))
    }

    /// Where the source arrives below `target`.
    pub fn arrived(&self, target: &Path) -> PathBuf {
        target.join(self.source.strip_prefix("/").expect("absolute"))
    }

    /// Restores and compares bit for bit.
    pub async fn check_restore(&self, world: &World, id: SnapshotId) -> Result<(), String> {
        let target = self.fresh(world);
        let problems = self.restore(world, id, &target).await?;
        if !problems.is_empty() {
            return Err(format!("{id} does not restore: {problems:?}"));
        }
        let expected = self.committed.get(&id).ok_or("a snapshot nobody committed")?;
        let got = describe(&self.arrived(&target));
        fs::remove_dir_all(&target).map_err(|error| error.to_string())?;
        differ(expected, &got)
            .map_or(Ok(()), |what| Err(format!("{id} restores otherwise: {what}")))
    }
}

pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic in the engine")
}

/// The first difference, in words.
pub fn differ(expected: &Described, got: &Described) -> Option<String> {
    let mut all: Vec<&PathBuf> = expected.keys().chain(got.keys()).collect();
    all.sort();
    let at = all.into_iter().find(|path| expected.get(*path) != got.get(*path))?;
    let word = |described: &Described| {
        described.get(at).map_or("nothing".to_owned(), |text| text.chars().take(120).collect())
    };
    Some(format!("{}: {} instead of {}", at.display(), word(got), word(expected)))
}

pub fn describe(folder: &Path) -> Described {
    let mut found = Described::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(path) = pending.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let mut note = [0; 64];
        let note = match rustix::fs::lgetxattr(&path, NOTE, &mut note) {
            Ok(length) => String::from_utf8_lossy(&note[..length]).into_owned(),
            Err(_) => String::new(),
        };
        let mut text = format!("{:o}{note} {}.{:09}", meta.mode(), meta.mtime(), meta.mtime_nsec());
        if meta.is_file() {
            let hash = vault::id::Sha256::of(&fs::read(&path).unwrap_or_default());
            text.push_str(&format!(" {} bytes, {} names, {hash}", meta.len(), meta.nlink()));
        } else if meta.is_symlink() {
            text.push_str(&format!(" → {}", fs::read_link(&path).unwrap_or_default().display()));
        } else {
            let below = fs::read_dir(&path).into_iter().flatten().flatten();
            pending.extend(below.map(|entry| entry.path()));
        }
        let name = path.strip_prefix(folder).unwrap_or(&path).to_owned();
        found.insert(name, text);
    }
    found
}
