//! The vault's second copy, as a restore meets it: asked for what the first store does not give, or not intact.
//!
//! Owns when it is asked and the figures that are told. Invariant: verification never asks it, for then a damaged first
//! copy would look sound.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use api::catalog::{PresignedRequest, ReadGrant};
use bytes::Bytes;

use super::source::Caching;

/// So many failures of the first store in a row, and the second is asked first: waiting for each again would take hours.
const GIVEN_UP: u32 = 3;

/// See the module. Shared by everything that reads one snapshot.
#[derive(Debug)]
pub struct SecondCopy {
    is_asked: bool,
    failures: AtomicU32,
    reads: AtomicU64,
    bytes: AtomicU64,
}

impl SecondCopy {
    /// For a reader that may use caches: it wants the bytes, from wherever. One that goes past them wants to know about
    /// the first store.
    pub fn when(caching: Caching) -> Arc<Self> {
        Arc::new(Self {
            is_asked: caching == Caching::Use,
            failures: AtomicU32::new(0),
            reads: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }

    /// How the second copy of this object is read, if it may be.
    pub const fn of<'g>(&self, grant: &'g ReadGrant) -> Option<&'g PresignedRequest> {
        if self.is_asked { grant.second.as_ref() } else { None }
    }

    /// The first store gave up what was asked of it, or not.
    pub fn first_said(&self, is_good: bool) {
        if is_good {
            self.failures.store(0, Ordering::Relaxed);
        } else {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether to ask the second one before the first.
    pub fn is_better(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= GIVEN_UP
    }

    /// The second copy gave these.
    pub fn gave(&self, bytes: &Bytes) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }

    /// Reads and bytes that came from it.
    pub fn figures(&self) -> (u64, u64) {
        (self.reads.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}
