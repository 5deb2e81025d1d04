//! The metadata database: typed rows over redb, written by one thread.
//!
//! Owns the tables and the only way to change them: [`Meta::write`] queues a closure; one thread
//! runs what is queued in one transaction and answers after its commit, so many small puts share
//! one fsync. Invariant: a closure refuses before it writes; an internal error aborts the whole
//! transaction. It must not know HTTP or blob files.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase as _, ReadableTable, Table,
    TableDefinition, WriteTransaction,
};
use s3s::{S3Error, S3ErrorCode, S3Result};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use crate::model::{Bucket, Heartbeat, NULL_VERSION, Part, Segment, Upload, Version};

/// Bucket, key, and the complement of the sequence number: newest first.
pub(crate) type VersionKey = (&'static str, &'static str, u64);
/// Bucket, key, upload id.
type UploadKey = (&'static str, &'static str, &'static str);
/// Upload id, part number.
type PartKey = (&'static str, u32);
type Json = &'static [u8];

const BUCKETS: TableDefinition<&str, &[u8]> = TableDefinition::new("buckets");
const VERSIONS: TableDefinition<VersionKey, &[u8]> = TableDefinition::new("versions");
const UPLOADS: TableDefinition<UploadKey, &[u8]> = TableDefinition::new("uploads");
const PARTS: TableDefinition<PartKey, &[u8]> = TableDefinition::new("parts");
const SYSTEM: TableDefinition<&str, &[u8]> = TableDefinition::new("system");

/// Jobs that may share one commit.
const BATCH: usize = 256;

/// The database failed; never the client's fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetaError {
    #[error("the metadata database failed")]
    Database(#[source] Box<redb::Error>),
    #[error("a metadata row is not readable")]
    Row(#[from] serde_json::Error),
    #[error("the metadata writer is gone")]
    Gone,
}

macro_rules! database_errors {
    ($($kind:ident)*) => {$(
        impl From<redb::$kind> for MetaError {
            fn from(error: redb::$kind) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )*};
}
database_errors!(DatabaseError TransactionError TableError StorageError CommitError);

impl From<MetaError> for S3Error {
    fn from(error: MetaError) -> Self {
        Self::with_source(S3ErrorCode::InternalError, Box::new(error))
    }
}

type Result<T, E = MetaError> = std::result::Result<T, E>;

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    Ok(serde_json::from_slice(bytes)?)
}

/// A version and its place in the table.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub at: u64,
    pub version: Version,
}

/// Reading, alike in both kinds of transaction.
pub(crate) trait Rows {
    fn buckets(&self) -> &impl ReadableTable<&'static str, Json>;
    fn versions(&self) -> &impl ReadableTable<VersionKey, Json>;
    fn uploads(&self) -> &impl ReadableTable<UploadKey, Json>;
    fn parts(&self) -> &impl ReadableTable<PartKey, Json>;
    fn system(&self) -> &impl ReadableTable<&'static str, Json>;

    fn find_bucket(&self, name: &str) -> Result<Option<Bucket>> {
        self.buckets().get(name)?.map(|row| decode(row.value())).transpose()
    }
    /// The bucket, or `NoSuchBucket`.
    fn bucket(&self, name: &str) -> S3Result<Bucket> {
        Ok(self.find_bucket(name)?.ok_or(S3ErrorCode::NoSuchBucket)?)
    }
    fn list_buckets(&self) -> Result<Vec<(String, Bucket)>> {
        let rows = self.buckets().iter()?;
        rows.map(|row| {
            let (name, bucket) = row?;
            Ok((name.value().to_owned(), decode(bucket.value())?))
        })
        .collect()
    }
    /// The newest row of a key, delete markers included.
    fn latest(&self, bucket: &str, key: &str) -> Result<Option<Found>> {
        let mut rows = self.versions().range((bucket, key, 0)..=(bucket, key, u64::MAX))?;
        rows.next().map(|row| found(row?)).transpose()
    }
    /// The row with this version id.
    fn find_version(&self, bucket: &str, key: &str, id: &str) -> Result<Option<Found>> {
        if id == NULL_VERSION {
            for row in self.versions().range((bucket, key, 0)..=(bucket, key, u64::MAX))? {
                let found = found(row?)?;
                if found.version.id == NULL_VERSION {
                    return Ok(Some(found));
                }
            }
            return Ok(None);
        }
        let Some(sequence) = id.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()) else {
            return Ok(None);
        };
        let at = u64::MAX - sequence;
        let row = self.versions().get((bucket, key, at))?;
        let version: Option<Version> = row.map(|row| decode(row.value())).transpose()?;
        Ok(version.filter(|v| v.id == id).map(|version| Found { at, version }))
    }
    fn find_upload(&self, bucket: &str, key: &str, id: &str) -> Result<Option<Upload>> {
        self.uploads().get((bucket, key, id))?.map(|row| decode(row.value())).transpose()
    }
    fn list_uploads(&self, bucket: &str) -> Result<Vec<(String, String, Upload)>> {
        let end = format!("{bucket}\0");
        let rows = self.uploads().range((bucket, "", "")..(end.as_str(), "", ""))?;
        rows.map(|row| {
            let (place, upload) = row?;
            let (_, key, id) = place.value();
            Ok((key.to_owned(), id.to_owned(), decode(upload.value())?))
        })
        .collect()
    }
    /// The parts of an upload in order.
    fn list_parts(&self, upload: &str) -> Result<Vec<(u32, Part)>> {
        let rows = self.parts().range((upload, 0)..=(upload, u32::MAX))?;
        rows.map(|row| {
            let (place, part) = row?;
            Ok((place.value().1, decode(part.value())?))
        })
        .collect()
    }
    fn heartbeat(&self) -> Result<Option<Heartbeat>> {
        self.system().get("heartbeat")?.map(|row| decode(row.value())).transpose()
    }
    /// Every blob that some row names.
    fn named_blobs(&self) -> Result<HashSet<String>> {
        let mut named = HashSet::new();
        let mut add = |segments: &[Segment]| {
            named.extend(segments.iter().map(|segment| segment.blob.clone()));
        };
        for row in self.versions().iter()? {
            let version: Version = decode(row?.1.value())?;
            add(version.object().map_or(&[], |object| &object.segments));
        }
        for row in self.parts().iter()? {
            let part: Part = decode(row?.1.value())?;
            add(&[part.segment]);
        }
        Ok(named)
    }
}

type Guarded<'a> = (redb::AccessGuard<'a, VersionKey>, redb::AccessGuard<'a, Json>);

pub(crate) fn found((place, row): Guarded<'_>) -> Result<Found> {
    Ok(Found { at: place.value().2, version: decode(row.value())? })
}

/// The tables inside the writer's transaction.
pub(crate) struct Write<'t> {
    buckets: Table<'t, &'static str, Json>,
    versions: Table<'t, VersionKey, Json>,
    uploads: Table<'t, UploadKey, Json>,
    parts: Table<'t, PartKey, Json>,
    system: Table<'t, &'static str, Json>,
}

/// The tables as they were at one moment.
pub(crate) struct Read {
    buckets: ReadOnlyTable<&'static str, Json>,
    versions: ReadOnlyTable<VersionKey, Json>,
    uploads: ReadOnlyTable<UploadKey, Json>,
    parts: ReadOnlyTable<PartKey, Json>,
    system: ReadOnlyTable<&'static str, Json>,
}

macro_rules! rows {
    ($($kind:ty),*) => {$(
        impl Rows for $kind {
            fn buckets(&self) -> &impl ReadableTable<&'static str, Json> { &self.buckets }
            fn versions(&self) -> &impl ReadableTable<VersionKey, Json> { &self.versions }
            fn uploads(&self) -> &impl ReadableTable<UploadKey, Json> { &self.uploads }
            fn parts(&self) -> &impl ReadableTable<PartKey, Json> { &self.parts }
            fn system(&self) -> &impl ReadableTable<&'static str, Json> { &self.system }
        }
    )*};
}
rows!(Write<'_>, Read);

impl Read {
    fn open(txn: &ReadTransaction) -> Result<Self> {
        Ok(Self {
            buckets: txn.open_table(BUCKETS)?,
            versions: txn.open_table(VERSIONS)?,
            uploads: txn.open_table(UPLOADS)?,
            parts: txn.open_table(PARTS)?,
            system: txn.open_table(SYSTEM)?,
        })
    }
}

impl<'t> Write<'t> {
    fn open(txn: &'t WriteTransaction) -> Result<Self> {
        Ok(Self {
            buckets: txn.open_table(BUCKETS)?,
            versions: txn.open_table(VERSIONS)?,
            uploads: txn.open_table(UPLOADS)?,
            parts: txn.open_table(PARTS)?,
            system: txn.open_table(SYSTEM)?,
        })
    }
    pub(crate) fn set_bucket(&mut self, name: &str, bucket: &Bucket) -> Result<()> {
        self.buckets.insert(name, encode(bucket)?.as_slice())?;
        Ok(())
    }
    pub(crate) fn delete_bucket(&mut self, name: &str) -> Result<()> {
        self.buckets.remove(name)?;
        Ok(())
    }
    pub(crate) fn set_version(
        &mut self,
        bucket: &str,
        key: &str,
        at: u64,
        version: &Version,
    ) -> Result<()> {
        self.versions.insert((bucket, key, at), encode(version)?.as_slice())?;
        Ok(())
    }
    pub(crate) fn delete_version(&mut self, bucket: &str, key: &str, at: u64) -> Result<()> {
        self.versions.remove((bucket, key, at))?;
        Ok(())
    }
    pub(crate) fn set_upload(
        &mut self,
        bucket: &str,
        key: &str,
        id: &str,
        upload: &Upload,
    ) -> Result<()> {
        self.uploads.insert((bucket, key, id), encode(upload)?.as_slice())?;
        Ok(())
    }
    /// Takes away an upload and its parts; answers the blobs of the parts.
    pub(crate) fn delete_upload(
        &mut self,
        bucket: &str,
        key: &str,
        id: &str,
    ) -> Result<Vec<Segment>> {
        let parts = self.list_parts(id)?;
        for (number, _) in &parts {
            self.parts.remove((id, *number))?;
        }
        self.uploads.remove((bucket, key, id))?;
        Ok(parts.into_iter().map(|(_, part)| part.segment).collect())
    }
    /// Answers the blob of the part it replaces.
    pub(crate) fn set_part(
        &mut self,
        upload: &str,
        number: u32,
        part: &Part,
    ) -> Result<Option<Segment>> {
        let old = self.parts.insert((upload, number), encode(part)?.as_slice())?;
        let old: Option<Part> = old.map(|row| decode(row.value())).transpose()?;
        Ok(old.map(|part| part.segment))
    }
    pub(crate) fn set_heartbeat(&mut self, beat: &Heartbeat) -> Result<()> {
        self.system.insert("heartbeat", encode(beat)?.as_slice())?;
        Ok(())
    }
    /// A number no earlier row has, and the version id made of it.
    pub(crate) fn next_version(&mut self) -> Result<(u64, String)> {
        let last: u64 = self.system.get("sequence")?.map_or(Ok(0), |row| decode(row.value()))?;
        let next = last + 1;
        self.system.insert("sequence", encode(&next)?.as_slice())?;
        let random = crate::blobs::random_id();
        let tail = random.get(..16).unwrap_or_default();
        Ok((u64::MAX - next, format!("{next:016x}{tail}")))
    }
}

fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(row)?)
}

/// Called with whether the transaction was committed.
type Reply = Box<dyn FnOnce(bool) + Send>;
struct Outcome {
    internal_error: bool,
    reply: Reply,
}
type Job = Box<dyn FnOnce(&mut Write<'_>) -> Outcome + Send>;

/// The database and its writer thread.
pub(crate) struct Meta {
    database: Arc<Database>,
    queue: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl Drop for Meta {
    fn drop(&mut self) {
        // The queue ends, what is in it is committed, and the file's lock is free afterwards.
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Meta {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let database = Arc::new(Database::create(path)?);
        let txn = database.begin_write()?;
        Write::open(&txn)?;
        txn.commit()?;
        let (queue, jobs) = mpsc::channel();
        let for_writer = Arc::clone(&database);
        let writer = std::thread::Builder::new()
            .name("devstore-meta".into())
            .spawn(move || run_writer(&for_writer, &jobs))
            .map_err(|_| MetaError::Gone)?;
        Ok(Self { database, queue: Some(queue), writer: Some(writer) })
    }

    /// Runs `job` alone in the writer's transaction; answers when it is durable.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Write<'_>) -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |rows| {
            let result = job(rows);
            let internal_error =
                result.as_ref().is_err_and(|e| *e.code() == S3ErrorCode::InternalError);
            let reply = move |committed| {
                let refused = result.is_err();
                let _ = answer.send(if committed || refused { Some(result) } else { None });
            };
            Outcome { internal_error, reply: Box::new(reply) }
        });
        let queue = self.queue.as_ref().ok_or(MetaError::Gone)?;
        queue.send(job).map_err(|_| MetaError::Gone)?;
        result.await.ok().flatten().ok_or(MetaError::Gone)?
    }

    /// Runs `look` on one consistent view, off the async threads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Read) -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        let database = Arc::clone(&self.database);
        let looked = tokio::task::spawn_blocking(move || look(&read_view(&database)?));
        looked.await.map_err(|_| MetaError::Gone)?
    }

    /// As [`Meta::read`], for the start, outside async.
    pub(crate) fn view(&self) -> Result<Read> {
        read_view(&self.database)
    }
}

fn read_view(database: &Database) -> Result<Read> {
    Read::open(&database.begin_read()?)
}

fn run_writer(database: &Database, jobs: &mpsc::Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let batch = std::iter::once(first).chain(jobs.try_iter().take(BATCH - 1));
        let mut replies = Vec::new();
        let committed = run_batch(database, batch, &mut replies);
        if let Err(error) = &committed {
            tracing::error!(error = error as &dyn std::error::Error, "a commit failed");
        }
        for reply in replies {
            reply(matches!(committed, Ok(true)));
        }
    }
}

fn run_batch(
    database: &Database,
    batch: impl Iterator<Item = Job>,
    replies: &mut Vec<Reply>,
) -> Result<bool> {
    let txn = database.begin_write()?;
    let mut clean = true;
    {
        let mut rows = Write::open(&txn)?;
        for job in batch {
            let outcome = job(&mut rows);
            clean &= !outcome.internal_error;
            replies.push(outcome.reply);
        }
    }
    if clean {
        txn.commit()?;
    } else {
        txn.abort()?;
    }
    Ok(clean)
}
