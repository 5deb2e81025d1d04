//! Lists `migrations/<set>/*.sql` so that the binary carries them.

use std::{fmt::Write as _, fs, path::Path};

const SETS: [&str; 6] = ["app", "auth", "catalog", "scheduler", "audit", "billing"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo tells build scripts, and only them, by the environment where they are and where to write.
    let told = |name| std::env::var_os(name).ok_or("cargo tells build scripts where they are");
    let root = Path::new(&told("CARGO_MANIFEST_DIR")?).join("../../migrations");
    let mut code = String::from("pub(crate) static SETS: &[(&str, &[(&str, &str)])] = &[\n");
    for set in SETS {
        let folder = root.join(set);
        println!("cargo::rerun-if-changed={}", folder.display());
        let entries = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path()));
        let mut files = entries.collect::<std::io::Result<Vec<_>>>()?;
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
    fs::write(Path::new(&told("OUT_DIR")?).join("migrations.rs"), code)?;
    Ok(())
}
