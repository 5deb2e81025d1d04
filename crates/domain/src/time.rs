//! Server time. Retention, leases and locks never use any other clock (R10).
//!
//! A [`Timestamp`] is UTC with microseconds, as PostgreSQL stores it, so that a value survives the
//! trip to the database unchanged. The wall clock is read in [`SystemClock`] and nowhere else.

use std::{
    fmt,
    ops::{Add, Sub},
    sync::Mutex,
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// A moment in UTC, in whole microseconds. JSON: RFC 3339 text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(OffsetDateTime);

impl Timestamp {
    pub const UNIX_EPOCH: Self = Self(OffsetDateTime::UNIX_EPOCH);
    /// The last moment that can be written down.
    const LAST: Self = Self(
        time::PrimitiveDateTime::new(time::Date::MAX, time::macros::time!(23:59:59.999_999))
            .assume_utc(),
    );

    /// Milliseconds since 1970; clamped to what a timestamp can hold.
    pub fn from_unix_millis(millis: u64) -> Self {
        let nanos = i128::from(millis) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanos).map_or(Self::UNIX_EPOCH, Self)
    }
    /// Seconds since 1970; `None` beyond the year 9999.
    pub fn from_unix_secs(secs: i64) -> Option<Self> {
        OffsetDateTime::from_unix_timestamp(secs).ok().map(Self)
    }
    /// Milliseconds since 1970; 0 for anything earlier.
    pub fn unix_millis(self) -> u64 {
        u64::try_from(self.0.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
    }
    pub const fn unix_secs(self) -> i64 {
        self.0.unix_timestamp()
    }
    /// The next whole second, or itself: what an object store can hold as a lock date.
    pub fn ceil_to_second(self) -> Self {
        let nanos = self.0.nanosecond();
        if nanos == 0 {
            return self;
        }
        self + Duration::from_nanos(1_000_000_000 - u64::from(nanos))
    }
    /// The next multiple of `step` since 1970, or itself. A zero step changes nothing.
    pub fn ceil_to_step(self, step: Duration) -> Self {
        let step = i64::try_from(step.as_secs()).unwrap_or(i64::MAX);
        let up = self.ceil_to_second();
        if step == 0 {
            return up;
        }
        let over = up.unix_secs().rem_euclid(step);
        if over == 0 {
            return up;
        }
        up + Duration::from_secs((step - over).unsigned_abs())
    }
    /// How long after `earlier`; zero if it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::try_from(self.0 - earlier.0).unwrap_or(Duration::ZERO)
    }
    pub const fn to_offset(self) -> OffsetDateTime {
        self.0
    }
    /// Reads RFC 3339 text of any year, for moments that are facts of somebody else (a file's time), where
    /// [`FromStr`](std::str::FromStr) would refuse the years nothing of ours happens in.
    ///
    /// # Errors
    /// [`NoTimestamp`] when it is not RFC 3339 or no moment in UTC.
    pub fn deserialize_any_year<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        parse(&text).map_err(D::Error::custom)
    }
}

/// The text is no moment this platform deals with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoTimestamp {
    #[error("not a time like 2026-11-21T08:30:00Z")]
    Malformed,
    /// Room is left at both ends, so that adding a retention or changing the zone stays a time.
    #[error("a time of the years 1970 to 9998")]
    OutOfRange,
}

fn parse(text: &str) -> Result<Timestamp, NoTimestamp> {
    let local = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| NoTimestamp::Malformed)?;
    // In UTC it may fall out of the calendar.
    let utc = local.checked_to_offset(UtcOffset::UTC).ok_or(NoTimestamp::OutOfRange)?;
    Ok(utc.into())
}

impl From<OffsetDateTime> for Timestamp {
    fn from(value: OffsetDateTime) -> Self {
        let Some(utc) = value.checked_to_offset(UtcOffset::UTC) else {
            // Within a day of the calendar's ends.
            return if value.year() > 1970 { Self::LAST } else { Self::UNIX_EPOCH };
        };
        let whole = utc.nanosecond() / 1_000 * 1_000;
        Self(utc.replace_nanosecond(whole).unwrap_or(utc))
    }
}
impl From<Timestamp> for OffsetDateTime {
    fn from(value: Timestamp) -> Self {
        value.0
    }
}
impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        let sum = time::Duration::try_from(rhs).ok().and_then(|d| self.0.checked_add(d));
        sum.map_or(self, Self::from)
    }
}
impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        let difference = time::Duration::try_from(rhs).ok().and_then(|d| self.0.checked_sub(d));
        difference.map_or(self, Self::from)
    }
}
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}
impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl std::str::FromStr for Timestamp {
    type Err = NoTimestamp;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let moment = parse(text)?;
        if (1970..=9998).contains(&moment.0.year()) {
            Ok(moment)
        } else {
            Err(NoTimestamp::OutOfRange)
        }
    }
}
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}
impl utoipa::ToSchema for Timestamp {}
impl utoipa::PartialSchema for Timestamp {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(
                utoipa::openapi::KnownFormat::DateTime,
            )))
            .examples(["2026-11-21T08:30:00Z"])
            .into()
    }
}

/// Where the time comes from. An argument everywhere (R11).
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The machine's clock; the one place that reads it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        OffsetDateTime::now_utc().into()
    }
}

/// A clock that stands still until told: for tests and the demo seed.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    pub const fn at(start: Timestamp) -> Self {
        Self(Mutex::new(start))
    }
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *now = *now + by;
    }
    pub fn set(&self, to: Timestamp) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = to;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_round_up_and_whole_steps_stay() {
        let week = Duration::from_secs(7 * 86_400);
        let monday = Timestamp::from_unix_millis(7 * 86_400_000);
        assert_eq!(monday.ceil_to_step(week), monday);
        let later = monday + Duration::from_micros(1);
        assert_eq!(later.ceil_to_step(week), monday + week);
        assert_eq!(later.ceil_to_second().unix_secs(), monday.unix_secs() + 1);
    }

    #[test]
    fn text_reads_back() {
        let text = "2026-11-21T08:30:00.123456Z";
        let moment: Timestamp = text.parse().expect("valid");
        assert_eq!(moment.to_string(), text);
    }

    #[test]
    fn text_outside_the_years_of_the_platform_is_refused_and_never_a_panic() {
        for text in [
            "9999-12-31T23:59:59-23:59",
            "9999-01-01T00:00:00Z",
            "9998-12-31T23:59:59-23:59",
            "0000-01-01T00:00:00Z",
            "0000-01-01T00:00:00+23:59",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(NoTimestamp::OutOfRange), "{text}");
            assert!(serde_json::from_value::<Timestamp>(text.into()).is_err(), "{text}");
        }
        for text in ["", "yesterday", "2026-11-21", "2026-13-01T00:00:00Z"] {
            assert_eq!(text.parse::<Timestamp>(), Err(NoTimestamp::Malformed), "{text}");
        }
        for text in ["1970-01-01T00:00:00Z", "9998-12-31T23:59:59Z"] {
            assert_eq!(text.parse::<Timestamp>().map(|t| t.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn a_moment_that_is_none_in_utc_becomes_the_nearest_end() {
        let zone = UtcOffset::from_hms(-23, 59, 0).expect("zone");
        let late = time::PrimitiveDateTime::MAX.assume_offset(zone);
        assert_eq!(Timestamp::from(late), Timestamp::LAST);
        let zone = UtcOffset::from_hms(23, 59, 0).expect("zone");
        let early = time::PrimitiveDateTime::MIN.assume_offset(zone);
        assert_eq!(Timestamp::from(early), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn files_may_be_older_than_the_platform() {
        let text = serde_json::json!("1912-06-23T00:00:00Z");
        let moment = Timestamp::deserialize_any_year(text).expect("a time");
        assert_eq!(moment.to_string(), "1912-06-23T00:00:00Z");
    }
}
