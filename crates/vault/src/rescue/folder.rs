//! A plain copy of a bucket: a folder with one file per key.
//!
//! Invariant: only regular files below the folder are read; links, pipes and devices of a prepared copy are not there.

use std::{
    fs, io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{Listed, Objects};
use crate::snapshot::SourceError;

/// Keys have six parts; a copy may lie a little deeper, a trap much deeper.
const MAX_DEPTH: usize = 16;

/// A folder that holds `v1/<tenant>/<vault>/…`.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Reads nothing yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        (key.split('/').all(plain) && !key.contains('\0')).then(|| self.root.join(key))
    }

    fn walk(
        folder: &Path,
        key: &str,
        depth: usize,
        each: &mut dyn FnMut(Listed),
    ) -> Result<(), io::Error> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            // No key of ours is anything else than ASCII.
            let Some(name) = name.to_str() else { continue };
            let key = if key.is_empty() { name.to_owned() } else { format!("{key}/{name}") };
            let kind = entry.file_type()?;
            if kind.is_dir() && depth < MAX_DEPTH {
                Self::walk(&entry.path(), &key, depth + 1, each)?;
            } else if kind.is_file() {
                each(Listed { key, length: entry.metadata()?.len() });
            }
        }
        Ok(())
    }
}

impl Objects for Folder {
    fn list(&self, prefix: &str, each: &mut dyn FnMut(Listed)) -> Result<(), SourceError> {
        let folder = prefix.trim_end_matches('/');
        let start = if folder.is_empty() {
            self.root.clone()
        } else {
            self.path(folder).ok_or(SourceError::Missing)?
        };
        Self::walk(&start, folder, 0, each).map_err(|error| SourceError::Failed(Box::new(error)))
    }

    fn read(&self, key: &str, _: Option<&str>, range: Range<u64>) -> Result<Bytes, SourceError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => SourceError::Missing,
            _ => SourceError::Failed(Box::new(error)),
        };
        let path = self.path(key).ok_or(SourceError::Missing)?;
        let found = path.symlink_metadata().map_err(failed)?;
        if !found.is_file() {
            return Err(SourceError::Missing);
        }
        let length = range.end.saturating_sub(range.start);
        if found.len() < range.end {
            return Err(SourceError::Wrong);
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let file = fs::File::open(path).map_err(failed)?;
        file.read_exact_at(&mut bytes, range.start).map_err(failed)?;
        Ok(bytes.into())
    }
}
