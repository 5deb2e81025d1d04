//! Enrolment: keys made here, a token spent once, a vault whose keys only their recipients can open.
//!
//! Every step is stored before the next begins, so an interrupted enrolment is finished by the same
//! command. The recovery kit is written before the server hears of the vault: a vault that hangs on a
//! kit nobody has must not exist.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use api::{
    auth::{EnrolReply, EnrolRequest},
    catalog::{CreateVault, CreateWorkload, KeyMode, KeyWrap, PlatformKeys, RecipientKind},
    client::{Client, Error, Identity as Speaker},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::{Timestamp, VaultId, WorkloadId};
use ed25519_dalek::Signer as _;
use vault::{
    descriptor::{self, VaultDescriptor},
    keys::{
        AgentKeys, KitVault, Recipient, RecoveryKit, RootKey, Roster, RosterAuthority, VaultKeys,
        Wrap,
    },
};

use super::{Control, Patience, World, retry, retryable};
use crate::state::{Home, Identity, Stage, StateError, VaultFile, create_private};

/// Enrolment stopped. Repeating the command goes on where it stopped, unless the error says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(
        "this machine is enrolled already as {name} ({agent}) at {server}; nothing was changed. To start over: remove the agent in the portal, move {home} away, and enroll again"
    )]
    Already { name: String, agent: String, server: String, home: String },
    #[error(
        "this machine is enrolled at {server}, and what answers at {given} is another platform: {why}; nothing was changed. To start over there: remove the agent in the portal, move {home} away, and enroll again"
    )]
    OtherPlatform { server: String, given: String, why: String, home: String },
    #[error(
        "an enrolment with {known} was begun and not finished; finish it with --server {known}, or move {home} away to start over"
    )]
    OtherServer { known: String, home: String },
    #[error("{0:?} is no server address; it looks like https://backup.example.com")]
    BadServer(String),
    #[error("the recovery kit {path} exists already and is not overwritten; name another file")]
    KitExists { path: String },
    #[error("the recovery kit {path} cannot be written: {source}")]
    Kit { path: String, source: io::Error },
    #[error("the server's keys cannot be used: {0}")]
    BadPlatformKeys(&'static str),
    #[error("the vault's keys cannot be made: {0}")]
    Keys(String),
    #[error(transparent)]
    State(#[from] StateError),
    // Not transparent: the advice for people is found by the cause itself.
    #[error("{0}")]
    Call(#[from] Error),
}

/// What the person asked for.
#[derive(Clone)]
pub struct Order {
    pub server: String,
    pub token: String,
    pub name: String,
    pub hostname: String,
    pub kit_out: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Enrolled {
    pub identity: Identity,
    pub way: Way,
}

/// How a machine came to be enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Anew,
    /// An earlier, interrupted enrolment was finished.
    Resumed,
    /// It was enrolled, and its platform has another address now; the token was not used.
    Moved,
}

/// Enrols this machine, or finishes an enrolment that was interrupted, or follows its platform to another address.
///
/// # Errors
/// See [`EnrolError`].
pub async fn enrol(home: &Home, order: &Order, world: &World) -> Result<Enrolled, EnrolError> {
    let server = checked_server(&order.server)?;
    let existing = home.identity_if_any()?;
    let way = if existing.is_some() { Way::Resumed } else { Way::Anew };
    let identity = match existing {
        Some(known) if known.stage == Stage::Ready && known.server == server => {
            return Err(already(&known, home));
        }
        Some(known) if known.stage == Stage::Ready => {
            return follow(home, known, server, world).await;
        }
        Some(known) if known.server != server => {
            let home = home.path().display().to_string();
            return Err(EnrolError::OtherServer { known: known.server, home });
        }
        Some(known) => known,
        None => {
            refuse_existing_kit(order.kit_out.as_deref())?;
            introduce(home, order, server, world).await?
        }
    };
    let keys = home.keys()?;
    let control = Control::connect(&identity, &keys, world.clone())?;
    let platform = control.platform_keys().await?;
    let identity = match identity.stage {
        Stage::Enrolled => make_vault(home, order, identity, &keys, &platform, world)?,
        Stage::VaultMade | Stage::Ready => identity,
    };
    let identity = publish(home, identity, &control).await?;
    Ok(Enrolled { identity, way })
}

/// The same platform under another address: it knows this agent and names the keys of the enrolment. That guards against
/// a wrong address; against one that was forged TLS does, as at enrolment.
async fn follow(
    home: &Home,
    known: Identity,
    given: String,
    world: &World,
) -> Result<Enrolled, EnrolError> {
    let identity = Identity { server: given, ..known.clone() };
    let control = Control::connect(&identity, &home.keys()?, world.clone())?;
    let why = match control.platform_keys().await {
        Ok(keys) => {
            let has = |pinned: &Option<String>, key: &str| pinned.as_deref() == Some(key);
            if has(&known.platform_roster_key, &keys.roster_key)
                && has(&known.receipt_key, &keys.receipt_key)
            {
                home.save_identity(&identity)?;
                return Ok(Enrolled { identity, way: Way::Moved });
            }
            "it has other keys".to_owned()
        }
        Err(error) if retryable(&error) => return Err(error.into()),
        Err(error) => error.to_string(),
    };
    Err(EnrolError::OtherPlatform {
        server: known.server,
        given: identity.server,
        why,
        home: home.path().display().to_string(),
    })
}

fn already(known: &Identity, home: &Home) -> EnrolError {
    EnrolError::Already {
        name: known.name.clone(),
        agent: known.agent_id.to_string(),
        server: known.server.clone(),
        home: home.path().display().to_string(),
    }
}

fn checked_server(given: &str) -> Result<String, EnrolError> {
    let bad = || EnrolError::BadServer(given.to_owned());
    let url = url::Url::parse(given.trim()).map_err(|_| bad())?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !plain {
        return Err(bad());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn refuse_existing_kit(path: Option<&Path>) -> Result<(), EnrolError> {
    match path {
        Some(path) if path.symlink_metadata().is_ok() => {
            Err(EnrolError::KitExists { path: path.display().to_string() })
        }
        _ => Ok(()),
    }
}

/// An attempt that was interrupted after it wrote the kit, and before it stored the keys in it, left a kit
/// of this vault that opens nothing: it gives way. Any other file stays.
fn clear_unfinished_kit(path: Option<&Path>, identity: &Identity) -> Result<(), EnrolError> {
    let Some(path) = path else { return Ok(()) };
    let kit = std::fs::read_to_string(path).ok().map(zeroize::Zeroizing::new);
    let kit = kit.and_then(|text| RecoveryKit::from_json(&text).ok());
    let ours = kit.is_some_and(|kit| {
        kit.tenant == identity.tenant_id
            && !kit.vaults.is_empty()
            && kit.vaults.iter().all(|vault| vault.vault == identity.vault_id)
    });
    if ours {
        std::fs::remove_file(path).map_err(|source| {
            let path = path.display().to_string();
            EnrolError::Kit { path, source }
        })?;
    }
    refuse_existing_kit(Some(path))
}

/// Makes the agent's keys (or takes those of an earlier attempt) and spends the token.
async fn introduce(
    home: &Home,
    order: &Order,
    server: String,
    world: &World,
) -> Result<Identity, EnrolError> {
    home.prepare()?;
    let keys = match home.keys_if_any()? {
        Some(keys) => keys,
        None => {
            let keys = AgentKeys::generate(world.ids.as_ref());
            home.save_keys(&keys)?;
            keys
        }
    };
    let proof = keys.signing_key().sign(format!("everhold/enrol/v1\n{}", order.token).as_bytes());
    let body = EnrolRequest {
        token: order.token.clone(),
        name: order.name.clone(),
        hostname: order.hostname.clone(),
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        verify_key: BASE64.encode(keys.verify_key()),
        hpke_key: BASE64.encode(keys.hpke_public()),
        proof: BASE64.encode(proof.to_bytes()),
    };
    let client = Client::http(&server, Speaker::Anonymous)?;
    let reply: EnrolReply =
        retry(Patience::Short, world.ids.as_ref(), retryable, || client.post("/v1/enrol", &body))
            .await?;
    let now = reply.server_time;
    let identity = Identity {
        version: 1,
        stage: Stage::Enrolled,
        server,
        tenant_id: reply.tenant_id,
        tenant_name: reply.tenant_name,
        agent_id: reply.agent_id,
        name: order.name.clone(),
        vault_id: VaultId::fresh(world.ids.as_ref(), now),
        workload_id: WorkloadId::fresh(world.ids.as_ref(), now),
        enrolled_at: now,
        platform_roster_key: None,
        kit_roster_key: None,
        receipt_key: None,
        kit_file: None,
    };
    home.save_identity(&identity)?;
    Ok(identity)
}

/// Makes the vault's keys and wraps, writes the kit if one is wanted, and stores all of it here.
fn make_vault(
    home: &Home,
    order: &Order,
    mut identity: Identity,
    keys: &AgentKeys,
    platform: &PlatformKeys,
    world: &World,
) -> Result<Identity, EnrolError> {
    clear_unfinished_kit(order.kit_out.as_deref(), &identity)?;
    let ids = world.ids.as_ref();
    let vault = VaultKeys::generate(identity.tenant_id, identity.vault_id, ids);
    let descriptor = VaultDescriptor::new(
        identity.tenant_id,
        identity.vault_id,
        identity.enrolled_at,
        descriptor::KeyMode::Managed,
    );
    let epoch = vault.newest_epoch();
    let wrap = |to: Recipient| {
        vault.wrap_for(epoch, to, ids).map_err(|error| EnrolError::Keys(error.to_string()))
    };
    let mut wraps = vec![wrap(keys.recipient(identity.agent_id))?, wrap(platform_key(platform)?)?];
    let mut roster = None;
    if let Some(path) = &order.kit_out {
        let root = RootKey::generate(ids);
        wraps.push(wrap(root.recipient())?);
        let signed = sign_roster(&identity, &descriptor, keys, &root)?;
        identity.kit_roster_key = Some(BASE64.encode(root.authority().key()));
        let now = identity.enrolled_at;
        let kit = kit(&identity, root, &descriptor, &signed, &wraps, platform, now)?;
        write_kit(path, &kit)?;
        identity.kit_file = Some(path.clone());
        roster = Some(BASE64.encode(signed));
    }
    identity.platform_roster_key = Some(platform.roster_key.clone());
    identity.receipt_key = Some(platform.receipt_key.clone());
    identity.stage = Stage::VaultMade;
    home.save_vault(&VaultFile {
        descriptor: BASE64.encode(descriptor.encode()),
        roster,
        wraps: wraps.iter().map(|wrap| BASE64.encode(wrap.encode())).collect(),
    })?;
    home.save_identity(&identity)?;
    Ok(identity)
}

fn platform_key(platform: &PlatformKeys) -> Result<Recipient, EnrolError> {
    let key = key_bytes(&platform.wrap_key)
        .ok_or(EnrolError::BadPlatformKeys("the wrapping key is not 32 bytes"))?;
    let recipient = Recipient::keyed(vault::keys::RecipientKind::Platform, key);
    if hex::encode(recipient.id) == platform.wrap_key_id {
        Ok(recipient)
    } else {
        Err(EnrolError::BadPlatformKeys("the wrapping key does not have the id it is given"))
    }
}

/// 32 bytes out of base64.
pub fn key_bytes(text: &str) -> Option<[u8; 32]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

fn sign_roster(
    identity: &Identity,
    descriptor: &VaultDescriptor,
    keys: &AgentKeys,
    root: &RootKey,
) -> Result<Vec<u8>, EnrolError> {
    let roster = Roster {
        tenant: identity.tenant_id,
        vault: identity.vault_id,
        generation: 1,
        descriptor: descriptor.sha256(),
        members: vec![keys.member(identity.agent_id)],
        signer: root.authority(),
    };
    roster.sign(&root.roster_key()).map_err(|error| EnrolError::Keys(error.to_string()))
}

fn kit(
    identity: &Identity,
    root: RootKey,
    descriptor: &VaultDescriptor,
    roster: &[u8],
    wraps: &[Wrap],
    platform: &PlatformKeys,
    created: Timestamp,
) -> Result<RecoveryKit, EnrolError> {
    let kit = RecoveryKit {
        tenant: identity.tenant_id,
        created,
        root,
        vaults: vec![KitVault {
            vault: identity.vault_id,
            descriptor: descriptor.clone(),
            roster: roster.to_vec(),
            wraps: wraps.to_vec(),
        }],
        platform_roster_key: key_bytes(&platform.roster_key),
        receipt_key: key_bytes(&platform.receipt_key),
        location: BTreeMap::from([("server".to_owned(), identity.server.clone())]),
    };
    // Rehearsed before it is needed: a kit that does not open its own vault is no kit.
    kit.rehearse().map_err(|error| EnrolError::Keys(error.to_string()))?;
    Ok(kit)
}

fn write_kit(path: &Path, kit: &RecoveryKit) -> Result<(), EnrolError> {
    let text = kit.to_json().map_err(|error| EnrolError::Keys(error.to_string()))?;
    create_private(path, text.as_bytes()).map_err(|source| {
        let path = path.display().to_string();
        if source.kind() == io::ErrorKind::AlreadyExists {
            EnrolError::KitExists { path }
        } else {
            EnrolError::Kit { path, source }
        }
    })
}

/// Tells the server of the vault; repeating it is harmless.
async fn publish(
    home: &Home,
    mut identity: Identity,
    control: &Control,
) -> Result<Identity, EnrolError> {
    let damaged = || EnrolError::Keys("the stored wraps are damaged".to_owned());
    let mut file = home.vault_if_any()?.ok_or_else(damaged)?;
    let mut wraps = Vec::new();
    for text in &file.wraps {
        let bytes = BASE64.decode(text).map_err(|_| damaged())?;
        wraps.push(to_wire(&Wrap::decode(&bytes).map_err(|_| damaged())?, text));
    }
    let body = CreateVault {
        name: identity.name.clone(),
        key_mode: KeyMode::Managed,
        descriptor: file.descriptor.clone(),
        roster: file.roster.clone(),
        wraps,
        workload: CreateWorkload {
            id: identity.workload_id,
            kind: "files".to_owned(),
            name: identity.name.clone(),
        },
    };
    control.put_vault(identity.vault_id, &body).await?;
    if file.roster.is_none() {
        let stored = control.vault_keys(identity.vault_id).await?;
        trust(&identity, &file.descriptor, &stored.roster)?;
        file.roster = Some(stored.roster);
        home.save_vault(&file)?;
    }
    identity.stage = Stage::Ready;
    home.save_identity(&identity)?;
    Ok(identity)
}

fn trust(identity: &Identity, descriptor: &str, roster: &str) -> Result<(), EnrolError> {
    let bad = EnrolError::BadPlatformKeys("the roster is not signed by the key the server named");
    let key = identity.platform_roster_key.as_deref().and_then(key_bytes);
    let descriptor = BASE64.decode(descriptor).ok();
    let descriptor = descriptor.and_then(|bytes| VaultDescriptor::decode(&bytes).ok());
    let (Some(key), Some(descriptor), Ok(roster)) = (key, descriptor, BASE64.decode(roster)) else {
        return Err(bad);
    };
    let opened = Roster::open(&roster, &[RosterAuthority::Platform(key)]);
    let good = opened.is_ok_and(|roster| {
        roster.check_descriptor(&descriptor).is_ok() && roster.member(identity.agent_id).is_some()
    });
    if good { Ok(()) } else { Err(bad) }
}

fn to_wire(wrap: &Wrap, encoded: &str) -> KeyWrap {
    let (kind, id) = match wrap.recipient.kind {
        vault::keys::RecipientKind::Agent => {
            let agent = domain::AgentId::from_bytes(wrap.recipient.id);
            (RecipientKind::Agent, agent.to_string())
        }
        vault::keys::RecipientKind::Root => (RecipientKind::Root, hex::encode(wrap.recipient.id)),
        vault::keys::RecipientKind::Platform => {
            (RecipientKind::Platform, hex::encode(wrap.recipient.id))
        }
    };
    KeyWrap { epoch: wrap.epoch, recipient_kind: kind, recipient_id: id, wrap: encoded.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enrolment_interrupted_after_its_kit_was_written_is_finished_by_the_same_command() {
        let dir = tempfile::tempdir().expect("tempdir");
        let home = Home::at(dir.path().join("home"));
        home.prepare().expect("home");
        let (world, kit) = (World::real(), dir.path().join("kit.json"));
        let ids = world.ids.as_ref();
        let (keys, now) = (AgentKeys::generate(ids), world.clock.now());
        let platform = PlatformKeys {
            wrap_key: BASE64.encode(keys.hpke_public()),
            wrap_key_id: hex::encode(
                Recipient::keyed(vault::keys::RecipientKind::Platform, keys.hpke_public()).id,
            ),
            roster_key: BASE64.encode(keys.verify_key()),
            receipt_key: BASE64.encode(keys.verify_key()),
        };
        let identity = Identity {
            version: 1,
            stage: Stage::Enrolled,
            server: "http://localhost".to_owned(),
            tenant_id: domain::TenantId::fresh(ids, now),
            tenant_name: "t".to_owned(),
            agent_id: domain::AgentId::fresh(ids, now),
            name: "n".to_owned(),
            vault_id: VaultId::fresh(ids, now),
            workload_id: WorkloadId::fresh(ids, now),
            enrolled_at: now,
            platform_roster_key: None,
            kit_roster_key: None,
            receipt_key: None,
            kit_file: None,
        };
        let order = Order {
            server: String::new(),
            token: String::new(),
            name: String::new(),
            hostname: String::new(),
            kit_out: Some(kit.clone()),
        };
        let make = |identity: &Identity| {
            make_vault(&home, &order, identity.clone(), &keys, &platform, &world)
        };
        make(&identity).expect("first");
        let before = std::fs::read(&kit).expect("kit");
        // Killed before it stored how far it came.
        make(&identity).expect("again");
        assert_ne!(std::fs::read(&kit).expect("kit"), before);
        let other = Identity { vault_id: VaultId::fresh(ids, now), ..identity };
        assert!(matches!(make(&other), Err(EnrolError::KitExists { .. })), "another vault's kit");
    }

    #[test]
    fn server_addresses_are_checked_before_anything_is_sent() {
        assert_eq!(
            checked_server("http://localhost:8080/").ok().as_deref(),
            Some("http://localhost:8080")
        );
        for bad in ["localhost:8080", "", "ftp://x", "https://u:p@x", "https://x/?q=1", "not a url"]
        {
            assert!(checked_server(bad).is_err(), "{bad}");
        }
    }
}
