//! The index: which chunk, and which small file, is in which pack.
//!
//! Derived from pack directories and nothing else. It is advice: a wrong entry costs an upload or a failed commit,
//! never data, because every read compares ids and every commit checks its references. Invariant: a persisted index
//! that is torn, altered or of another vault loads as nothing.

use std::{
    collections::HashMap,
    io::{self, Write as _},
    path::Path,
};

use domain::VaultId;

use crate::{
    id::{ChunkId, FileId, FrameKind, Sha256},
    pack::{Directory, FrameInfo, PackKind, Part},
};

const MAGIC: &[u8; 8] = b"EVHIDX01";

/// A frame of a known pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the pack in this index.
    pub pack: u32,
    pub frame: u32,
    pub kind: FrameKind,
    pub raw_len: u32,
}

/// A small file inside a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilePlace {
    pub bundle: ChunkId,
    pub offset: u32,
    pub length: u32,
}

/// What the index knows of a pack.
#[derive(Debug, Clone)]
pub struct KnownPack {
    pub kind: PackKind,
    pub sha256: Sha256,
    pub length: u64,
    pub directory: Directory,
}

/// Chunk and small-file look-up.
pub struct ChunkIndex {
    vault: VaultId,
    packs: Vec<KnownPack>,
    by_hash: HashMap<Sha256, u32>,
    chunks: HashMap<ChunkId, (u32, u32)>,
    files: HashMap<FileId, (u32, u32, u32)>,
}

impl ChunkIndex {
    /// An empty index of a vault.
    pub fn new(vault: VaultId) -> Self {
        Self {
            vault,
            packs: Vec::new(),
            by_hash: HashMap::new(),
            chunks: HashMap::new(),
            files: HashMap::new(),
        }
    }

    /// Adds a pack with its directory; one that is known already changes nothing.
    pub fn add(&mut self, kind: PackKind, sha256: Sha256, length: u64, directory: &Directory) {
        let Ok(number) = u32::try_from(self.packs.len()) else { return };
        if self.by_hash.contains_key(&sha256) {
            return;
        }
        self.by_hash.insert(sha256, number);
        for (at, frame) in (0_u32..).zip(&directory.frames) {
            if frame.kind != FrameKind::Pad {
                self.chunks.entry(frame.id).or_insert((number, at));
            }
            let mut offset = 0;
            for part in &frame.parts {
                self.files.entry(part.file).or_insert((number, at, offset));
                offset += part.length;
            }
        }
        self.packs.push(KnownPack { kind, sha256, length, directory: directory.clone() });
    }

    /// The packs to keep; everything else is forgotten. Call it with the packs the server still vouches for.
    pub fn retain(&mut self, keep: impl Fn(&Sha256) -> bool) {
        if self.packs.iter().all(|pack| keep(&pack.sha256)) {
            return;
        }
        let mut kept = Self::new(self.vault);
        for pack in self.packs.drain(..).filter(|pack| keep(&pack.sha256)) {
            kept.add(pack.kind, pack.sha256, pack.length, &pack.directory);
        }
        *self = kept;
    }

    pub fn has_pack(&self, sha256: &Sha256) -> bool {
        self.by_hash.contains_key(sha256)
    }
    /// The pack with this number ([`Place::pack`]).
    pub fn pack(&self, number: u32) -> Option<&KnownPack> {
        self.packs.get(number as usize)
    }
    pub fn packs(&self) -> &[KnownPack] {
        &self.packs
    }
    /// Chunks known.
    pub fn len(&self) -> usize {
        self.chunks.len()
    }
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
    pub const fn vault(&self) -> VaultId {
        self.vault
    }

    /// Where a chunk is.
    pub fn chunk(&self, id: &ChunkId) -> Option<Place> {
        let (pack, frame) = *self.chunks.get(id)?;
        let info = self.frame(pack, frame)?;
        Some(Place { pack, frame, kind: info.kind, raw_len: info.raw_len })
    }
    /// Where a small file's content is.
    pub fn file(&self, id: &FileId) -> Option<FilePlace> {
        let (pack, frame, offset) = *self.files.get(id)?;
        let info = self.frame(pack, frame)?;
        let length = info.parts.iter().find(|part| part.file == *id)?.length;
        Some(FilePlace { bundle: info.id, offset, length })
    }
    fn frame(&self, pack: u32, frame: u32) -> Option<&FrameInfo> {
        self.packs.get(pack as usize)?.directory.frames.get(frame as usize)
    }

    /// Writes the index beside `path` and renames it into place. `generation` is the vault's, for the reader to
    /// compare with what the server says.
    pub fn save(&self, path: &Path, generation: u64) -> io::Result<()> {
        let temporary = path.with_extension("new");
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.vault.into_bytes());
        out.extend_from_slice(&generation.to_be_bytes());
        out.extend_from_slice(&(self.packs.len() as u64).to_be_bytes());
        for pack in &self.packs {
            write_pack(&mut out, pack);
        }
        let check = blake3::hash(&out);
        out.extend_from_slice(check.as_bytes());
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&out)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    }

    /// Reads an index and its generation; `None` for anything that is not wholly right.
    pub fn load(path: &Path, vault: VaultId) -> Option<(Self, u64)> {
        let bytes = std::fs::read(path).ok()?;
        let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        if blake3::hash(body).as_bytes() != check {
            return None;
        }
        let mut input = Input(body);
        if input.take(8)? != MAGIC || input.take(16)? != vault.into_bytes() {
            return None;
        }
        let generation = input.number(8)?;
        let count = input.number(8)?;
        let mut index = Self::new(vault);
        for _ in 0..count {
            let (kind, sha256, length, directory) = input.pack()?;
            index.add(kind, sha256, length, &directory);
        }
        input.0.is_empty().then_some((index, generation))
    }
}

fn write_pack(out: &mut Vec<u8>, pack: &KnownPack) {
    out.push(pack.kind.code());
    out.extend_from_slice(&pack.sha256.0);
    out.extend_from_slice(&pack.length.to_be_bytes());
    out.extend_from_slice(&pack.directory.len().to_be_bytes());
    for frame in &pack.directory.frames {
        out.push(frame.kind.code());
        out.extend_from_slice(&frame.id.0);
        out.extend_from_slice(&frame.sealed_len.to_be_bytes());
        out.extend_from_slice(&frame.raw_len.to_be_bytes());
        out.extend_from_slice(&(frame.parts.len() as u64).to_be_bytes()[4..]);
        for part in &frame.parts {
            out.extend_from_slice(&part.file.0);
            out.extend_from_slice(&part.length.to_be_bytes());
        }
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
    fn number(&mut self, bytes: usize) -> Option<u64> {
        Some(self.take(bytes)?.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    }
    fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.number(4)?).ok()
    }
    fn pack(&mut self) -> Option<(PackKind, Sha256, u64, Directory)> {
        let kind = PackKind::from_code(*self.take(1)?.first()?)?;
        let sha256 = Sha256::from_slice(self.take(32)?)?;
        let length = self.number(8)?;
        let count = self.u32()?;
        let mut directory = Directory::default();
        for _ in 0..count {
            directory.frames.push(self.frame()?);
        }
        Some((kind, sha256, length, directory))
    }
    fn frame(&mut self) -> Option<FrameInfo> {
        let kind = FrameKind::from_code(*self.take(1)?.first()?)?;
        let id = ChunkId::from_slice(self.take(32)?)?;
        let (sealed_len, raw_len, count) = (self.u32()?, self.u32()?, self.u32()?);
        let mut parts = Vec::new();
        for _ in 0..count {
            parts.push(Part { file: FileId::from_slice(self.take(16)?)?, length: self.u32()? });
        }
        Some(FrameInfo { kind, id, sealed_len, raw_len, parts })
    }
}

/// Brings the index up to a snapshot's packs: directories of unknown packs are read, packs for which `keep` is
/// false and that the snapshot does not use are forgotten.
pub fn sync(
    index: &mut ChunkIndex,
    frames: &crate::snapshot::Frames,
    keep: impl Fn(&Sha256) -> bool,
) -> Result<(), crate::snapshot::ReadError> {
    index.retain(|sha256| frames.pack_ref(sha256).is_some() || keep(sha256));
    for pack in frames.packs() {
        if !index.has_pack(&pack.sha256) {
            let open = frames.open(pack)?;
            index.add(pack.kind, pack.sha256, pack.length, &open.directory);
        }
    }
    Ok(())
}
