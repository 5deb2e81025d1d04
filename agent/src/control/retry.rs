//! Trying again: exponential pauses with full jitter, for a bounded time.

use std::time::Duration;

use domain::IdGen;
use tokio::time::Instant;

/// How long to go on trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Somebody waits at the terminal: some seconds of pauses.
    Short,
    /// A backup is at stake: some minutes of pauses.
    Long,
    /// Bytes move, or the attempt gives itself up: pauses as in `Short`, however long the attempts take.
    Moving,
}

impl Patience {
    const fn attempts(self) -> u32 {
        match self {
            Self::Short | Self::Moving => 6,
            Self::Long => 25,
        }
    }
    /// After so long nothing is tried a third time: whoever takes a call and says nothing fails slowly.
    const fn limit(self) -> Duration {
        match self {
            Self::Short => Duration::from_secs(30),
            Self::Long => Duration::from_secs(900),
            Self::Moving => Duration::MAX,
        }
    }
}

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// Calls until it succeeds, fails for good, or patience ends with the last error.
///
/// # Errors
/// The call's.
pub async fn retry<T, E, F>(
    patience: Patience,
    ids: &dyn IdGen,
    retryable: impl Fn(&E) -> bool,
    call: impl Fn() -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut attempt = 1;
    let began = Instant::now();
    loop {
        let last = |attempt| {
            attempt >= patience.attempts() || (attempt > 1 && began.elapsed() > patience.limit())
        };
        match call().await {
            Err(error) if retryable(&error) && !last(attempt) => {
                tokio::time::sleep(pause(attempt, ids)).await;
                attempt += 1;
            }
            other => return other,
        }
    }
}

/// Between half and all of `250 ms · 2^(attempt-1)`, at most 30 s: a fleet must not come back in step.
pub fn pause(attempt: u32, ids: &dyn IdGen) -> Duration {
    let whole = FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST);
    let mut random = [0];
    ids.fill(&mut random);
    let whole = faults::hurry(whole);
    whole / 2 + whole.mul_f64(f64::from(random[0]) / 512.0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use domain::SystemIds;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_passing_fault_is_waited_out() {
        let calls = AtomicU32::new(0);
        let result = retry(
            Patience::Short,
            &SystemIds,
            |_: &&str| true,
            || async {
                if calls.fetch_add(1, Ordering::Relaxed) < 3 { Err("not yet") } else { Ok(7) }
            },
        );
        assert_eq!(result.await, Ok(7));
        assert_eq!(calls.load(Ordering::Relaxed), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_and_the_error_is_told() {
        let calls = AtomicU32::new(0);
        let result: Result<(), _> = retry(
            Patience::Short,
            &SystemIds,
            |_| true,
            || async {
                calls.fetch_add(1, Ordering::Relaxed);
                Err("down")
            },
        )
        .await;
        assert_eq!(result, Err("down"));
        assert_eq!(calls.load(Ordering::Relaxed), Patience::Short.attempts());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_fails_slowly_is_tried_twice() {
        let calls = AtomicU32::new(0);
        let result: Result<(), _> = retry(
            Patience::Short,
            &SystemIds,
            |_| true,
            || async {
                calls.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(120)).await;
                Err("silent")
            },
        )
        .await;
        assert_eq!(result, Err("silent"));
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn what_is_refused_is_not_tried_again() {
        let calls = AtomicU32::new(0);
        let result: Result<(), _> = retry(
            Patience::Long,
            &SystemIds,
            |_| false,
            || async {
                calls.fetch_add(1, Ordering::Relaxed);
                Err("no")
            },
        )
        .await;
        assert_eq!(result, Err("no"));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn pauses_grow_and_end() {
        assert!(pause(1, &SystemIds) < pause(4, &SystemIds));
        assert!(pause(60, &SystemIds) <= LONGEST);
    }
}
