//! Opening packs and their frames.

use std::ops::Range;

use super::{
    Directory, FrameInfo, HEADER_LEN, Header, PackKind, Part,
    directory::Regions,
    write::{FRAME_HEAD, directory_aad},
};
use crate::{
    compress::{Codec, Decompressor},
    id::{ChunkId, FrameKind, IdKeys, Sha256},
    keys::VaultKeys,
    seal::PackKeys,
};

pub(super) const TAIL_MAGIC: &[u8; 8] = b"EVHPEND1";
/// Header copy, both directory lengths, magic.
pub const TAIL_LEN: u64 = HEADER_LEN as u64 + 16;
/// Header and length of the first directory.
pub(super) const FRONT_LEN: u64 = HEADER_LEN as u64 + 4;
/// One read of this size gets header and directory of nearly every pack, where nobody knows how long they are.
const FIRST_READ: u64 = 64 << 10;
/// No directory is larger: 65 536 frames and as many small files as 64 MiB can hold many of.
const MAX_DIRECTORY: u32 = 64 << 20;

/// The pack must not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    #[error("this is not a pack")]
    NotAPack,
    #[error("the pack was made by a newer version or suite")]
    Version,
    #[error("the pack belongs to another vault, or is of another kind than its reference says")]
    Foreign,
    #[error("there is no key for the pack's epoch")]
    NoKey,
    #[error("the pack was not sealed with this vault's key")]
    Commitment,
    #[error("the pack's directory does not authenticate or contradicts the object")]
    Directory,
    #[error("a frame does not authenticate")]
    Frame,
    #[error("a frame does not decode to what the directory says")]
    Decode,
    #[error("a frame's content is not what its id says")]
    WrongId,
    #[error("there is no such frame")]
    NoFrame,
    #[error("the pack ended early")]
    Short,
}

/// A pack whose directory was authenticated.
pub struct OpenPack {
    pub header: Header,
    pub directory: Directory,
    keys: PackKeys,
    hash: Sha256,
    frames_at: u64,
    /// Offset of every frame in the object, and of the end.
    offsets: Vec<u64>,
}

pub(super) fn frame_aad(header: &Sha256, kind: FrameKind, index: u32, id: &ChunkId) -> [u8; 70] {
    let mut aad = [0; 70];
    aad[..32].copy_from_slice(&header.0);
    aad[32] = b'F';
    aad[33] = kind.code();
    aad[34..38].copy_from_slice(&index.to_be_bytes());
    aad[38..].copy_from_slice(&id.0);
    aad
}

impl OpenPack {
    /// Bytes of memory its directory takes, about.
    pub fn held(&self) -> usize {
        let frames = &self.directory.frames;
        let parts: usize = frames.iter().map(|frame| frame.parts.len()).sum();
        frames.len() * (size_of::<FrameInfo>() + size_of::<u64>()) + parts * size_of::<Part>()
    }

    /// Opens the pack of `length` bytes by ranged reads: the front, or, if that is damaged, the end.
    /// `front` is how long the front is said to be ([`Directory::frames_at`]); being wrong costs a read.
    /// `read` must give exactly the range asked for.
    pub fn open<E: From<PackError>>(
        keys: &VaultKeys,
        kind: PackKind,
        length: u64,
        front: Option<u64>,
        mut read: impl FnMut(Range<u64>) -> Result<bytes::Bytes, E>,
    ) -> Result<Self, E> {
        if length < FRONT_LEN + TAIL_LEN {
            return Err(PackError::Short.into());
        }
        let front = front.unwrap_or(FIRST_READ);
        let refused = match Self::open_by_front(keys, kind, length, front, &mut read)? {
            Ok(pack) => return Ok(pack),
            // Another vault's or a newer pack will be so at its end too; a flipped bit of the front will not.
            Err(error @ (PackError::Foreign | PackError::Version | PackError::NoKey)) => {
                Some(error)
            }
            Err(_) => None,
        };
        let tail = read(length - TAIL_LEN..length)?;
        let opened = (|| {
            let (header, first, second) = decode_tail(&tail)?;
            let at =
                length.checked_sub(TAIL_LEN + u64::from(second)).ok_or(PackError::Directory)?;
            Ok((header, first, at))
        })();
        let (header, first, at) = opened.map_err(|error| refused.unwrap_or(error))?;
        let sealed = read(at..length - TAIL_LEN)?;
        let opened = Self::with_directory(keys, kind, length, header, 1, &sealed, Some(first));
        Ok(opened.map_err(|error| refused.unwrap_or(error))?)
    }

    /// `Ok(Err(n))`: the first n bytes of the object are needed.
    fn open_front(
        keys: &VaultKeys,
        kind: PackKind,
        length: u64,
        front: &[u8],
    ) -> Result<Result<Self, u64>, PackError> {
        let header = header_at(front, 0)?;
        let first = number_at(front, HEADER_LEN)?;
        let end = FRONT_LEN + u64::from(first);
        if first > MAX_DIRECTORY || end > length {
            return Err(PackError::Directory);
        }
        let Some(sealed) = front.get(FRONT_LEN as usize..end as usize) else {
            return Ok(Err(end));
        };
        Self::with_directory(keys, kind, length, header, 0, sealed, Some(first)).map(Ok)
    }

    fn with_directory(
        keys: &VaultKeys,
        kind: PackKind,
        length: u64,
        header: Header,
        copy: u8,
        sealed: &[u8],
        first: Option<u32>,
    ) -> Result<Self, PackError> {
        if header.tenant != keys.tenant() || header.vault != keys.vault() || header.kind != kind {
            return Err(PackError::Foreign);
        }
        let epoch = keys.epoch(header.epoch).map_err(|_| PackError::NoKey)?;
        let pack_keys = PackKeys::derive(&epoch.0, &header.salt, &header.context());
        if !pack_keys.commits_to(&header.commitment) {
            return Err(PackError::Commitment);
        }
        let hash = header.hash();
        let plain = pack_keys
            .open_directory(copy.into(), &directory_aad(&hash, copy), sealed)
            .map_err(|_| PackError::Directory)?;
        let (directory, regions) = Directory::decode(&plain, copy)?;
        let own = if copy == 0 { regions.first } else { regions.second };
        let fits = own as usize == sealed.len()
            && first.is_none_or(|first| first == regions.first)
            && total(regions) == Some(length);
        if !fits {
            return Err(PackError::Directory);
        }
        let frames_at = FRONT_LEN + u64::from(regions.first);
        let mut offsets = Vec::with_capacity(directory.frames.len() + 1);
        let mut at = frames_at;
        for frame in &directory.frames {
            offsets.push(at);
            at += u64::from(frame.sealed_len);
        }
        offsets.push(at);
        Ok(Self { header, directory, keys: pack_keys, hash, frames_at, offsets })
    }

    /// By header and first directory, in one read or two; the inner error is what the front has to say.
    fn open_by_front<E>(
        keys: &VaultKeys,
        kind: PackKind,
        length: u64,
        front: u64,
        read: &mut impl FnMut(Range<u64>) -> Result<bytes::Bytes, E>,
    ) -> Result<Result<Self, PackError>, E> {
        let front = read(0..length.min(front.max(FRONT_LEN)))?;
        let opened = match Self::open_front(keys, kind, length, &front) {
            Ok(Err(more)) => Self::open_front(keys, kind, length, &read(0..more)?),
            other => other,
        };
        Ok(opened.and_then(|opened| opened.map_err(|_| PackError::Short)))
    }

    /// Opens the pack by both its ends: each copy of header and directory must open, and they must agree. Stricter
    /// than [`Self::open`], which is content with one. `read` must give exactly the range asked for.
    pub fn check_ends<E: From<PackError>>(
        keys: &VaultKeys,
        kind: PackKind,
        length: u64,
        mut read: impl FnMut(Range<u64>) -> Result<bytes::Bytes, E>,
    ) -> Result<Self, E> {
        if length < FRONT_LEN + TAIL_LEN {
            return Err(PackError::Short.into());
        }
        let pack = Self::open_by_front(keys, kind, length, FIRST_READ, &mut read)??;
        let tail_at = length - TAIL_LEN;
        let (header, first, second) = decode_tail(&read(tail_at..length)?)?;
        let at = tail_at.checked_sub(second.into()).ok_or(PackError::Directory)?;
        let sealed = read(at..tail_at)?;
        let other = Self::with_directory(keys, kind, length, header, 1, &sealed, Some(first))?;
        if header != pack.header || !same_frames(&pack.directory, &other.directory) {
            return Err(PackError::Directory.into());
        }
        Ok(pack)
    }

    /// Everything there is to check in a whole object, both copies of everything included: nothing in a pack can
    /// change without this failing.
    pub fn check_whole(
        keys: &VaultKeys,
        ids: &IdKeys,
        kind: PackKind,
        object: &[u8],
    ) -> Result<Self, PackError> {
        let length = object.len() as u64;
        let read = |range: Range<u64>| -> Result<bytes::Bytes, PackError> {
            let part = object.get(range.start as usize..range.end as usize);
            Ok(bytes::Bytes::copy_from_slice(part.ok_or(PackError::Short)?))
        };
        let pack = Self::check_ends(keys, kind, length, read)?;
        for index in 0..pack.directory.len() {
            pack.check_frame(ids, index, &read(pack.range(index)?)?)?;
        }
        Ok(pack)
    }

    /// Frame `index` authenticates, decodes and is what its id says; padding is zeros.
    pub fn check_frame(&self, ids: &IdKeys, index: u32, sealed: &[u8]) -> Result<(), PackError> {
        let info = self.info(index)?;
        let raw = self.frame(index, sealed)?;
        let good = match info.kind {
            FrameKind::Pad => raw.iter().all(|byte| *byte == 0),
            kind => ids.matches(kind, &info.id, &raw),
        };
        if good { Ok(()) } else { Err(PackError::WrongId) }
    }

    /// Where the frames begin in the object.
    pub const fn frames_at(&self) -> u64 {
        self.frames_at
    }
    /// The bytes of a frame in the object.
    pub fn range(&self, index: u32) -> Result<Range<u64>, PackError> {
        let at = index as usize;
        match (self.offsets.get(at), self.offsets.get(at + 1)) {
            (Some(from), Some(to)) => Ok(*from..*to),
            _ => Err(PackError::NoFrame),
        }
    }
    /// What the directory says of a frame.
    pub fn info(&self, index: u32) -> Result<&FrameInfo, PackError> {
        self.directory.frames.get(index as usize).ok_or(PackError::NoFrame)
    }

    /// Whether frame `index` is the one with this kind and id; ask before using a place that was only told.
    pub fn holds(&self, index: u32, kind: FrameKind, id: &ChunkId) -> bool {
        self.info(index).is_ok_and(|info| info.kind == kind && info.id == *id)
    }

    /// Authenticates and decodes frame `index` from its sealed bytes. The caller compares the id.
    pub fn frame(&self, index: u32, sealed: &[u8]) -> Result<Vec<u8>, PackError> {
        let mut decoder = Decoder::default();
        match self.frame_into(&mut decoder, index, sealed)? {
            Codec::Raw => {
                decoder.plain.drain(..FRAME_HEAD);
                Ok(decoder.plain)
            }
            Codec::Zstd => Ok(decoder.raw),
        }
    }

    /// [`Self::frame`] into the buffers of a thread that decodes many; [`Decoder::content`] gives it. Raw content ends
    /// up in `plain` after its head, compressed content decompressed in `raw`.
    pub(crate) fn frame_into(
        &self,
        decoder: &mut Decoder,
        index: u32,
        sealed: &[u8],
    ) -> Result<Codec, PackError> {
        let info = self.info(index)?;
        if sealed.len() != info.sealed_len as usize {
            return Err(PackError::Frame);
        }
        let aad = frame_aad(&self.hash, info.kind, index, &info.id);
        decoder.decode(&self.keys, (index, &aad), info.raw_len, sealed)
    }
}

/// Buffers and decompression state of one thread.
#[derive(Default)]
pub struct Decoder {
    plain: Vec<u8>,
    raw: Vec<u8>,
    zstd: Decompressor,
}

impl Decoder {
    /// Authenticates and decodes one frame.
    pub(super) fn decode(
        &mut self,
        keys: &PackKeys,
        (index, aad): (u32, &[u8]),
        raw_len: u32,
        sealed: &[u8],
    ) -> Result<Codec, PackError> {
        let Self { plain, raw, zstd } = self;
        keys.open_frame_into(index, aad, sealed, plain).map_err(|_| PackError::Frame)?;
        let head = plain.get(..FRAME_HEAD).ok_or(PackError::Decode)?;
        let codec = Codec::from_code(head[0]).ok_or(PackError::Version)?;
        if head[1..] != raw_len.to_be_bytes() {
            return Err(PackError::Decode);
        }
        let raw_len = raw_len as usize;
        match codec {
            Codec::Raw if plain.len() - FRAME_HEAD == raw_len => Ok(codec),
            Codec::Raw => Err(PackError::Decode),
            Codec::Zstd => match zstd.decompress_into(&plain[FRAME_HEAD..], raw_len, raw) {
                Ok(()) => Ok(codec),
                Err(_) => Err(PackError::Decode),
            },
        }
    }
    /// The frame decoded last, which had this codec.
    pub(crate) fn content(&self, codec: Codec) -> Result<&[u8], PackError> {
        match codec {
            Codec::Raw => self.plain.get(FRAME_HEAD..).ok_or(PackError::Decode),
            Codec::Zstd => Ok(&self.raw),
        }
    }
}

fn same_frames(first: &Directory, second: &Directory) -> bool {
    let bare = |frame: &FrameInfo| (frame.kind, frame.id, frame.sealed_len, frame.raw_len);
    first.frames.iter().map(bare).eq(second.frames.iter().map(bare))
}

pub(super) fn total(regions: Regions) -> Option<u64> {
    let lists = u64::from(regions.first) + u64::from(regions.second);
    regions.frames.checked_add(lists)?.checked_add(FRONT_LEN + TAIL_LEN)
}

fn header_at(bytes: &[u8], at: usize) -> Result<Header, PackError> {
    let header = bytes.get(at..at + HEADER_LEN).ok_or(PackError::Short)?;
    Header::decode(header.try_into().map_err(|_| PackError::Short)?)
}

fn number_at(bytes: &[u8], at: usize) -> Result<u32, PackError> {
    let number = bytes.get(at..at + 4).ok_or(PackError::Short)?;
    Ok(u32::from_be_bytes(number.try_into().map_err(|_| PackError::Short)?))
}

fn decode_tail(tail: &[u8]) -> Result<(Header, u32, u32), PackError> {
    if tail.get(HEADER_LEN + 8..) != Some(TAIL_MAGIC.as_slice()) {
        return Err(PackError::NotAPack);
    }
    let (first, second) = (number_at(tail, HEADER_LEN)?, number_at(tail, HEADER_LEN + 4)?);
    if first > MAX_DIRECTORY || second > MAX_DIRECTORY {
        return Err(PackError::Directory);
    }
    Ok((header_at(tail, 0)?, first, second))
}
