//! Who waits for whom, and so how hard the content of large files is compressed.
//!
//! A line that is slower than the workers is worth every byte less; where the reader waits for the workers and nobody
//! for the line, the processor is what the backup waits for. It must not know what haste costs or saves.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use crate::compress::Effort;

/// Who spends more than this part of its time handing packs over waits for the line.
const PART: u32 = 4;
/// So many packs are remembered, fading: uploads that share a line end together, and after every wait several packs
/// are taken at once.
const PACKS: u32 = 8;

/// The reader waits, if it did within so many jobs: one that gets ahead of two workers does not wait for each.
const JOBS: u32 = 8;

/// Told by whoever has to wait.
pub(super) struct Haste {
    /// Counts down from the last job that the reader found no room for.
    jobs: AtomicU32,
    /// Handing over the last packs took long.
    line_waits: AtomicBool,
    line: Mutex<Line>,
}

struct Line {
    handed_over: Instant,
    /// Of the last packs: how long handing them over took, and how long it was from one to the next.
    waited: Duration,
    passed: Duration,
}

impl Haste {
    pub fn new(now: Instant) -> Self {
        Self {
            jobs: AtomicU32::new(0),
            line_waits: AtomicBool::new(false),
            line: Mutex::new(Line {
                handed_over: now,
                waited: Duration::ZERO,
                passed: Duration::ZERO,
            }),
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
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let since =
            ended.saturating_duration_since(std::mem::replace(&mut line.handed_over, ended));
        let fade = |sum: Duration| sum - sum / PACKS;
        line.waited = fade(line.waited) + ended.saturating_duration_since(begun);
        line.passed = fade(line.passed) + since;
        self.line_waits.store(line.waited * PART > line.passed, Ordering::Relaxed);
    }
    /// For content whose vault asks for the level `wanted`.
    pub fn effort(&self, wanted: i32) -> Effort {
        let reader_waits = self.jobs.load(Ordering::Relaxed) > 0;
        let hurry = reader_waits && !self.line_waits.load(Ordering::Relaxed);
        if hurry && wanted > 1 { Effort::Haste } else { Effort::Level(wanted) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use Effort::{Haste as InHaste, Level};

    #[test]
    fn only_who_waits_for_the_processor_hurries() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let haste = Haste::new(start);
        assert_eq!(haste.effort(3), Level(3), "nobody waits yet");
        haste.reader_waits();
        assert_eq!([3, 1, -5].map(|level| haste.effort(level)), [InHaste, Level(1), Level(-5)]);
        haste.handed_over(at(900), at(1_000));
        assert_eq!(haste.effort(3), InHaste, "the line took the pack at once");
        haste.handed_over(at(1_400), at(2_000));
        assert_eq!(haste.effort(3), Level(3), "the workers wait for the line");
        // Two that waited side by side.
        haste.handed_over(at(1_500), at(2_001));
        assert_eq!(haste.effort(3), Level(3));
        // The line is fast again.
        for pack in 1..=24 {
            haste.handed_over(at(2_000 + pack * 100), at(2_005 + pack * 100));
        }
        assert_eq!(haste.effort(3), InHaste);
        (1..JOBS).for_each(|_| haste.reader_goes_on());
        assert_eq!(haste.effort(3), InHaste, "it waited a moment ago");
        haste.reader_goes_on();
        assert_eq!(haste.effort(3), Level(3), "the workers wait for the reader");
    }

    /// Uploads that share a line end together, and their places are taken at once.
    #[test]
    fn a_line_that_takes_packs_in_bursts_is_waited_for() {
        let start = Instant::now();
        let mut now = start;
        let mut pass = |ms| {
            now += Duration::from_millis(ms);
            now
        };
        let haste = Haste::new(start);
        haste.reader_waits();
        for burst in 1..=8 {
            haste.handed_over(pass(150), pass(2_600));
            assert_eq!(haste.effort(3), Level(3), "burst {burst}");
            for pack in 1..=6 {
                haste.handed_over(pass(150), pass(1));
                assert_eq!(haste.effort(3), Level(3), "burst {burst}, pack {pack}");
            }
        }
    }
}
