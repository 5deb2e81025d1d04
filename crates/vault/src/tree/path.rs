//! Keys and their order: one folder's children are one range, and a whole subtree is one range too.
//!
//! The key of `a/b/c` is `a` 0 `b` 0 0 `c`: every folder component followed by a zero byte, one more zero byte,
//! then the name. Names hold neither zero bytes nor slashes, so keys compare bytewise as (folder by components,
//! name), and no key is the prefix of another folder's. The root is the empty key. Hence:
//! * children of `a/b`: keys beginning with `a` 0 `b` 0 0;
//! * everything below `a/b`: keys beginning with `a` 0 `b` 0.
//!
//! In this order every folder's entries come together, before those of its child folders, and a folder's own
//! entry comes before everything below it.

/// Longest path: Linux's PATH_MAX is 4 096, but deeper trees can be built with `openat`.
pub const MAX_PATH_BYTES: usize = 64 << 10;

/// The path cannot be a place in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path is too long, or a name in it is empty, `.`, `..` or holds a zero byte")]
pub struct BadPath;

/// The key of a path (bytes, no leading slash; empty for the root).
pub fn key(path: &[u8]) -> Result<Vec<u8>, BadPath> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    check(path)?;
    let (folder, name) = split(path);
    let mut key = below_prefix(folder);
    key.push(0);
    key.extend_from_slice(name);
    Ok(key)
}

/// The path of a key.
pub fn from_key(key: &[u8]) -> Result<Vec<u8>, BadPath> {
    if key.is_empty() {
        return Ok(Vec::new());
    }
    let name_at = match key {
        [0, ..] => 1,
        _ => key.windows(2).position(|pair| pair == [0, 0]).ok_or(BadPath)? + 2,
    };
    let mut path = key[..name_at - 1].to_vec();
    for byte in &mut path {
        if *byte == 0 {
            *byte = b'/';
        }
    }
    let name = &key[name_at..];
    // A slash inside a component would make two keys for one path.
    if key.contains(&b'/') {
        return Err(BadPath);
    }
    path.extend_from_slice(name);
    check(&path)?;
    Ok(path)
}

/// Every key below the folder begins with this; nothing else does.
pub fn below_prefix(folder: &[u8]) -> Vec<u8> {
    if folder.is_empty() {
        return Vec::new();
    }
    let mut prefix = folder.to_vec();
    for byte in &mut prefix {
        if *byte == b'/' {
            *byte = 0;
        }
    }
    prefix.push(0);
    prefix
}

/// The key of every direct child of the folder begins with this; nothing else does.
pub fn children_prefix(folder: &[u8]) -> Vec<u8> {
    let mut prefix = below_prefix(folder);
    prefix.push(0);
    prefix
}

/// The order of a tree, for callers that sort paths.
pub fn compare(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    let ((folder_a, name_a), (folder_b, name_b)) = (split(a), split(b));
    let rooted = |path: &[u8]| !path.is_empty();
    let components = |folder: &[u8]| -> Vec<Vec<u8>> {
        folder.split(|byte| *byte == b'/').filter(|c| !c.is_empty()).map(<[u8]>::to_vec).collect()
    };
    rooted(a)
        .cmp(&rooted(b))
        .then_with(|| components(folder_a).cmp(&components(folder_b)))
        .then_with(|| name_a.cmp(name_b))
}

/// Folder and name of a path; the folder of a top-level name is empty.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// Refuses what no file system names: it would be a weapon against the restore.
pub fn check(path: &[u8]) -> Result<(), BadPath> {
    let good_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
    let good = path.len() <= MAX_PATH_BYTES && path.split(|byte| *byte == b'/').all(good_name);
    if good { Ok(()) } else { Err(BadPath) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some_path() -> impl Strategy<Value = Vec<u8>> {
        let name = proptest::collection::vec(
            prop_oneof![Just(1_u8), Just(b'-'), Just(b'.'), Just(b'a'), Just(b'b'), Just(255)],
            1..4,
        )
        .prop_filter("dots", |name| !matches!(name.as_slice(), b"." | b".."));
        proptest::collection::vec(name, 0..5).prop_map(|names| names.join(&b'/'))
    }

    proptest! {
        #[test]
        fn keys_read_back_and_order_as_compare_says(a in some_path(), b in some_path()) {
            let (key_a, key_b) = (key(&a).unwrap(), key(&b).unwrap());
            prop_assert_eq!(from_key(&key_a).unwrap(), a.clone());
            prop_assert_eq!(key_a.cmp(&key_b), compare(&a, &b));
        }

        #[test]
        fn prefixes_hold_exactly_children_and_descendants(folder in some_path(), path in some_path()) {
            prop_assume!(!path.is_empty());
            let key = key(&path).unwrap();
            let child = split(&path).0 == folder.as_slice();
            let mut with_slash = folder.clone();
            with_slash.push(b'/');
            let below = folder.is_empty() || path.starts_with(&with_slash);
            prop_assert_eq!(key.starts_with(&children_prefix(&folder)), child);
            prop_assert_eq!(key.starts_with(&below_prefix(&folder)), below);
        }

        #[test]
        fn hostile_keys_never_panic_and_what_decodes_is_canonical(bytes: Vec<u8>) {
            if let Ok(path) = from_key(&bytes) {
                prop_assert_eq!(key(&path).unwrap(), bytes);
            }
        }
    }
}
