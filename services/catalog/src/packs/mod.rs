//! Packs: rows before grants (B1), the store's own word before `uploaded` (B2), locks (B3).
//!
//! Invariants: no upload grant exists without its row; a pack counts as uploaded only after a HEAD said
//! that exactly this object is there under a COMPLIANCE lock; a recorded lock is what the store reported.

pub mod http;
pub mod locks;
pub mod state;
pub mod store;

use api::{
    catalog::{
        AllocatePack, AllocatePacks, AllocatedPacks, ConfirmPack, ConfirmPacks, ConfirmedPacks,
        PackFacts, PackKind, PackState, UploadGrant,
    },
    problem::{Code, Problem},
};
use authz::{Permit, actions::SessionWrite};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::{PackId, SessionId, Timestamp};
use futures::{FutureExt as _, StreamExt as _};
use pg::{OperationalReason, TenantTx};
use runtime::Cx;
use uuid::Uuid;
use vault::{
    id::Sha256,
    layout::{self, ObjectKind},
    store::{ObjectFacts, PutGrant, StoreError},
};

use crate::{
    error::Error,
    objects,
    sessions::{SessionRow, check_open, find_own},
    state::Catalog,
};
use store::{NewPack, PackRow, SeenLock};

/// Packs in one request.
pub const MAX_PER_CALL: usize = 64;
/// Largest object.
pub const MAX_LENGTH: u64 = 80 << 20;
/// Largest manifest: a commit holds a chain of them in memory.
pub const MAX_MANIFEST: u64 = 16 << 20;
/// Longest version id we keep.
const MAX_VERSION: usize = 1_024;
/// Calls to the store at once, per request.
const PARALLEL: usize = 16;
/// Lock extensions between two writes of their dates.
pub const EXTEND_BATCH: usize = 512;

const fn object_kind(kind: PackKind) -> ObjectKind {
    match kind {
        PackKind::Data => ObjectKind::Data,
        PackKind::Meta => ObjectKind::Meta,
        PackKind::Manifest => ObjectKind::Manifest,
    }
}

/// A request's pack, read.
struct Asked {
    seq: u64,
    kind: PackKind,
    sha256: [u8; 32],
    md5: Option<[u8; 16]>,
    length: u64,
}

fn read(at: usize, pack: &AllocatePack, needs_md5: bool) -> Result<Asked, Error> {
    let wrong = |name: &str, detail: &str| Error::field(format!("packs/{at}/{name}"), detail);
    let lower = pack.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let sha256 = hex::decode(&pack.sha256).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let sha256 = sha256.filter(|_| lower);
    let md5 = match &pack.md5 {
        None if needs_md5 => return Err(wrong("md5", "this store needs it")),
        None => None,
        Some(text) => {
            let bytes = BASE64.decode(text).ok();
            let md5 = bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
            Some(md5.ok_or_else(|| wrong("md5", "base64 of 16 bytes"))?)
        }
    };
    if pack.length == 0 || pack.length > MAX_LENGTH {
        return Err(wrong("length", "1 byte to 80 MiB"));
    }
    if pack.kind == PackKind::Manifest && pack.length > MAX_MANIFEST {
        return Err(wrong("length", "a manifest has at most 16 MiB"));
    }
    if i64::try_from(pack.seq).is_err() {
        return Err(wrong("seq", "below 2^63"));
    }
    Ok(Asked {
        seq: pack.seq,
        kind: pack.kind,
        sha256: sha256.ok_or_else(|| wrong("sha256", "64 lowercase hex digits"))?,
        md5,
        length: pack.length,
    })
}

/// B1: rows first, grants after they are durable. Repeating a sequence number with the same object gives a
/// fresh grant; with another object it is refused.
///
/// # Errors
/// `validation`, `fenced`, `session_ended`, `conflict`, `pack_unusable`.
pub async fn allocate(
    app: &Catalog,
    cx: &Cx,
    permit: &Permit<SessionWrite>,
    session: SessionId,
    body: &AllocatePacks,
) -> Result<AllocatedPacks, Error> {
    check_count(body.packs.len())?;
    let needs_md5 = app.store.config().capabilities.needs_md5();
    let asked: Vec<Asked> = body
        .packs
        .iter()
        .enumerate()
        .map(|(at, pack)| read(at, pack, needs_md5))
        .collect::<Result<_, _>>()?;
    let rows = match insert_missing(app, cx, permit, session, body.fence, &asked).await {
        // Two requests for the same number at once: the second then finds the first one's row.
        Err(Error::Database(pg::Error::UniqueViolation { .. })) => {
            insert_missing(app, cx, permit, session, body.fence, &asked).await?
        }
        other => other?,
    };
    let mut grants = Vec::with_capacity(asked.len());
    for pack in &asked {
        let row = rows.iter().find(|row| row.seq.cast_unsigned() == pack.seq);
        grants.push(grant(app, cx, row.ok_or_else(Error::not_found)?).await?);
    }
    Ok(AllocatedPacks { grants })
}

fn check_count(count: usize) -> Result<(), Error> {
    if (1..=MAX_PER_CALL).contains(&count) {
        Ok(())
    } else {
        Err(Error::field("packs", format!("1 to {MAX_PER_CALL}")))
    }
}

async fn insert_missing(
    app: &Catalog,
    cx: &Cx,
    permit: &Permit<SessionWrite>,
    session: SessionId,
    fence: u64,
    asked: &[Asked],
) -> Result<Vec<PackRow>, Error> {
    let now = cx.now();
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let session = find_own(&mut tx, permit, session).await?;
    check_open(&session, fence)?;
    let seqs: Vec<i64> = asked.iter().map(|pack| pack.seq.cast_signed()).collect();
    let known = store::find_by_seq(&mut tx, session.id(), &seqs).await?;
    for (at, pack) in asked.iter().enumerate() {
        let twice = asked[..at].iter().any(|earlier| earlier.seq == pack.seq);
        match known.iter().find(|row| row.seq.cast_unsigned() == pack.seq) {
            Some(row) => check_same(row, pack)?,
            None if twice => return Err(Error::field(format!("packs/{at}/seq"), "named twice")),
            None => {
                store::insert(
                    &mut tx,
                    &session,
                    &new_pack(cx, permit.tenant(), &session, pack),
                    now,
                )
                .await?;
            }
        }
    }
    let again: Vec<Uuid> = known.iter().map(|row| row.id).collect();
    store::set_grant_expiry(&mut tx, &again, now + locks::GRANT).await?;
    let rows = store::find_by_seq(&mut tx, session.id(), &seqs).await?;
    tx.commit_operational(OperationalReason::PackBookkeeping).await?;
    Ok(rows)
}

fn check_same(row: &PackRow, asked: &Asked) -> Result<(), Error> {
    let same = row.sha256[..] == asked.sha256
        && row.md5.as_deref() == asked.md5.as_ref().map(<[u8; 16]>::as_slice)
        && row.kind() == asked.kind
        && row.length() == asked.length;
    if same {
        Ok(())
    } else {
        Err(Error::because(
            Code::Conflict,
            "this sequence number belongs to another object already",
        ))
    }
}

fn new_pack(cx: &Cx, tenant: domain::TenantId, session: &SessionRow, asked: &Asked) -> NewPack {
    let now = cx.now();
    let id = PackId::fresh(&*cx.ids, now);
    let sha256 = Sha256(asked.sha256);
    let kind = object_kind(asked.kind);
    NewPack {
        id,
        seq: asked.seq,
        kind: asked.kind,
        sha256: asked.sha256,
        md5: asked.md5,
        length: asked.length,
        object_key: layout::object_key(tenant, session.vault(), kind, &sha256, id),
        granted_lock_until: locks::initial(now),
        grant_expires_at: now + locks::GRANT,
    }
}

async fn grant(app: &Catalog, cx: &Cx, row: &PackRow) -> Result<UploadGrant, Error> {
    let pack = row.facts();
    let lock_until = Timestamp::from(row.granted_lock_until);
    match row.state() {
        PackState::Allocated if !locks::can_still_grant(lock_until, cx.now()) => {
            Err(Error::because(
                Code::PackUnusable,
                "this pack was allocated too long ago; seal it again under another number",
            ))
        }
        PackState::Allocated => {
            let bad = |_| Error::broken("a stored hash has another length", row.id.to_string());
            let put = PutGrant {
                key: row.object_key.clone(),
                length: row.length(),
                sha256: row.sha256.clone().try_into().map_err(bad)?,
                md5: row.md5.clone().map(TryInto::try_into).transpose().map_err(bad)?,
                lock_until,
                expires_in: locks::GRANT,
                now: cx.now(),
            };
            let put = app.store.presign_put(&put).await?;
            Ok(UploadGrant { pack, put: Some(objects::presigned(put, cx.now() + locks::GRANT)) })
        }
        PackState::Uploaded | PackState::Live | PackState::Condemned => {
            Ok(UploadGrant { pack, put: None })
        }
        _ => Err(Error::refused(Code::PackUnusable)),
    }
}

/// B2 ends: the store is asked itself. What it confirms is recorded even if another pack of the call is
/// not confirmed.
///
/// # Errors
/// `pack_not_confirmed` with the field of each that is not, `pack_unusable` when that will never change;
/// `validation`, `not_found`, `fenced`, `session_ended`.
pub async fn confirm(
    app: &Catalog,
    cx: &Cx,
    permit: &Permit<SessionWrite>,
    session: SessionId,
    body: &ConfirmPacks,
) -> Result<ConfirmedPacks, Error> {
    check_count(body.packs.len())?;
    let versions = body.packs.iter().map(|pack| pack.version_id.as_deref());
    if let Some(at) = versions.into_iter().position(|version| !version.is_none_or(is_version)) {
        let field = format!("packs/{at}/version_id");
        return Err(Error::field(field, format!("1 to {MAX_VERSION} printable characters")));
    }
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let own = find_own(&mut tx, permit, session).await?;
    check_open(&own, body.fence)?;
    let ids: Vec<Uuid> = body.packs.iter().map(|pack| pack.id.uuid()).collect();
    let rows = store::find_in_session(&mut tx, session, &ids).await?;
    drop(tx);
    let row_of = |id: PackId| rows.iter().find(|row| row.id() == id).ok_or_else(Error::not_found);
    let asked: Vec<(&ConfirmPack, &PackRow)> =
        body.packs.iter().map(|pack| Ok((pack, row_of(pack.id)?))).collect::<Result<_, Error>>()?;
    // Boxed one by one: a closure over borrowed pairs is not general enough for the router.
    let heads: Vec<_> = asked.iter().map(|(pack, row)| head(app, pack, row).boxed()).collect();
    let heads: Vec<_> = futures::stream::iter(heads).buffered(PARALLEL).collect().await;
    record(app, cx, permit, session, body.fence, &asked, heads).await
}

/// It becomes part of a URL, and of a manifest.
fn is_version(text: &str) -> bool {
    (1..=MAX_VERSION).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What the store said about one pack: the facts to record, or why not.
type Head = Result<Option<ObjectFacts>, Error>;

async fn head(app: &Catalog, pack: &ConfirmPack, row: &PackRow) -> Head {
    if row.state() != PackState::Allocated {
        return Ok(None);
    }
    Ok(app.store.head(&row.object_key, pack.version_id.as_deref()).await?)
}

async fn record(
    app: &Catalog,
    cx: &Cx,
    permit: &Permit<SessionWrite>,
    session: SessionId,
    fence: u64,
    asked: &[(&ConfirmPack, &PackRow)],
    heads: Vec<Head>,
) -> Result<ConfirmedPacks, Error> {
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    check_open(&find_own(&mut tx, permit, session).await?, fence)?;
    let mut problem = Problem::new(Code::PackNotConfirmed);
    let mut unreachable = None;
    for (at, ((_, row), head)) in asked.iter().zip(heads).enumerate() {
        let verdict = match head {
            _ if row.state() != PackState::Allocated => Ok(None),
            Ok(facts) => check_object(row, facts).map(Some),
            Err(error) => {
                unreachable = Some(error);
                continue;
            }
        };
        match verdict {
            Ok(Some((version, until))) => {
                store::set_uploaded(&mut tx, row.id(), &version, until, cx.now()).await?;
            }
            Ok(None) => {}
            Err(why) => problem = problem.field(format!("packs/{at}"), why),
        }
    }
    let ids: Vec<Uuid> = asked.iter().map(|(_, row)| row.id).collect();
    let now = store::find_in_session(&mut tx, session, &ids).await?;
    tx.commit_operational(OperationalReason::PackBookkeeping).await?;
    if let Some(error) = unreachable {
        return Err(error);
    }
    check_usable(&ids, &now)?;
    if !problem.fields.is_empty() {
        return Err(Error::Refused(Box::new(problem)));
    }
    let facts = |id: Uuid| now.iter().find(|row| row.id == id).map(PackRow::facts);
    let packs: Option<Vec<PackFacts>> = ids.into_iter().map(facts).collect();
    Ok(ConfirmedPacks { packs: packs.ok_or_else(Error::not_found)? })
}

/// None given up, lost or on its way out: asking again will not help for those.
fn check_usable(ids: &[Uuid], rows: &[PackRow]) -> Result<(), Error> {
    let mut problem = Problem::new(Code::PackUnusable);
    for (at, id) in ids.iter().enumerate() {
        let state = rows.iter().find(|row| row.id == *id).map(PackRow::state);
        if state.is_some_and(|s| s != PackState::Allocated && !state::may_be_referenced(s)) {
            problem = problem.field(format!("packs/{at}"), "seal it again under another number");
        }
    }
    if problem.fields.is_empty() { Ok(()) } else { Err(Error::Refused(Box::new(problem))) }
}

/// Exactly this object, under a COMPLIANCE lock that lasts as long as was granted? Gives version and lock.
fn check_object(
    row: &PackRow,
    facts: Option<ObjectFacts>,
) -> Result<(String, Timestamp), &'static str> {
    let facts = facts.ok_or("the store has no such object")?;
    if facts.length != row.length() {
        return Err("the object has another length");
    }
    let same_sha = facts.sha256.map(|sha| sha[..] == row.sha256[..]);
    let same_md5 = facts.md5.zip(row.md5.as_deref()).map(|(md5, known)| md5[..] == *known);
    // One of the two must be known, and none may differ.
    if same_sha == Some(false)
        || same_md5 == Some(false)
        || (same_sha.is_none() && same_md5.is_none())
    {
        return Err("the object has another checksum");
    }
    let until = objects::compliance_until(&facts).ok_or("the object has no COMPLIANCE lock")?;
    if until < Timestamp::from(row.granted_lock_until) {
        return Err("the object's lock is too short");
    }
    Ok((facts.version_id, until))
}

/// B3 for a batch: asks the store to lock each at least until `until`, rounded up to a step. Gives the
/// dates the store reports, and the first failure if there was one.
pub async fn extend(
    app: &Catalog,
    rows: &[PackRow],
    until: Timestamp,
) -> (Vec<SeenLock>, Option<Error>) {
    let asked = locks::covering(until);
    let calls: Vec<_> = rows.iter().map(|row| extend_one(app, row, asked).boxed()).collect();
    let done: Vec<_> = futures::stream::iter(calls).buffer_unordered(PARALLEL).collect().await;
    let (mut locks, mut failed) = (Vec::new(), None);
    for result in done {
        match result {
            Ok(seen) if seen.until >= until => locks.push(seen),
            Ok(SeenLock { pack, .. }) => {
                failed = Some(Error::broken("the store did not extend a lock", pack.to_string()));
            }
            Err(error) => failed = Some(error),
        }
    }
    (locks, failed)
}

async fn extend_one(app: &Catalog, row: &PackRow, until: Timestamp) -> Result<SeenLock, Error> {
    let version =
        row.version_id.as_deref().ok_or_else(|| Error::refused(Code::PackNotConfirmed))?;
    let seen = |until| SeenLock { pack: row.id(), version: version.to_owned(), until };
    match app.store.extend_lock(&row.object_key, version, until).await {
        // The planted bug: what was asked for counts as done.
        _ if faults::planted(faults::Bug::IgnoreRefusedExtension) => Ok(seen(until)),
        Ok(reported) => Ok(seen(reported)),
        // Gone although it was locked: never a reason to commit, always one to back up again.
        Err(StoreError::NotFound) => Err(Error::refused(Code::PackUnusable)),
        Err(error) => Err(error.into()),
    }
}
