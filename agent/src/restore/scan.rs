//! The way through the snapshot: folders are made, small things put in their places, pieces of files named.
//!
//! Runs beside the threads that read and write (`content`), and waits when they cannot follow. Invariant: memory
//! does not depend on how much is wanted: what comes later is in [`Spill`]s.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use vault::{
    restore::{Feed, Want},
    snapshot::{FilePiece, PieceSource, ReadError, Reader},
    tree::Entry,
};

use super::{
    Action, Order, Overwrite, Planned, Problem, ProblemKind, RestoreError, Work,
    compare::is_same,
    content::{self, Base, Crew, Job, open_base},
    finish,
    marker::{self, Leavings, sweep},
    place::{CREATE, Objection, Place, decide, verdict},
    problem,
    safe_root::{Access, Folder, Refused, Replace, SafeRoot, split},
    selection::Found,
    spill::Spill,
    told,
};
use crate::sources::{Kind, Stat, display_path};

/// Pieces compared side by side.
const COMPARED: usize = 2_048;

/// The work that is left when everything was named.
#[derive(Default)]
pub struct Scanned {
    /// Folders to finish, every one before what lies in it; marked if their metadata is to be set, because they are
    /// ours or existing ones give way.
    pub folders: Spill,
    pub directories: u64,
    /// Further names of hard links, with their group.
    pub later: Spill,
    pub kept: u64,
    pub others: u64,
    /// Entries that were asked for.
    pub matched: u64,
}

/// An entry to come back to, with a number for why.
pub struct Due {
    pub entry: Entry,
    pub mark: u64,
}

impl Due {
    fn encode(&self) -> Vec<u8> {
        let mut record = self.mark.to_le_bytes().to_vec();
        record.extend_from_slice(&(self.entry.path.len() as u64).to_le_bytes());
        record.extend_from_slice(&self.entry.path);
        record.extend_from_slice(&self.entry.encode());
        record
    }
    pub fn decode(record: &[u8]) -> Option<Self> {
        let (mark, rest) = record.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (path, value) = rest.split_at_checked(length)?;
        let mark = u64::from_le_bytes(*mark);
        Some(Self { entry: Entry::decode(path.to_vec(), value).ok()?, mark })
    }
}

type Wants<'f, 's, 'c> = Feed<'f, 's, Arc<Job>, Crew<'c>>;

/// A part of a file whose content is compared before it is wanted.
struct Compare {
    job: Arc<Job>,
    pieces: Vec<FilePiece>,
    /// Nothing of the file comes after it.
    failure: Option<Option<String>>,
}

/// Goes through the snapshot.
struct Planner<'a, 'f, 's, 'c> {
    work: &'c Work<'c>,
    crew: &'a Crew<'c>,
    feed: &'a mut Wants<'f, 's, 'c>,
    scanned: Scanned,
    compares: Vec<Compare>,
    compared: usize,
    /// Topmost folders that were made now: nothing is in them or below them.
    fresh: HashSet<Vec<u8>>,
    /// The folder of the entry before, and whether it is fresh.
    above: (Vec<u8>, bool),
}

/// Said of a path that was asked for.
const MISSING: &str = "it is not in the snapshot under this name";

/// Said of a name that would not stay in the target either.
const LEAVING: &str =
    "an interrupted restore had left this in the folder that was backed up; it is nobody's file";

/// Names everything the order wants.
///
/// # Errors
/// A snapshot that cannot be read at all, or a cancel.
pub fn scan<'c>(
    work: &'c Work<'c>,
    order: &Order,
    crew: &Crew<'c>,
    feed: &mut Wants<'_, '_, 'c>,
) -> Result<Scanned, RestoreError> {
    let mut planner = Planner {
        work,
        crew,
        feed,
        scanned: Scanned::default(),
        compares: Vec::new(),
        compared: 0,
        fresh: HashSet::new(),
        above: (Vec::new(), false),
    };
    let mut broken = None;
    order.selection().each(work.reader, |found| {
        if work.is_stopped() {
            return Err(RestoreError::Canceled);
        }
        match found {
            Found::Leads(entry) => planner.folder(entry),
            Found::Wanted(entry) => planner.wanted(entry),
            Found::Missing(path) => work.confess(&path, ProblemKind::NotRestored, MISSING),
            // What can be listed is still restored.
            Found::Broken(path, error) => {
                work.confess(&path, ProblemKind::Unlisted, told(&error));
                broken = Some(error);
            }
        }
        Ok(())
    })?;
    planner.compare_all();
    let scanned = planner.scanned;
    match broken {
        Some(error) if scanned.matched == 0 => Err(error.into()),
        _ => Ok(scanned),
    }
}

impl Planner<'_, '_, '_, '_> {
    fn wanted(&mut self, entry: Entry) {
        self.scanned.matched += 1;
        // The target itself keeps its own metadata: it is the user's folder.
        if entry.path.is_empty() {
            return;
        }
        if marker::is_leaving(entry.name()) {
            return self.work.confess(&entry.path, ProblemKind::NotRestored, LEAVING);
        }
        if entry.is_dir() { self.folder(entry) } else { self.place(entry) }
    }

    /// Whether nothing can be in the folder but what this restore puts there.
    fn is_fresh(&mut self, folder: &[u8]) -> bool {
        if self.above.0 != folder {
            let cuts = folder.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            let mut above = cuts.filter_map(|(at, _)| folder.get(..at)).chain([folder]);
            let fresh = !self.fresh.is_empty() && above.any(|above| self.fresh.contains(above));
            self.above = (folder.to_vec(), fresh);
        }
        self.above.1
    }

    fn folder(&mut self, entry: Entry) {
        let work = self.work;
        match self.make_folder(&entry.path) {
            Ok(existing) => {
                let apply = existing.as_ref().is_none_or(|there| gives_way(work, &entry, there));
                if let Some(there) = existing.filter(|_| !apply)
                    && !same_rights(&entry, &there)
                    && !work.only_leads_to_a_source(&entry.path)
                {
                    self.scanned.kept += 1;
                    let detail =
                        "the existing folder's mode or owner differ and were kept; see --overwrite";
                    work.confess(&entry.path, ProblemKind::Kept, detail);
                }
                self.scanned.directories += 1;
                self.scanned.folders.push(&Due { entry, mark: apply.into() }.encode());
            }
            Err(refused) => work.confess(&entry.path, ProblemKind::NotRestored, refused),
        }
    }

    /// What was there; `None` when the folder was made.
    fn make_folder(&mut self, path: &[u8]) -> Result<Option<Stat>, Refused> {
        let (above, name) = split(path)?;
        let is_fresh = self.is_fresh(above);
        let seat = self.work.seats.at(above)?;
        if !seat.folder.add_folder(name)? {
            let existing = seat.folder.stat(name)?;
            match existing.as_ref().map(|stat| stat.kind) {
                Some(Kind::Directory) => {
                    if self.work.resumed {
                        let _ = sweep(&seat.folder.make_folder(name)?, Leavings::Temporaries);
                    }
                    return Ok(existing);
                }
                Some(_) if self.work.overwrite == Overwrite::Always => seat.folder.remove(name)?,
                Some(_) => return Err(Refused::NotAFolder),
                None => {}
            }
            seat.folder.make_folder(name)?;
        }
        if !is_fresh {
            self.fresh.insert(path.to_vec());
        }
        Ok(None)
    }

    fn place(&mut self, entry: Entry) {
        match self.look(&entry) {
            Ok(Place { action: Action::Keep, same, .. }) => {
                self.scanned.kept += 1;
                // Only what is the snapshot's file may lend its content to the other names.
                if let Some(group) = entry.hardlink.filter(|_| same) {
                    self.work.links.keep(group, entry.path);
                }
            }
            Ok(place) => {
                let later = entry.hardlink.filter(|group| !self.work.links.begin(*group));
                match later {
                    Some(mark) => self.scanned.later.push(&Due { entry, mark }.encode()),
                    None if entry.is_file() => self.file(entry, place.base),
                    None => self.node(&entry),
                }
            }
            Err(Objection::Different(detail)) => {
                self.scanned.kept += 1;
                self.work.confess(&entry.path, ProblemKind::Kept, detail);
            }
            Err(Objection::Refused(refused)) => {
                self.work.confess(&entry.path, ProblemKind::NotRestored, refused);
            }
        }
    }

    fn look(&mut self, entry: &Entry) -> Result<Place, Objection> {
        let (above, name) = split(&entry.path)?;
        if self.is_fresh(above) {
            return Ok(CREATE);
        }
        let seat = self.work.seats.at(above)?;
        let existing = match seat.folder.stat(name)? {
            // Not when another restore is alive: it may be changing it this moment.
            None if entry.is_file() && self.work.resumed => give_back(&seat.folder, name)?,
            existing => existing,
        };
        let mut place = match existing {
            Some(existing) => decide(self.work.overwrite, entry, &existing)?,
            None => CREATE,
        };
        if place.action == Action::Create && self.work.resumed && entry.is_file() {
            let name = marker::part(name);
            let part = seat.folder.stat(&name)?;
            let ours = |part: &Stat| {
                part.kind == Kind::File
                    && part.links == 1
                    && part.uid == rustix::process::geteuid().as_raw()
            };
            place.base = part.filter(ours).map(|part| Base {
                name,
                identity: part.identity(),
                size: part.size,
                is_part: true,
            });
        }
        // What cannot be changed can still be replaced.
        place.base.take_if(|base| open_base(&seat, base, Access::Write).is_err());
        Ok(place)
    }

    fn node(&mut self, entry: &Entry) {
        match finish::node(self.work, entry) {
            Ok(identity) => {
                self.scanned.others += 1;
                if let Some(group) = entry.hardlink {
                    self.work.links.made(group, entry.path.clone(), identity);
                }
            }
            Err(failure) => self.work.confess(&entry.path, ProblemKind::NotRestored, failure),
        }
    }

    fn file(&mut self, mut entry: Entry, base: Option<Base>) {
        // Names of owners are not restored: numbers are.
        (entry.user, entry.group) = (None, None);
        let own = entry.bundled();
        let has_base = base.is_some();
        let job = Job::new(entry, base);
        let (mut at, mut waiting) = (0, Vec::new());
        let named = self.work.reader.pieces::<ReadError>(&job.entry, |piece| {
            at = piece.offset + piece.length;
            if has_base {
                waiting.push(piece);
                if waiting.len() >= COMPARED {
                    self.later(&job, std::mem::take(&mut waiting), None);
                }
            } else {
                self.want(&job, &piece, own);
            }
            Ok(())
        });
        let failure = named.err().and_then(|error| {
            if self.work.zero_damaged {
                self.crew.lost(&job, at, job.entry.size().saturating_sub(at), &error);
                return None;
            }
            Some(error.to_string())
        });
        if has_base {
            self.later(&job, waiting, Some(failure));
        } else {
            self.crew.planned(&job, failure);
        }
    }

    fn want(&mut self, job: &Arc<Job>, piece: &FilePiece, own: Option<vault::id::FileId>) {
        let PieceSource::Frame { kind, id, at } = piece.from else { return };
        let Ok(length) = u32::try_from(piece.length) else {
            return self.crew.lost(job, piece.offset, piece.length, &ReadError::WrongContent);
        };
        self.work.figures.bytes_total.fetch_add(piece.length, Ordering::Relaxed);
        job.expect();
        let to = Arc::clone(job);
        self.feed.push(Want { to, offset: piece.offset, length, at, kind, id, own });
    }

    fn later(&mut self, job: &Arc<Job>, pieces: Vec<FilePiece>, failure: Option<Option<String>>) {
        self.compared += pieces.len() + 1;
        self.compares.push(Compare { job: Arc::clone(job), pieces, failure });
        if self.compared >= COMPARED {
            self.compare_all();
        }
    }

    /// Compares side by side what waits for it, and wants what differs.
    fn compare_all(&mut self) {
        let compares = std::mem::take(&mut self.compares);
        self.compared = 0;
        if compares.is_empty() {
            return;
        }
        let (work, threads) = (self.work, self.work.limits.workers.max(1));
        let share = compares.len().div_ceil(threads);
        let differing: Vec<Vec<FilePiece>> = std::thread::scope(|scope| {
            let compared: Vec<_> = compares
                .chunks(share)
                .map(|share| scope.spawn(|| share.iter().map(|one| differ(work, one)).collect()))
                .collect();
            let joined = compared.into_iter().map(|one| one.join().unwrap_or_default());
            joined.flat_map(|differing: Vec<Vec<FilePiece>>| differing).collect()
        });
        for (Compare { job, failure, .. }, pieces) in compares.into_iter().zip(differing) {
            let own = job.entry.bundled();
            for piece in pieces {
                match piece.from {
                    PieceSource::Hole => self.crew.punch(&job, piece.offset, piece.length),
                    PieceSource::Frame { .. } => self.want(&job, &piece, own),
                }
            }
            if let Some(failure) = failure {
                self.crew.planned(&job, failure);
            }
        }
    }
}

/// What an interrupted restore was changing gets its name back, with a time that nobody takes for finished; from here on
/// it is a file as any other.
fn give_back(folder: &Folder, name: &[u8]) -> Result<Option<Stat>, Refused> {
    let aside = marker::aside(name);
    if folder.stat(&aside)?.is_none_or(|stat| stat.kind != Kind::File) {
        return Ok(None);
    }
    let handle = folder.open_file(&aside, Access::Read)?;
    content::unfinished(&handle)?;
    folder.rename(&aside, name, Replace::Never)?;
    folder.stat(name)
}

/// The pieces of which the target has something else.
fn differ(work: &Work<'_>, compare: &Compare) -> Vec<FilePiece> {
    let Compare { job, pieces, .. } = compare;
    let open = || {
        let base = job.base.as_ref()?;
        let (above, _) = split(&job.entry.path).ok()?;
        open_base(&*work.seats.at(above).ok()?, base, Access::Read).ok()
    };
    let Some(file) = open() else { return pieces.clone() };
    let (own, ids) = (job.entry.bundled(), work.reader.frames().ids());
    let size = job.base.as_ref().map_or(0, |base| base.size);
    // A small file is all of its content, and a longer one is another.
    if own.is_some() && size != job.entry.size() {
        return pieces.clone();
    }
    let mut buffer = Vec::new();
    let mut differing = pieces.clone();
    differing.retain(|piece| {
        let same = !work.is_stopped() && is_same(&file, piece, own, ids, &mut buffer);
        if same {
            work.figures.matched.fetch_add(piece.length, Ordering::Relaxed);
        }
        !same
    });
    differing
}

/// Whether an existing folder gets the snapshot's metadata.
fn gives_way(work: &Work<'_>, entry: &Entry, there: &Stat) -> bool {
    // What an interrupted restore made is private still, or has its mode but perhaps not its times.
    let ours = there.mode & 0o777 == 0o700 || there.mode == entry.mode;
    work.overwrite != Overwrite::Never || (work.resumed && ours)
}

/// Times say nothing: whoever puts something into a folder changes them. Only root can give owners back.
fn same_rights(entry: &Entry, there: &Stat) -> bool {
    let owned = (entry.uid, entry.gid) == (there.uid, there.gid);
    entry.mode == there.mode && (owned || !rustix::process::geteuid().is_root())
}

/// The same decisions without doing anything.
pub fn preview(
    reader: &Reader,
    order: &Order,
    root: Option<&SafeRoot>,
    mut each: impl FnMut(Planned),
) -> Result<Vec<Problem>, RestoreError> {
    let (mut found_any, mut problems, mut broken) = (false, Vec::new(), None);
    order.selection().each(reader, |found| {
        let entry = match found {
            Found::Wanted(entry) if !entry.path.is_empty() => entry,
            Found::Broken(path, error) if error.is_loss() => {
                problems.push(problem(&path, ProblemKind::Unlisted, told(&error)));
                broken = Some(error);
                return Ok(());
            }
            Found::Broken(_, error) => return Err(error.into()),
            Found::Missing(path) => {
                problems.push(problem(&path, ProblemKind::NotRestored, MISSING));
                return Ok(());
            }
            Found::Wanted(_) | Found::Leads(_) => return Ok(()),
        };
        let action = match root {
            None => Ok(Action::Create),
            Some(root) if entry.is_dir() => Ok(match root.folder(&entry.path) {
                Ok(_) => Action::Keep,
                Err(_) => Action::Create,
            }),
            Some(root) => verdict(root, order.overwrite, &entry).map(|place| place.action),
        };
        let path = display_path(&entry.path);
        found_any = true;
        match action {
            Ok(action) => each(Planned { path, action, size: entry.size() }),
            Err(Objection::Different(detail)) => {
                each(Planned { path, action: Action::Keep, size: entry.size() });
                problems.push(problem(&entry.path, ProblemKind::Kept, detail));
            }
            Err(Objection::Refused(refused)) => {
                problems.push(problem(&entry.path, ProblemKind::NotRestored, refused));
            }
        }
        Ok(())
    })?;
    match broken {
        Some(error) if !found_any => return Err(error.into()),
        None if !found_any && !order.selection().is_everything() => {
            return Err(RestoreError::NothingMatches);
        }
        _ => {}
    }
    Ok(problems)
}
