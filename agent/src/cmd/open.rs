//! From `latest` or an id to a snapshot open for reading.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use api::catalog::Snapshot;
use tokio::runtime::Handle;
use vault::snapshot::{Beside, Reader};

use crate::{
    control::{Pace, Transfer},
    pipeline::{
        member::Member,
        others::Search,
        parent::stored_index,
        second::SecondCopy,
        source::{Caching, GrantSource, fetch_chain},
    },
};

/// The snapshot somebody means.
pub async fn find(member: &Member, text: &str) -> Result<Snapshot> {
    if text == "latest" {
        let all = member.control.snapshots(member.identity.workload_id).await?;
        let newest = all.into_iter().next();
        return newest
            .ok_or_else(|| anyhow!("there is no snapshot yet; run everhold-agent backup PATH"));
    }
    let id = text.parse().with_context(|| {
        format!("{text:?} is no snapshot; see everhold-agent snapshots, or say latest")
    })?;
    Ok(member.control.snapshot(id).await?)
}

/// Manifest verified, packs resolved, ready to be read from other threads.
pub async fn reader(member: &Member, snapshot: &Snapshot, caching: Caching) -> Result<Arc<Reader>> {
    reader_at(member, snapshot, caching, None, SecondCopy::when(caching)).await
}

/// The same, with everything read from the store held to a limit, and what the second copy gave counted.
pub async fn reader_at(
    member: &Member,
    snapshot: &Snapshot,
    caching: Caching,
    pace: Option<Arc<Pace>>,
    second: Arc<SecondCopy>,
) -> Result<Arc<Reader>> {
    let transfer = Transfer::new()?.with_download_limit(pace);
    let chain = fetch_chain(member, &transfer, snapshot.id, &second).await?;
    let newest = chain.newest().ok_or_else(|| anyhow!("the snapshot has no manifest"))?;
    let own = GrantSource::new(
        member,
        transfer.clone(),
        snapshot.id,
        &chain.packs,
        caching,
        second.clone(),
    );
    let search = Search {
        member: member.clone(),
        transfer,
        snapshot: snapshot.id,
        caching,
        second,
        runtime: Handle::current(),
    };
    let source = Arc::new(Beside { own, others: move || search.run() });
    let index = match caching {
        Caching::Use | Caching::Sound => stored_index(member.home.path(), &member.vault),
        Caching::Bypass => None,
    };
    let keys = member.vault.clone();
    Ok(Arc::new(Reader::open(&newest.manifest, &chain.packs, keys, source, index)))
}

/// Runs engine work, which blocks, beside the runtime.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("a part of the agent ended unexpectedly")?
}
