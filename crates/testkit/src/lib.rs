//! Real parts for tests: a PostgreSQL cluster per run, a database per test, roles in process, actors.
//!
//! Owns [`TestApp`] and [`TestDb`]. Invariant: tests connect as the roles' login roles, sign real
//! signatures and real tokens, and stand in a time they move themselves. It knows no service: roles come
//! in as closures. A dev-dependency only.

mod actors;
mod app;
mod auth_stand_in;
mod cluster;
mod database;
pub mod proxy;
pub mod schema;
mod scratch;
mod spoil;

pub use actors::TestAgent;
pub use app::{TestApp, TestAppBuilder};
pub use database::TestDb;
pub use scratch::scratch;
pub use spoil::spoil;

/// Reads a JSON answer's problem code.
#[must_use]
pub fn code(result: &Result<serde_json::Value, api::client::Error>) -> Option<api::Code> {
    result.as_ref().err().and_then(api::client::Error::code)
}
