//! A first backup that is interrupted, and the one after it.

use std::{cell::Cell, fs, path::Path, sync::Arc, time::Duration};

use everhold_agent::{
    pipeline::{feed::FeedError, half_dead, salvage::Salvage},
    sources::Excludes,
};
use tokio_util::sync::CancellationToken;
use vault::{
    backup::{BackupError, PackSink, SinkError},
    index::ChunkIndex,
    manifest::PackRef,
    pack::{PackKind, SealedPack},
};

use crate::modes::noise;
use crate::support::{Act, Meanwhile, Vault, arrived, describe, place, restore_all};
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
    let set_up = |feeder: &mut everhold_agent::pipeline::feed::Feeder<'_>| {
        feeder.cancel = cancel;
        feeder.checkpoint_every = checkpoint_every;
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
    let (_home, home) = place();
    let (adopted, cache) = vault.adopt_all(&home);
    let salvage = Salvage::of(&vault.keys(), &adopted, &cache).expect("there are leaves");
    let set_up = |feeder: &mut everhold_agent::pipeline::feed::Feeder<'_>| {
        feeder.salvage = Some(salvage);
    };
    let meanwhile = Meanwhile::default();
    let taken = vault.try_back_up(&[&source], None, Excludes::default(), meanwhile, set_up);
    let taken = taken.expect("backs up");
    assert!(taken.read.iter().any(|path| path.ends_with("folder-1/file-7")));
    // 100 were never reached; what the node under construction held (48 KiB at most) is read again too.
    assert!((101..500).contains(&taken.read.len()), "{} files read", taken.read.len());
    let (_b, target) = place();
    restore_all(&taken, &target, Overwrite::Never);
    assert_eq!(describe(&source), describe(&arrived(&target, &source)));
}

#[test]
fn leaves_whose_content_was_lost_are_read_again() {
    let (_a, source) = place();
    furnish(&source);
    let vault = Vault::new();
    interrupt(&vault, &source, 500, Duration::ZERO);
    let (_home, home) = place();
    let (adopted, cache) = vault.adopt_all(&home);
    let salvage = Salvage::of(&vault.keys(), &adopted, &cache).expect("there are leaves");
    vault.store.lose_data();
    let set_up = |feeder: &mut everhold_agent::pipeline::feed::Feeder<'_>| {
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
    let mut writer = vault.writer_into(Some(&taken), 2, empty(), Arc::new(Full), Some(1 << 20));
    let refused = half_dead::carry_over(&mut writer, &data);
    assert!(matches!(refused, Err(BackupError::Sink(_))), "{refused:?}");
    vault.store.hide_data(true);
    let mut writer = vault.writer_into(Some(&taken), 3, empty(), vault.store.clone(), None);
    half_dead::carry_over(&mut writer, &data).expect("they are read from their source");
}
