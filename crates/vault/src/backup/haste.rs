//! Who waits for whom, and so how hard the content of large files is compressed.
//!
//! A line that is slower than the workers is worth every byte less; where the reader waits for the workers and nobody
//! for the line, the processor is what the backup waits for. It must not know what a level costs or saves.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Instant,
};

/// What is compressed in haste: a quarter less time, a twentieth more bytes.
const FAST: i32 = 1;
/// Who spends more than this part of its time handing packs over waits for the line.
const PART: u32 = 4;

/// The reader waits, if it did within so many jobs: one that gets ahead of two workers does not wait for each.
const JOBS: u32 = 8;

/// Told by whoever has to wait.
pub(super) struct Haste {
    /// Counts down from the last job that the reader found no room for.
    jobs: AtomicU32,
    /// Handing over the last pack took long.
    line_waits: AtomicBool,
    handed_over: Mutex<Instant>,
}

impl Haste {
    pub fn new(now: Instant) -> Self {
        Self {
            jobs: AtomicU32::new(0),
            line_waits: AtomicBool::new(false),
            handed_over: Mutex::new(now),
        }
    }
    /// There is no room for a job.
    pub fn reader_waits(&self) {
        self.jobs.store(JOBS, Ordering::Relaxed);
    }
    /// There was room for one. Only the reader's thread calls this.
    pub fn reader_goes_on(&self) {
        self.jobs.store(self.jobs.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }
    /// A pack was handed over.
    pub fn handed_over(&self, begun: Instant, ended: Instant) {
        let mut last = self.handed_over.lock().unwrap_or_else(PoisonError::into_inner);
        let since = ended.saturating_duration_since(std::mem::replace(&mut *last, ended));
        let waited = ended.saturating_duration_since(begun);
        self.line_waits.store(waited * PART > since, Ordering::Relaxed);
    }
    /// The level for content whose vault asks for `wanted`.
    pub fn level(&self, wanted: i32) -> i32 {
        let reader_waits = self.jobs.load(Ordering::Relaxed) > 0;
        let hurry = reader_waits && !self.line_waits.load(Ordering::Relaxed);
        if hurry { wanted.min(FAST) } else { wanted }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_who_waits_for_the_processor_hurries() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let haste = Haste::new(start);
        assert_eq!(haste.level(3), 3, "nobody waits yet");
        haste.reader_waits();
        assert_eq!((haste.level(3), haste.level(1), haste.level(-5)), (1, 1, -5));
        haste.handed_over(at(900), at(1_000));
        assert_eq!(haste.level(3), 1, "the line took the pack at once");
        haste.handed_over(at(1_400), at(2_000));
        assert_eq!(haste.level(3), 3, "the workers wait for the line");
        // Two that waited side by side.
        haste.handed_over(at(1_500), at(2_001));
        assert_eq!(haste.level(3), 3);
        haste.handed_over(at(2_990), at(3_000));
        assert_eq!(haste.level(3), 1);
        (1..JOBS).for_each(|_| haste.reader_goes_on());
        assert_eq!(haste.level(3), 1, "it waited a moment ago");
        haste.reader_goes_on();
        assert_eq!(haste.level(3), 3, "the workers wait for the reader");
    }
}
