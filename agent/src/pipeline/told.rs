//! Lists for people that may be long: all are counted, the first are kept, beyond that every one is in a file.
//!
//! Invariant: nothing told is lost (R12): it is in memory, in the file, or, when the file cannot be written, in the
//! log.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write as _},
    ops::Deref,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::Serialize;

/// So many are kept in memory.
pub const KEPT: usize = 10_000;

/// A list being told.
#[derive(Debug)]
pub struct Telling<T> {
    told: Told<T>,
    keep: usize,
    /// Where the whole list goes when it gets long.
    path: Option<PathBuf>,
    out: Option<BufWriter<File>>,
}

/// A list as it was told; derefs to its first [`KEPT`].
#[derive(Debug, Clone)]
pub struct Told<T> {
    first: Vec<T>,
    count: u64,
    file: Option<PathBuf>,
}

impl<T> Default for Telling<T> {
    fn default() -> Self {
        let told = Told { first: Vec::new(), count: 0, file: None };
        Self { told, keep: KEPT, path: None, out: None }
    }
}

impl<T: Serialize> Telling<T> {
    /// All are kept, for whoever has to go through them.
    pub fn in_memory() -> Self {
        Self { keep: usize::MAX, ..Self::default() }
    }

    /// A long list is written to `path`, a line of JSON each; one of an earlier run is removed.
    pub fn to(path: &Path) -> Self {
        // What cannot be removed is replaced or told about when there is something to write.
        if faults::point("home: remove a list").is_ok() {
            drop(std::fs::remove_file(path));
        }
        Self { path: Some(path.to_path_buf()), ..Self::default() }
    }

    pub fn push(&mut self, item: T) {
        self.told.count += 1;
        if self.told.first.len() < self.keep {
            self.told.first.push(item);
            return;
        }
        if let Err(error) = self.write(&item) {
            let item = serde_json::to_string(&item).unwrap_or_default();
            tracing::warn!(%error, item, "a list of this run cannot be written to its file");
        }
    }

    fn write(&mut self, item: &T) -> io::Result<()> {
        if self.out.is_none() {
            let path = self.path.take().ok_or(io::ErrorKind::NotFound)?;
            let mut options = OpenOptions::new();
            faults::point("home: create a list")?;
            let file = options.write(true).create_new(true).mode(0o600).open(&path)?;
            let mut out = BufWriter::new(file);
            for item in &self.told.first {
                line(&mut out, item)?;
            }
            (self.out, self.told.file) = (Some(out), Some(path));
        }
        self.out.as_mut().map_or(Ok(()), |out| line(out, item))
    }

    /// The list is whole.
    pub fn finish(mut self) -> Told<T> {
        if let Some(Err(error)) = self.out.as_mut().map(BufWriter::flush) {
            tracing::warn!(%error, "the end of a list of this run could not be written to its file");
        }
        self.told
    }
}

fn line(out: &mut impl io::Write, item: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, item)?;
    out.write_all(b"\n")
}

impl<T> Told<T> {
    /// How many there are, kept here or not.
    pub const fn count(&self) -> u64 {
        self.count
    }
    /// The file with all of them, if they are more than are kept.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
    /// The first ones.
    pub fn into_first(self) -> Vec<T> {
        self.first
    }
}

impl<T> Deref for Told<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_whole_in_its_file_and_short_in_memory() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("list.jsonl");
        for (count, named) in [(KEPT + 1_500, true), (KEPT, false), (0, false)] {
            let mut telling = Telling::to(&path);
            (0..count).for_each(|n| telling.push(n));
            let told = telling.finish();
            assert_eq!((told.count(), told.len()), (count as u64, count.min(KEPT)));
            assert_eq!((told.file().is_some(), path.exists()), (named, named));
            if let Some(file) = told.file() {
                let text = std::fs::read_to_string(file).expect("reads");
                assert!(text.lines().enumerate().all(|(n, line)| line == n.to_string()));
                assert_eq!(text.lines().count(), count);
            }
        }
    }

    #[test]
    fn a_list_without_a_file_counts_on() {
        let mut telling = Telling::to(Path::new("/nonexistent-home/list.jsonl"));
        (0..KEPT + 3).for_each(|n| telling.push(n));
        let told = telling.finish();
        assert_eq!((told.count(), told.len(), told.file()), (KEPT as u64 + 3, KEPT, None));
    }
}
