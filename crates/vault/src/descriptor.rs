//! The vault descriptor: parameters every writer and reader of a vault must share.
//!
//! Owns their encoding and bounds. Invariant: an unknown version, suite or algorithm is refused, never
//! guessed; the roster carries the descriptor's SHA-256, so nobody changes it unnoticed.

use domain::{TenantId, Timestamp, VaultId};

use crate::{
    cbor::{CborError, Fields, MapWriter, Reader, Writer},
    id::Sha256,
};

/// Who can open the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyMode {
    /// The platform's `KeyWrapper` is a recipient: browse, download and verify on the server.
    Managed,
    /// Only agents and the kit.
    CustomerHeld,
}

/// How files and streams are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunking {
    /// FastCDC (2020) with a gear table derived from the vault's id secret. Sizes in bytes.
    FastCdc { min: u32, avg: u32, max: u32 },
    /// Aligned blocks of one size.
    Fixed { block: u32 },
}

/// How small files are bundled. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bundling {
    /// Files smaller than this go into bundles.
    pub below: u32,
    pub min: u32,
    pub target: u32,
    pub max: u32,
}

/// Sizes of nodes of the metadata tree, in bytes before compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeSizes {
    pub min: u32,
    pub target: u32,
    pub max: u32,
}

/// How packs are filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackSizes {
    /// A pack is closed when its frames reach this many bytes.
    pub target: u32,
    /// Frames including padding; at most 65 536.
    pub max_frames: u32,
}

/// zstd levels. They may change at any time: ids are over plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    pub data: i32,
    pub bundle: i32,
    pub meta: i32,
}

/// Parameters of one vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultDescriptor {
    pub tenant: TenantId,
    pub vault: VaultId,
    pub created: Timestamp,
    pub key_mode: KeyMode,
    pub files: Chunking,
    pub images: Chunking,
    pub bundling: Bundling,
    pub nodes: NodeSizes,
    pub packs: PackSizes,
    pub levels: Levels,
}

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// Largest plaintext of any frame.
pub const MAX_FRAME_RAW: usize = 16 << 20;
/// Most frames in a pack.
pub const MAX_FRAMES: u32 = 65_536;

impl VaultDescriptor {
    /// Today's defaults.
    pub const fn new(
        tenant: TenantId,
        vault: VaultId,
        created: Timestamp,
        key_mode: KeyMode,
    ) -> Self {
        Self {
            tenant,
            vault,
            created,
            key_mode,
            files: Chunking::FastCdc { min: 64 * KIB, avg: 256 * KIB, max: MIB },
            images: Chunking::Fixed { block: 128 * KIB },
            bundling: Bundling {
                below: 64 * KIB,
                min: 64 * KIB,
                target: 128 * KIB,
                max: 256 * KIB,
            },
            nodes: NodeSizes { min: 4 * KIB, target: 12 * KIB, max: 48 * KIB },
            packs: PackSizes { target: 32 * MIB, max_frames: MAX_FRAMES },
            levels: Levels { data: 3, bundle: 3, meta: 3 },
        }
    }

    /// Deterministic CBOR.
    pub fn encode(&self) -> Vec<u8> {
        let mut map = MapWriter::new();
        map.field(1).uint(1_u8);
        map.field(2).uint(1_u8);
        map.field(3).bytes(&self.tenant.into_bytes());
        map.field(4).bytes(&self.vault.into_bytes());
        map.field(5).uint(self.created.unix_millis());
        map.field(6).uint(match self.key_mode {
            KeyMode::Managed => 1_u8,
            KeyMode::CustomerHeld => 2,
        });
        // 7: id algorithm, 1 = keyed BLAKE3.
        map.field(7).uint(1_u8);
        self.files.encode(map.field(8));
        self.images.encode(map.field(9));
        let Bundling { below, min, target, max } = self.bundling;
        numbers(map.field(10), &[below, min, target, max]);
        numbers(map.field(11), &[self.nodes.min, self.nodes.target, self.nodes.max]);
        numbers(map.field(12), &[self.packs.target, self.packs.max_frames]);
        // 13: compression, algorithm 1 = zstd, then the levels.
        let Levels { data, bundle, meta } = self.levels;
        let compression = map.field(13).array(4).uint(1_u8);
        compression.int(data.into()).int(bundle.into()).int(meta.into());
        map.finish()
    }

    /// Strict and bounded; refuses versions and algorithms it does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, DescriptorError> {
        let mut reader = Reader::new(bytes);
        let r = &mut reader;
        let mut fields = Fields::enter(r)?;
        fields.required(r, 1)?;
        expect(r.u64()?, 1, DescriptorError::Version)?;
        fields.required(r, 2)?;
        expect(r.u64()?, 1, DescriptorError::Algorithm)?;
        fields.required(r, 3)?;
        let tenant = TenantId::from_bytes(r.array_of()?);
        fields.required(r, 4)?;
        let vault = VaultId::from_bytes(r.array_of()?);
        fields.required(r, 5)?;
        let created = r.moment()?;
        fields.required(r, 6)?;
        let key_mode = match r.u64()? {
            1 => KeyMode::Managed,
            2 => KeyMode::CustomerHeld,
            _ => return Err(DescriptorError::Algorithm),
        };
        fields.required(r, 7)?;
        expect(r.u64()?, 1, DescriptorError::Algorithm)?;
        fields.required(r, 8)?;
        let files = Chunking::decode(r)?;
        fields.required(r, 9)?;
        let images = Chunking::decode(r)?;
        fields.required(r, 10)?;
        let [below, min, target, max] = read_numbers(r)?;
        let bundling = Bundling { below, min, target, max };
        fields.required(r, 11)?;
        let [min, target, max] = read_numbers(r)?;
        let nodes = NodeSizes { min, target, max };
        fields.required(r, 12)?;
        let [target, max_frames] = read_numbers(r)?;
        let packs = PackSizes { target, max_frames };
        fields.required(r, 13)?;
        let levels = decode_levels(r)?;
        fields.end(r)?;
        reader.end()?;
        let descriptor = Self {
            tenant,
            vault,
            created,
            key_mode,
            files,
            images,
            bundling,
            nodes,
            packs,
            levels,
        };
        descriptor.check()?;
        Ok(descriptor)
    }

    /// What the roster pins.
    pub fn sha256(&self) -> Sha256 {
        Sha256::of(&self.encode())
    }

    /// Refuses parameters no writer could work with.
    pub fn check(&self) -> Result<(), DescriptorError> {
        let ordered =
            |a: u32, b: u32, c: u32| a >= 64 && a < b && b < c && c as usize <= MAX_FRAME_RAW;
        let chunking = |chunking: Chunking| match chunking {
            // The bounds of the `fastcdc` crate.
            Chunking::FastCdc { min, avg, max } => {
                ordered(min, avg, max)
                    && (256..=4 * MIB).contains(&avg)
                    && max >= KIB
                    && min <= MIB
                    && (min | avg | max).is_multiple_of(2)
            }
            Chunking::Fixed { block } => (512..=MAX_FRAME_RAW as u32).contains(&block),
        };
        let Bundling { below, min, target, max } = self.bundling;
        let good = chunking(self.files)
            && chunking(self.images)
            && ordered(min, target, max)
            && below <= max
            && ordered(self.nodes.min, self.nodes.target, self.nodes.max)
            && (64 * KIB..=64 * MIB).contains(&self.packs.target)
            && (2..=MAX_FRAMES).contains(&self.packs.max_frames)
            && [self.levels.data, self.levels.bundle, self.levels.meta]
                .iter()
                .all(|level| (-7..=22).contains(level));
        if good { Ok(()) } else { Err(DescriptorError::Bounds) }
    }
}

impl Chunking {
    fn encode(self, out: &mut Writer) {
        match self {
            Self::FastCdc { min, avg, max } => numbers(out, &[1, min, avg, max]),
            Self::Fixed { block } => numbers(out, &[2, block]),
        }
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DescriptorError> {
        let len = r.array()?;
        match (r.u64()?, len) {
            (1, 4) => Ok(Self::FastCdc { min: r.u32()?, avg: r.u32()?, max: r.u32()? }),
            (2, 2) => Ok(Self::Fixed { block: r.u32()? }),
            _ => Err(DescriptorError::Algorithm),
        }
    }
}

fn decode_levels(r: &mut Reader<'_>) -> Result<Levels, DescriptorError> {
    if r.array()? != 4 {
        return Err(CborError::OutOfBounds.into());
    }
    expect(r.u64()?, 1, DescriptorError::Algorithm)?;
    let mut level = || -> Result<i32, CborError> {
        i32::try_from(r.i64()?).map_err(|_| CborError::OutOfBounds)
    };
    Ok(Levels { data: level()?, bundle: level()?, meta: level()? })
}

fn numbers(out: &mut Writer, values: &[u32]) {
    out.array(values.len());
    for value in values {
        out.uint(*value);
    }
}

fn read_numbers<const N: usize>(r: &mut Reader<'_>) -> Result<[u32; N], CborError> {
    if r.array()? != N {
        return Err(CborError::OutOfBounds);
    }
    let mut values = [0; N];
    for value in &mut values {
        *value = r.u32()?;
    }
    Ok(values)
}

fn expect(found: u64, wanted: u64, error: DescriptorError) -> Result<(), DescriptorError> {
    if found == wanted { Ok(()) } else { Err(error) }
}

/// The descriptor cannot be used by this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    #[error("the vault descriptor is damaged: {0}")]
    Cbor(#[from] CborError),
    #[error("the vault was made by a newer version")]
    Version,
    #[error("the vault uses an algorithm this version does not know")]
    Algorithm,
    #[error("a parameter of the vault is out of its bounds")]
    Bounds,
}
