//! Pools, private to this crate, with a check that no context survives its transaction.

use std::{fmt, str::FromStr as _, time::Duration};

use sqlx::{
    PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{Error, schema::Schema};

/// How one role reaches its schema. URLs may hold passwords and are never shown.
#[derive(Clone)]
pub struct DbConfig {
    /// As the tenant login role, `everhold_<role>`.
    pub url: String,
    /// As `everhold_<role>_system`.
    pub system_url: String,
    pub max_connections: u32,
}

impl fmt::Debug for DbConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DbConfig")
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// One role's database. Cheap to clone; gives transactions, never connections.
#[derive(Clone)]
pub struct Db {
    pub(crate) tenant: PgPool,
    pub(crate) system: PgPool,
    pub(crate) schema: Schema,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Db {
    /// Sets up both pools. Connections are made when first needed, so a role starts before its database.
    ///
    /// # Errors
    /// [`Error::Other`] when a URL cannot be read.
    pub async fn connect(schema: Schema, config: &DbConfig) -> Result<Self, Error> {
        let max = config.max_connections.max(2);
        let tenant = pool(&config.url, schema.login(), max)?;
        let system = pool(&config.system_url, schema.system_login(), max.div_ceil(2))?;
        Ok(Self { tenant, system, schema })
    }

    pub const fn schema(&self) -> Schema {
        self.schema
    }

    /// Whether the database answers, for readiness.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and the like.
    pub async fn ping(&self) -> Result<(), Error> {
        sqlx::query("SELECT 1").execute(&self.tenant).await?;
        sqlx::query("SELECT 1").execute(&self.system).await?;
        Ok(())
    }

    /// Ends every connection; waits for those in use.
    pub async fn close(&self) {
        self.tenant.close().await;
        self.system.close().await;
    }
}

fn pool(url: &str, login: &str, max: u32) -> Result<PgPool, Error> {
    let options = PgConnectOptions::from_str(url)?
        .application_name(login)
        // Names without a schema resolve to nothing of ours.
        .options([("search_path", "pg_catalog")]);
    Ok(PgPoolOptions::new()
        .max_connections(max)
        .acquire_timeout(Duration::from_secs(10))
        .after_release(|connection, _| Box::pin(is_clean(connection)))
        .connect_lazy_with(options))
}

/// Closes a connection whose context outlived its transaction: it would show one tenant's rows to another.
async fn is_clean(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let leaked: bool = sqlx::query_scalar(
        "SELECT concat(current_setting('app.tenant_id', true), current_setting('app.lookup_key', true), \
         current_setting('app.system_reason', true)) <> ''",
    )
    .fetch_one(connection)
    .await?;
    if leaked {
        tracing::error!("a transaction's context outlived it; the connection is closed");
    }
    Ok(!leaked)
}
