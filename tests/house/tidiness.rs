//! What no file of ours may hold, and how long a file may grow.

use std::{fs, path::PathBuf, process::Command};

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn tracked() -> Vec<(String, String)> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output()
        .expect("git runs");
    let names = String::from_utf8(output.stdout).expect("our own names are UTF-8");
    names
        .split('\0')
        .filter(|name| !name.is_empty())
        .filter_map(|name| Some((name.to_owned(), fs::read_to_string(root().join(name)).ok()?)))
        .collect()
}

#[test]
fn no_source_file_grows_beyond_its_room() {
    for (name, text) in tracked() {
        let ours = [".rs", ".ts", ".tsx", ".py", ".sh"].iter().any(|ending| name.ends_with(ending));
        let generated = name.ends_with(".d.ts") || name.contains("gen.ts");
        let lines = text.lines().count();
        assert!(!ours || generated || lines <= 800, "{name} has {lines} lines: split it");
    }
}

#[test]
fn no_file_names_a_registry_host_or_a_key() {
    // Spelled in halves, so that this file does not name them either.
    let banned = [
        ["registry.npmjs", ".org"].concat(),
        ["files.python", "hosted.org"].concat(),
        ["static.crates", ".io"].concat(),
        ["deb.debian", ".org"].concat(),
        ["-----BEGIN PRIVATE", " KEY-----\n"].concat(),
    ];
    for (name, text) in tracked().into_iter().filter(|(name, _)| name != "Cargo.lock") {
        for word in &banned {
            assert!(!text.contains(word), "{name} holds {word}");
        }
    }
}

#[test]
fn every_rust_module_says_what_it_owns() {
    for (name, text) in tracked().into_iter().filter(|(name, _)| name.ends_with(".rs")) {
        assert!(text.starts_with("//!"), "{name} does not open with what it owns");
    }
}
