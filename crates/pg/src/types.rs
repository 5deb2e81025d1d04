//! How domain values travel to SQL and back.
//!
//! `Id<K>` is its `.uuid()` and comes back by `Id::from_uuid`; `Timestamp` is a
//! `time::OffsetDateTime` by `.into()`, both ways. Counts are `i64` in SQL and `u64` outside.

use crate::Error;

/// A count or byte figure as SQL holds it.
///
/// # Errors
/// [`Error::OutOfRange`] above 2^63-1.
pub fn to_i64(value: u64) -> Result<i64, Error> {
    i64::try_from(value).map_err(|_| Error::OutOfRange)
}

/// A count or byte figure as SQL held it.
///
/// # Errors
/// [`Error::OutOfRange`] below zero.
pub fn to_u64(value: i64) -> Result<u64, Error> {
    u64::try_from(value).map_err(|_| Error::OutOfRange)
}
