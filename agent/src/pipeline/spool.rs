//! Sealed packs on their way out: in memory while the network keeps up, else in the journal, as files of the agent's
//! home.
//!
//! Holds ciphertext only. The journal keeps packs out of memory while the network takes its time; a pack goes when the
//! control plane confirmed it. What an interrupted session leaves is worthless to the next one (the session is
//! sealed into every pack) and is removed when the next run begins, so nothing here is forced onto the disk:
//! what is durable is what the store has.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use api::catalog::PackKind;
use md5::{Digest as _, Md5};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vault::{id::Sha256, pack::Pieces};

use super::source::Cache;
use crate::control::Payload;

/// An object waiting to be uploaded.
#[derive(Debug, Clone)]
pub struct Spooled {
    pub payload: Payload,
    pub kind: PackKind,
    pub seq: u64,
    pub sha256: Sha256,
    /// Where the store asks for it.
    pub md5: Option<[u8; 16]>,
    pub length: u64,
    /// Its place in memory, if it is there.
    _room: Option<Arc<OwnedSemaphorePermit>>,
}

/// The journal folder, and room in memory for what need not go there.
#[derive(Debug, Clone)]
pub struct Spool {
    folder: PathBuf,
    with_md5: bool,
    rooms: Arc<Semaphore>,
}

impl Spool {
    /// An emptied journal. The caller holds the run lock.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(folder: &Path) -> io::Result<Self> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                // Not ours; it is in nobody's way.
                tracing::warn!(folder = %entry.path().display(), "a stray folder in the journal");
            } else {
                faults::point("journal: clear")?;
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            with_md5: false,
            rooms: Arc::new(Semaphore::new(0)),
        })
    }

    /// So many objects stay in memory until they are stored; the others go through the journal.
    pub fn with_rooms(mut self, rooms: usize) -> Self {
        self.rooms = Arc::new(Semaphore::new(rooms));
        self
    }

    /// Computes MD5s too, for a store that cannot check SHA-256.
    pub const fn with_md5(mut self, with_md5: bool) -> Self {
        self.with_md5 = with_md5;
        self
    }

    /// Puts an object here until it is stored.
    ///
    /// # Errors
    /// What the system says; a full disk among it.
    pub fn put(
        &self,
        kind: PackKind,
        seq: u64,
        sha256: Sha256,
        bytes: Pieces,
    ) -> io::Result<Spooled> {
        let md5 = self.with_md5.then(|| md5_of(&bytes));
        let length = bytes.len() as u64;
        // The cache takes a metadata pack over as the file it is.
        let rooms = (kind != PackKind::Meta).then(|| self.rooms.clone());
        let room = rooms.and_then(|rooms| rooms.try_acquire_owned().ok()).map(Arc::new);
        let payload = if room.is_some() {
            Payload::Memory(bytes)
        } else {
            let path = self.folder.join(format!("{seq:08}-{}-{sha256}", kind.as_str()));
            faults::point("journal: create")?;
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            faults::write_pieces(
                "journal: write",
                &mut file,
                bytes.iter().map(|piece| &piece[..]),
            )?;
            Payload::File(path)
        };
        Ok(Spooled { payload, kind, seq, sha256, md5, length, _room: room })
    }
}

fn md5_of(bytes: &Pieces) -> [u8; 16] {
    let mut hasher = Md5::new();
    bytes.iter().for_each(|piece| hasher.update(piece));
    hasher.finalize().into()
}

impl Spooled {
    /// The object is stored and confirmed: the copy here has done its work. What the next run can use
    /// of it (all of a metadata pack, the directory of a data pack) stays as a cache; a cache that takes
    /// nothing costs time, not the run.
    ///
    /// # Errors
    /// What the system says.
    pub fn release(&self, cache: &Cache) -> io::Result<()> {
        let kept = match (self.kind, &self.payload) {
            (PackKind::Meta, Payload::File(path)) => cache.adopt(&self.sha256, path),
            (PackKind::Meta, Payload::Memory(bytes)) => cache.keep(&self.sha256, &bytes.joined()),
            (PackKind::Data, Payload::File(path)) => {
                fs::File::open(path).and_then(|mut file| cache.keep_front(&self.sha256, &mut file))
            }
            (PackKind::Data, Payload::Memory(bytes)) => {
                cache.keep_front(&self.sha256, &mut bytes.reader())
            }
            (PackKind::Manifest, _) => Ok(()),
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "the agent's cache cannot be written");
        }
        let Payload::File(path) = &self.payload else { return Ok(()) };
        faults::point("journal: remove")?;
        match fs::remove_file(path) {
            // The cache has taken it over.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A journal, and a cache beside it with its folder.
    fn folders() -> (tempfile::TempDir, PathBuf, Cache, PathBuf) {
        let dir = tempfile::tempdir().expect("tempdir");
        let (journal, folder) = (dir.path().join("journal"), dir.path().join("cache"));
        fs::create_dir(&journal).expect("journal");
        fs::create_dir(&folder).expect("cache");
        (dir, journal, Cache::at(&folder), folder)
    }

    #[test]
    fn a_new_run_clears_what_a_dead_one_left_and_metadata_moves_to_the_cache() {
        let (_dir, journal, cache, _) = folders();
        fs::write(journal.join("left-over"), b"x").expect("write");
        fs::create_dir(journal.join("stray")).expect("stray folder");
        let spool = Spool::start(&journal).expect("start");
        let put = |kind, seq| spool.put(kind, seq, Sha256::of(b"pack"), b"pack".to_vec().into());
        let data = put(PackKind::Data, 1).expect("put");
        let meta = put(PackKind::Meta, 2).expect("put");
        assert_eq!(fs::read_dir(&journal).expect("list").count(), 3);
        data.release(&cache).expect("release");
        meta.release(&cache).expect("release");
        assert_eq!(fs::read_dir(&journal).expect("list").count(), 1);
        assert_eq!(cache.beginning(&Sha256::of(b"pack"), 0..4).as_deref(), Some(&b"pack"[..]));
    }

    #[test]
    fn a_room_is_for_one_pack_until_it_is_dropped_and_never_for_metadata() {
        let (_dir, journal, cache, folder) = folders();
        let spool = Spool::start(&journal).expect("start").with_rooms(1);
        let put = |kind, seq| {
            let bytes = b"pack".to_vec().into();
            spool.put(kind, seq, Sha256::of(b"pack"), bytes).expect("put")
        };
        let in_memory = |pack: &Spooled| matches!(pack.payload, Payload::Memory(_));
        let meta = put(PackKind::Meta, 1);
        let (first, second) = (put(PackKind::Data, 2), put(PackKind::Data, 3));
        assert_eq!([&meta, &first, &second].map(in_memory), [false, true, false]);
        first.release(&cache).expect("releases");
        assert!(fs::read_dir(&folder).expect("list").count() == 1, "its front is kept");
        drop(first);
        assert!(in_memory(&put(PackKind::Data, 4)));
    }

    #[test]
    fn a_cache_that_takes_nothing_costs_no_run() {
        let (dir, journal, ..) = folders();
        let cache = Cache::at(&dir.path().join("no cache here"));
        let spool = Spool::start(&journal).expect("start");
        for (kind, seq) in [(PackKind::Data, 1), (PackKind::Meta, 2)] {
            let bytes = b"pack".to_vec().into();
            let pack = spool.put(kind, seq, Sha256::of(b"pack"), bytes).expect("put");
            pack.release(&cache).expect("release");
        }
        assert_eq!(fs::read_dir(&journal).expect("list").count(), 0);
    }
}
