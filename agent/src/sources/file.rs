//! One open file: its data extents, read once, never further than it was long when opened.
//!
//! Holes are found with `SEEK_HOLE`/`SEEK_DATA` and never read. A file that grows while read ends at
//! the size seen at open; one that shrinks ends early. [`OpenFile::verdict`] says which it was.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
};

use domain::Timestamp;
use rustix::{
    fs::{SeekFrom, fstat, seek},
    io::Errno,
};

use super::meta::Stat;

/// A stretch of data, in bytes from the start of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
}

/// What became of a file while it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Steady,
    Changed,
    /// Its coarse time stamp is so fresh that a change could hide behind it.
    Unsure,
    Shrank,
}

/// A file opened for backup. As [`Read`], it yields its data extents back to back.
#[derive(Debug)]
pub struct OpenFile {
    handle: File,
    stat: Stat,
    extents: Vec<Extent>,
    current: usize,
    /// Bytes read of the current extent.
    within: u64,
    ended_early: bool,
}

impl OpenFile {
    /// Takes an open handle and its stat; asks for holes when there can be any.
    ///
    /// # Errors
    /// What the system says to a seek.
    pub fn new(handle: File, stat: Stat) -> Result<Self, Errno> {
        let extents = if stat.may_have_holes() {
            data_extents(&handle, stat.size)?
        } else {
            whole(stat.size)
        };
        Ok(Self { handle, stat, extents, current: 0, within: 0, ended_early: false })
    }

    /// Where there is data; the rest, up to the size at open, is holes.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }
    /// As seen at open.
    pub const fn stat(&self) -> &Stat {
        &self.stat
    }
    /// True when the file has at least one hole.
    pub fn is_sparse(&self) -> bool {
        self.extents.iter().map(|extent| extent.length).sum::<u64>() < self.stat.size
    }

    /// Goes on with the first data at or after this offset of the file.
    pub fn skip_to(&mut self, offset: u64) {
        self.current =
            self.extents.partition_point(|extent| extent.offset + extent.length <= offset);
        let next = self.extents.get(self.current);
        self.within = next.map_or(0, |extent| offset.saturating_sub(extent.offset));
    }

    /// To be asked after reading, which began at `begun`.
    pub fn verdict(&self, begun: Timestamp) -> Verdict {
        let later = fstat(&self.handle).ok().and_then(|raw| Stat::from_raw(&raw));
        match later {
            Some(later) if later.size < self.stat.size => Verdict::Shrank,
            _ if self.ended_early => Verdict::Shrank,
            Some(later) if !self.stat.same_content(&later) => Verdict::Changed,
            // A fresh fine stamp is read again by the next run; a tick is too short to cry wolf over.
            Some(_) if self.stat.has_coarse_times() && self.stat.is_racy(begun) => Verdict::Unsure,
            Some(_) => Verdict::Steady,
            None => Verdict::Changed,
        }
    }
}

impl Read for OpenFile {
    /// A read past the end of a file that shrank is its end, for all later extents too.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(extent) = self.extents.get(self.current) {
            let left = extent.length - self.within;
            if left == 0 {
                self.current += 1;
                self.within = 0;
                continue;
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let Some(room) = buffer.get_mut(..most).filter(|room| !room.is_empty()) else {
                return Ok(0);
            };
            let count = self.handle.read_at(room, extent.offset + self.within)?;
            if count == 0 {
                self.ended_early = true;
                self.current = self.extents.len();
                return Ok(0);
            }
            self.within += count as u64;
            return Ok(count);
        }
        Ok(0)
    }
}

fn whole(size: u64) -> Vec<Extent> {
    if size == 0 { Vec::new() } else { vec![Extent { offset: 0, length: size }] }
}

/// So many stretches are kept of one file, in whatever it takes: 1 MiB. Of more, the smallest holes are read as the zeros
/// they are.
const MAX_EXTENTS: usize = 65_536;

/// Stretches of data in order, no more than [`MAX_EXTENTS`].
#[derive(Default)]
struct Extents {
    found: Vec<Extent>,
    /// Holes that are shorter count as data.
    least: u64,
}

impl Extents {
    fn push(&mut self, next: Extent) {
        match self.found.last_mut() {
            Some(last) if next.offset - (last.offset + last.length) < self.least => {
                last.length = next.offset + next.length - last.offset;
            }
            _ => self.found.push(next),
        }
        while self.found.len() > MAX_EXTENTS {
            self.least = (self.least * 2).max(4096);
            for extent in std::mem::take(&mut self.found) {
                self.push(extent);
            }
        }
    }
}

fn data_extents(handle: &File, size: u64) -> Result<Vec<Extent>, Errno> {
    let mut extents = Extents::default();
    let mut at = 0;
    while at < size {
        let start = match seek(handle, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No data after `at`: the rest is one hole.
            Err(Errno::NXIO) => break,
            // A file system that cannot say: all of it is data.
            Err(Errno::INVAL | Errno::NOTSUP) if at == 0 => return Ok(whole(size)),
            Err(error) => return Err(error),
        };
        if start >= size {
            break;
        }
        let end = seek(handle, SeekFrom::Hole(start))?.min(size);
        if end <= start {
            break;
        }
        extents.push(Extent { offset: start, length: end - start });
        at = end;
    }
    Ok(extents.found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_million_holes_keeps_the_larger_ones() {
        let mut extents = Extents::default();
        let (mut at, mut data) = (0, 0);
        for number in 0..1_000_000_u64 {
            // Every twentieth hole is large.
            at += if number % 20 == 0 { 1 << 20 } else { 4096 };
            extents.push(Extent { offset: at, length: 4096 });
            at += 4096;
            data += 4096;
        }
        let found = &extents.found;
        assert!((1_000..=MAX_EXTENTS).contains(&found.len()), "{}", found.len());
        assert!(found.windows(2).all(|two| two[0].offset + two[0].length < two[1].offset));
        assert_eq!(
            (found[0].offset, found.last().map(|last| last.offset + last.length)),
            (1 << 20, Some(at))
        );
        let kept: u64 = found.iter().map(|extent| extent.length).sum();
        assert!(data < kept && kept < at, "{kept} of {at}");
    }

    #[test]
    fn few_stretches_are_kept_as_they_are() {
        let mut extents = Extents::default();
        for number in 0..MAX_EXTENTS as u64 {
            extents.push(Extent { offset: number * 8192, length: 4096 });
        }
        assert_eq!(extents.found.len(), MAX_EXTENTS);
        assert!(extents.found.iter().all(|extent| extent.length == 4096));
    }
}
