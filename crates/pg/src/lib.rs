//! The only door to PostgreSQL.
//!
//! Owns connections, the three kinds of transaction ([`TenantTx`], [`LookupTx`], [`SystemTx`]), errors by
//! SQLSTATE, migrations and the outbox. Invariant: no statement runs without a tenant, a lookup key or a
//! named reason in the transaction, and nothing commits without an audit event or a reason of a closed
//! list (R7, R8). Pools never leave this crate. It must not know HTTP or what the tables mean.

mod db;
mod error;
mod event;
pub mod migrate;
pub mod outbox;
mod schema;
mod tx;
pub mod types;

pub use authz::{Scope, ScopeReason};
pub use db::{Db, DbConfig};
pub use error::{Error, ExpectRows};
pub use event::AuditEvent;
pub use schema::Schema;
pub use tx::{LookupTx, OperationalReason, SystemReason, SystemTx, TenantTx};
