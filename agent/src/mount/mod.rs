//! Snapshots as a read-only file system.
//!
//! `view` answers the questions of a file system (names, attributes, bytes) from open snapshots; `library` finds and
//! opens those, `nodes` numbers what the kernel knows, `content` and `frames` turn ranges of files into checked bytes,
//! `point` is the place in the machine's tree, and `fuse`, the only user of the FUSE crate, carries requests in.
//! Invariant: nothing is ever written, and a byte that cannot be authenticated is an error, never zeros. It must not
//! know the command line.

mod content;
mod directory;
mod frames;
mod fuse;
mod library;
mod nodes;
mod point;
mod view;

pub use content::{Bytes, Seek};
pub use fuse::{Left, MountError, Mounted, mount};
pub use library::{Dated, Library, LibraryError};
pub use nodes::Place;
pub use point::{PointError, Prepared, prepare};
pub use view::{Attributes, Kind, Listed, Page, Trouble, View};
