//! Lists of a folder that may be longer than memory: its names in order, and its folders for later.
//!
//! Invariants: what was put in comes out, each name once, or an error says that the rest cannot be had; at most
//! [`SEGMENT`] bytes of a list are in memory, and [`READ`] of every run, while a temporary file can be had; without one
//! it grows in memory.

use std::{
    cmp::Reverse, collections::BinaryHeap, fs::File, io, os::unix::fs::FileExt as _, sync::Arc,
};

use crate::scratch::Scratch;

/// What is sorted at once: some eighty thousand names of usual length.
const SEGMENT: usize = 4 << 20;
/// What is read at once of a run.
const READ: usize = 16 << 10;

/// Names as they come.
#[derive(Default)]
pub(super) struct Lister {
    bytes: Vec<u8>,
    /// Where each name begins and ends.
    spans: Vec<(usize, usize)>,
    runs: Vec<(u64, u64)>,
    scratch: Scratch,
}

impl Lister {
    pub fn push(&mut self, name: &[u8]) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.spans.push((at, self.bytes.len()));
        let held = self.bytes.len() + self.spans.len() * size_of::<(usize, usize)>();
        if held >= SEGMENT && !self.scratch.is_stuck() {
            self.spill();
        }
    }

    fn sort(&mut self) {
        let name = |span: &(usize, usize)| self.bytes.get(span.0..span.1);
        self.spans.sort_unstable_by(|a, b| name(a).cmp(&name(b)));
        // A folder changed while listed may show a name twice; a key is written once.
        self.spans.dedup_by(|a, b| name(a) == name(b));
    }

    fn spill(&mut self) {
        self.sort();
        let mut run = Vec::with_capacity(self.bytes.len() + self.spans.len() * 4);
        for (from, to) in &self.spans {
            put(&mut run, self.bytes.get(*from..*to).unwrap_or_default());
        }
        if let Some(range) = self.scratch.write(&run) {
            self.runs.push(range);
            self.bytes.clear();
            self.spans.clear();
        }
    }

    /// The names, in order.
    pub fn sorted(mut self) -> Listing {
        self.sort();
        let file = self.scratch.into_file().0.map(Arc::new);
        let runs = self.runs.into_iter().map(|range| Records::of(file.clone(), range)).collect();
        let Self { bytes, spans, .. } = self;
        Listing { bytes, spans: spans.into_iter(), runs, heads: None, last: Vec::new() }
    }
}

/// The next name of each run, with the run's number.
type Heads = BinaryHeap<Reverse<(Vec<u8>, usize)>>;

/// Names in order.
pub(super) struct Listing {
    bytes: Vec<u8>,
    spans: std::vec::IntoIter<(usize, usize)>,
    runs: Vec<Records>,
    /// What is in memory is the last run. `None` before the first name was asked for.
    heads: Option<Heads>,
    last: Vec<u8>,
}

impl Listing {
    /// These, in this order.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut lister = Lister::default();
        names.into_iter().for_each(|name| lister.push(name));
        lister.sorted()
    }

    fn in_memory(&mut self) -> Option<Vec<u8>> {
        let Some((from, to)) = self.spans.next() else {
            // Whoever holds the list goes on to what is below.
            self.bytes = Vec::new();
            return None;
        };
        self.bytes.get(from..to).map(<[u8]>::to_vec)
    }

    fn step(&mut self, run: usize) -> io::Result<Option<Vec<u8>>> {
        match self.runs.get_mut(run) {
            Some(run) => run.next(),
            None => Ok(self.in_memory()),
        }
    }

    /// The next name.
    ///
    /// # Errors
    /// When the temporary file cannot be read; the rest is lost then.
    pub fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.runs.is_empty() {
            return Ok(self.in_memory());
        }
        // Left empty when a read fails: no name comes after that.
        let mut heads = match self.heads.replace(Heads::new()) {
            Some(heads) => heads,
            None => self.first()?,
        };
        while let Some(Reverse((name, run))) = heads.pop() {
            heads.extend(self.step(run)?.map(|name| Reverse((name, run))));
            if name != self.last {
                self.last.clone_from(&name);
                self.heads = Some(heads);
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn first(&mut self) -> io::Result<Heads> {
        let mut heads = Heads::new();
        for run in 0..=self.runs.len() {
            heads.extend(self.step(run)?.map(|name| Reverse((name, run))));
        }
        Ok(heads)
    }
}

/// Records in order of arrival: first all are put in, then all are taken out.
#[derive(Default)]
pub(super) struct Later {
    bytes: Vec<u8>,
    scratch: Scratch,
    out: Option<(Records, Records)>,
}

impl Later {
    pub fn push(&mut self, record: &[u8]) {
        put(&mut self.bytes, record);
        if self.bytes.len() >= SEGMENT && self.scratch.write(&self.bytes).is_some() {
            self.bytes.clear();
        }
    }

    /// The next record.
    ///
    /// # Errors
    /// When the temporary file cannot be read; the rest is lost then.
    pub fn pop(&mut self) -> io::Result<Option<Vec<u8>>> {
        let (first, rest) = self.out.get_or_insert_with(|| {
            let (file, end) = std::mem::take(&mut self.scratch).into_file();
            let rest = Records { buffer: std::mem::take(&mut self.bytes), ..Records::default() };
            (Records::of(file.map(Arc::new), (0, end)), rest)
        });
        match first.next()? {
            None => rest.next(),
            some => Ok(some),
        }
    }
}

fn put(out: &mut Vec<u8>, record: &[u8]) {
    out.extend_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(record);
}

/// Records of a stretch of a file, one after the other.
#[derive(Default)]
struct Records {
    file: Option<Arc<File>>,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl Records {
    const fn of(file: Option<Arc<File>>, (at, end): (u64, u64)) -> Self {
        Self { file, at, end, buffer: Vec::new(), used: 0 }
    }

    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.used == self.buffer.len() && self.at == self.end {
            return Ok(None);
        }
        let length = self.take(4)?.first_chunk().copied().map(u32::from_le_bytes);
        let length = length.ok_or(io::ErrorKind::InvalidData)? as usize;
        Ok(Some(self.take(length)?.to_vec()))
    }

    fn take(&mut self, length: usize) -> io::Result<&[u8]> {
        if self.buffer.len() - self.used < length {
            self.buffer.drain(..self.used);
            self.used = 0;
            let had = self.buffer.len();
            let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
            let more = READ.max(length - had).min(left);
            self.buffer.resize(had + more, 0);
            if let Some(file) = &self.file {
                let read = file.read_exact_at(&mut self.buffer[had..], self.at);
                if read.is_err() {
                    // The rest is lost; what is in the buffer is no record.
                    self.buffer.clear();
                    self.at = self.end;
                }
                read?;
            }
            self.at += more as u64;
        }
        let from = self.used;
        self.used += length;
        self.buffer.get(from..self.used).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In no order, some of them twice.
    fn name(n: u64) -> Vec<u8> {
        format!("{:020}-{}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15), n % 7).into_bytes()
    }

    #[test]
    fn names_come_back_in_order_and_once_however_many_there_are() {
        for count in [0, 1, 1_000, 400_000] {
            let mut lister = Lister::default();
            for n in 0..count {
                lister.push(&name(n));
                if n % 1_000 == 5 {
                    lister.push(&name(n / 2));
                }
            }
            assert_eq!(lister.runs.is_empty(), count < 100_000);
            let mut listing = lister.sorted();
            let mut wanted: Vec<_> = (0..count).map(name).collect();
            wanted.sort_unstable();
            let found: Vec<_> = std::iter::from_fn(|| listing.next().expect("reads")).collect();
            assert!(found == wanted, "{} of {count}", found.len());
            assert!(listing.next().expect("reads").is_none());
        }
    }

    #[test]
    fn a_list_that_cannot_be_read_back_says_so_once() {
        let mut lister = Lister::default();
        (0..200_000).for_each(|n| lister.push(&name(n)));
        if let Some(file) = lister.scratch.file() {
            file.set_len(1 << 20).expect("cut off");
        }
        let mut listing = lister.sorted();
        let failed = (0..200_001).map(|_| listing.next()).find_map(Result::err).expect("told");
        assert_eq!(failed.kind(), io::ErrorKind::UnexpectedEof);
        assert!(listing.next().expect("no more").is_none());
    }

    #[test]
    fn what_is_for_later_and_cannot_be_read_back_says_so_once() {
        let mut later = Later::default();
        (0..300_000).for_each(|n| later.push(&name(n)));
        if let Some(file) = later.scratch.file() {
            file.set_len(1 << 20).expect("cut off");
        }
        let mut sound = 0;
        while later.pop().is_ok() {
            sound += 1;
        }
        assert!((10_000..300_000).contains(&sound), "{sound} before the end");
        assert!((0..100).all(|_| later.pop().expect("told once").is_none_or(|one| one.len() > 20)));
    }

    #[test]
    fn without_a_file_all_stay_in_memory() {
        let mut lister = Lister { scratch: Scratch::none(), ..Lister::default() };
        (0..200_000).for_each(|n| lister.push(&name(n)));
        let mut listing = lister.sorted();
        assert_eq!(std::iter::from_fn(|| listing.next().expect("reads")).count(), 200_000);
    }

    #[test]
    fn what_is_for_later_comes_in_the_order_it_came() {
        for count in [0, 3, 300_000] {
            let mut later = Later::default();
            (0..count).for_each(|n| later.push(&name(n)));
            assert_eq!(later.scratch.file().is_some(), count > 100_000);
            for n in 0..count {
                assert!(later.pop().expect("reads") == Some(name(n)));
            }
            assert!(later.pop().expect("reads").is_none());
        }
    }
}
