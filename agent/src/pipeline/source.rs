//! Packs of a snapshot, read by restore grants; metadata and directories kept in a local cache.
//!
//! The engine's side is blocking and comes from its own threads; the network's side runs on the
//! runtime. The cache holds ciphertext under the name of its hash and is believed only after hashing
//! (metadata packs) or because the engine authenticates every byte it uses (fronts of data packs).

use std::{
    collections::HashMap,
    fs,
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api::catalog::{PackFacts, PresignedRequest, ReadGrant, RestoreGrants};
use bytes::Bytes;
use domain::{PackId, SnapshotId};
use tokio::runtime::Handle;
use vault::{
    id::Sha256,
    manifest::{ManifestError, PackRef, PackSet, SignedManifest, resolve},
    pack::PackKind,
    snapshot::{PackSource, SourceError},
};

use super::{member::Member, second::SecondCopy};
use crate::{
    control::{Control, Patience, Transfer, TransferError, retry},
    state::write_cached,
};

/// As many packs as one grant request may name.
const BATCH: usize = 256;
/// A grant this close to its end is renewed first.
const MARGIN: Duration = Duration::from_secs(60);
/// The engine reads this much of a pack to get at its directory.
const FRONT: u64 = 64 << 10;

/// A snapshot's manifests or packs cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    // Not transparent: the advice for people is found by the cause itself.
    #[error("{0}")]
    Control(#[from] api::client::Error),
    #[error("{0}")]
    Store(#[from] TransferError),
    #[error("the manifest of the snapshot cannot be believed: {0}")]
    Manifest(#[from] ManifestError),
    #[error("the store gave an object that is not what its name says")]
    WrongHash,
    #[error("the control plane granted something else than what was asked for")]
    Confused,
}

impl FetchError {
    /// What a person can do about an object that is damaged; whoever could not be asked has advice of their own.
    pub const fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Manifest(_) | Self::WrongHash => Some(
                "ask your administrator to run: everhold admin scrub. What it finds damaged is repaired from the \
                 second copy (--repair), or let go (everhold admin declare-lost): the next backup then builds on what \
                 is sound",
            ),
            Self::Control(_) | Self::Store(_) | Self::Confused => None,
        }
    }
}

/// A snapshot's verified manifest chain, newest first, and the packs it names.
pub struct Chain {
    pub manifests: Vec<SignedManifest>,
    pub packs: PackSet,
}

impl Chain {
    pub fn newest(&self) -> Option<&SignedManifest> {
        self.manifests.first()
    }
}

/// Fetches and verifies the manifests of a snapshot.
///
/// # Errors
/// See [`FetchError`].
pub async fn fetch_chain(
    member: &Member,
    transfer: &Transfer,
    snapshot: SnapshotId,
    second: &SecondCopy,
) -> Result<Chain, FetchError> {
    Ok(fetch_chain_bytes(member, transfer, snapshot, second).await?.0)
}

/// As [`fetch_chain`], with the objects of the manifests, in the same order.
///
/// # Errors
/// See [`FetchError`].
pub async fn fetch_chain_bytes(
    member: &Member,
    transfer: &Transfer,
    snapshot: SnapshotId,
    second: &SecondCopy,
) -> Result<(Chain, Vec<Bytes>), FetchError> {
    let grants = member.control.restore_grants(snapshot, Vec::new()).await?;
    let (mut manifests, mut objects) = (Vec::new(), Vec::new());
    for grant in &grants.manifests {
        let bytes = get_whole(&member.control, transfer, grant, second).await?;
        let manifest = SignedManifest::decode(grant.pack.id, &bytes)?;
        manifest.verify(&member.roster)?;
        manifests.push(manifest);
        objects.push(bytes);
    }
    let packs = resolve(&manifests)?;
    Ok((Chain { manifests, packs }, objects))
}

async fn get_whole(
    control: &Control,
    transfer: &Transfer,
    grant: &ReadGrant,
    second: &SecondCopy,
) -> Result<Bytes, FetchError> {
    let get = async |get: &PresignedRequest| {
        let (bytes, _) = get_patiently(control, transfer, get, 0..grant.pack.length).await?;
        let is_it = Sha256::of(&bytes).to_string() == grant.pack.sha256;
        if is_it { Ok(bytes) } else { Err(FetchError::WrongHash) }
    };
    match (get(&grant.get).await, second.of(grant)) {
        (Err(error), Some(other)) => {
            // What is told is what was wrong with the first.
            let bytes = get(other).await.map_err(|_| error)?;
            second.gave(&bytes);
            Ok(bytes)
        }
        (first, _) => first,
    }
}

async fn get_patiently(
    control: &Control,
    transfer: &Transfer,
    get: &PresignedRequest,
    range: Range<u64>,
) -> Result<(Bytes, Option<u64>), TransferError> {
    // A refusal for good shows itself at once; a fresh grant is the caller's business.
    let passing = |error: &TransferError| match error {
        TransferError::Refused { status, .. } => matches!(*status, 429 | 500..=599),
        other => other.is_retryable(),
    };
    let ids = control.world().ids.as_ref();
    retry(Patience::Moving, ids, passing, || transfer.get_sized(get, range.clone())).await
}

/// Whether the local cache may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    Use,
    /// As [`Caching::Use`], and a metadata pack that is seen to be damaged is lost as a whole: for whoever builds on
    /// it.
    Sound,
    /// Ask the store itself: for verification.
    Bypass,
}

/// [`PackSource`] of one snapshot.
pub struct GrantSource {
    control: Control,
    transfer: Transfer,
    snapshot: SnapshotId,
    cache: Option<Cache>,
    /// Of a damaged metadata pack nothing is read.
    only_sound: bool,
    runtime: Handle,
    /// All packs, in the order of their ids: grants are asked for in it.
    order: Vec<PackId>,
    grants: Mutex<HashMap<PackId, Arc<ReadGrant>>>,
    /// Lengths of whole objects, by the store's word.
    told: Mutex<HashMap<PackId, u64>>,
    /// Metadata packs that this process hashed. Held while one is fetched, so that a second reader finds it cached.
    hashed: Mutex<HashMap<Sha256, Hashed>>,
    /// The cache took nothing: whole packs are fetched no more than they must be, only what is wanted of them.
    unwritable: AtomicBool,
    second: Arc<SecondCopy>,
    /// Which copy of a pack gave what is right, when the other did not.
    preferred: Mutex<HashMap<PackId, u8>>,
}

/// What the hash of a metadata pack said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hashed {
    /// The cached copy is right.
    Cached,
    /// It can be had, and the cache did not take it.
    Sound,
    /// No place has it as its name says.
    Damaged,
}

/// The places of a pack: the vault's own store, and its second copy.
const FIRST: u8 = 0;
const SECOND: u8 = 1;

impl GrantSource {
    /// A source of these packs of a snapshot. To be made on the runtime; read from other threads.
    pub fn new(
        member: &Member,
        transfer: Transfer,
        snapshot: SnapshotId,
        packs: &PackSet,
        caching: Caching,
        second: Arc<SecondCopy>,
    ) -> Arc<Self> {
        let cache = Cache::at(&member.home.cache());
        Arc::new(Self {
            control: member.control.clone(),
            transfer,
            snapshot,
            cache: (caching != Caching::Bypass).then_some(cache),
            only_sound: caching == Caching::Sound,
            runtime: Handle::current(),
            order: packs.iter().map(|pack| pack.id).collect(),
            grants: Mutex::new(HashMap::new()),
            told: Mutex::new(HashMap::new()),
            hashed: Mutex::default(),
            unwritable: AtomicBool::new(false),
            second,
            preferred: Mutex::default(),
        })
    }

    fn preferred(&self) -> MutexGuard<'_, HashMap<PackId, u8>> {
        self.preferred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grant(&self, id: PackId) -> Result<Arc<ReadGrant>, FetchError> {
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = self.control.server_now() + MARGIN;
        if let Some(grant) = grants.get(&id)
            && grant.get.expires_at > fresh
        {
            return Ok(grant.clone());
        }
        let from = self.order.binary_search(&id).map_err(|_| FetchError::Confused)?;
        let batch: Vec<PackId> = self.order[from..]
            .iter()
            .filter(|known| grants.get(known).is_none_or(|grant| grant.get.expires_at <= fresh))
            .take(BATCH)
            .copied()
            .collect();
        let call = self.control.restore_grants(self.snapshot, batch);
        let reply: RestoreGrants = self.runtime.block_on(call)?;
        grants.extend(reply.packs.into_iter().map(|grant| (grant.pack.id, Arc::new(grant))));
        grants.get(&id).cloned().ok_or(FetchError::Confused)
    }

    /// The grant of just this object.
    fn granted(&self, pack: &PackRef) -> Result<Arc<ReadGrant>, FetchError> {
        let grant = self.grant(pack.id)?;
        if same_object(&grant.pack, pack) { Ok(grant) } else { Err(FetchError::Confused) }
    }

    fn fetch(&self, pack: &PackRef, range: Range<u64>) -> Result<Bytes, FetchError> {
        let grant = self.granted(pack)?;
        let preferred = self.preferred().get(&pack.id).copied();
        let other_first = preferred.map_or(self.second.is_better(), |place| place == SECOND);
        if other_first && let Some(bytes) = self.fetch_second(&grant, range.clone()) {
            return Ok(bytes);
        }
        let first = self.fetch_first(pack, &grant, range.clone());
        self.second.first_said(first.is_ok());
        first.or_else(|error| match self.grant(pack.id) {
            // What is told is what was wrong with the first.
            Ok(grant) => self.fetch_second(&grant, range).ok_or(error),
            Err(_) => Err(error),
        })
    }

    /// From one copy alone.
    fn fetch_at(&self, place: u8, pack: &PackRef, range: Range<u64>) -> Result<Bytes, FetchError> {
        let grant = self.granted(pack)?;
        if place == FIRST {
            return self.fetch_first(pack, &grant, range);
        }
        let missing = TransferError::Refused { status: 404, code: None };
        self.fetch_second(&grant, range).ok_or(FetchError::Store(missing))
    }

    fn fetch_first(
        &self,
        pack: &PackRef,
        grant: &ReadGrant,
        range: Range<u64>,
    ) -> Result<Bytes, FetchError> {
        let call = get_patiently(&self.control, &self.transfer, &grant.get, range.clone());
        let (bytes, told) = match self.runtime.block_on(call) {
            // The grant may have run out by the store's clock: once more with a fresh one.
            Err(TransferError::Refused { status: 403, .. }) => {
                self.grants.lock().unwrap_or_else(PoisonError::into_inner).remove(&pack.id);
                let grant = self.grant(pack.id)?;
                let call = get_patiently(&self.control, &self.transfer, &grant.get, range);
                self.runtime.block_on(call)?
            }
            other => other?,
        };
        if let Some(told) = told {
            self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(pack.id, told);
        }
        Ok(bytes)
    }

    /// Bytes of the whole object of a pack, as the store said when a part of it was fetched.
    pub fn told_length(&self, pack: PackId) -> Option<u64> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).get(&pack).copied()
    }

    /// The same range of the vault's second copy. `None`: there is none, or it does not give it either.
    fn fetch_second(&self, grant: &ReadGrant, range: Range<u64>) -> Option<Bytes> {
        let get = self.second.of(grant)?;
        let call = get_patiently(&self.control, &self.transfer, get, range);
        match self.runtime.block_on(call) {
            Ok((bytes, _)) => {
                self.second.gave(&bytes);
                Some(bytes)
            }
            Err(error) => {
                tracing::warn!(%error, "the vault's second copy does not give it either");
                None
            }
        }
    }

    /// A pack from the first place where it is what its name says.
    fn whole(&self, pack: &PackRef) -> Result<Bytes, FetchError> {
        let is_it = |bytes: &Bytes| Sha256::of(bytes) == pack.sha256;
        let whole = self.fetch(pack, 0..pack.length)?;
        if is_it(&whole) {
            return Ok(whole);
        }
        let mut others = (0..self.places(pack))
            .filter_map(|place| self.fetch_at(place, pack, 0..pack.length).ok());
        others.find(is_it).ok_or(FetchError::WrongHash)
    }

    fn metadata(
        &self,
        cache: &Cache,
        pack: &PackRef,
        range: Range<u64>,
    ) -> Result<Bytes, FetchError> {
        let mut hashed = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = hashed.get(&pack.sha256).copied();
        // A cached copy may have rotted since: it is hashed once before it is believed.
        let believed = faults::planted(faults::Bug::TrustStaleCache);
        let is_cached = match known {
            Some(known) => known == Hashed::Cached,
            None => believed || cache.is_sound(pack),
        };
        if is_cached && let Some(bytes) = cache.read(&pack.sha256, range.clone()) {
            hashed.insert(pack.sha256, Hashed::Cached);
            return Ok(bytes);
        }
        let is_damaged = known == Some(Hashed::Damaged);
        if is_damaged && self.only_sound {
            return Err(FetchError::WrongHash);
        }
        // Who builds on it wants each seen as a whole once, even where the cache takes none.
        let in_parts = self.unwritable.load(Ordering::Relaxed)
            && (known == Some(Hashed::Sound) || !self.only_sound);
        if is_damaged || in_parts {
            drop(hashed);
            return self.fetch(pack, range);
        }
        let whole = match self.whole(pack) {
            Err(error) if is_wrong(&error) => {
                hashed.insert(pack.sha256, Hashed::Damaged);
                drop(hashed);
                if self.only_sound {
                    return Err(error);
                }
                // What stands of it is worth having: whoever reads authenticates every frame.
                tracing::warn!(pack = %pack.sha256, %error, "a metadata pack is read in parts, as far as it stands");
                return self.fetch(pack, range);
            }
            whole => whole?,
        };
        let said = match cache.keep(&pack.sha256, &whole) {
            Ok(()) => Hashed::Cached,
            // Slower, not impossible.
            Err(error) => {
                if !self.unwritable.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the agent's cache cannot be written");
                }
                Hashed::Sound
            }
        };
        hashed.insert(pack.sha256, said);
        drop(hashed);
        slice(&whole, range).ok_or(FetchError::Confused)
    }
}

impl PackSource for GrantSource {
    fn read(&self, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        let bytes = match (&self.cache, pack.kind) {
            (Some(cache), PackKind::Meta) => self.metadata(cache, pack, range),
            (Some(cache), PackKind::Data) if !self.preferred().contains_key(&pack.id) => {
                match cache.read_front(&pack.sha256, range.clone()) {
                    Some(bytes) => Ok(bytes),
                    None => self.fetch(pack, range),
                }
            }
            (Some(_), PackKind::Data) => self.fetch(pack, range),
            (None, _) => self.fetch(pack, range),
        };
        bytes.map_err(source_error)
    }

    /// Whoever wants to know about the first store asks no other; one place is as many as were asked already, but for
    /// the cached front of a data pack.
    fn places(&self, pack: &PackRef) -> u8 {
        let Ok(grant) = self.grant(pack.id) else { return 0 };
        match (&self.cache, self.second.of(&grant)) {
            (None, _) => 0,
            (Some(_), None) => u8::from(pack.kind == PackKind::Data),
            (Some(_), Some(_)) => 2,
        }
    }

    fn read_at(&self, place: u8, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        self.fetch_at(place, pack, range).map_err(source_error)
    }

    fn prefer(&self, place: u8, pack: &PackRef) {
        self.preferred().insert(pack.id, place);
    }
}

fn source_error(error: FetchError) -> SourceError {
    match error {
        FetchError::Store(TransferError::Refused { status: 404, .. }) => SourceError::Missing,
        error if is_wrong(&error) => SourceError::Wrong,
        other => SourceError::Failed(Box::new(other)),
    }
}

/// The object is there and is another than it should be.
const fn is_wrong(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::WrongHash
            | FetchError::Store(
                TransferError::WrongLength { .. }
                    | TransferError::EndsEarly { .. }
                    | TransferError::Refused { status: 416, .. },
            )
    )
}

/// By hash, whatever the version: a pack that was repaired has another than its manifest names.
fn same_object(granted: &PackFacts, wanted: &PackRef) -> bool {
    granted.sha256 == wanted.sha256.to_string() && granted.length == wanted.length
}

fn slice(bytes: &Bytes, range: Range<u64>) -> Option<Bytes> {
    let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
    (range.start <= range.end && range.end <= bytes.len()).then(|| bytes.slice(range))
}

/// Metadata packs and the fronts of data packs, by hash.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf() }
    }
    fn whole_path(&self, sha256: &Sha256) -> PathBuf {
        self.folder.join(sha256.to_string())
    }
    fn front_path(&self, sha256: &Sha256) -> PathBuf {
        self.folder.join(format!("{sha256}.front"))
    }

    fn read(&self, sha256: &Sha256, range: Range<u64>) -> Option<Bytes> {
        read_range(&self.whole_path(sha256), range)
    }
    fn read_front(&self, sha256: &Sha256, range: Range<u64>) -> Option<Bytes> {
        read_range(&self.front_path(sha256), range)
    }
    /// Whether the whole pack is here, bit for bit.
    pub fn is_sound(&self, pack: &PackRef) -> bool {
        fs::read(self.whole_path(&pack.sha256)).is_ok_and(|bytes| Sha256::of(&bytes) == pack.sha256)
    }
    /// Of a whole cached pack or of a kept front.
    pub fn beginning(&self, sha256: &Sha256, range: Range<u64>) -> Option<Bytes> {
        self.read(sha256, range.clone()).or_else(|| self.read_front(sha256, range))
    }
    /// Keeps a whole metadata pack.
    ///
    /// # Errors
    /// What the system says.
    pub fn keep(&self, sha256: &Sha256, bytes: &[u8]) -> io::Result<()> {
        write_cached(&self.whole_path(sha256), bytes)
    }

    /// Takes over a whole metadata pack.
    ///
    /// # Errors
    /// What the system says.
    pub fn adopt(&self, sha256: &Sha256, file: &Path) -> io::Result<()> {
        faults::point("cache: take over")?;
        fs::rename(file, self.whole_path(sha256))
    }

    /// Keeps header and directory of the data pack that `file` reads.
    ///
    /// # Errors
    /// What the system says.
    pub fn keep_front(&self, sha256: &Sha256, file: &mut impl Read) -> io::Result<()> {
        let length_at = vault::pack::HEADER_LEN;
        let mut front = Vec::new();
        file.take(FRONT).read_to_end(&mut front)?;
        let field = front.get(length_at..length_at + 4).and_then(|field| field.try_into().ok());
        let directory = field.map_or(0, |field| u64::from(u32::from_be_bytes(field)));
        let whole = length_at as u64 + 4 + directory;
        file.take(whole.saturating_sub(front.len() as u64)).read_to_end(&mut front)?;
        write_cached(&self.front_path(sha256), &front)
    }

    /// Keeps the metadata of the named packs and drops all else; fronts have done their work when a
    /// snapshot is committed. Advice only: errors do not matter.
    pub fn retain(&self, keep: impl Fn(&Sha256) -> bool) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let hash = hex::decode(name.as_encoded_bytes()).ok();
            let known = hash.and_then(|hash| Sha256::from_slice(&hash));
            if !known.is_some_and(|hash| keep(&hash)) && faults::point("cache: remove").is_ok() {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// `None` when the file is not there or does not reach so far.
fn read_range(path: &Path, range: Range<u64>) -> Option<Bytes> {
    use std::os::unix::fs::FileExt as _;
    let file = fs::File::open(path).ok()?;
    let mut bytes = vec![0; usize::try_from(range.end.checked_sub(range.start)?).ok()?];
    file.read_exact_at(&mut bytes, range.start).ok()?;
    Some(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_gives_back_what_it_has_and_drops_what_nobody_needs() {
        let dir = tempfile::tempdir().expect("tempdir");
        let cache = Cache::at(dir.path());
        let hash = Sha256::of(b"a pack");
        cache.keep(&hash, b"a pack").expect("keep");
        assert_eq!(cache.read(&hash, 2..6).as_deref(), Some(&b"pack"[..]));
        assert_eq!(cache.read(&hash, 2..7), None);
        cache.retain(|_| false);
        assert_eq!(cache.read(&hash, 0..1), None);
    }
}
