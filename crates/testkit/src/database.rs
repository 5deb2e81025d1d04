//! A database per test, cloned from a template that has every migration, dropped afterwards.

use std::str::FromStr as _;

use anyhow::{Context as _, Result};
use pg::{DbConfig, Schema, migrate::Migrator};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions,
};

use crate::cluster::Cluster;

/// One test's own database.
pub struct TestDb {
    name: String,
    cluster: &'static Cluster,
}

impl TestDb {
    /// A fresh database with every migration applied.
    ///
    /// # Errors
    /// When there is no PostgreSQL, or a migration does not apply.
    pub async fn create() -> Result<Self> {
        let cluster = tokio::task::spawn_blocking(Cluster::get).await??;
        let template = template(cluster).await?;
        let this = Self::named(cluster);
        let sql = format!("CREATE DATABASE {} TEMPLATE {template}", this.name);
        execute(cluster, &sql).await?;
        Ok(this)
    }

    /// A fresh database without anything in it, for tests of migrating.
    ///
    /// # Errors
    /// When there is no PostgreSQL.
    pub async fn create_empty() -> Result<Self> {
        let cluster = tokio::task::spawn_blocking(Cluster::get).await??;
        let this = Self::named(cluster);
        execute(cluster, &format!("CREATE DATABASE {} TEMPLATE template0", this.name)).await?;
        Ok(this)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a name that was never there, and nothing a test looks at"
    )]
    fn named(cluster: &'static Cluster) -> Self {
        // Process ids come again, and a killed test leaves its database behind.
        let pid = std::process::id();
        Self { name: format!("test_{pid}_{}", uuid::Uuid::new_v4().simple()), cluster }
    }

    /// URL of this database as the superuser: for looking, never for what is tested.
    pub fn superuser_url(&self) -> String {
        self.url_as("postgres")
    }

    /// URL of this database as any login role.
    pub fn url_as(&self, login: &str) -> String {
        let url = self.cluster.url.replacen("postgres@", &format!("{login}@"), 1);
        url.replacen("/postgres?", &format!("/{}?", self.name), 1)
    }

    /// What a role is configured with.
    pub fn config(&self, schema: Schema) -> DbConfig {
        DbConfig {
            url: self.url_as(schema.login()),
            system_url: self.url_as(schema.system_login()),
            max_connections: 6,
        }
    }

    /// The database as a role has it.
    ///
    /// # Errors
    /// See [`pg::Error`].
    pub async fn role(&self, schema: Schema) -> Result<pg::Db, pg::Error> {
        pg::Db::connect(schema, &self.config(schema)).await
    }

    /// A plain connection as the superuser, who row security does not bind: for looking and for planting.
    ///
    /// # Errors
    /// When it cannot connect.
    pub async fn superuser(&self) -> Result<PgConnection, sqlx::Error> {
        connect(&self.superuser_url()).await
    }

    /// A plain connection as a login role, without any context.
    ///
    /// # Errors
    /// When it cannot connect.
    pub async fn login(&self, login: &str) -> Result<PgConnection, sqlx::Error> {
        connect(&self.url_as(login)).await
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let cluster = self.cluster;
        // Drop is not async and may run inside a runtime: a thread with its own.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(execute(cluster, &sql))
        });
        match dropped.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("{} was not dropped: {error:#}", self.name),
            Err(_) => eprintln!("{} was not dropped", self.name),
        }
    }
}

async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    PgConnectOptions::from_str(url)?.connect().await
}

async fn execute(cluster: &Cluster, sql: &str) -> Result<()> {
    let mut connection = connect(&cluster.url).await?;
    // Names are ours: a prefix, a process id, a random number.
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.context("database")?;
    connection.close().await?;
    Ok(())
}

/// Name of the template with the migrations this build carries; made by whoever comes first.
async fn template(cluster: &'static Cluster) -> Result<String> {
    let migrator = Migrator::embedded()?;
    let name = format!("template_{}", migrator.fingerprint());
    if exists(cluster, &name).await? {
        return Ok(name);
    }
    let made = name.clone();
    cluster
        .alone("template", async move {
            if exists(cluster, &made).await? {
                return Ok(made);
            }
            forget_leftovers(cluster).await?;
            // Under another name until it is complete: a crash half way leaves no broken template.
            let raw = format!("{made}_raw");
            execute(cluster, &format!("DROP DATABASE IF EXISTS {raw} WITH (FORCE)")).await?;
            execute(cluster, &format!("CREATE DATABASE {raw} TEMPLATE template0")).await?;
            let url = cluster.url.replacen("/postgres?", &format!("/{raw}?"), 1);
            migrator.run(&url, &pg::migrate::Passwords::default()).await?;
            execute(cluster, &format!("ALTER DATABASE {raw} RENAME TO {made}")).await?;
            Ok(made)
        })
        .await
}

async fn exists(cluster: &Cluster, name: &str) -> Result<bool> {
    let mut connection = connect(&cluster.url).await?;
    let found = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(found)
}

/// Templates of other migrations nobody uses, and databases whose test process is gone.
async fn forget_leftovers(cluster: &Cluster) -> Result<()> {
    let mut connection = connect(&cluster.url).await?;
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT datname FROM pg_database WHERE datname ~ '^(template_[0-9a-f]|test_[0-9])' \
         AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = pg_database.datname)",
    )
    .fetch_all(&mut connection)
    .await?;
    connection.close().await?;
    for name in names {
        let pid = name.strip_prefix("test_").and_then(|rest| rest.split('_').next());
        let alive = pid.is_some_and(|pid| std::path::Path::new("/proc").join(pid).exists());
        if !alive && pid.is_some() {
            // Another process may have begun to clone from it: then it stays.
            execute(cluster, &format!("DROP DATABASE IF EXISTS {name}")).await.ok();
        }
    }
    Ok(())
}
