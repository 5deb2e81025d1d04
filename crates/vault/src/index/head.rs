//! The head of a stored index: its packs, and which runs hold their records.
//!
//! Invariant: a head that is torn, altered or of another vault reads as nothing, and what it names is pinned by hash.
//! It replaces the one before by rename, after everything it names is durable.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use domain::VaultId;

use super::{Fields, KnownPack, run::RunMeta};
use crate::{id::Sha256, pack::PackKind};

const MAGIC: &[u8; 8] = b"EVHIDX03";
/// Name of the head in the folder of the index.
pub(super) const HEAD: &str = "head";
const FRESH: &str = "head.new";

/// What opening an index reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub vault: VaultId,
    pub generation: u64,
    pub next_run: u64,
    pub next_pack: u32,
    pub packs: Vec<(u32, KnownPack)>,
    pub chunks: Vec<RunMeta>,
    pub files: Vec<RunMeta>,
}

impl Head {
    /// Puts the head into the folder, durably and at once.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        let fresh = folder.join(FRESH);
        let mut options = OpenOptions::new();
        faults::point("index: create the head")?;
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        faults::write_all("index: head: write", &mut file, &self.encode())?;
        faults::point("index: fsync of the head")?;
        file.sync_all()?;
        faults::point("index: rename the head")?;
        std::fs::rename(&fresh, folder.join(HEAD))?;
        faults::point("index: fsync of the folder")?;
        File::open(folder)?.sync_all()
    }

    pub fn load(folder: &Path) -> Option<Self> {
        Self::decode(&std::fs::read(folder.join(HEAD)).ok()?)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.vault.into_bytes());
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.next_run.to_be_bytes());
        out.extend_from_slice(&self.next_pack.to_be_bytes());
        out.extend_from_slice(&(self.packs.len() as u64).to_be_bytes());
        for (number, pack) in &self.packs {
            out.extend_from_slice(&number.to_be_bytes());
            out.push(pack.kind.code());
            out.extend_from_slice(&pack.sha256.0);
            out.extend_from_slice(&pack.length.to_be_bytes());
            out.extend_from_slice(&pack.frames.to_be_bytes());
            out.extend_from_slice(&pack.frames_at.to_be_bytes());
            out.extend_from_slice(&pack.chunks.to_be_bytes());
            out.extend_from_slice(&pack.files.to_be_bytes());
        }
        for runs in [&self.chunks, &self.files] {
            out.extend_from_slice(&(runs.len() as u64).to_be_bytes());
            for run in runs {
                out.extend_from_slice(&run.number.to_be_bytes());
                out.extend_from_slice(&run.records.to_be_bytes());
                out.extend_from_slice(&run.top_hash);
            }
        }
        let check = blake3::hash(&out);
        out.extend_from_slice(check.as_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        if blake3::hash(body).as_bytes() != check {
            return None;
        }
        let mut input = Fields(body);
        if input.take::<8>()? != *MAGIC {
            return None;
        }
        let mut head = Self {
            vault: VaultId::from_bytes(input.take()?),
            generation: input.u64()?,
            next_run: input.u64()?,
            next_pack: input.u32()?,
            packs: Vec::new(),
            chunks: Vec::new(),
            files: Vec::new(),
        };
        for _ in 0..input.u64()? {
            head.packs.push((input.u32()?, input.pack()?));
        }
        head.chunks = input.runs()?;
        head.files = input.runs()?;
        input.0.is_empty().then_some(head)
    }
}

impl Fields<'_> {
    fn pack(&mut self) -> Option<KnownPack> {
        let [kind] = self.take()?;
        Some(KnownPack {
            kind: PackKind::from_code(kind)?,
            sha256: Sha256(self.take()?),
            length: self.u64()?,
            frames: self.u32()?,
            frames_at: self.u32()?,
            chunks: self.u32()?,
            files: self.u32()?,
        })
    }
    fn runs(&mut self) -> Option<Vec<RunMeta>> {
        let mut runs = Vec::new();
        for _ in 0..self.u64()? {
            let (number, records) = (self.u64()?, self.u64()?);
            runs.push(RunMeta { number, records, top_hash: self.take()? });
        }
        Some(runs)
    }
}
