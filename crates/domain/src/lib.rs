//! The words of Everhold: ids, time, runs, retention, units.
//!
//! Owns the meaning of every term in `docs/glossary.md`. Everything here is pure: time, ids and
//! randomness are arguments ([`Clock`], [`IdGen`]), so that every rule can be tested by time travel.
//! It knows nothing of HTTP, SQL, files or tasks.

pub mod id;
pub mod retention;
pub mod run;
pub mod source;
pub mod time;

pub use id::{
    AgentId, EventId, HoldId, Id, IdGen, Kind, PackId, ParseIdError, PolicyId, RunId, SeededIds,
    SessionId, SnapshotId, SystemIds, TenantId, TokenId, UserId, VaultId, WorkloadId,
};
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
