//! The warrant without which nothing is deleted (R4).
//!
//! Owns [`DeleteWarrant`], which only [`warrant`] can make, and the conditions it checks. Invariant:
//! a warrant names one version of one object whose row is `deleting` (or, for a second copy, `deleted`), whose lock and grace are over
//! and which no live reference and no older session can name. It must not know SQL or S3: the proof
//! is what a transaction on the primary read, the warrant is what the reaper may carry out.

use std::time::Duration;

use domain::{PackId, Timestamp};

/// The state the pack's row was read in. Closed: only one of them may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProvenState {
    /// Condemned long enough ago and claimed by the reaper; never named by a commit any more.
    Deleting,
    /// Gone from the first store, by a warrant of its own; this one is about the second copy.
    Deleted,
    /// Anything else.
    Other,
}

/// What one transaction on the primary read about a pack, under its row lock.
#[derive(Debug, Clone)]
pub struct CondemnedProof {
    pub pack: PackId,
    /// Object key in the vault bucket.
    pub key: String,
    /// The version to delete; never "the newest".
    pub version_id: String,
    pub state: ProvenState,
    /// As the store last reported it.
    pub lock_until: Timestamp,
    pub condemned_at: Timestamp,
    /// How long a pack stays condemned at least (7 days by default).
    pub grace: Duration,
    /// Committed, unexpired snapshots (and whatever counts as such) that name the pack.
    pub live_references: u64,
    /// Sessions of the vault still open that were opened before the condemning.
    pub older_sessions: u64,
}

/// Why a pack may not be deleted now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Protected {
    #[error("the pack is not in state deleting")]
    State,
    #[error("the pack is locked until {until}")]
    Locked { until: Timestamp },
    #[error("the pack's grace lasts until {until}")]
    Grace { until: Timestamp },
    #[error("{count} snapshots still name the pack")]
    Referenced { count: u64 },
    #[error("{count} sessions older than the condemning are still open")]
    OlderSessions { count: u64 },
    #[error("the object's key or version id is missing")]
    Unnamed,
}

/// Permission to delete one version of one object. Cannot be made, copied or kept by hand: it is
/// consumed by reference in [`crate::store::S3Store::delete_version`] and has no public fields.
#[derive(Debug)]
pub struct DeleteWarrant {
    pack: PackId,
    key: String,
    version_id: String,
    issued_at: Timestamp,
}

impl DeleteWarrant {
    pub fn pack(&self) -> PackId {
        self.pack
    }
    pub fn key(&self) -> &str {
        &self.key
    }
    pub fn version_id(&self) -> &str {
        &self.version_id
    }
    pub fn issued_at(&self) -> Timestamp {
        self.issued_at
    }
}

/// Issues a warrant, or says what still protects the pack. `now` is server time.
pub fn warrant(proof: CondemnedProof, now: Timestamp) -> Result<DeleteWarrant, Protected> {
    if proof.key.is_empty() || proof.version_id.is_empty() {
        return Err(Protected::Unnamed);
    }
    if proof.state == ProvenState::Other {
        return Err(Protected::State);
    }
    if proof.live_references > 0 {
        return Err(Protected::Referenced { count: proof.live_references });
    }
    if proof.older_sessions > 0 {
        return Err(Protected::OlderSessions { count: proof.older_sessions });
    }
    if proof.lock_until > now {
        return Err(Protected::Locked { until: proof.lock_until });
    }
    let grace_until = proof.condemned_at + proof.grace;
    if grace_until > now {
        return Err(Protected::Grace { until: grace_until });
    }
    let CondemnedProof { pack, key, version_id, .. } = proof;
    Ok(DeleteWarrant { pack, key, version_id, issued_at: now })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: u64) -> Timestamp {
        Timestamp::from_unix_millis(day * 86_400_000)
    }
    fn proof() -> CondemnedProof {
        CondemnedProof {
            pack: PackId::from_bytes([7; 16]),
            key: "v1/ten/vlt/data/x".into(),
            version_id: "v".into(),
            state: ProvenState::Deleting,
            lock_until: at(10),
            condemned_at: at(5),
            grace: Duration::from_secs(7 * 86_400),
            live_references: 0,
            older_sessions: 0,
        }
    }

    #[test]
    fn a_warrant_needs_every_protection_to_be_over() {
        let issued = warrant(proof(), at(12)).expect("all over");
        assert_eq!(issued.version_id(), "v");
        let grace = Err(Protected::Grace { until: at(12) });
        assert_eq!(warrant(proof(), at(11)).map(|_| ()), grace);
        let locked = CondemnedProof { lock_until: at(13), ..proof() };
        let until = Err(Protected::Locked { until: at(13) });
        assert_eq!(warrant(locked, at(12)).map(|_| ()), until);
        let other = CondemnedProof { state: ProvenState::Other, ..proof() };
        assert_eq!(warrant(other, at(12)).map(|_| ()), Err(Protected::State));
        let named = CondemnedProof { live_references: 1, ..proof() };
        let count = Err(Protected::Referenced { count: 1 });
        assert_eq!(warrant(named, at(12)).map(|_| ()), count);
        let open = CondemnedProof { older_sessions: 2, ..proof() };
        let count = Err(Protected::OlderSessions { count: 2 });
        assert_eq!(warrant(open, at(12)).map(|_| ()), count);
        let unnamed = CondemnedProof { version_id: String::new(), ..proof() };
        assert_eq!(warrant(unnamed, at(12)).map(|_| ()), Err(Protected::Unnamed));
    }
}
