//! The journal: sealed packs on their way out, as files of the agent's home.
//!
//! Holds ciphertext only. It keeps packs out of memory while the network takes its time; a pack goes when the
//! control plane confirmed it. What an interrupted session leaves is worthless to the next one (the session is
//! sealed into every pack) and is removed when the next run begins, so nothing here is forced onto the disk:
//! what is durable is what the store has.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use api::catalog::PackKind;
use md5::{Digest as _, Md5};
use vault::id::Sha256;

use super::source::Cache;

/// An object waiting to be uploaded.
#[derive(Debug, Clone)]
pub struct Spooled {
    pub path: PathBuf,
    pub kind: PackKind,
    pub seq: u64,
    pub sha256: Sha256,
    /// Where the store asks for it.
    pub md5: Option<[u8; 16]>,
    pub length: u64,
}

/// The journal folder.
#[derive(Debug, Clone)]
pub struct Spool {
    folder: PathBuf,
    with_md5: bool,
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
        Ok(Self { folder: folder.to_path_buf(), with_md5: false })
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
        bytes: &[u8],
    ) -> io::Result<Spooled> {
        let path = self.folder.join(format!("{seq:08}-{}-{sha256}", kind.as_str()));
        faults::point("journal: create")?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        faults::write_all("journal: write", &mut file, bytes)?;
        let md5 = self.with_md5.then(|| Md5::digest(bytes).into());
        Ok(Spooled { path, kind, seq, sha256, md5, length: bytes.len() as u64 })
    }
}

impl Spooled {
    /// The object is stored and confirmed: the copy here has done its work. What the next run can use
    /// of it (all of a metadata pack, the directory of a data pack) stays as a cache; a cache that takes
    /// nothing costs time, not the run.
    ///
    /// # Errors
    /// What the system says.
    pub fn release(&self, cache: &Cache) -> io::Result<()> {
        let kept = match self.kind {
            PackKind::Meta => cache.adopt(&self.sha256, &self.path),
            PackKind::Data => cache.keep_front(&self.sha256, &self.path),
            PackKind::Manifest => Ok(()),
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "the agent's cache cannot be written");
        }
        faults::point("journal: remove")?;
        match fs::remove_file(&self.path) {
            // The cache has taken it over.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_run_clears_what_a_dead_one_left_and_metadata_moves_to_the_cache() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (journal, folder) = (dir.path().join("journal"), dir.path().join("cache"));
        fs::create_dir(&journal).expect("journal");
        fs::create_dir(&folder).expect("cache");
        let cache = Cache::at(&folder);
        fs::write(journal.join("left-over"), b"x").expect("write");
        fs::create_dir(journal.join("stray")).expect("stray folder");
        let spool = Spool::start(&journal).expect("start");
        let put = |kind, seq| spool.put(kind, seq, Sha256::of(b"pack"), b"pack");
        let data = put(PackKind::Data, 1).expect("put");
        let meta = put(PackKind::Meta, 2).expect("put");
        assert_eq!(fs::read_dir(&journal).expect("list").count(), 3);
        data.release(&cache).expect("release");
        meta.release(&cache).expect("release");
        assert_eq!(fs::read_dir(&journal).expect("list").count(), 1);
        assert_eq!(cache.beginning(&Sha256::of(b"pack"), 0..4).as_deref(), Some(&b"pack"[..]));
    }

    #[test]
    fn a_cache_that_takes_nothing_costs_no_run() {
        let dir = tempfile::tempdir().expect("tempdir");
        let journal = dir.path().join("journal");
        fs::create_dir(&journal).expect("journal");
        let cache = Cache::at(&dir.path().join("no cache here"));
        let spool = Spool::start(&journal).expect("start");
        for (kind, seq) in [(PackKind::Data, 1), (PackKind::Meta, 2)] {
            let pack = spool.put(kind, seq, Sha256::of(b"pack"), b"pack").expect("put");
            pack.release(&cache).expect("release");
        }
        assert_eq!(fs::read_dir(&journal).expect("list").count(), 0);
    }
}
