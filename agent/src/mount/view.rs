//! A file system's questions, answered from snapshots.
//!
//! Owns what a name, an attribute and a byte are; it knows places, not how requests arrive. Invariant: the same
//! question has the same answer as long as the file system is mounted, but for the list of snapshots.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use domain::SnapshotId;
use vault::{
    snapshot::ReadError,
    tree::{Entry, EntryKind, FileTime, path},
};

use super::{
    content::{self, Bytes, Seek},
    frames::Loader,
    library::{Library, LibraryError, Shelf, Volume},
    nodes::Place,
};
use crate::{output::plain, sources::display_path};

/// Entries kept decoded.
const ENTRIES: usize = 8_192;
/// Unreadable files told once each, as many as this.
const TOLD: usize = 10_000;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    NotFound,
    NotAFolder,
    NotALink,
    NotAFile,
    NoAttribute,
    /// Nothing there to seek.
    Beyond,
    /// It could not be read or believed. It was logged.
    Unreadable,
}

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Folder,
    Link,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

impl Kind {
    const fn of(kind: &EntryKind) -> Self {
        match kind {
            EntryKind::File { .. } => Self::File,
            EntryKind::Directory => Self::Folder,
            EntryKind::Symlink { .. } => Self::Link,
            EntryKind::Fifo => Self::Fifo,
            EntryKind::Socket => Self::Socket,
            EntryKind::CharDevice { .. } => Self::CharDevice,
            EntryKind::BlockDevice { .. } => Self::BlockDevice,
        }
    }
}

/// What `stat` says, but for the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    pub kind: Kind,
    pub size: u64,
    /// Bytes that are not holes.
    pub allocated: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub names: u32,
    pub mtime: FileTime,
    pub ctime: FileTime,
    pub atime: FileTime,
    /// Of a device: major and minor.
    pub device: (u32, u32),
}

/// One entry of a folder.
pub struct Listed {
    pub name: Vec<u8>,
    pub kind: Kind,
    pub place: Place,
    pub entry: Option<Arc<Entry>>,
}

/// A part of a folder.
pub struct Page {
    pub entries: Vec<Listed>,
    /// Between, before or behind them others are lost.
    pub lost: bool,
}

/// All of a mounted file system but the mounting.
pub struct View {
    shelf: Shelf,
    /// One snapshot as the root, or all by date.
    only: Option<SnapshotId>,
    loader: Arc<Loader>,
    entries: Mutex<Entries>,
    told: Mutex<Vec<(SnapshotId, Vec<u8>)>>,
}

type Named = (SnapshotId, Vec<u8>);

/// Decoded entries by place, the oldest going first.
#[derive(Default)]
struct Entries {
    known: HashMap<Named, Arc<Entry>>,
    order: VecDeque<Named>,
}

impl Entries {
    fn insert(&mut self, snapshot: SnapshotId, entry: &Arc<Entry>) {
        let named = (snapshot, entry.path.clone());
        if self.known.insert(named.clone(), Arc::clone(entry)).is_some() {
            return;
        }
        self.order.push_back(named);
        if self.order.len() > ENTRIES
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// The place of an entry.
fn place_of(snapshot: SnapshotId, entry: &Entry) -> Place {
    // Folders have one name each, whatever an entry says.
    let link = entry.hardlink.filter(|_| !entry.is_dir());
    Place::Entry { snapshot, path: entry.path.clone(), link }
}

fn below(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

impl View {
    /// `only`: this snapshot as the root; otherwise all of them by date.
    pub fn new(library: Box<dyn Library>, only: Option<SnapshotId>) -> Self {
        Self {
            shelf: Shelf::new(library),
            only,
            loader: Loader::start(),
            entries: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// What the root is.
    pub fn root(&self) -> Place {
        match self.only {
            None => Place::Shelf,
            Some(snapshot) => Place::Entry { snapshot, path: Vec::new(), link: None },
        }
    }

    /// Fails early when there is nothing to show.
    ///
    /// # Errors
    /// When the snapshots, or the only one, cannot be had.
    pub fn check(&self) -> Result<usize, LibraryError> {
        match self.only {
            None => Ok(self.shelf.names()?.len()),
            Some(id) => self.shelf.open(id).map(|_| 1),
        }
    }

    fn told_by_library<T>(&self, result: Result<T, LibraryError>) -> Result<T, Trouble> {
        result.map_err(|error| {
            tracing::error!(%error, "a snapshot cannot be read");
            Trouble::Unreadable
        })
    }

    fn volume(&self, id: SnapshotId) -> Result<Arc<Volume>, Trouble> {
        self.told_by_library(self.shelf.open(id))
    }

    /// Logs what could not be read, once per place.
    fn unreadable(&self, snapshot: SnapshotId, path: &[u8], error: &ReadError) -> Trouble {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let named = (snapshot, path.to_vec());
        if !told.contains(&named) && told.len() < TOLD {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::error!(
                %snapshot,
                path = plain(&display_path(path)),
                %error,
                cause,
                "cannot be read; programs are told of an input/output error"
            );
            told.push(named);
        }
        Trouble::Unreadable
    }

    /// The entry at a path; the root of a snapshot may have none.
    fn entry(&self, snapshot: SnapshotId, path: &[u8]) -> Result<Option<Arc<Entry>>, Trouble> {
        {
            let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = entries.known.get(&(snapshot, path.to_vec())) {
                return Ok(Some(Arc::clone(entry)));
            }
        }
        if path::key(path).is_err() {
            // No snapshot can have such a name.
            return Ok(None);
        }
        let found = self.volume(snapshot)?.reader.get(path);
        let found = found.map_err(|error| self.unreadable(snapshot, path, &error))?.map(Arc::new);
        if let Some(entry) = &found {
            self.keep(snapshot, entry);
        }
        Ok(found)
    }

    fn keep(&self, snapshot: SnapshotId, entry: &Arc<Entry>) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).insert(snapshot, entry);
    }

    /// What is called `name` in a folder.
    pub fn lookup(&self, folder: &Place, name: &[u8]) -> Result<Listed, Trouble> {
        match folder {
            Place::Latest => Err(Trouble::NotAFolder),
            Place::Shelf => {
                let all = self.shelf_entries()?;
                all.into_iter().find(|listed| listed.name == name).ok_or(Trouble::NotFound)
            }
            Place::Entry { snapshot, path, .. } => {
                let entry = self.entry(*snapshot, &below(path, name))?.ok_or(Trouble::NotFound)?;
                Ok(listed(*snapshot, entry))
            }
        }
    }

    fn shelf_entries(&self) -> Result<Vec<Listed>, Trouble> {
        let names = self.told_by_library(self.shelf.names())?;
        let link = (!names.is_empty()).then(|| Listed {
            name: b"latest".to_vec(),
            kind: Kind::Link,
            place: Place::Latest,
            entry: None,
        });
        let folders = names.into_iter().map(|(name, dated)| Listed {
            name,
            kind: Kind::Folder,
            place: Place::Entry { snapshot: dated.id, path: Vec::new(), link: None },
            entry: None,
        });
        Ok(folders.chain(link).collect())
    }

    /// Up to `most` entries of a folder whose names come after `after`, in order; fewer only at its end.
    pub fn page(&self, folder: &Place, after: Option<&[u8]>, most: usize) -> Result<Page, Trouble> {
        match folder {
            Place::Latest => Err(Trouble::NotAFolder),
            Place::Shelf => {
                let all = self.shelf_entries()?;
                let rest = all
                    .into_iter()
                    .filter(|listed| after.is_none_or(|after| listed.name.as_slice() > after));
                Ok(Page { entries: rest.take(most).collect(), lost: false })
            }
            Place::Entry { snapshot, path, .. } => {
                let told = |error: &ReadError| self.unreadable(*snapshot, path, error);
                let volume = self.volume(*snapshot)?;
                let mut page = Page { entries: Vec::new(), lost: false };
                for entry in volume.reader.list_dir(path, after).map_err(|error| told(&error))? {
                    match entry {
                        Ok(entry) => page.entries.push(listed(*snapshot, Arc::new(entry))),
                        Err(error @ ReadError::Stretch { .. }) => {
                            told(&error);
                            page.lost = true;
                        }
                        Err(error) => return Err(told(&error)),
                    }
                    if page.entries.len() == most {
                        break;
                    }
                }
                Ok(page)
            }
        }
    }

    /// What `stat` says of a place; of what was just listed, without looking it up again.
    pub fn attributes(
        &self,
        place: &Place,
        listed: Option<&Listed>,
    ) -> Result<Attributes, Trouble> {
        let (snapshot, path) = match place {
            Place::Shelf => return Ok(made_up(Kind::Folder, 0, FileTime::default())),
            Place::Latest => {
                let target = self.readlink(place)?;
                return Ok(made_up(Kind::Link, target.len() as u64, FileTime::default()));
            }
            Place::Entry { snapshot, path, .. } => (*snapshot, path),
        };
        let entry = match listed.and_then(|listed| listed.entry.as_ref()) {
            Some(entry) => Some(Arc::clone(entry)),
            // The list of snapshots opens none of them.
            None if path.is_empty() && listed.is_some() => None,
            None => self.entry(snapshot, path)?,
        };
        let Some(entry) = entry else {
            if path.is_empty() {
                return Ok(made_up(Kind::Folder, 0, self.date(snapshot)));
            }
            return Err(Trouble::NotFound);
        };
        if listed.is_some() {
            self.keep(snapshot, &entry);
        }
        let names = match entry.hardlink {
            Some(link) if !entry.is_dir() => {
                let counted = self.volume(snapshot)?.names(link);
                counted.map_err(|error| self.unreadable(snapshot, path, &error))?
            }
            _ => 1,
        };
        Ok(attributes(&entry, names))
    }

    fn date(&self, snapshot: SnapshotId) -> FileTime {
        let names = self.shelf.names().unwrap_or_default();
        let dated = names.iter().find(|(_, dated)| dated.id == snapshot);
        let secs = dated.map_or(0, |(_, dated)| dated.committed_at.unix_secs());
        FileTime { secs, nanos: 0 }
    }

    pub fn readlink(&self, place: &Place) -> Result<Vec<u8>, Trouble> {
        match place {
            Place::Shelf => Err(Trouble::NotALink),
            Place::Latest => self.told_by_library(self.shelf.latest())?.ok_or(Trouble::NotFound),
            Place::Entry { snapshot, path, .. } => {
                match &self.entry(*snapshot, path)?.ok_or(Trouble::NotALink)?.kind {
                    EntryKind::Symlink { target } => Ok(target.clone()),
                    _ => Err(Trouble::NotALink),
                }
            }
        }
    }

    fn found(&self, place: &Place) -> Result<Option<Arc<Entry>>, Trouble> {
        match place {
            Place::Entry { snapshot, path, .. } => self.entry(*snapshot, path),
            Place::Shelf | Place::Latest => Ok(None),
        }
    }

    /// The value of an extended attribute.
    pub fn xattr(&self, place: &Place, name: &[u8]) -> Result<Vec<u8>, Trouble> {
        let entry = self.found(place)?.ok_or(Trouble::NoAttribute)?;
        let found = entry.xattrs.iter().find(|xattr| xattr.name == name);
        found.map(|xattr| xattr.value.clone()).ok_or(Trouble::NoAttribute)
    }

    /// The names of all extended attributes, each followed by a zero byte.
    pub fn xattr_names(&self, place: &Place) -> Result<Vec<u8>, Trouble> {
        let mut names = Vec::new();
        for xattr in self.found(place)?.iter().flat_map(|entry| &entry.xattrs) {
            names.extend_from_slice(&xattr.name);
            names.push(0);
        }
        Ok(names)
    }

    fn file(&self, place: &Place) -> Result<(Arc<Entry>, Arc<Volume>), Trouble> {
        let Place::Entry { snapshot, path, .. } = place else { return Err(Trouble::NotAFile) };
        let entry = self.entry(*snapshot, path)?.filter(|entry| entry.is_file());
        Ok((entry.ok_or(Trouble::NotAFile)?, self.volume(*snapshot)?))
    }

    /// Bytes of a file; fewer than `length` only at its end.
    pub fn read(&self, place: &Place, offset: u64, length: u32) -> Result<Bytes, Trouble> {
        let (entry, volume) = self.file(place)?;
        let frames = volume.reader.frames();
        let bytes = content::read(&self.loader, frames, &entry, offset, length.into());
        bytes.map_err(|error| self.unreadable(volume.id, &entry.path, &error))
    }

    /// Where data or a hole begins.
    pub fn seek(&self, place: &Place, offset: u64, what: Seek) -> Result<u64, Trouble> {
        let (entry, volume) = self.file(place)?;
        let found = content::seek(volume.reader.frames(), &entry, offset, what);
        let found = found.map_err(|error| self.unreadable(volume.id, &entry.path, &error))?;
        found.ok_or(Trouble::Beyond)
    }

    /// Bytes and entries of the only snapshot; nothing is known of all together.
    pub fn extent(&self) -> (u64, u64) {
        let Some(only) = self.only else { return (0, 0) };
        let summary = self.volume(only).ok().and_then(|volume| volume.reader.summary().ok());
        summary.map_or((0, 0), |summary| {
            (summary.source_bytes, summary.files + summary.directories + summary.others)
        })
    }
}

fn listed(snapshot: SnapshotId, entry: Arc<Entry>) -> Listed {
    Listed {
        name: entry.name().to_vec(),
        kind: Kind::of(&entry.kind),
        place: place_of(snapshot, &entry),
        entry: Some(entry),
    }
}

/// Of what no snapshot has an entry for.
const fn made_up(kind: Kind, size: u64, time: FileTime) -> Attributes {
    let mode = if matches!(kind, Kind::Link) { 0o777 } else { 0o555 };
    Attributes {
        kind,
        size,
        allocated: 0,
        mode,
        uid: 0,
        gid: 0,
        names: 1,
        mtime: time,
        ctime: time,
        atime: time,
        device: (0, 0),
    }
}

fn attributes(entry: &Entry, names: u32) -> Attributes {
    let size = match &entry.kind {
        EntryKind::Symlink { target } => target.len() as u64,
        _ => entry.size(),
    };
    let device = match entry.kind {
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            (major, minor)
        }
        _ => (0, 0),
    };
    Attributes {
        kind: Kind::of(&entry.kind),
        size,
        allocated: content::allocated(entry),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        names,
        mtime: entry.mtime,
        ctime: entry.ctime.unwrap_or(entry.mtime),
        atime: entry.atime.unwrap_or(entry.mtime),
        device,
    }
}
