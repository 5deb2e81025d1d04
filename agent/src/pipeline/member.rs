//! This agent as a member of its vault: everything secret and public it needs, opened once per command.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use vault::{
    descriptor::VaultDescriptor,
    keys::{AgentKeys, Roster, RosterAuthority, VaultKeys, Wrap},
};

use crate::{
    control::{Control, World, key_bytes},
    state::{Home, Identity, StateError},
};

/// The vault cannot be opened with what is stored here.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the stored vault keys cannot be used: {0}; restore {1} from a copy or enrol again")]
    Vault(String, String),
    // Not transparent: the advice for people is found by the cause itself.
    #[error("{0}")]
    Call(#[from] api::client::Error),
}

/// Identity, keys and parameters.
#[derive(Clone)]
pub struct Member {
    pub home: Home,
    pub identity: Identity,
    pub keys: Arc<AgentKeys>,
    pub vault: Arc<VaultKeys>,
    pub descriptor: VaultDescriptor,
    pub roster: Roster,
    pub control: Control,
}

impl Member {
    /// Opens the home of an enrolled agent.
    ///
    /// # Errors
    /// Not enrolled, damaged, or not openable.
    pub fn open(home: Home, world: World) -> Result<Self, MemberError> {
        let identity = home.identity()?;
        // Folders somebody removed come back; without them reading a snapshot is slower, not impossible.
        if let Err(error) = home.prepare() {
            tracing::warn!(%error, "the agent's home cannot be prepared");
        }
        let keys = home.keys()?;
        let file = home.path().join("vault.json").display().to_string();
        let bad = |what: &str| MemberError::Vault(what.to_owned(), file.clone());
        let stored = home.vault_if_any()?.ok_or_else(|| bad("they are missing"))?;
        let decode = |text: &str| BASE64.decode(text).map_err(|_| bad("not base64"));
        let descriptor = VaultDescriptor::decode(&decode(&stored.descriptor)?)
            .map_err(|error| bad(&error.to_string()))?;
        let mut wraps = Vec::new();
        for text in &stored.wraps {
            wraps.push(Wrap::decode(&decode(text)?).map_err(|error| bad(&error.to_string()))?);
        }
        let recipient = keys.recipient(identity.agent_id);
        let vault = VaultKeys::open(&wraps, &recipient, keys.hpke_secret())
            .map_err(|error| bad(&error.to_string()))?;
        let roster = decode(stored.roster.as_deref().unwrap_or_default())?;
        let roster = Roster::open(&roster, &authorities(&identity))
            .map_err(|error| bad(&error.to_string()))?;
        roster.check_descriptor(&descriptor).map_err(|error| bad(&error.to_string()))?;
        let control = Control::connect(&identity, &keys, world)?;
        let (keys, vault) = (Arc::new(keys), Arc::new(vault));
        Ok(Self { home, identity, keys, vault, descriptor, roster, control })
    }
}

/// Who may sign this vault's roster, pinned at enrolment.
fn authorities(identity: &Identity) -> Vec<RosterAuthority> {
    let key = |text: &Option<String>| text.as_deref().and_then(key_bytes);
    let kit = key(&identity.kit_roster_key).map(RosterAuthority::Kit);
    let platform = key(&identity.platform_roster_key).map(RosterAuthority::Platform);
    kit.into_iter().chain(platform).collect()
}
