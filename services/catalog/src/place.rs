//! Bytes into a store, so that they count: these very bytes, this version, under a lock that is long enough.
//!
//! Invariant: what [`put`] answers was said by the store itself after the write; an object that has the name and is not
//! these bytes is left where it is, and gets a newer version beside it.

use bytes::Bytes;
use domain::Timestamp;
use vault::{
    id::Sha256,
    store::{ObjectFacts, S3Store, StoreError},
};

use crate::{error::Error, objects};

/// A version of an object under lock, as the store reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub version: String,
    pub lock_until: Timestamp,
}

/// Puts an object, or finds it there from an earlier try whose answer was lost.
///
/// # Errors
/// The store's; `Broken` when it does not hold what it took.
pub async fn put(
    store: &S3Store,
    key: &str,
    bytes: &Bytes,
    until: Timestamp,
) -> Result<Placed, Error> {
    let version = match store.put_locked(key, bytes.clone(), until).await {
        Ok(version) => Some(version),
        Err(StoreError::AlreadyExists) => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(placed) = look(store, key, version.as_deref(), bytes, until).await? {
        return Ok(placed);
    }
    put_anew(store, key, bytes, until).await
}

/// Puts an object as a new version beside what has its name.
///
/// # Errors
/// As [`put`].
pub async fn put_anew(
    store: &S3Store,
    key: &str,
    bytes: &Bytes,
    until: Timestamp,
) -> Result<Placed, Error> {
    let version = store.put_locked_anew(key, bytes.clone(), until).await?;
    let placed = look(store, key, Some(&version), bytes, until).await?;
    placed.ok_or_else(|| Error::broken("a store does not hold what it took", key.to_owned()))
}

/// Whether the version (the newest one without) is these bytes; its lock is made as long as it should be.
async fn look(
    store: &S3Store,
    key: &str,
    version: Option<&str>,
    bytes: &Bytes,
    until: Timestamp,
) -> Result<Option<Placed>, Error> {
    let Some(facts) = store.head(key, version).await? else { return Ok(None) };
    if !is_it(store, key, &facts, bytes).await? {
        return Ok(None);
    }
    let version = facts.version_id.clone();
    let lock_until = match objects::compliance_until(&facts) {
        Some(known) if known >= until => known,
        Some(_) | None => store.extend_lock(key, &version, until).await?,
    };
    if lock_until < until {
        return Err(Error::broken("a store locks for less long than asked for", key.to_owned()));
    }
    Ok(Some(Placed { version, lock_until }))
}

/// By the checksum the store verified when it took the object; by reading it where the store keeps none.
async fn is_it(
    store: &S3Store,
    key: &str,
    facts: &ObjectFacts,
    bytes: &Bytes,
) -> Result<bool, Error> {
    if facts.length != bytes.len() as u64 {
        return Ok(false);
    }
    if let Some(sha256) = facts.sha256 {
        return Ok(sha256 == Sha256::of(bytes).0);
    }
    Ok(store.get(key, &facts.version_id).await? == *bytes)
}

/// The bytes of a version, if they are what their name says.
///
/// # Errors
/// Why not, in words: told to people, and no reason to stop copying the others. Outer: the store does not answer.
pub async fn get(
    store: &S3Store,
    key: &str,
    version: &str,
    sha256: &[u8],
) -> Result<Result<Bytes, String>, Error> {
    match store.get(key, version).await {
        Ok(bytes) if Sha256::of(&bytes).0[..] == *sha256 => Ok(Ok(bytes)),
        Ok(bytes) => {
            Ok(Err(format!("{key}: {} bytes that are not what the name says", bytes.len())))
        }
        Err(StoreError::NotFound) => Ok(Err(format!("{key}: it is not there"))),
        Err(error) => Err(error.into()),
    }
}
