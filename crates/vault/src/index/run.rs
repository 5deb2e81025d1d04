//! A sorted run: an immutable file of records of one size, found by reading two pages.
//!
//! Groups of one guide page and up to 32 data pages, 4 KiB each, then the top. The guide has first key and check of
//! its data pages, and a Bloom filter of their records; the top, which is all that opening reads, first key and
//! check of every guide. Invariant: no byte of a page is looked at before its check was compared, and the checks
//! hang on the top's hash, which the head of the index names. Read by `pread`: a file cut short is an error here,
//! not a signal.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

const PAGE: usize = 4096;
/// Data pages of a group.
const FAN: usize = 32;
/// First key and check of a page.
const FENCE: usize = 16;
const FILTER_AT: usize = FAN * FENCE;
const FILTER_BITS: u32 = ((PAGE - FILTER_AT) * 8) as u32;
/// Probes per key; about ten bits a record.
const PROBES: u32 = 6;

type Page = [u8; PAGE];

/// What the head says of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunMeta {
    /// Names the file.
    pub number: u64,
    pub records: u64,
    pub top_hash: [u8; 32],
}

/// Memory that guides may hold, over all runs.
#[derive(Debug)]
pub(super) struct Meter {
    free: AtomicUsize,
}

impl Meter {
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { free: AtomicUsize::new(bytes) })
    }
    fn take(&self, bytes: usize) -> bool {
        let less = |free: usize| free.checked_sub(bytes);
        self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }
    fn give(&self, bytes: usize) {
        self.free.fetch_add(bytes, Ordering::AcqRel);
    }
}

#[derive(Debug, Clone, Copy)]
struct Fence {
    first: u64,
    check: u64,
}

impl Fence {
    fn of(key: &[u8], page: &[u8]) -> Self {
        Self { first: number(key), check: check(page) }
    }
    fn read(bytes: &[u8]) -> Self {
        Self { first: number(bytes), check: number(bytes.get(8..).unwrap_or_default()) }
    }
    fn write(self, out: &mut [u8]) {
        out[..8].copy_from_slice(&self.first.to_be_bytes());
        out[8..16].copy_from_slice(&self.check.to_be_bytes());
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
fn check(page: &[u8]) -> u64 {
    number(blake3::hash(page).as_bytes())
}

/// Where the bits of a key are. Ids are keyed hashes: their own bytes are as good as any hash of them.
fn bits(key: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let hash = number(key.get(8..).unwrap_or_default());
    let (first, step) = ((hash >> 32) as u32, hash as u32 | 1);
    (0..PROBES).map(move |probe| {
        let bit = first.wrapping_add(step.wrapping_mul(probe)) % FILTER_BITS;
        (FILTER_AT + bit as usize / 8, 1 << (bit % 8))
    })
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the index is damaged")
}

/// Name of a run in the folder of the index.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:016x}.run")
}

/// What stays behind is removed when the index is opened next.
fn remove(run: Option<&Path>) {
    if let Some(path) = run
        && faults::point("index: remove a run").is_ok()
    {
        drop(std::fs::remove_file(path));
    }
}

/// An open run.
pub(super) struct Run<const N: usize, const K: usize> {
    pub meta: RunMeta,
    file: File,
    path: Option<PathBuf>,
    top: Vec<Fence>,
    guides: Vec<OnceLock<Box<Page>>>,
    meter: Arc<Meter>,
    /// Whether a head names it; else the file goes with this.
    keep: AtomicBool,
}

impl<const N: usize, const K: usize> Drop for Run<N, K> {
    fn drop(&mut self) {
        let kept = self.guides.iter().filter(|guide| guide.get().is_some()).count();
        self.meter.give(kept * PAGE);
        if !self.keep.load(Ordering::Acquire) {
            remove(self.path.as_deref());
        }
    }
}

impl<const N: usize, const K: usize> Run<N, K> {
    const PER_PAGE: usize = PAGE / N;

    /// Opens a run that a head names.
    pub fn open(folder: &Path, meta: RunMeta, meter: &Arc<Meter>) -> io::Result<Self> {
        let path = folder.join(file_name(meta.number));
        let file = File::open(&path)?;
        let pages = meta.records.div_ceil(Self::PER_PAGE as u64);
        let groups = pages.div_ceil(FAN as u64);
        let top_at = pages.checked_add(groups).and_then(|all| all.checked_mul(PAGE as u64));
        let top_at = top_at.ok_or_else(damaged)?;
        if file.metadata()?.len() != top_at + groups * FENCE as u64 {
            return Err(damaged());
        }
        let length = usize::try_from(groups).map_err(|_| damaged())? * FENCE;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, top_at)?;
        if *blake3::hash(&bytes).as_bytes() != meta.top_hash {
            return Err(damaged());
        }
        let top: Vec<Fence> = bytes.chunks_exact(FENCE).map(Fence::read).collect();
        Ok(Self::with(meta, file, Some(path), top, Arc::clone(meter), true))
    }

    fn with(
        meta: RunMeta,
        file: File,
        path: Option<PathBuf>,
        top: Vec<Fence>,
        meter: Arc<Meter>,
        keep: bool,
    ) -> Self {
        let mut guides = Vec::new();
        guides.resize_with(top.len(), OnceLock::new);
        Self { meta, file, path, top, guides, meter, keep: AtomicBool::new(keep) }
    }

    /// The file stays when this goes, or not.
    pub fn keep(&self, keep: bool) {
        self.keep.store(keep, Ordering::Release);
    }
    pub fn is_kept(&self) -> bool {
        self.keep.load(Ordering::Acquire)
    }
    /// Makes the file durable.
    pub fn sync(&self) -> io::Result<()> {
        faults::point("index: fsync of a run")?;
        self.file.sync_all()
    }
    /// Bytes of memory held.
    pub fn held(&self) -> usize {
        let kept = self.guides.iter().filter(|guide| guide.get().is_some()).count();
        kept * PAGE
            + self.top.capacity() * size_of::<Fence>()
            + self.guides.capacity() * size_of::<OnceLock<Box<Page>>>()
    }

    /// Shows every record of a key to `seen` until it says that it is content.
    pub fn find(&self, key: &[u8; K], seen: &mut dyn FnMut(&[u8; N]) -> bool) -> io::Result<()> {
        let wanted = number(key);
        let mut group = self.top.partition_point(|fence| fence.first < wanted).saturating_sub(1);
        while self.top.get(group).is_some_and(|fence| fence.first <= wanted) {
            if let Some(guide) = self.guides[group].get() {
                if self.find_in(group, guide, key, seen)? {
                    return Ok(());
                }
            } else {
                let guide = self.page(group * (FAN + 1), self.top[group].check)?;
                let content = self.find_in(group, &guide, key, seen)?;
                if self.meter.take(PAGE) && self.guides[group].set(guide).is_err() {
                    self.meter.give(PAGE);
                }
                if content {
                    return Ok(());
                }
            }
            group += 1;
        }
        Ok(())
    }

    fn find_in(
        &self,
        group: usize,
        guide: &Page,
        key: &[u8; K],
        seen: &mut dyn FnMut(&[u8; N]) -> bool,
    ) -> io::Result<bool> {
        if bits(key).any(|(byte, bit)| guide[byte] & bit == 0) {
            return Ok(false);
        }
        let wanted = number(key);
        let fences = || guide[..FILTER_AT].chunks_exact(FENCE).map(Fence::read);
        let pages = self.pages_of(group);
        let before = fences().take(pages).take_while(|fence| fence.first < wanted).count();
        let first = before.saturating_sub(1);
        for (at, fence) in fences().enumerate().take(pages).skip(first) {
            if fence.first > wanted {
                break;
            }
            let page = self.page(group * (FAN + 1) + 1 + at, fence.check)?;
            let count = self.records_of(group * FAN + at);
            let mut low = 0;
            let mut high = count;
            while low < high {
                let middle = usize::midpoint(low, high);
                if page[middle * N..middle * N + K] < key[..] {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            let here = page[low * N..count * N].as_chunks::<N>().0;
            for record in here.iter().take_while(|record| record[..K] == *key) {
                if seen(record) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Data pages of a group.
    fn pages_of(&self, group: usize) -> usize {
        let pages = self.meta.records.div_ceil(Self::PER_PAGE as u64);
        let before = (group * FAN) as u64;
        usize::try_from(pages.saturating_sub(before).min(FAN as u64)).unwrap_or(FAN)
    }
    /// Records of a data page.
    fn records_of(&self, page: usize) -> usize {
        let before = (page * Self::PER_PAGE) as u64;
        let rest = self.meta.records.saturating_sub(before).min(Self::PER_PAGE as u64);
        usize::try_from(rest).unwrap_or(0)
    }

    fn page(&self, at: usize, expected: u64) -> io::Result<Box<Page>> {
        let mut page = Box::new([0; PAGE]);
        self.file.read_exact_at(&mut page[..], (at * PAGE) as u64)?;
        if check(&page[..]) == expected { Ok(page) } else { Err(damaged()) }
    }
}

/// Reads a run from front to back, a group at a time.
pub(super) struct Scan<'a, const N: usize, const K: usize> {
    run: &'a Run<N, K>,
    group: usize,
    /// Pages of the group, without its guide, and the record that comes next.
    data: Vec<u8>,
    page: usize,
    record: usize,
}

impl<'a, const N: usize, const K: usize> Scan<'a, N, K> {
    pub const fn of(run: &'a Run<N, K>) -> Self {
        Self { run, group: 0, data: Vec::new(), page: 0, record: 0 }
    }

    /// The next record in order.
    pub fn next(&mut self) -> io::Result<Option<[u8; N]>> {
        let per_page = Run::<N, K>::PER_PAGE;
        loop {
            if self.page * PAGE < self.data.len() {
                let number = (self.group - 1) * FAN + self.page;
                if self.record < self.run.records_of(number) {
                    let at = self.page * PAGE + self.record * N;
                    self.record += 1;
                    return Ok(self.data[at..].first_chunk().copied());
                }
                debug_assert!(self.record <= per_page);
                (self.page, self.record) = (self.page + 1, 0);
            } else if self.group < self.run.top.len() {
                self.read_group()?;
            } else {
                return Ok(None);
            }
        }
    }

    fn read_group(&mut self) -> io::Result<()> {
        let at = self.group * (FAN + 1);
        let guide = self.run.page(at, self.run.top[self.group].check)?;
        let pages = self.run.pages_of(self.group);
        self.data.resize(pages * PAGE, 0);
        self.run.file.read_exact_at(&mut self.data, ((at + 1) * PAGE) as u64)?;
        let fences = guide[..FILTER_AT].chunks_exact(FENCE).map(Fence::read);
        let mut checked = self.data.chunks_exact(PAGE).zip(fences);
        if checked.any(|(page, fence)| check(page) != fence.check) {
            return Err(damaged());
        }
        (self.group, self.page, self.record) = (self.group + 1, 0, 0);
        Ok(())
    }
}

/// Writes a run from sorted records.
pub(super) struct RunWriter<const N: usize, const K: usize> {
    file: File,
    path: Option<PathBuf>,
    number: u64,
    records: u64,
    guide: Box<Page>,
    data: Vec<u8>,
    /// Records of the last page in `data`.
    filled: usize,
    /// First key of the last page.
    first: u64,
    top: Vec<Fence>,
    done: bool,
}

impl<const N: usize, const K: usize> Drop for RunWriter<N, K> {
    fn drop(&mut self) {
        if !self.done {
            remove(self.path.as_deref());
        }
    }
}

impl<const N: usize, const K: usize> RunWriter<N, K> {
    pub fn create(folder: &Path, number: u64) -> io::Result<Self> {
        let path = folder.join(file_name(number));
        let mut options = OpenOptions::new();
        faults::point("index: create a run")?;
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self::to(file, Some(path), number))
    }

    /// A run that nobody else opens.
    pub fn nameless(folder: &Path, number: u64) -> io::Result<Self> {
        Ok(Self::to(super::nameless(folder)?, None, number))
    }

    fn to(file: File, path: Option<PathBuf>, number: u64) -> Self {
        Self {
            file,
            path,
            number,
            records: 0,
            guide: Box::new([0; PAGE]),
            data: Vec::with_capacity(PAGE * FAN),
            filled: 0,
            first: 0,
            top: Vec::new(),
            done: false,
        }
    }

    /// Adds a record; not smaller than the one before.
    pub fn push(&mut self, record: &[u8; N]) -> io::Result<()> {
        if self.filled == Run::<N, K>::PER_PAGE {
            self.end_page();
            if self.data.len() == PAGE * FAN {
                self.end_group()?;
            }
        }
        if self.filled == 0 {
            self.first = number(record);
        }
        self.data.extend_from_slice(record);
        self.filled += 1;
        self.records += 1;
        for (byte, bit) in bits(&record[..K]) {
            self.guide[byte] |= bit;
        }
        Ok(())
    }

    fn end_page(&mut self) {
        if self.filled == 0 {
            return;
        }
        let end = self.data.len().next_multiple_of(PAGE);
        self.data.resize(end, 0);
        let number = end / PAGE - 1;
        let fence = Fence { first: self.first, check: check(&self.data[end - PAGE..]) };
        fence.write(&mut self.guide[number * FENCE..(number + 1) * FENCE]);
        self.filled = 0;
    }

    fn end_group(&mut self) -> io::Result<()> {
        if self.data.is_empty() {
            return Ok(());
        }
        self.top.push(Fence::of(&self.guide[..8], &self.guide[..]));
        faults::write_all("index: run: write", &mut self.file, &self.guide[..])?;
        faults::write_all("index: run: write", &mut self.file, &self.data)?;
        self.guide.fill(0);
        self.data.clear();
        Ok(())
    }

    /// The run, open; its file goes with it until it is kept.
    pub fn finish(mut self, meter: &Arc<Meter>) -> io::Result<Run<N, K>> {
        self.end_page();
        self.end_group()?;
        let mut top = vec![0; self.top.len() * FENCE];
        for (fence, out) in self.top.iter().zip(top.chunks_exact_mut(FENCE)) {
            fence.write(out);
        }
        faults::write_all("index: run: write", &mut self.file, &top)?;
        let top_hash = *blake3::hash(&top).as_bytes();
        let meta = RunMeta { number: self.number, records: self.records, top_hash };
        let file = self.file.try_clone()?;
        self.done = true;
        let fences = std::mem::take(&mut self.top);
        Ok(Run::with(meta, file, self.path.take(), fences, Arc::clone(meter), false))
    }
}
