//! The catalog through its real router, on real Postgres and the real embedded store.

mod browse;
mod collection;
mod commit;
mod crash;
mod packs;
mod race;
mod sessions;
mod support;
mod tenancy;
mod vaults;
