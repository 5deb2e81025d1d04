//! Half-dead packs of the parent that a backup carries over: their live frames move into its own packs.
//!
//! Owns when the server is asked and how much one backup moves. Invariant: which packs is advice only, and what cannot be
//! asked or read costs space for another day, never the backup.

use domain::{PackId, Timestamp};
use tokio_util::sync::CancellationToken;
use vault::{
    backup::{BackupError, Writer},
    manifest::{PackRef, PackSet},
    snapshot::Frames,
};

use super::{member::Member, source::Chain};

/// Bytes that one backup moves at most: those with most to gain come first, the others on another day.
const MOST: u64 = 256 << 20;

/// What the server names of this parent's packs, within the budget. Asked by the first backup of a day (UTC): the server
/// reads manifests for the answer.
pub async fn of(member: &Member, chain: &Chain) -> Vec<PackRef> {
    let day = |at: Timestamp| at.unix_millis() / 86_400_000;
    let today = day(member.control.server_now());
    if member.home.last_commit().is_some_and(|last| day(last.committed_at) == today) {
        return Vec::new();
    }
    match member.control.repack_candidates(member.identity.vault_id).await {
        Ok(found) => {
            let live = found
                .items
                .iter()
                .map(|one| (one.pack.id, one.pack.length.saturating_sub(one.dead_bytes)));
            within(&chain.packs, live, MOST)
        }
        Err(error) => {
            tracing::warn!(%error, "which packs are half-dead is not known; another day");
            Vec::new()
        }
    }
}

/// Packs of the parent, in the order given, as long as their live bytes add up to at most `most`.
fn within(
    parent: &PackSet,
    half_dead: impl Iterator<Item = (PackId, u64)>,
    most: u64,
) -> Vec<PackRef> {
    let mut left = most;
    let mut affordable = |(pack, live): (&PackRef, u64)| {
        left = left.checked_sub(live)?;
        Some(pack.clone())
    };
    let ours = half_dead.filter_map(|(id, live)| Some((parent.0.get(&id)?, live)));
    ours.map_while(&mut affordable).collect()
}

/// Moves them, out of the `parent`'s frames; the index must not know them. A pack that cannot be read is left: what it
/// holds is read from the source. A canceled run moves no more of them.
///
/// # Errors
/// Whatever else ends a backup.
pub fn carry_over(
    writer: &mut Writer,
    parent: &Frames,
    half_dead: &[PackRef],
    cancel: &CancellationToken,
) -> Result<(), BackupError> {
    for pack in half_dead.iter().take_while(|_| !cancel.is_cancelled()) {
        match writer.carry_over(parent, pack) {
            Err(BackupError::Parent(error)) => {
                tracing::warn!(pack = %pack.sha256, %error, "a half-dead pack is not carried over");
            }
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vault::{id::Sha256, manifest::FrameBitmap, pack::PackKind};

    use super::*;

    #[test]
    fn the_budget_is_kept_and_strangers_are_not_touched() {
        let id = |n: u8| PackId::from_bytes([n; 16]);
        let pack = |n: u8| PackRef {
            id: id(n),
            kind: PackKind::Data,
            sha256: Sha256([n; 32]),
            length: 100,
            version_id: "v".to_owned(),
            frames: 10,
            used: FrameBitmap::default(),
        };
        let parent = PackSet((1..=4).map(|n| (id(n), pack(n))).collect());
        let named = [(9, 1), (2, 40), (1, 50), (4, 20), (3, 1)].map(|(n, live)| (id(n), live));
        let ids = |most| {
            let found = within(&parent, named.into_iter(), most);
            found.into_iter().map(|pack| pack.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(39), []);
        assert_eq!(ids(90), [id(2), id(1)]);
        assert_eq!(ids(1_000), [id(2), id(1), id(4), id(3)]);
    }
}
