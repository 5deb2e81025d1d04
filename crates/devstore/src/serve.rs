//! The listener: loopback only, HTTP/1.1, graceful end.

use std::{future::Future, net::SocketAddr, path::Path, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::{TcpListener, TcpStream};

use crate::s3::Store;

/// How often the trusted time is written down.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long requests in flight may take to end after the shutdown was asked for.
const DRAIN: Duration = Duration::from_secs(10);
/// The file by which an operator confirms the wall clock from outside.
pub(crate) const CONFIRM: &str = "confirm-clock";

/// Why the store does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(
        "the embedded store serves this machine only: {0} is not a loopback address; \
         use a real object store for anything else"
    )]
    NotLoopback(SocketAddr),
    #[error("the listener failed")]
    Listener(#[from] std::io::Error),
}

pub(crate) async fn serve(
    store: Store,
    folder: &Path,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        return Err(ServeError::NotLoopback(address));
    }
    let service = service(&store);
    let graceful = GracefulShutdown::new();
    let mut beat = tokio::time::interval(HEARTBEAT);
    let mut shutdown = std::pin::pin!(shutdown);
    tracing::info!(%address, "the embedded object store serves; for this machine only");
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            _ = beat.tick() => heartbeat(&store, folder).await,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connect(stream, &service, &graceful),
                // Out of descriptors, or a peer that was gone at once: the listener lives on.
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were cut off at the end of the drain time");
    }
    heartbeat(&store, folder).await;
    Ok(())
}

fn service(store: &Store) -> S3Service {
    let mut builder = S3ServiceBuilder::new(store.clone());
    builder.set_auth(store.keys.clone());
    builder.set_access(store.keys.clone());
    builder.build()
}

fn connect(stream: TcpStream, service: &S3Service, graceful: &GracefulShutdown) {
    // Small answers would wait for the peer's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30))
        .serve_connection(TokioIo::new(stream), service.clone());
    let watched = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = watched.await {
            tracing::debug!(error = %error, "a connection ended early");
        }
    });
}

async fn heartbeat(store: &Store, folder: &Path) {
    let file = folder.join(CONFIRM);
    if tokio::fs::remove_file(&file).await.is_ok() {
        tracing::warn!("an operator confirmed the wall clock");
        store.clock.confirm();
    }
    if store.clock.doubted() {
        tracing::warn!(
            "the wall clock jumped ahead: versions locked until after the jump cannot be deleted \
             until an operator confirms the clock (create the file {CONFIRM} in the store's folder)"
        );
    }
    let beat = store.clock.heartbeat();
    if let Err(error) = store.meta.write(move |rows| Ok(rows.set_heartbeat(&beat)?)).await {
        tracing::error!(error = &error as &dyn std::error::Error, "the heartbeat was not written");
    }
}
