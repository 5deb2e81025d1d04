//! Vaults and their keys.
//!
//! Invariants: a vault belongs to one agent; its descriptor, roster and wraps never change once written;
//! rows are durable before the key store's objects, and those before the reply; a vault's wraps open for its
//! agent, for the platform exactly when it is managed, and for a kit's root key otherwise.

mod enrolled;
pub mod http;
pub mod jobs;
pub mod roster;
pub mod store;

use api::{
    catalog::{CreateVault, KeyMode, KeyWrap, PlatformKeys, RecipientKind, Vault, VaultKeys},
    internal::WorkloadCreated,
    page::{Page, PageQuery},
    problem::Code,
};
use authz::{
    Permit,
    actions::{VaultCreate, VaultRead},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::{AgentId, TenantId, VaultId};
use pg::TenantTx;
use runtime::Cx;
use vault::{
    descriptor::{self, VaultDescriptor},
    keys::{self, Member, Roster, RosterAuthority, Wrap},
};

use crate::{
    error::Error,
    paging::{self, after},
    sessions::agent_of,
    state::Catalog,
    workloads,
};
use store::{NewVault, VaultRow};

/// The epoch every vault starts with.
const FIRST_EPOCH: u32 = 1;

/// A request, read and checked; what will be written.
struct Checked {
    descriptor: Vec<u8>,
    roster: Vec<u8>,
    generation: u64,
    wraps: Vec<(Wrap, String)>,
    key_epoch: u32,
    has_kit: bool,
}

fn bytes(field: &str, text: &str) -> Result<Vec<u8>, Error> {
    BASE64.decode(text).map_err(|_| Error::field(field, "not base64"))
}

/// Makes the vault and its workload. Repeating the same request is harmless; another one under the same id
/// is refused.
///
/// # Errors
/// `validation`, `already_exists`, `store_unavailable`.
pub async fn create(
    app: &Catalog,
    cx: &Cx,
    permit: &Permit<VaultCreate>,
    id: VaultId,
    member: Member,
    body: &CreateVault,
) -> Result<Vault, Error> {
    let agent = agent_of(permit)?;
    for (field, text) in [("name", &body.name), ("workload/name", &body.workload.name)] {
        if text.is_empty() || text.chars().count() > 200 {
            return Err(Error::field(field, "1 to 200 characters"));
        }
    }
    if body.workload.kind != "files" {
        return Err(Error::field("workload/kind", "`files`"));
    }
    let checked = check(app, permit.tenant(), id, &member, body)?;
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let new = NewVault {
        id,
        agent,
        name: &body.name,
        key_mode: body.key_mode.as_str(),
        descriptor: &checked.descriptor,
        key_epoch: checked.key_epoch,
        has_kit: checked.has_kit,
    };
    if store::insert(&mut tx, &new, cx.now()).await? {
        write_keys(&mut tx, id, &checked).await?;
        write_workload(&mut tx, cx, agent, id, body).await?;
        let event = cx
            .event("vault.created", "vault", &id)
            .detail("key_mode", body.key_mode)
            .detail("has_kit", checked.has_kit)
            .detail("workload_id", body.workload.id);
        tx.commit(event).await?;
    } else {
        check_repeat(&mut tx, agent, id, body, &checked).await?;
        drop(tx);
    }
    jobs::store_keys(app, permit.scope(), id).await?;
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let row = store::find(&mut tx, id, Some(agent)).await?.ok_or_else(Error::not_found)?;
    Ok(into_dto(permit.tenant(), row))
}

async fn write_keys(tx: &mut TenantTx, id: VaultId, checked: &Checked) -> Result<(), Error> {
    store::insert_roster(tx, id, checked.generation, &checked.roster).await?;
    for (wrap, recipient) in &checked.wraps {
        let kind = wrap.recipient.kind.as_str();
        store::insert_wrap(tx, id, wrap.epoch, kind, recipient, &wrap.encode()).await?;
    }
    Ok(())
}

async fn write_workload(
    tx: &mut TenantTx,
    cx: &Cx,
    agent: AgentId,
    vault: VaultId,
    body: &CreateVault,
) -> Result<(), Error> {
    if workloads::store::insert(tx, &body.workload, agent, vault, cx.now()).await? {
        let fact = WorkloadCreated {
            event_id: cx.id(),
            tenant_id: tx.tenant(),
            workload_id: body.workload.id,
            agent_id: agent,
        };
        Ok(tx.publish("workload_created", &fact).await?)
    } else {
        Err(Error::because(Code::AlreadyExists, "there is a workload of this id already"))
    }
}

/// The same request again: same agent, same descriptor, same keys, same workload.
async fn check_repeat(
    tx: &mut TenantTx,
    agent: AgentId,
    id: VaultId,
    body: &CreateVault,
    checked: &Checked,
) -> Result<(), Error> {
    let taken = || Error::because(Code::AlreadyExists, "there is another vault of this id already");
    let core = store::find_core(tx, id).await?.ok_or_else(taken)?;
    let owner = workloads::store::find_owner(tx, body.workload.id).await?.ok_or_else(taken)?;
    let stored = store::list_wraps(tx, id).await?;
    let same_wraps = stored.len() == checked.wraps.len()
        && checked.wraps.iter().all(|(wrap, _)| stored.iter().any(|row| row.wrap == wrap.encode()));
    let same = core.agent_id == agent.uuid()
        && core.descriptor == checked.descriptor
        && core.key_mode == body.key_mode.as_str()
        && owner.agent_id == agent.uuid()
        && owner.vault_id == id.uuid()
        && same_wraps;
    if same { Ok(()) } else { Err(taken()) }
}

fn check(
    app: &Catalog,
    tenant: TenantId,
    id: VaultId,
    member: &Member,
    body: &CreateVault,
) -> Result<Checked, Error> {
    let raw = bytes("descriptor", &body.descriptor)?;
    let descriptor =
        VaultDescriptor::decode(&raw).map_err(|why| Error::field("descriptor", why.to_string()))?;
    let mode = match body.key_mode {
        KeyMode::Managed => descriptor::KeyMode::Managed,
        KeyMode::CustomerHeld => descriptor::KeyMode::CustomerHeld,
    };
    if descriptor.tenant != tenant || descriptor.vault != id || descriptor.key_mode != mode {
        return Err(Error::field(
            "descriptor",
            "of another tenant, vault or key mode than the request",
        ));
    }
    let wraps: Vec<(Wrap, String)> = body
        .wraps
        .iter()
        .enumerate()
        .map(|(at, wrap)| read_wrap(at, tenant, id, wrap))
        .collect::<Result<_, _>>()?;
    let has_kit = check_recipients(app, member, body.key_mode, &wraps)?;
    let (roster, generation) = match &body.roster {
        Some(text) => given_roster(&descriptor, member, has_kit, &bytes("roster", text)?)?,
        None => (signed_roster(app, &descriptor, member, body.key_mode)?, 1),
    };
    let key_epoch = wraps.iter().map(|(wrap, _)| wrap.epoch).max().unwrap_or(0);
    Ok(Checked { descriptor: raw, roster, generation, wraps, key_epoch, has_kit })
}

fn read_wrap(
    at: usize,
    tenant: TenantId,
    vault: VaultId,
    asked: &KeyWrap,
) -> Result<(Wrap, String), Error> {
    let wrong = |why: String| Error::field(format!("wraps/{at}"), why);
    let wrap = Wrap::decode(&bytes(&format!("wraps/{at}/wrap"), &asked.wrap)?)
        .map_err(|why| wrong(why.to_string()))?;
    let kind = match asked.recipient_kind {
        RecipientKind::Agent => keys::RecipientKind::Agent,
        RecipientKind::Root => keys::RecipientKind::Root,
        RecipientKind::Platform => keys::RecipientKind::Platform,
    };
    let same = wrap.tenant == tenant
        && wrap.vault == vault
        && wrap.epoch == asked.epoch
        && wrap.recipient.kind == kind
        && recipient_text(&wrap) == asked.recipient_id;
    if !same {
        return Err(wrong("says something else inside than outside".to_owned()));
    }
    if wrap.epoch == 0 || i32::try_from(wrap.epoch).is_err() {
        return Err(wrong("epochs start at 1".to_owned()));
    }
    let text = recipient_text(&wrap);
    Ok((wrap, text))
}

/// Agent id, or hex key id.
fn recipient_text(wrap: &Wrap) -> String {
    match wrap.recipient.kind {
        keys::RecipientKind::Agent => AgentId::from_bytes(wrap.recipient.id).to_string(),
        keys::RecipientKind::Root | keys::RecipientKind::Platform => hex::encode(wrap.recipient.id),
    }
}

/// The right recipients, and no other. Says whether a kit can open the vault.
fn check_recipients(
    app: &Catalog,
    member: &Member,
    mode: KeyMode,
    wraps: &[(Wrap, String)],
) -> Result<bool, Error> {
    let wrong = |why: &str| Err(Error::field("wraps", why));
    let to = |kind| wraps.iter().filter(move |(wrap, _)| wrap.recipient.kind == kind);
    if wraps.iter().any(|(wrap, _)| wrap.epoch != FIRST_EPOCH) {
        return wrong("a new vault has epoch 1 and no other");
    }
    let own = keys::Recipient::agent(member.agent, member.hpke_key);
    let to_agents: Vec<_> = to(keys::RecipientKind::Agent).collect();
    if !matches!(to_agents[..], [(wrap, _)] if wrap.recipient == own) {
        return wrong("exactly one for this agent's enrolled key, none for another agent");
    }
    let to_platform: Vec<_> = to(keys::RecipientKind::Platform).map(|(wrap, _)| wrap).collect();
    match (mode, &to_platform[..]) {
        (KeyMode::Managed, [wrap]) => check_platform_wrap(app, wrap)?,
        (KeyMode::Managed, _) => return wrong("exactly one for the platform's key"),
        (KeyMode::CustomerHeld, []) => {}
        (KeyMode::CustomerHeld, _) => {
            return wrong("a customer-held vault has none for the platform");
        }
    }
    let roots = to(keys::RecipientKind::Root).count();
    if roots > 1 {
        return wrong("at most one for a kit's root key");
    }
    let has_kit = roots == 1;
    if mode == KeyMode::CustomerHeld && !has_kit {
        return wrong("a customer-held vault needs one for a kit's root key");
    }
    Ok(has_kit)
}

/// Opened on the spot: a managed vault that the platform cannot open would only be noticed when somebody
/// needs it.
fn check_platform_wrap(app: &Catalog, wrap: &Wrap) -> Result<(), Error> {
    if wrap.recipient != app.wrapper.recipient() {
        return Err(Error::field("wraps", "one for another platform's key"));
    }
    match app.wrapper.unwrap_keys(std::slice::from_ref(wrap)) {
        Ok(_) => Ok(()),
        Err(why) => {
            tracing::warn!(error = %why, "a vault's wrap for the platform does not open");
            Err(Error::field("wraps", "the one for the platform's key does not open"))
        }
    }
}

/// A roster the customer's kit signed. Its key is pinned by being the first one seen for the vault.
fn given_roster(
    descriptor: &VaultDescriptor,
    member: &Member,
    has_kit: bool,
    raw: &[u8],
) -> Result<(Vec<u8>, u64), Error> {
    let wrong = |why: String| Error::field("roster", why);
    let authority = roster::claimed_authority(raw).ok_or_else(|| wrong("damaged".to_owned()))?;
    if !has_kit || !matches!(authority, RosterAuthority::Kit(_)) {
        return Err(wrong(
            "only a kit whose root key can open the vault signs its roster".to_owned(),
        ));
    }
    let roster = Roster::open(raw, &[authority]).map_err(|why| wrong(why.to_string()))?;
    roster.check_descriptor(descriptor).map_err(|why| wrong(why.to_string()))?;
    if roster.member(member.agent) != Some(member) {
        return Err(wrong("does not list this agent with its enrolled keys".to_owned()));
    }
    Ok((raw.to_vec(), roster.generation))
}

fn signed_roster(
    app: &Catalog,
    descriptor: &VaultDescriptor,
    member: &Member,
    mode: KeyMode,
) -> Result<Vec<u8>, Error> {
    if mode != KeyMode::Managed {
        return Err(Error::field(
            "roster",
            "a customer-held vault brings its own, signed by the kit",
        ));
    }
    let roster = Roster {
        tenant: descriptor.tenant,
        vault: descriptor.vault,
        generation: 1,
        descriptor: descriptor.sha256(),
        members: vec![*member],
        signer: app.roster_authority(),
    };
    roster.sign(app.roster_key()).map_err(|e| Error::broken("the platform cannot sign a roster", e))
}

/// The vault's newest roster, verified. A kit's key was pinned when the vault was made; later generations
/// must be of the same signer.
///
/// # Errors
/// `internal` when the stored bytes are not the generation, or not of the vault, they are stored as: an older roster in a
/// newer one's place would bring back members that were removed.
pub async fn newest_roster(app: &Catalog, tx: &mut TenantTx, id: VaultId) -> Result<Roster, Error> {
    let tenant = tx.tenant();
    let row = store::find_newest_roster(tx, id).await?.ok_or_else(Error::not_found)?;
    let damaged = || Error::broken("a stored roster is damaged", id.to_string());
    let authority = match roster::claimed_authority(&row.roster).ok_or_else(damaged)? {
        RosterAuthority::Platform(_) => app.roster_authority(),
        kit @ RosterAuthority::Kit(_) => kit,
    };
    let roster = Roster::open(&row.roster, &[authority])
        .map_err(|e| Error::broken("a stored roster does not verify", e))?;
    let place = (tenant, id, row.generation.unsigned_abs());
    if (roster.tenant, roster.vault, roster.generation) != place {
        let said = format!("generation {} of {}", roster.generation, roster.vault);
        return Err(Error::broken("a stored roster is not the one of its place", said));
    }
    Ok(roster)
}

/// The row as callers see it.
pub fn into_dto(tenant: TenantId, row: VaultRow) -> Vault {
    Vault {
        id: VaultId::from_uuid(row.id),
        tenant_id: tenant,
        name: row.name,
        agent_id: AgentId::from_uuid(row.agent_id),
        key_mode: if row.key_mode == "managed" { KeyMode::Managed } else { KeyMode::CustomerHeld },
        has_kit: row.has_kit,
        created_at: row.created_at.into(),
        stored_bytes: row.stored_bytes.unsigned_abs(),
        packs: row.packs.unsigned_abs(),
    }
}

/// The tenant's vaults; an agent sees its own.
///
/// # Errors
/// `validation` for a bad cursor.
pub async fn list(
    app: &Catalog,
    permit: &Permit<VaultRead>,
    query: &PageQuery,
) -> Result<Page<Vault>, Error> {
    let limit = query.limit();
    let after = after(query.cursor.as_deref())?.map(VaultId::uuid);
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let agent = permit.actor().agent_id();
    let rows = store::list(&mut tx, agent, after, i64::from(limit) + 1).await?;
    let page = paging::page(rows, limit, |row| VaultId::from_uuid(row.id).to_string());
    Ok(page.map(|row| into_dto(permit.tenant(), row)))
}

/// # Errors
/// `not_found`.
pub async fn get(app: &Catalog, permit: &Permit<VaultRead>, id: VaultId) -> Result<Vault, Error> {
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let row = store::find(&mut tx, id, permit.actor().agent_id()).await?;
    Ok(into_dto(permit.tenant(), row.ok_or_else(Error::not_found)?))
}

/// What the key store holds for the agent that owns the vault.
///
/// # Errors
/// `not_found` for anybody else's.
pub async fn keys(tx: &mut TenantTx, agent: AgentId, id: VaultId) -> Result<VaultKeys, Error> {
    let core = store::find_core(tx, id).await?.filter(|core| core.agent_id == agent.uuid());
    let core = core.ok_or_else(Error::not_found)?;
    let roster = store::find_newest_roster(tx, id).await?.ok_or_else(Error::not_found)?;
    let wraps = store::list_wraps(tx, id).await?;
    let wrap = |row: store::WrapRow| KeyWrap {
        epoch: row.epoch.cast_unsigned(),
        recipient_kind: match row.recipient_kind.as_str() {
            "agent" => RecipientKind::Agent,
            "root" => RecipientKind::Root,
            _ => RecipientKind::Platform,
        },
        recipient_id: row.recipient_id,
        wrap: BASE64.encode(row.wrap),
    };
    Ok(VaultKeys {
        descriptor: BASE64.encode(core.descriptor),
        roster: BASE64.encode(roster.roster),
        wraps: wraps.into_iter().map(wrap).collect(),
    })
}

/// To whom the agents of managed vaults wrap, and which keys sign for the platform.
pub fn platform_keys(app: &Catalog) -> PlatformKeys {
    let recipient = app.wrapper.recipient();
    PlatformKeys {
        wrap_key: BASE64.encode(recipient.public_key),
        wrap_key_id: hex::encode(recipient.id),
        roster_key: BASE64.encode(app.roster_key().verifying_key().as_bytes()),
        receipt_key: BASE64.encode(app.receipt_public()),
    }
}
