//! From what a bucket says to the rows of a catalog. Pure.
//!
//! Invariant: the same bucket makes the same rows, whatever the order it was read in; what the database knows keeps its
//! numbers, and nothing else gets them; every pack a snapshot needs has a
//! row, as `lost` if the store does not have it; a snapshot whose list of packs cannot be derived becomes no row but a
//! matter for a person.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    AgentId, PackId, RunId, SessionId, SnapshotId, TenantId, Timestamp, VaultId, WorkloadId,
};
use vault::{
    descriptor::KeyMode,
    id::Sha256,
    layout::{Name, ObjectKind},
    manifest::PackRef,
    rescue::{Found, Standing},
};

use super::gather::{
    Facts, KeyFacts, ManifestFacts, ObjectFacts, ProofFacts, has_kit, recipient_id,
};

/// Room above the highest fence a manifest names: sessions that never came to a manifest had higher ones.
const FENCE_ROOM: u64 = 1_000;
/// Names that are only in the database are gone.
const NAME: &str = "rebuilt";

/// Rows of the vault itself.
pub struct KeyRows {
    pub agent: AgentId,
    pub members: usize,
    pub key_mode: &'static str,
    pub descriptor: Vec<u8>,
    pub key_epoch: u32,
    pub has_kit: bool,
    pub created_at: Timestamp,
    /// Epoch, kind, recipient, bytes.
    pub wraps: Vec<(u32, &'static str, String, Vec<u8>)>,
    /// Generation, bytes.
    pub rosters: Vec<(u64, Vec<u8>)>,
}

pub struct WorkloadRow {
    pub id: WorkloadId,
    pub agent: AgentId,
    pub name: String,
    pub created_at: Timestamp,
    pub fence: u64,
    pub last_seq: i64,
}

pub struct SessionRow {
    pub id: SessionId,
    pub workload: WorkloadId,
    pub agent: AgentId,
    pub run: RunId,
    /// Below zero: no manifest names it.
    pub fence: i64,
    pub key_epoch: u32,
    pub parent: Option<SnapshotId>,
    pub committed: bool,
    pub at: Timestamp,
}

pub struct PackRow {
    pub id: PackId,
    pub session: SessionId,
    pub seq: i64,
    pub kind: &'static str,
    pub state: &'static str,
    pub sha256: Sha256,
    pub md5: Option<[u8; 16]>,
    pub length: u64,
    pub key: String,
    pub version_id: String,
    pub lock_until: Timestamp,
}

pub struct SnapshotRow {
    pub id: SnapshotId,
    pub workload: WorkloadId,
    pub agent: AgentId,
    pub run: RunId,
    pub session: SessionId,
    pub seq: i64,
    pub parent: Option<SnapshotId>,
    pub manifest: PackId,
    /// `committed`, or `forgotten` where the bucket has the record of it.
    pub state: &'static str,
    pub committed_at: Timestamp,
    pub forgotten_at: Option<Timestamp>,
    pub paths: Vec<String>,
    pub tags: BTreeMap<String, String>,
    pub files: u64,
    pub directories: u64,
    pub others: u64,
    pub source_bytes: u64,
    pub stored_bytes: u64,
    pub exceptions: u64,
    pub protect_until: Timestamp,
    pub locked_until: Timestamp,
    pub key_epoch: u32,
    pub full_list: bool,
    pub packs: u64,
    pub set_hash: Sha256,
}

pub struct ReferenceRow {
    pub workload: WorkloadId,
    pub pack: PackId,
    pub first_seq: i64,
    pub last_seq: Option<i64>,
}

/// Everything to write of one vault.
#[derive(Default)]
pub struct Rows {
    /// `None`: nothing about the vault can be believed, and nothing is written.
    pub keys: Option<KeyRows>,
    pub workloads: Vec<WorkloadRow>,
    pub sessions: Vec<SessionRow>,
    pub packs: Vec<PackRow>,
    /// By workload and place.
    pub snapshots: Vec<SnapshotRow>,
    pub receipts: Vec<ProofFacts>,
    /// Records of what was forgotten.
    pub forgets: Vec<ProofFacts>,
    pub references: Vec<ReferenceRow>,
    /// Manifests a person has to decide about.
    pub undecided: Vec<PackId>,
    pub findings: Vec<String>,
}

/// Numbers the database has given already.
#[derive(Default)]
pub struct Known {
    /// The highest place of a workload's chain.
    pub last_seq: BTreeMap<WorkloadId, i64>,
    pub snapshots: BTreeMap<SnapshotId, i64>,
    pub fences: BTreeMap<SessionId, (WorkloadId, i64)>,
    /// Of packs in their sessions.
    pub places: BTreeMap<PackId, (SessionId, i64)>,
}

impl Known {
    /// The places of a chain: what is known keeps its own, the others come after all of them. In order.
    fn number<'m>(
        &self,
        workload: WorkloadId,
        mut chain: Vec<&'m ManifestFacts>,
    ) -> Vec<(i64, SnapshotId, &'m ManifestFacts)> {
        chain.sort_by_key(|manifest| (committed_at(&manifest.found), manifest.found.signed.id));
        let mut last = self.last_seq.get(&workload).copied().unwrap_or(0);
        let known = |id| self.snapshots.get(&id).copied();
        let ids = chain.iter().filter_map(|manifest| known(manifest.found.snapshot()?));
        last = ids.fold(last, i64::max);
        let numbered = chain.into_iter().filter_map(|manifest| {
            let id = manifest.found.snapshot()?;
            let seq = known(id).unwrap_or_else(|| {
                last += 1;
                last
            });
            Some((seq, id, manifest))
        });
        let mut numbered: Vec<_> = numbered.collect();
        numbered.sort_by_key(|(seq, ..)| *seq);
        numbered
    }
}

/// Makes the rows.
pub fn plan(
    (tenant, vault): (TenantId, VaultId),
    facts: Facts,
    known: &Known,
    now: Timestamp,
) -> Rows {
    let mut rows = Rows { findings: facts.findings, ..Rows::default() };
    let Some(keys) = &facts.keys else { return rows };
    rows.keys = key_rows(keys, &mut rows.findings);
    let mut chains: BTreeMap<WorkloadId, Vec<&ManifestFacts>> = BTreeMap::new();
    for manifest in &facts.manifests {
        let standing = &manifest.found.standing;
        // Of a forgotten one the manifests it built on may be gone by right.
        let unknown = manifest.packs.is_none() && !manifest.found.is_forgotten();
        if *standing == Standing::Unconfirmed || unknown {
            rows.undecided.push(manifest.found.signed.id);
            continue;
        }
        chains.entry(manifest.found.signed.manifest.workload).or_default().push(manifest);
    }
    let objects: BTreeMap<PackId, &ObjectFacts> =
        facts.objects.iter().map(|object| (object.id, object)).collect();
    let mut needs = Needs::default();
    for (workload, chain) in chains {
        let chain = known.number(workload, chain);
        snapshots(&chain, &objects, &mut needs, &mut rows);
        needs.references(workload, &chain, &mut rows.references);
    }
    sessions((&facts.manifests, &facts.objects), known, now, &mut rows);
    workloads(&facts.manifests, &mut rows);
    packs((tenant, vault), &facts.objects, (&needs, known), &mut rows);
    let ids: BTreeSet<SnapshotId> = rows.snapshots.iter().map(|row| row.id).collect();
    let of_known = |rows: Vec<ProofFacts>| {
        rows.into_iter().filter(|row| ids.contains(&row.snapshot)).collect()
    };
    rows.receipts = of_known(facts.receipts);
    rows.forgets = of_known(facts.forgets);
    rows
}

fn key_rows(keys: &KeyFacts, findings: &mut Vec<String>) -> Option<KeyRows> {
    let (first, _) = keys.rosters.first()?;
    let Some(owner) = first.members.first() else {
        findings.push("the oldest roster has no member: nobody owns this vault".to_owned());
        return None;
    };
    let (newest, _) = keys.rosters.last()?;
    let wrap = |(wrap, bytes): &(vault::keys::Wrap, Vec<u8>)| {
        (wrap.epoch, wrap.recipient.kind.as_str(), recipient_id(wrap), bytes.clone())
    };
    Some(KeyRows {
        agent: owner.agent,
        members: newest.members.len(),
        key_mode: match keys.descriptor.key_mode {
            KeyMode::Managed => "managed",
            KeyMode::CustomerHeld => "customer_held",
        },
        descriptor: keys.descriptor_bytes.clone(),
        key_epoch: keys.wraps.iter().map(|(wrap, _)| wrap.epoch).max().unwrap_or(1),
        has_kit: has_kit(keys),
        created_at: keys.descriptor.created,
        wraps: keys.wraps.iter().map(wrap).collect(),
        rosters: keys.rosters.iter().map(|(r, bytes)| (r.generation, bytes.clone())).collect(),
    })
}

fn committed_at(found: &Found) -> Timestamp {
    found.receipt.as_ref().map_or(found.signed.manifest.created, |receipt| receipt.committed_at)
}

/// A chain with its numbers.
type Numbered<'m> = (i64, SnapshotId, &'m ManifestFacts);

/// Which pack which snapshots of a chain need.
#[derive(Default)]
struct Needs {
    /// Indices into the chain.
    by_pack: BTreeMap<PackId, BTreeSet<usize>>,
    /// Over all chains: what manifests say of the packs they name.
    named: BTreeMap<PackId, (PackRef, SessionId)>,
    live: BTreeSet<PackId>,
}

impl Needs {
    fn add(&mut self, pack: PackId, at: usize) {
        self.by_pack.entry(pack).or_default().insert(at);
        self.live.insert(pack);
    }
    /// Neighbours become intervals; the one that reaches the end of the chain stays open.
    fn references(
        &mut self,
        workload: WorkloadId,
        chain: &[Numbered<'_>],
        rows: &mut Vec<ReferenceRow>,
    ) {
        let number = |at: usize| chain.get(at).map_or(i64::MAX, |(seq, ..)| *seq);
        for (pack, places) in std::mem::take(&mut self.by_pack) {
            let mut open: Option<(usize, usize)> = None;
            let mut close = |(first, last): (usize, usize)| {
                let last_seq = (last + 1 < chain.len()).then(|| number(last));
                rows.push(ReferenceRow { workload, pack, first_seq: number(first), last_seq });
            };
            for at in places {
                open = match open {
                    Some((first, last)) if last + 1 == at => Some((first, at)),
                    Some(done) => {
                        close(done);
                        Some((at, at))
                    }
                    None => Some((at, at)),
                };
            }
            open.into_iter().for_each(&mut close);
        }
    }
}

/// The snapshots of one workload, in order, and what they need.
fn snapshots(
    chain: &[Numbered<'_>],
    objects: &BTreeMap<PackId, &ObjectFacts>,
    needs: &mut Needs,
    rows: &mut Rows,
) {
    let by_manifest: BTreeMap<PackId, (SnapshotId, Option<PackId>, u8)> = chain
        .iter()
        .map(|(_, id, manifest)| {
            let signed = &manifest.found.signed;
            let parent = signed.manifest.parent.as_ref().map(|link| link.manifest);
            (signed.id, (*id, parent, signed.manifest.depth))
        })
        .collect();
    for (place, (seq, id, manifest)) in chain.iter().enumerate() {
        let (found, set) = (&manifest.found, manifest.packs.clone().unwrap_or_default());
        let signed = &found.signed;
        let forgotten = found.is_forgotten();
        for pack in set.iter() {
            // What a forgotten snapshot named may be gone by right.
            if forgotten && !objects.contains_key(&pack.id) {
                continue;
            }
            needs.add(pack.id, place);
            let session = signed.manifest.session;
            needs.named.entry(pack.id).or_insert_with(|| (pack.clone(), session));
        }
        let mut link = Some(signed.id);
        for _ in 0..=signed.manifest.depth {
            let Some(at) = link.filter(|at| objects.contains_key(at)) else { break };
            needs.add(at, place);
            link = by_manifest.get(&at).and_then(|(_, parent, _)| *parent);
        }
        let locks = set.iter().map(|pack| pack.id).chain([signed.id]);
        let locks = locks.filter_map(|id| objects.get(&id)).map(|object| object.lock_until);
        let row = snapshot(manifest, (*id, *seq), locks.min(), objects, &by_manifest);
        rows.snapshots.push(row);
    }
}

fn snapshot(
    manifest: &ManifestFacts,
    (id, seq): (SnapshotId, i64),
    lock: Option<Timestamp>,
    objects: &BTreeMap<PackId, &ObjectFacts>,
    by_manifest: &BTreeMap<PackId, (SnapshotId, Option<PackId>, u8)>,
) -> SnapshotRow {
    let found = &manifest.found;
    let said = &found.signed.manifest;
    let receipt = found.receipt.as_ref();
    let summary = manifest.summary.clone().unwrap_or_default();
    let opened = manifest.summary.is_some();
    let forgotten_at = match &found.standing {
        Standing::Forgotten(record) => Some(record.forgotten_at),
        Standing::Committed(_) | Standing::Unconfirmed => None,
    };
    let protect_until = receipt
        .map_or_else(|| forgotten_at.unwrap_or(said.created), |receipt| receipt.protect_until);
    let own = |pack: &&ObjectFacts| pack.maker.is_some_and(|maker| maker.session == said.session);
    let named = manifest.packs.iter().flat_map(vault::manifest::PackSet::iter);
    let stored = named.filter_map(|pack| objects.get(&pack.id)).filter(|pack| own(pack));
    let stored_bytes = stored.map(|pack| pack.length).sum::<u64>() + found.length;
    let parent = said.parent.as_ref().and_then(|link| by_manifest.get(&link.manifest));
    SnapshotRow {
        id,
        workload: said.workload,
        agent: said.agent,
        run: receipt.map_or_else(|| RunId::from_bytes(said.session.into_bytes()), |r| r.run),
        session: said.session,
        seq,
        parent: parent.map(|(snapshot, ..)| *snapshot),
        manifest: found.signed.id,
        state: if forgotten_at.is_some() { "forgotten" } else { "committed" },
        committed_at: committed_at(found),
        forgotten_at,
        paths: summary
            .paths
            .iter()
            .map(|path| format!("/{}", String::from_utf8_lossy(path)))
            .collect(),
        tags: summary.tags,
        files: if opened { summary.files } else { said.root.entries },
        directories: summary.directories,
        others: summary.others,
        source_bytes: summary.source_bytes,
        stored_bytes,
        exceptions: summary.exceptions,
        protect_until,
        // The table holds R3; a store that says less is told by the steward's next round.
        locked_until: lock.unwrap_or(protect_until).max(protect_until),
        key_epoch: said.key_epoch,
        full_list: said.depth == 0,
        packs: manifest.packs.as_ref().map_or(0, |set| set.len() as u64),
        set_hash: said.set_hash,
    }
}

/// Sessions that manifests name, and those that only packs name.
fn sessions(
    (manifests, objects): (&[ManifestFacts], &[ObjectFacts]),
    known: &Known,
    now: Timestamp,
    rows: &mut Rows,
) {
    let mut sessions: BTreeMap<SessionId, SessionRow> = BTreeMap::new();
    let mut fences: BTreeSet<(WorkloadId, i64)> = known.fences.values().copied().collect();
    let mut fence_of = |session: SessionId, workload, wanted| match known.fences.get(&session) {
        Some((_, fence)) => *fence,
        None => free(&mut fences, workload, wanted),
    };
    let mut homes: BTreeMap<AgentId, WorkloadId> = BTreeMap::new();
    // Committed ones first: of two manifests of one session theirs is the word that counts.
    let mut order: Vec<&ManifestFacts> = manifests.iter().collect();
    order.sort_by_key(|m| (m.found.receipt.is_none(), committed_at(&m.found), m.found.signed.id));
    let parents: BTreeMap<PackId, SnapshotId> = manifests
        .iter()
        .filter_map(|manifest| Some((manifest.found.signed.id, manifest.found.snapshot()?)))
        .collect();
    for manifest in order {
        let said = &manifest.found.signed.manifest;
        homes.insert(said.agent, said.workload);
        let fence = i64::try_from(said.fence).unwrap_or(i64::MAX);
        let fence = fence_of(said.session, said.workload, fence);
        let run = manifest.found.receipt.as_ref().map(|receipt| receipt.run);
        sessions.entry(said.session).or_insert_with(|| SessionRow {
            id: said.session,
            workload: said.workload,
            agent: said.agent,
            run: run.unwrap_or_else(|| RunId::from_bytes(said.session.into_bytes())),
            fence,
            key_epoch: said.key_epoch,
            parent: said.parent.as_ref().and_then(|link| parents.get(&link.manifest).copied()),
            committed: manifest.found.receipt.is_some(),
            at: committed_at(&manifest.found),
        });
    }
    for maker in objects.iter().filter_map(|object| object.maker) {
        let Some(workload) = homes.get(&maker.agent).copied() else { continue };
        if sessions.contains_key(&maker.session) {
            continue;
        }
        let fence = fence_of(maker.session, workload, -1);
        let row = SessionRow {
            id: maker.session,
            workload,
            agent: maker.agent,
            run: RunId::from_bytes(maker.session.into_bytes()),
            fence,
            key_epoch: maker.key_epoch,
            parent: None,
            committed: false,
            at: now,
        };
        sessions.insert(maker.session, row);
    }
    rows.sessions = sessions.into_values().collect();
}

/// A fence of the workload nobody has: the one wanted, or the next below zero.
fn free(taken: &mut BTreeSet<(WorkloadId, i64)>, workload: WorkloadId, wanted: i64) -> i64 {
    let mut fence = wanted;
    while !taken.insert((workload, fence)) {
        fence = if fence >= 0 { -1 } else { fence - 1 };
    }
    fence
}

fn workloads(manifests: &[ManifestFacts], rows: &mut Rows) {
    let mut workloads: BTreeMap<WorkloadId, WorkloadRow> = BTreeMap::new();
    for manifest in manifests {
        let said = &manifest.found.signed.manifest;
        let host = manifest.summary.as_ref().map(|summary| summary.host.clone());
        let name = host.filter(|host| !host.is_empty()).unwrap_or_else(|| NAME.to_owned());
        let row = workloads.entry(said.workload).or_insert_with(|| WorkloadRow {
            id: said.workload,
            agent: said.agent,
            name: name.chars().take(200).collect(),
            created_at: said.created,
            fence: 0,
            last_seq: 0,
        });
        row.created_at = row.created_at.min(said.created);
        row.fence = row.fence.max(said.fence.saturating_add(FENCE_ROOM));
    }
    for snapshot in &rows.snapshots {
        if let Some(row) = workloads.get_mut(&snapshot.workload) {
            row.last_seq = row.last_seq.max(snapshot.seq);
        }
    }
    rows.workloads = workloads.into_values().collect();
}

fn packs(
    (tenant, vault): (TenantId, VaultId),
    objects: &[ObjectFacts],
    (needs, known): (&Needs, &Known),
    rows: &mut Rows,
) {
    let sessions: BTreeSet<SessionId> = rows.sessions.iter().map(|session| session.id).collect();
    let by_manifest: BTreeMap<PackId, SessionId> =
        rows.snapshots.iter().map(|row| (row.manifest, row.session)).collect();
    let mut taken: BTreeSet<(SessionId, i64)> = known.places.values().copied().collect();
    let mut place_of = |pack: PackId, session, wanted| match known.places.get(&pack) {
        Some((_, seq)) => *seq,
        None => place(&mut taken, session, wanted),
    };
    let mut there = BTreeSet::new();
    // Packs first: their places are sealed into them; manifests and what is lost take what is left.
    let mut order: Vec<&ObjectFacts> = objects.iter().collect();
    order.sort_by_key(|object| (object.maker.is_none(), object.id));
    for object in order {
        let named = needs.named.get(&object.id).map(|(_, session)| *session);
        let made = object.maker.map(|maker| maker.session);
        let session = made
            .or_else(|| by_manifest.get(&object.id).copied())
            .or(named)
            .filter(|session| sessions.contains(session));
        let Some(session) = session else {
            // A manifest nobody confirmed has no row; a pack of a stranger neither.
            if object.kind != ObjectKind::Manifest {
                rows.findings.push(format!("{}: nobody known made it", object.key));
            }
            continue;
        };
        let wanted = object.maker.map_or(0, |maker| i64::try_from(maker.seq).unwrap_or(0));
        let seq = place_of(object.id, session, wanted);
        let live = needs.live.contains(&object.id);
        there.insert(object.id);
        rows.packs.push(PackRow {
            id: object.id,
            session,
            seq,
            kind: object.kind.as_str(),
            state: if live { "live" } else { "uploaded" },
            sha256: object.sha256,
            md5: object.md5,
            length: object.length,
            key: object.key.clone(),
            version_id: object.version_id.clone(),
            lock_until: object.lock_until,
        });
    }
    for (id, (pack, session)) in &needs.named {
        if there.contains(id) {
            continue;
        }
        let key = Name::Object(pack.kind.object(), pack.sha256, *id).key(tenant, vault);
        rows.findings.push(format!("{key}: a snapshot needs it, and it is not there"));
        rows.packs.push(PackRow {
            id: *id,
            session: *session,
            seq: place_of(*id, *session, 0),
            kind: pack.kind.as_str(),
            state: "lost",
            sha256: pack.sha256,
            md5: None,
            length: pack.length.max(1),
            key,
            version_id: pack.version_id.clone(),
            lock_until: Timestamp::UNIX_EPOCH,
        });
    }
    let known: BTreeSet<PackId> = rows.packs.iter().map(|pack| pack.id).collect();
    rows.references.retain(|reference| known.contains(&reference.pack));
    rows.packs.sort_by_key(|pack| pack.id);
}

/// A place in the session nobody has: the one wanted or the next above.
fn place(taken: &mut BTreeSet<(SessionId, i64)>, session: SessionId, wanted: i64) -> i64 {
    let mut seq = wanted.max(0);
    while !taken.insert((session, seq)) {
        seq += 1;
    }
    seq
}
