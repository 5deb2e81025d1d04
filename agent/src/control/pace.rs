//! Bandwidth held to a limit: a token bucket that all transfers of one direction share.
//!
//! Whoever moved bytes waits until they are paid for, so back-pressure reaches the other side through the
//! connection. Invariant: in any stretch of time no more than `rate` times its length passes, plus
//! [`BURST`] and the last piece of every stream. It must not know what the bytes are.

use std::{
    num::NonZeroU64,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// What may pass at once after a pause.
const BURST: Duration = Duration::from_millis(50);

/// Bytes per second, from `500k`, `10M`, `1.5G` or a plain number; the letters are powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// `None` for nothing at all: that is no limit anybody means.
    pub fn per_second(bytes: u64) -> Option<Self> {
        NonZeroU64::new(bytes).map(Self)
    }
    pub const fn bytes(self) -> u64 {
        self.0.get()
    }
    fn time_for(self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.0.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The text is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a limit is bytes per second, like 500k, 10M or 1.5G")]
pub struct NoRate;

impl FromStr for Rate {
    type Err = NoRate;
    fn from_str(text: &str) -> Result<Self, NoRate> {
        let shift = match text.as_bytes().last() {
            Some(b'k' | b'K') => 10,
            Some(b'm' | b'M') => 20,
            Some(b'g' | b'G') => 30,
            _ => 0,
        };
        let number = if shift == 0 { text } else { text.get(..text.len() - 1).unwrap_or_default() };
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        if part.is_empty() || part.len() > 6 {
            return Err(NoRate);
        }
        let number = |text: &str| text.parse::<u64>().map_err(|_| NoRate);
        let scale = 10_u64.pow(u32::try_from(part.len()).map_err(|_| NoRate)?);
        let fraction = (u128::from(number(part)?) << shift) / u128::from(scale);
        let bytes = (u128::from(number(whole)?) << shift) + fraction;
        u64::try_from(bytes).ok().and_then(Self::per_second).ok_or(NoRate)
    }
}

/// The bucket. Share it by reference or `Arc` between all transfers it is for.
#[derive(Debug)]
pub struct Pace {
    rate: Rate,
    /// When everything taken so far is paid for.
    paid: Mutex<Option<Instant>>,
}

impl Pace {
    pub const fn new(rate: Rate) -> Self {
        Self { rate, paid: Mutex::new(None) }
    }

    /// One bucket for everything held to this limit, if there is one.
    pub fn shared(limit: Option<Rate>) -> Option<Arc<Self>> {
        limit.map(|rate| Arc::new(Self::new(rate)))
    }

    /// Takes `bytes` and waits until they are paid for. Call it as bytes pass, in pieces, not for a whole
    /// transfer at once.
    pub async fn take(&self, bytes: u64) {
        sleep_until(self.charge(bytes)).await;
    }

    /// As [`Self::take`], for a thread that may sleep.
    pub fn take_blocking(&self, bytes: u64) {
        std::thread::sleep(self.charge(bytes).saturating_duration_since(Instant::now()));
    }

    /// Pieces of a stream that take no longer than a quarter of a second, whole KiB up to `most`.
    pub fn piece(&self, most: usize) -> usize {
        let quarter = usize::try_from(self.rate.bytes() / 4).unwrap_or(most);
        (quarter / 1024 * 1024).clamp(1024.min(most), most)
    }

    /// When these bytes will be paid for.
    fn charge(&self, bytes: u64) -> Instant {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let from = paid.map_or(now, |paid| paid.max(earliest));
        let until = from + self.rate.time_for(bytes);
        *paid = Some(until);
        until
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn rate(text: &str) -> Option<u64> {
        text.parse::<Rate>().ok().map(Rate::bytes)
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        assert_eq!(rate("1"), Some(1));
        assert_eq!(rate("500k"), Some(500 << 10));
        assert_eq!(rate("10M"), Some(10 << 20));
        assert_eq!(rate("1.5G"), Some(3 << 29));
        for bad in ["", "0", "k", "-1", "1.k", ".5", "10MB", "1e3", "0k", "99999999999999999999G"] {
            assert_eq!(rate(bad), None, "{bad}");
        }
    }

    /// Bytes that pass in `seconds` of paused time through `streams` that take pieces of `piece`.
    async fn passed(limit: u64, streams: usize, piece: u64, seconds: u64) -> u64 {
        let pace = Arc::new(Pace::new(Rate::per_second(limit).expect("a rate")));
        let total = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..streams {
            let (pace, total) = (pace.clone(), total.clone());
            tasks.spawn(async move {
                loop {
                    pace.take(piece).await;
                    if Instant::now() > end {
                        return;
                    }
                    total.fetch_add(piece, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
        tasks.join_all().await;
        total.load(std::sync::atomic::Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_held_within_five_per_cent_by_one_stream_or_many() {
        for (limit, streams, piece) in
            [(1 << 20, 1, 16 << 10), (10 << 20, 6, 64 << 10), (999, 3, 7)]
        {
            let ideal = limit * 20;
            let passed = passed(limit, streams, piece, 20).await;
            assert!(passed.abs_diff(ideal) * 20 <= ideal, "{passed} instead of {ideal}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_saves_nothing_up_but_a_short_burst() {
        let pace = Pace::new(Rate::per_second(1000).expect("a rate"));
        pace.take(1).await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let before = Instant::now();
        pace.take(1000).await;
        let took = before.elapsed();
        assert!(took >= Duration::from_secs(1) - BURST, "{took:?}");
    }
}
