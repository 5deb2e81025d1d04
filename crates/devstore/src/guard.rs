//! The guard against what a signature does not cover.
//!
//! Owns the check that every `x-amz-*` header of a request is among its signed headers, and that no
//! such parameter hides in the query of a presigned URL. Without it the holder of a presigned PUT
//! adds `x-amz-copy-source` and reads another tenant's object with the signer's rights. It must not
//! know policies or storage.

use http::{HeaderMap, Uri, header::AUTHORIZATION};

/// Why a signed request is refused before anything else is looked at.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsigned {
    #[error("There were headers present in the request which were not signed: {0}")]
    Header(String),
    #[error("{0} counts only as a signed header, not in the query")]
    Query(String),
    #[error("only AWS Signature Version 4 is accepted here")]
    NotV4,
}

/// How a request was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signed {
    V4,
    /// A presigned URL of Version 2, the default of some tools. It covers every `x-amz-*` header but
    /// not every parameter, so the caller must hold it to plain reads and writes.
    V2Url,
}

/// All that may stand in the query of a Version 2 URL.
const IN_V2_QUERY: [&str; 4] = ["awsaccesskeyid", "signature", "expires", "versionid"];

/// The query parameters a Version 4 signature itself consists of, and harmless ones SDKs add.
const IN_QUERY: [&str; 9] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
    "x-amz-content-sha256",
    "x-amz-checksum-mode",
];

/// Refuses a request with an `x-amz-*` header or parameter its signature does not bind.
/// Call it only for requests whose signature was verified; anonymous ones are refused elsewhere.
pub(crate) fn check(uri: &Uri, headers: &HeaderMap) -> Result<Signed, Unsigned> {
    if is_v2_url(uri, headers)? {
        return Ok(Signed::V2Url);
    }
    let signed = match (signed_in_query(uri)?, signed_in_header(headers)?) {
        (Some(_), Some(_)) | (None, None) => return Err(Unsigned::NotV4),
        (Some(list), None) | (None, Some(list)) => list,
    };
    for name in headers.keys().map(http::HeaderName::as_str) {
        // Its value enters the signature, or s3s compares it with the body: it can only restrict.
        let bound = name == "x-amz-content-sha256" || signed.iter().any(|known| known == name);
        if name.starts_with("x-amz-") && !bound {
            return Err(Unsigned::Header(name.to_owned()));
        }
    }
    Ok(Signed::V4)
}

fn is_v2_url(uri: &Uri, headers: &HeaderMap) -> Result<bool, Unsigned> {
    let names: Vec<_> = parameters(uri).map(|(name, _)| name).collect();
    if !names.iter().any(|name| name == "signature" || name == "awsaccesskeyid") {
        return Ok(false);
    }
    let known = names.iter().all(|name| IN_V2_QUERY.contains(&name.as_str()));
    if known && !headers.contains_key(AUTHORIZATION) { Ok(true) } else { Err(Unsigned::NotV4) }
}

/// Decoded names, in lower case, with their raw values.
fn parameters(uri: &Uri) -> impl Iterator<Item = (String, &str)> {
    uri.query().unwrap_or_default().split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(name).to_ascii_lowercase(), value)
    })
}

fn signed_in_header(headers: &HeaderMap) -> Result<Option<Vec<String>>, Unsigned> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Unsigned::NotV4)?;
    let rest = text.strip_prefix("AWS4-HMAC-SHA256").ok_or(Unsigned::NotV4)?;
    let list = rest
        .split(',')
        .find_map(|part| part.trim().strip_prefix("SignedHeaders="))
        .ok_or(Unsigned::NotV4)?;
    Ok(Some(split(list)))
}

fn signed_in_query(uri: &Uri) -> Result<Option<Vec<String>>, Unsigned> {
    let mut signed = None;
    for (name, value) in parameters(uri) {
        if name == "x-amz-signedheaders" {
            signed = Some(split(&percent_decode(value)));
        }
        if name.starts_with("x-amz-") && !IN_QUERY.contains(&name.as_str()) {
            return Err(Unsigned::Query(name));
        }
    }
    Ok(signed)
}

fn split(list: &str) -> Vec<String> {
    list.split(';').map(str::to_ascii_lowercase).collect()
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = (byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        if let Some(value) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            out.push(value);
            at += 3;
        } else {
            out.push(if byte == b'+' { b' ' } else { byte });
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESIGNED: &str =
        "http://h/b/k?X-Amz-Signature=0&X-Amz-SignedHeaders=host%3Bx-amz-meta-a";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse().expect("name"), v.parse().expect("value"))).collect()
    }
    fn uri(text: &str) -> Uri {
        text.parse().expect("uri")
    }

    #[test]
    fn a_presigned_request_may_carry_only_signed_amz_headers() {
        let good = headers(&[("x-amz-meta-a", "1"), ("content-type", "t"), ("if-match", "x")]);
        assert_eq!(check(&uri(PRESIGNED), &good), Ok(Signed::V4));
        for name in ["x-amz-copy-source", "x-amz-acl", "x-amz-object-lock-legal-hold"] {
            let bad = headers(&[(name, "v")]);
            assert_eq!(check(&uri(PRESIGNED), &bad), Err(Unsigned::Header(name.to_owned())));
        }
    }

    #[test]
    fn a_header_signed_request_may_carry_only_signed_amz_headers() {
        let auth = "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host;x-amz-date, Signature=0";
        let good = headers(&[("authorization", auth), ("x-amz-date", "d")]);
        assert_eq!(check(&uri("http://h/b/k"), &good), Ok(Signed::V4));
        let bad = headers(&[("authorization", auth), ("x-amz-copy-source", "b/k")]);
        assert!(matches!(check(&uri("http://h/b/k"), &bad), Err(Unsigned::Header(_))));
    }

    #[test]
    fn lock_parameters_in_the_query_are_refused_rather_than_dropped() {
        let hidden = format!("{PRESIGNED}&x-amz-object-lock%2Dmode=COMPLIANCE");
        assert!(matches!(check(&uri(&hidden), &HeaderMap::new()), Err(Unsigned::Query(_))));
    }

    #[test]
    fn older_signatures_are_held_short_and_double_ones_refused() {
        let v2 = headers(&[("authorization", "AWS key:signature")]);
        assert_eq!(check(&uri("http://h/b/k"), &v2), Err(Unsigned::NotV4));
        let old = uri("http://h/b/k?AWSAccessKeyId=a&Signature=s&Expires=1&versionId=v");
        assert_eq!(check(&old, &HeaderMap::new()), Ok(Signed::V2Url));
        let more = uri("http://h/b/k?AWSAccessKeyId=a&Signature=s&Expires=1&retention");
        assert_eq!(check(&more, &HeaderMap::new()), Err(Unsigned::NotV4));
        let auth = "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=0";
        let both = headers(&[("authorization", auth)]);
        assert_eq!(check(&uri(PRESIGNED), &both), Err(Unsigned::NotV4));
    }
}
