//! A vault in memory: keys, a bucket, and backups of made-up trees.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use domain::{
    AgentId, IdGen, PackId, SeededIds, SessionId, TenantId, Timestamp, VaultId, WorkloadId,
};
use vault::{
    backup::{
        BackupContext, BackupError, FinishedSnapshot, PackSink, Reuse, SinkError, Summary, Writer,
    },
    descriptor::{Chunking, KeyMode, PackSizes, VaultDescriptor},
    id::Sha256,
    index::ChunkIndex,
    keys::{AgentKeys, RootKey, Roster, VaultKeys},
    manifest::{Builder, Confirmed, PackRef, SignedManifest, resolve},
    pack::SealedPack,
    snapshot::{PackSource, Reader, SourceError},
    tree::{Entry, EntryKind, FileTime, path},
};

/// Objects by hash; counts what is read.
#[derive(Default)]
pub struct Bucket {
    pub packs: Mutex<BTreeMap<Sha256, SealedPack>>,
    pub reads: AtomicU64,
}

impl PackSink for Bucket {
    fn emit(&self, pack: SealedPack) -> Result<(), SinkError> {
        let bytes = pack.bytes.joined().into();
        self.packs.lock().unwrap().insert(pack.sha256, SealedPack { bytes, ..pack });
        Ok(())
    }
}

impl PackSource for Bucket {
    fn read(&self, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let packs = self.packs.lock().unwrap();
        let bytes = packs.get(&pack.sha256).ok_or(SourceError::Missing)?.bytes.joined();
        let to = (range.end as usize).min(bytes.len());
        Ok(bytes.slice((range.start as usize).min(to)..to))
    }
}

/// A file of the made-up source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub entry: Entry,
    pub content: Vec<u8>,
    pub holes: Vec<Range<u64>>,
}

pub type Tree = BTreeMap<Vec<u8>, Source>;

pub fn file(path: &str, content: impl Into<Vec<u8>>) -> (Vec<u8>, Source) {
    let content = content.into();
    let mut entry = Entry::file(path.as_bytes().to_vec());
    entry.mode = 0o644;
    entry.mtime = FileTime { secs: 1_700_000_000, nanos: 123 };
    entry.kind =
        EntryKind::File { size: content.len() as u64, content: vault::tree::Content::Empty };
    (path::key(path.as_bytes()).unwrap(), Source { entry, content, holes: Vec::new() })
}

pub fn dir(path: &str) -> (Vec<u8>, Source) {
    let mut entry = Entry::new(path.as_bytes().to_vec(), EntryKind::Directory);
    entry.mode = 0o755;
    let key = path::key(path.as_bytes()).unwrap();
    (key, Source { entry, content: Vec::new(), holes: Vec::new() })
}

/// Repeatable noise.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SeededIds::new(seed).fill(&mut bytes);
    bytes
}

/// Keys, descriptor and agent of one vault.
pub struct Lab {
    pub ids: Arc<SeededIds>,
    pub now: Timestamp,
    pub root: RootKey,
    pub keys: Arc<VaultKeys>,
    /// Key epoch of new packs and manifests.
    pub epoch: u32,
    pub agent: AgentId,
    pub agent_keys: AgentKeys,
    pub workload: WorkloadId,
    pub descriptor: VaultDescriptor,
    pub roster: Vec<u8>,
    pub bucket: Arc<Bucket>,
    pub workers: usize,
    pub max_pack: Option<u32>,
}

/// A finished backup with its manifest.
pub struct Done {
    pub finished: FinishedSnapshot,
    pub object: Vec<u8>,
    pub chain: Vec<SignedManifest>,
    pub reread: u64,
}

impl Lab {
    pub fn new(seed: u64) -> Self {
        let ids = Arc::new(SeededIds::new(seed << 32));
        let now = Timestamp::from_unix_millis(1_790_000_000_000);
        let (tenant, vault) = (TenantId::fresh(&*ids, now), VaultId::fresh(&*ids, now));
        let agent = AgentId::fresh(&*ids, now);
        let mut descriptor = VaultDescriptor::new(tenant, vault, now, KeyMode::Managed);
        descriptor.packs = PackSizes { target: 1 << 20, max_frames: 65_536 };
        // As the vectors have it: a vault keeps what it was made with, whatever today's default.
        descriptor.images = Chunking::Fixed { block: 256 << 10 };
        let root = RootKey::generate(&*ids);
        let agent_keys = AgentKeys::generate(&*ids);
        let roster = Roster {
            tenant,
            vault,
            generation: 1,
            descriptor: descriptor.sha256(),
            members: vec![agent_keys.member(agent)],
            signer: root.authority(),
        };
        Self {
            now,
            keys: Arc::new(VaultKeys::generate(tenant, vault, &*ids)),
            epoch: 1,
            agent,
            workload: WorkloadId::fresh(&*ids, now),
            roster: roster.sign(&root.roster_key()).unwrap(),
            root,
            agent_keys,
            descriptor,
            bucket: Arc::default(),
            ids,
            workers: 2,
            max_pack: None,
        }
    }

    pub fn roster(&self) -> Roster {
        Roster::open(&self.roster, &[self.root.authority()]).unwrap()
    }

    pub fn session(&self) -> SessionId {
        SessionId::fresh(&*self.ids, self.now)
    }

    pub fn context(&self) -> BackupContext {
        BackupContext {
            agent: self.agent,
            session: self.session(),
            key_epoch: self.epoch,
            first_seq: 0,
            workers: self.workers,
            max_pack: self.max_pack,
        }
    }

    pub fn writer(&self, index: Arc<ChunkIndex>) -> Result<Writer, BackupError> {
        let sink = Arc::clone(&self.bucket) as Arc<dyn PackSink>;
        let ids = Arc::clone(&self.ids) as Arc<dyn IdGen>;
        Writer::begin(self.context(), Arc::clone(&self.keys), &self.descriptor, index, sink, ids)
    }

    /// An index of everything in the bucket.
    pub fn index(&self) -> ChunkIndex {
        let index = ChunkIndex::new(self.descriptor.vault);
        for pack in self.bucket.packs.lock().unwrap().values() {
            index.add(pack.kind, pack.sha256, pack.bytes.len() as u64, &pack.directory);
        }
        index
    }

    pub fn reader(&self, done: &Done) -> Reader {
        let set = resolve(&done.chain).unwrap();
        let source = Arc::clone(&self.bucket) as Arc<dyn PackSource>;
        let manifest = done.chain[0].verify(&self.roster()).unwrap();
        Reader::open(manifest, &set, Arc::clone(&self.keys), source, None)
    }

    /// Backs a tree up, reading every file.
    pub fn backup(&self, tree: &Tree, parent: Option<&Done>) -> Done {
        self.run(tree, parent, false, &BTreeSet::new())
    }

    /// Backs a tree up, taking what looks unchanged from the parent.
    pub fn increment(&self, tree: &Tree, parent: &Done) -> Done {
        self.run(tree, Some(parent), true, &BTreeSet::new())
    }

    /// The same, carrying over what is in use of `worn` packs of the parent.
    pub fn repack(&self, tree: &Tree, parent: &Done, worn: &BTreeSet<PackId>) -> Done {
        self.run(tree, Some(parent), true, worn)
    }

    fn run(
        &self,
        tree: &Tree,
        parent: Option<&Done>,
        trust: bool,
        worn: &BTreeSet<PackId>,
    ) -> Done {
        let index = Arc::new(self.index());
        let before = parent.map(|done| Arc::new(self.reader(done)));
        let set = parent.map(|done| resolve(&done.chain).unwrap()).unwrap_or_default();
        let victims: Vec<_> = worn.iter().map(|id| &set.0[id]).collect();
        index.retain(|sha256| victims.iter().all(|pack| pack.sha256 != *sha256));
        let mut writer = self.writer(index).unwrap();
        for pack in victims {
            // What cannot be carried is read from its source.
            let carried = writer.carry_over(before.as_ref().unwrap().frames(), pack);
            assert!(matches!(carried, Ok(()) | Err(BackupError::Parent(_))), "{carried:?}");
        }
        let mut cursor = before.as_ref().map(|reader| reader.cursor().unwrap());
        let mut reread = 0;
        for source in tree.values() {
            if !source.entry.is_file() {
                writer.add_entry(source.entry.clone()).unwrap();
                continue;
            }
            let old = match &mut cursor {
                Some(cursor) if trust => cursor.find(&source.entry.path).unwrap(),
                _ => None,
            };
            if let Some(before) = &before
                && let Some((old, encoded)) =
                    old.filter(|(old, _)| old.looks_unchanged(&source.entry))
            {
                let mut entry = source.entry.clone();
                entry.kind = old.kind;
                let encoded = (entry.encode() == encoded).then_some(encoded);
                if writer.unchanged(entry, encoded, before.frames()).unwrap() == Reuse::Taken {
                    continue;
                }
            }
            reread += 1;
            let mut data = Vec::new();
            let mut at = 0;
            let end = source.content.len() as u64;
            for hole in source.holes.iter().chain([&(end..end)]) {
                data.extend_from_slice(&source.content[at as usize..hole.start as usize]);
                at = hole.end;
            }
            writer.add_file(source.entry.clone(), &mut data.as_slice(), &source.holes).unwrap();
        }
        let summary = Summary { paths: vec![b"data".to_vec()], ..Summary::default() };
        let finished = writer.finish(summary).unwrap();
        self.commit(finished, parent, reread)
    }

    pub fn commit(&self, finished: FinishedSnapshot, parent: Option<&Done>, reread: u64) -> Done {
        let stored = self.bucket.packs.lock().unwrap().keys().copied().collect();
        Done { reread, ..self.commit_of(finished, parent, stored) }
    }

    /// The same, with packs that are somewhere else.
    pub fn commit_of(
        &self,
        finished: FinishedSnapshot,
        parent: Option<&Done>,
        stored: Vec<Sha256>,
    ) -> Done {
        let confirmed = stored.into_iter().map(|sha256| {
            let id = PackId::fresh(&*self.ids, self.now);
            (sha256, Confirmed { id, version_id: format!("v-{}", id.uuid()) })
        });
        let confirmed = confirmed.collect();
        let chain = parent.map_or_else(Vec::new, |parent| parent.chain.clone());
        let builder = Builder {
            descriptor: &self.descriptor,
            workload: self.workload,
            agent: self.agent,
            session: self.session(),
            fence: 1,
            key_epoch: self.epoch,
            created: self.now,
            parent: &chain,
        };
        let manifest = builder.build(&finished, &confirmed).unwrap();
        let object = manifest.sign(&self.agent_keys.signing_key());
        let id = PackId::fresh(&*self.ids, self.now);
        let mut all = vec![SignedManifest::decode(id, &object).unwrap()];
        all.extend(chain);
        Done { finished, object, chain: all, reread: 0 }
    }
}

/// Every entry with its content, read back.
pub fn read_back(reader: &Reader) -> BTreeMap<Vec<u8>, (Entry, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in reader.entries().unwrap() {
        let entry = entry.unwrap();
        let mut content = Vec::new();
        if entry.is_file() {
            reader.read_file(&entry, &mut content).unwrap();
        }
        found.insert(path::key(&entry.path).unwrap(), (entry, content));
    }
    found
}

/// The snapshot is the tree: same paths, metadata and bytes.
pub fn assert_same(reader: &Reader, tree: &Tree) {
    let found = read_back(reader);
    assert_eq!(found.keys().collect::<Vec<_>>(), tree.keys().collect::<Vec<_>>());
    for (key, source) in tree {
        let (entry, content) = &found[key];
        assert!(*content == source.content, "{}", String::from_utf8_lossy(&entry.path));
        let mut expected = source.entry.clone();
        expected.kind = entry.kind.clone();
        assert_eq!(*entry, expected);
        assert_eq!(entry.size(), source.entry.size());
    }
}
