//! Browsing managed vaults: the platform opens the tree and shows one folder at a time.
//!
//! Invariants: only where the platform holds a wrap; every look is an event of the tenant; opened snapshots
//! are kept few, and only under tenant, vault and snapshot together.

pub mod http;
mod source;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use api::{
    catalog::{Entry, EntryKind, EntryPage, EntryQuery},
    problem::Code,
};
use authz::{Permit, actions::SnapshotBrowse};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD},
};
use domain::{SnapshotId, TenantId, Timestamp, VaultId, WorkloadId};
use pg::TenantTx;
use runtime::Cx;
use vault::{
    keys::Wrap,
    manifest,
    snapshot::{ReadError, Reader, SourceError},
    tree,
};

use crate::{
    error::Error,
    paging::{bad_cursor, page_limit},
    snapshots,
    state::Catalog,
    vaults,
};

/// Opened snapshots kept.
const KEPT: usize = 16;

type Key = (TenantId, VaultId, SnapshotId);

#[derive(Default)]
struct Shelf {
    clock: u64,
    kept: BTreeMap<Key, (u64, Arc<Reader>)>,
}

/// Snapshots opened lately. Holds keys of managed vaults in memory, so it is small.
#[derive(Default)]
pub struct Readers(Mutex<Shelf>);

impl Readers {
    fn find(&self, key: &Key) -> Option<Arc<Reader>> {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.clock += 1;
        let now = shelf.clock;
        let (used, reader) = shelf.kept.get_mut(key)?;
        *used = now;
        Some(reader.clone())
    }
    fn keep(&self, key: Key, reader: Arc<Reader>) {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.clock += 1;
        let now = shelf.clock;
        shelf.kept.insert(key, (now, reader));
        if shelf.kept.len() > KEPT {
            let oldest = shelf.kept.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key);
            oldest.and_then(|key| shelf.kept.remove(&key));
        }
    }
}

/// One folder of a snapshot, in order of names.
///
/// # Errors
/// `customer_held`, `not_found` for a snapshot or folder that is not there, `snapshot_damaged` where it cannot be
/// told whether it is, `validation`.
pub async fn list(
    app: &Catalog,
    cx: &Cx,
    permit: &Permit<SnapshotBrowse>,
    id: SnapshotId,
    query: &EntryQuery,
) -> Result<EntryPage, Error> {
    let folder = folder(query)?;
    let after = query.cursor.as_deref().map(|text| URL_SAFE_NO_PAD.decode(text));
    let after = after.transpose().map_err(|_| bad_cursor())?;
    let limit = page_limit(query.limit) as usize;
    let reader = open(app, permit, id).await?;
    let (entries, incomplete) = read(reader, folder, after, limit).await?;
    let more = entries.len() > limit;
    let shown = &entries[..entries.len().min(limit)];
    let last = shown.last().filter(|_| more);
    let next_cursor = last.map(|entry| URL_SAFE_NO_PAD.encode(entry.name()));
    let page = EntryPage { items: shown.iter().map(dto).collect(), next_cursor, incomplete };
    let tx = TenantTx::begin(&app.db, permit.scope()).await?;
    // How much was looked at, never what: names are the customer's.
    let event = cx.event("snapshot.browsed", "snapshot", &id).detail("entries", page.items.len());
    tx.commit(event).await?;
    Ok(page)
}

fn folder(query: &EntryQuery) -> Result<Vec<u8>, Error> {
    let bytes = match (&query.path_b64, &query.path) {
        (Some(text), _) => {
            BASE64.decode(text).map_err(|_| Error::field("path_b64", "not base64"))?
        }
        (None, Some(text)) => text.clone().into_bytes(),
        (None, None) => Vec::new(),
    };
    let start = bytes.iter().position(|byte| *byte != b'/').unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(start, |at| at + 1);
    let path = bytes[start..end].to_vec();
    if !path.is_empty() {
        tree::path::check(&path).map_err(|why| Error::field("path", why.to_string()))?;
    }
    Ok(path)
}

/// One entry more than `limit`, if there is one, and whether others are lost.
async fn read(
    reader: Arc<Reader>,
    folder: Vec<u8>,
    after: Option<Vec<u8>>,
    limit: usize,
) -> Result<(Vec<tree::Entry>, bool), Error> {
    let work = move || -> Result<Option<(Vec<tree::Entry>, bool)>, ReadError> {
        let is_folder = match reader.get(&folder)? {
            Some(entry) => entry.is_dir(),
            // The top need not have an entry of its own.
            None => folder.is_empty(),
        };
        if !is_folder {
            return Ok(None);
        }
        let (mut entries, mut lost) = (Vec::new(), false);
        for entry in reader.list_dir(&folder, after.as_deref())? {
            match entry {
                Ok(entry) => entries.push(entry),
                Err(ReadError::Stretch { .. }) => lost = true,
                Err(error) => return Err(error),
            }
            if entries.len() > limit {
                break;
            }
        }
        Ok(Some((entries, lost)))
    };
    let done = tokio::task::spawn_blocking(work).await;
    match done.map_err(|e| Error::broken("reading a folder was cut off", e))? {
        Ok(entries) => entries.ok_or_else(Error::not_found),
        Err(ReadError::Source { source: SourceError::Failed(cause), .. }) => {
            tracing::warn!(error = %cause, "a pack cannot be read for browsing");
            Err(Error::refused(Code::StoreUnavailable))
        }
        Err(error) if error.is_loss() => {
            tracing::warn!(%error, "a damaged snapshot cannot be browsed here");
            Err(Error::refused(Code::SnapshotDamaged))
        }
        Err(error) => Err(Error::broken("a snapshot cannot be read", error)),
    }
}

async fn open(
    app: &Catalog,
    permit: &Permit<SnapshotBrowse>,
    id: SnapshotId,
) -> Result<Arc<Reader>, Error> {
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let row = snapshots::find(&mut tx, permit, id).await?;
    let vault = VaultId::from_uuid(row.vault_id);
    let core = vaults::store::find_core(&mut tx, vault).await?.ok_or_else(Error::not_found)?;
    if core.key_mode != "managed" {
        return Err(Error::refused(Code::CustomerHeld));
    }
    let key = (permit.tenant(), vault, id);
    if let Some(reader) = app.readers.find(&key) {
        return Ok(reader);
    }
    let wraps = vaults::store::list_wraps(&mut tx, vault).await?;
    let workload = WorkloadId::from_uuid(row.workload_id);
    let chain = snapshots::store::list_manifests(&mut tx, workload, row.seq).await?;
    let packs = snapshots::store::list_packs(&mut tx, workload, row.seq, None, i64::MAX).await?;
    drop(tx);
    let wraps: Vec<Wrap> = wraps.iter().filter_map(|row| Wrap::decode(&row.wrap).ok()).collect();
    let keys = app.wrapper.unwrap_keys(&wraps);
    let keys = keys.map_err(|e| Error::broken("the platform cannot open a managed vault", e))?;
    // A chain of large manifests takes memory; whoever waited may find it opened.
    let turn = app.manifests.turn().await?;
    if let Some(reader) = app.readers.find(&key) {
        return Ok(reader);
    }
    let mut manifests = Vec::with_capacity(chain.len());
    for row in &chain {
        manifests.push(app.manifests.read(app, row).await?);
    }
    let set = manifest::resolve(&manifests)
        .map_err(|e| Error::broken("a committed manifest chain does not resolve", e))?;
    let newest = manifests.first().ok_or_else(Error::not_found)?;
    let source = source::StoreSource::new(app.store.clone(), &packs);
    let reader = Reader::open(&newest.manifest, &set, Arc::new(keys), Arc::new(source), None);
    let reader = Arc::new(reader);
    app.readers.keep(key, reader.clone());
    drop(turn);
    Ok(reader)
}

fn dto(entry: &tree::Entry) -> Entry {
    let (kind, link_target) = match &entry.kind {
        tree::EntryKind::File { .. } => (EntryKind::File, None),
        tree::EntryKind::Directory => (EntryKind::Directory, None),
        tree::EntryKind::Symlink { target } => {
            (EntryKind::Symlink, Some(String::from_utf8_lossy(target).into_owned()))
        }
        tree::EntryKind::Fifo => (EntryKind::Fifo, None),
        tree::EntryKind::Socket => (EntryKind::Socket, None),
        tree::EntryKind::CharDevice { .. } => (EntryKind::CharDevice, None),
        tree::EntryKind::BlockDevice { .. } => (EntryKind::BlockDevice, None),
    };
    let whole = [b"/".as_slice(), &entry.path].concat();
    let seconds = Timestamp::from_unix_secs(entry.mtime.secs).unwrap_or(Timestamp::UNIX_EPOCH);
    Entry {
        name: String::from_utf8_lossy(entry.name()).into_owned(),
        path_b64: std::str::from_utf8(&whole).is_err().then(|| BASE64.encode(&whole)),
        path: String::from_utf8_lossy(&whole).into_owned(),
        kind,
        size: entry.size(),
        mode: entry.mode & 0o7777,
        uid: entry.uid,
        gid: entry.gid,
        modified_at: seconds + std::time::Duration::from_nanos(u64::from(entry.mtime.nanos)),
        link_target,
    }
}
