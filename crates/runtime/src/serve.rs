//! Sockets: HTTP/1.1 with a header deadline, a bound on open connections, and a drain that ends.

use std::{io::Write as _, sync::Arc, time::Duration};

use axum::{Extension, Router, extract::ConnectInfo};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A client that does not finish its headers in this time is a mistake or an attack.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// Requests under way when the process stops get this long.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// Connections open at once on one listener. Below what a process may have open files, and what its memory
/// holds; more are answered [`FULL`] and closed, so that a balancer tries another replica.
const MAX_CONNECTIONS: usize = 4_096;
/// The whole answer to a connection too many; nothing of it was read.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 2\r\n\
    content-length: 0\r\n\r\n";

/// Serves until `stop`, then lets requests under way finish, for a bounded time.
///
/// # Errors
/// Never at present; a socket that cannot accept for a moment is waited for.
pub async fn serve_public(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    serve_at_most(MAX_CONNECTIONS, listener, router, stop).await
}

/// [`serve_public`] with another bound on open connections.
///
/// # Errors
/// As [`serve_public`].
pub async fn serve_at_most(
    connections_at_once: usize,
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let places = Arc::new(Semaphore::new(connections_at_once));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(place) = places.clone().try_acquire_owned() else {
                    turn_away(stream);
                    continue;
                };
                // Handlers that slow down guessing ask who is at the other end.
                let router = router.clone().layer(Extension(ConnectInfo(peer)));
                connections.spawn(connection(stream, router, stop.clone(), place));
            }
            Err(error) => {
                // Out of descriptors, or the peer is gone already: neither ends the server.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_WITHIN, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "connections were cut off");
    }
    Ok(())
}

/// The internal listener: same manners, other router.
///
/// # Errors
/// As [`serve_public`].
pub async fn serve_internal(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    serve_public(listener, router, stop).await
}

/// Says so and closes. The socket's buffer is empty and takes it at once.
fn turn_away(stream: TcpStream) {
    let told = stream.into_std().and_then(|mut stream| stream.write_all(FULL));
    tracing::warn!(told = told.is_ok(), "a connection too many was turned away");
}

async fn connection(
    stream: TcpStream,
    router: Router,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    let service = TowerToHyperService::new(router);
    let connection = server.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut draining = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection ended badly");
                }
                return;
            }
            () = stop.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
