//! Object Lock: nothing ends it but time, and time is watched.

use std::{sync::Arc, time::Duration};

use aws_sdk_s3::{
    primitives::ByteStream,
    types::{
        ChecksumAlgorithm, DefaultRetention, ObjectLockConfiguration, ObjectLockEnabled,
        ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockMode, ObjectLockRetention,
        ObjectLockRetentionMode, ObjectLockRule,
    },
};
use domain::{PackId, SystemClock, SystemIds};
use vault::{
    guard::{CondemnedProof, ProvenState, warrant},
    store::{Deletion, S3Store, probe},
};

use crate::harness::{PLAIN, TestStore, VAULT, code};

fn retention(
    mode: ObjectLockRetentionMode,
    until: aws_sdk_s3::primitives::DateTime,
) -> ObjectLockRetention {
    ObjectLockRetention::builder().mode(mode).retain_until_date(until).build()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_of_the_probe_passes() {
    let store = TestStore::start().await;
    let clock = Arc::new(SystemClock);
    let report = probe::run(&store.config(), clock, Arc::new(SystemIds)).await.expect("runs");
    let others: Vec<_> =
        report.cases.iter().filter(|case| case.outcome != probe::Outcome::Pass).collect();
    assert!(others.is_empty(), "{others:#?}");
    assert!(report.passed() && report.cases.len() >= 38);
    assert_eq!(report.capabilities, vault::store::Capabilities::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_governance_lock_yields_only_to_the_administrators_bypass() {
    let store = TestStore::start().await;
    let id = store.locked("g", ObjectLockMode::Governance, 600).await;
    let admin = store.client("admin");
    let delete = |name: &str, bypass: bool| {
        let delete = store.client(name).delete_object().bucket(VAULT).key("g").version_id(&id);
        delete.bypass_governance_retention(bypass).send()
    };
    assert_eq!(code(delete("admin", false).await), "AccessDenied");
    assert_eq!(code(delete("reaper", true).await), "AccessDenied");
    let sooner = retention(ObjectLockRetentionMode::Governance, store.in_secs(300));
    let shorten = |bypass: bool| {
        let put = admin.put_object_retention().bucket(VAULT).key("g").version_id(&id);
        put.retention(sooner.clone()).bypass_governance_retention(bypass).send()
    };
    assert_eq!(code(shorten(false).await), "AccessDenied");
    assert_eq!(code(shorten(true).await), "Ok");
    assert_eq!(code(delete("admin", true).await), "Ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compliance_lock_yields_to_nobody() {
    let store = TestStore::start().await;
    let id = store.locked("c", ObjectLockMode::Compliance, 600).await;
    let admin = store.client("admin");
    let change = |mode: ObjectLockRetentionMode, secs: u64| {
        let put = admin.put_object_retention().bucket(VAULT).key("c").version_id(&id);
        let put = put.retention(retention(mode, store.in_secs(secs)));
        put.bypass_governance_retention(true).send()
    };
    assert_eq!(code(change(ObjectLockRetentionMode::Compliance, 599).await), "AccessDenied");
    assert_eq!(code(change(ObjectLockRetentionMode::Governance, 900).await), "AccessDenied");
    let none = admin.put_object_retention().bucket(VAULT).key("c").version_id(&id);
    let none = none.retention(ObjectLockRetention::builder().build());
    let none = none.bypass_governance_retention(true).send().await;
    assert_ne!(code(none), "Ok");
    let delete = admin.delete_object().bucket(VAULT).key("c").version_id(&id);
    let delete = delete.bypass_governance_retention(true).send().await;
    assert_eq!(code(delete), "AccessDenied");
    assert_eq!(code(change(ObjectLockRetentionMode::Compliance, 900).await), "Ok");
    // A plain delete only puts a marker in front; the version stays and stays locked.
    let marker = admin.delete_object().bucket(VAULT).key("c").send().await.expect("a marker");
    assert_eq!(marker.delete_marker(), Some(true));
    let head = admin.head_object().bucket(VAULT).key("c").version_id(&id).send().await;
    let head = head.expect("still there");
    assert_eq!(head.object_lock_mode(), Some(&ObjectLockMode::Compliance));
    assert_eq!(head.object_lock_retain_until_date(), Some(&store.in_secs(900)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_ends_with_its_date_and_a_warrant_then_deletes() {
    let store = TestStore::start().await;
    let id = store.locked("w", ObjectLockMode::Compliance, 60).await;
    let vault = S3Store::connect(store.config()).await.expect("connects");
    let proof = CondemnedProof {
        pack: PackId::from_bytes([1; 16]),
        key: "w".into(),
        version_id: id.clone(),
        state: ProvenState::Deleting,
        // The database thinks the lock is over; the store knows better.
        lock_until: store.now(),
        condemned_at: store.now(),
        grace: Duration::ZERO,
        live_references: 0,
        older_sessions: 0,
    };
    let early = warrant(proof.clone(), store.now()).expect("a warrant");
    let retained = vault.delete_version(&early).await.expect("an outcome");
    let Deletion::Retained { until: Some(until) } = retained else { panic!("{retained:?}") };
    store.clock.set(until);
    let due = warrant(proof, until).expect("a warrant");
    assert_eq!(vault.delete_version(&due).await.expect("an outcome"), Deletion::Deleted);
    assert_eq!(vault.delete_version(&due).await.expect("again"), Deletion::Deleted);
    assert_eq!(vault.head("w", Some(&id)).await.expect("asked"), None);
    assert_eq!(store.blobs(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_clock_jump_locked_versions_stay_until_an_operator_confirms() {
    let store = TestStore::start().await;
    let id = store.locked("j", ObjectLockMode::Compliance, 60).await;
    let free = store.put(VAULT, "free", b"never locked").await.expect("a version");
    store.clock.advance(Duration::from_secs(7_200));
    assert!(store.store.clock_doubted());
    let store = store.restart().await;
    assert!(store.store.clock_doubted(), "a restart does not help");
    let delete = |key: &'static str, id: String| {
        store.client("reaper").delete_object().bucket(VAULT).key(key).version_id(id).send()
    };
    assert_eq!(code(delete("j", id.clone()).await), "AccessDenied");
    assert_eq!(code(delete("free", free).await), "Ok");
    store.store.confirm_clock();
    assert!(!store.store.clock_doubted());
    assert_eq!(code(delete("j", id).await), "Ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legal_hold_protects_without_a_date_until_it_is_lifted() {
    let store = TestStore::start().await;
    let id = store.put(VAULT, "h", b"held").await.expect("a version");
    let admin = store.client("admin");
    let hold = |status: ObjectLockLegalHoldStatus| {
        let hold = ObjectLockLegalHold::builder().status(status).build();
        let put = admin.put_object_legal_hold().bucket(VAULT).key("h").version_id(&id);
        put.legal_hold(hold).send()
    };
    let delete = || {
        let delete = admin.delete_object().bucket(VAULT).key("h").version_id(&id);
        delete.bypass_governance_retention(true).send()
    };
    assert_eq!(code(hold(ObjectLockLegalHoldStatus::On).await), "Ok");
    assert_eq!(code(delete().await), "AccessDenied");
    let head = admin.head_object().bucket(VAULT).key("h").send().await.expect("there");
    assert_eq!(head.object_lock_legal_hold_status(), Some(&ObjectLockLegalHoldStatus::On));
    assert_eq!(code(hold(ObjectLockLegalHoldStatus::Off).await), "Ok");
    assert_eq!(code(delete().await), "Ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_buckets_default_locks_what_asks_for_nothing() {
    let store = TestStore::start().await;
    let admin = store.client("admin");
    let default =
        DefaultRetention::builder().mode(ObjectLockRetentionMode::Compliance).days(2).build();
    let rule = ObjectLockRule::builder().default_retention(default).build();
    let config = ObjectLockConfiguration::builder()
        .object_lock_enabled(ObjectLockEnabled::Enabled)
        .rule(rule)
        .build();
    let set = admin.put_object_lock_configuration().bucket(VAULT);
    set.object_lock_configuration(config.clone()).send().await.expect("set");
    let read = admin.get_object_lock_configuration().bucket(VAULT).send().await.expect("read");
    assert_eq!(read.object_lock_configuration(), Some(&config));
    let id = store.put(VAULT, "d", b"by default").await.expect("a version");
    let got = admin.get_object_retention().bucket(VAULT).key("d").version_id(&id).send().await;
    let got = got.expect("locked").retention.expect("a lock");
    assert_eq!(got.mode(), Some(&ObjectLockRetentionMode::Compliance));
    assert_eq!(got.retain_until_date(), Some(&store.in_secs(2 * 86_400)));
    let delete = admin.delete_object().bucket(VAULT).key("d").version_id(&id).send().await;
    assert_eq!(code(delete), "AccessDenied");
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_headers_are_complete_ahead_digested_and_in_a_locked_bucket() {
    let store = TestStore::start().await;
    let put = |bucket: &str| {
        let put = store.client("admin").put_object().bucket(bucket).key("x");
        put.body(ByteStream::from_static(b"x"))
    };
    let compliance = ObjectLockMode::Compliance;
    let sum = ChecksumAlgorithm::Sha256;
    let half = put(VAULT).object_lock_mode(compliance.clone()).checksum_algorithm(sum.clone());
    assert_eq!(code(half.send().await), "InvalidArgument");
    let past = put(VAULT)
        .object_lock_mode(compliance.clone())
        .object_lock_retain_until_date(store.in_secs(0))
        .checksum_algorithm(sum.clone());
    store.clock.advance(Duration::from_secs(2));
    assert_eq!(code(past.send().await), "InvalidArgument");
    let plain = put(PLAIN)
        .object_lock_mode(compliance.clone())
        .object_lock_retain_until_date(store.in_secs(60))
        .checksum_algorithm(sum);
    assert_eq!(code(plain.send().await), "InvalidRequest");
    let undigested =
        put(VAULT).object_lock_mode(compliance).object_lock_retain_until_date(store.in_secs(60));
    assert_eq!(code(undigested.send().await), "InvalidRequest");
    assert_eq!(store.blobs(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_bucket_keeps_its_versioning_and_its_lock() {
    let store = TestStore::start().await;
    let admin = store.client("admin");
    let off = aws_sdk_s3::types::VersioningConfiguration::builder()
        .status(aws_sdk_s3::types::BucketVersioningStatus::Suspended)
        .build();
    let suspend = admin.put_bucket_versioning().bucket(VAULT).versioning_configuration(off);
    assert_eq!(code(suspend.send().await), "InvalidBucketState");
    let id = store.locked("k", ObjectLockMode::Compliance, 60).await;
    admin.delete_object().bucket(VAULT).key("k").send().await.expect("a marker");
    assert_eq!(code(admin.delete_bucket().bucket(VAULT).send().await), "BucketNotEmpty");
    let head = admin.head_object().bucket(VAULT).key("k").version_id(id).send().await;
    assert_eq!(code(head), "Ok");
}
