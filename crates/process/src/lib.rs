//! What every process of ours shares: configuration, telemetry, lifecycle.
//!
//! Owns the only reads of the environment ([`config`]), the subscriber and the trace context
//! ([`telemetry`]), and stopping in time ([`lifecycle`]). It must not know roles, tables or agents.

pub mod config;
pub mod lifecycle;
pub mod telemetry;
