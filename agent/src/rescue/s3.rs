//! Any S3 endpoint, read-only, through object_store.
//!
//! Invariant: an answer that is not exactly the range asked for is an error, and so is a list that breaks off. Versions
//! named by manifests are asked for first, so that an object somebody overwrote later is still the right one; a copy of
//! the bucket elsewhere has other versions, and then the key alone must do: the hash decides in either case.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::{
    GetOptions, GetRange, ObjectStore as _,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use tokio::runtime::Handle;
use url::Url;
use vault::{
    listing::WholeLists,
    rescue::{Listed, Objects},
    snapshot::SourceError,
};

/// Who reads.
pub struct Key<'a> {
    pub region: &'a str,
    pub id: &'a str,
    pub secret: &'a str,
    pub token: Option<&'a str>,
}

/// One bucket.
pub struct S3 {
    store: AmazonS3,
    runtime: Handle,
    /// A version that a manifest names was there: this bucket has them.
    has_versions: AtomicBool,
    /// Versions that were not there, while none was.
    without: AtomicU32,
}

/// So many versions are asked for in vain before a bucket counts as a copy that has others. One that is missing in the
/// right bucket says nothing of the rest: it may have been repaired, or deleted.
const IN_VAIN: u32 = 16;

impl S3 {
    /// Speaks to nobody yet.
    pub fn connect(
        endpoint: &Url,
        bucket: &str,
        key: &Key<'_>,
        runtime: Handle,
    ) -> Result<Self, object_store::Error> {
        let mut builder = AmazonS3Builder::new()
            .with_http_connector(WholeLists::default())
            .with_endpoint(endpoint.as_str().trim_end_matches('/'))
            .with_allow_http(endpoint.scheme() == "http")
            .with_virtual_hosted_style_request(false)
            .with_bucket_name(bucket)
            .with_region(key.region)
            .with_access_key_id(key.id)
            .with_secret_access_key(key.secret);
        if let Some(token) = key.token {
            builder = builder.with_token(token);
        }
        let (has_versions, without) = (AtomicBool::new(false), AtomicU32::new(0));
        Ok(Self { store: builder.build()?, runtime, has_versions, without })
    }

    /// Whether no version that manifests name is here, so that the newest of each key must do.
    fn is_a_copy(&self) -> bool {
        !self.has_versions.load(Ordering::Relaxed)
            && self.without.load(Ordering::Relaxed) >= IN_VAIN
    }

    fn get(
        &self,
        key: &str,
        version: Option<&str>,
        range: Range<u64>,
    ) -> Result<Bytes, SourceError> {
        let (wanted, end) = (range.end - range.start, range.end);
        let path = Path::parse(key).map_err(|_| SourceError::Missing)?;
        let asked = GetOptions { version: version.map(str::to_owned), ..GetOptions::default() };
        let whole = GetOptions { head: true, ..asked.clone() };
        let asked = GetOptions { range: Some(GetRange::Bounded(range)), ..asked };
        self.runtime.block_on(async {
            let bytes = async { self.store.get_opts(&path, asked).await?.bytes().await };
            match bytes.await {
                Ok(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
                Ok(_) => Err(SourceError::Wrong),
                Err(object_store::Error::NotFound { .. }) => Err(SourceError::Missing),
                // A store refuses a range behind an object's end, and `object_store` does not say so apart.
                Err(error) => match self.store.get_opts(&path, whole).await {
                    Ok(found) if found.meta.size < end => Err(SourceError::Wrong),
                    _ => Err(SourceError::Failed(Box::new(error))),
                },
            }
        })
    }
}

impl Objects for S3 {
    fn list(&self, prefix: &str, each: &mut dyn FnMut(Listed)) -> Result<(), SourceError> {
        let path = Path::parse(prefix.trim_end_matches('/')).map_err(|_| SourceError::Missing)?;
        self.runtime
            .block_on(async {
                let mut lines = self.store.list(Some(&path));
                while let Some(line) = lines.try_next().await? {
                    each(Listed { key: line.location.to_string(), length: line.size });
                }
                Ok(())
            })
            .map_err(|error: object_store::Error| SourceError::Failed(Box::new(error)))
    }

    fn read(
        &self,
        key: &str,
        version: Option<&str>,
        range: Range<u64>,
    ) -> Result<Bytes, SourceError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let Some(version) = version.filter(|_| !self.is_a_copy()) else {
            return self.get(key, None, range);
        };
        match self.get(key, Some(version), range.clone()) {
            Ok(bytes) => {
                self.has_versions.store(true, Ordering::Relaxed);
                Ok(bytes)
            }
            Err(error) => {
                let unknown = matches!(error, SourceError::Missing);
                let bytes = self.get(key, None, range).map_err(|_| error)?;
                // A store that stumbled once knows its versions all the same.
                self.without.fetch_add(u32::from(unknown), Ordering::Relaxed);
                Ok(bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    /// A store that answers a request, as text, with a status line's end, headers and a body.
    fn store(answer: impl Fn(&str) -> (String, String) + Send + 'static, runtime: &Handle) -> S3 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut socket, _)) = listener.accept() {
                let mut asked = [0; 16_384];
                let length = socket.read(&mut asked).unwrap_or(0);
                let (head, body) = answer(&String::from_utf8_lossy(&asked[..length]));
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                );
                let _ = socket.write_all(answer.as_bytes());
            }
        });
        let key = Key { region: "us-east-1", id: "id", secret: "secret", token: None };
        S3::connect(&url, "bucket", &key, runtime.clone()).unwrap()
    }

    /// Of each object the store has a newest version and one that is named `old`.
    fn versions(asked: &str) -> (String, String) {
        let body = match asked {
            _ if asked.contains("versionId=old") => "old",
            _ if asked.contains("versionId=") => return ("404 Not Found".into(), String::new()),
            _ => "new",
        };
        ("206 Partial Content\r\ncontent-range: bytes 0-2/3".into(), body.into())
    }

    #[test]
    fn one_version_that_is_gone_says_nothing_of_the_others() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let store = store(versions, runtime.handle());
        let read = |version: &str| store.read("vaults/a", Some(version), 0..3).unwrap();
        for _ in 1..IN_VAIN {
            assert_eq!(read("gone"), "new", "the key alone must do");
        }
        assert_eq!(read("old"), "old", "what was written over it is not what is meant");
        (0..2 * IN_VAIN).for_each(|_| assert_eq!(read("gone"), "new"));
        assert_eq!(read("old"), "old");
    }

    #[test]
    fn a_copy_that_has_none_of_the_versions_is_asked_by_key_after_a_while() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let store = store(versions, runtime.handle());
        let read = |version: &str| store.read("vaults/a", Some(version), 0..3).unwrap();
        (0..IN_VAIN).for_each(|_| assert_eq!(read("gone"), "new"));
        assert_eq!(read("old"), "new", "no version is asked for any more");
    }

    #[test]
    fn an_object_that_was_cut_short_is_damaged_and_a_store_that_stumbles_is_not() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let cut = |asked: &str| match asked {
            _ if asked.starts_with("HEAD") => ("200 OK".into(), "ab".into()),
            _ => ("416 Range Not Satisfiable".into(), String::new()),
        };
        let ill = |asked: &str| match asked {
            _ if asked.starts_with("HEAD") => ("200 OK".into(), "abcdef".into()),
            _ => ("400 Bad Request".into(), String::new()),
        };
        let read = |store: S3| store.read("vaults/a", None, 3..6).unwrap_err();
        assert!(matches!(read(store(cut, runtime.handle())), SourceError::Wrong));
        assert!(matches!(read(store(ill, runtime.handle())), SourceError::Failed(_)));
    }

    #[test]
    fn who_rescues_is_told_of_a_list_that_breaks_off() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let list = |body: &str| {
            let body = body.to_owned();
            let store = store(move |_| ("200 OK".into(), body.clone()), runtime.handle());
            let mut names = Vec::new();
            store.list("vaults/", &mut |listed| names.push(listed.key)).map(|()| names)
        };
        let page = |says: &str| {
            let object = "<Contents><Key>vaults/a</Key><Size>3</Size>\
                <LastModified>2026-01-01T00:00:00Z</LastModified></Contents>";
            format!("<ListBucketResult>{object}{says}</ListBucketResult>")
        };
        let whole = list(&page("<IsTruncated>false</IsTruncated>")).unwrap();
        assert_eq!(whole, ["vaults/a"]);
        let html = "<html><body>Service temporarily unavailable</body></html>".to_owned();
        for torn in [page("<IsTruncated>true</IsTruncated>"), page(""), html, String::new()] {
            assert!(matches!(list(&torn), Err(SourceError::Failed(_))), "{torn}");
        }
    }
}
