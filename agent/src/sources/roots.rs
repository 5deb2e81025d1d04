//! The paths a run was asked for: absolute, sorted, none inside another.
//!
//! A path arrives in the snapshot as it was given. Links in its parents are followed, because somebody
//! named them; a path that is itself a link is kept as the link, and what it points to is added, so
//! that naming `/data -> /mnt/data` protects the data and not just the link.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

/// A path that cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("{path} cannot be backed up: {source}; check the path")]
    Unreachable { path: String, source: io::Error },
    #[error("no path to back up was given; name at least one file or folder")]
    None,
}

/// Components of a path; the file system's root is the empty list.
pub type Components = Vec<Vec<u8>>;

/// The roots as a tree of names, for walking down to them. A node without names is a root itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts(BTreeMap<Vec<u8>, Parts>);

impl Parts {
    pub fn is_leaf(&self) -> bool {
        self.0.is_empty()
    }
    pub fn names(&self) -> Vec<Vec<u8>> {
        self.0.keys().cloned().collect()
    }
    pub fn remove(&mut self, name: &[u8]) -> Option<Self> {
        self.0.remove(name)
    }
}

/// The sources of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    paths: Vec<Components>,
    /// Links that were named, and what was added for them.
    followed: Vec<(PathBuf, PathBuf)>,
}

impl Roots {
    /// Makes the given paths absolute against `cwd`, resolves `..`, adds what named links point to.
    ///
    /// # Errors
    /// When none is left or a path with `..` cannot be resolved.
    pub fn resolve(given: &[PathBuf], cwd: &Path) -> Result<Self, RootError> {
        let mut wanted = BTreeSet::new();
        let mut followed = Vec::new();
        for path in given {
            let absolute = absolute(path, cwd)?;
            if let Some(target) = target_of_link(&absolute) {
                wanted.insert(components(&target));
                followed.push((absolute.clone(), target));
            }
            wanted.insert(components(&absolute));
        }
        if wanted.is_empty() {
            return Err(RootError::None);
        }
        Ok(Self { paths: without_nested(wanted), followed })
    }

    pub fn paths(&self) -> &[Components] {
        &self.paths
    }
    pub fn parts(&self) -> Parts {
        let mut top = Parts::default();
        for path in &self.paths {
            let mut node = &mut top;
            for name in path {
                node = node.0.entry(name.clone()).or_default();
            }
        }
        top
    }
    pub fn followed(&self) -> &[(PathBuf, PathBuf)] {
        &self.followed
    }
    /// As text for people and for the catalog.
    pub fn display(&self) -> Vec<String> {
        self.paths.iter().map(|path| super::display_path(&path.join(&b'/'))).collect()
    }
}

fn absolute(path: &Path, cwd: &Path) -> Result<PathBuf, RootError> {
    let joined = cwd.join(path);
    if joined.components().any(|part| part == Component::ParentDir) {
        // `a/../b` means something else when `a` is a link: only the system can say.
        return fs::canonicalize(&joined)
            .map_err(|source| RootError::Unreachable { path: path.display().to_string(), source });
    }
    Ok(joined)
}

fn target_of_link(path: &Path) -> Option<PathBuf> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
    // A dangling link is kept as it is.
    if is_link { fs::canonicalize(path).ok() } else { None }
}

fn components(path: &Path) -> Components {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.as_bytes().to_vec()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) | Component::ParentDir => {
            None
        }
    });
    names.collect()
}

/// Lists compare component by component, so a folder directly precedes what lies in it.
fn without_nested(sorted: BTreeSet<Components>) -> Vec<Components> {
    let mut kept: Vec<Components> = Vec::new();
    for path in sorted {
        if !kept.last().is_some_and(|last| path.starts_with(last)) {
            kept.push(path);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(given: &[&str]) -> Vec<String> {
        let given: Vec<PathBuf> = given.iter().map(PathBuf::from).collect();
        Roots::resolve(&given, Path::new("/nowhere/cwd")).expect("roots").display()
    }

    #[test]
    fn nested_and_repeated_paths_are_backed_up_once() {
        assert_eq!(resolved(&["/nowhere/a/b", "/nowhere/a", "/nowhere/a/"]), ["/nowhere/a"]);
    }

    #[test]
    fn order_is_by_component_not_by_byte() {
        assert_eq!(
            resolved(&["/nowhere/a-b", "/nowhere/a/b", "/nowhere/a.c"]),
            ["/nowhere/a/b", "/nowhere/a-b", "/nowhere/a.c"]
        );
    }

    #[test]
    fn relative_paths_start_where_we_stand() {
        assert_eq!(resolved(&["x", "./y"]), ["/nowhere/cwd/x", "/nowhere/cwd/y"]);
    }

    #[test]
    fn naming_a_link_protects_what_it_points_to() {
        let dir = tempfile::tempdir().expect("tempdir");
        let base = fs::canonicalize(dir.path()).expect("canonical");
        fs::create_dir(base.join("real")).expect("dir");
        std::os::unix::fs::symlink("real", base.join("link")).expect("link");
        let roots = Roots::resolve(&[base.join("link")], Path::new("/")).expect("roots");
        let shown = roots.display();
        assert_eq!(shown.len(), 2);
        assert!(shown.iter().any(|path| path.ends_with("/real")));
        assert_eq!(roots.followed().len(), 1);
    }
}
