//! What a hostile holder of a grant, or a hostile name, tries.

use aws_sdk_s3::{
    config::{
        ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextMut,
    },
    error::BoxError,
    presigning::PresigningConfig,
    primitives::ByteStream,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

use crate::harness::{PLAIN, TestStore, VAULT, code};

/// Adds a header after the request was signed.
#[derive(Debug)]
struct Unsigned(&'static str, String);

impl Intercept for Unsigned {
    fn name(&self) -> &'static str {
        "unsigned header"
    }
    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        context.request_mut().headers_mut().insert(self.0, self.1.clone());
        Ok(())
    }
}

fn short() -> PresigningConfig {
    PresigningConfig::expires_in(std::time::Duration::from_secs(60)).expect("valid")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_copy_source_is_refused_even_for_the_administrator() {
    let store = TestStore::start().await;
    store.put(VAULT, "secret", b"another tenant's pack").await;
    let source = format!("/{VAULT}/secret");
    // Presigned.
    let put = store.client("admin").put_object().bucket(VAULT).key("stolen");
    let signed = put.presigned(short()).await.expect("signed");
    let answer = reqwest::Client::new()
        .put(signed.uri())
        .header("x-amz-copy-source", &source)
        .send()
        .await
        .expect("answers");
    assert_eq!(answer.status(), 403);
    // Signed by header.
    let config = store.builder("admin").interceptor(Unsigned("x-amz-copy-source", source)).build();
    let client = aws_sdk_s3::Client::from_conf(config);
    let put = client.put_object().bucket(VAULT).key("stolen").body(ByteStream::from_static(b""));
    assert_eq!(code(put.send().await), "AccessDenied");
    let head = store.client("admin").head_object().bucket(VAULT).key("stolen").send().await;
    assert_eq!(code(head), "NotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_unsigned_amz_header_and_no_hidden_parameter_is_accepted() {
    let store = TestStore::start().await;
    let put = store.client("ingest").put_object().bucket(VAULT).key("granted");
    let signed = put.presigned(short()).await.expect("signed");
    let http = reqwest::Client::new();
    for (name, value) in [
        ("x-amz-acl", "public-read"),
        ("x-amz-meta-a", "b"),
        ("x-amz-object-lock-legal-hold", "ON"),
        ("x-amz-object-lock-mode", "GOVERNANCE"),
        ("x-amz-storage-class", "GLACIER"),
        ("x-amz-bypass-governance-retention", "true"),
        ("X-Amz-Copy-Source", "/vault/x"),
    ] {
        let answer = http.put(signed.uri()).header(name, value).body("b").send().await;
        assert_eq!(answer.expect("answers").status(), 403, "{name}");
    }
    for hidden in ["x-amz-copy-source=/vault/x", "x-amz-object-lock-mode=COMPLIANCE"] {
        let url = format!("{}&{hidden}", signed.uri());
        let answer = http.put(url).body("b").send().await.expect("answers");
        assert_eq!(answer.status(), 403, "{hidden}");
    }
    let plain = http.put(signed.uri()).body("b").send().await.expect("answers");
    assert_eq!(plain.status(), 200, "the grant itself works");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_2_url_reads_and_writes_for_the_administrator_only() {
    let store = TestStore::start().await;
    store.put(PLAIN, "o", b"o").await;
    let http = reqwest::Client::new();
    let expires = store.now().unix_secs() + 60;
    let url = |name: &str, bucket: &str, method: &str, amz: &str| {
        let text = format!("{method}\n\n\n{expires}\n{amz}/{bucket}/o");
        let mut mac = Hmac::<Sha1>::new_from_slice(format!("secret of {name}").as_bytes())
            .expect("any length");
        mac.update(text.as_bytes());
        let tag = STANDARD.encode(mac.finalize().into_bytes());
        let tag = tag.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let place = format!("{}/{bucket}/o", store.endpoint);
        format!("{place}?AWSAccessKeyId={name}&Signature={tag}&Expires={expires}")
    };
    let status = async |request: reqwest::RequestBuilder| {
        request.send().await.expect("answers").status().as_u16()
    };
    let get = url("admin", PLAIN, "GET", "");
    assert_eq!(status(http.get(&get)).await, 200);
    assert_eq!(status(http.get(format!("{get}&retention"))).await, 403);
    assert_eq!(status(http.get(&get).header("x-amz-meta-a", "1")).await, 403);
    assert_eq!(status(http.delete(url("admin", PLAIN, "DELETE", ""))).await, 403);
    assert_eq!(status(http.put(url("ingest", VAULT, "PUT", ""))).await, 403);
    let copy = url("admin", VAULT, "PUT", "x-amz-copy-source:/plain/o\n");
    assert_eq!(status(http.put(copy).header("x-amz-copy-source", "/plain/o")).await, 403);
    assert_eq!(status(http.put(url("admin", VAULT, "PUT", ""))).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_signature_or_with_a_foreign_one_are_refused() {
    let store = TestStore::start().await;
    store.put(PLAIN, "o", b"o").await;
    let http = reqwest::Client::new();
    for url in ["", "/", "/plain", "/plain/o", "/plain?versions", "/plain/o?acl"] {
        let answer = http.get(format!("{}{url}", store.endpoint)).send().await.expect("answers");
        assert_eq!(answer.status(), 403, "{url}");
    }
    let nobody = store.client("nobody").list_buckets().send().await;
    assert_eq!(code(nobody), "InvalidAccessKeyId");
    let form = reqwest::Client::new().post(format!("{}/plain", store.endpoint));
    let body = "--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nx\r\n--b\r\n\
                Content-Disposition: form-data; name=\"file\"\r\n\r\nx\r\n--b--\r\n";
    let form = form.header("content-type", "multipart/form-data; boundary=b").body(body);
    assert!(form.send().await.expect("answers").status().is_client_error());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_full_of_path_tricks_is_only_a_name() {
    let store = TestStore::start().await;
    let admin = store.client("admin");
    let parent = store.dir.path().parent().expect("a parent").to_owned();
    let tricks = [
        "../../escaped-by-everhold-test",
        "a/../../../escaped-by-everhold-test",
        "/absolute/escaped",
        "a//b/./c/..",
        "..",
        ".",
        "back\\slash\\..\\x",
        "%2e%2e%2fencoded",
        "ünï/日本/🦀",
        " spaces and + plus ?#&= ",
        "store.redb",
    ];
    for key in tricks {
        let put = admin.put_object().bucket(PLAIN).key(key);
        let put = put.body(ByteStream::from(key.as_bytes().to_vec())).send().await;
        assert_eq!(code(put), "Ok", "{key:?}");
        let got = admin.get_object().bucket(PLAIN).key(key).send().await.expect("there");
        let body = got.body.collect().await.expect("read").into_bytes();
        assert_eq!(body, key.as_bytes(), "{key:?}");
    }
    let nul = admin.put_object().bucket(PLAIN).key("nul\u{0}inside").send().await;
    assert_eq!(code(nul), "InvalidArgument", "it would break every listing");
    assert!(!parent.join("escaped-by-everhold-test").exists());
    assert!(!parent.parent().expect("root").join("escaped-by-everhold-test").exists());
    let mut names: Vec<_> = std::fs::read_dir(store.dir.path())
        .expect("the folder")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    assert_eq!(names, ["blobs", "lock", "store.redb", "tmp"]);
    let list = admin.list_objects_v2().bucket(PLAIN).send().await.expect("listed");
    let listed: Vec<_> = list.contents().iter().filter_map(|o| o.key()).collect();
    assert!(listed.contains(&"ünï/日本/🦀"), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_upload_leaves_neither_object_nor_file() {
    let store = TestStore::start().await;
    let put = store.client("ingest").put_object().bucket(VAULT).key("cut");
    let signed = put.content_length(3_000_000).presigned(short()).await.expect("signed");
    let half = futures::stream::iter([
        Ok(bytes::Bytes::from(vec![1_u8; 2_000_000])),
        Err(std::io::Error::other("cut")),
    ]);
    let mut request = reqwest::Client::new().put(signed.uri());
    for (name, value) in signed.headers() {
        request = request.header(name, value);
    }
    let sent = request.body(reqwest::Body::wrap_stream(half)).send().await;
    assert!(sent.is_err() || sent.is_ok_and(|answer| answer.status().is_client_error()));
    let head = store.client("admin").head_object().bucket(VAULT).key("cut").send().await;
    assert_eq!(code(head), "NotFound");
    // The server notices the cut line on its own time; a restart waits for it.
    let store = store.restart().await;
    assert_eq!((store.blobs(), store.temporary_files()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_create_only_puts_at_once_exactly_one_wins() {
    let store = TestStore::start().await;
    let client = store.client("ingest");
    let puts = (0..24_u8).map(|n| {
        let put = client.put_object().bucket(VAULT).key("race").if_none_match("*");
        put.body(ByteStream::from(vec![n])).send()
    });
    let answers: Vec<_> =
        futures::stream::iter(puts).buffer_unordered(24).map(code).collect().await;
    let won = answers.iter().filter(|code| *code == "Ok").count();
    let lost = answers.iter().filter(|code| *code == "PreconditionFailed").count();
    assert_eq!((won, lost), (1, 23), "{answers:?}");
    assert_eq!(store.blobs(), 1, "the losers' bodies are gone");
}
