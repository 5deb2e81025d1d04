//! What the binary itself asks PostgreSQL: is the database there, which version, what may its logins do.
//!
//! As owner or superuser and outside of any tenant; it never looks at a row of ours.

use std::str::FromStr as _;

use anyhow::Context as _;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions,
};

pub async fn connect(url: &str) -> anyhow::Result<PgConnection> {
    // The cause may repeat the URL, and with it a password.
    let options =
        PgConnectOptions::from_str(url).map_err(|_| anyhow::anyhow!("not a PostgreSQL URL"))?;
    options.connect().await.context("PostgreSQL does not let us in")
}

/// Makes the database if it is missing. `name` is a constant of ours, never a request's text.
pub async fn ensure(maintenance_url: &str, name: &'static str) -> anyhow::Result<()> {
    let mut connection = connect(maintenance_url).await?;
    let there: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)")
            .bind(name)
            .fetch_one(&mut connection)
            .await?;
    if !there {
        let statement = format!("CREATE DATABASE {name}");
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(())
}

/// `server_version_num`: 150014 is 15.14.
pub async fn version(connection: &mut PgConnection) -> anyhow::Result<u32> {
    let text: String = sqlx::query_scalar("SELECT current_setting('server_version_num')")
        .fetch_one(connection)
        .await?;
    text.parse().context("server_version_num is a number")
}

/// Whether the login of this connection could look past row security.
pub async fn sees_past_row_security(connection: &mut PgConnection) -> anyhow::Result<bool> {
    Ok(sqlx::query_scalar(
        "SELECT rolsuper OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user",
    )
    .fetch_one(connection)
    .await?)
}

/// Milliseconds the database's clock is ahead of `now_ms`.
pub async fn clock_ahead_ms(connection: &mut PgConnection, now_ms: i64) -> anyhow::Result<i64> {
    let there: i64 =
        sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
            .fetch_one(connection)
            .await?;
    Ok(there.saturating_sub(now_ms))
}
