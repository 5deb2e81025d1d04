//! Every parser of bytes that somebody else wrote, each as one function of bytes.
//!
//! Shared by the smoke test here and by the fuzz targets (`fuzz/`). Invariant of each: it does not panic, does not
//! take more memory than its input allows, and accepts one form of a thing only.

use domain::{AgentId, IdGen as _, PackId, SeededIds, SessionId, TenantId, VaultId};
use vault::{
    backup::Summary,
    cbor,
    certificate::LockCertificate,
    compress::Decompressor,
    content,
    descriptor::VaultDescriptor,
    keys::{AgentKeys, RecoveryKit, RootKey, Roster, VaultKeys, Wrap},
    layout::{self, Name},
    manifest::{FrameBitmap, SignedManifest, resolve},
    pack::{HEADER_LEN, Header, OpenPack, PackError, PackKind},
    receipt::{ForgetRecord, Receipt},
    seal::{FrameCounter, PackKeys},
    tree::{Entry, Node},
};

/// What parsers are given beside bytes: keys whose owner is hostile too.
pub struct Fixture {
    pub root: RootKey,
    pub keys: VaultKeys,
    pub agent: AgentKeys,
    epoch_key: [u8; 32],
}

impl Fixture {
    /// The same every time.
    pub fn of_a_hostile_member() -> Self {
        let (tenant, vault) = (TenantId::from_bytes([1; 16]), VaultId::from_bytes([2; 16]));
        let keys = VaultKeys::generate(tenant, vault, &SeededIds::new(77));
        // The generator again: its second draw is the epoch's key.
        let (again, mut epoch_key) = (SeededIds::new(77), [0; 32]);
        again.fill(&mut epoch_key);
        again.fill(&mut epoch_key);
        let ids = SeededIds::new(78);
        let (root, agent) = (RootKey::generate(&ids), AgentKeys::generate(&ids));
        Self { root, keys, agent, epoch_key }
    }
}

/// A parser by name.
pub struct Parser {
    pub name: &'static str,
    pub feed: fn(&Fixture, &[u8]),
}

pub const ALL: [Parser; 17] = [
    Parser { name: "cbor", feed: cbor },
    Parser { name: "manifest", feed: manifest },
    Parser { name: "roster", feed: roster },
    Parser { name: "descriptor", feed: descriptor },
    Parser { name: "wrap", feed: wrap },
    Parser { name: "receipt", feed: receipt },
    Parser { name: "pack", feed: pack },
    Parser { name: "header", feed: header },
    Parser { name: "directory", feed: directory },
    Parser { name: "frame", feed: frame },
    Parser { name: "node", feed: node },
    Parser { name: "entry", feed: entry },
    Parser { name: "pieces", feed: pieces },
    Parser { name: "kit", feed: kit },
    Parser { name: "summary", feed: summary },
    Parser { name: "certificate", feed: certificate },
    Parser { name: "name", feed: name },
];

/// The first bytes say what is asked for, the rest is read.
fn cbor(_: &Fixture, bytes: &[u8]) {
    let (questions, rest) = bytes.split_at(bytes.len().min(8));
    let mut reader = cbor::Reader::new(rest);
    for question in questions {
        let answered = match question % 10 {
            0 => reader.u64().is_ok(),
            1 => reader.i64().is_ok(),
            2 => reader.bytes().is_ok(),
            3 => reader.text().is_ok(),
            4 => reader.array().is_ok_and(|length| length <= rest.len()),
            5 => reader.map().is_ok_and(|length| length <= rest.len()),
            6 => reader.moment().is_ok(),
            7 => reader.array_of::<16>().is_ok(),
            8 => cbor::Fields::enter(&mut reader).is_ok(),
            _ => reader.u8().is_ok(),
        };
        if !answered {
            return;
        }
    }
    let _ = reader.end();
}

fn manifest(fixture: &Fixture, bytes: &[u8]) {
    let id = PackId::from_bytes([3; 16]);
    // As the object of somebody who can sign: the payload alone is hostile.
    let signed = vault_signed(fixture, b"everhold/manifest/v1", bytes);
    for object in [bytes, &signed] {
        if let Ok(manifest) = SignedManifest::decode(id, object) {
            let _ = resolve(std::slice::from_ref(&manifest));
        }
    }
    let _ = FrameBitmap::decode(bytes);
}

/// The two fields of a signed object, with a good signature of a hostile member.
fn vault_signed(fixture: &Fixture, domain: &[u8], payload: &[u8]) -> Vec<u8> {
    use ed25519_dalek::Signer as _;
    let text = [domain, &[0], payload].concat();
    let signature = fixture.agent.signing_key().sign(&text);
    let mut map = cbor::MapWriter::new();
    map.field(1).bytes(payload);
    map.field(2).bytes(&signature.to_bytes());
    map.finish()
}

fn roster(fixture: &Fixture, bytes: &[u8]) {
    let key = fixture.agent.verify_key();
    let trusted = [fixture.root.authority(), vault::keys::RosterAuthority::Platform(key)];
    let signed = vault_signed(fixture, b"everhold/roster/v1", bytes);
    for object in [bytes, &signed] {
        if let Ok(roster) = Roster::open(object, &trusted) {
            let _ = roster.member(AgentId::from_bytes([4; 16]));
        }
    }
}

fn descriptor(_: &Fixture, bytes: &[u8]) {
    if let Ok(descriptor) = VaultDescriptor::decode(bytes) {
        assert_eq!(descriptor.encode(), bytes);
        let _ = descriptor.check();
    }
}

fn wrap(fixture: &Fixture, bytes: &[u8]) {
    if let Ok(wrap) = Wrap::decode(bytes) {
        assert_eq!(wrap.encode(), bytes);
        let recipient = fixture.agent.recipient(AgentId::from_bytes([4; 16]));
        let _ = VaultKeys::open([&wrap], &recipient, fixture.agent.hpke_secret());
    }
}

fn receipt(fixture: &Fixture, bytes: &[u8]) {
    let key = fixture.agent.verify_key();
    for domain in [&b"everhold/receipt/v1"[..], b"everhold/forget/v1"] {
        let signed = vault_signed(fixture, domain, bytes);
        let _ = Receipt::open(&signed, &key);
        let _ = ForgetRecord::open(&signed, &key);
    }
    let _ = Receipt::open(bytes, &key);
    let _ = ForgetRecord::open(bytes, &key);
}

fn reader(
    bytes: &[u8],
) -> impl FnMut(std::ops::Range<u64>) -> Result<bytes::Bytes, PackError> + '_ {
    move |range| {
        let range = usize::try_from(range.start).map_err(|_| PackError::Short)?
            ..usize::try_from(range.end).map_err(|_| PackError::Short)?;
        let part = bytes.get(range).ok_or(PackError::Short)?;
        Ok(bytes::Bytes::copy_from_slice(part))
    }
}

fn pack(fixture: &Fixture, bytes: &[u8]) {
    let ids = vault::id::IdKeys::of(&fixture.keys);
    for kind in [PackKind::Data, PackKind::Meta] {
        let _ = OpenPack::open(&fixture.keys, kind, bytes.len() as u64, None, reader(bytes));
        let told = Some(u64::from(bytes.last().copied().unwrap_or(0)) << 4);
        let _ = OpenPack::open(&fixture.keys, kind, bytes.len() as u64, told, reader(bytes));
        let _ = OpenPack::check_whole(&fixture.keys, &ids, kind, bytes);
    }
}

fn header(_: &Fixture, bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<HEADER_LEN>() else { return };
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(&header.encode(), bytes);
    }
}

/// A directory a member of the vault sealed over anything it liked.
fn directory(fixture: &Fixture, bytes: &[u8]) {
    let mut header = Header {
        kind: PackKind::Data,
        tenant: fixture.keys.tenant(),
        vault: fixture.keys.vault(),
        epoch: 1,
        agent: AgentId::from_bytes([4; 16]),
        session: SessionId::from_bytes([5; 16]),
        seq: 1,
        salt: [6; 32],
        commitment: [0; 32],
    };
    let keys = PackKeys::derive(&fixture.epoch_key, &header.salt, &header.context());
    header.commitment = keys.commitment();
    let hash = header.hash();
    let aad = |copy: u8| [&hash.0[..], b"D", &[copy]].concat();
    let [first, second] = keys.seal_directories(
        FrameCounter::new(),
        [(&aad(0), bytes.to_vec()), (&aad(1), bytes.to_vec())],
    );
    let lengths = [first.len() as u32, second.len() as u32].map(u32::to_be_bytes);
    let head = header.encode();
    let object =
        [&head[..], &lengths[0], &first, &second, &head, &lengths[0], &lengths[1], b"EVHPEND1"]
            .concat();
    for kept in [0, 1] {
        let mut object = object.clone();
        // The second time the front is damaged, so that the copy behind is read.
        if let Some(byte) = object.get_mut(HEADER_LEN + 10).filter(|_| kept == 1) {
            *byte ^= 1;
        }
        let _ = OpenPack::open(
            &fixture.keys,
            PackKind::Data,
            object.len() as u64,
            None,
            reader(&object),
        );
    }
}

fn frame(_: &Fixture, bytes: &[u8]) {
    let Some((head, payload)) = bytes.split_first_chunk::<4>() else { return };
    let raw_len = (u32::from_be_bytes(*head) as usize).min(1 << 20);
    let mut raw = Vec::new();
    if Decompressor::default().decompress_into(payload, raw_len, &mut raw).is_ok() {
        assert_eq!(raw.len(), raw_len);
    }
}

fn node(_: &Fixture, bytes: &[u8]) {
    if let Ok(node) = Node::decode(bytes) {
        let _ = (node.first().map(<[u8]>::len), node.entries(), node.level());
    }
}

fn entry(_: &Fixture, bytes: &[u8]) {
    if let Ok(entry) = Entry::decode(b"a/b".to_vec(), bytes) {
        assert_eq!(entry.encode(), bytes);
        let _ = entry.size();
    }
}

fn pieces(_: &Fixture, bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_first_chunk::<9>() else { return };
    let length = head[1..].iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    let _ = content::decode(rest, head[0] % 5, length);
}

fn kit(_: &Fixture, bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(kit) = RecoveryKit::from_json(text) {
        let _ = kit.rehearse();
    }
}

fn summary(_: &Fixture, bytes: &[u8]) {
    if let Ok(summary) = Summary::decode(bytes) {
        assert_eq!(summary.encode(), bytes);
    }
}

fn certificate(fixture: &Fixture, bytes: &[u8]) {
    let key = fixture.agent.verify_key();
    let signed = vault_signed(fixture, b"everhold/lock-certificate/v1", bytes);
    for object in [bytes, &signed] {
        let _ = LockCertificate::open(object, &key);
    }
}

/// A key in the list of a bucket: what is read from it has no other spelling.
fn name(fixture: &Fixture, bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (tenant, vault) = (fixture.keys.tenant(), fixture.keys.vault());
    if let Some(name) = Name::parse(text) {
        let prefix = layout::vault_prefix(tenant, vault);
        assert_eq!(name.key(tenant, vault), format!("{prefix}/{text}"));
    }
}
