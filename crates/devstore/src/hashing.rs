//! Digests of a body while it streams, and their comparison with what the client announced.
//!
//! Owns MD5 (the ETag, unless a SHA-256 was announced) and the five S3 checksums. Invariant: a body whose announced digest differs
//! is refused before anything names it. It knows nothing of files or rows.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use md5::{Digest as _, Md5};
use s3s::{
    checksum::ChecksumHasher,
    crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256},
};
use serde::{Deserialize, Serialize};

/// The checksums S3 knows beside MD5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    pub(crate) const ALL: [Self; 5] =
        [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// As in `x-amz-sdk-checksum-algorithm`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(text))
    }
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }
    /// The header or trailer that carries it.
    pub(crate) fn header(self) -> String {
        format!("x-amz-checksum-{}", self.name().to_ascii_lowercase())
    }
    const fn crc(self) -> Option<crc_fast::CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(crc_fast::CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(crc_fast::CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(crc_fast::CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }
}

/// Base64 values by algorithm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checksums {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc64nvme: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha1: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Over the parts' checksums, not over the body.
    #[serde(default)]
    pub composite: bool,
}

impl Checksums {
    pub(crate) fn get(&self, algorithm: Algorithm) -> Option<&str> {
        match algorithm {
            Algorithm::Crc32 => self.crc32.as_deref(),
            Algorithm::Crc32c => self.crc32c.as_deref(),
            Algorithm::Crc64Nvme => self.crc64nvme.as_deref(),
            Algorithm::Sha1 => self.sha1.as_deref(),
            Algorithm::Sha256 => self.sha256.as_deref(),
        }
    }
    pub(crate) fn set(&mut self, algorithm: Algorithm, value: String) {
        let slot = match algorithm {
            Algorithm::Crc32 => &mut self.crc32,
            Algorithm::Crc32c => &mut self.crc32c,
            Algorithm::Crc64Nvme => &mut self.crc64nvme,
            Algorithm::Sha1 => &mut self.sha1,
            Algorithm::Sha256 => &mut self.sha256,
        };
        *slot = Some(value);
    }
    pub(crate) fn is_empty(&self) -> bool {
        Algorithm::ALL.into_iter().all(|algorithm| self.get(algorithm).is_none())
    }
}

/// What a client announced about a body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Announced {
    pub md5: Option<[u8; 16]>,
    /// From headers.
    pub checksums: Checksums,
    /// To be computed; the values come in a trailer, or the client only wants them kept.
    pub wanted: Vec<Algorithm>,
    pub length: Option<u64>,
    /// A part of a multipart upload: the MD5s of the parts make the object's ETag.
    pub part: bool,
}

impl Announced {
    const fn needs_md5(&self) -> bool {
        self.part || self.md5.is_some() || self.checksums.sha256.is_none()
    }
    fn needs(&self, algorithm: Algorithm) -> bool {
        self.checksums.get(algorithm).is_some() || self.wanted.contains(&algorithm)
    }
    /// Whether any digest is announced at all, as a put with a lock demands.
    pub(crate) fn any_digest(&self) -> bool {
        self.md5.is_some() || !self.checksums.is_empty() || !self.wanted.is_empty()
    }
}

/// A body that is not what was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mismatch {
    #[error("The Content-MD5 you specified did not match what we received")]
    Md5,
    #[error("The {} you specified did not match what we received", .0.name())]
    Checksum(Algorithm),
    #[error("The body is shorter or longer than announced")]
    Length,
}

/// Running digests of one body.
pub(crate) struct Digests {
    /// The ETag, where nothing stronger was announced: half of a put's work otherwise.
    md5: Option<Md5>,
    rest: ChecksumHasher,
    length: u64,
}

/// The digests of a complete body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sums {
    pub length: u64,
    pub md5: Option<[u8; 16]>,
    pub checksums: Checksums,
}

impl Digests {
    pub(crate) fn new(announced: &Announced) -> Self {
        let needs = |algorithm| announced.needs(algorithm);
        Self {
            md5: announced.needs_md5().then(Md5::new),
            rest: ChecksumHasher {
                crc32: needs(Algorithm::Crc32).then(Crc32::new),
                crc32c: needs(Algorithm::Crc32c).then(Crc32c::new),
                crc64nvme: needs(Algorithm::Crc64Nvme).then(Crc64Nvme::new),
                sha1: needs(Algorithm::Sha1).then(Sha1::new),
                sha256: needs(Algorithm::Sha256).then(Sha256::new),
            },
            length: 0,
        }
    }
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        self.rest.update(bytes);
        self.length += bytes.len() as u64;
    }
    pub(crate) fn finish(self) -> Sums {
        let sums = self.rest.finalize();
        let checksums = Checksums {
            crc32: sums.checksum_crc32,
            crc32c: sums.checksum_crc32c,
            crc64nvme: sums.checksum_crc64nvme,
            sha1: sums.checksum_sha1,
            sha256: sums.checksum_sha256,
            composite: false,
        };
        Sums { length: self.length, md5: self.md5.map(|md5| md5.finalize().into()), checksums }
    }
}

impl Sums {
    /// The MD5 in hex as S3 has it; else the announced SHA-256, whose length tells a client that it is no MD5.
    pub(crate) fn etag(&self) -> String {
        let sha256 =
            || self.checksums.get(Algorithm::Sha256).and_then(|sum| STANDARD.decode(sum).ok());
        self.md5.map_or_else(|| hex::encode(sha256().unwrap_or_default()), hex::encode)
    }
    /// Compares with the announcement, whose trailer values must have been filled in by now.
    pub(crate) fn check(&self, announced: &Announced) -> Result<(), Mismatch> {
        if announced.length.is_some_and(|length| length != self.length) {
            return Err(Mismatch::Length);
        }
        if announced.md5.is_some() && announced.md5 != self.md5 {
            return Err(Mismatch::Md5);
        }
        for algorithm in Algorithm::ALL {
            let wanted = announced.checksums.get(algorithm);
            if wanted.is_some() && wanted != self.checksums.get(algorithm) {
                return Err(Mismatch::Checksum(algorithm));
            }
        }
        Ok(())
    }
}

/// The checksum of a multipart object: over the parts' checksums, or (CRCs only) over the whole
/// body, combined. `None` when a part lacks its value.
pub(crate) fn combine<'a>(
    algorithm: Algorithm,
    full_object: bool,
    parts: impl Iterator<Item = (&'a Checksums, u64)>,
) -> Option<String> {
    let mut values = Vec::new();
    for (sums, length) in parts {
        values.push((STANDARD.decode(sums.get(algorithm)?).ok()?, length));
    }
    if full_object {
        return combine_crc(algorithm, &values);
    }
    let wanted = Announced { wanted: vec![algorithm], ..Announced::default() };
    let mut digests = Digests::new(&wanted);
    for (value, _) in &values {
        digests.update(value);
    }
    let sum = digests.finish().checksums.get(algorithm)?.to_owned();
    Some(format!("{sum}-{}", values.len()))
}

fn combine_crc(algorithm: Algorithm, values: &[(Vec<u8>, u64)]) -> Option<String> {
    let crc = algorithm.crc()?;
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    let (first, rest) = values.split_first()?;
    let width = first.0.len();
    let total = rest.iter().fold(number(&first.0), |sum, (value, length)| {
        crc_fast::checksum_combine(crc, sum, number(value), *length)
    });
    Some(STANDARD.encode(&total.to_be_bytes()[8 - width..]))
}

/// The ETag of a multipart object, without quotes.
pub(crate) fn multipart_etag<'a>(parts: impl Iterator<Item = &'a [u8; 16]>) -> String {
    let mut md5 = Md5::new();
    let mut count = 0_usize;
    for part in parts {
        md5.update(part);
        count += 1;
    }
    format!("{}-{count}", hex::encode(md5.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums_of(bytes: &[u8]) -> Sums {
        let wanted = Announced { wanted: Algorithm::ALL.to_vec(), ..Announced::default() };
        let mut digests = Digests::new(&wanted);
        digests.update(bytes);
        digests.finish()
    }

    #[test]
    fn crcs_of_parts_combine_to_the_crc_of_the_whole() {
        let whole = sums_of(b"hello, world of parts");
        let (one, two) = (sums_of(b"hello, "), sums_of(b"world of parts"));
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let parts = [(&one.checksums, one.length), (&two.checksums, two.length)];
            let combined = combine(algorithm, true, parts.into_iter());
            assert_eq!(combined.as_deref(), whole.checksums.get(algorithm), "{algorithm:?}");
        }
        let parts = [(&one.checksums, one.length)];
        assert_eq!(combine(Algorithm::Sha256, true, parts.into_iter()), None);
    }

    #[test]
    fn a_body_that_differs_from_any_announced_digest_is_refused() {
        let sums = sums_of(b"body");
        let other = sums_of(b"other").checksums;
        for algorithm in Algorithm::ALL {
            let mut announced = Announced::default();
            announced.checksums.set(algorithm, other.get(algorithm).expect("wanted").to_owned());
            assert_eq!(sums.check(&announced), Err(Mismatch::Checksum(algorithm)));
        }
        let announced = Announced { md5: Some([0; 16]), ..Announced::default() };
        assert_eq!(sums.check(&announced), Err(Mismatch::Md5));
        let announced = Announced { length: Some(5), ..Announced::default() };
        assert_eq!(sums.check(&announced), Err(Mismatch::Length));
    }
}
