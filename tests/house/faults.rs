//! Fault points and planted bugs are in no build that could ship.

use std::{fs, path::Path};

use cargo_metadata::{DependencyKind, MetadataCommand};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn only_the_fault_tests_can_turn_fault_points_and_planted_bugs_on() {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    for package in &metadata.packages {
        let fault_tests = package.name.as_str() == "everhold-faults";
        for dependency in package.dependencies.iter().filter(|d| d.name == "faults") {
            assert!(dependency.features.is_empty(), "{} asks for faults' features", package.name);
        }
        for (name, turns_on) in &package.features {
            let any = turns_on
                .iter()
                .any(|f| f.starts_with("faults/") || f.starts_with("everhold-faults/"));
            assert!(!any || fault_tests, "feature {name} of {} turns faults on", package.name);
        }
        let default = package.features.get("default");
        let is_default = default.is_some_and(|features| !features.is_empty());
        let ours = fault_tests || package.name.as_str() == "faults";
        assert!(!ours || !is_default, "{} has features by default", package.name);
        // Nothing uses the fault tests, so nothing gets their features by unification.
        let uses = |d: &cargo_metadata::Dependency| {
            d.name == "everhold-faults" && d.kind == DependencyKind::Normal
        };
        assert!(!package.dependencies.iter().any(uses), "{} uses the fault tests", package.name);
    }
}

#[test]
fn a_build_without_debug_assertions_refuses_fault_points_and_planted_bugs() {
    let text = fs::read_to_string(root().join("crates/faults/src/lib.rs")).expect("our own");
    let refusal = "#[cfg(all(any(feature = \"points\", feature = \"bugs\"), not(debug_assertions)))]\ncompile_error!(";
    assert!(text.contains(refusal));
    // And no profile for shipping has them.
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("our own");
    assert!(!manifest.contains("debug-assertions"), "a profile changes debug assertions");
}

#[test]
fn no_way_to_build_what_ships_names_their_features() {
    for name in ["Makefile", "scripts/deps.sh", "scripts/test.sh"] {
        let text = fs::read_to_string(root().join(name)).expect("our own");
        for line in text.lines().filter(|line| line.contains("cargo") && line.contains("build")) {
            let feature = line.contains("--all-features") || line.contains("--features");
            assert!(!feature, "{name}: {line}");
        }
    }
}
