//! Serves a folder with one administrator key, for trying clients by hand and for
//! `tests/strangers`: `cargo run -p devstore --example serve -- DIR [PORT]`.

use std::sync::Arc;

use devstore::{Config, DevStore, Key, Policy};
use domain::SystemClock;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().unwrap_or_else(|| ".devstore".into());
    let port: u16 = arguments.next().map_or(Ok(0), |text| text.parse())?;
    // A fixed secret is fine for an example on loopback; `everhold devstore` makes random ones.
    let admin = Key {
        access_key: "admin".into(),
        secret_key: "adminadmin12345".into(),
        policy: Policy::Administrator,
        buckets: Vec::new(),
    };
    let clock = Arc::new(SystemClock);
    let store = DevStore::open(Config { dir: dir.into(), keys: vec![admin], clock })?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}", listener.local_addr()?);
    let stop = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    Ok(store.serve(listener, stop).await?)
}
