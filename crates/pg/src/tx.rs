//! The three kinds of transaction. Context is set transaction-locally, so it ends with the transaction.
//!
//! Dropping one rolls back, a little later. Every end but a rollback names its audit event or its operational reason.

use authz::Scope;
use domain::TenantId;
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgConnection, Postgres, Transaction};

use crate::{Db, Error, event::AuditEvent, schema::Schema};

/// Why a transaction commits without an audit event: bookkeeping that changes no meaning. Closed and reviewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationalReason {
    /// Nothing was changed; a lock or a consistent read was needed.
    Read,
    Heartbeat,
    Progress,
    /// A nonce was used up.
    Nonce,
    /// Pack rows moved between allocated and uploaded.
    PackBookkeeping,
    /// A session was opened, adopted or closed; the snapshot is the event.
    SessionBookkeeping,
    /// An internal queue's item changed state.
    JobState,
    /// Facts of another role were stored; the event is theirs.
    FactIngest,
    /// When something was last seen.
    LastSeen,
    /// Failed sign-in counters, refresh token rotation.
    CredentialBookkeeping,
    /// Rows past their use were removed (nonces, delivered outbox rows).
    Cleanup,
    /// The outbox relay marked rows delivered.
    OutboxRelay,
}

/// Why a transaction sees more than one tenant. Reconcilers only; closed and reviewed (R7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemReason {
    OutboxRelay,
    /// Used nonces and expired tokens go.
    NonceExpiry,
    TokenExpiry,
    /// Runs whose lease ran out are lost.
    LeaseExpiry,
    /// Runs that are due by their policies.
    Dispatch,
    /// Recovery point objectives that are breached.
    Objectives,
    /// Sessions without a heartbeat end.
    SessionExpiry,
    /// Locks that must be extended.
    LockSteward,
    /// Packs nothing refers to.
    PackReaper,
    /// Snapshots past their promise.
    SnapshotExpiry,
    /// First start: is there a platform tenant yet?
    Bootstrap,
    /// Figures for readiness and metrics, without a tenant label.
    Metrics,
}

impl SystemReason {
    /// As `app.system_reason()` gives it to policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OutboxRelay => "outbox_relay",
            Self::NonceExpiry => "nonce_expiry",
            Self::TokenExpiry => "token_expiry",
            Self::LeaseExpiry => "lease_expiry",
            Self::Dispatch => "dispatch",
            Self::Objectives => "objectives",
            Self::SessionExpiry => "session_expiry",
            Self::LockSteward => "lock_steward",
            Self::PackReaper => "pack_reaper",
            Self::SnapshotExpiry => "snapshot_expiry",
            Self::Bootstrap => "bootstrap",
            Self::Metrics => "metrics",
        }
    }
}

type Tx = Transaction<'static, Postgres>;

async fn insert_event(
    tx: &mut Tx,
    schema: Schema,
    tenant: TenantId,
    event: &AuditEvent,
) -> Result<(), Error> {
    sqlx::query(schema.statements().insert_event)
        .bind(tenant.uuid())
        .bind(event.id.uuid())
        .bind(event.payload(tenant))
        .bind(event.trace_context.as_deref())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn insert_fact(
    tx: &mut Tx,
    schema: Schema,
    tenant: TenantId,
    topic: &str,
    payload: &Value,
) -> Result<(), Error> {
    sqlx::query(schema.statements().insert_fact)
        .bind(tenant.uuid())
        .bind(topic)
        .bind(payload)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// A transaction that sees exactly one tenant.
pub struct TenantTx {
    tx: Tx,
    schema: Schema,
    scope: Scope,
}

impl TenantTx {
    /// # Errors
    /// [`Error::Unavailable`] when there is no connection.
    pub async fn begin(db: &Db, scope: Scope) -> Result<Self, Error> {
        let mut tx = db.tenant.begin().await?;
        sqlx::query("SELECT set_config('app.tenant_id', $1, true)")
            .bind(scope.tenant().uuid().to_string())
            .execute(&mut *tx)
            .await?;
        Ok(Self { tx, schema: db.schema, scope })
    }

    /// For the sqlx macros: `query!(…).execute(tx.conn())`.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
    pub const fn tenant(&self) -> TenantId {
        self.scope.tenant()
    }

    /// Adds a fact for another role (`meter`, `snapshot_committed`) to this transaction.
    /// `payload` is the inner value of the `api::internal::Fact` of that topic.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn publish<T: Serialize + ?Sized + Sync>(
        &mut self,
        topic: &str,
        payload: &T,
    ) -> Result<(), Error> {
        let payload = serde_json::to_value(payload)?;
        insert_fact(&mut self.tx, self.schema, self.scope.tenant(), topic, &payload).await
    }

    /// Records the event and commits.
    ///
    /// # Errors
    /// See [`Error`]; nothing happened then.
    pub async fn commit(self, event: AuditEvent) -> Result<(), Error> {
        self.commit_all(vec![event]).await
    }

    /// Records several events, in their order, and commits.
    ///
    /// # Errors
    /// See [`Error`]; nothing happened then.
    pub async fn commit_all(mut self, events: Vec<AuditEvent>) -> Result<(), Error> {
        for event in &events {
            insert_event(&mut self.tx, self.schema, self.scope.tenant(), event).await?;
        }
        self.tx.commit().await?;
        Ok(())
    }

    /// Commits bookkeeping that changes no meaning.
    ///
    /// # Errors
    /// See [`Error`]; nothing happened then.
    pub async fn commit_operational(self, reason: OperationalReason) -> Result<(), Error> {
        tracing::trace!(?reason, "operational commit");
        self.tx.commit().await?;
        Ok(())
    }

    /// Rolls back and waits for it. A drop rolls back some time later; until then others still skip its locked rows.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; the server rolls back by itself then.
    pub async fn rollback(self) -> Result<(), Error> {
        self.tx.rollback().await?;
        Ok(())
    }
}

/// A read without a tenant that sees only rows whose `name_key` is the given key.
pub struct LookupTx {
    tx: Tx,
}

impl LookupTx {
    /// # Errors
    /// [`Error::Unavailable`] when there is no connection.
    pub async fn begin(db: &Db, key: &str) -> Result<Self, Error> {
        let mut tx = db.tenant.begin().await?;
        sqlx::query("SELECT set_config('app.lookup_key', $1, true)")
            .bind(key)
            .execute(&mut *tx)
            .await?;
        sqlx::query("SET TRANSACTION READ ONLY").execute(&mut *tx).await?;
        Ok(Self { tx })
    }

    /// For the sqlx macros. Nothing can be written here.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}

/// A reconciler's transaction under the narrow policies of the system login role.
pub struct SystemTx {
    tx: Tx,
    schema: Schema,
}

impl SystemTx {
    /// # Errors
    /// [`Error::Unavailable`] when there is no connection.
    pub async fn begin(db: &Db, reason: SystemReason) -> Result<Self, Error> {
        let mut tx = db.system.begin().await?;
        sqlx::query("SELECT set_config('app.system_reason', $1, true)")
            .bind(reason.as_str())
            .execute(&mut *tx)
            .await?;
        Ok(Self { tx, schema: db.schema })
    }

    /// For the sqlx macros.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Adds a fact of one tenant for another role.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn publish<T: Serialize + ?Sized + Sync>(
        &mut self,
        tenant: TenantId,
        topic: &str,
        payload: &T,
    ) -> Result<(), Error> {
        let payload = serde_json::to_value(payload)?;
        insert_fact(&mut self.tx, self.schema, tenant, topic, &payload).await
    }

    /// Records events, each in its tenant, and commits.
    ///
    /// # Errors
    /// See [`Error`]; nothing happened then.
    pub async fn commit_all(mut self, events: Vec<(TenantId, AuditEvent)>) -> Result<(), Error> {
        for (tenant, event) in &events {
            insert_event(&mut self.tx, self.schema, *tenant, event).await?;
        }
        self.tx.commit().await?;
        Ok(())
    }

    /// Commits bookkeeping that changes no meaning.
    ///
    /// # Errors
    /// See [`Error`]; nothing happened then.
    pub async fn commit_operational(self, reason: OperationalReason) -> Result<(), Error> {
        tracing::trace!(?reason, "operational commit");
        self.tx.commit().await?;
        Ok(())
    }

    /// Rolls back and waits for it. A drop rolls back some time later; until then others still skip its locked rows.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; the server rolls back by itself then.
    pub async fn rollback(self) -> Result<(), Error> {
        self.tx.rollback().await?;
        Ok(())
    }
}
