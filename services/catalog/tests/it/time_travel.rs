//! Random lives of two vaults with two writers each, over months of test time, against the real store.
//!
//! The test keeps its own books of what every snapshot needs, byte by byte. After each step it asks the store itself:
//! nothing a standing snapshot needs has gone, promises and holds are locked as they must be, no snapshot went
//! earlier than the rules say, and no locked version was ever asked to go.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use api::catalog::{RequestRestoreGrants, RestoreGrants, Session, SessionHeartbeat};
use bytes::Bytes;
use catalog::{
    collection::{begin_delete, condemn, finish_delete, letting_go},
    sessions::jobs,
    snapshots, steward,
};
use domain::{HoldId, PackId, SnapshotId, Timestamp, WorkloadId, retention::RetentionRule};
use vault::{
    layout,
    manifest::SignedManifest,
    store::{Deletion, VersionCursor},
};

use crate::support::{Agent, DAY, Made, World, world_under};

/// Months pass in a few dozen steps.
const RULE: RetentionRule = RetentionRule {
    within_days: 3,
    hourly: 0,
    daily: 5,
    weekly: 2,
    monthly: 0,
    yearly: 0,
    keep_last: 0,
};

/// splitmix64: the same life for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }
    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.roll(from.len())].clone())
    }
}

/// An object as the test saw it being made.
#[derive(Debug, Clone)]
struct Object {
    key: String,
    version: String,
    bytes: Bytes,
}

/// A snapshot in the test's own books.
struct Book {
    agent: usize,
    needs: BTreeMap<PackId, Object>,
    promised: Timestamp,
    holds: Vec<HoldId>,
    reading_until: Timestamp,
    /// When it was first seen expired, and never undone since.
    expired: Option<Timestamp>,
    /// The decision is final, whether or not its record is in the bucket.
    decided: bool,
    gone: bool,
}

impl Book {
    fn held(&self) -> bool {
        !self.holds.is_empty()
    }
}

/// One writer of a vault.
struct Writer {
    agent: usize,
    workload: WorkloadId,
    chain: Vec<SignedManifest>,
    newest: Option<SnapshotId>,
    session: Option<Session>,
}

struct Life {
    world: World,
    agents: Vec<Agent>,
    writers: Vec<Writer>,
    books: BTreeMap<SnapshotId, Book>,
    objects: BTreeMap<PackId, Object>,
    made: BTreeMap<PackId, Made>,
    /// The earliest each version is known to stay locked until; the store never shortens a lock.
    locks: BTreeMap<String, Timestamp>,
    dice: Dice,
    epoch: u64,
    figures: BTreeMap<&'static str, u64>,
}

impl Life {
    async fn begin(seed: u64) -> Self {
        let world = world_under(RULE).await;
        let mut agents = Vec::new();
        let mut writers = Vec::new();
        for at in 0..2 {
            let agent = world.agent(world.app.tenant()).await;
            let second = second_workload(&world, &agent).await;
            for workload in [agent.workload, second] {
                writers.push(Writer {
                    agent: at,
                    workload,
                    chain: vec![],
                    newest: None,
                    session: None,
                });
            }
            agents.push(agent);
        }
        Self {
            world,
            agents,
            writers,
            books: BTreeMap::new(),
            objects: BTreeMap::new(),
            made: BTreeMap::new(),
            locks: BTreeMap::new(),
            dice: Dice(seed),
            epoch: 0,
            figures: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.figures.entry(what).or_default() += 1;
    }

    fn now(&self) -> Timestamp {
        self.world.now()
    }

    async fn step(&mut self) {
        let writer = self.dice.roll(self.writers.len());
        match self.dice.roll(20) {
            0..=5 => self.backup(writer).await,
            6 => self.leave_open(writer).await,
            7 => self.give_up(writer).await,
            8..=11 => self.pass_time().await,
            12 => self.hold().await,
            13 => self.release().await,
            14 => self.undo().await,
            15 => self.restore().await,
            16 => self.settle().await,
            _ => self.collect().await,
        }
        self.look().await;
    }

    async fn open(&mut self, writer: usize) -> Session {
        self.epoch += 1;
        let one = &self.writers[writer];
        let agent = &mut self.agents[one.agent];
        agent.workload = one.workload;
        let session = self.world.try_open(agent, self.epoch, None).await.expect("session");
        // What the server builds on is what is built on here: the newest that stands.
        let parent = session.parent.as_ref().map(|parent| parent.manifest.id);
        let chain = &mut self.writers[writer].chain;
        let at = chain.iter().position(|link| Some(link.id) == parent);
        chain.drain(..at.unwrap_or(chain.len()));
        session
    }

    async fn upload(&mut self, writer: usize, session: &Session, count: u64) -> Vec<Made> {
        let agent = &self.agents[self.writers[writer].agent];
        let made = self.world.upload_some(agent, session, 0..count).await;
        for pack in &made {
            self.note(pack);
        }
        made
    }

    fn note(&mut self, pack: &Made) {
        let facts = pack.facts.clone().expect("confirmed");
        let version = facts.version_id.expect("version");
        let object = Object { key: facts.key, version, bytes: pack.bytes.clone() };
        self.objects.insert(facts.id, object);
        self.made.insert(facts.id, pack.clone());
    }

    /// New packs, some of the vault's others, some of the parent's dropped: committed.
    async fn backup(&mut self, writer: usize) {
        let session = self.open(writer).await;
        let fresh = self.dice.roll(3) as u64;
        let mut packs = self.upload(writer, &session, fresh).await;
        let adopted = self.agents[self.writers[writer].agent].adopted(&session).await;
        for facts in session.known.iter().chain(&adopted) {
            if self.dice.roll(6) == 0 && packs.iter().all(|pack| pack.id() != facts.id) {
                packs.push(Made { facts: Some(facts.clone()), ..self.made[&facts.id].clone() });
            }
        }
        let chain = self.writers[writer].chain.clone();
        let before: Vec<PackId> = if chain.is_empty() {
            vec![]
        } else {
            vault::manifest::resolve(&chain).expect("set").iter().map(|pack| pack.id).collect()
        };
        packs.retain(|pack| !before.contains(&pack.id()));
        let dropped: Vec<PackId> =
            before.iter().copied().filter(|_| self.dice.roll(2) == 0).collect();
        let one = self.writers[writer].agent;
        let mut chain = chain;
        let manifest =
            self.world.manifest(&self.agents[one], &session, &mut chain, &packs, &dropped).await;
        self.note(&manifest);
        let reply = self.agents[one].commit(&session, manifest.id()).await.expect("commit");
        let depth = usize::from(chain[0].manifest.depth);
        let set = vault::manifest::resolve(&chain).expect("set");
        let manifests = chain.iter().take(depth + 1).map(|link| link.id);
        let ids: Vec<PackId> = set.iter().map(|pack| pack.id).chain(manifests).collect();
        let needs = ids.iter().map(|id| (*id, self.objects[id].clone())).collect();
        let book = Book {
            agent: one,
            needs,
            promised: reply.snapshot.protect_until,
            holds: vec![],
            reading_until: Timestamp::UNIX_EPOCH,
            expired: None,
            decided: false,
            gone: false,
        };
        self.books.insert(reply.snapshot.id, book);
        let writer = &mut self.writers[writer];
        (writer.chain, writer.newest, writer.session) = (chain, Some(reply.snapshot.id), None);
        self.count("backups");
    }

    /// A session that uploads and then says nothing more.
    async fn leave_open(&mut self, writer: usize) {
        let session = self.open(writer).await;
        self.upload(writer, &session, 1).await;
        self.writers[writer].session = Some(session);
        self.count("sessions left open");
    }

    async fn give_up(&mut self, writer: usize) {
        let session = self.open(writer).await;
        self.upload(writer, &session, 1).await;
        let body = SessionHeartbeat { fence: session.fence };
        let agent = &self.agents[self.writers[writer].agent];
        agent.post::<()>(&format!("sessions/{}/abort", session.id), &body).await.expect("aborted");
        self.count("sessions given up");
    }

    /// Hours or days, then what runs by the clock.
    async fn pass_time(&mut self) {
        let hours = [1, 7, 26, 24 * 3, 24 * 6][self.dice.roll(5)];
        self.world.advance(Duration::from_secs(hours * 3_600));
        self.tend().await;
        self.count("jumps");
    }

    async fn tend(&mut self) {
        let catalog = &self.world.catalog;
        jobs::expire_round(catalog).await.expect("sessions");
        jobs::steward_round(catalog).await.expect("locks of sessions");
        jobs::abandon_round(catalog).await.expect("grants");
        while snapshots::receipts::round(catalog).await.expect("receipts") {}
        // A budget so small that a run is rarely enough.
        while steward::round(catalog, 3).await.expect("steward").left_over {}
    }

    fn standing(&self, expired: bool) -> Vec<SnapshotId> {
        let fits = |book: &&Book| !book.decided && book.expired.is_some() == expired;
        self.books.iter().filter(|(_, book)| fits(book)).map(|(id, _)| *id).collect()
    }

    async fn hold(&mut self) {
        let all: Vec<_> = self.standing(false).into_iter().chain(self.standing(true)).collect();
        let Some(id) = self.dice.pick(&all) else { return };
        let hold = self.world.hold(&self.agents[self.books[&id].agent], id).await;
        let book = self.books.get_mut(&id).expect("known");
        book.holds.push(hold);
        book.expired = None;
        self.tend().await;
        self.count("holds");
    }

    async fn release(&mut self) {
        let held: Vec<_> =
            self.books.iter().filter(|(_, book)| book.held()).map(|(id, _)| *id).collect();
        let Some(id) = self.dice.pick(&held) else { return };
        let book = self.books.get_mut(&id).expect("known");
        let hold = book.holds.pop().expect("held");
        self.world.release(&self.agents[book.agent], hold).await;
        self.count("releases");
    }

    async fn undo(&mut self) {
        let Some(id) = self.dice.pick(&self.standing(true)) else { return };
        let agent = &self.agents[self.books[&id].agent];
        let done =
            letting_go::undo_expire(&self.world.catalog, agent.scope(), &agent.actor(), id).await;
        assert!(done.expect("asked"), "softly expired ones come back");
        self.books.get_mut(&id).expect("known").expired = None;
        self.count("undone expiries");
    }

    /// Reads everything a snapshot needs by grants, and compares every byte.
    async fn restore(&mut self) {
        let Some(id) = self.dice.pick(&self.standing(false)) else { return };
        self.read_all(id).await;
        let now = self.now();
        let book = self.books.get_mut(&id).expect("known");
        book.reading_until = book.reading_until.max(now + DAY);
        self.count("restores");
    }

    async fn read_all(&self, id: SnapshotId) {
        let book = &self.books[&id];
        let packs: Vec<PackId> = book.needs.keys().copied().collect();
        let agent = &self.agents[book.agent];
        let body = RequestRestoreGrants { packs, completes: None };
        let grants: RestoreGrants =
            agent.post(&format!("snapshots/{id}/restore-grants"), &body).await.expect("grants");
        assert_eq!(grants.packs.len(), book.needs.len());
        for grant in grants.packs {
            let mut request = reqwest::Client::new().get(&grant.get.url);
            for header in &grant.get.headers {
                request = request.header(&header.name, &header.value);
            }
            let bytes = request.send().await.expect("answer").bytes().await.expect("body");
            assert_eq!(bytes, book.needs[&grant.pack.id].bytes, "restored bit for bit");
        }
    }

    /// The plan's turn, for every tenant.
    async fn settle(&mut self) {
        letting_go::round(&self.world.catalog).await.expect("retention");
        if self.dice.roll(3) > 0 {
            while letting_go::write_round(&self.world.catalog).await.expect("records") {}
        }
        self.count("retention rounds");
    }

    /// Condemning and deleting; now and then the reaper dies with its warrants.
    async fn collect(&mut self) {
        for at in 0..self.agents.len() {
            let (scope, vault) = (self.agents[at].scope(), self.agents[at].vault);
            condemn(&self.world.catalog, scope, vault).await.expect("condemned");
            let warrants = begin_delete(&self.world.catalog, scope, vault).await.expect("warrants");
            for warrant in warrants {
                if self.dice.roll(4) == 0 {
                    self.count("warrants lost");
                    continue;
                }
                let before = self.versions(at).await;
                let wanted = (warrant.key().to_owned(), warrant.version_id().to_owned());
                let facts = self.world.store.head(&wanted.0, Some(&wanted.1)).await.expect("head");
                let lock = facts.and_then(|facts| facts.lock_until);
                let over = lock.is_none_or(|until| until <= self.now());
                assert!(over, "a locked version was asked to go: {lock:?} at {}", self.now());
                let done =
                    finish_delete(&self.world.catalog, scope, &warrant).await.expect("asked");
                assert_eq!(done, Deletion::Deleted, "what is free goes at the first request");
                let mut left = before;
                assert!(left.remove(&wanted), "it was there");
                assert_eq!(
                    self.versions(at).await,
                    left,
                    "this version went and nothing came or went beside it"
                );
                self.count("deletions");
            }
        }
        self.count("collections");
    }

    /// Every version (and delete marker) the store lists for a vault.
    async fn versions(&self, agent: usize) -> BTreeSet<(String, String)> {
        let prefix = layout::vault_prefix(self.agents[agent].tenant, self.agents[agent].vault);
        let (mut all, mut cursor) = (BTreeSet::new(), None::<VersionCursor>);
        loop {
            let page =
                self.world.store.list_versions(&prefix, cursor.as_ref()).await.expect("list");
            all.extend(page.versions.into_iter().map(|version| (version.key, version.version_id)));
            cursor = page.next;
            if cursor.is_none() {
                return all;
            }
        }
    }

    /// The laws, asked of the store.
    async fn look(&mut self) {
        let now = self.now();
        let states = states(&self.world).await;
        for (id, book) in &mut self.books {
            let state = states[id].as_str();
            if state == "committed" {
                book.expired = None;
            } else if book.expired.is_none() {
                assert!(!book.held(), "{id} went under hold");
                assert!(book.promised <= now, "{id} went before its promise");
                assert!(book.reading_until <= now, "{id} went under its reader");
                book.expired = Some(now);
            }
            if matches!(state, "forgetting" | "forgotten") && !book.gone {
                let since = book.expired.expect("expired before");
                assert!(
                    since + letting_go::UNDO <= now,
                    "{id} was forgotten before its undo was over"
                );
            }
            book.decided = matches!(state, "forgetting" | "forgotten");
            book.gone = state == "forgotten";
        }
        let listed = [self.versions(0).await, self.versions(1).await];
        let newest: BTreeSet<SnapshotId> = self.writers.iter().filter_map(|w| w.newest).collect();
        for id in &newest {
            assert_eq!(states[id], "committed", "the newest of a workload stays");
        }
        let mut asked = Vec::new();
        for (id, book) in self.books.iter().filter(|(_, book)| !book.gone) {
            let kept = book.held() || newest.contains(id);
            for object in book.needs.values() {
                let version = (object.key.clone(), object.version.clone());
                assert!(listed[book.agent].contains(&version), "{id} lost {version:?}");
                let locked = if kept { book.promised.max(now) } else { book.promised };
                if book.expired.is_none() && locked >= now {
                    asked.push((object.clone(), locked));
                }
            }
        }
        for (object, until) in asked {
            let known = self.locks.get(&object.version).copied();
            if known.is_some_and(|known| known >= until) {
                continue;
            }
            let facts =
                self.world.store.head(&object.key, Some(&object.version)).await.expect("head");
            let locked = facts.expect("listed").lock_until.expect("a lock");
            assert!(locked >= until, "{} is locked until {locked}, not {until}", object.key);
            self.locks.insert(object.version, locked);
        }
    }
}

async fn states(world: &World) -> BTreeMap<SnapshotId, String> {
    let mut connection = world.app.database().superuser().await.expect("superuser");
    let rows: Vec<(uuid::Uuid, String)> = sqlx::query_as("SELECT id, state FROM catalog.snapshots")
        .fetch_all(&mut connection)
        .await
        .expect("states");
    rows.into_iter().map(|(id, state)| (SnapshotId::from_uuid(id), state)).collect()
}

/// Another workload of the same vault: what is shared between two writers is shared here.
async fn second_workload(world: &World, agent: &Agent) -> WorkloadId {
    let id: WorkloadId = world.app.id();
    let mut connection = world.app.database().superuser().await.expect("superuser");
    sqlx::query(
        "INSERT INTO catalog.workloads (tenant_id, id, agent_id, vault_id, kind, name, created_at)
         SELECT tenant_id, $2, agent_id, vault_id, kind, 'second', created_at FROM catalog.workloads WHERE id = $1",
    )
    .bind(agent.workload.uuid())
    .bind(id.uuid())
    .execute(&mut connection)
    .await
    .expect("workload");
    id
}

async fn live(seed: u64, steps: usize) {
    let mut life = Life::begin(seed).await;
    for _ in 0..steps {
        life.step().await;
    }
    // To the end: everything the rules let go goes, everything else is still readable.
    for _ in 0..10 {
        life.world.advance(6 * DAY);
        life.tend().await;
        life.settle().await;
        while letting_go::write_round(&life.world.catalog).await.expect("records") {}
        life.look().await;
        life.collect().await;
        life.look().await;
    }
    for id in life.standing(false) {
        life.read_all(id).await;
    }
    println!("seed {seed}: {:?}", life.figures);
    let seen = |what| life.figures.get(what).copied().unwrap_or_default();
    assert!(seen("backups") > 5 && seen("deletions") > 0 && seen("jumps") > 2, "too quiet a life");
}

#[tokio::test]
async fn nothing_readable_disappears_and_nothing_locked_is_asked_to_go_in_life_one() {
    live(1, 90).await;
}

#[tokio::test]
async fn nothing_readable_disappears_and_nothing_locked_is_asked_to_go_in_life_two() {
    live(2, 90).await;
}

#[tokio::test]
async fn nothing_readable_disappears_and_nothing_locked_is_asked_to_go_in_life_three() {
    live(3, 90).await;
}
