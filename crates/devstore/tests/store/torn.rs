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

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_breaks_off_is_no_list() {
    let store = TestStore::start().await;
    let list = async |inside: &str| {
        let body = format!("<ListVersionsResult>{inside}</ListVersionsResult>");
        let mut config = store.config();
        config.endpoint = Some(always(body.leak()).await.parse().expect("a URL"));
        let store = S3Store::connect(config).await.expect("connects");
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
