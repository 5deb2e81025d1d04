//! The rules of Object Lock, as pure functions.
//!
//! Owns: what a retention or legal hold forbids, and which changes of it are allowed. Invariant: a
//! COMPLIANCE date never comes nearer and nothing deletes before it; GOVERNANCE yields only to an
//! explicit bypass. It knows nothing of storage, keys or requests; time is an argument.

use domain::Timestamp;
use serde::{Deserialize, Serialize};

/// The two lock modes of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    Compliance,
    Governance,
}

impl Mode {
    /// From the text of a header or document; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "COMPLIANCE" => Some(Self::Compliance),
            "GOVERNANCE" => Some(Self::Governance),
            _ => None,
        }
    }
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compliance => "COMPLIANCE",
            Self::Governance => "GOVERNANCE",
        }
    }
}

/// A lock on one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    pub mode: Mode,
    pub until: Timestamp,
}

impl Retention {
    fn active(self, now: Timestamp) -> bool {
        self.until > now
    }
}

/// Whether the request carries (and its key may use) the bypass of GOVERNANCE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bypass {
    No,
    Governance,
}

/// Why a version may not be deleted or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the version is under legal hold")]
    LegalHold,
    #[error("the version is locked until {0}")]
    Locked(Timestamp),
    #[error("a lock can only be extended before {0}")]
    Shortened(Timestamp),
    #[error("the retain-until date must be in the future")]
    NotInFuture,
}

/// May this version be deleted (or, in an unversioned bucket, overwritten)?
pub fn may_delete(
    retention: Option<Retention>,
    legal_hold: bool,
    bypass: Bypass,
    now: Timestamp,
) -> Result<(), Refusal> {
    if legal_hold {
        return Err(Refusal::LegalHold);
    }
    match retention {
        Some(lock) if lock.active(now) => match (lock.mode, bypass) {
            (Mode::Governance, Bypass::Governance) => Ok(()),
            _ => Err(Refusal::Locked(lock.until)),
        },
        _ => Ok(()),
    }
}

/// May `current` be replaced by `new` (`None`: taken away)? `now` decides whether the current lock
/// still stands, `wall` whether the new date lies ahead; they differ after a clock jump.
pub fn may_replace(
    current: Option<Retention>,
    new: Option<Retention>,
    bypass: Bypass,
    now: Timestamp,
    wall: Timestamp,
) -> Result<(), Refusal> {
    if new.is_some_and(|lock| lock.until <= wall) {
        return Err(Refusal::NotInFuture);
    }
    let Some(current) = current.filter(|lock| lock.active(now)) else {
        return Ok(());
    };
    let stronger = new.is_some_and(|lock| {
        lock.until >= current.until
            && (lock.mode == Mode::Compliance || current.mode == Mode::Governance)
    });
    let bypassed = current.mode == Mode::Governance && bypass == Bypass::Governance;
    if stronger || bypassed { Ok(()) } else { Err(Refusal::Shortened(current.until)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_unix_millis(secs * 1000)
    }
    fn lock(mode: Mode, secs: u64) -> Option<Retention> {
        Some(Retention { mode, until: at(secs) })
    }
    use Mode::{Compliance, Governance};

    #[test]
    fn deletion_follows_the_table() {
        let now = at(100);
        let table = [
            (None, false, Bypass::No, true),
            (None, true, Bypass::Governance, false),
            (lock(Compliance, 101), false, Bypass::No, false),
            (lock(Compliance, 101), false, Bypass::Governance, false),
            (lock(Compliance, 100), false, Bypass::No, true),
            (lock(Governance, 101), false, Bypass::No, false),
            (lock(Governance, 101), false, Bypass::Governance, true),
            (lock(Governance, 101), true, Bypass::Governance, false),
            (lock(Governance, 99), false, Bypass::No, true),
            (lock(Compliance, 99), true, Bypass::No, false),
        ];
        for (retention, hold, bypass, allowed) in table {
            let answer = may_delete(retention, hold, bypass, now);
            assert_eq!(answer.is_ok(), allowed, "{retention:?} {hold} {bypass:?}");
        }
    }

    #[test]
    fn replacement_follows_the_table() {
        let now = at(100);
        let table = [
            (None, lock(Compliance, 101), Bypass::No, true),
            (None, lock(Compliance, 100), Bypass::No, false),
            (lock(Compliance, 200), lock(Compliance, 201), Bypass::No, true),
            (lock(Compliance, 200), lock(Compliance, 200), Bypass::No, true),
            (lock(Compliance, 200), lock(Compliance, 199), Bypass::Governance, false),
            (lock(Compliance, 200), lock(Governance, 300), Bypass::Governance, false),
            (lock(Compliance, 200), None, Bypass::Governance, false),
            (lock(Compliance, 99), lock(Governance, 101), Bypass::No, true),
            (lock(Compliance, 99), None, Bypass::No, true),
            (lock(Governance, 200), lock(Governance, 199), Bypass::No, false),
            (lock(Governance, 200), lock(Governance, 199), Bypass::Governance, true),
            (lock(Governance, 200), lock(Compliance, 200), Bypass::No, true),
            (lock(Governance, 200), lock(Compliance, 150), Bypass::No, false),
            (lock(Governance, 200), None, Bypass::No, false),
            (lock(Governance, 200), None, Bypass::Governance, true),
        ];
        for (current, new, bypass, allowed) in table {
            let answer = may_replace(current, new, bypass, now, now);
            assert_eq!(answer.is_ok(), allowed, "{current:?} -> {new:?} {bypass:?}");
        }
    }

    #[test]
    fn a_jumped_wall_clock_does_not_end_a_lock() {
        let answer = may_replace(
            lock(Compliance, 200),
            lock(Compliance, 9_100),
            Bypass::No,
            at(100),
            at(9_000),
        );
        assert_eq!(answer, Ok(()));
        let shorter = lock(Compliance, 9_001);
        let answer = may_replace(lock(Compliance, 9_100), shorter, Bypass::No, at(100), at(9_000));
        assert_eq!(answer, Err(Refusal::Shortened(at(9_100))));
    }
}
