//! Free loopback ports, the same ones again after a restart where they are still free.
//!
//! Agents keep the server's address, so a port that wanders would cut them off.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::secrets::write_private;

/// The ports of the last start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ports {
    pub public: u16,
    pub admin: u16,
    pub store: u16,
}

/// Sockets, bound.
pub struct Bound {
    pub ports: Ports,
    /// Both addresses of `localhost`, where the machine has both.
    pub public: Vec<TcpListener>,
    pub admin: TcpListener,
    pub store: TcpListener,
}

/// Binds everything; `wanted`: the portal's port as the caller named it.
pub async fn bind(state: &Path, wanted: Option<u16>) -> anyhow::Result<Bound> {
    let file = state.join("ports.json");
    let last: Ports = std::fs::read(&file)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let public = match wanted {
        Some(port) => localhost(port).await.with_context(|| {
            format!("port {port} is not free; leave --port out to have one picked")
        })?,
        None => first_free(last.public, 8080).await?,
    };
    let admin = single(last.admin).await?;
    let store = single(last.store).await?;
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    let ports = Ports {
        public: port(public.first().context("a listener was bound")?)?,
        admin: port(&admin)?,
        store: port(&store)?,
    };
    if last.public != 0 && last.public != ports.public {
        tracing::warn!(
            was = last.public,
            now = ports.public,
            "the portal's port has changed; agents enrolled before look for the old one"
        );
    }
    write_private(&file, &serde_json::to_vec(&ports)?)?;
    Ok(Bound { ports, public, admin, store })
}

/// The port of last time, the usual one, or any.
async fn first_free(last: u16, usual: u16) -> anyhow::Result<Vec<TcpListener>> {
    for port in [last, usual].into_iter().filter(|port| *port != 0) {
        if let Ok(bound) = localhost(port).await {
            return Ok(bound);
        }
    }
    for _ in 0..20 {
        if let Ok(bound) = localhost(0).await {
            return Ok(bound);
        }
    }
    bail!("no loopback port is free")
}

/// Both addresses of `localhost`: one taken by somebody else would get half of our callers.
async fn localhost(port: u16) -> std::io::Result<Vec<TcpListener>> {
    let four = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let port = four.local_addr()?.port();
    match TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await {
        Ok(six) => Ok(vec![four, six]),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(error),
        // No IPv6 here.
        Err(_) => Ok(vec![four]),
    }
}

async fn single(last: u16) -> anyhow::Result<TcpListener> {
    if last != 0
        && let Ok(bound) = TcpListener::bind((Ipv4Addr::LOCALHOST, last)).await
    {
        return Ok(bound);
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no loopback port is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ports_stay_over_restarts_and_a_taken_one_is_replaced() {
        let dir = tempfile::tempdir().expect("folder");
        let first = bind(dir.path(), None).await.expect("bound").ports;
        assert_eq!(bind(dir.path(), None).await.expect("bound").ports, first);
        let squatter = TcpListener::bind((Ipv4Addr::LOCALHOST, first.store)).await.expect("taken");
        let second = bind(dir.path(), None).await.expect("bound").ports;
        assert_ne!(second.store, first.store);
        assert_eq!(second.public, first.public);
        drop(squatter);
        let named = bind(dir.path(), Some(first.admin)).await;
        assert!(named.is_ok_and(|bound| bound.ports.public == first.admin));
    }
}
