//! Migrations: forward only, each once, in its own transaction, one migrator at a time.
//!
//! `app` runs first and as the migration login; the sets of the roles run as `everhold_owner`, which
//! owns what they make. What was applied is recorded in `<schema>.schema_migrations` with its hash: a
//! migration that changed after it ran is an error, never silently skipped.

use std::{collections::BTreeMap, fmt, str::FromStr as _};

use sha2::{Digest as _, Sha256};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _,
    postgres::PgConnectOptions,
};

use crate::{Error, Schema};

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/migrations.rs"));
}

/// Any fixed number; held by whoever migrates this database.
const MIGRATION_LOCK: i64 = 0x4556_4552_484f_4c44;

/// One file of `migrations/<set>/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// The digits the file name starts with.
    pub version: i64,
    /// The file name without its ending.
    pub name: String,
    pub sql: String,
}

impl Migration {
    fn checksum(&self) -> Vec<u8> {
        Sha256::digest(self.sql.as_bytes()).to_vec()
    }
}

/// Where a database stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// `catalog/0002_packs`, in the order applied.
    pub applied: Vec<String>,
    /// How many were there already.
    pub present: usize,
}

/// Why a database is not migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("{name}: a migration file must be named NNNN_words.sql, numbers rising")]
    Name { name: String },
    #[error("{name} changed after it was applied: write a new migration instead")]
    Changed { name: String },
    #[error(
        "{name} was applied by a newer version of Everhold; this one is too old for the database"
    )]
    Unknown { name: String },
    #[error("{name} does not apply")]
    Apply {
        name: String,
        #[source]
        source: Error,
    },
    #[error("the database cannot be migrated")]
    Database(#[from] Error),
}

impl From<sqlx::Error> for MigrateError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Passwords of the login roles. Roles without one stay as they are (trust or peer authentication).
#[derive(Clone, Default)]
pub struct Passwords {
    roles: BTreeMap<&'static str, String>,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.roles.keys()).finish()
    }
}

impl Passwords {
    #[must_use]
    pub fn set(mut self, schema: Schema, tenant: String, system: String) -> Self {
        self.roles.insert(schema.login(), tenant);
        self.roles.insert(schema.system_login(), system);
        self
    }
}

/// The migrations of every set, in order.
#[derive(Debug, Clone)]
pub struct Migrator {
    sets: Vec<(String, Vec<Migration>)>,
}

impl Migrator {
    /// What this binary carries.
    ///
    /// # Errors
    /// [`MigrateError::Name`].
    pub fn embedded() -> Result<Self, MigrateError> {
        Self::new(embedded::SETS.iter().map(|(set, files)| {
            let files = files.iter().map(|(name, sql)| ((*name).to_owned(), (*sql).to_owned()));
            ((*set).to_owned(), files.collect())
        }))
    }

    /// Sets of `(file name without ending, SQL)`, in the order to run.
    ///
    /// # Errors
    /// [`MigrateError::Name`] for a name without a number, or numbers that do not rise.
    pub fn new(
        sets: impl IntoIterator<Item = (String, Vec<(String, String)>)>,
    ) -> Result<Self, MigrateError> {
        let mut all = Vec::new();
        for (set, files) in sets {
            let mut migrations: Vec<Migration> = Vec::new();
            for (name, sql) in files {
                let bad = || MigrateError::Name { name: format!("{set}/{name}") };
                let version = name.split('_').next().and_then(|n| n.parse::<i64>().ok());
                let version = version.ok_or_else(bad)?;
                if migrations.last().is_some_and(|last| last.version >= version) {
                    return Err(bad());
                }
                migrations.push(Migration { version, name, sql });
            }
            all.push((set, migrations));
        }
        Ok(Self { sets: all })
    }

    /// Changes when any migration does: sixteen hex digits.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for (set, migrations) in &self.sets {
            for migration in migrations {
                hash.update(format!("{set}/{}\n", migration.name));
                hash.update(migration.checksum());
            }
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Brings the database at `owner_url` up to date and sets the passwords given.
    ///
    /// # Errors
    /// See [`MigrateError`]. Migrations applied before the failing one stay applied.
    pub async fn run(
        &self,
        owner_url: &str,
        passwords: &Passwords,
    ) -> Result<Report, MigrateError> {
        let options = PgConnectOptions::from_str(owner_url)?.application_name("everhold_migrate");
        let mut connection = options.connect().await?;
        sqlx::query("SELECT pg_advisory_lock($1)")
            .bind(MIGRATION_LOCK)
            .execute(&mut connection)
            .await?;
        let result = self.run_locked(&mut connection, passwords).await;
        // The lock goes with the connection, whatever happened.
        connection.close().await?;
        result
    }

    /// What [`Self::run`] would apply.
    ///
    /// # Errors
    /// See [`MigrateError`].
    pub async fn pending(&self, owner_url: &str) -> Result<Vec<String>, MigrateError> {
        let mut connection = PgConnectOptions::from_str(owner_url)?.connect().await?;
        let mut pending = Vec::new();
        for (set, migrations) in &self.sets {
            let done = applied(&mut connection, set).await?;
            let missing = migrations.iter().filter(|m| !done.contains_key(&m.version));
            pending.extend(missing.map(|m| format!("{set}/{}", m.name)));
        }
        connection.close().await?;
        Ok(pending)
    }

    async fn run_locked(
        &self,
        connection: &mut PgConnection,
        passwords: &Passwords,
    ) -> Result<Report, MigrateError> {
        let mut report = Report::default();
        for (set, migrations) in &self.sets {
            let mut done = applied(connection, set).await?;
            for migration in migrations {
                let name = format!("{set}/{}", migration.name);
                match done.remove(&migration.version) {
                    Some((_, checksum)) if checksum == migration.checksum() => report.present += 1,
                    Some(_) => return Err(MigrateError::Changed { name }),
                    None => {
                        apply(connection, set, migration)
                            .await
                            .map_err(|source| MigrateError::Apply { name: name.clone(), source })?;
                        report.applied.push(name);
                    }
                }
            }
            if let Some((name, _)) = done.into_values().next() {
                return Err(MigrateError::Unknown { name: format!("{set}/{name}") });
            }
        }
        for (role, password) in &passwords.roles {
            set_password(connection, role, password).await?;
        }
        Ok(report)
    }
}

async fn applied(
    connection: &mut PgConnection,
    set: &str,
) -> Result<BTreeMap<i64, (String, Vec<u8>)>, Error> {
    let table = format!("{set}.schema_migrations");
    let there: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(&table)
        .fetch_one(&mut *connection)
        .await?;
    if !there {
        return Ok(BTreeMap::new());
    }
    // `set` is one of the folder names compiled in, never a request's text.
    let rows = sqlx::query(AssertSqlSafe(format!("SELECT version, name, checksum FROM {table}")))
        .fetch_all(connection)
        .await?;
    let mut done = BTreeMap::new();
    for row in rows {
        done.insert(row.try_get("version")?, (row.try_get("name")?, row.try_get("checksum")?));
    }
    Ok(done)
}

async fn apply(
    connection: &mut PgConnection,
    set: &str,
    migration: &Migration,
) -> Result<(), Error> {
    let mut tx = connection.begin().await?;
    if set != "app" {
        sqlx::query("SET LOCAL ROLE everhold_owner").execute(&mut *tx).await?;
    }
    sqlx::raw_sql(AssertSqlSafe(migration.sql.clone())).execute(&mut *tx).await?;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "CREATE TABLE IF NOT EXISTS {set}.schema_migrations (\
         version bigint PRIMARY KEY, name text NOT NULL, checksum bytea NOT NULL, \
         applied_at timestamptz NOT NULL DEFAULT now())"
    )))
    .execute(&mut *tx)
    .await?;
    sqlx::query(AssertSqlSafe(format!(
        "INSERT INTO {set}.schema_migrations (version, name, checksum) VALUES ($1, $2, $3)"
    )))
    .bind(migration.version)
    .bind(&migration.name)
    .bind(migration.checksum())
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

async fn set_password(
    connection: &mut PgConnection,
    role: &str,
    password: &str,
) -> Result<(), Error> {
    // The server quotes; a role statement takes no parameters.
    let statement: String =
        sqlx::query_scalar("SELECT format('ALTER ROLE %I PASSWORD %L', $1, $2)")
            .bind(role)
            .bind(password)
            .fetch_one(&mut *connection)
            .await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}
