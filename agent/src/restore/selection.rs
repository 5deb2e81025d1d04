//! What of a snapshot is wanted: everything, what patterns match, or some paths, found without the rest.
//!
//! Owns the order of things: every folder before what lies in it, folders that only lead somewhere right
//! before what they lead to. It must not know the target.

use std::collections::HashMap;

use vault::{
    snapshot::{ReadError, Reader, Walk},
    tree::Entry,
};

use super::RestoreError;
use crate::sources::GlobRules;

/// What is wanted. Patterns and paths are alternatives; nothing of both is everything.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub include: GlobRules,
    /// Without leading slash; with everything below.
    pub paths: Vec<Vec<u8>>,
}

/// Something on the way through a snapshot.
#[derive(Debug)]
pub enum Found {
    /// A folder that was not asked for itself but leads to something that was.
    Leads(Entry),
    Wanted(Entry),
    /// A path that was asked for by its name and is not in the snapshot.
    Missing(Vec<u8>),
    /// A part of the tree is lost, beginning here, or all of the rest.
    Broken(Vec<u8>, ReadError),
}

impl Selection {
    pub fn is_everything(&self) -> bool {
        self.include.is_empty() && self.paths.is_empty()
    }

    /// Calls `each` for everything wanted.
    ///
    /// # Errors
    /// What `each` says, and a snapshot whose tree cannot be read at all.
    pub fn each(
        &self,
        reader: &Reader,
        mut each: impl FnMut(Found) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        if self.paths.is_empty() {
            return self.by_pattern(reader, &mut each);
        }
        let mut paths: Vec<&[u8]> = self.paths.iter().map(Vec::as_slice).collect();
        paths.sort_unstable();
        let mut led: Vec<Vec<u8>> = Vec::new();
        let mut done: Vec<&[u8]> = Vec::new();
        for path in paths {
            let below = |of: &&[u8]| {
                of.is_empty()
                    || path.strip_prefix(*of).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
            };
            if done.iter().any(below) {
                continue;
            }
            let entry = match reader.get(path) {
                Ok(Some(entry)) => entry,
                Ok(None) => {
                    each(Found::Missing(path.to_vec()))?;
                    continue;
                }
                Err(error) if error.is_loss() => {
                    each(Found::Broken(path.to_vec(), error))?;
                    done.push(path);
                    // If it is a folder, what lies in it is elsewhere in the tree.
                    Self::walk(reader.walk(path)?, &mut each)?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            done.push(path);
            for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                let above = path.get(..at).unwrap_or_default();
                if led.iter().all(|known| known != above) {
                    led.push(above.to_vec());
                    match reader.get(above) {
                        Ok(above) => above.map_or(Ok(()), |above| each(Found::Leads(above)))?,
                        Err(error) if error.is_loss() => {
                            each(Found::Broken(above.to_vec(), error))?;
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            let is_dir = entry.is_dir();
            each(Found::Wanted(entry))?;
            if is_dir {
                Self::walk(reader.walk(path)?, &mut each)?;
            }
        }
        Ok(())
    }

    fn walk(
        walk: Walk,
        each: &mut impl FnMut(Found) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        for entry in walk {
            match entry {
                Ok(entry) => each(Found::Wanted(entry))?,
                Err(error) => each(broken(error))?,
            }
        }
        Ok(())
    }

    fn by_pattern(
        &self,
        reader: &Reader,
        each: &mut impl FnMut(Found) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        if self.include.is_empty() {
            return Self::walk(reader.entries()?, each);
        }
        let mut parents = Parents::default();
        for entry in reader.entries()? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    each(broken(error))?;
                    continue;
                }
            };
            if !self.include.matches_with_parents(&entry.path) {
                if entry.is_dir() {
                    parents.remember(entry);
                }
                continue;
            }
            for parent in parents.needed_for(&entry.path) {
                each(Found::Leads(parent))?;
            }
            each(Found::Wanted(entry))?;
        }
        Ok(())
    }
}

fn broken(error: ReadError) -> Found {
    let from = match &error {
        ReadError::Stretch { from, .. } => from.clone(),
        _ => Vec::new(),
    };
    Found::Broken(from, error)
}

/// Folders that were not asked for themselves but may lead to something that is.
#[derive(Default)]
struct Parents {
    seen: HashMap<Vec<u8>, Entry>,
}

impl Parents {
    fn remember(&mut self, entry: Entry) {
        if !entry.path.is_empty() {
            self.seen.insert(entry.path.clone(), entry);
        }
    }
    /// Each at most once, topmost first.
    fn needed_for(&mut self, path: &[u8]) -> Vec<Entry> {
        if self.seen.is_empty() {
            return Vec::new();
        }
        let cuts = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let above = cuts.filter_map(|(at, _)| path.get(..at));
        above.filter_map(|above| self.seen.remove(above)).collect()
    }
}
