//! The scoped keys over the wire: each operation by each key, allowed or refused as the table says.

use aws_sdk_s3::{
    Client,
    primitives::ByteStream,
    types::{Delete, ObjectIdentifier},
};

use crate::harness::{KEYS, PLAIN, TestStore, VAULT, code, sdk_date};

const OPERATIONS: [&str; 14] = [
    "put",
    "get",
    "get version",
    "head",
    "head version",
    "list",
    "list versions",
    "delete",
    "delete version",
    "delete batch",
    "get retention",
    "put retention",
    "multipart",
    "list buckets",
];

async fn attempt(
    store: &TestStore,
    client: &Client,
    bucket: &str,
    version: &str,
    what: &str,
) -> String {
    let key = "o";
    let absent = "0000000000000000ffffffffffffffff";
    match what {
        "put" => code(
            client
                .put_object()
                .bucket(bucket)
                .key("new")
                .body(ByteStream::from_static(b"n"))
                .send()
                .await,
        ),
        "get" => code(client.get_object().bucket(bucket).key(key).send().await),
        "get version" => {
            code(client.get_object().bucket(bucket).key(key).version_id(version).send().await)
        }
        "head" => code(client.head_object().bucket(bucket).key(key).send().await),
        "head version" => {
            code(client.head_object().bucket(bucket).key(key).version_id(version).send().await)
        }
        "list" => code(client.list_objects_v2().bucket(bucket).send().await),
        "list versions" => code(client.list_object_versions().bucket(bucket).send().await),
        "delete" => code(client.delete_object().bucket(bucket).key("absent").send().await),
        "delete version" => {
            code(client.delete_object().bucket(bucket).key(key).version_id(absent).send().await)
        }
        "delete batch" => {
            let object = ObjectIdentifier::builder().key("absent").build().expect("valid");
            let delete = Delete::builder().objects(object).build().expect("valid");
            code(client.delete_objects().bucket(bucket).delete(delete).send().await)
        }
        "get retention" => code(
            client.get_object_retention().bucket(bucket).key(key).version_id(version).send().await,
        ),
        "put retention" => {
            let until = sdk_date(store.now() + std::time::Duration::from_secs(60));
            let retention = aws_sdk_s3::types::ObjectLockRetention::builder()
                .mode(aws_sdk_s3::types::ObjectLockRetentionMode::Governance)
                .retain_until_date(until)
                .build();
            let put = client.put_object_retention().bucket(bucket).key(key).version_id(version);
            code(put.retention(retention).send().await)
        }
        "multipart" => code(client.create_multipart_upload().bucket(bucket).key("m").send().await),
        "list buckets" => code(client.list_buckets().send().await),
        other => panic!("{other}"),
    }
}

async fn allowed(store: &TestStore, name: &str, bucket: &str, version: &str) -> Vec<&'static str> {
    let client = store.client(name);
    let mut allowed = Vec::new();
    for what in OPERATIONS {
        let end = attempt(store, &client, bucket, version, what).await;
        match end.as_str() {
            "AccessDenied" | "403" => {}
            // Allowed, though there was nothing to answer with.
            "Ok" | "NoSuchObjectLockConfiguration" | "InvalidRequest" => allowed.push(what),
            other => panic!("{name} {what}: {other}"),
        }
    }
    allowed
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_does_its_own_work_and_nothing_else() {
    let store = TestStore::start().await;
    let version = store.put(VAULT, "o", b"o").await.expect("a version");
    let of = async |name: &str| allowed(&store, name, VAULT, &version).await;
    assert_eq!(of("ingest").await, ["put"]);
    assert_eq!(of("restore").await, ["get version", "head version"]);
    assert_eq!(
        of("steward").await,
        ["get version", "head version", "list versions", "get retention", "put retention"]
    );
    assert_eq!(of("reaper").await, ["head version", "list versions", "delete version"]);
    assert_eq!(of("keeper").await, Vec::<&str>::new());
    assert_eq!(of("elsewhere").await, ["list buckets"]);
    assert_eq!(of("admin").await, OPERATIONS);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_keeper_works_in_the_key_bucket_only() {
    let store = TestStore::start().await;
    let version = store.put(KEYS, "o", b"o").await.expect("a version");
    store.put(PLAIN, "o", b"o").await;
    let keeper = allowed(&store, "keeper", KEYS, &version).await;
    let expected = [
        "put",
        "get",
        "get version",
        "head",
        "head version",
        "list",
        "list versions",
        "delete",
        "delete version",
        "delete batch",
    ];
    assert_eq!(keeper, expected);
    assert_eq!(allowed(&store, "keeper", PLAIN, "null").await, Vec::<&str>::new());
    for name in ["ingest", "restore", "steward", "reaper"] {
        assert_eq!(allowed(&store, name, KEYS, &version).await, Vec::<&str>::new(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_limited_to_buckets_sees_and_copies_from_no_other() {
    let store = TestStore::start().await;
    store.put(PLAIN, "o", b"o").await;
    let admin = store.client("admin");
    admin.create_bucket().bucket("another").send().await.expect("a bucket");
    let limited = store.client("elsewhere");
    let seen = limited.list_buckets().send().await.expect("listed");
    let names: Vec<_> = seen.buckets().iter().filter_map(|bucket| bucket.name()).collect();
    assert_eq!(names, ["another"]);
    let copy = limited.copy_object().bucket("another").key("stolen");
    assert_eq!(code(copy.copy_source("plain/o").send().await), "AccessDenied");
    assert_eq!(code(limited.create_bucket().bucket("third").send().await), "AccessDenied");
}
