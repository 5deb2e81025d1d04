//! Claims about a schema, asked of the catalog tables and of the tables themselves.

use anyhow::Result;
use pg::Schema;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::TestDb;

/// Each query gives the things that break one rule.
const RULES: [(&str, &str); 8] = [
    (
        "row security is not enabled and forced",
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND c.relname <> 'schema_migrations' \
         AND NOT (c.relrowsecurity AND c.relforcerowsecurity)",
    ),
    (
        "the primary key does not lead with tenant_id",
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped \
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM pg_index i \
         WHERE i.indrelid = c.oid AND i.indisprimary AND i.indkey[0] = a.attnum)",
    ),
    (
        "tenant_id may be null",
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped \
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT a.attnotnull",
    ),
    (
        "a foreign key between tenants' tables leaves tenant_id out",
        "SELECT con.conname::text FROM pg_constraint con \
         JOIN pg_class c ON c.oid = con.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' \
         JOIN pg_attribute f ON f.attrelid = con.confrelid AND f.attname = 'tenant_id' \
         WHERE n.nspname = $1 AND con.contype = 'f' AND NOT f.attnum = ANY (con.confkey)",
    ),
    (
        "a function is SECURITY DEFINER",
        "SELECT p.proname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
         WHERE n.nspname IN ($1, 'app') AND p.prosecdef",
    ),
    (
        "a view is not security_invoker",
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relkind = 'v' \
         AND NOT COALESCE(c.reloptions @> ARRAY['security_invoker=true'], false)",
    ),
    (
        "a login role owns it, may truncate it, reference it or put triggers on it",
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_roles r ON r.rolname IN ('everhold_' || $1, 'everhold_' || $1 || '_system') \
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND (c.relowner = r.oid \
         OR has_table_privilege(r.oid, c.oid, 'TRUNCATE, REFERENCES, TRIGGER'))",
    ),
    (
        "another role's login can read it",
        "SELECT c.relname || ' by ' || r.rolname FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_roles r ON r.rolname LIKE 'everhold\\_%' AND r.rolcanlogin \
         AND r.rolname NOT IN ('everhold_' || $1, 'everhold_' || $1 || '_system') \
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND (has_any_column_privilege(r.oid, c.oid, \
         'SELECT, INSERT, UPDATE') OR has_table_privilege(r.oid, c.oid, 'DELETE'))",
    ),
];

/// Everything in `schema` that breaks a rule of the house: empty is well.
///
/// # Errors
/// When the database does not answer.
pub async fn violations(database: &TestDb, schema: Schema) -> Result<Vec<String>> {
    let mut connection = database.superuser().await?;
    let mut found = Vec::new();
    for (rule, query) in RULES {
        let names: Vec<String> =
            sqlx::query_scalar(query).bind(schema.as_str()).fetch_all(&mut connection).await?;
        found.extend(names.into_iter().map(|name| format!("{schema}.{name}: {rule}")));
    }
    for login in [schema.login(), schema.system_login()] {
        let strong: bool =
            sqlx::query_scalar("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = $1")
                .bind(login)
                .fetch_one(&mut connection)
                .await?;
        if strong {
            found.push(format!("{login}: is stronger than row security"));
        }
    }
    Ok(found)
}

/// One table as the probe found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    pub table: String,
    /// Rows there are.
    pub rows: i64,
    /// Rows the tenant login role sees without any context; `None`: it may not even ask.
    pub seen: Option<i64>,
}

/// What the login role of `schema` sees of every table with a tenant in it, having no context. Fill the
/// tables first: a table without rows proves nothing.
///
/// # Errors
/// When the database does not answer.
pub async fn probe(database: &TestDb, schema: Schema) -> Result<Vec<Probed>> {
    let mut superuser = database.superuser().await?;
    let mut login = database.login(schema.login()).await?;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' \
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v') ORDER BY 1",
    )
    .bind(schema.as_str())
    .fetch_all(&mut superuser)
    .await?;
    let mut probed = Vec::new();
    for table in tables {
        let rows = count(&mut superuser, schema, &table).await?;
        let seen = match count(&mut login, schema, &table).await {
            Ok(seen) => Some(seen),
            Err(error) => {
                let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
                if code.as_deref() != Some("42501") {
                    return Err(error.into());
                }
                None
            }
        };
        probed.push(Probed { table, rows, seen });
    }
    Ok(probed)
}

async fn count(on: &mut PgConnection, schema: Schema, table: &str) -> Result<i64, sqlx::Error> {
    // `tenant_id` and not `*`: a role may hold rights on some columns only. The names are the catalog's.
    let sql = format!("SELECT count(tenant_id) FROM {schema}.{table}");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(on).await
}
