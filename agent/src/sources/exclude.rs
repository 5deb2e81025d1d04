//! What is left out, and why. Everything left out is told to the visitor, never just skipped.
//!
//! A pattern without a slash matches a name at any depth; one with a leading slash matches the whole
//! path; any other matches at the end of a path. A folder that matches is left out with all below it.

use std::{ffi::OsStr, fmt, os::unix::ffi::OsStrExt as _, path::Path};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Why an entry was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excluded {
    /// An `--exclude` pattern.
    Pattern,
    /// The agent's own state.
    AgentHome,
    /// `/proc`, `/sys`, `/dev`, `/run` and what is mounted like them.
    Virtual(&'static str),
    /// `--one-file-system`.
    OtherFileSystem,
    /// `--exclude-caches` and a CACHEDIR.TAG.
    Cache,
}

impl fmt::Display for Excluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern => f.write_str("matches an exclude pattern"),
            Self::AgentHome => f.write_str("the agent's own state"),
            Self::Virtual(name) => write!(f, "virtual file system ({name})"),
            Self::OtherFileSystem => f.write_str("another file system"),
            Self::Cache => f.write_str("a cache folder (CACHEDIR.TAG)"),
        }
    }
}

/// A pattern that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "the pattern {pattern:?} cannot be read: {reason}; quote literal * ? [ {{ with a backslash"
)]
pub struct PatternError {
    pub pattern: String,
    pub reason: String,
}

/// Compiled patterns.
#[derive(Debug, Clone, Default)]
pub struct GlobRules(GlobSet);

/// Compiles patterns to [`GlobRules`].
///
/// # Errors
/// The first pattern that cannot be read.
pub fn glob_rules<S: AsRef<str>>(patterns: &[S]) -> Result<GlobRules, PatternError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns.iter().map(AsRef::as_ref) {
        let bad = |error: &globset::Error| PatternError {
            pattern: pattern.to_owned(),
            reason: error.kind().to_string(),
        };
        let glob = GlobBuilder::new(&anchored(pattern))
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| bad(&error))?;
        set.add(glob);
    }
    let set = set.build().map_err(|error| PatternError {
        pattern: error.glob().unwrap_or_default().to_owned(),
        reason: error.kind().to_string(),
    })?;
    Ok(GlobRules(set))
}

/// The pattern over paths without leading slash. `/a` stays anchored, everything else floats.
fn anchored(pattern: &str) -> String {
    let plain = if pattern.len() > 1 { pattern.trim_end_matches('/') } else { pattern };
    match plain.strip_prefix('/') {
        Some(rest) => rest.to_owned(),
        None if plain.starts_with("**/") => plain.to_owned(),
        None => format!("**/{plain}"),
    }
}

impl GlobRules {
    /// Whether this very path (without leading slash) matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        !self.0.is_empty() && self.0.is_match(Path::new(OsStr::from_bytes(path)))
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Whether the path or a folder above it matches.
    pub fn matches_with_parents(&self, path: &[u8]) -> bool {
        if self.is_empty() {
            return false;
        }
        let folders = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        folders.filter_map(|(at, _)| path.get(..at)).any(|folder| self.matches(folder))
            || self.matches(path)
    }
}

/// Everything that decides what is left out.
#[derive(Debug, Clone, Default)]
pub struct Excludes {
    pub patterns: GlobRules,
    pub one_file_system: bool,
    pub caches: bool,
    /// Device and inode of the agent's own folder.
    pub agent_home: Option<(u64, u64)>,
}

/// Folders of the system that hold no files of anybody's.
pub fn virtual_by_path(path: &[u8]) -> Option<&'static str> {
    match path {
        b"proc" => Some("proc"),
        b"sys" => Some("sysfs"),
        b"dev" => Some("devices"),
        b"run" => Some("runtime state"),
        _ => None,
    }
}

/// File systems the kernel makes up, by their magic number (linux/magic.h).
pub fn virtual_by_magic(magic: i64) -> Option<&'static str> {
    // Some magics have the top bit of 32 set and arrive sign-extended on some kernels.
    Some(match magic & 0xffff_ffff {
        0x9fa0 => "proc",
        0x6265_6572 => "sysfs",
        0x0027_e0eb => "cgroup",
        0x6367_7270 => "cgroup2",
        0x1cd1 => "devpts",
        0x6462_6720 => "debugfs",
        0x7472_6163 => "tracefs",
        0x7363_6673 => "securityfs",
        0x6165_676c => "pstore",
        0xcafe_4a11 => "bpf",
        0x6265_6570 => "configfs",
        0x1980_0202 => "mqueue",
        0x9584_58f6 => "hugetlbfs",
        0x6573_5543 => "fusectl",
        0x4249_4e4d => "binfmt_misc",
        0x0187 => "autofs",
        0x6759_6969 => "rpc_pipefs",
        0xde5e_81e4 => "efivarfs",
        0x6e73_6673 => "nsfs",
        0xf97c_ff8c => "selinuxfs",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(patterns: &[&str]) -> GlobRules {
        glob_rules(patterns).expect("good patterns")
    }

    #[test]
    fn names_match_at_any_depth_and_paths_where_they_say() {
        let rules = rules(&["*.tmp", "/home/*/.cache", "build/out", "node_modules/"]);
        for hit in
            ["a.tmp", "x/y/a.tmp", "home/me/.cache", "p/build/out", "build/out", "x/node_modules"]
        {
            assert!(rules.matches(hit.as_bytes()), "{hit}");
        }
        for miss in ["tmp", "x/home/me/.cache", "home/a/b/.cache", "build/other", "a.tmp.bak"] {
            assert!(!rules.matches(miss.as_bytes()), "{miss}");
        }
    }

    #[test]
    fn a_pattern_covers_what_lies_below_a_folder() {
        let rules = rules(&["/srv/www"]);
        assert!(rules.matches_with_parents(b"srv/www/deep/file"));
        assert!(!rules.matches_with_parents(b"srv/wwww/file"));
    }

    #[test]
    fn names_that_are_not_utf8_match_too() {
        assert!(rules(&["*.log"]).matches(b"a/\xff\xfe.log"));
    }

    #[test]
    fn a_broken_pattern_is_named() {
        let error = glob_rules(&["ok", "[a"]).expect_err("unclosed");
        assert_eq!(error.pattern, "[a");
    }
}
