//! What the job backs up: a real folder of this machine, and a small one of its own that it may change.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// Large enough to mean something, small enough to take seconds.
const FILES: std::ops::RangeInclusive<u64> = 2_000..=60_000;
const MAX_BYTES: u64 = 600 << 20;
const CANDIDATES: [&str; 6] = [
    "/usr/share/doc",
    "/usr/share/zoneinfo",
    "/usr/share/perl",
    "/usr/lib/python3",
    "/usr/include",
    "/usr/share",
];
const NOTES: usize = 40;

/// The first candidate with thousands of files.
pub fn real_folder() -> Result<PathBuf> {
    for candidate in CANDIDATES.map(PathBuf::from) {
        let (files, bytes) = measure(&candidate);
        if FILES.contains(&files) && bytes <= MAX_BYTES {
            return Ok(candidate);
        }
    }
    bail!(
        "none of {} holds between {} and {} files",
        CANDIDATES.join(", "),
        FILES.start(),
        FILES.end()
    )
}

fn measure(dir: &Path) -> (u64, u64) {
    let Ok(entries) = fs::read_dir(dir) else { return (0, 0) };
    entries.flatten().fold((0, 0), |(files, bytes), entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => {
            let (more_files, more_bytes) = measure(&entry.path());
            (files + more_files, bytes + more_bytes)
        }
        Ok(meta) => (files + 1, bytes + meta.len()),
        Err(_) => (files, bytes),
    })
}

/// A folder of notes, as somebody might keep; made once, kept over starts.
pub fn notes(folder: &Path) -> Result<PathBuf> {
    let notes = folder.join("notes");
    if !notes.exists() {
        fs::create_dir_all(&notes)?;
        for i in 0..NOTES {
            fs::write(
                notes.join(format!("note-{i:02}.txt")),
                format!("Note {i}: to be changed.\n").repeat(50),
            )?;
        }
        fs::hard_link(notes.join("note-00.txt"), notes.join("the-same-note.txt"))?;
        std::os::unix::fs::symlink("note-01.txt", notes.join("a-link.txt"))?;
    }
    notes.canonicalize().with_context(|| format!("{} is gone", notes.display()))
}

/// Changes a few notes; how many.
pub fn change(notes: &Path) -> Result<usize> {
    let changed = [3, 7, 11];
    for i in changed {
        let path = notes.join(format!("note-{i:02}.txt"));
        let mut text = fs::read_to_string(&path)?;
        text.push_str(&format!("Line {} was added.\n", text.lines().count() + 1));
        fs::write(&path, text)?;
    }
    Ok(changed.len())
}
