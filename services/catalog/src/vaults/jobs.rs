//! The key-store writer: what the database promised, written into the key store until it is there.
//!
//! A repeated write makes another version of the same bytes, which harms nothing.

use bytes::Bytes;
use domain::{AgentId, TenantId, VaultId};
use pg::{OperationalReason, Scope, SystemReason, SystemTx, TenantTx};
use vault::{keys::RecipientKind, layout};

use super::store;
use crate::{error::Error, round::Round, state::Catalog};

/// Writes a vault's missing key objects, each recorded as it is done.
pub async fn store_keys(app: &Catalog, scope: Scope, id: VaultId) -> Result<(), Error> {
    let tenant = scope.tenant();
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    let core = store::find_core(&mut tx, id).await?.ok_or_else(Error::not_found)?;
    let roster = store::find_newest_roster(&mut tx, id).await?;
    let wraps = store::list_wraps(&mut tx, id).await?;
    drop(tx);
    let mut done = Done::default();
    if core.descriptor_stored_at.is_none() {
        put(app, &layout::descriptor_key(tenant, id), core.descriptor).await?;
        done.descriptor = true;
    }
    if let Some(row) = roster.filter(|row| row.stored_at.is_none()) {
        let key = layout::roster_key(tenant, id, row.generation.unsigned_abs());
        put(app, &key, row.roster).await?;
        done.roster = Some(row.generation);
    }
    for row in wraps.into_iter().filter(|row| row.stored_at.is_none()) {
        put(app, &wrap_key(tenant, id, &row)?, row.wrap.clone()).await?;
        done.wraps.push(row);
    }
    done.record(app, scope, id).await
}

#[derive(Default)]
struct Done {
    descriptor: bool,
    roster: Option<i64>,
    wraps: Vec<store::WrapRow>,
}

impl Done {
    async fn record(self, app: &Catalog, scope: Scope, id: VaultId) -> Result<(), Error> {
        let now = app.clock.now();
        let mut tx = TenantTx::begin(&app.db, scope).await?;
        if self.descriptor {
            store::set_descriptor_stored(&mut tx, id, now).await?;
        }
        if let Some(generation) = self.roster {
            store::set_roster_stored(&mut tx, id, generation, now).await?;
        }
        for wrap in &self.wraps {
            store::set_wrap_stored(&mut tx, id, wrap, now).await?;
        }
        Ok(tx.commit_operational(OperationalReason::JobState).await?)
    }
}

async fn put(app: &Catalog, key: &str, bytes: Vec<u8>) -> Result<(), Error> {
    Ok(app.store.put_key_object(key, Bytes::from(bytes)).await?)
}

/// Name of a wrap in a key store.
pub fn wrap_key(tenant: TenantId, id: VaultId, row: &store::WrapRow) -> Result<String, Error> {
    let damaged = || Error::broken("a stored wrap names no recipient", row.recipient_id.clone());
    let kind = RecipientKind::parse(&row.recipient_kind).ok_or_else(damaged)?;
    let recipient = match kind {
        RecipientKind::Agent => {
            row.recipient_id.parse::<AgentId>().map_err(|_| damaged())?.into_bytes()
        }
        RecipientKind::Root | RecipientKind::Platform => {
            let bytes = hex::decode(&row.recipient_id).map_err(|_| damaged())?;
            bytes.try_into().map_err(|_| damaged())?
        }
    };
    Ok(layout::wrap_key(tenant, id, row.epoch.cast_unsigned(), kind, &recipient))
}

/// One round of the reconciler: vaults of any tenant whose key objects are not all written.
pub async fn round(app: &Catalog) -> Result<bool, Error> {
    let mut tx = SystemTx::begin(&app.db, SystemReason::LockSteward).await?;
    let waiting = store::list_unstored(&mut tx).await?;
    drop(tx);
    let mut round = Round::default();
    for (tenant, vault) in &waiting {
        let stored = store_keys(app, crate::reconciler_scope(*tenant), *vault).await;
        round.note("keys of a vault", stored);
    }
    round.end(!waiting.is_empty())
}
