//! Receiving a body: streamed to disk, compared with what was announced, made durable.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderMap;
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders, dto::StreamingBlob, s3_error};

use super::Store;
use crate::{
    blobs::{Placed, WriteError},
    hashing::{Algorithm, Announced, Checksums, Mismatch, Sums},
};

/// Reads the announcement from a put's headers.
pub(super) fn announced(
    headers: &HeaderMap,
    content_md5: Option<&str>,
    checksums: Checksums,
    length: Option<i64>,
) -> S3Result<Announced> {
    let md5 = content_md5.map(parse_md5).transpose()?;
    for algorithm in Algorithm::ALL {
        if let Some(value) = checksums.get(algorithm) {
            STANDARD
                .decode(value)
                .map_err(|_| s3_error!(InvalidRequest, "a checksum header is not base64"))?;
        }
    }
    let named = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let mut wanted: Vec<_> =
        named("x-amz-sdk-checksum-algorithm").and_then(Algorithm::parse).into_iter().collect();
    for trailer in named("x-amz-trailer").unwrap_or_default().split(',') {
        let trailer = trailer.trim().to_ascii_lowercase();
        wanted.extend(trailer.strip_prefix("x-amz-checksum-").and_then(Algorithm::parse));
    }
    let length = length.map(u64::try_from).transpose().map_err(|_| s3_error!(InvalidRequest))?;
    Ok(Announced { md5, checksums, wanted, length, part: false })
}

fn parse_md5(text: &str) -> S3Result<[u8; 16]> {
    let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| s3_error!(InvalidDigest, "Content-MD5 is not the base64 of 16 bytes"))
}

impl Store {
    /// Takes in a body. The blob is durable but named by nothing yet.
    pub(super) async fn receive(
        &self,
        body: Option<StreamingBlob>,
        mut announced: Announced,
        trailers: Option<TrailingHeaders>,
    ) -> S3Result<(Placed, Sums)> {
        let written = match body {
            Some(body) => self.blobs.write(body, &announced).await,
            None => {
                let nothing = futures::stream::empty::<std::io::Result<bytes::Bytes>>();
                self.blobs.write(nothing, &announced).await
            }
        };
        let written = written.map_err(broken_body)?;
        fill_from_trailers(&mut announced, trailers)?;
        let sums = written.sums.clone();
        sums.check(&announced).map_err(mismatch)?;
        let placed = self.blobs.place(written).await.map_err(S3Error::internal_error)?;
        Ok((placed, sums))
    }
}

fn fill_from_trailers(
    announced: &mut Announced,
    trailers: Option<TrailingHeaders>,
) -> S3Result<()> {
    let Some(trailers) = trailers.and_then(|trailers| trailers.take()) else { return Ok(()) };
    for algorithm in Algorithm::ALL {
        let Some(value) = trailers.get(algorithm.header()) else { continue };
        let value =
            value.to_str().map_err(|_| s3_error!(InvalidRequest, "a trailer is not text"))?;
        announced.checksums.set(algorithm, value.to_owned());
    }
    Ok(())
}

fn mismatch(mismatch: Mismatch) -> S3Error {
    let code = match mismatch {
        Mismatch::Md5 | Mismatch::Checksum(_) => S3ErrorCode::BadDigest,
        Mismatch::Length => S3ErrorCode::IncompleteBody,
    };
    S3Error::with_message(code, mismatch.to_string())
}

fn broken_body(error: WriteError) -> S3Error {
    match error {
        WriteError::Disk(error) => S3Error::internal_error(error),
        WriteError::Body(error) => {
            // s3s does not export its stream errors, so their names are all there is to tell by.
            let text = format!("{error:?}");
            let code = if text.contains("Sha256Mismatch") {
                S3ErrorCode::BadDigest
            } else if text.contains("SignatureMismatch") {
                S3ErrorCode::SignatureDoesNotMatch
            } else {
                S3ErrorCode::IncompleteBody
            };
            S3Error::with_source(code, error)
        }
    }
}
