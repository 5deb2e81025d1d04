//! Migrating: once, alone, never over a change; and what the result must look like.

use pg::{
    Schema,
    migrate::{MigrateError, Migrator, Passwords},
};
use testkit::TestDb;

fn files(sets: &[(&str, &[(&str, &str)])]) -> Migrator {
    let owned = |(name, sql): &(&str, &str)| ((*name).to_owned(), (*sql).to_owned());
    Migrator::new(
        sets.iter().map(|(set, files)| ((*set).to_owned(), files.iter().map(owned).collect())),
    )
    .unwrap()
}

const BASE: &str = include_str!("../../../../migrations/app/0001_base.sql");

#[tokio::test]
async fn every_schema_keeps_the_rules_of_the_house() {
    let database = TestDb::create().await.unwrap();
    for schema in Schema::ALL {
        let violations = testkit::schema::violations(&database, schema).await.unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

#[tokio::test]
async fn a_table_without_forced_row_security_is_found() {
    let database = TestDb::create().await.unwrap();
    let mut superuser = database.superuser().await.unwrap();
    for (plant, expected) in [
        ("ALTER TABLE audit.events NO FORCE ROW LEVEL SECURITY", "audit.events: row security"),
        (
            "CREATE TABLE audit.x (id uuid PRIMARY KEY, tenant_id uuid NOT NULL)",
            "audit.x: the primary key",
        ),
        ("CREATE VIEW audit.v AS SELECT * FROM audit.events", "audit.v: a view"),
        ("CREATE FUNCTION audit.f() RETURNS int SECURITY DEFINER RETURN 1", "audit.f: a function"),
        (
            "GRANT SELECT ON audit.events TO everhold_billing",
            "audit.events by everhold_billing: another",
        ),
        (
            "CREATE TABLE audit.y (tenant_id uuid, id uuid, x uuid REFERENCES audit.x (id), PRIMARY KEY (tenant_id, id))",
            "audit.y_x_fkey: a foreign key",
        ),
    ] {
        sqlx::query(plant).execute(&mut superuser).await.unwrap();
        let found = testkit::schema::violations(&database, Schema::Audit).await.unwrap();
        assert!(found.iter().any(|line| line.starts_with(expected)), "{expected}: {found:#?}");
    }
}

#[tokio::test]
async fn a_second_migration_finds_nothing_to_do() {
    let database = TestDb::create_empty().await.unwrap();
    let migrator = Migrator::embedded().unwrap();
    let url = database.superuser_url();
    let pending = migrator.pending(&url).await.unwrap();
    let first = migrator.run(&url, &Passwords::default()).await.unwrap();
    assert_eq!(first.applied, pending);
    assert_eq!(first.applied[0], "app/0001_base");
    let second = migrator.run(&url, &Passwords::default()).await.unwrap();
    assert!(second.applied.is_empty());
    assert_eq!(second.present, first.applied.len());
    assert!(migrator.pending(&url).await.unwrap().is_empty());
}

#[tokio::test]
async fn two_migrators_at_once_apply_everything_once() {
    let database = TestDb::create_empty().await.unwrap();
    let migrator = Migrator::embedded().unwrap();
    let url = database.superuser_url();
    let none = Passwords::default();
    let (a, b) = tokio::join!(migrator.run(&url, &none), migrator.run(&url, &none));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(a.applied.is_empty() != b.applied.is_empty());
}

#[tokio::test]
async fn each_set_applies_alone_after_the_base() {
    let (sets, base) = (["auth", "catalog", "scheduler", "audit", "billing"], ("0001_base", BASE));
    for set in sets {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations").join(set);
        let mut paths: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let own = paths.iter().map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        });
        let app = vec![(base.0.to_owned(), base.1.to_owned())];
        let migrator =
            Migrator::new([("app".to_owned(), app), (set.to_owned(), own.collect())]).unwrap();
        let database = TestDb::create_empty().await.unwrap();
        migrator.run(&database.superuser_url(), &Passwords::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_migration_that_changed_or_is_unknown_stops_everything() {
    let database = TestDb::create_empty().await.unwrap();
    let url = database.superuser_url();
    let none = Passwords::default();
    let base: (&str, &[(&str, &str)]) = ("app", &[("0001_base", BASE)]);
    let old = files(&[base, ("audit", &[("0001_a", "CREATE TABLE audit.a (id int)")])]);
    old.run(&url, &none).await.unwrap();
    let changed = files(&[base, ("audit", &[("0001_a", "CREATE TABLE audit.b (id int)")])]);
    assert!(matches!(changed.run(&url, &none).await, Err(MigrateError::Changed { .. })));
    let older = files(&[base, ("audit", &[])]);
    assert!(matches!(older.run(&url, &none).await, Err(MigrateError::Unknown { .. })));
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_of_itself() {
    let database = TestDb::create_empty().await.unwrap();
    let url = database.superuser_url();
    let none = Passwords::default();
    let base: (&str, &[(&str, &str)]) = ("app", &[("0001_base", BASE)]);
    let broken =
        files(&[base, ("audit", &[("0001_a", "CREATE TABLE audit.a (id int); SELECT 1 / 0")])]);
    assert!(matches!(broken.run(&url, &none).await, Err(MigrateError::Apply { .. })));
    let mended = files(&[base, ("audit", &[("0001_a", "CREATE TABLE audit.a (id int)")])]);
    assert_eq!(mended.run(&url, &none).await.unwrap().applied, ["audit/0001_a"]);
}

#[test]
fn names_without_a_rising_number_are_refused() {
    for names in [&["base"][..], &["0002_a", "0001_b"], &["0001_a", "0001_b"]] {
        let named = names.iter().map(|name| ((*name).to_owned(), String::new())).collect();
        let migrator = Migrator::new([("audit".to_owned(), named)]);
        assert!(matches!(migrator, Err(MigrateError::Name { .. })), "{names:?}");
    }
}
