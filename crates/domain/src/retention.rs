//! Retention: which slots a snapshot fills and until when it is protected. Pure, in server time.
//!
//! At commit the server asks which periods the new snapshot is the first of (hour, day, week …) and
//! takes the longest promise (`protect_until`). Nothing an agent says enters here. What a rule keeps later on,
//! and why, is [`plan`].

mod plan;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::plan::{Candidate, Fate, GOOD_DAYS, Guard, Kept, Plan, Quality, Reason, Until, plan};
use crate::time::Timestamp;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// Grandfather-father-son: how many of each period are kept. Zero switches a period off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    /// Every snapshot is protected at least this many days.
    pub within_days: u32,
    pub hourly: u32,
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
    /// The newest snapshots of a workload, whatever their age.
    #[serde(default)]
    pub keep_last: u32,
}

impl Default for RetentionRule {
    /// A week of everything, 30 dailies, 12 weeklies, 12 monthlies.
    fn default() -> Self {
        Self {
            within_days: 7,
            hourly: 0,
            daily: 30,
            weekly: 12,
            monthly: 12,
            yearly: 0,
            keep_last: 0,
        }
    }
}

/// A period a snapshot is the first of.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Slot {
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }
    /// A number that is equal for two moments exactly when they lie in the same period (UTC, ISO weeks).
    pub fn period(self, at: Timestamp) -> i64 {
        let date = at.to_offset();
        match self {
            Self::Hour => at.unix_secs().div_euclid(3_600),
            Self::Day => at.unix_secs().div_euclid(86_400),
            // 1970-01-01 was a Thursday; ISO weeks start on Monday.
            Self::Week => (at.unix_secs().div_euclid(86_400) + 3).div_euclid(7),
            Self::Month => i64::from(date.year()) * 12 + i64::from(u8::from(date.month())),
            Self::Year => i64::from(date.year()),
        }
    }
    fn promise(self, rule: &RetentionRule) -> Duration {
        let (count, length) = match self {
            Self::Hour => (rule.hourly, HOUR),
            Self::Day => (rule.daily, DAY),
            Self::Week => (rule.weekly, 7 * DAY),
            Self::Month => (rule.monthly, 31 * DAY),
            Self::Year => (rule.yearly, 366 * DAY),
        };
        Duration::from_secs(u64::from(count) * length)
    }
}

/// What the server promises for one new snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    pub slots: Vec<Slot>,
    pub protect_until: Timestamp,
}

/// Assigns slots to a snapshot committed at `now`; `latest` is the newest earlier commit of the same
/// workload, from which the filled periods follow because commits come in order of server time.
pub fn protect(rule: &RetentionRule, latest: Option<Timestamp>, now: Timestamp) -> Protection {
    let is_first = |slot: &Slot| latest.is_none_or(|last| slot.period(last) < slot.period(now));
    let slots: Vec<Slot> = Slot::ALL
        .into_iter()
        .filter(|slot| !slot.promise(rule).is_zero())
        .filter(is_first)
        .collect();
    let floor = Duration::from_secs(u64::from(rule.within_days) * DAY);
    let longest = slots.iter().map(|slot| slot.promise(rule)).fold(floor, Duration::max);
    Protection { slots, protect_until: (now + longest).ceil_to_second() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("valid time")
    }

    #[test]
    fn the_first_snapshot_fills_every_slot_and_takes_the_longest_promise() {
        let p = protect(&RetentionRule::default(), None, at("2026-11-21T10:00:00Z"));
        assert_eq!(p.slots, [Slot::Day, Slot::Week, Slot::Month]);
        assert_eq!(p.protect_until, at("2027-11-28T10:00:00Z"));
    }

    #[test]
    fn a_second_one_the_same_day_is_kept_a_week() {
        let rule = RetentionRule::default();
        let p = protect(&rule, Some(at("2026-11-21T10:00:00Z")), at("2026-11-21T11:00:00Z"));
        assert_eq!(p.slots, []);
        assert_eq!(p.protect_until, at("2026-11-28T11:00:00Z"));
    }

    #[test]
    fn a_new_iso_week_starts_on_monday() {
        let sunday = at("2026-11-22T23:59:59Z");
        let monday = at("2026-11-23T00:00:00Z");
        assert_ne!(Slot::Week.period(sunday), Slot::Week.period(monday));
        assert_eq!(Slot::Week.period(monday), Slot::Week.period(at("2026-11-29T23:59:59Z")));
    }

    proptest! {
        #[test]
        fn no_snapshot_is_protected_less_than_the_floor(secs in 0_i64..4_000_000_000, gap in 0_u64..100_000_000) {
            let rule = RetentionRule::default();
            let last = Timestamp::from_unix_secs(secs).expect("in range");
            let now = last + Duration::from_secs(gap);
            let p = protect(&rule, Some(last), now);
            prop_assert!(p.protect_until >= now + Duration::from_secs(7 * DAY));
        }
    }
}
