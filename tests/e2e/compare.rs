//! Two trees compared with the field's own tools: content, types, links, owners, modes, times, ACLs, xattrs, holes.

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::harness::tool;

/// `diff -r --no-dereference` finds nothing.
#[track_caller]
pub fn same_content(a: &Path, b: &Path) {
    let said = tool("diff", &["-r".as_ref(), "--no-dereference".as_ref(), a.as_ref(), b.as_ref()]);
    let fifos = |line: &&str| !line.starts_with("File ") || !line.contains(" is a ");
    let differences: Vec<&str> = said.stdout.lines().filter(fifos).collect();
    assert!(differences.is_empty() && said.stderr.is_empty(), "{differences:#?}\n{}", said.stderr);
}

fn listing(dir: &Path, script: &str) -> String {
    let output = Command::new("bash")
        .args(["-c", script])
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What `script` prints in both folders is the same, and something.
#[track_caller]
pub fn same_listing(a: &Path, b: &Path, what: &str, script: &str) {
    let (left, right) = (listing(a, script), listing(b, script));
    assert!(!left.is_empty(), "{what}: the listing is empty, so the comparison says nothing");
    if left != right {
        let differing: Vec<_> =
            left.lines().zip(right.lines()).filter(|(l, r)| l != r).take(5).collect();
        panic!(
            "{what} differ ({} and {} lines): {differing:#?}",
            left.lines().count(),
            right.lines().count()
        );
    }
}

/// Type, mode, owner, size of files, times to the nanosecond, link targets and hard-link groups are equal.
#[track_caller]
pub fn same_attributes(a: &Path, b: &Path) {
    let stat = r"find . -mindepth 1 \( -type d -printf '%p d %m %U %G %T@\n' -o -type l -printf '%p l %U %G %T@ %l\n' -o -printf '%p %y %m %U %G %s %T@ %n\n' \) | LC_ALL=C sort";
    same_listing(a, b, "stat lists", stat);
}

/// `getfacl -R` and `getfattr -d -m -` agree.
#[track_caller]
pub fn same_acls_and_xattrs(a: &Path, b: &Path) {
    same_listing(
        a,
        b,
        "ACLs",
        "find . -mindepth 1 -not -type l -print0 | LC_ALL=C sort -z | xargs -0 getfacl -n -P --",
    );
    let xattrs = "find . -mindepth 1 -print0 | LC_ALL=C sort -z | xargs -0 getfattr -h -d -m - -e hex -- 2>/dev/null; echo end";
    same_listing(a, b, "xattrs", xattrs);
}

/// Which names share an inode is the same on both sides.
#[track_caller]
pub fn same_hard_links(a: &Path, b: &Path) {
    let groups = r"find . -type f -links +1 -printf '%i %p\n' | LC_ALL=C sort -k2 | awk '{ if (!($1 in g)) g[$1] = $2; print g[$1], $2 }'; echo end";
    same_listing(a, b, "hard links", groups);
}

/// The restored file takes no more room than the sparse one it came from, give or take a few blocks.
#[track_caller]
pub fn same_holes(a: &Path, b: &Path) {
    let (left, right) = (a.metadata().expect("stat"), b.metadata().expect("stat"));
    assert_eq!(left.size(), right.size());
    assert!(
        right.blocks() <= left.blocks() + 64,
        "holes lost: {} then {} blocks",
        left.blocks(),
        right.blocks()
    );
}
