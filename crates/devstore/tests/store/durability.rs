//! What survives, and what is cleaned up.

use std::{fs, sync::Arc};

use aws_sdk_s3::types::ObjectLockMode;
use devstore::{OpenError, ServeError};
use domain::SystemClock;

use crate::harness::{KEYS, TestStore, VAULT, code, open};

#[tokio::test(flavor = "multi_thread")]
async fn versions_locks_and_metadata_survive_a_restart() {
    let store = TestStore::start().await;
    let id = store.locked("kept", ObjectLockMode::Compliance, 600).await;
    let until = store.in_secs(600);
    let first = store.put(KEYS, "twice", b"one").await.expect("a version");
    store.put(KEYS, "twice", b"two").await.expect("a version");
    let store = store.restart().await;
    let admin = store.client("admin");
    let head = admin.head_object().bucket(VAULT).key("kept").version_id(&id).send().await;
    assert_eq!(head.expect("there").object_lock_retain_until_date(), Some(&until));
    let delete = admin.delete_object().bucket(VAULT).key("kept").version_id(&id).send().await;
    assert_eq!(code(delete), "AccessDenied");
    let old = admin.get_object().bucket(KEYS).key("twice").version_id(&first).send().await;
    let old = old.expect("there").body.collect().await.expect("read").into_bytes();
    assert_eq!(old.as_ref(), b"one");
    let third = store.put(KEYS, "twice", b"three").await.expect("a version");
    assert_ne!(third, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_over_is_removed_and_nothing_else() {
    let store = TestStore::start().await;
    store.put(VAULT, "named", b"a body some row names").await;
    let store = store
        .restart_after(|dir| {
            // Killed while receiving, and killed between the rename and the commit.
            fs::write(dir.join("tmp/0123456789abcdef"), b"half").expect("written");
            fs::write(dir.join("blobs/00/00ffffffffffffffffffffffffffffff"), b"orphan")
                .expect("written");
        })
        .await;
    assert_eq!((store.blobs(), store.temporary_files()), (1, 0));
    let got = store.client("admin").get_object().bucket(VAULT).key("named").send().await;
    let body = got.expect("there").body.collect().await.expect("read").into_bytes();
    assert_eq!(body.as_ref(), b"a body some row names");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_in_use_and_an_open_address_are_refused() {
    let store = TestStore::start().await;
    let again = open(store.dir.path(), Arc::new(SystemClock));
    assert!(matches!(again, Err(OpenError::InUse(_))), "{again:?}");
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let served = store.store.serve(listener, std::future::pending()).await;
    assert!(matches!(served, Err(ServeError::NotLoopback(_))), "{served:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_without_a_secret_or_with_one_name_are_refused() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let mut keys = crate::harness::keys();
    keys.push(keys[0].clone());
    let clock = Arc::new(SystemClock);
    let config = devstore::Config { dir: dir.path().into(), keys, clock };
    let text = format!("{config:?}");
    assert!(!text.contains("secret of"), "{text}");
    assert!(matches!(devstore::DevStore::open(config), Err(OpenError::Keys)));
}
