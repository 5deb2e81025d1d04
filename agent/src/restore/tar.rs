//! Pax tar archives (POSIX.1-2001), header by header: for streams, so nothing is known of an entry's end.
//!
//! Own code because paths are bytes that need not be UTF-8 and no crate at hand writes extended attributes,
//! nanoseconds and long names of such paths from a push of bytes. Whatever does not fit an old header is in
//! a pax record; attributes are `SCHILY.xattr.*`, as GNU tar, libarchive and star read them. Sockets have no
//! form in tar and are left out.

use std::io::{self, Write};

use vault::{
    index::Shelf,
    tree::{Entry, EntryKind},
};

const BLOCK: usize = 512;
/// Memory for first names of hard links; what is beyond goes to files without names.
const NAMES: usize = 8 << 20;
/// The largest number eleven octal digits hold.
const OCTAL: u64 = 0o777_7777_7777;

/// One archive under way.
pub struct Archive {
    /// Bytes the open entry needs up to a whole block; `None` when it carries no content.
    padding: Option<usize>,
    /// First names of hard links.
    names: Shelf,
}

impl Default for Archive {
    fn default() -> Self {
        Self { padding: None, names: Shelf::temporary(&std::env::temp_dir(), NAMES) }
    }
}

/// Headers of an entry in octal, as far as they fit.
struct Header {
    name: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
    flag: u8,
    device: (u32, u32),
}

impl Archive {
    /// Whether the bytes that come now belong into the archive.
    pub const fn carries_content(&self) -> bool {
        self.padding.is_some()
    }

    /// Opens an entry.
    pub fn begin(&mut self, entry: &Entry, out: &mut dyn Write) -> io::Result<()> {
        self.padding = None;
        let mut name = entry.path.clone();
        if name.is_empty() {
            name.push(b'.');
        }
        let (flag, link, device) = match &entry.kind {
            EntryKind::File { .. } => (b'0', Vec::new(), (0, 0)),
            EntryKind::Directory => (b'5', Vec::new(), (0, 0)),
            EntryKind::Symlink { target } => (b'2', target.clone(), (0, 0)),
            EntryKind::Fifo => (b'6', Vec::new(), (0, 0)),
            EntryKind::CharDevice { major, minor } => (b'3', Vec::new(), (*major, *minor)),
            EntryKind::BlockDevice { major, minor } => (b'4', Vec::new(), (*major, *minor)),
            EntryKind::Socket => return Ok(()),
        };
        let first = entry.hardlink.and_then(|group| self.names.get(group));
        let (flag, link) = match (first, entry.hardlink) {
            (Some(first), _) => (b'1', first),
            (None, Some(group)) => {
                self.names.put(group, &name);
                (flag, link)
            }
            (None, None) => (flag, link),
        };
        if flag == b'5' {
            name.push(b'/');
        }
        let size = if flag == b'0' { entry.size() } else { 0 };
        let mtime = u64::try_from(entry.mtime.secs).unwrap_or(0);
        let (uid, gid) = (entry.uid.into(), entry.gid.into());
        let header = Header { name, link, mode: entry.mode, uid, gid, size, mtime, flag, device };
        let records = records(entry, &header);
        if !records.is_empty() {
            extended(&records, out)?;
        }
        out.write_all(&header.encode())?;
        if flag == b'0' {
            let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
            self.padding = Some((BLOCK - over) % BLOCK);
        }
        Ok(())
    }

    /// Closes the open entry.
    pub fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let zeros = [0; BLOCK];
        out.write_all(zeros.get(..self.padding.take().unwrap_or(0)).unwrap_or_default())
    }

    /// Closes the archive.
    pub fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&[0; 2 * BLOCK])
    }
}

/// `length key=value\n`, one after the other.
fn records(entry: &Entry, header: &Header) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| {
        let bare = key.len() + value.len() + 3;
        let mut length = bare + 1;
        while length.to_string().len() + bare > length {
            length += 1;
        }
        records.extend_from_slice(length.to_string().as_bytes());
        records.extend_from_slice(&[b" ", key, b"=", value, b"\n"].concat());
    };
    if header.name.len() > 100 {
        add(b"path", &header.name);
    }
    if header.link.len() > 100 {
        add(b"linkpath", &header.link);
    }
    if header.size > OCTAL {
        add(b"size", header.size.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], header.uid), (b"gid", header.gid)] {
        if id > 0o777_7777 {
            add(key, id.to_string().as_bytes());
        }
    }
    let (secs, nanos) = (entry.mtime.secs, entry.mtime.nanos);
    if nanos != 0 || u64::try_from(secs).is_ok_and(|secs| secs > OCTAL) || secs < 0 {
        add(b"mtime", moment(secs, nanos).as_bytes());
    }
    for xattr in &entry.xattrs {
        add(&[b"SCHILY.xattr.", xattr.name.as_slice()].concat(), &xattr.value);
    }
    records
}

/// Decimal seconds; times before 1970 count back from it.
fn moment(secs: i64, nanos: u32) -> String {
    match (secs, nanos) {
        (_, 0) => secs.to_string(),
        (..0, _) => {
            format!("-{}.{:09}", secs.unsigned_abs() - 1, 1_000_000_000 - nanos.min(999_999_999))
        }
        _ => format!("{secs}.{nanos:09}"),
    }
}

fn extended(records: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let header = Header {
        name: b"././@PaxHeader".to_vec(),
        link: Vec::new(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: records.len() as u64,
        mtime: 0,
        flag: b'x',
        device: (0, 0),
    };
    out.write_all(&header.encode())?;
    out.write_all(records)?;
    let over = records.len() % BLOCK;
    out.write_all([0; BLOCK].get(..(BLOCK - over) % BLOCK).unwrap_or_default())
}

impl Header {
    fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8], room: usize| {
            let length = bytes.len().min(room);
            if let (Some(to), Some(from)) = (block.get_mut(at..at + length), bytes.get(..length)) {
                to.copy_from_slice(from);
            }
        };
        put(0, &self.name, 100);
        put(100, format!("{:07o}", self.mode).as_bytes(), 7);
        put(108, octal(self.uid, 7).as_bytes(), 7);
        put(116, octal(self.gid, 7).as_bytes(), 7);
        put(124, octal(self.size, 11).as_bytes(), 11);
        put(136, octal(self.mtime, 11).as_bytes(), 11);
        put(148, b"        ", 8);
        put(156, &[self.flag], 1);
        put(157, &self.link, 100);
        put(257, b"ustar\x0000", 8);
        put(329, octal(self.device.0.into(), 7).as_bytes(), 7);
        put(337, octal(self.device.1.into(), 7).as_bytes(), 7);
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        if let Some(field) = block.get_mut(148..156) {
            field.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        block
    }
}

/// The number, or zero where a pax record says it.
fn octal(number: u64, digits: usize) -> String {
    let text = format!("{number:0digits$o}");
    if text.len() > digits { "0".repeat(digits) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_pax_wants_them() {
        assert_eq!(moment(5, 0), "5");
        assert_eq!(moment(5, 7), "5.000000007");
        assert_eq!(moment(-1, 0), "-1");
        assert_eq!(moment(-1, 500_000_000), "-0.500000000");
        assert_eq!(moment(-2, 900_000_000), "-1.100000000");
    }

    #[test]
    fn a_record_counts_its_own_length() {
        let mut entry = Entry::file(b"x".to_vec());
        entry.mtime.nanos = 1;
        for length in [0, 60, 70, 80, 960, 970, 980] {
            entry.xattrs =
                vec![vault::tree::Xattr { name: b"user.a".to_vec(), value: vec![b'v'; length] }];
            let mut out = Vec::new();
            Archive::default().begin(&entry, &mut out).expect("memory");
            let size = std::str::from_utf8(&out[124..135]).expect("octal");
            let size = usize::from_str_radix(size, 8).expect("octal");
            let mut rest = &out[BLOCK..BLOCK + size];
            while !rest.is_empty() {
                let space = rest.iter().position(|byte| *byte == b' ').expect("a length");
                let text = std::str::from_utf8(&rest[..space]).expect("digits");
                let length: usize = text.parse().expect("digits");
                assert_eq!(rest[length - 1], b'\n');
                rest = &rest[length..];
            }
        }
    }
}
