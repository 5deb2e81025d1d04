//! Lists `migrations/<set>/*.sql` so that the binary carries them.

use std::{fmt::Write as _, fs, path::Path};

const SETS: [&str; 6] = ["app", "auth", "catalog", "scheduler", "audit", "billing"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
    let mut code = String::from("pub(crate) static SETS: &[(&str, &[(&str, &str)])] = &[\n");
    for set in SETS {
        let folder = root.join(set);
        println!("cargo::rerun-if-changed={}", folder.display());
        let mut files: Vec<_> = match fs::read_dir(&folder) {
            Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()).collect(),
            Err(_) => Vec::new(),
        };
        files.retain(|path| path.extension().is_some_and(|ext| ext == "sql"));
        files.sort();
        writeln!(code, "    ({set:?}, &[")?;
        for file in files {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            writeln!(code, "        ({name:?}, include_str!({:?})),", file.canonicalize()?)?;
        }
        code.push_str("    ]),\n");
    }
    code.push_str("];\n");
    // Cargo tells build scripts, and only them, where to write by the environment.
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    fs::write(Path::new(&out).join("migrations.rs"), code)?;
    Ok(())
}
