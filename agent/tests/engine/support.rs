//! A vault in memory around the real engine, and trees described for comparison.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsStr,
    fs,
    ops::Range,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api::catalog::{PackFacts, PackKind, PackState};
use bytes::Bytes;
use domain::{
    AgentId, Clock, ManualClock, PackId, SessionId, SystemClock, SystemIds, TenantId, Timestamp,
    VaultId, WorkloadId, source::RunException,
};
use everhold_agent::{
    pipeline::{
        feed::{Counters, FeedError, Feeder, LeftOut},
        parent::{Adopted, ParentCursor, index_of, save_index},
        salvage::Salvage,
        source::Cache,
    },
    restore::{Durability, Figures, Order, Overwrite, Report, RestoreError, restore},
    sources::{
        Excluded, Excludes, Found, GlobRules, Moment, Names, OpenFile, Roots, Stat, Visitor, Walk,
        WalkOptions,
    },
};
use tokio_util::sync::CancellationToken;
use vault::{
    backup::{BackupContext, FinishedSnapshot, PackSink, SinkError, Summary, Writer},
    descriptor::{KeyMode, VaultDescriptor},
    id::Sha256,
    index::{Budget, ChunkIndex},
    keys::{AgentKeys, VaultKeys},
    manifest::{Builder, Confirmed, PackRef, SignedManifest, resolve},
    pack::SealedPack,
    snapshot::{Others, PackSource, Reader, SourceError},
};

/// Packs by hash.
#[derive(Default)]
pub struct Store {
    packs: Mutex<HashMap<Sha256, SealedPack>>,
    /// Data packs cannot be had at the moment.
    hidden: AtomicBool,
    /// What happens when so many packs more are here.
    then: Mutex<Option<(usize, CancellationToken)>>,
    /// What else there is for a snapshot that lost something; told once.
    others: Mutex<Option<Others>>,
}

impl PackSink for Store {
    fn emit(&self, pack: SealedPack) -> Result<(), SinkError> {
        let bytes = pack.bytes.joined().into();
        self.packs.lock().expect("lock").insert(pack.sha256, SealedPack { bytes, ..pack });
        if let Some((left, cancel)) = &mut *self.then.lock().expect("lock") {
            *left = left.saturating_sub(1);
            if *left == 0 {
                cancel.cancel();
            }
        }
        Ok(())
    }
}

impl PackSource for Store {
    fn read(&self, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        let packs = self.packs.lock().expect("lock");
        let pack = packs.get(&pack.sha256).ok_or(SourceError::Missing)?;
        if pack.kind == vault::pack::PackKind::Data && self.hidden.load(Ordering::Relaxed) {
            return Err(SourceError::Failed("hidden by the test".into()));
        }
        let range = usize::try_from(range.start).expect("small")
            ..usize::try_from(range.end).expect("small");
        Ok(pack.bytes.joined().slice(range))
    }
    fn others(&self) -> Option<Others> {
        self.others.lock().expect("lock").take()
    }
}

impl Store {
    /// Makes data packs unreachable, or reachable again.
    pub fn hide_data(&self, hidden: bool) {
        self.hidden.store(hidden, Ordering::Relaxed);
    }

    /// Cancels a backup once it has stored so many packs more.
    pub fn cancel_after(&self, packs: usize, cancel: &CancellationToken) {
        *self.then.lock().expect("lock") = Some((packs, cancel.clone()));
    }

    /// Takes every data pack away, so that a backup does not know them; [`Self::put_rotten`] brings them back.
    pub fn take_data(&self) -> Vec<SealedPack> {
        let mut packs = self.packs.lock().expect("lock");
        let is_data = |_: &Sha256, pack: &mut SealedPack| pack.kind == vault::pack::PackKind::Data;
        packs.extract_if(is_data).map(|(_, pack)| pack).collect()
    }

    /// Packs with a bit turned in every frame; their directories are sound.
    pub fn put_rotten(&self, rotten: Vec<SealedPack>) {
        for pack in rotten {
            let mut bytes = pack.bytes.joined().to_vec();
            let lengths = pack.directory.frames.iter().map(|frame| frame.sealed_len as usize);
            // Behind the header comes the first directory with its length in front, then the frames.
            let front = vault::pack::HEADER_LEN;
            let length = bytes[front..front + 4].try_into().expect("four bytes");
            let mut at = front + 4 + u32::from_be_bytes(length) as usize;
            for length in lengths {
                bytes[at + length / 2] ^= 1;
                at += length;
            }
            let bytes = Bytes::from(bytes).into();
            self.packs.lock().expect("lock").insert(pack.sha256, SealedPack { bytes, ..pack });
        }
    }

    /// Loses every data pack.
    pub fn lose(&self, kind: vault::pack::PackKind) {
        self.packs.lock().expect("lock").retain(|_, pack| pack.kind != kind);
    }
}

impl Vault {
    /// Whoever loses something next may look into the packs of this one.
    pub fn offer(&self, other: &Taken) {
        let packs = resolve(&other.chain).expect("a chain");
        let source = self.store.clone();
        *self.store.others.lock().expect("lock") = Some(Others { packs, source });
    }
}

/// A vault and what is in it.
pub struct Vault {
    pub store: Arc<Store>,
    keys: Arc<VaultKeys>,
    agent: AgentKeys,
    pub descriptor: VaultDescriptor,
    pub clock: Arc<dyn Clock>,
    pub confirmed: Mutex<BTreeMap<Sha256, Confirmed>>,
}

/// A snapshot, and how it came about.
pub struct Taken {
    pub reader: Arc<Reader>,
    chain: Vec<SignedManifest>,
    pub finished: FinishedSnapshot,
    pub exceptions: Vec<RunException>,
    pub left_out: Vec<LeftOut>,
    /// Files whose content was read.
    pub read: Vec<String>,
}

impl Vault {
    /// A new one; its clock says that nothing was changed lately.
    pub fn new() -> Self {
        let (tenant, vault) = (TenantId::from_bytes([1; 16]), VaultId::from_bytes([2; 16]));
        let now = SystemClock.now();
        let later = now + Duration::from_secs(3600);
        Self {
            store: Arc::default(),
            keys: Arc::new(VaultKeys::generate(tenant, vault, &SystemIds)),
            agent: AgentKeys::generate(&SystemIds),
            descriptor: VaultDescriptor::new(tenant, vault, now, KeyMode::Managed),
            clock: Arc::new(ManualClock::at(later)),
            confirmed: Mutex::default(),
        }
    }

    /// An index of every pack ever made.
    fn index(&self) -> ChunkIndex {
        let index = ChunkIndex::new(self.keys.vault());
        for pack in self.store.packs.lock().expect("lock").values() {
            let length = pack.bytes.len() as u64;
            index.add(pack.kind, pack.sha256, length, &pack.directory);
        }
        index
    }

    /// A writer that knows every pack ever made.
    pub fn writer(&self, session: u8) -> Writer {
        self.writer_into(session, self.index(), self.store.clone(), None)
    }

    pub fn salvage(
        &self,
        parent: Option<&Taken>,
        adopted: (&[Adopted], &Cache),
    ) -> Option<Salvage> {
        let parent = parent.map(|parent| &*parent.reader);
        Salvage::of(&self.keys, adopted, parent, &Arc::new(self.index()))
    }

    /// A writer that knows what is in `index` and gives its packs to `sink`.
    pub fn writer_into(
        &self,
        session: u8,
        index: ChunkIndex,
        sink: Arc<dyn PackSink>,
        max_pack: Option<u32>,
    ) -> Writer {
        let context = BackupContext {
            agent: AgentId::from_bytes([3; 16]),
            session: SessionId::from_bytes([session; 16]),
            key_epoch: 1,
            first_seq: 1,
            workers: 2,
            max_pack,
        };
        Writer::begin(
            context,
            self.keys.clone(),
            &self.descriptor,
            Arc::new(index),
            sink,
            Arc::new(SystemIds),
        )
        .expect("begins")
    }

    /// The stored index of a home, as a session that knows `others` takes it up.
    pub fn index_after(
        &self,
        taken: &Taken,
        others: &BTreeMap<Sha256, Confirmed>,
    ) -> (usize, ChunkIndex) {
        let (_home, home) = place();
        let index = ChunkIndex::new(self.keys.vault());
        for pack in taken.reader.frames().packs() {
            let open = taken.reader.frames().open(pack).expect("opens");
            index.add(pack.kind, pack.sha256, pack.length, &open.directory);
        }
        save_index(&home, &index).expect("saves");
        (
            index.packs().len(),
            index_of(
                &home,
                &self.keys,
                None,
                &BTreeSet::new(),
                (&[], &Cache::at(&home)),
                others,
                (Budget::SMALL, &CancellationToken::new()),
            ),
        )
    }

    pub fn back_up(&self, paths: &[&Path], parent: Option<&Taken>, excludes: Excludes) -> Taken {
        self.back_up_while(paths, parent, excludes, Meanwhile::default())
    }

    /// As [`Self::back_up`], while something happens to the files.
    pub fn back_up_while(
        &self,
        paths: &[&Path],
        parent: Option<&Taken>,
        excludes: Excludes,
        meanwhile: Meanwhile,
    ) -> Taken {
        self.try_back_up(paths, parent, excludes, meanwhile, |_| {}).expect("walks")
    }

    /// As [`Self::back_up_while`], with a feeder set up otherwise; knows every pack ever made.
    pub fn try_back_up(
        &self,
        paths: &[&Path],
        parent: Option<&Taken>,
        excludes: Excludes,
        meanwhile: Meanwhile,
        set_up: impl FnOnce(&mut Feeder<'_>),
    ) -> Result<Taken, FeedError> {
        let mut writer = self.writer(parent.map_or(1, |_| 2));
        let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
        let roots = Roots::resolve(&paths, Path::new("/")).expect("roots");
        let options = WalkOptions { excludes, names: Names::of_this_machine() };
        let cursor = parent.map(|parent| ParentCursor::of(&parent.reader).expect("cursor"));
        let mut feeder = Feeder::new(
            &mut writer,
            cursor,
            &options.names,
            Arc::new(Counters::default()),
            CancellationToken::new(),
            self.clock.clone(),
        );
        set_up(&mut feeder);
        let mut counting = Counting { feeder, read: Vec::new(), meanwhile };
        Walk::run(&roots, &options, &mut counting)?;
        let Counting { feeder, read, .. } = counting;
        let exceptions = feeder.exceptions.finish().into_first();
        let left_out = feeder.left_out.finish().into_first();
        let finished = writer.finish(Summary::default())?;
        Ok(self.taken(finished, parent, exceptions, left_out, read))
    }

    pub fn keys(&self) -> Arc<VaultKeys> {
        self.keys.clone()
    }

    /// Every pack made so far that the parent does not have, as the next session of an agent with its home in `home`
    /// may use them.
    pub fn adopt_all(&self, parent: Option<&Taken>, home: &Path) -> (Vec<Adopted>, Cache) {
        let cache = Cache::at(home);
        let mut facts = Vec::new();
        for pack in self.store.packs.lock().expect("lock").values() {
            if parent.is_some_and(|parent| parent.reader.frames().pack_ref(&pack.sha256).is_some())
            {
                continue;
            }
            let file = home.join("spooled");
            fs::write(&file, pack.bytes.to_vec()).expect("write");
            let kind = match pack.kind {
                vault::pack::PackKind::Meta => {
                    cache.adopt(&pack.sha256, &file).expect("adopts");
                    PackKind::Meta
                }
                vault::pack::PackKind::Data => {
                    cache.keep_front(&pack.sha256, &mut pack.bytes.reader()).expect("keeps");
                    PackKind::Data
                }
            };
            facts.push(PackFacts {
                id: PackId::fresh(&SystemIds, SystemClock.now()),
                kind,
                state: PackState::Uploaded,
                sha256: pack.sha256.to_string(),
                length: pack.bytes.len() as u64,
                key: String::new(),
                version_id: Some("v1".to_owned()),
                lock_until: None,
            });
        }
        (facts.iter().filter_map(Adopted::of).collect(), cache)
    }

    /// The same snapshot with nothing read of it yet.
    pub fn reopened(&self, taken: &Taken) -> Taken {
        let set = resolve(&taken.chain).expect("resolves");
        let manifest = &taken.chain.first().expect("a manifest").manifest;
        let reader = Reader::open(manifest, &set, self.keys.clone(), self.store.clone(), None);
        Taken {
            reader: Arc::new(reader),
            chain: taken.chain.clone(),
            finished: taken.finished.clone(),
            exceptions: Vec::new(),
            left_out: Vec::new(),
            read: Vec::new(),
        }
    }

    /// Makes a snapshot readable.
    pub fn taken(
        &self,
        finished: FinishedSnapshot,
        parent: Option<&Taken>,
        exceptions: Vec<RunException>,
        left_out: Vec<LeftOut>,
        read: Vec<String>,
    ) -> Taken {
        let mut confirmed = self.confirmed.lock().expect("lock");
        for usage in &finished.usage {
            confirmed.entry(usage.sha256).or_insert_with(|| Confirmed {
                id: PackId::fresh(&SystemIds, SystemClock.now()),
                version_id: "v1".to_owned(),
            });
        }
        let before = parent.map_or(&[][..], |parent| &parent.chain);
        let builder = Builder {
            descriptor: &self.descriptor,
            workload: WorkloadId::from_bytes([4; 16]),
            agent: AgentId::from_bytes([3; 16]),
            session: SessionId::from_bytes([1; 16]),
            fence: 1,
            key_epoch: 1,
            created: Timestamp::UNIX_EPOCH,
            parent: before,
        };
        let manifest = builder.build(&finished, &confirmed).expect("manifest");
        let bytes = manifest.sign(&self.agent.signing_key());
        let id = PackId::fresh(&SystemIds, SystemClock.now());
        let own = SignedManifest::decode(id, &bytes).expect("decodes");
        let chain: Vec<_> = std::iter::once(own).chain(before.iter().cloned()).collect();
        let set = resolve(&chain).expect("resolves");
        let reader = Reader::open(&manifest, &set, self.keys.clone(), self.store.clone(), None);
        Taken { reader: Arc::new(reader), chain, finished, exceptions, left_out, read }
    }
}

/// Does something, given a path.
pub type Act = Box<dyn FnMut(&[u8])>;

/// What goes on beside a backup.
#[derive(Default)]
pub struct Meanwhile {
    /// Before a file is looked at a second time (it was listed already).
    pub before: Option<Act>,
    /// The file system has only this one time stamp.
    pub stamp: Option<i64>,
}

impl Meanwhile {
    fn stamped(&self, stat: &Stat) -> Stat {
        let mut stat = stat.clone();
        if let Some(secs) = self.stamp {
            stat.mtime = Moment { secs, nanos: 0 };
            stat.ctime = stat.mtime;
        }
        stat
    }
}

struct Counting<'a> {
    feeder: Feeder<'a>,
    read: Vec<String>,
    meanwhile: Meanwhile,
}

impl Visitor for Counting<'_> {
    type Error = everhold_agent::pipeline::feed::FeedError;
    fn take_unchanged(&mut self, path: &[u8], stat: &Stat) -> Result<bool, Self::Error> {
        if let Some(before) = &mut self.meanwhile.before {
            before(path);
        }
        self.feeder.take_unchanged(path, &self.meanwhile.stamped(stat))
    }
    fn file(&mut self, found: Found, content: OpenFile) -> Result<(), Self::Error> {
        self.read.push(String::from_utf8_lossy(&found.path).into_owned());
        if self.meanwhile.stamp.is_none() {
            return self.feeder.file(found, content);
        }
        let mut found = found;
        found.meta.stat = self.meanwhile.stamped(&found.meta.stat);
        let path = Path::new("/").join(OsStr::from_bytes(&found.path));
        let handle = fs::File::open(path).expect("open");
        let content = OpenFile::new(handle, found.meta.stat.clone()).expect("content");
        self.feeder.file(found, content)
    }
    fn entry(&mut self, found: Found) -> Result<(), Self::Error> {
        self.feeder.entry(found)
    }
    fn exception(&mut self, exception: RunException) {
        self.feeder.exception(exception);
    }
    fn excluded(&mut self, path: &[u8], why: Excluded) {
        self.feeder.excluded(path, why);
    }
}

/// Restores everything.
pub fn restore_all(taken: &Taken, target: &Path, overwrite: Overwrite) -> Report {
    try_restore(taken, target, overwrite, GlobRules::default()).expect("restores")
}

pub fn try_restore(
    taken: &Taken,
    target: &Path,
    overwrite: Overwrite,
    include: GlobRules,
) -> Result<Report, RestoreError> {
    restore_until(taken, target, overwrite, include, CancellationToken::new())
}

pub fn restore_until(
    taken: &Taken,
    target: &Path,
    overwrite: Overwrite,
    include: GlobRules,
    cancel: CancellationToken,
) -> Result<Report, RestoreError> {
    let mut order = Order::new(target.to_path_buf(), include, overwrite);
    // The disk is shared with everything else that runs here, and no test pulls its plug.
    order.options.durability = Durability::Unsynced;
    restore(&taken.reader, &order, &SystemIds, Arc::new(Figures::default()), cancel)
}

/// Everything a restore must bring back, as text per path.
pub fn describe(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut links: HashMap<(u64, u64), String> = HashMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).expect("stat");
        let name = path.strip_prefix(root).expect("below").as_os_str().as_bytes().escape_ascii();
        let name = name.to_string();
        let mut text = format!(
            "mode {:o} owner {}:{} mtime {}.{:09} rdev {}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.rdev()
        );
        if meta.is_symlink() {
            let target = fs::read_link(&path).expect("link").into_os_string().into_vec();
            text.push_str(&format!(" -> {}", target.escape_ascii()));
        } else if meta.is_file() {
            let content =
                if meta.len() < 64 << 20 { fs::read(&path).expect("read") } else { Vec::new() };
            text.push_str(&format!(" size {} {}", meta.len(), Sha256::of(&content)));
            // Holes are kept: far fewer blocks than bytes stay far fewer.
            text.push_str(if meta.blocks() * 512 + (1 << 20) < meta.len() {
                " sparse"
            } else {
                ""
            });
        }
        if meta.nlink() > 1 && !meta.is_dir() {
            let first = links.entry((meta.dev(), meta.ino())).or_insert_with(|| name.clone());
            text.push_str(&format!(" = {first}"));
        }
        if meta.is_file() || meta.is_dir() {
            let handle = fs::File::open(&path).expect("open");
            let attributes = everhold_agent::sources::xattr::read(&handle).expect("xattrs");
            for (name, value) in attributes {
                text.push_str(&format!(" {}={}", name.escape_ascii(), value.escape_ascii()));
            }
        }
        found.insert(name, text);
        if meta.is_dir() {
            let mut below: Vec<_> =
                fs::read_dir(&path).expect("list").map(|e| e.expect("entry").path()).collect();
            below.sort();
            pending.extend(below.into_iter().rev());
        }
    }
    found
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A folder with the canonical path of a fresh temporary one.
pub fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("tempdir");
    let base = fs::canonicalize(dir.path()).expect("canonical");
    (dir, base)
}

/// Where `source` arrives below `target`.
pub fn arrived(target: &Path, source: &Path) -> PathBuf {
    target.join(source.strip_prefix("/").expect("absolute"))
}
