//! `everhold admin hold`, `holds`, `release-hold`, `expired`, `undo-expiry`: what keeps single snapshots, by hand.
//!
//! One that cannot be done is told and the others go on: exit code 1.

use std::process::ExitCode;

use api::{
    catalog::{ExpiredSnapshot, Hold, HoldQuery, HoldState, SnapshotQuery},
    page::Page,
};
use catalog::{by_hand, collection::letting_go, holds, snapshots};
use serde::Serialize;

use super::{
    FOUND,
    admin::{json, open, refusal, tell_all},
    say,
};
use crate::cli::{List, PlaceHold, ReleaseHold, UndoExpiry};

/// What was done of several things, and what was not.
struct Done<T> {
    items: Vec<T>,
    code: ExitCode,
}

impl<T: Serialize> Done<T> {
    fn new() -> Self {
        Self { items: Vec::new(), code: ExitCode::SUCCESS }
    }
    fn note(
        &mut self,
        id: &impl std::fmt::Display,
        outcome: Result<T, catalog::error::Error>,
    ) -> anyhow::Result<()> {
        match outcome {
            Ok(item) => self.items.push(item),
            // What is no decision about this one ends it all.
            Err(error @ catalog::error::Error::Refused(_)) => {
                self.code = FOUND;
                eprintln!("{id}: {}", refusal(error));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
    fn tell(self, as_json: bool, words: impl Fn(&T) -> String) -> anyhow::Result<ExitCode> {
        if as_json {
            json(&self.items)?;
        } else {
            self.items.iter().try_for_each(|item| say(words(item)))?;
        }
        Ok(self.code)
    }
}

fn words(hold: &Hold) -> String {
    let by = hold.placed_by.as_deref().unwrap_or("somebody");
    format!("{} on {} since {} by {by}: {}", hold.id, hold.snapshot_id, hold.placed_at, hold.reason)
}

pub async fn hold(args: &PlaceHold) -> anyhow::Result<ExitCode> {
    let app = open(&args.platform).await?;
    let (scope, by) = by_hand(args.platform.tenant);
    let mut done = Done::new();
    for id in &args.snapshots {
        done.note(id, holds::place(&app, scope, &by, *id, &args.reason, None).await)?;
    }
    done.tell(args.json, |hold| format!("held: {}", words(hold)))
}

pub async fn release(args: &ReleaseHold) -> anyhow::Result<ExitCode> {
    let app = open(&args.platform).await?;
    let (scope, by) = by_hand(args.platform.tenant);
    let mut done = Done::new();
    for id in &args.holds {
        done.note(id, holds::release(&app, scope, &by, *id, &args.reason).await)?;
    }
    done.tell(args.json, |hold| format!("released: {}", words(hold)))
}

pub async fn undo(args: &UndoExpiry) -> anyhow::Result<ExitCode> {
    let app = open(&args.platform).await?;
    let (scope, by) = by_hand(args.platform.tenant);
    let mut done = Done::new();
    for id in &args.snapshots {
        done.note(id, letting_go::undo(&app, scope, &by, *id).await)?;
    }
    done.tell(args.json, |one| format!("{} stands, of {}", one.id, one.committed_at))
}

pub async fn holds(args: &List) -> anyhow::Result<ExitCode> {
    let app = open(&args.platform).await?;
    let (scope, _) = by_hand(args.platform.tenant);
    let all = every(async |cursor| {
        let state = Some(HoldState::Standing);
        holds::list(&app, scope, &HoldQuery { state, cursor, ..HoldQuery::default() }).await
    });
    tell_all(&all.await?, args.json, words, "Nothing is held.")?;
    Ok(ExitCode::SUCCESS)
}

pub async fn expired(args: &List) -> anyhow::Result<ExitCode> {
    let app = open(&args.platform).await?;
    let (scope, _) = by_hand(args.platform.tenant);
    let all = every(async |cursor| {
        let query = SnapshotQuery { cursor, ..SnapshotQuery::default() };
        snapshots::list_expired(&app, scope, None, &query).await
    });
    let words = |one: &ExpiredSnapshot| {
        format!(
            "{} of {}, expired on {}: can be taken back until {} at least",
            one.snapshot.id, one.snapshot.committed_at, one.expired_at, one.undo_until
        )
    };
    tell_all(&all.await?, args.json, words, "No snapshot is on its way out.")?;
    Ok(ExitCode::SUCCESS)
}

/// All pages of a list.
async fn every<T>(
    page: impl AsyncFn(Option<String>) -> Result<Page<T>, catalog::error::Error>,
) -> anyhow::Result<Vec<T>> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let next = page(cursor).await.map_err(refusal)?;
        all.extend(next.items);
        cursor = next.next_cursor;
        if cursor.is_none() {
            return Ok(all);
        }
    }
}
