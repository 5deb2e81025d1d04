//! Records that are not in a sorted run yet: a table in memory with a fixed most.
//!
//! Owns the bytes it counts: a flat list of records and a list of slots that finds them by key. Invariant: what it
//! holds never passes its limit, except that one record always fits. It must not know what records mean.

use std::hash::{BuildHasher as _, RandomState};

/// Records of `N` bytes whose first `K` are the key.
pub(super) struct Table<const N: usize, const K: usize> {
    records: Vec<[u8; N]>,
    /// Number of the record plus one; 0 is free. A power of two of them, at most three quarters taken.
    slots: Vec<u32>,
    most: usize,
    hasher: RandomState,
}

/// Slots for so many records.
fn slots_for(records: usize) -> usize {
    records.saturating_mul(4).div_ceil(3).next_power_of_two().max(2)
}

impl<const N: usize, const K: usize> Table<N, K> {
    /// A table that holds at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        // The largest power of two of slots that leaves room for its records.
        let mut most = 1;
        let mut slots: usize = 2;
        while let Some(next) = slots.checked_mul(2).filter(|next| *next < u32::MAX as usize) {
            let room = limit.saturating_sub(slots.saturating_mul(4)) / N;
            most = most.max(room.min(slots / 4 * 3));
            slots = next;
        }
        Self { records: Vec::new(), slots: Vec::new(), most, hasher: RandomState::new() }
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }
    pub fn is_full(&self) -> bool {
        self.records.len() >= self.most
    }
    /// Bytes of memory held.
    pub fn held(&self) -> usize {
        self.records.capacity() * N + self.slots.capacity() * size_of::<u32>()
    }

    /// Adds a record; the caller asked [`Self::is_full`].
    pub fn insert(&mut self, record: [u8; N]) {
        if self.records.len() == self.records.capacity() {
            self.grow();
        }
        self.records.push(record);
        let number = self.records.len();
        self.seat(number);
    }

    /// All records with this key, in the order they came.
    pub fn find<'a>(&'a self, key: &'a [u8; K]) -> impl Iterator<Item = &'a [u8; N]> {
        let start = if self.slots.is_empty() { 0 } else { self.slot(key) };
        let mask = self.slots.len().wrapping_sub(1);
        let probes = (0..self.slots.len()).map(move |step| self.slots[(start + step) & mask]);
        let taken = probes.take_while(|slot| *slot != 0);
        taken.map(|slot| &self.records[slot as usize - 1]).filter(move |record| record[..K] == *key)
    }

    /// Sorts what is here; finding is over until [`Self::clear`].
    pub fn sort(&mut self) -> &[[u8; N]] {
        self.slots.fill(0);
        self.records.sort_unstable();
        self.records.dedup();
        &self.records
    }

    /// A sorted copy, for an index that goes on.
    pub fn sorted(&self) -> Vec<[u8; N]> {
        let mut records = self.records.clone();
        records.sort_unstable();
        records.dedup();
        records
    }

    /// From here on it grows without a limit; what [`Self::sort`] took apart is found again.
    pub fn unbound(&mut self) {
        self.most = u32::MAX as usize / 2;
        self.grow();
    }

    /// Empties the table; its memory stays for the next records.
    pub fn clear(&mut self) {
        self.records.clear();
        self.slots.fill(0);
    }

    fn grow(&mut self) {
        let wanted = (self.records.capacity() * 2).clamp(64, self.most.max(64));
        let wanted = if self.most < 64 { self.most } else { wanted };
        let more = wanted.saturating_sub(self.records.len()).max(1);
        self.records.reserve_exact(more);
        // The old slots go first: never both.
        self.slots = Vec::new();
        self.slots = vec![0; slots_for(self.records.capacity())];
        for number in 1..=self.records.len() {
            self.seat(number);
        }
    }

    fn seat(&mut self, number: usize) {
        let mut key = [0; K];
        key.copy_from_slice(&self.records[number - 1][..K]);
        let mask = self.slots.len() - 1;
        let mut at = self.slot(&key);
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        // Fits: `most` is far below 2³².
        self.slots[at] = u32::try_from(number).unwrap_or(u32::MAX);
    }

    fn slot(&self, key: &[u8; K]) -> usize {
        let hash = self.hasher.hash_one(key);
        usize::try_from(hash & (self.slots.len() as u64 - 1)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_its_limit_and_finds_every_record_of_a_key() {
        for limit in [0, 100, 10_000, 1 << 20] {
            let mut table = Table::<49, 32>::new(limit);
            let mut count = 0_u32;
            while !table.is_full() {
                let mut record = [0; 49];
                record[..4].copy_from_slice(&(count / 2).to_be_bytes());
                record[40..44].copy_from_slice(&count.to_be_bytes());
                table.insert(record);
                count += 1;
            }
            assert!(table.held() <= limit.max(100), "{} of {limit}", table.held());
            for n in 0..count / 2 {
                let mut key = [0; 32];
                key[..4].copy_from_slice(&n.to_be_bytes());
                assert_eq!(table.find(&key).count(), 2);
            }
            assert_eq!(table.find(&[9; 32]).count(), 0);
            assert!(table.sort().is_sorted());
            table.clear();
            assert_eq!((table.len(), table.find(&[0; 32]).count()), (0, 0));
        }
        assert!(Table::<49, 32>::new(usize::MAX).most > 500_000_000);
    }
}
