//! Faults by enumeration: at every change of state of every operation, every fault that makes sense there.
//!
//! `make fault` runs a fixed sample, `make fault LONG=1` more than a thousand points. Without the feature `points`
//! there is nothing here: shipped code has no fault points.
#![cfg(feature = "points")]

mod acts;
mod front;
mod laws;
mod machine;
mod plan;
mod planted;
mod runner;
mod wire;
mod world;

use std::path::Path;

/// What the maker of a run asked for.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration of their own")]
fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Everything, instead of a sample: `make fault LONG=1`.
fn long() -> bool {
    asked("FAULT_LONG").is_some()
}

/// For `scripts/fault_report.py`, beside the other products of a build.
fn keep(name: &str, long: bool, figures: &impl serde::Serialize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fault");
    std::fs::create_dir_all(&folder).expect("folder");
    let file = folder.join(format!("{name}{}.json", if long { ".long" } else { "" }));
    std::fs::write(file, serde_json::to_string_pretty(figures).expect("json")).expect("figures");
}
