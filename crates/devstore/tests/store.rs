//! The embedded store from outside: a real listener, real clients, a clock that can travel.

#[path = "store/attacks.rs"]
mod attacks;
#[path = "store/durability.rs"]
mod durability;
#[path = "store/harness.rs"]
mod harness;
#[path = "store/locks.rs"]
mod locks;
#[path = "store/objects.rs"]
mod objects;
#[path = "store/policies.rs"]
mod policies;
#[path = "store/torn.rs"]
mod torn;
