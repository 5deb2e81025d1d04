//! `DIR/dev.json`: where everything is and how to sign in. For people, tests and the demonstration.
//!
//! It appears, whole, when everything answers, and is removed when a start begins.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use domain::TenantId;
use serde::{Deserialize, Serialize};

use super::secrets::write_private;

const NAME: &str = "dev.json";

#[derive(Clone, Serialize, Deserialize)]
pub struct Manifest {
    pub portal_url: String,
    pub api_url: String,
    pub s3: S3,
    /// As the cluster's owner, over its socket.
    pub postgres_url: String,
    pub admin: Login,
    pub msp: Login,
    pub tenant: TenantLogin,
    pub other_tenant: TenantLogin,
    /// Of the first tenant, good for several agents.
    pub enrolment_token: String,
    /// Settings of the store for second copies, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_store: Option<PathBuf>,
}

/// A store administrator's key, for looking and testing. The platform uses its scoped keys.
#[derive(Clone, Serialize, Deserialize)]
pub struct S3 {
    pub endpoint: String,
    pub region: String,
    pub bucket: String,
    pub access_key: String,
    pub secret_key: String,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Login {
    pub email: String,
    pub password: String,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct TenantLogin {
    pub id: TenantId,
    pub email: String,
    pub password: String,
}

impl Manifest {
    pub fn write(&self, state: &Path) -> anyhow::Result<()> {
        write_private(&state.join(NAME), &serde_json::to_vec_pretty(self)?)
    }

    pub fn remove(state: &Path) -> anyhow::Result<()> {
        match std::fs::remove_file(state.join(NAME)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {NAME}"))
            }
            _ => Ok(()),
        }
    }

    pub fn read(state: &Path) -> anyhow::Result<Self> {
        let path = state.join(NAME);
        let bytes = std::fs::read(&path).with_context(|| {
            format!(
                "cannot read {}: is `everhold dev --state {}` running?",
                path.display(),
                state.display()
            )
        })?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))
    }
}
