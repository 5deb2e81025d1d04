//! The snapshots there are, and open ones.
//!
//! Owns the names by date and a bounded number of open readers. Invariant: a name means the same snapshot as long as
//! the file system is mounted. It must not know inodes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use domain::{SnapshotId, Timestamp};
use vault::snapshot::{ReadError, Reader};

/// Readers kept open; each may hold decoded metadata of its own.
const OPEN: usize = 6;
/// How old the list of snapshots may be.
const FRESH: Duration = Duration::from_secs(15);

/// A snapshot by its date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dated {
    pub id: SnapshotId,
    pub committed_at: Timestamp,
}

/// Snapshots cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LibraryError(pub String);

/// Where snapshots come from. Blocking; called from several threads.
pub trait Library: Send + Sync {
    /// All there are, newest first.
    ///
    /// # Errors
    /// When they cannot be asked for.
    fn list(&self) -> Result<Vec<Dated>, LibraryError>;
    /// One of them, open for reading.
    ///
    /// # Errors
    /// When it cannot be had or believed.
    fn open(&self, id: SnapshotId) -> Result<Arc<Reader>, LibraryError>;
}

/// An open snapshot.
pub struct Volume {
    pub id: SnapshotId,
    pub reader: Arc<Reader>,
    links: OnceLock<HashMap<u64, u32>>,
    /// Held by who counts them: one walk is enough.
    counting: Mutex<()>,
}

impl Volume {
    /// Names of the file of this group within the snapshot. Counted once, by a walk over all entries.
    pub fn names(&self, link: u64) -> Result<u32, ReadError> {
        if let Some(links) = self.links.get() {
            return Ok(links.get(&link).copied().unwrap_or(1));
        }
        let _turn = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(links) = self.links.get() {
            return Ok(links.get(&link).copied().unwrap_or(1));
        }
        let mut links: HashMap<u64, u32> = HashMap::new();
        for entry in self.reader.entries()? {
            match entry {
                Ok(entry) => entry.hardlink.into_iter().for_each(|group| {
                    *links.entry(group).or_default() += 1;
                }),
                // Names that cannot be listed cannot be counted.
                Err(error) if error.is_loss() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.links.get_or_init(|| links).get(&link).copied().unwrap_or(1))
    }
}

#[derive(Default)]
struct State {
    /// By name, in order of the names.
    names: Vec<(Vec<u8>, Dated)>,
    asked: Option<Instant>,
    /// The most recently used last.
    open: Vec<Arc<Volume>>,
}

/// The library with its names and open snapshots.
pub struct Shelf {
    library: Box<dyn Library>,
    state: Mutex<State>,
}

impl Shelf {
    pub fn new(library: Box<dyn Library>) -> Self {
        Self { library, state: Mutex::default() }
    }

    /// Name and snapshot, in order of the names. An old list is asked for anew; where that fails it stands.
    pub fn names(&self) -> Result<Vec<(Vec<u8>, Dated)>, LibraryError> {
        {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.asked.is_some_and(|asked| asked.elapsed() < FRESH) {
                return Ok(state.names.clone());
            }
        }
        let listed = self.library.list();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match listed {
            Ok(listed) => name_all(&mut state.names, listed),
            Err(error) if state.asked.is_none() => return Err(error),
            Err(error) => tracing::warn!(%error, "the list of snapshots is not the newest"),
        }
        state.asked = Some(Instant::now());
        Ok(state.names.clone())
    }

    /// The newest, by its date and not by its name.
    pub fn latest(&self) -> Result<Option<Vec<u8>>, LibraryError> {
        let names = self.names()?;
        let newest = names.into_iter().max_by_key(|(_, dated)| (dated.committed_at, dated.id));
        Ok(newest.map(|(name, _)| name))
    }

    pub fn open(&self, id: SnapshotId) -> Result<Arc<Volume>, LibraryError> {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = state.open.iter().position(|volume| volume.id == id) {
                let volume = state.open.remove(at);
                state.open.push(Arc::clone(&volume));
                return Ok(volume);
            }
        }
        // Two threads may both open it; the second one's is dropped.
        let reader = self.library.open(id)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(volume) = state.open.iter().find(|volume| volume.id == id) {
            return Ok(Arc::clone(volume));
        }
        let volume =
            Arc::new(Volume { id, reader, links: OnceLock::new(), counting: Mutex::default() });
        state.open.push(Arc::clone(&volume));
        if state.open.len() > OPEN {
            state.open.remove(0);
        }
        Ok(volume)
    }
}

/// Gives names to what has none yet and drops what is gone. The second of one second gets a number.
fn name_all(names: &mut Vec<(Vec<u8>, Dated)>, mut listed: Vec<Dated>) {
    names.retain(|(_, known)| listed.contains(known));
    listed.sort_by_key(|dated| (dated.committed_at, dated.id));
    for dated in listed {
        if names.iter().any(|(_, known)| *known == dated) {
            continue;
        }
        let plain = date_name(dated.committed_at);
        let mut name = plain.clone();
        let mut number = 2_u32;
        while names.iter().any(|(taken, _)| taken == name.as_bytes()) {
            name = format!("{plain}-{number}");
            number += 1;
        }
        names.push((name.into_bytes(), dated));
    }
    names.sort();
}

/// `2026-11-22T10-30-00Z`: a date without what file names dislike.
fn date_name(time: Timestamp) -> String {
    let text = time.to_string();
    let seconds = text.split(['.', 'Z']).next().unwrap_or(&text);
    format!("{}Z", seconds.replace(':', "-"))
}

impl PartialOrd for Dated {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Dated {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.committed_at, self.id).cmp(&(other.committed_at, other.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dated(id: u8, secs: i64) -> Dated {
        let committed_at = Timestamp::from_unix_secs(secs).expect("a time");
        Dated { id: SnapshotId::from_bytes([id; 16]), committed_at }
    }

    #[test]
    fn snapshots_are_named_by_their_second_and_keep_their_names() {
        let mut names = Vec::new();
        let first = dated(1, 1_795_343_400);
        name_all(&mut names, vec![first.clone(), dated(2, 1_795_343_460)]);
        let spelled = |names: &[(Vec<u8>, Dated)]| -> Vec<String> {
            names.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
        };
        assert_eq!(spelled(&names), ["2026-11-22T10-30-00Z", "2026-11-22T10-31-00Z"]);
        name_all(&mut names, vec![dated(0, 1_795_343_400), first, dated(2, 1_795_343_460)]);
        let all = ["2026-11-22T10-30-00Z", "2026-11-22T10-30-00Z-2", "2026-11-22T10-31-00Z"];
        assert_eq!(spelled(&names), all);
        assert_eq!(names[1].1, dated(0, 1_795_343_400));
        name_all(&mut names, vec![dated(0, 1_795_343_400)]);
        assert_eq!(spelled(&names), ["2026-11-22T10-30-00Z-2"]);
    }
}
