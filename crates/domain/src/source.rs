//! What a run could not protect: exceptions, each listed, never hidden (R12).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why an entry is not (or not wholly) in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExceptionKind {
    /// Permission denied or an I/O error; the entry is missing from the snapshot.
    Unreadable,
    /// It was there when listed and gone when opened.
    Vanished,
    /// It changed while read; what was read is in the snapshot.
    ChangedWhileRead,
    /// It got shorter while read; what was read is in the snapshot.
    Shrank,
    /// Content is there; some metadata (an xattr, an ACL) could not be read.
    MetadataIncomplete,
}

/// One thing the run has to confess. `path` is lossy text; `path_b64` the bytes when they are not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunException {
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    pub kind: ExceptionKind,
    /// What the operating system said, in its words.
    pub detail: String,
}
