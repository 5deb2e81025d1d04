//! The auth role through its front door, on a real PostgreSQL, as its own login role.

mod agents;
mod app;
mod bootstrapping;
mod enrolment;
mod openapi;
mod own;
mod schema;
mod sessions;
mod tenancy;
mod tenants;
mod tokens;
mod users;
