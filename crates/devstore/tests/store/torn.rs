//! A store whose answers break off: the engine's client must not take a part for the whole.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use vault::store::{S3Store, StoreError};

use crate::harness::TestStore;

/// Whatever is asked for, this is the answer.
async fn always(body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let endpoint = format!("http://{}", listener.local_addr().expect("address"));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut asked = vec![0; 16_384];
            let _ = socket.read(&mut asked).await;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\nconnection: close\r\n";
            let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    endpoint
}

const ONE: &str = "<Version><Key>k</Key><VersionId>v</VersionId><IsLatest>true</IsLatest>\
    <LastModified>2026-01-01T00:00:00Z</LastModified><Size>3</Size></Version>";

/// A client of a store that answers everything with this.
async fn told(body: String) -> S3Store {
    let mut config = TestStore::start().await.config();
    config.endpoint = Some(always(body.leak()).await.parse().expect("a URL"));
    S3Store::connect(config).await.expect("connects")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_breaks_off_is_no_list() {
    let list = async |inside: &str| {
        let store = told(format!("<ListVersionsResult>{inside}</ListVersionsResult>")).await;
        store.list_versions("", None).await
    };
    let whole = list(&format!("{ONE}<IsTruncated>false</IsTruncated>")).await.expect("a list");
    assert_eq!((whole.versions.len(), whole.next.is_none()), (1, true));
    let next = "<IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>";
    let page = list(&format!("{ONE}{next}")).await.expect("a page");
    assert_eq!(page.next.expect("more").key, "k");
    for torn in [format!("{ONE}<IsTruncated>true</IsTruncated>"), ONE.to_owned()] {
        let refused = list(&torn).await;
        assert!(matches!(refused, Err(StoreError::Incomplete { .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn key_objects_are_listed_whole_or_not_at_all() {
    let page = |says: &str| {
        let object = "<Contents><Key>k/a</Key><Size>3</Size>\
            <LastModified>2026-01-01T00:00:00Z</LastModified></Contents>";
        format!("<ListBucketResult>{object}{says}</ListBucketResult>")
    };
    let list = async |body: String| told(body).await.list_key_objects("k/").await;
    let whole = list(page("<IsTruncated>false</IsTruncated>")).await.expect("a list");
    assert_eq!(whole, ["k/a"]);
    let html = "<html><body>Service temporarily unavailable</body></html>".to_owned();
    for torn in [page("<IsTruncated>true</IsTruncated>"), page(""), html] {
        assert!(list(torn.clone()).await.is_err(), "{torn}");
    }
}
