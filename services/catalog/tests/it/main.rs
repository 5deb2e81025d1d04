//! The catalog through its real router, on real Postgres and the real embedded store.

mod browse;
mod collection;
mod commit;
mod crash;
mod heal;
mod holds;
mod letting_go;
mod packs;
mod place;
mod race;
mod rebuild;
mod replica;
mod sessions;
mod steward;
mod support;
mod tenancy;
mod time_travel;
mod vaults;
