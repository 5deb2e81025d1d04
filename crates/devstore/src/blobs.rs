//! Blob files: bodies on disk, named by random ids.
//!
//! Owns `blobs/` and `tmp/` of the store's folder. Invariant: a file under `blobs/` is complete and
//! durable (written to `tmp/`, fsynced, renamed, folder fsynced); whether it means anything is for
//! the metadata to say. Memory per body is constant. It must not know keys, versions or locks.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use tokio::task::spawn_blocking;

use crate::{
    hashing::{Announced, Digests, Sums},
    model::Segment,
};

/// Bytes gathered before one trip to the disk.
const BATCH: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the body ended with an error")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the blob could not be written")]
    Disk(#[from] io::Error),
}

#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    root: Arc<Path>,
}

/// A blob under `tmp/`; removed when dropped.
pub(crate) struct Written {
    path: PathBuf,
    file: File,
    id: String,
    pub sums: Sums,
}

/// A durable blob nobody names yet; removed when dropped, unless kept.
pub(crate) struct Placed {
    path: Option<PathBuf>,
    pub segment: Segment,
}

impl Placed {
    /// Called inside the metadata transaction that names the blob. If that transaction fails to
    /// commit, the file is an orphan for the next start.
    pub(crate) fn keep(mut self) -> Segment {
        self.path = None;
        self.segment.clone()
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            remove(&path);
        }
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // After a rename there is nothing left under this name.
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a blob file stays behind");
        }
        _ => {}
    }
}

impl Blobs {
    /// Makes the folders and empties `tmp/`.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let tmp = root.join("tmp");
        if tmp.exists() {
            fs::remove_dir_all(&tmp)?;
        }
        fs::create_dir_all(&tmp)?;
        for shard in 0..=255_u8 {
            fs::create_dir_all(root.join("blobs").join(hex::encode([shard])))?;
        }
        File::open(root.join("blobs"))?.sync_all()?;
        File::open(root)?.sync_all()?;
        Ok(Self { root: root.into() })
    }

    /// Removes blobs that no row names. Only before the store serves.
    pub(crate) fn remove_orphans(&self, named: &HashSet<String>) -> io::Result<usize> {
        let mut removed = 0;
        for shard in fs::read_dir(self.root.join("blobs"))? {
            for blob in fs::read_dir(shard?.path())? {
                let blob = blob?;
                let known = blob.file_name().to_str().is_some_and(|name| named.contains(name));
                if !known {
                    fs::remove_file(blob.path())?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    fn path(&self, id: &str) -> PathBuf {
        let shard = id.get(..2).unwrap_or("00");
        self.root.join("blobs").join(shard).join(id)
    }

    /// Streams a body to a temporary file, hashing on the way.
    pub(crate) async fn write<S, E>(
        &self,
        body: S,
        announced: &Announced,
    ) -> Result<Written, WriteError>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let id = random_id();
        let path = self.root.join("tmp").join(&id);
        let digests = Digests::new(announced);
        let mut sink = Sink::create(path).await?;
        let mut state = Some(digests);
        let mut body = std::pin::pin!(body);
        let mut batch = Vec::new();
        let mut size = 0;
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|error| WriteError::Body(error.into()))?;
            size += bytes.len();
            batch.push(bytes);
            if size >= BATCH {
                // One batch is on its way to the disk while the next arrives.
                sink.push(&mut state, std::mem::take(&mut batch)).await?;
                size = 0;
            }
        }
        sink.push(&mut state, batch).await?;
        let (file, path, digests) = sink.finish(state).await?;
        Ok(Written { path, file, id, sums: digests.finish() })
    }

    /// Makes a written blob durable under its final name.
    pub(crate) async fn place(&self, written: Written) -> io::Result<Placed> {
        let target = self.path(&written.id);
        blocking(move || {
            written.file.sync_data()?;
            fs::rename(&written.path, &target)?;
            let segment = Segment { blob: written.id.clone(), length: written.sums.length };
            let placed = Placed { path: Some(target), segment };
            if let Some(folder) = placed.path.as_ref().and_then(|path| path.parent()) {
                File::open(folder)?.sync_all()?;
            }
            Ok(placed)
        })
        .await
    }

    /// Removes blobs whose rows are gone. What fails is an orphan for the next start.
    pub(crate) async fn discard(&self, segments: Vec<Segment>) {
        if segments.is_empty() {
            return;
        }
        let paths: Vec<_> = segments.iter().map(|segment| self.path(&segment.blob)).collect();
        let _ = spawn_blocking(move || paths.iter().for_each(|path| remove(path))).await;
    }

    /// Opens every segment at once, so that a delete meanwhile cannot cut the answer short.
    pub(crate) async fn open_body(
        &self,
        segments: &[Segment],
        range: Range<u64>,
    ) -> io::Result<Body> {
        let mut wanted = Vec::new();
        let mut start = 0;
        for segment in segments {
            let end = start + segment.length;
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                wanted.push((self.path(&segment.blob), from - start, to - from));
            }
            start = end;
        }
        blocking(move || {
            let mut pieces = Vec::with_capacity(wanted.len());
            for (path, offset, length) in wanted {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(offset))?;
                pieces.push(Piece { file, left: length });
            }
            pieces.reverse();
            Ok(Body { pieces })
        })
        .await
    }
}

/// An opened body, last piece first.
pub(crate) struct Body {
    pieces: Vec<Piece>,
}

struct Piece {
    file: File,
    left: u64,
}

impl Body {
    pub(crate) fn into_stream(
        self,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
        futures::stream::try_unfold(self, |mut body| {
            blocking(move || Ok(body.next_chunk()?.map(|bytes| (bytes, body))))
        })
    }

    fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(piece) = self.pieces.last_mut() {
            if piece.left == 0 {
                self.pieces.pop();
                continue;
            }
            let size = usize::try_from(piece.left).map_or(BATCH, |left| left.min(BATCH));
            let mut buffer = BytesMut::zeroed(size);
            piece.file.read_exact(&mut buffer)?;
            piece.left -= size as u64;
            return Ok(Some(buffer.freeze()));
        }
        Ok(None)
    }
}

/// The disk side of one upload: at most one batch in flight.
struct Sink {
    flight: Option<tokio::task::JoinHandle<io::Result<(File, Digests)>>>,
    file: Option<File>,
    path: TempPath,
}

/// Removes the temporary file unless taken.
struct TempPath(Option<PathBuf>);

impl Drop for TempPath {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            remove(&path);
        }
    }
}

impl Sink {
    async fn create(path: PathBuf) -> io::Result<Self> {
        let target = path.clone();
        let file = blocking(move || File::create_new(target)).await?;
        Ok(Self { flight: None, file: Some(file), path: TempPath(Some(path)) })
    }

    async fn settle(&mut self, digests: &mut Option<Digests>) -> io::Result<()> {
        if let Some(flight) = self.flight.take() {
            let (file, state) = flight.await.map_err(io::Error::other)??;
            self.file = Some(file);
            *digests = Some(state);
        }
        Ok(())
    }

    async fn push(&mut self, digests: &mut Option<Digests>, batch: Vec<Bytes>) -> io::Result<()> {
        self.settle(digests).await?;
        if let (Some(mut file), Some(mut state)) = (self.file.take(), digests.take()) {
            self.flight = Some(spawn_blocking(move || {
                for bytes in batch {
                    state.update(&bytes);
                    file.write_all(&bytes)?;
                }
                Ok((file, state))
            }));
        }
        Ok(())
    }

    async fn finish(
        mut self,
        mut digests: Option<Digests>,
    ) -> io::Result<(File, PathBuf, Digests)> {
        self.settle(&mut digests).await?;
        match (self.file.take(), self.path.0.take(), digests) {
            (Some(file), Some(path), Some(digests)) => Ok((file, path, digests)),
            _ => Err(io::Error::other("the upload lost its file")),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

/// 32 hex digits nobody can guess or steer.
pub(crate) fn random_id() -> String {
    let mut bytes = [0_u8; 16];
    domain::IdGen::fill(&domain::SystemIds, &mut bytes);
    hex::encode(bytes)
}
