//! Browsing and restore grants, on snapshots the engine really wrote.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use api::{
    Code,
    catalog::{
        CommitReply, EntryKind, EntryPage, PackKind, RequestRestoreGrants, RestoreGrants,
        SnapshotPacks, Vault,
    },
};
use authz::Role;
use sha2::{Digest as _, Sha256};
use vault::{
    backup::{BackupContext, PackSink, SinkError, Summary, Writer},
    id,
    index::ChunkIndex,
    manifest::{Builder, Confirmed},
    pack::SealedPack,
    tree,
};

use crate::support::{Agent, Made, World, code_of, world};

/// Entries of the larger folder.
const LARGER: usize = 3_000;

/// Keeps sealed packs until they are uploaded.
#[derive(Default)]
struct Spool(Mutex<Vec<SealedPack>>);

impl PackSink for Spool {
    fn emit(&self, pack: SealedPack) -> Result<(), SinkError> {
        self.0.lock().expect("lock").push(pack);
        Ok(())
    }
}

/// A real tree: a folder with files, a link, a name that is not UTF-8; a larger folder behind it. With its packs.
async fn real_backup(world: &World, agent: &Agent) -> (CommitReply, Vec<Made>) {
    let session = world.open(agent).await;
    let spool = Arc::new(Spool::default());
    let context = BackupContext {
        agent: agent.id,
        session: session.id,
        key_epoch: 1,
        first_seq: 0,
        workers: 1,
        max_pack: None,
    };
    let index = Arc::new(ChunkIndex::new(agent.vault));
    let ids = world.app.ids().clone();
    let mut writer = Writer::begin(
        context,
        agent.vault_keys.clone(),
        &agent.descriptor,
        index,
        spool.clone(),
        ids,
    )
    .expect("writer");
    for folder in [b"etc", b"srv"] {
        let entry = tree::Entry::new(folder.to_vec(), tree::EntryKind::Directory);
        writer.add_entry(entry).expect("folder");
    }
    for name in [b"etc/a".as_slice(), b"etc/b\xff"] {
        let kind = tree::EntryKind::File { size: 5, content: tree::Content::Empty };
        writer
            .add_file(tree::Entry::new(name.to_vec(), kind), &mut b"hello".as_slice(), &[])
            .expect("file");
    }
    let link = tree::EntryKind::Symlink { target: b"a".to_vec() };
    writer.add_entry(tree::Entry::new(b"etc/c".to_vec(), link)).expect("link");
    for number in 0..LARGER {
        let kind = tree::EntryKind::Symlink { target: vec![b'x'; 100] };
        let path = format!("srv/{number:04}").into_bytes();
        writer.add_entry(tree::Entry::new(path, kind)).expect("link");
    }
    let finished = writer.finish(Summary::default()).expect("finished");
    let mut made: Vec<Made> = std::mem::take(&mut *spool.0.lock().expect("lock"))
        .into_iter()
        .map(|pack| Made {
            seq: pack.seq,
            kind: PackKind::parse(pack.kind.as_str()).expect("kind"),
            bytes: pack.bytes.joined(),
            facts: None,
        })
        .collect();
    agent.upload(&session, &mut made).await.expect("upload");
    let confirmed: BTreeMap<id::Sha256, Confirmed> = made
        .iter()
        .map(|pack| {
            let version_id =
                pack.facts.as_ref().and_then(|f| f.version_id.clone()).expect("version");
            (id::Sha256(pack.sha256()), Confirmed { id: pack.id(), version_id })
        })
        .collect();
    let builder = Builder {
        descriptor: &agent.descriptor,
        workload: agent.workload,
        agent: agent.id,
        session: session.id,
        fence: session.fence,
        key_epoch: 1,
        created: world.now(),
        parent: &[],
    };
    let manifest = builder.build(&finished, &confirmed).expect("manifest");
    let stored = agent.upload_manifest(&session, &manifest, &agent.keys).await;
    (agent.commit(&session, stored.id()).await.expect("commit"), made)
}

#[tokio::test]
async fn a_managed_snapshot_is_browsed_folder_by_folder_and_each_look_is_an_event() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let snapshot = real_backup(&world, &agent).await.0.snapshot;
    let person = world.app.user(agent.tenant, Role::TenantRestorer);
    let path = |query: &str| agent.path(&format!("snapshots/{}/entries{query}", snapshot.id));
    let top: EntryPage = person.get(&path("")).await.expect("top");
    assert_eq!(top.items.iter().map(|e| e.path.as_str()).collect::<Vec<_>>(), ["/etc", "/srv"]);
    let folder: EntryPage = person.get(&path("?path=/etc/")).await.expect("folder");
    let kinds: Vec<EntryKind> = folder.items.iter().map(|e| e.kind).collect();
    assert_eq!(kinds, [EntryKind::File, EntryKind::File, EntryKind::Symlink].map(|k| k).to_vec());
    assert_eq!(folder.items[0].size, 5);
    assert!(folder.items[1].path_b64.is_some(), "not UTF-8");
    assert_eq!(folder.items[2].link_target.as_deref(), Some("a"));
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page: EntryPage =
            person.get(&path(&format!("?path=/etc&limit=1{cursor}"))).await.expect("page");
        names.extend(page.items.into_iter().map(|e| e.name));
        match page.next_cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(names.len(), 3);
    for missing in ["?path=/nowhere", "?path=/etc/a"] {
        assert_eq!(code_of(&person.get::<EntryPage>(&path(missing)).await), Some(Code::NotFound));
    }
    let looks = "SELECT count(*) FROM catalog.outbox WHERE payload->>'action' = 'snapshot.browsed'";
    assert_eq!(world.count(looks).await, 5);
    let names = "SELECT count(*) FROM catalog.outbox WHERE payload->>'action' = 'snapshot.browsed' AND payload::text LIKE '%etc%'";
    assert_eq!(world.count(names).await, 0, "names stay out of the record");
}

#[tokio::test]
async fn a_folder_of_which_a_part_is_lost_shows_the_rest_and_says_so() {
    let world = world().await;
    let (mut partly, mut not_at_all) = (0, 0);
    // One bit here or there; the directories at both ends of the pack stay whole.
    for tenth in 1..10 {
        let agent = world.agent(world.app.tenant()).await;
        let (committed, made) = real_backup(&world, &agent).await;
        let meta = &made.iter().find(|pack| pack.kind == PackKind::Meta).expect("metadata").bytes;
        world.spoil_at("store", meta, meta.len() * tenth / 10);
        let person = world.app.user(agent.tenant, Role::TenantRestorer);
        let path = format!("snapshots/{}/entries?path=/srv&limit=700", committed.snapshot.id);
        let (mut names, mut cursor, mut incomplete) = (Vec::new(), String::new(), false);
        loop {
            let page: Result<EntryPage, _> =
                person.get(&agent.path(&format!("{path}{cursor}"))).await;
            let Ok(page) = page else {
                assert_eq!(code_of(&page), Some(Code::SnapshotDamaged));
                not_at_all += 1;
                break;
            };
            incomplete |= page.incomplete;
            names.extend(page.items.into_iter().map(|entry| entry.name));
            let Some(next) = page.next_cursor else {
                assert!(names.is_sorted());
                assert_eq!(incomplete, names.len() < LARGER, "{} at {tenth}", names.len());
                partly += usize::from(incomplete && !names.is_empty());
                break;
            };
            cursor = format!("&cursor={next}");
        }
    }
    assert!(partly > 3, "{partly} partly, {not_at_all} not at all");
}

#[tokio::test]
async fn a_customer_held_vault_shows_no_names() {
    let world = world().await;
    let mut agent = world.enrol(world.app.tenant());
    let body = crate::vaults::customer_held(&world, &mut agent).await;
    agent.put::<Vault>(&format!("vaults/{}", agent.vault), &body).await.expect("vault");
    let snapshot = real_backup(&world, &agent).await.0.snapshot;
    let person = world.app.user(agent.tenant, Role::TenantAdmin);
    let answer =
        person.get::<EntryPage>(&agent.path(&format!("snapshots/{}/entries", snapshot.id))).await;
    assert_eq!(code_of(&answer), Some(Code::CustomerHeld));
}

#[tokio::test]
async fn restore_grants_read_exactly_the_packs_of_the_snapshot() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let first = world.backup(&agent, &mut Vec::new(), 2, &[]).await.snapshot;
    let second = world.backup(&agent, &mut Vec::new(), 2, &[]).await.snapshot;
    let packs: SnapshotPacks =
        agent.get(&format!("snapshots/{}/packs", first.id)).await.expect("packs");
    let ask = RequestRestoreGrants {
        packs: packs.items.iter().map(|pack| pack.id).collect(),
        completes: None,
    };
    let path = format!("snapshots/{}/restore-grants", first.id);
    let grants: RestoreGrants = agent.post(&path, &ask).await.expect("grants");
    assert_eq!((grants.manifests.len(), grants.packs.len()), (1, 3));
    for grant in &grants.packs {
        let mut request = reqwest::Client::new().get(&grant.get.url);
        for header in grant.get.headers.iter().filter(|h| !h.name.eq_ignore_ascii_case("host")) {
            request = request.header(&header.name, &header.value);
        }
        let bytes = request.send().await.expect("sent").bytes().await.expect("bytes");
        assert_eq!(hex::encode(Sha256::digest(&bytes)), grant.pack.sha256);
    }
    // A pack of the vault that is not of this snapshot.
    let other = format!("snapshots/{}/restore-grants", second.id);
    assert_eq!(code_of(&agent.post::<RestoreGrants>(&other, &ask).await), Some(Code::NotFound));
    let event = "SELECT count(*) FROM catalog.outbox WHERE payload->>'action' = 'restore.granted'";
    assert_eq!(world.count(event).await, 1);
    // Read for another snapshot, whose own packs lost it: the audit says for which.
    let ask = RequestRestoreGrants { packs: vec![], completes: Some(first.id) };
    agent.post::<RestoreGrants>(&other, &ask).await.expect("grants");
    let unknown = Some(world.app.id::<domain::id::Snapshot>());
    let ask = RequestRestoreGrants { packs: vec![], completes: unknown };
    assert_eq!(code_of(&agent.post::<RestoreGrants>(&other, &ask).await), Some(Code::NotFound));
    let named = "SELECT count(*) FROM catalog.outbox WHERE payload->>'action' = 'restore.granted' AND payload::text LIKE '%\"completes\"%snp_%'";
    assert_eq!((world.count(event).await, world.count(named).await), (2, 1));
}
