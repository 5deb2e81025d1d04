//! What real clients use: versions, listings, ranges, conditions, checksums, copies, multipart.

use aws_sdk_s3::{
    primitives::ByteStream,
    types::{
        ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart,
        Delete, MetadataDirective, ObjectIdentifier, ObjectLockMode,
    },
};

use crate::harness::{KEYS, PLAIN, TestStore, VAULT, code};

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_delete_markers_are_kept_and_listed_newest_first() {
    let store = TestStore::start().await;
    let admin = store.client("admin");
    let one = store.put(KEYS, "a", b"one").await.expect("a version");
    let two = store.put(KEYS, "a", b"two").await.expect("a version");
    let marker = admin.delete_object().bucket(KEYS).key("a").send().await.expect("deleted");
    let marker = marker.version_id.expect("a marker");
    store.put(KEYS, "b", b"b").await;
    let list = admin.list_object_versions().bucket(KEYS).send().await.expect("listed");
    let versions: Vec<_> = list
        .versions()
        .iter()
        .map(|v| (v.key().expect("key"), v.version_id().expect("id"), v.is_latest()))
        .collect();
    assert_eq!(versions[0], ("a", two.as_str(), Some(false)));
    assert_eq!(versions[1], ("a", one.as_str(), Some(false)));
    assert_eq!(list.delete_markers()[0].version_id(), Some(marker.as_str()));
    assert_eq!(list.delete_markers()[0].is_latest(), Some(true));
    assert_eq!(code(admin.get_object().bucket(KEYS).key("a").send().await), "NoSuchKey");
    let by_marker = admin.get_object().bucket(KEYS).key("a").version_id(&marker).send().await;
    assert_eq!(code(by_marker), "MethodNotAllowed");
    let current = admin.list_objects_v2().bucket(KEYS).send().await.expect("listed");
    assert_eq!(current.contents().len(), 1);
    // Taking the marker away brings the object back.
    let undo = admin.delete_object().bucket(KEYS).key("a").version_id(&marker).send().await;
    assert_eq!(undo.expect("deleted").delete_marker(), Some(true));
    let back = admin.get_object().bucket(KEYS).key("a").send().await.expect("back");
    assert_eq!(back.version_id(), Some(two.as_str()));
    let unknown = admin.head_object().bucket(KEYS).key("a").version_id("nonsense").send().await;
    assert_eq!(code(unknown), "NotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn version_pages_continue_exactly_where_they_ended() {
    let store = TestStore::start().await;
    let admin = store.client("admin");
    for _ in 0..3 {
        for key in ["k/1", "k/2", "l"] {
            store.put(KEYS, key, b"v").await;
        }
    }
    let (mut seen, mut key, mut id) = (Vec::new(), None, None);
    loop {
        let page = admin
            .list_object_versions()
            .bucket(KEYS)
            .max_keys(2)
            .set_key_marker(key)
            .set_version_id_marker(id)
            .send()
            .await
            .expect("a page");
        seen.extend(page.versions().iter().map(|v| v.version_id().expect("id").to_owned()));
        if page.is_truncated() != Some(true) {
            break;
        }
        (key, id) = (page.next_key_marker, page.next_version_id_marker);
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((count, seen.len()), (9, 9));
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_fold_page_and_start_where_asked() {
    let store = TestStore::start().await;
    let admin = store.client("admin");
    let names = ["a", "b/", "b/1", "b/2/x", "b/2/y", "c&<d>", "d", "ü/1"];
    for key in names {
        store.put(PLAIN, key, b"").await;
    }
    let list = |prefix: &str, delimiter: Option<&str>, after: Option<&str>| {
        let list = admin.list_objects_v2().bucket(PLAIN).prefix(prefix);
        let list = list.set_delimiter(delimiter.map(Into::into));
        let list = list.set_start_after(after.map(Into::into)).max_keys(2);
        async move {
            let (mut keys, mut prefixes, mut token) = (Vec::new(), Vec::new(), None);
            loop {
                let page = list.clone().set_continuation_token(token).send().await.expect("page");
                keys.extend(page.contents().iter().map(|o| o.key().expect("key").to_owned()));
                let folded = page.common_prefixes().iter().filter_map(|p| p.prefix());
                prefixes.extend(folded.map(str::to_owned));
                token = page.next_continuation_token;
                if token.is_none() {
                    return (keys, prefixes);
                }
            }
        }
    };
    assert_eq!(list("", None, None).await.0, names);
    let (keys, prefixes) = list("", Some("/"), None).await;
    assert_eq!(
        (keys, prefixes),
        (vec!["a".into(), "c&<d>".into(), "d".into()], vec!["b/".to_owned(), "ü/".into()])
    );
    let (keys, prefixes) = list("b/", Some("/"), None).await;
    assert_eq!((keys, prefixes), (vec!["b/".to_owned(), "b/1".into()], vec!["b/2/".to_owned()]));
    let (keys, prefixes) = list("b/", Some("/"), Some("b/")).await;
    assert_eq!((keys, prefixes), (vec!["b/1".to_owned()], vec!["b/2/".to_owned()]));
    assert_eq!(list("", None, Some("b/2/x")).await.0, ["b/2/y", "c&<d>", "d", "ü/1"]);
    let first = admin.list_objects().bucket(PLAIN).max_keys(3).send().await.expect("version 1");
    assert_eq!((first.contents().len(), first.is_truncated()), (3, Some(true)));
    let rest = admin.list_objects().bucket(PLAIN).set_marker(first.next_marker).send().await;
    assert_eq!(rest.expect("version 1").contents().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_conditions_are_honoured() {
    let store = TestStore::start().await;
    let admin = store.client("admin");
    store.put(PLAIN, "r", b"0123456789").await;
    let get = || admin.get_object().bucket(PLAIN).key("r");
    for (range, body, content_range) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
    ] {
        let got = get().range(range).send().await.expect("a range");
        assert_eq!(got.content_range(), Some(content_range));
        assert_eq!(got.body.collect().await.expect("read").into_bytes(), body.as_bytes());
    }
    assert_eq!(code(get().range("bytes=10-").send().await), "InvalidRange");
    let head = admin.head_object().bucket(PLAIN).key("r").send().await.expect("head");
    let etag = head.e_tag().expect("etag");
    assert_eq!(etag, "\"781e5e245d69b566979b86e28d23f2c7\"");
    assert_eq!(code(get().if_match(etag).send().await), "Ok");
    assert_eq!(code(get().if_match("\"other\"").send().await), "PreconditionFailed");
    assert_eq!(code(get().if_none_match(etag).send().await), "304");
    let modified = *head.last_modified().expect("a date");
    assert_eq!(code(get().if_modified_since(modified).send().await), "304");
    assert_eq!(code(get().if_unmodified_since(modified).send().await), "Ok");
    let put = || admin.put_object().bucket(PLAIN).key("r").body(ByteStream::from_static(b"n"));
    assert_eq!(code(put().if_match("\"other\"").send().await), "PreconditionFailed");
    assert_eq!(code(put().if_match(etag).send().await), "Ok");
    assert_eq!(code(put().if_none_match("*").send().await), "PreconditionFailed");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_checksum_is_verified_kept_and_given_back() {
    let store = TestStore::start().await;
    let admin = store.client("admin");
    for algorithm in [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32C,
        ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
    ] {
        let key = algorithm.as_str();
        let put = admin.put_object().bucket(PLAIN).key(key).checksum_algorithm(algorithm.clone());
        put.body(ByteStream::from_static(b"body")).send().await.expect("stored");
        let head = admin.head_object().bucket(PLAIN).key(key).checksum_mode(ChecksumMode::Enabled);
        let head = head.send().await.expect("head");
        let kept = [
            head.checksum_crc32(),
            head.checksum_crc32_c(),
            head.checksum_crc64_nvme(),
            head.checksum_sha1(),
            head.checksum_sha256(),
        ];
        assert_eq!(kept.iter().flatten().count(), 1, "{key}");
        // The SDK compares the body with the kept checksum while reading.
        let get = admin.get_object().bucket(PLAIN).key(key).checksum_mode(ChecksumMode::Enabled);
        let body = get.send().await.expect("get").body.collect().await.expect("verified");
        assert_eq!(body.into_bytes(), b"body".as_ref());
    }
    let wrong = |key: &str| {
        admin.put_object().bucket(PLAIN).key(key).body(ByteStream::from_static(b"body"))
    };
    assert_eq!(code(wrong("w").checksum_crc32("AAAAAA==").send().await), "BadDigest");
    assert_eq!(code(wrong("w").checksum_crc64_nvme("AAAAAAAAAAA=").send().await), "BadDigest");
    assert_eq!(code(wrong("w").content_md5("AAAAAAAAAAAAAAAAAAAAAA==").send().await), "BadDigest");
    assert_eq!(code(wrong("w").content_md5("short").send().await), "InvalidDigest");
    assert_eq!(code(admin.head_object().bucket(PLAIN).key("w").send().await), "NotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn overwriting_without_versioning_leaves_one_body() {
    let store = TestStore::start().await;
    let admin = store.client("admin");
    assert_eq!(store.put(PLAIN, "o", b"one").await, None);
    assert_eq!(store.put(PLAIN, "o", b"two").await, None);
    assert_eq!(store.blobs(), 1);
    let list = admin.list_object_versions().bucket(PLAIN).send().await.expect("listed");
    assert_eq!(list.versions()[0].version_id(), Some("null"));
    admin.delete_object().bucket(PLAIN).key("o").send().await.expect("deleted");
    assert_eq!(store.blobs(), 0);
    assert_eq!(code(admin.delete_bucket().bucket(PLAIN).send().await), "Ok");
    assert_eq!(code(admin.head_bucket().bucket(PLAIN).send().await), "NotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_delete_reports_each_object() {
    let store = TestStore::start().await;
    let admin = store.client("admin");
    let free = store.put(VAULT, "free", b"f").await.expect("a version");
    let locked = store.locked("locked", ObjectLockMode::Compliance, 60).await;
    let object = |key: &str, id: &str| {
        ObjectIdentifier::builder().key(key).version_id(id).build().expect("valid")
    };
    let delete = Delete::builder()
        .objects(object("free", &free))
        .objects(object("locked", &locked))
        .build()
        .expect("valid");
    let answer = admin.delete_objects().bucket(VAULT).delete(delete).send().await.expect("done");
    assert_eq!(answer.deleted()[0].key(), Some("free"));
    assert_eq!(answer.errors()[0].key(), Some("locked"));
    assert_eq!(answer.errors()[0].code(), Some("AccessDenied"));
    assert_eq!(answer.deleted().len() + answer.errors().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_takes_content_and_metadata_but_no_lock() {
    let store = TestStore::start().await;
    let admin = store.client("admin");
    let put = admin.put_object().bucket(VAULT).key("from").metadata("a", "1");
    let put = put.content_type("text/plain").checksum_algorithm(ChecksumAlgorithm::Sha256);
    let put = put
        .object_lock_mode(ObjectLockMode::Compliance)
        .object_lock_retain_until_date(store.in_secs(60));
    put.body(ByteStream::from_static(b"copied")).send().await.expect("stored");
    let copy = |key: &str| admin.copy_object().bucket(VAULT).key(key).copy_source("vault/from");
    copy("same").send().await.expect("copied");
    let same = admin.get_object().bucket(VAULT).key("same").send().await.expect("there");
    assert_eq!(same.metadata().and_then(|m| m.get("a")).map(String::as_str), Some("1"));
    assert_eq!(same.content_type(), Some("text/plain"));
    assert_eq!(same.object_lock_mode(), None);
    assert_eq!(same.body.collect().await.expect("read").into_bytes(), b"copied".as_ref());
    let other = copy("other").metadata_directive(MetadataDirective::Replace).metadata("b", "2");
    other.send().await.expect("copied");
    let other = admin.head_object().bucket(VAULT).key("other").send().await.expect("there");
    assert_eq!(other.metadata().map(std::collections::HashMap::len), Some(1));
    assert_eq!(code(copy("from").send().await), "InvalidRequest");
    let failed = copy("x").copy_source_if_match("\"other\"").send().await;
    assert_eq!(code(failed), "PreconditionFailed");
}

async fn upload(
    store: &TestStore,
    key: &str,
    sizes: &[usize],
) -> (String, CompletedMultipartUpload) {
    let admin = store.client("admin");
    let create = admin
        .create_multipart_upload()
        .bucket(VAULT)
        .key(key)
        .checksum_algorithm(ChecksumAlgorithm::Crc32)
        .metadata("m", "1")
        .object_lock_mode(ObjectLockMode::Compliance)
        .object_lock_retain_until_date(store.in_secs(60));
    let id = create.send().await.expect("begun").upload_id.expect("an id");
    let mut named = CompletedMultipartUpload::builder();
    for (number, size) in (1_i32..).zip(sizes) {
        let body = vec![u8::try_from(number).expect("small"); *size];
        let part = admin
            .upload_part()
            .bucket(VAULT)
            .key(key)
            .upload_id(&id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .body(ByteStream::from(body));
        let part = part.send().await.expect("a part");
        let done = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(part.e_tag)
            .set_checksum_crc32(part.checksum_crc32)
            .build();
        named = named.parts(done);
    }
    (id, named.build())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_multipart_upload_becomes_one_locked_version() {
    let store = TestStore::start().await;
    let admin = store.client("admin");
    let five = 5 << 20;
    let (id, parts) = upload(&store, "m", &[five, five, 10]).await;
    let listed = admin.list_parts().bucket(VAULT).key("m").upload_id(&id).send().await;
    assert_eq!(listed.expect("listed").parts().len(), 3);
    let open = admin.list_multipart_uploads().bucket(VAULT).send().await.expect("listed");
    assert_eq!(open.uploads()[0].upload_id(), Some(id.as_str()));
    let complete = admin.complete_multipart_upload().bucket(VAULT).key("m").upload_id(&id);
    let done = complete.multipart_upload(parts).send().await.expect("completed");
    assert!(done.e_tag().expect("etag").ends_with("-3\""));
    let version = done.version_id().expect("a version");
    let head = admin.head_object().bucket(VAULT).key("m").checksum_mode(ChecksumMode::Enabled);
    let head = head.send().await.expect("there");
    assert_eq!(head.content_length(), Some(2 * (5 << 20) + 10));
    assert_eq!(head.object_lock_mode(), Some(&ObjectLockMode::Compliance));
    assert_eq!(head.checksum_type(), Some(&ChecksumType::Composite));
    assert!(head.checksum_crc32().expect("kept").ends_with("-3"));
    let across = format!("bytes={}-{}", five - 2, five + 1);
    let range = admin.get_object().bucket(VAULT).key("m").range(across).send().await;
    let body = range.expect("a range").body.collect().await.expect("read").into_bytes();
    assert_eq!(body.as_ref(), [1, 1, 2, 2]);
    let delete = admin.delete_object().bucket(VAULT).key("m").version_id(version).send().await;
    assert_eq!(code(delete), "AccessDenied");
    let store = store.restart().await;
    assert_eq!(store.blobs(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_multipart_upload_that_does_not_fit_is_refused_and_an_aborted_one_gone() {
    let store = TestStore::start().await;
    let admin = store.client("admin");
    let (id, parts) = upload(&store, "s", &[10, 10]).await;
    let complete = |parts: CompletedMultipartUpload| {
        let complete = admin.complete_multipart_upload().bucket(VAULT).key("s").upload_id(&id);
        complete.multipart_upload(parts).send()
    };
    assert_eq!(code(complete(parts.clone()).await), "EntityTooSmall");
    let mut backwards = parts.parts().to_vec();
    backwards.reverse();
    let backwards = CompletedMultipartUpload::builder().set_parts(Some(backwards)).build();
    assert_eq!(code(complete(backwards).await), "InvalidPartOrder");
    let foreign = CompletedPart::builder().part_number(1).e_tag("\"0\"").build();
    let foreign = CompletedMultipartUpload::builder().parts(foreign).build();
    assert_eq!(code(complete(foreign).await), "InvalidPart");
    let abort = admin.abort_multipart_upload().bucket(VAULT).key("s").upload_id(&id);
    abort.send().await.expect("aborted");
    assert_eq!(code(complete(parts).await), "NoSuchUpload");
    assert_eq!(store.blobs(), 0);
}
