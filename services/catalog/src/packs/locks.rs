//! Lock dates, in server time. Pure.
//!
//! Dates are rounded up to a step, so that a pack that stays in use is extended once per step and not
//! once per backup.

use std::time::Duration;

use domain::Timestamp;

const DAY: Duration = Duration::from_secs(86_400);
/// What an upload is locked for before anything refers to it: a crashed or hostile session buys no more.
pub const INITIAL: Duration = Duration::from_secs(7 * 86_400);
/// Dates are multiples of this.
pub const STEP: Duration = Duration::from_secs(7 * 86_400);
/// An upload grant.
pub const GRANT: Duration = Duration::from_secs(3_600);
/// An allocated row nobody confirmed is given up this long after its grant.
pub const ABANDON_AFTER: Duration = DAY;
/// Packs of an open session are kept locked at least this far ahead.
pub const SESSION_AHEAD: Duration = Duration::from_secs(5 * 86_400);

/// The lock a new upload gets.
pub fn initial(now: Timestamp) -> Timestamp {
    (now + INITIAL).ceil_to_step(STEP)
}

/// The date to ask for so that `until` is covered.
pub fn covering(until: Timestamp) -> Timestamp {
    until.ceil_to_step(STEP)
}

/// Whether a row's pinned lock date can still be granted: it has to lie a day ahead, or the object would be
/// born nearly unlocked.
pub fn can_still_grant(pinned: Timestamp, now: Timestamp) -> bool {
    pinned >= now + DAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_upload_is_locked_one_to_two_weeks() {
        let now: Timestamp = "2026-11-21T10:00:00.5Z".parse().expect("time");
        let until = initial(now);
        assert!(until >= now + INITIAL && until < now + INITIAL + STEP);
        assert_eq!(until.unix_secs() % (7 * 86_400), 0);
    }

    #[test]
    fn a_covered_date_asks_for_nothing_new_within_its_step() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().expect("time");
        assert_eq!(covering(covering(now)), covering(now));
    }
}
