//! Sources: what is on this machine, read without trusting it.
//!
//! [`Walk`] goes through folders in the order of `vault::tree::path::compare`, by
//! directory handles, so that a link swapped in under our feet is never followed. It hands each entry
//! to a [`Visitor`] and knows nothing of chunks, packs or servers.

mod ahead;
mod exclude;
mod file;
mod image;
mod listing;
mod meta;
mod names;
mod roots;
#[cfg(test)]
mod tests;
mod walk;
pub mod xattr;

pub use exclude::{Excluded, Excludes, GlobRules, PatternError, glob_rules};
pub use file::{Extent, OpenFile, Verdict};
pub use image::looks_like_image;
pub use meta::{Kind, Meta, Moment, Stat};
pub use names::Names;
pub use roots::{RootError, Roots};
pub use walk::{Found, Visitor, Walk, WalkOptions};
pub use xattr::Xattrs;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::source::{ExceptionKind, RunException};
use rustix::io::Errno;

/// Text for people of a path without its leading slash; bytes that are not UTF-8 become `\u{fffd}`.
pub fn display_path(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

/// Base64 of a path that is not UTF-8, with its leading slash.
pub fn exact_path(path: &[u8]) -> Option<String> {
    std::str::from_utf8(path).is_err().then(|| {
        let mut absolute = vec![b'/'];
        absolute.extend_from_slice(path);
        BASE64.encode(absolute)
    })
}

/// An exception about `path` (without leading slash).
pub fn exception(path: &[u8], kind: ExceptionKind, detail: impl std::fmt::Display) -> RunException {
    RunException {
        path: display_path(path),
        path_b64: exact_path(path),
        kind,
        detail: detail.to_string(),
    }
}

/// The exception for an entry the system did not let us read.
pub fn refused(path: &[u8], errno: Errno) -> RunException {
    let kind = match errno {
        Errno::NOENT | Errno::STALE => ExceptionKind::Vanished,
        _ => ExceptionKind::Unreadable,
    };
    exception(path, kind, std::io::Error::from(errno))
}
