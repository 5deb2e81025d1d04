//! Hostile bytes: no decoder panics, allocates beyond its input or accepts a second form of anything.

use domain::PackId;
use proptest::prelude::*;

use vault::{
    content,
    descriptor::VaultDescriptor,
    id::{ChunkId, FileId, IdKeys},
    index::ChunkIndex,
    keys::{RecoveryKit, Roster, Wrap},
    manifest::{FrameBitmap, SignedManifest},
    pack::{OpenPack, PackKind},
    receipt::{ForgetRecord, Receipt},
    tree::{Content, Entry, EntryKind, FileTime, Node, Piece, Xattr},
};

use crate::common::{Lab, Tree, dir, file};

fn everything(lab: &Lab, bytes: &[u8]) {
    let id = PackId::from_bytes([1; 16]);
    let _ = SignedManifest::decode(id, bytes);
    let _ = Roster::open(bytes, &[lab.root.authority()]);
    let _ = Receipt::open(bytes, &[1; 32]);
    let _ = ForgetRecord::open(bytes, &[1; 32]);
    let _ = FrameBitmap::decode(bytes);
    let _ = content::decode(bytes, 0, 10);
    let _ = std::str::from_utf8(bytes).map(RecoveryKit::from_json);
    if let Ok(descriptor) = VaultDescriptor::decode(bytes) {
        assert_eq!(descriptor.encode(), bytes);
    }
    if let Ok(wrap) = Wrap::decode(bytes) {
        assert_eq!(wrap.encode(), bytes);
    }
    if let Ok(entry) = Entry::decode(Vec::new(), bytes) {
        assert_eq!(entry.encode(), bytes);
    }
    let _ = Node::decode(bytes);
    let ids = IdKeys::of(&lab.keys);
    for kind in [PackKind::Data, PackKind::Meta] {
        assert!(OpenPack::check_whole(&lab.keys, &ids, kind, bytes).is_err());
    }
}

fn entries() -> impl Strategy<Value = Entry> {
    let content = prop_oneof![
        Just((0, Content::Empty)),
        (1_u32..70_000, any::<u32>(), any::<[u8; 32]>(), any::<[u8; 16]>()).prop_map(
            |(length, offset, bundle, file)| {
                let (bundle, file) = (ChunkId(bundle), FileId(file));
                (u64::from(length), Content::Bundled { bundle, offset, length, file })
            }
        ),
        (0_u8..3, proptest::collection::vec((any::<Option<[u8; 32]>>(), 1_u64..1 << 40), 1..20))
            .prop_map(|(depth, list)| {
                let piece = |(id, length): &(Option<[u8; 32]>, u64)| match id {
                    Some(id) => Piece::Data { id: ChunkId(*id), length: *length },
                    None => Piece::Hole { length: *length },
                };
                let size = list.iter().map(|(_, length)| length).sum();
                (size, Content::Pieces { depth, pieces: list.iter().map(piece).collect() })
            }),
    ];
    let kind = prop_oneof![
        content.prop_map(|(size, content)| EntryKind::File { size, content }),
        Just(EntryKind::Directory),
        any::<Vec<u8>>().prop_map(|target| EntryKind::Symlink { target }),
        Just(EntryKind::Fifo),
        Just(EntryKind::Socket),
        any::<(u32, u32)>().prop_map(|(major, minor)| EntryKind::CharDevice { major, minor }),
        any::<(u32, u32)>().prop_map(|(major, minor)| EntryKind::BlockDevice { major, minor }),
    ];
    let time =
        (any::<i64>(), 0_u32..1_000_000_000).prop_map(|(secs, nanos)| FileTime { secs, nanos });
    let names = (any::<Option<Vec<u8>>>(), any::<Option<Vec<u8>>>(), any::<Option<u64>>());
    let xattrs = proptest::collection::btree_map(any::<Vec<u8>>(), any::<Vec<u8>>(), 0..4);
    let numbers =
        (0_u32..0o10000, any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>(), any::<u32>());
    (kind, time.clone(), proptest::option::of(time), names, xattrs, numbers).prop_map(
        |(kind, mtime, ctime, (user, group, hardlink), xattrs, numbers)| {
            let mut entry = Entry::new(b"a/b".to_vec(), kind);
            (entry.mode, entry.uid, entry.gid, entry.inode, entry.device, entry.flags) = numbers;
            (entry.user, entry.group, entry.hardlink) = (user, group, hardlink);
            (entry.mtime, entry.ctime, entry.atime) = (mtime, ctime, ctime);
            entry.xattrs = xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect();
            entry
        },
    )
}

proptest! {
    #[test]
    fn random_bytes_harm_no_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        everything(&Lab::new(30), &bytes);
    }

    #[test]
    fn altered_objects_harm_no_decoder(
        which in 0_usize..8,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let (lab, objects) = objects();
        let mut bytes = objects[which % objects.len()].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if !objects.contains(&bytes) {
            everything(lab, &bytes);
        }
    }

    #[test]
    fn entries_read_back_and_have_one_form(entry in entries(), flip in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = entry.encode();
        prop_assert_eq!(Entry::decode(entry.path.clone(), &bytes), Ok(entry.clone()));
        let at = flip.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        if let Ok(other) = Entry::decode(entry.path.clone(), &bytes) {
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn a_torn_or_altered_head_of_an_index_loads_as_nothing(at in any::<prop::sample::Index>(), cut: bool) {
        let (lab, _) = objects();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        lab.index().save(&path, 5).unwrap();
        let (index, generation) = ChunkIndex::load(&path, lab.keys.vault()).unwrap();
        prop_assert_eq!((index.len(), generation), (lab.index().len(), 5));
        let head = path.join("head");
        let mut bytes = std::fs::read(&head).unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1 }
        std::fs::write(&head, bytes).unwrap();
        prop_assert!(ChunkIndex::load(&path, lab.keys.vault()).is_none());
    }
}

/// A vault and one valid object of each kind, made once.
fn objects() -> &'static (Lab, Vec<Vec<u8>>) {
    static OBJECTS: std::sync::OnceLock<(Lab, Vec<Vec<u8>>)> = std::sync::OnceLock::new();
    OBJECTS.get_or_init(|| {
        let lab = Lab::new(31);
        let tree: Tree = [dir(""), file("a", "alpha"), file("b", "beta")].into();
        let done = lab.backup(&tree, None);
        let mut objects = vec![done.object, lab.roster.clone(), lab.descriptor.encode()];
        let wrap = lab.keys.wrap_for(1, lab.root.recipient(), &*lab.ids).unwrap();
        objects.push(wrap.encode());
        let packs = lab.bucket.packs.lock().unwrap();
        objects.extend(packs.values().map(|pack| pack.bytes.to_vec()));
        drop(packs);
        (lab, objects)
    })
}

/// Each of its keys is written as a few bytes and would be 64 KiB in memory.
#[test]
fn a_node_that_would_fill_the_memory_is_refused() {
    let mut writer = vault::cbor::Writer::new();
    let long = vec![b'k'; 60_000];
    let count = 100_000_u32;
    writer.array(1 + 3 * count as usize).uint(0_u8);
    writer.uint(0_u8).bytes(&long).bytes(b"");
    for at in 1..count {
        let before = (at - 1).to_be_bytes();
        let now = at.to_be_bytes();
        let same =
            if at == 1 { 0 } else { before.iter().zip(&now).take_while(|(a, b)| a == b).count() };
        writer.uint(60_000 + same as u64).bytes(&now[same..]).bytes(b"");
    }
    let refused = Node::decode(&writer.into_bytes());
    assert_eq!(refused, Err(vault::cbor::CborError::OutOfBounds));
}
