//! The platform's key file, and vaults whose packs are of several key epochs.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
};

use domain::SeededIds;
use vault::{
    id::IdKeys,
    keys::{
        FileKeyWrapper, KeyWrapper as _, KeyWrapperError, RecipientKind, VaultKeys, Wrap, WrapError,
    },
    pack::PackError,
    snapshot::{ReadError, Reader},
    verify,
};

use crate::common::{Done, Lab, Tree, assert_same, dir, file, noise};

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_platform_key_file_is_made_once_and_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("platform.key");
    assert!(matches!(FileKeyWrapper::open(&path), Err(KeyWrapperError::Io(_))));
    let made = FileKeyWrapper::open_or_create(&path, &SeededIds::new(1)).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    let bytes = fs::read(&path).unwrap();
    // Other randomness, the same key: what is there stays.
    let again = FileKeyWrapper::open_or_create(&path, &SeededIds::new(2)).unwrap();
    assert_eq!(again.recipient(), made.recipient());
    assert_eq!(made.recipient().kind, RecipientKind::Platform);
    assert_eq!(FileKeyWrapper::open(&path).unwrap().recipient(), made.recipient());
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_key_file_that_others_can_read_or_of_a_wrong_size_is_refused_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("platform.key");
    let ids = SeededIds::new(3);
    let refused = || {
        let opened = FileKeyWrapper::open_or_create(&path, &ids);
        assert!(matches!(opened, Err(KeyWrapperError::BadFile)));
    };
    FileKeyWrapper::open_or_create(&path, &ids).unwrap();
    for open in [0o640, 0o604, 0o620, 0o610] {
        fs::set_permissions(&path, Permissions::from_mode(open)).unwrap();
        refused();
    }
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    for length in [0, 31, 33] {
        fs::write(&path, vec![7; length]).unwrap();
        refused();
        assert_eq!(fs::read(&path).unwrap(), vec![7; length]);
    }
}

#[test]
fn a_key_file_opens_what_was_wrapped_to_it_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (lab, other) = (Lab::new(70), Lab::new(71));
    let wrapper = |name| FileKeyWrapper::open_or_create(&folder.path().join(name), &*lab.ids);
    let (mine, foreign) = (wrapper("a").unwrap(), wrapper("b").unwrap());
    let wrap = lab.keys.wrap_for(1, mine.recipient(), &*lab.ids).unwrap();
    let agents = lab.keys.wrap_for(1, lab.agent_keys.recipient(lab.agent), &*lab.ids).unwrap();
    let opened = mine.unwrap_keys(&[agents.clone(), wrap.clone()]).unwrap();
    assert_eq!((opened.tenant(), opened.vault()), (lab.keys.tenant(), lab.keys.vault()));
    assert_eq!(IdKeys::of(&opened).file(b"x"), IdKeys::of(&lab.keys).file(b"x"));
    let refused = |wrapper: &FileKeyWrapper, wraps: &[Wrap]| match wrapper.unwrap_keys(wraps) {
        Err(KeyWrapperError::Wrap(error)) => error,
        _ => panic!("a wrap that is not ours was opened"),
    };
    assert_eq!(refused(&foreign, std::slice::from_ref(&wrap)), WrapError::NotForThisKey);
    assert_eq!(refused(&mine, &[agents]), WrapError::NotForThisKey);
    assert_eq!(refused(&mine, &[]), WrapError::NotForThisKey);
    // Wraps of two vaults are not the keys of one.
    let strange = other.keys.wrap_for(1, mine.recipient(), &*other.ids).unwrap();
    assert_eq!(refused(&mine, &[wrap, strange]), WrapError::Foreign);
}

/// A backup under epoch 1 and, after a new key, an increment under epoch 2. Gives both and the wraps of both.
fn two_epochs(lab: &mut Lab, first: &Tree, second: &Tree) -> ([Done; 2], [Wrap; 2]) {
    let recipient = lab.agent_keys.recipient(lab.agent);
    let before = lab.backup(first, None);
    let one = lab.keys.wrap_for(1, recipient, &*lab.ids).unwrap();
    let mut keys = VaultKeys::open([&one], &recipient, lab.agent_keys.hpke_secret()).unwrap();
    keys.add_epoch(2, &*lab.ids);
    let two = keys.wrap_for(2, recipient, &*lab.ids).unwrap();
    lab.keys = Arc::new(keys);
    lab.epoch = 2;
    let after = lab.increment(second, &before);
    ([before, after], [one, two])
}

/// A lab that has only the keys in `wraps`.
fn holding(lab: &mut Lab, wraps: &[&Wrap]) {
    let recipient = lab.agent_keys.recipient(lab.agent);
    let keys = VaultKeys::open(wraps.iter().copied(), &recipient, lab.agent_keys.hpke_secret());
    lab.keys = Arc::new(keys.unwrap());
}

fn no_key<T>(read: &Result<T, ReadError>) -> bool {
    matches!(read, Err(ReadError::Pack { source: PackError::NoKey, .. }))
}

fn read(reader: &Reader, path: &str) -> Result<Vec<u8>, ReadError> {
    let mut out = Vec::new();
    let entry = reader.get(path.as_bytes())?.unwrap();
    reader.read_file(&entry, &mut out).map(|()| out)
}

#[test]
fn a_reader_with_both_epochs_reads_a_snapshot_that_spans_them() {
    let mut lab = Lab::new(72);
    let old = noise(1, 200_000);
    let first: Tree = [dir(""), file("old", old.clone()), file("small", "kept")].into();
    let mut second = first.clone();
    // The copy of old content deduplicates against the packs of the epoch before: ids do not change with it.
    second.extend([file("new", noise(2, 200_000)), file("copy", old)]);
    let ([before, after], [one, two]) = two_epochs(&mut lab, &first, &second);
    assert!(after.finished.stats.new_bytes < 210_000, "{}", after.finished.stats.new_bytes);
    assert_eq!((before.chain[0].manifest.key_epoch, after.chain[0].manifest.key_epoch), (1, 2));
    for wraps in [[&one, &two], [&two, &one]] {
        holding(&mut lab, &wraps);
        assert_eq!(lab.keys.newest_epoch(), 2);
        assert_same(&lab.reader(&before), &first);
        let reader = lab.reader(&after);
        assert_same(&reader, &second);
        let report = verify::deep(&reader, |_| ());
        assert!(report.is_clean(), "{:?}", report.problems);
        let epochs: std::collections::BTreeSet<_> = reader
            .frames()
            .packs()
            .map(|pack| reader.frames().open(pack).unwrap().header.epoch)
            .collect();
        assert_eq!(epochs, [1, 2].into());
    }
}

#[test]
fn a_reader_without_an_epoch_lacks_exactly_what_was_sealed_under_it() {
    let mut lab = Lab::new(73);
    let first: Tree = [dir(""), file("old", noise(1, 200_000))].into();
    let mut second = first.clone();
    second.extend([file("new", noise(2, 200_000))]);
    let ([before, after], [one, two]) = two_epochs(&mut lab, &first, &second);
    holding(&mut lab, &[&two]);
    let reader = lab.reader(&after);
    assert_eq!(read(&reader, "new").unwrap(), noise(2, 200_000));
    assert!(no_key(&read(&reader, "old")));
    assert!(no_key(&read(&lab.reader(&before), "old")));
    assert!(!verify::quick(&reader).is_clean());
    holding(&mut lab, &[&one]);
    assert_eq!(read(&lab.reader(&before), "old").unwrap(), noise(1, 200_000));
    assert!(no_key(&read(&lab.reader(&after), "new")));
}
