//! Filling and sealing a pack.
//!
//! Frames are numbered when reserved, sealed by whoever holds the ticket, and put in place in any order; so
//! threads seal side by side while the number stays the nonce.

use std::sync::Arc;

use domain::IdGen;

use super::{
    Decoder, Directory, FrameInfo, HEADER_LEN, Header, PackKind, Part, SealedPack,
    pieces::Joiner,
    read::{TAIL_MAGIC, frame_aad},
};
use crate::{
    backup::BackupError,
    compress::Codec,
    id::{ChunkId, FrameKind, Sha256},
    keys::EpochKey,
    seal::{FrameCounter, FrameNumber, PackKeys, TAG_LEN},
};

/// Codec and raw length in front of the payload.
pub(super) const FRAME_HEAD: usize = 5;
/// What sealing adds to a payload.
pub(super) const FRAME_OVERHEAD: usize = FRAME_HEAD + TAG_LEN;
/// No pack is padded by more than this.
const PAD_STEP: u64 = 64 << 10;

/// A pack being filled.
pub struct PackBuilder {
    header: Header,
    hash: Sha256,
    keys: Arc<PackKeys>,
    counter: FrameCounter,
    slots: Vec<Option<SealedFrame>>,
    placed: usize,
    reserved: u64,
    parts: usize,
}

/// The right to seal one frame of one pack, once.
pub struct FrameTicket {
    number: FrameNumber,
    keys: Arc<PackKeys>,
    hash: Sha256,
    kind: FrameKind,
    id: ChunkId,
    parts: Vec<Part>,
}

/// A frame on its way into its slot.
pub struct SealedFrame {
    index: u32,
    info: FrameInfo,
    bytes: Vec<u8>,
}

impl PackBuilder {
    /// Starts a pack: salt and commitment of `header` are filled in here.
    pub fn new(mut header: Header, epoch_key: &EpochKey, ids: &dyn IdGen) -> Self {
        ids.fill(&mut header.salt);
        let keys = PackKeys::derive(&epoch_key.0, &header.salt, &header.context());
        header.commitment = keys.commitment();
        Self {
            hash: header.hash(),
            header,
            keys: Arc::new(keys),
            counter: FrameCounter::new(),
            slots: Vec::new(),
            placed: 0,
            reserved: 0,
            parts: 0,
        }
    }
    pub const fn kind(&self) -> PackKind {
        self.header.kind
    }
    /// Sequence number of the pack in its session.
    pub const fn seq(&self) -> u64 {
        self.header.seq
    }
    /// Bytes of frames reserved so far.
    pub const fn reserved_bytes(&self) -> u64 {
        self.reserved
    }
    /// Frames reserved so far.
    pub const fn frames(&self) -> u32 {
        self.counter.count()
    }
    /// Files in the bundles reserved so far.
    pub const fn parts(&self) -> usize {
        self.parts
    }
    /// Frames reserved and not yet in place.
    pub fn outstanding(&self) -> usize {
        self.slots.len() - self.placed
    }

    /// Takes the next frame number. `payload_len` is the length after compression.
    pub fn reserve(
        &mut self,
        kind: FrameKind,
        id: ChunkId,
        parts: Vec<Part>,
        payload_len: usize,
    ) -> FrameTicket {
        self.reserved += (payload_len + FRAME_OVERHEAD) as u64;
        self.parts += parts.len();
        self.slots.push(None);
        let number = self.counter.next_number();
        FrameTicket { number, keys: Arc::clone(&self.keys), hash: self.hash, kind, id, parts }
    }

    /// Puts a sealed frame where its number says.
    pub fn place(&mut self, frame: SealedFrame) {
        if let Some(slot) = self.slots.get_mut(frame.index as usize)
            && slot.replace(frame).is_none()
        {
            self.placed += 1;
        }
    }

    /// Pads, seals the directories, hashes. Every ticket must have come back.
    pub fn finish(mut self) -> Result<SealedPack, BackupError> {
        let mut directory = Directory::default();
        let mut frames = Vec::with_capacity(self.slots.len() + 1);
        for slot in std::mem::take(&mut self.slots) {
            let SealedFrame { info, bytes, .. } = slot.ok_or(BackupError::Worker)?;
            directory.frames.push(info);
            frames.push(bytes);
        }
        let pad = vec![0; pad_len(&directory)];
        let ticket = self.reserve(FrameKind::Pad, ChunkId([0; 32]), Vec::new(), pad.len());
        let SealedFrame { info, bytes, .. } =
            ticket.seal(Codec::Raw, &pad, &pad, &mut Decoder::default())?;
        directory.frames.push(info);
        frames.push(bytes);
        let regions = directory.regions();
        let copies = [
            (directory_aad(&self.hash, 0), directory.encode(0, regions)),
            (directory_aad(&self.hash, 1), directory.encode(1, regions)),
        ];
        let [(aad0, first), (aad1, second)] = copies;
        let reads = |copy, bytes: &[u8]| Directory::decode(bytes, copy).is_ok();
        if !reads(0, &first) || !reads(1, &second) {
            return Err(BackupError::SelfCheck);
        }
        let [first, second] =
            self.keys.seal_directories(self.counter, [(&aad0, first), (&aad1, second)]);
        let header = self.header.encode();
        let front = [&header[..], &regions.first.to_be_bytes(), &first].concat();
        let sizes = [regions.first.to_be_bytes(), regions.second.to_be_bytes()].concat();
        let back = [&second[..], &header, &sizes, TAIL_MAGIC].concat();
        let mut object = Joiner::default();
        object.push(front);
        frames.into_iter().for_each(|frame| object.push(frame));
        object.push(back);
        let bytes = object.finish();
        Ok(SealedPack {
            kind: self.header.kind,
            seq: self.header.seq,
            sha256: bytes.sha256(),
            bytes,
            directory,
        })
    }
}

/// Length of the padding that brings the object to its padded size.
fn pad_len(directory: &Directory) -> usize {
    let bundles = directory.frames.iter().filter(|frame| frame.kind == FrameKind::Bundle).count();
    let parts = directory.frames.iter().map(|frame| frame.parts.len()).sum();
    let count = directory.frames.len() + 1;
    let lists = u64::from(Directory::sealed_len(0, count, bundles, parts))
        + u64::from(Directory::sealed_len(1, count, bundles, parts));
    let fixed = (2 * HEADER_LEN + 20 + FRAME_OVERHEAD) as u64;
    let least = fixed + lists + directory.frames_len();
    usize::try_from(padded(least) - least).unwrap_or(0)
}

/// Padmé (Nikitin et al., PURBs): at most 12 % more, and never more than [`PAD_STEP`].
fn padded(length: u64) -> u64 {
    let exponent = length.max(2).ilog2();
    let kept = exponent.max(1).ilog2() + 1;
    let step = 1_u64 << exponent.saturating_sub(kept);
    length.next_multiple_of(step.min(PAD_STEP))
}

pub(super) fn directory_aad(header: &Sha256, copy: u8) -> [u8; 34] {
    let mut aad = [0; 34];
    aad[..32].copy_from_slice(&header.0);
    aad[32] = b'D';
    aad[33] = copy;
    aad
}

impl FrameTicket {
    /// Seals the payload, then opens and decodes it again, as a restore will, and compares with `raw`: a bad byte of
    /// memory or a bug in a library must not become a backup.
    pub fn seal(
        self,
        codec: Codec,
        payload: &[u8],
        raw: &[u8],
        check: &mut Decoder,
    ) -> Result<SealedFrame, BackupError> {
        let raw_len = u32::try_from(raw.len()).map_err(|_| BackupError::BadEntry)?;
        let mut bytes = Vec::with_capacity(payload.len() + FRAME_OVERHEAD);
        bytes.push(codec.code());
        bytes.extend_from_slice(&raw_len.to_be_bytes());
        bytes.extend_from_slice(payload);
        let index = self.number.index();
        let aad = frame_aad(&self.hash, self.kind, index, &self.id);
        self.keys.seal_frame(self.number, &aad, &mut bytes);
        let decoded = check.decode(&self.keys, (index, &aad), raw_len, &bytes);
        if !decoded.is_ok_and(|codec| check.content(codec) == Ok(raw)) {
            return Err(BackupError::SelfCheck);
        }
        let sealed_len = u32::try_from(bytes.len()).map_err(|_| BackupError::BadEntry)?;
        let info =
            FrameInfo { kind: self.kind, id: self.id, sealed_len, raw_len, parts: self.parts };
        Ok(SealedFrame { index, info, bytes })
    }
}
