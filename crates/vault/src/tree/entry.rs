//! An entry: everything a snapshot knows about one path.
//!
//! Encoded as a CBOR map with small keys, without the path (that is the key in the tree). Invariant: what
//! decodes is well formed: the pieces of a file add up to its size, xattrs are sorted and unique, and no
//! field is present that the kind does not have.

use crate::{
    cbor::{CborError, Fields, MapWriter, Reader, Writer},
    id::{ChunkId, FileId},
};

/// Largest encoded entry (xattrs are the only thing that can make it large).
pub const MAX_ENTRY_BYTES: usize = 8 << 20;

/// Seconds since 1970 (may be negative) and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileTime {
    pub secs: i64,
    pub nanos: u32,
}

/// One extended attribute; ACLs are xattrs too (`system.posix_acl_*`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    pub name: Vec<u8>,
    pub value: Vec<u8>,
}

/// A stretch of a file, or of a content list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// `length` bytes of the file, named by a chunk (depth 0) or by a list of pieces (depth above 0).
    Data { id: ChunkId, length: u64 },
    /// `length` bytes that are a hole: zeros on reading, not allocated on restoring.
    Hole { length: u64 },
}

impl Piece {
    /// Bytes of the file it stands for.
    pub const fn length(&self) -> u64 {
        match self {
            Self::Data { length, .. } | Self::Hole { length } => *length,
        }
    }
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// No bytes.
    Empty,
    /// A stretch of a bundle, with the file's own id.
    Bundled { bundle: ChunkId, offset: u32, length: u32, file: FileId },
    /// Pieces in order. At depth 0 they are chunks; at depth n they name lists of depth n-1.
    Pieces { depth: u8, pieces: Vec<Piece> },
}

/// What the path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    File { size: u64, content: Content },
    Directory,
    Symlink { target: Vec<u8> },
    Fifo,
    Socket,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
}

/// One path of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Bytes without a leading slash; empty for the root.
    pub path: Vec<u8>,
    pub kind: EntryKind,
    /// Permission, setuid, setgid and sticky bits (`st_mode & 0o7777`).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Name of the owner on the source, if known.
    pub user: Option<Vec<u8>>,
    pub group: Option<Vec<u8>>,
    pub mtime: FileTime,
    /// For change detection only; never restored.
    pub ctime: Option<FileTime>,
    pub atime: Option<FileTime>,
    /// For change detection only.
    pub inode: u64,
    pub device: u64,
    /// Entries with the same number are names of one file.
    pub hardlink: Option<u64>,
    /// Sorted by name.
    pub xattrs: Vec<Xattr>,
    /// Bits: 1 = changed while read, 2 = shrank while read, 4 = metadata incomplete.
    pub flags: u32,
}

impl Entry {
    /// Changed while read; what was read is there.
    pub const CHANGED: u32 = 1;
    /// Shrank while read.
    pub const SHRANK: u32 = 2;
    /// Some metadata could not be read.
    pub const INCOMPLETE: u32 = 4;

    /// An entry with nothing but a path and a kind, to fill in.
    pub const fn new(path: Vec<u8>, kind: EntryKind) -> Self {
        Self {
            path,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            user: None,
            group: None,
            mtime: FileTime { secs: 0, nanos: 0 },
            ctime: None,
            atime: None,
            inode: 0,
            device: 0,
            hardlink: None,
            xattrs: Vec::new(),
            flags: 0,
        }
    }
    /// A regular file whose content is still to come (`Writer::add_file` fills size and content).
    pub const fn file(path: Vec<u8>) -> Self {
        Self::new(path, EntryKind::File { size: 0, content: Content::Empty })
    }
    /// Bytes of the file; 0 for anything else.
    pub const fn size(&self) -> u64 {
        match &self.kind {
            EntryKind::File { size, .. } => *size,
            _ => 0,
        }
    }
    /// The own id of a small file in a bundle.
    pub const fn bundled(&self) -> Option<FileId> {
        match &self.kind {
            EntryKind::File { content: Content::Bundled { file, .. }, .. } => Some(*file),
            _ => None,
        }
    }
    pub const fn is_dir(&self) -> bool {
        matches!(self.kind, EntryKind::Directory)
    }
    pub const fn is_file(&self) -> bool {
        matches!(self.kind, EntryKind::File { .. })
    }
    /// Last component.
    pub fn name(&self) -> &[u8] {
        super::path::split(&self.path).1
    }
    /// Same identity, size and times: the content need not be read again.
    pub fn looks_unchanged(&self, now: &Self) -> bool {
        let size = |entry: &Self| match &entry.kind {
            EntryKind::File { size, .. } => Some(*size),
            _ => None,
        };
        size(self).is_some()
            && size(self) == size(now)
            && self.is_same_file(now)
            && self.flags & (Self::CHANGED | Self::SHRANK) == 0
    }
    /// Same identity and times, whatever the size says. Many file systems (btrfs, NFS, overlays, device mapper) have
    /// another device number after a reboot; where a ctime is finer than a millisecond it says as much.
    pub fn is_same_file(&self, now: &Self) -> bool {
        let fine = self.ctime.is_some_and(|ctime| !ctime.nanos.is_multiple_of(1_000_000));
        self.mtime == now.mtime
            && self.ctime == now.ctime
            && self.inode == now.inode
            && (fine || self.device == now.device)
    }

    /// The value stored in a leaf under the path's key.
    pub fn encode(&self) -> Vec<u8> {
        let mut map = MapWriter::new();
        map.field(1).uint(self.kind_code());
        map.field(2).uint(self.mode);
        map.field(3).uint(self.uid);
        map.field(4).uint(self.gid);
        time(map.field(5), self.mtime);
        if let Some(ctime) = self.ctime {
            time(map.field(6), ctime);
        }
        if let Some(atime) = self.atime {
            time(map.field(7), atime);
        }
        map.field(8).uint(self.inode);
        map.field(9).uint(self.device);
        if let Some(group) = self.hardlink {
            map.field(10).uint(group);
        }
        if let Some(user) = &self.user {
            map.field(11).bytes(user);
        }
        if let Some(group) = &self.group {
            map.field(12).bytes(group);
        }
        if !self.xattrs.is_empty() {
            let list = map.field(13).array(self.xattrs.len() * 2);
            for xattr in &self.xattrs {
                list.bytes(&xattr.name).bytes(&xattr.value);
            }
        }
        if self.flags != 0 {
            map.field(14).uint(self.flags);
        }
        match &self.kind {
            EntryKind::File { size, content } => {
                map.field(15).uint(*size);
                content.encode(&mut map);
            }
            EntryKind::Symlink { target } => {
                map.field(18).bytes(target);
            }
            EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                map.field(19).array(2).uint(*major).uint(*minor);
            }
            EntryKind::Directory | EntryKind::Fifo | EntryKind::Socket => {}
        }
        map.finish()
    }

    const fn kind_code(&self) -> u8 {
        match self.kind {
            EntryKind::File { .. } => 1,
            EntryKind::Directory => 2,
            EntryKind::Symlink { .. } => 3,
            EntryKind::Fifo => 4,
            EntryKind::Socket => 5,
            EntryKind::CharDevice { .. } => 6,
            EntryKind::BlockDevice { .. } => 7,
        }
    }

    /// Reads the value of `path`.
    pub fn decode(path: Vec<u8>, value: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(value);
        let r = &mut reader;
        let mut fields = Fields::enter(r)?;
        fields.required(r, 1)?;
        let code = r.u8()?;
        let mut entry = Self::new(path, EntryKind::Directory);
        for (key, slot) in [(2, &mut entry.mode), (3, &mut entry.uid), (4, &mut entry.gid)] {
            fields.required(r, key)?;
            *slot = r.u32()?;
        }
        fields.required(r, 5)?;
        entry.mtime = read_time(r)?;
        for (key, slot) in [(6, &mut entry.ctime), (7, &mut entry.atime)] {
            if fields.optional(r, key)? {
                *slot = Some(read_time(r)?);
            }
        }
        for (key, slot) in [(8, &mut entry.inode), (9, &mut entry.device)] {
            fields.required(r, key)?;
            *slot = r.u64()?;
        }
        if fields.optional(r, 10)? {
            entry.hardlink = Some(r.u64()?);
        }
        for (key, slot) in [(11, &mut entry.user), (12, &mut entry.group)] {
            if fields.optional(r, key)? {
                *slot = Some(r.bytes()?.to_vec());
            }
        }
        if fields.optional(r, 13)? {
            entry.xattrs = read_xattrs(r)?;
        }
        if fields.optional(r, 14)? {
            entry.flags = r.u32()?;
            if entry.flags == 0 {
                return Err(CborError::NotDeterministic);
            }
        }
        entry.kind = decode_kind(code, &mut fields, r)?;
        fields.end(r)?;
        reader.end()?;
        if entry.mode > 0o7777 {
            return Err(CborError::OutOfBounds);
        }
        Ok(entry)
    }
}

fn decode_kind(code: u8, fields: &mut Fields, r: &mut Reader<'_>) -> Result<EntryKind, CborError> {
    let device = |fields: &mut Fields, r: &mut Reader<'_>| -> Result<(u32, u32), CborError> {
        fields.required(r, 19)?;
        if r.array()? != 2 {
            return Err(CborError::OutOfBounds);
        }
        Ok((r.u32()?, r.u32()?))
    };
    Ok(match code {
        1 => {
            fields.required(r, 15)?;
            let size = r.u64()?;
            EntryKind::File { size, content: Content::decode(size, fields, r)? }
        }
        2 => EntryKind::Directory,
        3 => {
            fields.required(r, 18)?;
            EntryKind::Symlink { target: r.bytes()?.to_vec() }
        }
        4 => EntryKind::Fifo,
        5 => EntryKind::Socket,
        6 => {
            let (major, minor) = device(fields, r)?;
            EntryKind::CharDevice { major, minor }
        }
        7 => {
            let (major, minor) = device(fields, r)?;
            EntryKind::BlockDevice { major, minor }
        }
        _ => return Err(CborError::OutOfBounds),
    })
}

impl Content {
    fn encode(&self, map: &mut MapWriter) {
        match self {
            Self::Empty => {}
            Self::Bundled { bundle, offset, length, file } => {
                let list = map.field(16).array(4).bytes(&bundle.0);
                list.uint(*offset).uint(*length).bytes(&file.0);
            }
            Self::Pieces { depth, pieces } => encode_pieces(map.field(17), *depth, pieces),
        }
    }
    fn decode(size: u64, fields: &mut Fields, r: &mut Reader<'_>) -> Result<Self, CborError> {
        let content = if fields.optional(r, 16)? {
            if r.array()? != 4 {
                return Err(CborError::OutOfBounds);
            }
            let bundle = ChunkId(r.array_of()?);
            let (offset, length) = (r.u32()?, r.u32()?);
            Self::Bundled { bundle, offset, length, file: FileId(r.array_of()?) }
        } else if fields.optional(r, 17)? {
            let (depth, pieces) = decode_pieces(r)?;
            Self::Pieces { depth, pieces }
        } else {
            Self::Empty
        };
        if content.length() == Some(size) { Ok(content) } else { Err(CborError::OutOfBounds) }
    }
    /// Bytes all parts stand for; `None` if that overflows.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Bundled { length, .. } => Some((*length).into()),
            Self::Pieces { pieces, .. } => total(pieces),
        }
    }
}

/// Sum of lengths; `None` if that overflows.
pub(crate) fn total(pieces: &[Piece]) -> Option<u64> {
    pieces.iter().try_fold(0_u64, |sum, piece| sum.checked_add(piece.length()))
}

/// `[depth, length, id, length, id, …]`; a hole has an empty byte string for its id.
pub(crate) fn encode_pieces(out: &mut Writer, depth: u8, pieces: &[Piece]) {
    out.array(1 + pieces.len() * 2).uint(depth);
    for piece in pieces {
        out.uint(piece.length());
        match piece {
            Piece::Data { id, .. } => out.bytes(&id.0),
            Piece::Hole { .. } => out.bytes(&[]),
        };
    }
}

/// Reads what [`encode_pieces`] wrote; pieces of no length are refused.
pub(crate) fn decode_pieces(r: &mut Reader<'_>) -> Result<(u8, Vec<Piece>), CborError> {
    let items = r.array()?;
    if items % 2 != 1 {
        return Err(CborError::OutOfBounds);
    }
    let depth = r.u8()?;
    if depth > crate::content::MAX_DEPTH {
        return Err(CborError::OutOfBounds);
    }
    let mut pieces = Vec::new();
    for _ in 0..items / 2 {
        let length = r.u64()?;
        let id = r.bytes()?;
        let piece = match (length, id.len()) {
            (0, _) => return Err(CborError::OutOfBounds),
            (_, 0) => Piece::Hole { length },
            _ => Piece::Data { id: ChunkId::from_slice(id).ok_or(CborError::OutOfBounds)?, length },
        };
        pieces.push(piece);
    }
    Ok((depth, pieces))
}

fn time(out: &mut Writer, time: FileTime) {
    out.array(2).int(time.secs).uint(time.nanos);
}

fn read_time(r: &mut Reader<'_>) -> Result<FileTime, CborError> {
    if r.array()? != 2 {
        return Err(CborError::OutOfBounds);
    }
    let time = FileTime { secs: r.i64()?, nanos: r.u32()? };
    if time.nanos < 1_000_000_000 { Ok(time) } else { Err(CborError::OutOfBounds) }
}

fn read_xattrs(r: &mut Reader<'_>) -> Result<Vec<Xattr>, CborError> {
    let items = r.array()?;
    if items == 0 || items % 2 != 0 {
        return Err(CborError::OutOfBounds);
    }
    let mut xattrs: Vec<Xattr> = Vec::new();
    for _ in 0..items / 2 {
        let xattr = Xattr { name: r.bytes()?.to_vec(), value: r.bytes()?.to_vec() };
        if xattrs.last().is_some_and(|last| last.name >= xattr.name) {
            return Err(CborError::NotDeterministic);
        }
        xattrs.push(xattr);
    }
    Ok(xattrs)
}
