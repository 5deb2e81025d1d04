//! The fault proxy does to real HTTP what it says: the server's view and the caller's view of each fault.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, routing::any};
use http_body_util::BodyExt as _;
use testkit::proxy::{Fault, FaultProxy, Rule};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

type Received = Arc<AtomicUsize>;

/// Echoes bodies and counts the requests it has read whole.
async fn echo(State(received): State<Received>, body: axum::body::Body) -> Result<Bytes, String> {
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    received.fetch_add(1, Ordering::SeqCst);
    Ok(if body.is_empty() { Bytes::from_static(b"hello") } else { body })
}

async fn scene() -> (FaultProxy, Received) {
    let received = Received::default();
    let router = Router::new().route("/{*path}", any(echo)).with_state(received.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    (FaultProxy::before(address).expect("proxy"), received)
}

/// The bytes that come back for one request, until the connection ends.
async fn ask(proxy: &FaultProxy, method: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(proxy.address()).await.expect("connect");
    let length = body.len();
    let head = format!(
        "{method} /some/thing?q=1 HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn without_a_rule_everything_passes_and_is_counted() {
    let (proxy, received) = scene().await;
    let large = "x".repeat(300_000);
    assert!(ask(&proxy, "PUT", &large).await.ends_with(&large));
    assert!(ask(&proxy, "HEAD", "").await.starts_with("HTTP/1.1 200"));
    assert_eq!(received.load(Ordering::SeqCst), 2);
    assert_eq!(proxy.count(|request| request.method == "PUT" && request.query == "q=1"), 1);
    assert_eq!(proxy.struck(), 0);
}

#[tokio::test]
async fn each_fault_is_what_it_says_to_both_sides() {
    let (proxy, received) = scene().await;
    let answers = [
        (Fault::Refuse, 0, None),
        (Fault::s3_error(503, "SlowDown"), 0, Some("<Code>SlowDown</Code>")),
        (Fault::html_as_200(), 0, Some("HTTP/1.1 200")),
        (Fault::CutRequest { after: 3 }, 0, None),
        (Fault::LoseAnswer, 1, None),
        (
            Fault::ReplaceAnswer { status: 500, content_type: "text/plain", body: "no".into() },
            1,
            Some("HTTP/1.1 500"),
        ),
        (Fault::CutAnswer { after: 4 }, 1, Some("\r\n\r\nabcd")),
        (Fault::ShortAnswer { length: 2 }, 1, Some("content-length: 2")),
        (Fault::FlipBit { at: 1 }, 1, Some("\r\n\r\naccdef")),
    ];
    for (fault, served, said) in answers {
        let before = received.load(Ordering::SeqCst);
        proxy.add(Rule::new(fault.clone()));
        let answer = ask(&proxy, "PUT", "abcdef").await;
        match said {
            Some(part) => assert!(answer.contains(part), "{fault:?}: {answer}"),
            None => assert_eq!(answer, "", "{fault:?}"),
        }
        assert_eq!(received.load(Ordering::SeqCst) - before, served, "{fault:?}");
        let answered = proxy.seen().last().and_then(|seen| seen.answered);
        assert_eq!(answered, (served > 0).then_some(200), "{fault:?}");
        // One rule, one strike: the next request is whole again.
        assert!(ask(&proxy, "PUT", "abcdef").await.ends_with("\r\n\r\nabcdef"), "{fault:?}");
    }
    assert_eq!(proxy.struck(), 9);
}

#[tokio::test]
async fn a_stalled_caller_waits_and_a_slow_one_arrives() {
    let (proxy, received) = scene().await;
    proxy.add(Rule::new(Fault::Stall));
    let waited = tokio::time::timeout(Duration::from_millis(200), ask(&proxy, "PUT", "abc")).await;
    assert!(waited.is_err(), "no answer comes");
    assert_eq!(received.load(Ordering::SeqCst), 0);
    proxy.add(Rule::new(Fault::Slow { bytes_per_second: 100_000 }));
    let start = Instant::now();
    let body = "y".repeat(50_000);
    assert!(ask(&proxy, "PUT", &body).await.ends_with(&body));
    assert!(start.elapsed() > Duration::from_millis(300), "{:?}", start.elapsed());
}

#[tokio::test]
async fn rules_choose_by_request_and_by_turn() {
    let (proxy, _) = scene().await;
    proxy.add(Rule::new(Fault::Refuse).when(|request| request.method == "GET").skip(1).times(2));
    let mut refused = Vec::new();
    for method in ["GET", "PUT", "GET", "PUT", "GET", "GET"] {
        refused.push(ask(&proxy, method, "").await.is_empty());
    }
    assert_eq!(refused, [false, false, true, false, true, false]);
}
