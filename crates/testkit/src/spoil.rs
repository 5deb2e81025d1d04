//! A disk that spoils what an embedded store holds, behind its back.

use std::path::{Path, PathBuf};

/// Flips a bit of byte `at` in the one blob of `store` that holds exactly `bytes`. `store`: the store's folder.
///
/// # Panics
/// When there is no such blob or more than one, or the folder cannot be read.
pub fn spoil(store: &Path, bytes: &[u8], at: usize) {
    let shards = std::fs::read_dir(store.join("blobs")).expect("blobs");
    let shards = shards.map(|shard| std::fs::read_dir(shard.expect("shard").path()));
    let blobs = shards.flat_map(|shard| shard.expect("shard")).map(|blob| blob.expect("blob"));
    let holds = |path: &PathBuf| std::fs::read(path).expect("blob") == bytes;
    let found: Vec<PathBuf> = blobs.map(|blob| blob.path()).filter(holds).collect();
    assert_eq!(found.len(), 1, "one blob holds it");
    let mut wrong = bytes.to_vec();
    wrong[at] ^= 1;
    std::fs::write(&found[0], wrong).expect("spoiled");
}
