//! A first backup that is interrupted, and the one after it.

use std::{
    cell::Cell,
    fs,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use everhold_agent::{
    pipeline::{
        feed::{Counters, FeedError, Feeder},
        half_dead,
        parent::damaged_metadata,
    },
    sources::Excludes,
};
use tokio_util::sync::CancellationToken;
use vault::{
    backup::{BackupError, PackSink, SinkError},
    descriptor::Chunking,
    index::ChunkIndex,
    manifest::{PackRef, PackUsage},
    pack::{PackKind, SealedPack},
    tree::EntryKind,
};

use crate::modes::noise;
use crate::support::{Act, Meanwhile, Taken, Vault, arrived, describe, place, restore_all};
use everhold_agent::restore::Overwrite;

/// 600 files in 6 folders: enough for a few dozen leaves.
fn furnish(source: &Path) {
    for folder in 0..6 {
        let folder = source.join(format!("folder-{folder}"));
        fs::create_dir(&folder).expect("folder");
        for file in 0..100 {
            let text = format!("{} {file}\n", folder.display()).repeat(40 + file);
            fs::write(folder.join(format!("file-{file}")), text).expect("write");
        }
    }
}

/// A backup that is stopped when it comes to file number `at`.
fn interrupt(vault: &Vault, source: &Path, at: usize, checkpoint_every: Duration) {
    let cancel = CancellationToken::new();
    let (token, seen) = (cancel.clone(), Cell::new(0));
    let before: Act = Box::new(move |_| {
        seen.set(seen.get() + 1);
        if seen.get() == at {
            token.cancel();
        }
    });
    let meanwhile = Meanwhile { before: Some(before), ..Meanwhile::default() };
    let set_up = |feeder: &mut Feeder<'_>| {
        feeder.cancel = cancel;
        feeder.writer.checkpoint_every(checkpoint_every);
    };
    let outcome = vault.try_back_up(&[source], None, Excludes::default(), meanwhile, set_up);
    assert!(matches!(outcome, Err(FeedError::Canceled)));
}

#[test]
fn an_interrupted_first_backup_goes_on_where_it_was() {
    let (_a, source) = place();
    furnish(&source);
    let vault = Vault::new();
    interrupt(&vault, &source, 500, Duration::ZERO);
    // Changed since: read again, and only this one.
    fs::write(source.join("folder-1/file-7"), "changed").expect("write");
    let taken = after_an_interruption(&vault, &source, None, Meanwhile::default());
    assert!(taken.read.iter().any(|path| path.ends_with("folder-1/file-7")));
    // The 101 that were never reached besides.
    assert_eq!(taken.read.len(), 102);
    let (_b, target) = place();
    restore_all(&taken, &target, Overwrite::Never);
    assert_eq!(describe(&source), describe(&arrived(&target, &source)));
}

/// A file of so many pieces that its entry holds none of them itself.
#[test]
fn a_large_file_that_was_finished_is_not_read_again() {
    let (_a, source) = place();
    furnish(&source);
    fs::write(source.join("folder-0/large"), noise(5, 24 << 20)).expect("write");
    let vault = Vault::new();
    interrupt(&vault, &source, 500, Duration::ZERO);
    let taken = after_an_interruption(&vault, &source, None, Meanwhile::default());
    assert!(!taken.read.iter().any(|path| path.ends_with("large")));
    let (_b, target) = place();
    restore_all(&taken, &target, Overwrite::Never);
    assert_eq!(describe(&source), describe(&arrived(&target, &source)));
}

/// All of them are in the one leaf of the tree that the backup never came to the end of.
#[test]
fn large_files_that_were_finished_are_not_read_again_however_few_there_are() {
    let (_a, source) = place();
    for number in 0..9 {
        fs::write(source.join(format!("large-{number}")), noise(number, 3 << 20)).expect("write");
    }
    let vault = Vault::new();
    interrupt(&vault, &source, 6, Duration::ZERO);
    let taken = after_an_interruption(&vault, &source, None, Meanwhile::default());
    let names: Vec<_> = taken.read.iter().filter_map(|path| path.rsplit('/').next()).collect();
    assert_eq!(names, ["large-5", "large-6", "large-7", "large-8"]);
    let (_b, target) = place();
    restore_all(&taken, &target, Overwrite::Never);
    assert_eq!(describe(&source), describe(&arrived(&target, &source)));
}

/// 40 MiB of noise with holes of 10 MiB and more in it and after it.
fn write_large(path: &Path, seed: u64) {
    let file = fs::File::create(path).expect("create");
    file.set_len(70 << 20).expect("grow");
    file.write_all_at(&noise(seed, 8 << 20), 0).expect("write");
    file.write_all_at(&noise(seed + 1, 32 << 20), 18 << 20).expect("write");
}

/// The file system has only this time stamp, so what is written to a file does not show.
fn unseen() -> Meanwhile {
    Meanwhile { stamp: Some(1_000_000), ..Meanwhile::default() }
}

/// The backup after one that was stopped within a large file.
fn after_an_interruption(
    vault: &Vault,
    source: &Path,
    parent: Option<&Taken>,
    meanwhile: Meanwhile,
) -> Taken {
    let counters = Arc::<Counters>::default();
    let (_home, home) = place();
    let (adopted, cache) = vault.adopt_all(parent, &home);
    let salvage = vault.salvage(parent, (&adopted, &cache)).expect("there is something");
    let set_up = |feeder: &mut Feeder<'_>| {
        feeder.salvage = Some(salvage);
        feeder.counters = counters.clone();
    };
    let taken = vault.try_back_up(&[source], parent, Excludes::default(), meanwhile, set_up);
    let taken = taken.expect("backs up");
    // Every byte once.
    let counted = counters.source_bytes.load(Ordering::Relaxed);
    assert_eq!(counted, taken.finished.stats.source_bytes);
    taken
}

/// Size and content of the file with this name.
fn kind_of(taken: &Taken, name: &str) -> EntryKind {
    let mut entries = taken.reader.entries().expect("entries").map(|entry| entry.expect("entry"));
    entries.find(|entry| entry.name() == name.as_bytes()).expect("there").kind
}

fn restored(taken: &Taken, source: &Path, name: &str) -> Vec<u8> {
    let (_b, target) = place();
    restore_all(taken, &target, Overwrite::Never);
    fs::read(arrived(&target, source).join(name)).expect("read")
}

#[test]
fn a_large_file_goes_on_where_its_backup_was_interrupted() {
    // The last one is an image, cut into blocks.
    for (packs, head) in [(5, &b""[..]), (90, b""), (200, b""), (90, b"QFI\xfb")] {
        let (_a, source) = place();
        let path = source.join("large");
        write_large(&path, 6);
        let file = fs::File::options().write(true).open(&path).expect("open");
        file.write_all_at(head, 0).expect("write");
        let before = fs::read(&path).expect("read");
        let vault = Vault::new();
        let cancel = CancellationToken::new();
        vault.store.cancel_after(packs, &cancel);
        let counters = Arc::<Counters>::default();
        let set_up = |feeder: &mut Feeder<'_>| {
            feeder.cancel = cancel;
            feeder.counters = counters.clone();
            feeder.writer.checkpoint_every(Duration::ZERO);
        };
        let outcome = vault.try_back_up(&[&source], None, Excludes::default(), unseen(), set_up);
        assert!(matches!(outcome, Err(FeedError::Canceled)));
        // A chunk has 64 KiB at least, and two packs: its own and the note. What was stored of the file is not looked
        // at again.
        let safe = (packs / 2 - 1) * (64 << 10);
        assert!(counters.source_bytes.load(Ordering::Relaxed) > safe as u64, "told on the way");
        file.write_all_at(&vec![7; safe], 512).expect("write");
        let taken = after_an_interruption(&vault, &source, None, unseen());
        assert!(restored(&taken, &source, "large") == before, "after {packs} packs");
        file.write_all_at(&before[512..512 + safe], 512).expect("write");
        let whole = vault.back_up_while(&[&source], None, Excludes::default(), unseen());
        assert!(kind_of(&taken, "large") == kind_of(&whole, "large"), "after {packs} packs");
    }
}

/// What an interrupted backup stored refers to lists that its parent had stored already.
#[test]
fn a_backup_with_a_parent_goes_on_too_where_it_was_interrupted() {
    let (_a, source) = place();
    let (large, steady) = (source.join("b-large"), source.join("a-steady"));
    write_large(&large, 6);
    fs::write(&steady, noise(9, 40 << 20)).expect("write");
    let mut vault = Vault::new();
    // Small chunks make many lists.
    vault.descriptor.files = Chunking::FastCdc { min: 4 << 10, avg: 16 << 10, max: 64 << 10 };
    let parent = vault.back_up_while(&[&source], None, Excludes::default(), unseen());
    // Something was written behind its first lists, and what came between them fills a leaf.
    let file = fs::File::options().write(true).open(&large).expect("open");
    file.write_all_at(&noise(10, 4 << 20), 40 << 20).expect("write");
    for number in 0..400 {
        fs::write(source.join(format!("a-t-{number}")), "small").expect("write");
    }
    let before = fs::read(&large).expect("read");
    let (store, cancel) = (vault.store.clone(), CancellationToken::new());
    let token = cancel.clone();
    let within_large: Act = Box::new(move |path| {
        if path.ends_with(b"b-large") {
            store.cancel_after(900, &token);
        }
    });
    let stamp = Some(1_000_001);
    let meanwhile = Meanwhile { before: Some(within_large), stamp };
    let set_up = |feeder: &mut Feeder<'_>| {
        feeder.cancel = cancel;
        feeder.writer.checkpoint_every(Duration::ZERO);
    };
    let outcome =
        vault.try_back_up(&[&source], Some(&parent), Excludes::default(), meanwhile, set_up);
    assert!(matches!(outcome, Err(FeedError::Canceled)));
    for path in [&large, &steady] {
        let file = fs::File::options().write(true).open(path).expect("open");
        file.write_all_at(&vec![7; 4 << 20], 512).expect("write");
    }
    let meanwhile = Meanwhile { stamp, ..Meanwhile::default() };
    let taken = after_an_interruption(&vault, &source, Some(&parent), meanwhile);
    assert!(restored(&taken, &source, "b-large") == before);
    assert!(restored(&taken, &source, "a-steady") == noise(9, 40 << 20));
}

#[test]
fn notes_of_how_far_a_file_was_are_no_part_of_a_snapshot() {
    let (_a, source) = place();
    write_large(&source.join("large"), 6);
    let vault = Vault::new();
    let often = |feeder: &mut Feeder<'_>| feeder.writer.checkpoint_every(Duration::ZERO);
    let noted = vault.try_back_up(&[&source], None, Excludes::default(), unseen(), often);
    let again = vault.try_back_up(&[&source], None, Excludes::default(), unseen(), often);
    let plain = vault.back_up_while(&[&source], None, Excludes::default(), unseen());
    let used = |taken: &Taken| {
        let frames =
            |pack: &PackUsage| (0..pack.frames).filter(|at| pack.used.contains(*at)).count();
        taken.finished.usage.iter().map(frames).sum::<usize>()
    };
    assert_eq!(used(&noted.expect("backs up")), used(&plain));
    assert_eq!(used(&again.expect("backs up")), used(&plain));
}

#[test]
fn a_large_file_is_read_as_a_whole_if_it_changed_or_its_beginning_was_lost() {
    for lost in [false, true] {
        let (_a, source) = place();
        let path = source.join("large");
        write_large(&path, 6);
        let vault = Vault::new();
        let cancel = CancellationToken::new();
        vault.store.cancel_after(60, &cancel);
        let set_up = |feeder: &mut Feeder<'_>| {
            feeder.cancel = cancel;
            feeder.writer.checkpoint_every(Duration::ZERO);
        };
        let outcome = vault.try_back_up(&[&source], None, Excludes::default(), unseen(), set_up);
        assert!(matches!(outcome, Err(FeedError::Canceled)));
        write_large(&path, 8);
        let now = fs::read(&path).expect("read");
        let meanwhile = if lost {
            vault.store.lose(PackKind::Data);
            unseen()
        } else {
            Meanwhile { stamp: Some(1_000_001), ..Meanwhile::default() }
        };
        let taken = after_an_interruption(&vault, &source, None, meanwhile);
        assert!(restored(&taken, &source, "large") == now, "lost: {lost}");
    }
}

#[test]
fn leaves_whose_content_was_lost_are_read_again() {
    let (_a, source) = place();
    furnish(&source);
    let vault = Vault::new();
    interrupt(&vault, &source, 500, Duration::ZERO);
    let (_home, home) = place();
    let (adopted, cache) = vault.adopt_all(None, &home);
    let salvage = vault.salvage(None, (&adopted, &cache)).expect("there are leaves");
    vault.store.lose(PackKind::Data);
    let set_up = |feeder: &mut Feeder<'_>| {
        feeder.salvage = Some(salvage);
    };
    let taken = vault
        .try_back_up(&[&source], None, Excludes::default(), Meanwhile::default(), set_up)
        .expect("backs up");
    assert_eq!(taken.read.len(), 600);
    let (_b, target) = place();
    restore_all(&taken, &target, Overwrite::Never);
    assert_eq!(describe(&source), describe(&arrived(&target, &source)));
}

/// A journal on a full disk.
struct Full;

impl PackSink for Full {
    fn emit(&self, _: SealedPack) -> Result<(), SinkError> {
        Err(SinkError("no space".into()))
    }
}

#[test]
fn half_dead_packs_that_cannot_be_written_end_the_backup_and_those_that_cannot_be_read_do_not() {
    let (_s, source) = place();
    fs::write(source.join("large"), noise(7, 8 << 20)).expect("write");
    let vault = Vault::new();
    let taken = vault.back_up(&[&source], None, Excludes::default());
    let packs = taken.reader.frames().packs();
    let data: Vec<PackRef> = packs.filter(|pack| pack.kind == PackKind::Data).cloned().collect();
    let empty = || ChunkIndex::new(vault.keys().vault());
    let mut writer = vault.writer_into(2, empty(), Arc::new(Full), Some(1 << 20));
    let live = CancellationToken::new();
    let refused = half_dead::carry_over(&mut writer, taken.reader.frames(), &data, &live);
    assert!(matches!(refused, Err(BackupError::Sink(_))), "{refused:?}");
    vault.store.hide_data(true);
    let canceled = CancellationToken::new();
    canceled.cancel();
    let mut writer = vault.writer_into(2, empty(), Arc::new(Full), Some(1 << 20));
    half_dead::carry_over(&mut writer, taken.reader.frames(), &data, &canceled)
        .expect("a canceled run moves nothing");
    let mut writer = vault.writer_into(3, empty(), vault.store.clone(), None);
    half_dead::carry_over(&mut writer, taken.reader.frames(), &data, &live)
        .expect("they are read from their source");
}

#[test]
fn a_canceled_run_asks_for_no_more_of_its_parent() {
    let (_s, source) = place();
    furnish(&source);
    let vault = Vault::new();
    let taken = vault.back_up(&[&source], None, Excludes::default());
    vault.store.lose(PackKind::Meta);
    let cancel = CancellationToken::new();
    let metadata = taken.reader.frames().packs().filter(|pack| pack.kind == PackKind::Meta);
    assert_eq!(damaged_metadata(&taken.reader, &cancel).len(), metadata.count());
    cancel.cancel();
    assert!(damaged_metadata(&taken.reader, &cancel).is_empty());
}
