//! A repack as a session of its own: what an agent will do with the packs the server names as worn.
//!
//! The engine's part and the agent's uploads are the real ones; which packs, and that there is such a session at all,
//! is decided here, because no command does it yet.

use std::{collections::BTreeSet, sync::Arc};

use api::catalog::{CommitSession, OpenSession, PackKind as Wire, Session, SnapshotStats};
use domain::PackId;
use everhold_agent::{
    control::Transfer,
    pipeline::{
        backup::bury_predecessor,
        member::Member,
        second::SecondCopy,
        source::{Cache, Caching, Chain, GrantSource, fetch_chain},
        spool::Spool,
        upload::{self, Lane},
    },
};
use vault::{
    backup::{BackupContext, FinishedSnapshot},
    id::Sha256,
    manifest::{Builder, Manifest},
    pack::PackKind,
    repack::Repack,
};

use crate::{
    machine::{Machine, blocking},
    world::World,
};

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Machine {
    /// Every live frame of every data pack of the newest snapshot moves.
    pub async fn repack(&mut self, world: &World) -> Result<(), String> {
        let lock = self.home.lock_for_run().map_err(words)?;
        let member = self.member(world)?;
        bury_predecessor(&member).await;
        let lease_token = self.lease(world).lease_token;
        let last_receipt = member.home.last_commit().map(|last| last.receipt);
        let body = OpenSession { workload_id: self.workload, lease_token, last_receipt };
        let session = member.control.open_session(&body).await.map_err(words)?;
        let transfer = Transfer::new().map_err(words)?;
        let parent = session.parent.as_ref().ok_or("no parent")?.snapshot_id;
        let second = SecondCopy::when(Caching::Use);
        let chain = fetch_chain(&member, &transfer, parent, &second).await.map_err(words)?;
        let source =
            GrantSource::new(&member, transfer.clone(), parent, &chain.packs, Caching::Use, second);
        let spool = Spool::start(&member.home.journal()).map_err(words)?;
        let spool = spool.with_md5(session.content_md5);
        let lane = lane(&member, &session, transfer);
        let (sink, uploads) = upload::start(lane.clone(), spool.clone(), Arc::default());
        let (chain, finished) = {
            let (member, session) = (member.clone(), session.clone());
            blocking(move || {
                let finished = rewrite(&member, &session, &chain, source, &sink);
                drop(sink);
                (chain, finished)
            })
            .await
        };
        let confirmed = uploads.finish().await;
        let finished = finished?;
        let confirmed = confirmed.map_err(words)?;
        let builder = builder(&member, &session, &chain);
        let manifest = builder.build(&finished, &confirmed).map_err(words)?;
        let manifest_id = store(&member, &lane, &spool, finished.next_seq, &manifest).await?;
        let commit = CommitSession {
            fence: session.fence,
            manifest_id,
            paths: vec![self.source.display().to_string()],
            tags: Default::default(),
            stats: SnapshotStats::default(),
        };
        member.control.commit(session.id, &commit).await.map_err(words)?;
        drop(lock);
        Ok(())
    }
}

fn lane(member: &Member, session: &Session, transfer: Transfer) -> Lane {
    Lane {
        control: member.control.clone(),
        transfer,
        session: session.id,
        fence: session.fence,
        cache: Cache::at(&member.home.cache()),
        cancel: tokio_util::sync::CancellationToken::new(),
    }
}

fn rewrite(
    member: &Member,
    session: &Session,
    chain: &Chain,
    source: Arc<GrantSource>,
    sink: &upload::UploadSink,
) -> Result<FinishedSnapshot, String> {
    let newest = chain.newest().ok_or("no manifest")?;
    let data = chain.packs.iter().filter(|pack| pack.kind == PackKind::Data);
    let victims: BTreeSet<PackId> = data.map(|pack| pack.id).collect();
    let repack = Repack {
        context: BackupContext {
            agent: member.identity.agent_id,
            session: session.id,
            key_epoch: session.key_epoch,
            first_seq: 1,
            workers: 1,
            max_pack: None,
        },
        keys: member.vault.clone(),
        descriptor: &member.descriptor,
        source,
        sink,
        ids: member.control.world().ids.as_ref(),
    };
    repack.run(&newest.manifest, &chain.packs, &victims).map_err(words)
}

fn builder<'a>(member: &'a Member, session: &Session, chain: &'a Chain) -> Builder<'a> {
    Builder {
        descriptor: &member.descriptor,
        workload: member.identity.workload_id,
        agent: member.identity.agent_id,
        session: session.id,
        fence: session.fence,
        key_epoch: session.key_epoch,
        created: member.control.server_now(),
        parent: &chain.manifests,
    }
}

async fn store(
    member: &Member,
    lane: &Lane,
    spool: &Spool,
    seq: u64,
    manifest: &Manifest,
) -> Result<PackId, String> {
    let bytes = manifest.sign(&member.keys.signing_key());
    let spooled = spool.put(Wire::Manifest, seq, Sha256::of(&bytes), &bytes).map_err(words)?;
    let stored = upload::upload(lane, &spooled).await.map_err(words)?;
    spooled.release(&lane.cache).map_err(words)?;
    Ok(stored.id)
}
