//! What the main job backs up: a real folder of thousands of files found on this machine, and a small one of our
//! own in which files can be changed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// Enough to be a real folder, little enough to be watched.
const FEWEST_FILES: u64 = 2_000;
const MOST_FILES: u64 = 40_000;
const MOST_BYTES: u64 = 1_500 * 1_024 * 1_024;

/// The first folder of a fitting size.
pub fn find() -> anyhow::Result<PathBuf> {
    let home = process::config::variable("HOME").map(PathBuf::from);
    let mut candidates: Vec<PathBuf> = [
        "/usr/share/doc",
        "/usr/share/zoneinfo",
        "/usr/include",
        "/usr/share/man",
        "/usr/share",
        "/usr/lib/python3",
    ]
    .map(PathBuf::from)
    .to_vec();
    if let Some(home) = home {
        candidates.push(home.join(".cargo/registry/src"));
        candidates.push(home.join(".rustup/toolchains"));
    }
    for folder in &candidates {
        // Measured by what it really is: a link would be backed up as a link.
        let Ok(folder) = folder.canonicalize() else { continue };
        let size = measure(&folder, MOST_FILES, MOST_BYTES);
        if (FEWEST_FILES..=MOST_FILES).contains(&size.files) && size.bytes <= MOST_BYTES {
            return Ok(folder);
        }
    }
    bail!("no folder of {FEWEST_FILES} to {MOST_FILES} files found: name one with --source")
}

/// Files and bytes of a folder.
#[derive(Debug, Default, Clone, Copy)]
pub struct Size {
    pub files: u64,
    pub bytes: u64,
}

/// Counts until a limit is passed.
fn measure(folder: &Path, most_files: u64, most_bytes: u64) -> Size {
    let mut size = Size::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                size.files += 1;
                size.bytes += entry.metadata().map_or(0, |facts| facts.len());
            }
            if size.files > most_files || size.bytes > most_bytes {
                return size;
            }
        }
    }
    size
}

/// Makes our own small folder, if it is not there.
pub fn prepare_notes(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for i in 1..=5 {
        let file = folder.join(format!("note-{i}.txt"));
        if !file.exists() {
            fs::write(&file, format!("Note {i}.\n").repeat(200))?;
        }
    }
    Ok(())
}

/// Changes two files and adds one; says how many bytes of content these files have now.
pub fn change_notes(folder: &Path, stamp: u64) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for name in ["note-1.txt", "note-2.txt", &format!("added-{stamp}.txt")] {
        let text = format!("{name}, changed at {stamp}\n").repeat(300);
        bytes += text.len() as u64;
        fs::write(folder.join(name), text)?;
    }
    Ok(bytes)
}
