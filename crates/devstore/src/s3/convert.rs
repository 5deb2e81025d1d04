//! Between s3s's types and the store's: dates, ETags, lock headers, conditions, names in XML.

use domain::Timestamp;
use s3s::{
    S3Error, S3ErrorCode, S3Result,
    dto::{self, ETag, ETagCondition},
    s3_error,
};

use crate::{
    hashing::Checksums,
    lock::{Mode, Retention},
    model::{LockWish, Object},
    versions::PutIf,
};

pub(super) fn date(moment: Timestamp) -> dto::Timestamp {
    dto::Timestamp::from(moment.to_offset())
}

pub(super) fn moment(date: dto::Timestamp) -> Timestamp {
    Timestamp::from(time::OffsetDateTime::from(date))
}

pub(super) fn etag(plain: &str) -> ETag {
    ETag::Strong(plain.to_owned())
}

pub(super) fn invalid(text: &'static str) -> S3Error {
    S3Error::with_message(S3ErrorCode::InvalidArgument, text)
}

/// A page size: the client's, at most (and without one) 1000.
pub(super) fn limit(asked: Option<i32>) -> S3Result<usize> {
    let asked = asked.unwrap_or(1000).min(1000);
    usize::try_from(asked).map_err(|_| invalid("a page size cannot be negative"))
}

pub(super) fn size(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

pub(super) fn retention(mode: &str, until: dto::Timestamp) -> S3Result<Retention> {
    let mode = Mode::parse(mode).ok_or_else(|| s3_error!(MalformedXML, "unknown lock mode"))?;
    Ok(Retention { mode, until: moment(until) })
}

/// The lock headers of a put: mode and date together or neither.
pub(super) fn lock_wish(
    mode: Option<&dto::ObjectLockMode>,
    until: Option<dto::Timestamp>,
    hold: Option<&dto::ObjectLockLegalHoldStatus>,
) -> S3Result<LockWish> {
    let retention = match (mode, until) {
        (None, None) => None,
        (Some(mode), Some(until)) => {
            let mode = Mode::parse(mode.as_str()).ok_or_else(|| invalid("unknown lock mode"))?;
            Some(Retention { mode, until: moment(until) })
        }
        _ => {
            return Err(invalid(
                "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied",
            ));
        }
    };
    let legal_hold = match hold.map(dto::ObjectLockLegalHoldStatus::as_str) {
        None | Some("OFF") => false,
        Some("ON") => true,
        Some(_) => return Err(invalid("a legal hold is ON or OFF")),
    };
    Ok(LockWish { retention, legal_hold })
}

pub(super) fn put_condition(
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
) -> S3Result<PutIf> {
    match (if_match, if_none_match) {
        (None, None) => Ok(PutIf::Always),
        (None, Some(ETagCondition::Any)) => Ok(PutIf::Absent),
        (Some(ETagCondition::Any), None) => Ok(PutIf::Matches("*".to_owned())),
        (Some(ETagCondition::ETag(etag)), None) => Ok(PutIf::Matches(etag.value().to_owned())),
        _ => Err(s3_error!(NotImplemented, "a put takes If-None-Match: * or If-Match, not both")),
    }
}

/// Lock headers of an answer: mode, date, hold.
pub(super) fn lock_headers(
    object: &Object,
) -> (Option<dto::ObjectLockMode>, Option<dto::Timestamp>, Option<dto::ObjectLockLegalHoldStatus>) {
    let hold = object
        .legal_hold
        .then(|| dto::ObjectLockLegalHoldStatus::from_static(dto::ObjectLockLegalHoldStatus::ON));
    let mode = object.retention.map(|lock| dto::ObjectLockMode::from_static(lock.mode.as_str()));
    (mode, object.retention.map(|lock| date(lock.until)), hold)
}

pub(super) fn checksum_type(sums: &Checksums) -> Option<dto::ChecksumType> {
    let text =
        if sums.composite { dto::ChecksumType::COMPOSITE } else { dto::ChecksumType::FULL_OBJECT };
    (!sums.is_empty()).then(|| dto::ChecksumType::from_static(text))
}

/// Keys in listings, encoded when the client asked: not every key is valid XML.
#[derive(Clone, Copy)]
pub(super) struct Names {
    encode: bool,
}

impl Names {
    pub(super) fn new(encoding: Option<&dto::EncodingType>) -> Self {
        Self { encode: encoding.is_some_and(|kind| kind.as_str() == dto::EncodingType::URL) }
    }
    pub(super) fn text(self, name: &str) -> String {
        if self.encode { percent_encode(name) } else { name.to_owned() }
    }
    pub(super) fn option(self, name: Option<String>) -> Option<String> {
        name.map(|name| self.text(&name))
    }
}

fn percent_encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&hex::encode_upper([byte]));
        }
    }
    out
}

/// Sets the five checksum fields of an output.
macro_rules! with_checksums {
    ($output:expr, $sums:expr) => {{
        let mut output = $output;
        let sums = $sums;
        output.checksum_crc32 = sums.crc32.clone();
        output.checksum_crc32c = sums.crc32c.clone();
        output.checksum_crc64nvme = sums.crc64nvme.clone();
        output.checksum_sha1 = sums.sha1.clone();
        output.checksum_sha256 = sums.sha256.clone();
        output
    }};
}
/// Reads the five checksum fields of an input.
macro_rules! checksums_of {
    ($input:expr) => {
        $crate::hashing::Checksums {
            crc32: $input.checksum_crc32.clone(),
            crc32c: $input.checksum_crc32c.clone(),
            crc64nvme: $input.checksum_crc64nvme.clone(),
            sha1: $input.checksum_sha1.clone(),
            sha256: $input.checksum_sha256.clone(),
            composite: false,
        }
    };
}
/// Reads what a client says about an object.
macro_rules! attributes_of {
    ($input:expr) => {
        $crate::model::Attributes {
            content_type: $input.content_type.take(),
            content_encoding: $input.content_encoding.take(),
            content_language: $input.content_language.take(),
            content_disposition: $input.content_disposition.take(),
            cache_control: $input.cache_control.take(),
            metadata: $input.metadata.take().unwrap_or_default().into_iter().collect(),
        }
    };
}
pub(super) use {attributes_of, checksums_of, with_checksums};
