//! Claims about the foundation, on real PostgreSQL and through the real edge: transactions, outbox,
//! migrations, row security, identities, problems. One binary: linking costs more than running.
#![expect(clippy::unwrap_used, reason = "tests say what went wrong by panicking")]

mod edge;
mod migrations;
mod outbox;
mod proxy;
mod sample;
mod signatures;
mod transactions;
