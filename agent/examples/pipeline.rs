//! The data path alone, for profiling: walk, read, chunk, compress, seal and check a folder, with packs written
//! to a folder or dropped, without network and control plane. Then the same again as an unchanged backup.
//!
//!     cargo run --release -p everhold-agent --example pipeline -- FOLDER [PACKS]

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use domain::{
    AgentId, Clock as _, ManualClock, PackId, SessionId, SystemClock, SystemIds, TenantId, VaultId,
    WorkloadId,
};
use everhold_agent::{
    pipeline::{
        feed::{Counters, Feeder},
        parent::ParentCursor,
    },
    sources::{Names, Roots, Walk, WalkOptions},
};
use tokio_util::sync::CancellationToken;
use vault::{
    backup::{BackupContext, FinishedSnapshot, PackSink, SinkError, Summary, Writer},
    descriptor::{KeyMode, VaultDescriptor},
    id::Sha256,
    index::ChunkIndex,
    keys::{AgentKeys, VaultKeys},
    manifest::{Builder, Confirmed, PackRef, SignedManifest, resolve},
    pack::{Pieces, SealedPack},
    snapshot::{PackSource, Reader, SourceError},
};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Packs in a folder, or nowhere.
struct Folder {
    path: Option<PathBuf>,
    sealed: Mutex<Vec<SealedPack>>,
}

impl PackSink for Folder {
    fn emit(&self, mut pack: SealedPack) -> Result<(), SinkError> {
        if let Some(path) = &self.path {
            fs::write(path.join(pack.sha256.to_string()), pack.bytes.to_vec())
                .map_err(|error| SinkError(Box::new(error)))?;
        }
        pack.bytes = Pieces::default();
        self.sealed.lock().map_err(|_| SinkError("poisoned".into()))?.push(pack);
        Ok(())
    }
}

impl PackSource for Folder {
    fn read(&self, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        let path = self.path.as_ref().ok_or(SourceError::Missing)?;
        let file =
            fs::File::open(path.join(pack.sha256.to_string())).map_err(|_| SourceError::Missing)?;
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        file.read_exact_at(&mut bytes, range.start).map_err(|_| SourceError::Missing)?;
        Ok(bytes.into())
    }
}

struct Lab {
    keys: Arc<VaultKeys>,
    descriptor: VaultDescriptor,
    roots: Roots,
    folder: Arc<Folder>,
}

impl Lab {
    fn backup(&self, session: u8, parent: Option<&Reader>) -> Fallible<FinishedSnapshot> {
        let index = ChunkIndex::new(self.keys.vault());
        for pack in self.folder.sealed.lock().map_err(|_| "poisoned")?.iter() {
            index.add(pack.kind, pack.sha256, 0, &pack.directory);
        }
        let context = BackupContext {
            agent: AgentId::from_bytes([3; 16]),
            session: SessionId::from_bytes([session; 16]),
            key_epoch: 1,
            first_seq: 1,
            workers: std::thread::available_parallelism()?.get(),
            max_pack: None,
        };
        let cursor = parent.map(ParentCursor::of).transpose()?;
        let mut writer = Writer::begin(
            context,
            self.keys.clone(),
            &self.descriptor,
            Arc::new(index),
            self.folder.clone(),
            Arc::new(SystemIds),
        )?;
        let options = WalkOptions { names: Names::of_this_machine(), ..WalkOptions::default() };
        // Files just unpacked would count as racy and be read again.
        let clock = Arc::new(ManualClock::at(SystemClock.now() + Duration::from_secs(3600)));
        let mut feeder = Feeder::new(
            &mut writer,
            cursor,
            &options.names,
            Arc::new(Counters::default()),
            CancellationToken::new(),
            clock,
        );
        Walk::run(&self.roots, &options, &mut feeder)?;
        Ok(writer.finish(Summary::default())?)
    }

    fn reader(&self, finished: &FinishedSnapshot) -> Fallible<Reader> {
        let agent = AgentKeys::generate(&SystemIds);
        let builder = Builder {
            descriptor: &self.descriptor,
            workload: WorkloadId::from_bytes([4; 16]),
            agent: AgentId::from_bytes([3; 16]),
            session: SessionId::from_bytes([1; 16]),
            fence: 1,
            key_epoch: 1,
            created: SystemClock.now(),
            parent: &[],
        };
        let confirmed: BTreeMap<Sha256, Confirmed> = (finished.usage.iter().zip(0_u128..))
            .map(|(pack, number)| {
                let id = PackId::from_bytes(number.to_be_bytes());
                (pack.sha256, Confirmed { id, version_id: "1".into() })
            })
            .collect();
        let manifest = builder.build(finished, &confirmed)?;
        let signed = SignedManifest::decode(
            PackId::from_bytes([9; 16]),
            &manifest.sign(&agent.signing_key()),
        )?;
        let packs = resolve(std::slice::from_ref(&signed))?;
        let index = ChunkIndex::new(self.keys.vault());
        for pack in self.folder.sealed.lock().map_err(|_| "poisoned")?.iter() {
            index.add(pack.kind, pack.sha256, 0, &pack.directory);
        }
        let index = Some(Arc::new(index));
        let source = self.folder.clone();
        Ok(Reader::open(&signed.manifest, &packs, self.keys.clone(), source, index))
    }
}

/// User and system seconds of this process, and its peak memory in MB.
fn usage() -> (f64, f64, u64) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.trim().split(' ').next()?.parse::<u64>().ok());
    (ticks(12) / 100.0, ticks(13) / 100.0, peak.unwrap_or(0) / 1000)
}

fn timed<T>(what: &str, work: impl FnOnce() -> Fallible<T>) -> Fallible<T> {
    let (start, before) = (Instant::now(), usage());
    let done = work()?;
    let (wall, after) = (start.elapsed().as_secs_f64(), usage());
    let (user, system) = (after.0 - before.0, after.1 - before.1);
    println!(
        "{what:10} wall {wall:6.2} s  user {user:6.2}  system {system:5.2}  peak {} MB",
        after.2
    );
    Ok(done)
}

fn main() -> Fallible<()> {
    let mut args = std::env::args_os().skip(1);
    let source = args.next().ok_or("which folder?")?;
    let path = args.next().map(PathBuf::from);
    let (tenant, vault) = (TenantId::from_bytes([1; 16]), VaultId::from_bytes([2; 16]));
    let lab = Lab {
        keys: Arc::new(VaultKeys::generate(tenant, vault, &SystemIds)),
        descriptor: VaultDescriptor::new(tenant, vault, SystemClock.now(), KeyMode::Managed),
        roots: Roots::resolve(&[source.into()], &std::env::current_dir()?)?,
        folder: Arc::new(Folder { path: path.clone(), sealed: Mutex::default() }),
    };
    let first = timed("first", || lab.backup(1, None))?;
    println!("{:?}", first.stats);
    if path.is_some() {
        let parent = timed("open", || lab.reader(&first))?;
        let second = timed("unchanged", || lab.backup(2, Some(&parent)))?;
        println!("{:?}", second.stats);
    }
    Ok(())
}
