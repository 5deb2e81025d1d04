//! Every crate we ship with has a licence of `deny.toml`'s list, and comes from the one registry.

use std::fs;

use cargo_metadata::MetadataCommand;
use spdx::{Expression, ParseMode};

fn allowed() -> Vec<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deny.toml"))
        .expect("deny.toml");
    let (_, list) = text.split_once("allow = [").expect("the list of licences");
    let (list, _) = list.split_once(']').expect("its end");
    list.lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split('"').next().map(str::to_owned))
        .collect()
}

#[test]
fn every_dependency_may_be_shipped_under_apache_2() {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .exec()
        .expect("cargo metadata");
    let allowed = allowed();
    for package in &metadata.packages {
        let licence = package.license.as_deref().unwrap_or("none given");
        let expression = Expression::parse_mode(licence, ParseMode::LAX)
            .unwrap_or_else(|e| panic!("{} {}: {licence}: {e}", package.name, package.version));
        let fine = expression.evaluate(|wanted| allowed.contains(&wanted.to_string()));
        assert!(fine, "{} {} is under {licence}", package.name, package.version);
        let ours_or_registry =
            package.source.as_ref().is_none_or(|s| s.repr.starts_with("registry+"));
        assert!(ours_or_registry, "{} comes from {:?}", package.name, package.source);
    }
}
