//! What other snapshots of the workload hold, for a reader that finds something lost in its own packs.
//!
//! Owns which snapshots are asked. Invariant: nobody is asked before something is lost, and what cannot be had of
//! others only leaves that lost.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use domain::{PackId, SnapshotId};
use futures::StreamExt as _;
use tokio::runtime::Handle;
use vault::{
    manifest::{FrameBitmap, PackRef, PackSet},
    snapshot::{Others, PackSource, SourceError},
};

use super::{
    member::Member,
    second::SecondCopy,
    source::{Caching, FetchError, GrantSource, fetch_chain},
};
use crate::control::Transfer;

/// So many snapshots are asked, evenly over all there are: content that was stored anew and stood for a while is found.
const ASKED: usize = 64;
/// Manifests fetched side by side.
const FETCHERS: usize = 8;
/// Whoever waits for a restore does not wait longer for this.
const PATIENCE: Duration = Duration::from_secs(180);

/// Whom to ask for what a snapshot lost, and how.
pub struct Search {
    pub member: Member,
    pub transfer: Transfer,
    /// The one that lost something.
    pub snapshot: SnapshotId,
    pub caching: Caching,
    pub second: Arc<SecondCopy>,
    pub runtime: Handle,
}

impl Search {
    /// What the others hold; `None` when they cannot be asked. Blocking.
    pub fn run(&self) -> Option<Others> {
        let found =
            self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.find()).await });
        match found {
            Ok(Ok(others)) => return Some(others),
            Ok(Err(error)) => {
                tracing::warn!(%error, "other snapshots cannot be asked for what this one lost");
            }
            Err(_) => tracing::warn!("other snapshots were not told of in time"),
        }
        None
    }

    async fn find(&self) -> Result<Others, FetchError> {
        let all = self.member.control.snapshots(self.member.identity.workload_id).await?;
        let ids = all.into_iter().map(|snapshot| snapshot.id).filter(|id| *id != self.snapshot);
        let mut found = std::pin::pin!(
            futures::stream::iter(spread(ids.collect(), ASKED))
                .map(async |id| (id, self.packs_of(id).await))
                .buffered(FETCHERS)
        );
        let (mut packs, mut sources) = (BTreeMap::new(), HashMap::new());
        let mut failed = None;
        while let Some((id, found)) = found.next().await {
            match found {
                Ok(mut set) => {
                    // A pack is read by the grants of the first that has it.
                    set.0.retain(|pack, _| !packs.contains_key(pack));
                    let source = self.source_of(id, &set);
                    sources.extend(set.0.keys().map(|pack| (*pack, source.clone())));
                    let unused = |pack| PackRef { used: FrameBitmap::default(), ..pack };
                    packs.extend(set.0.into_iter().map(|(id, pack)| (id, unused(pack))));
                }
                Err(error) => {
                    tracing::warn!(%id, %error, "a snapshot cannot be asked");
                    failed = Some(error);
                }
            }
        }
        // Not one of them: that passes, and what is told now is remembered.
        if let Some(error) = failed.filter(|_| packs.is_empty()) {
            return Err(error);
        }
        Ok(Others { packs: PackSet(packs), source: Arc::new(Many(sources)) })
    }

    /// Whose requests say that they complete a snapshot with what others have.
    fn asking(&self) -> Member {
        let control = self.member.control.completing(self.snapshot);
        Member { control, ..self.member.clone() }
    }

    async fn packs_of(&self, id: SnapshotId) -> Result<PackSet, FetchError> {
        Ok(fetch_chain(&self.asking(), &self.transfer, id, &self.second).await?.packs)
    }

    fn source_of(&self, id: SnapshotId, packs: &PackSet) -> Arc<GrantSource> {
        let (transfer, second) = (self.transfer.clone(), self.second.clone());
        GrantSource::new(&self.asking(), transfer, id, packs, self.caching, second)
    }
}

/// At most so many, evenly, the first among them.
fn spread<T>(all: Vec<T>, most: usize) -> Vec<T> {
    let step = all.len().div_ceil(most).max(1);
    all.into_iter().step_by(step).collect()
}

/// Each pack by the grants of a snapshot that has it.
struct Many(HashMap<PackId, Arc<GrantSource>>);

impl PackSource for Many {
    fn read(&self, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        self.0.get(&pack.id).ok_or(SourceError::Missing)?.read(pack, range)
    }
    fn places(&self, pack: &PackRef) -> u8 {
        self.0.get(&pack.id).map_or(0, |source| source.places(pack))
    }
    fn read_at(&self, place: u8, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        self.0.get(&pack.id).ok_or(SourceError::Missing)?.read_at(place, pack, range)
    }
    fn prefer(&self, place: u8, pack: &PackRef) {
        if let Some(source) = self.0.get(&pack.id) {
            source.prefer(place, pack);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_all_asked_and_many_evenly_with_the_newest() {
        assert_eq!(spread((0..64).collect(), 64), (0..64).collect::<Vec<_>>());
        assert!(spread(Vec::<u8>::new(), 64).is_empty());
        let some = spread((0..1_000).collect(), 64);
        assert!(some.len() <= 64 && some.len() > 60 && some[0] == 0);
        assert!(some.windows(2).all(|pair| pair[1] - pair[0] == some[1]));
    }
}
