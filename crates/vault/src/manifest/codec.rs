//! Bytes of a manifest's payload.

use domain::{AgentId, PackId, SessionId, TenantId, VaultId, WorkloadId};

use super::{FrameBitmap, Manifest, ManifestError, PackList, PackRef, ParentRef};
use crate::{
    cbor::{CborError, Fields, MapWriter, Reader, Writer},
    id::{ChunkId, Sha256},
    pack::PackKind,
    tree::Root,
};

/// S3 version ids are short; anything longer is an attack on memory.
const MAX_VERSION_ID: usize = 1_024;

pub(super) fn encode(manifest: &Manifest) -> Vec<u8> {
    let mut map = MapWriter::new();
    map.field(1).uint(1_u8);
    map.field(2).bytes(&manifest.tenant.into_bytes());
    map.field(3).bytes(&manifest.vault.into_bytes());
    map.field(4).bytes(&manifest.workload.into_bytes());
    map.field(5).bytes(&manifest.agent.into_bytes());
    map.field(6).bytes(&manifest.session.into_bytes());
    map.field(7).uint(manifest.fence);
    map.field(8).uint(manifest.key_epoch);
    map.field(9).uint(manifest.created.unix_millis());
    let Root { node, level, entries } = manifest.root;
    map.field(10).array(3).bytes(&node.0).uint(level).uint(entries);
    map.field(11).bytes(&manifest.summary.0);
    if let Some(parent) = &manifest.parent {
        let list = map.field(12).array(2);
        list.bytes(&parent.manifest.into_bytes()).bytes(&parent.sha256.0);
    }
    map.field(13).uint(manifest.depth);
    match &manifest.packs {
        PackList::Full(packs) => pack_refs(map.field(14), packs),
        PackList::Delta { added, removed, changed } => {
            pack_refs(map.field(15), added);
            let list = map.field(16).array(removed.len());
            for id in removed {
                list.bytes(&id.into_bytes());
            }
            let list = map.field(17).array(changed.len());
            for (id, frames) in changed {
                list.array(2).bytes(&id.into_bytes()).bytes(frames.as_bytes());
            }
        }
    }
    map.field(18).bytes(&manifest.set_hash.0);
    map.finish()
}

fn pack_refs(out: &mut Writer, packs: &[PackRef]) {
    out.array(packs.len());
    for pack in packs {
        pack_ref(out, pack);
    }
}

/// `[id, kind, sha256, length, version id, frame count, bitmap of used frames]`.
pub(super) fn pack_ref(out: &mut Writer, pack: &PackRef) {
    out.array(7).bytes(&pack.id.into_bytes()).uint(pack.kind.code());
    out.bytes(&pack.sha256.0).uint(pack.length).text(&pack.version_id);
    out.uint(pack.frames).bytes(pack.used.as_bytes());
}

pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let mut reader = Reader::new(bytes);
    let r = &mut reader;
    let mut fields = Fields::enter(r)?;
    fields.required(r, 1)?;
    if r.u64()? != 1 {
        return Err(ManifestError::Version);
    }
    let mut id = |r: &mut Reader<'_>, key: u64| -> Result<[u8; 16], CborError> {
        fields.required(r, key)?;
        r.array_of()
    };
    let tenant = TenantId::from_bytes(id(r, 2)?);
    let vault = VaultId::from_bytes(id(r, 3)?);
    let workload = WorkloadId::from_bytes(id(r, 4)?);
    let agent = AgentId::from_bytes(id(r, 5)?);
    let session = SessionId::from_bytes(id(r, 6)?);
    fields.required(r, 7)?;
    let fence = r.u64()?;
    fields.required(r, 8)?;
    let key_epoch = r.u32()?;
    fields.required(r, 9)?;
    let created = r.moment()?;
    fields.required(r, 10)?;
    exactly(r.array()?, 3)?;
    let root = Root { node: ChunkId(r.array_of()?), level: r.u8()?, entries: r.u64()? };
    fields.required(r, 11)?;
    let summary = ChunkId(r.array_of()?);
    let parent = if fields.optional(r, 12)? {
        exactly(r.array()?, 2)?;
        let manifest = PackId::from_bytes(r.array_of()?);
        Some(ParentRef { manifest, sha256: Sha256(r.array_of()?) })
    } else {
        None
    };
    fields.required(r, 13)?;
    let depth = r.u8()?;
    let packs = decode_list(&mut fields, r)?;
    let full = matches!(packs, PackList::Full(_));
    if full != (depth == 0) || depth >= super::FULL_EVERY || (!full && parent.is_none()) {
        return Err(CborError::OutOfBounds.into());
    }
    fields.required(r, 18)?;
    let set_hash = Sha256(r.array_of()?);
    fields.end(r)?;
    reader.end()?;
    Ok(Manifest {
        tenant,
        vault,
        workload,
        agent,
        session,
        fence,
        key_epoch,
        created,
        root,
        summary,
        parent,
        depth,
        packs,
        set_hash,
    })
}

fn decode_list(fields: &mut Fields, r: &mut Reader<'_>) -> Result<PackList, CborError> {
    if fields.optional(r, 14)? {
        return Ok(PackList::Full(decode_refs(r)?));
    }
    fields.required(r, 15)?;
    let added = decode_refs(r)?;
    fields.required(r, 16)?;
    let removed = sorted(r, |id| *id, |r| Ok(PackId::from_bytes(r.array_of()?)))?;
    fields.required(r, 17)?;
    let changed = sorted(
        r,
        |(id, _)| *id,
        |r| {
            exactly(r.array()?, 2)?;
            Ok((PackId::from_bytes(r.array_of()?), FrameBitmap::decode(r.bytes()?)?))
        },
    )?;
    Ok(PackList::Delta { added, removed, changed })
}

fn decode_refs(r: &mut Reader<'_>) -> Result<Vec<PackRef>, CborError> {
    sorted(r, |pack| pack.id, decode_ref)
}

fn decode_ref(r: &mut Reader<'_>) -> Result<PackRef, CborError> {
    exactly(r.array()?, 7)?;
    let id = PackId::from_bytes(r.array_of()?);
    let kind = PackKind::from_code(r.u8()?).ok_or(CborError::OutOfBounds)?;
    let sha256 = Sha256(r.array_of()?);
    let length = r.u64()?;
    let version_id = r.text()?;
    if version_id.len() > MAX_VERSION_ID {
        return Err(CborError::OutOfBounds);
    }
    let version_id = version_id.to_owned();
    let frames = r.u32()?;
    let used = FrameBitmap::decode(r.bytes()?)?;
    if frames > crate::descriptor::MAX_FRAMES || used.highest().is_some_and(|top| top >= frames) {
        return Err(CborError::OutOfBounds);
    }
    Ok(PackRef { id, kind, sha256, length, version_id, frames, used })
}

/// An array in strictly ascending order of its keys.
fn sorted<T>(
    r: &mut Reader<'_>,
    key: impl Fn(&T) -> PackId,
    mut item: impl FnMut(&mut Reader<'_>) -> Result<T, CborError>,
) -> Result<Vec<T>, CborError> {
    let count = r.array()?;
    let mut items: Vec<T> = Vec::new();
    for _ in 0..count {
        let next = item(r)?;
        if items.last().is_some_and(|last| key(last) >= key(&next)) {
            return Err(CborError::NotDeterministic);
        }
        items.push(next);
    }
    Ok(items)
}

const fn exactly(found: usize, wanted: usize) -> Result<(), CborError> {
    if found == wanted { Ok(()) } else { Err(CborError::OutOfBounds) }
}
