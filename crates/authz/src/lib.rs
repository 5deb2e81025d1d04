//! Who may do what: actors, roles, the closed list of actions, and one pure decision.
//!
//! Owns [`decide`] and the only way to a [`Permit`]. Invariant: everything is denied unless the action's
//! own line names the role, and what belongs to another tenant is hidden, not refused. It must not know
//! HTTP, SQL or tasks; the role × action matrix is a golden file.

mod action;
mod actor;
mod decide;
mod permit;
mod role;

pub use action::{Action, ActionName, actions};
pub use actor::{Actor, TenantKind, User};
pub use decide::{Decision, Resource, decide};
pub use permit::{Permit, Refusal, Scope, ScopeReason};
pub use role::Role;
