//! All records of one kind: a table in memory over sorted runs on disk.
//!
//! Owns spilling, merging and looking up. Invariants: memory stays within the table's limit, the tops of the runs
//! and the shared meter; a record is in the table or in a run at every moment another thread may look; a run that a
//! saved head names is not removed before the next head is in place. It must not know what records mean, beyond the
//! pack number behind the key.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{
    run::{Meter, Run, RunMeta, RunWriter, Scan},
    table::Table,
};

/// More runs than these are merged: every look-up asks each.
const MAX_RUNS: usize = 6;

/// Where runs are written, and what all kinds share.
#[derive(Debug)]
pub(super) struct Yard {
    /// `None`: nothing is written, the table takes all.
    pub folder: Option<PathBuf>,
    /// Runs have names there, for whoever opens them again; else they go with the process.
    pub named: bool,
    pub next: AtomicU64,
    pub meter: Arc<Meter>,
}

impl Yard {
    /// For what nobody opens again: `bytes` for the guides of runs.
    pub fn nameless(folder: Option<&Path>, bytes: usize) -> Self {
        let folder = folder.map(Path::to_path_buf);
        Self { folder, named: false, next: AtomicU64::new(1), meter: Meter::new(bytes) }
    }

    fn writer<const N: usize, const K: usize>(&self, folder: &Path) -> io::Result<RunWriter<N, K>> {
        let number = self.number();
        if self.named {
            RunWriter::create(folder, number)
        } else {
            RunWriter::nameless(folder, number)
        }
    }
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::AcqRel)
    }
}

/// Number of the pack a record is of: the four bytes behind its key.
pub(super) fn pack_of<const N: usize, const K: usize>(record: &[u8; N]) -> u32 {
    record[K..].first_chunk().map_or(u32::MAX, |bytes| u32::from_be_bytes(*bytes))
}

/// Records of `N` bytes, the first `K` of them the key, then four of the pack's number.
pub(super) struct Records<const N: usize, const K: usize> {
    state: RwLock<State<N, K>>,
    yard: Arc<Yard>,
    /// One merge at a time.
    merging: Mutex<()>,
    broken: AtomicBool,
    /// The disk took something no more, and memory takes all from then on.
    full: AtomicBool,
}

struct State<const N: usize, const K: usize> {
    table: Table<N, K>,
    runs: Vec<Arc<Run<N, K>>>,
    /// Merged away, but named by the head on disk.
    replaced: Vec<Arc<Run<N, K>>>,
}

impl<const N: usize, const K: usize> Records<N, K> {
    /// Over the runs of a head; `limit` bytes for the table.
    pub fn open(
        yard: &Arc<Yard>,
        limit: usize,
        folder: &Path,
        runs: &[RunMeta],
    ) -> io::Result<Self> {
        let runs = runs.iter().map(|meta| Run::open(folder, *meta, &yard.meter).map(Arc::new));
        let runs = runs.collect::<io::Result<Vec<_>>>()?;
        let records = Self::empty(yard, limit);
        records.write().runs = runs;
        Ok(records)
    }

    pub fn empty(yard: &Arc<Yard>, limit: usize) -> Self {
        let limit = if yard.folder.is_some() { limit } else { usize::MAX };
        let state = State { table: Table::new(limit), runs: Vec::new(), replaced: Vec::new() };
        Self {
            state: RwLock::new(state),
            yard: Arc::clone(yard),
            merging: Mutex::new(()),
            broken: AtomicBool::new(false),
            full: AtomicBool::new(false),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State<N, K>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn write(&self) -> RwLockWriteGuard<'_, State<N, K>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something could not be written, or read as it was written.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
    pub fn break_by(&self, _error: &io::Error) {
        self.broken.store(true, Ordering::Release);
    }

    /// Adds records. `live` says whose records a merge keeps. A disk that takes nothing costs knowledge, no more.
    pub fn insert(&self, records: impl Iterator<Item = [u8; N]>, live: &dyn Fn(u32) -> bool) {
        let mut state = self.write();
        for record in records {
            if state.table.is_full()
                && let Err(error) = self.spill(&mut state)
            {
                self.refused(&error);
                if self.full.load(Ordering::Acquire) {
                    state.table.unbound();
                }
            }
            state.table.insert(record);
        }
        drop(state);
        if !self.full.load(Ordering::Acquire)
            && let Err(error) = self.merge_while(live, |runs| runs > MAX_RUNS)
        {
            self.refused(&error);
        }
    }

    /// The disk takes nothing more. What nobody could make again stays in memory.
    fn refused(&self, error: &io::Error) {
        if self.yard.named {
            self.break_by(error);
        } else {
            self.full.store(true, Ordering::Release);
        }
    }

    /// Empties the table, into a run if that can be.
    fn spill(&self, state: &mut State<N, K>) -> io::Result<()> {
        let written = self.spill_table(&mut state.table);
        if written.is_ok() || self.yard.named {
            state.table.clear();
        }
        if let Some(run) = written? {
            state.runs.push(Arc::new(run));
        }
        Ok(())
    }

    fn spill_table(&self, table: &mut Table<N, K>) -> io::Result<Option<Run<N, K>>> {
        let Some(folder) = &self.yard.folder else { return Ok(None) };
        if table.len() == 0 {
            return Ok(None);
        }
        let mut writer = self.yard.writer(folder)?;
        for record in table.sort() {
            writer.push(record)?;
        }
        writer.finish(&self.yard.meter).map(Some)
    }

    /// The first record of a key that `fits`. Nothing in a broken index is believed.
    pub fn find<T>(&self, key: &[u8; K], mut fits: impl FnMut(&[u8; N]) -> Option<T>) -> Option<T> {
        if self.is_broken() {
            return None;
        }
        let state = self.read();
        if let Some(found) = state.table.find(key).find_map(&mut fits) {
            return Some(found);
        }
        for run in state.runs.iter().rev() {
            let mut found = None;
            let seen = &mut |record: &[u8; N]| {
                found = fits(record);
                found.is_some()
            };
            if let Err(error) = run.find(key, seen) {
                self.break_by(&error);
                return None;
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Merges the smallest runs while there are too `many`.
    fn merge_while(
        &self,
        live: &dyn Fn(u32) -> bool,
        many: impl Fn(usize) -> bool,
    ) -> io::Result<()> {
        loop {
            let Ok(_merging) = self.merging.try_lock() else { return Ok(()) };
            let runs = self.read().runs.clone();
            if !many(runs.len()) || self.yard.folder.is_none() {
                return Ok(());
            }
            self.replace(&smallest(runs), live)?;
        }
    }

    /// Merges everything into one run and drops what is dead.
    pub fn merge_all(&self, live: &dyn Fn(u32) -> bool) -> io::Result<()> {
        let merging = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = self.read().runs.clone();
        self.replace(&runs, live)?;
        drop(merging);
        Ok(())
    }

    fn replace(&self, old: &[Arc<Run<N, K>>], live: &dyn Fn(u32) -> bool) -> io::Result<()> {
        let Some(folder) = &self.yard.folder else { return Ok(()) };
        let writer = self.yard.writer(folder)?;
        let merged = merge(old, writer, live)?.finish(&self.yard.meter)?;
        let mut state = self.write();
        let numbers: Vec<u64> = old.iter().map(|run| run.meta.number).collect();
        let state = &mut *state;
        state.runs.retain(|run| !numbers.contains(&run.meta.number));
        if merged.meta.records > 0 {
            state.runs.push(Arc::new(merged));
        }
        // Those a head names stay on disk until the next head; the others go when nobody reads them.
        state.replaced.extend(old.iter().cloned());
        state.replaced.retain(|run| run.is_kept());
        Ok(())
    }

    /// Records in runs and table, dead ones among them.
    pub fn count(&self) -> u64 {
        let state = self.read();
        let runs: u64 = state.runs.iter().map(|run| run.meta.records).sum();
        runs + state.table.len() as u64
    }
    /// Bytes of memory held.
    pub fn held(&self) -> usize {
        let state = self.read();
        state.table.held() + state.runs.iter().map(|run| run.held()).sum::<usize>()
    }
    pub fn runs(&self) -> usize {
        self.read().runs.len()
    }

    /// Puts everything into durable runs that stay; gives what the head has to name.
    pub fn settle(&self, live: &dyn Fn(u32) -> bool) -> io::Result<Vec<RunMeta>> {
        if self.is_broken() {
            return Err(io::Error::other("a part of the index was lost"));
        }
        self.spill(&mut self.write())?;
        self.merge_while(live, |runs| runs > MAX_RUNS)?;
        let state = self.read();
        for run in &state.runs {
            run.sync()?;
            run.keep(true);
        }
        Ok(state.runs.iter().map(|run| run.meta).collect())
    }

    /// The head that names only the present runs is in place.
    pub fn settled(&self) {
        for run in std::mem::take(&mut self.write().replaced) {
            run.keep(false);
        }
    }

    /// Writes a table that is not at home anywhere into a folder.
    pub fn export(&self, folder: &Path, number: u64) -> io::Result<Vec<RunMeta>> {
        let state = self.read();
        if !state.runs.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if state.table.len() == 0 {
            return Ok(Vec::new());
        }
        let mut writer = RunWriter::<N, K>::create(folder, number)?;
        for record in &state.table.sorted() {
            writer.push(record)?;
        }
        let run = writer.finish(&self.yard.meter)?;
        run.sync()?;
        run.keep(true);
        Ok(vec![run.meta])
    }
}

/// The runs to merge: the two smallest, and every next one that is not larger than those together.
fn smallest<const N: usize, const K: usize>(mut runs: Vec<Arc<Run<N, K>>>) -> Vec<Arc<Run<N, K>>> {
    runs.sort_by_key(|run| run.meta.records);
    let mut sum = 0;
    let mut taken = 0;
    for run in &runs {
        if taken >= 2 && run.meta.records > sum {
            break;
        }
        sum += run.meta.records;
        taken += 1;
    }
    runs.truncate(taken);
    runs
}

/// Merges runs into one. A group of each is in memory, no more.
fn merge<const N: usize, const K: usize>(
    runs: &[Arc<Run<N, K>>],
    mut out: RunWriter<N, K>,
    live: &dyn Fn(u32) -> bool,
) -> io::Result<RunWriter<N, K>> {
    let mut scans: Vec<Scan<'_, N, K>> = runs.iter().map(|run| Scan::of(run)).collect();
    let mut heads = BinaryHeap::new();
    for (at, scan) in scans.iter_mut().enumerate() {
        heads.extend(scan.next()?.map(|record| Reverse((record, at))));
    }
    let mut last = None;
    while let Some(mut least) = heads.peek_mut() {
        let Reverse((record, at)) = *least;
        match scans[at].next()? {
            Some(next) => *least = Reverse((next, at)),
            None => drop(std::collections::binary_heap::PeekMut::pop(least)),
        }
        if last != Some(record) && live(pack_of::<N, K>(&record)) {
            out.push(&record)?;
        }
        last = Some(record);
    }
    Ok(out)
}
