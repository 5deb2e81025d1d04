//! A temporary file without a name, for lists that may be longer than memory.
//!
//! Invariant: what [`Scratch::write`] gave a place for is in the file; once something could not be written nothing more
//! is, and whoever has it keeps it. It must not know what is in it.

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// Made when the first bytes come.
#[derive(Default)]
pub struct Scratch {
    file: Option<File>,
    end: u64,
    stuck: bool,
}

impl Scratch {
    /// No file can be had, or it takes nothing more.
    pub const fn is_stuck(&self) -> bool {
        self.stuck
    }
    pub const fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }
    /// The file, and how far it was written, for whoever reads it from now on.
    pub fn into_file(self) -> (Option<File>, u64) {
        (self.file, self.end)
    }

    /// Where it was written, from and to; `None` if it could not be.
    pub fn write(&mut self, bytes: &[u8]) -> Option<(u64, u64)> {
        let written =
            if self.stuck { Err(io::ErrorKind::Other.into()) } else { self.append(bytes) };
        self.stuck |= written.is_err();
        written.ok()
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<(u64, u64)> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                faults::point("scratch: create")?;
                none.insert(tempfile::tempfile()?)
            }
        };
        file.write_all_at(bytes, self.end)?;
        let from = self.end;
        self.end += bytes.len() as u64;
        Ok((from, self.end))
    }

    /// A file that cannot be had.
    #[cfg(test)]
    pub const fn none() -> Self {
        Self { file: None, end: 0, stuck: true }
    }
}
