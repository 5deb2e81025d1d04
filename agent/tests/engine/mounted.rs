//! What a mounted snapshot answers, without a kernel: ranges, holes, pages, names, and what is lost.

use std::{
    fs,
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _, fs::MetadataExt as _},
    path::Path,
    sync::Arc,
};

use domain::{SnapshotId, Timestamp};
use everhold_agent::{
    mount::{Dated, Kind, Library, LibraryError, Listed, Place, Seek, Trouble, View},
    sources::Excludes,
};
use vault::snapshot::Reader;

use crate::support::{Taken, Vault, place};

const ID: SnapshotId = SnapshotId::from_bytes([9; 16]);

struct One(Arc<Reader>);

impl Library for One {
    fn list(&self) -> Result<Vec<Dated>, LibraryError> {
        Ok(vec![Dated { id: ID, committed_at: Timestamp::UNIX_EPOCH }])
    }
    fn open(&self, id: SnapshotId) -> Result<Arc<Reader>, LibraryError> {
        if id == ID { Ok(self.0.clone()) } else { Err(LibraryError("unknown".to_owned())) }
    }
}

fn view(taken: &Taken, only: bool) -> View {
    View::new(Box::new(One(taken.reader.clone())), only.then_some(ID))
}

/// The place a path of the source has in the view.
fn find(view: &View, path: &Path) -> Listed {
    let parts = path.as_os_str().as_bytes().split(|byte| *byte == b'/');
    let mut found = None;
    for name in parts.filter(|name| !name.is_empty()) {
        let folder = found.as_ref().map_or(view.root(), |listed: &Listed| listed.place.clone());
        found = Some(view.lookup(&folder, name).expect("found"));
    }
    found.expect("a path")
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(step).collect()
}

#[test]
fn any_range_of_any_file_is_what_the_source_has() {
    let (_dir, source) = place();
    // So many chunks that lists of them are frames of their own.
    fs::write(source.join("large"), noise(60 << 20)).expect("write");
    fs::write(source.join("small"), noise(1_234)).expect("write");
    fs::write(source.join("empty"), b"").expect("write");
    let sparse = fs::File::create(source.join("sparse")).expect("create");
    sparse.write_all_at(&noise(3 << 20), 5 << 20).expect("write");
    sparse.set_len(40 << 20).expect("length");
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let view = view(&taken, true);
    let mut state = noise(8).iter().fold(1_u64, |sum, byte| sum * 31 + u64::from(*byte));
    let mut random = |most: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 20) % most
    };
    for name in ["large", "small", "empty", "sparse"] {
        let file = fs::File::open(source.join(name)).expect("open");
        let size = file.metadata().expect("stat").len();
        let at = find(&view, &source.join(name)).place;
        assert_eq!(view.attributes(&at, None).expect("attributes").size, size);
        for _ in 0..150 {
            let (offset, length) = (random(size + 10), random(2 << 20));
            let length = u32::try_from(length).expect("small");
            let read = view.read(&at, offset, length).expect("read");
            let wanted = u64::from(length).min(size.saturating_sub(offset));
            let mut expected = vec![0; usize::try_from(wanted).expect("small")];
            file.read_exact_at(&mut expected, offset).expect("source");
            assert!(read.as_slice() == expected, "{name} at {offset}, {length}");
        }
    }
    let sparse = find(&view, &source.join("sparse")).place;
    let seek = |offset, what| view.seek(&sparse, offset, what);
    assert_eq!(seek(0, Seek::Data), Ok(5 << 20));
    assert_eq!(seek(5 << 20, Seek::Hole), Ok(8 << 20));
    assert_eq!(seek(8 << 20, Seek::Data), Err(Trouble::Beyond));
    assert_eq!(seek(9 << 20, Seek::Hole), Ok(9 << 20));
    assert_eq!(seek(40 << 20, Seek::Hole), Err(Trouble::Beyond));
    let large = find(&view, &source.join("large")).place;
    assert_eq!(view.seek(&large, 7, Seek::Hole), Ok(60 << 20));
}

#[test]
fn folders_links_and_attributes_are_told_as_they_were() {
    let (_dir, source) = place();
    fs::write(source.join("one"), b"content").expect("write");
    fs::hard_link(source.join("one"), source.join("two")).expect("link");
    std::os::unix::fs::symlink("one", source.join("link")).expect("symlink");
    fs::create_dir(source.join("folder")).expect("mkdir");
    for number in 0..700 {
        fs::write(source.join(format!("folder/{number:04}")), b"x").expect("write");
    }
    let taken = Vault::new().back_up(&[&source], None, Excludes::default());
    let view = view(&taken, false);
    let root = view.page(&view.root(), None, 100).expect("root").entries;
    let names: Vec<&[u8]> = root.iter().map(|listed| listed.name.as_slice()).collect();
    assert_eq!(names, [&b"1970-01-01T00-00-00Z"[..], b"latest"]);
    assert_eq!(view.readlink(&root[1].place).expect("link"), b"1970-01-01T00-00-00Z");
    let dated = Path::new("1970-01-01T00-00-00Z");
    let inside = dated.join(source.strip_prefix("/").expect("absolute"));
    let (one, two) = (find(&view, &inside.join("one")), find(&view, &inside.join("two")));
    let known = view.attributes(&one.place, Some(&one)).expect("attributes");
    let stat = fs::metadata(source.join("one")).expect("stat");
    assert_eq!((known.names, known.size, known.kind), (2, 7, Kind::File));
    assert_eq!((known.mtime.secs, i64::from(known.mtime.nanos)), (stat.mtime(), stat.mtime_nsec()));
    assert_eq!(one.place.number(), two.place.number(), "one file, one number");
    assert_eq!(view.readlink(&find(&view, &inside.join("link")).place).expect("link"), b"one");
    let folder = find(&view, &inside.join("folder")).place;
    let first = view.page(&folder, None, 500).expect("page").entries;
    let second = view.page(&folder, Some(&first[499].name), 500).expect("page").entries;
    assert_eq!((first.len(), second.len(), second[199].name.as_slice()), (500, 200, &b"0699"[..]));
    let gone = view.lookup(&folder, b"nothing").err();
    assert_eq!(gone, Some(Trouble::NotFound));
    assert_eq!(view.lookup(&folder, b"a/b").err(), Some(Trouble::NotFound));
    assert_eq!(view.lookup(&Place::Latest, b"x").err(), Some(Trouble::NotAFolder));
    assert_eq!(view.read(&folder, 0, 10).err(), Some(Trouble::NotAFile));
    assert_eq!(view.xattr(&one.place, b"user.none").err(), Some(Trouble::NoAttribute));
}

#[test]
fn lost_data_is_unreadable_and_never_zeros() {
    let (_dir, source) = place();
    fs::write(source.join("file"), noise(2 << 20)).expect("write");
    let vault = Vault::new();
    let taken = vault.back_up(&[&source], None, Excludes::default());
    let view = view(&taken, true);
    let file = find(&view, &source.join("file")).place;
    vault.store.lose(vault::pack::PackKind::Data);
    for _ in 0..2 {
        assert_eq!(view.read(&file, 0, 10).err(), Some(Trouble::Unreadable));
    }
    assert_eq!(view.attributes(&file, None).expect("attributes").size, 2 << 20);
}

#[test]
fn what_is_lost_comes_from_a_newer_snapshot_that_has_it() {
    let (_dir, source) = place();
    fs::write(source.join("large"), noise(5 << 20)).expect("write");
    fs::write(source.join("small"), noise(1_234)).expect("write");
    let vault = Vault::new();
    let old = vault.back_up(&[&source], None, Excludes::default());
    vault.store.lose(vault::pack::PackKind::Data);
    let new = vault.back_up(&[&source], None, Excludes::default());
    vault.offer(&new);
    let view = view(&old, true);
    for (name, length) in [("large", 5 << 20), ("small", 1_234)] {
        let at = find(&view, &source.join(name)).place;
        let read = view.read(&at, 0, u32::try_from(length).expect("small")).expect("read");
        assert!(read.as_slice() == noise(length), "{name}");
    }
}

#[test]
fn what_rots_under_a_reader_comes_from_a_newer_snapshot_that_has_it() {
    let (_dir, source) = place();
    fs::write(source.join("large"), noise(30 << 20)).expect("write");
    let vault = Vault::new();
    let old = vault.back_up(&[&source], None, Excludes::default());
    let packs = vault.store.take_data();
    let new = vault.back_up(&[&source], None, Excludes::default());
    vault.store.put_rotten(packs);
    vault.offer(&new);
    let view = view(&old, true);
    let at = find(&view, &source.join("large")).place;
    let expected = noise(30 << 20);
    for (number, part) in (0_u64..).zip(expected.chunks(128 << 10)) {
        let read = view.read(&at, number * (128 << 10), 128 << 10).expect("read");
        assert!(read.as_slice() == part, "part {number}");
    }
}
