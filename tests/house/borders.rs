//! The borders of `docs/architecture.md`: a dependency edge that is not in the table below fails.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

const SERVICES: [&str; 5] = ["audit", "auth", "billing", "catalog", "scheduler"];

/// Crate → what of ours it may use in shipped code.
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    let service = ["runtime", "pg", "authz", "api", "process", "domain"];
    let mut table = BTreeMap::from([
        ("domain", vec![]),
        ("authz", vec!["domain"]),
        ("vault", vec!["domain", "faults"]),
        // Nothing, in every build that ships: `faults.rs` beside this file.
        ("faults", vec![]),
        ("everhold-faults", vec!["faults"]),
        ("api", vec!["domain"]),
        ("process", vec!["domain"]),
        ("pg", vec!["authz", "domain"]),
        ("runtime", vec!["pg", "authz", "api", "process", "domain"]),
        ("devstore", vec!["process", "domain"]),
        ("everhold-agent", vec!["vault", "api", "process", "domain", "faults"]),
        ("everhold", {
            let mut uses = vec!["runtime", "devstore", "vault", "api", "process", "pg", "domain"];
            uses.extend(SERVICES);
            uses
        }),
        ("everhold-tests", vec![]),
        // Only ever a dev-dependency, which `shipped_code_never_uses_the_testkit` checks.
        (
            "testkit",
            vec!["runtime", "pg", "authz", "api", "process", "domain", "vault", "devstore"],
        ),
    ]);
    for name in SERVICES {
        table.insert(name, service.to_vec());
    }
    table.entry("catalog").or_default().extend(["vault", "faults"]);
    table
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata")
}

fn edges(metadata: &Metadata, kind: DependencyKind) -> Vec<(String, String)> {
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let of = |package: &cargo_metadata::Package| {
        let wanted =
            |d: &&cargo_metadata::Dependency| d.kind == kind && ours.contains(d.name.as_str());
        package
            .dependencies
            .iter()
            .filter(wanted)
            .map(|d| (package.name.to_string(), d.name.clone()))
            .collect::<Vec<_>>()
    };
    metadata.packages.iter().flat_map(of).collect()
}

#[test]
fn every_dependency_between_our_crates_is_one_the_architecture_allows() {
    let (metadata, allowed) = (metadata(), allowed());
    let known: BTreeSet<&str> = allowed.keys().copied().collect();
    let present: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(present, known, "a crate without a place in the table");
    for (from, to) in edges(&metadata, DependencyKind::Normal) {
        assert!(allowed[from.as_str()].contains(&to.as_str()), "{from} must not use {to}");
    }
}

#[test]
fn shipped_code_never_uses_the_testkit() {
    let metadata = metadata();
    for (from, to) in edges(&metadata, DependencyKind::Normal) {
        assert_ne!(to, "testkit", "{from} ships the testkit");
    }
    for (from, to) in edges(&metadata, DependencyKind::Development) {
        // The whole, put together to be broken.
        if from == "everhold-faults" {
            continue;
        }
        let fine = ["testkit", "devstore", "vault", "api", "domain"].contains(&to.as_str());
        assert!(fine, "{from} tests with {to}: services never see each other, not even in tests");
    }
}

#[test]
fn the_engine_knows_no_database_and_no_web_and_the_words_know_no_runtime() {
    let metadata = metadata();
    let uses = |name: &str| -> BTreeSet<String> {
        let package = metadata.packages.iter().find(|p| p.name == name).expect("known crate");
        let shipped =
            |d: &&cargo_metadata::Dependency| d.kind == DependencyKind::Normal && !d.optional;
        package.dependencies.iter().filter(shipped).map(|d| d.name.clone()).collect()
    };
    for (name, banned) in [
        ("vault", &["sqlx", "axum", "tokio", "reqwest", "aws-sdk-s3"][..]),
        ("domain", &["tokio", "futures", "sqlx", "axum", "reqwest"][..]),
        ("authz", &["tokio", "futures", "sqlx", "axum", "reqwest"][..]),
        ("everhold-agent", &["sqlx", "axum", "aws-sdk-s3"][..]),
    ] {
        let used = uses(name);
        for crate_name in banned {
            assert!(!used.contains(*crate_name), "{name} must not use {crate_name}");
        }
    }
}
