//! Between a role and PostgreSQL: every COMMIT passes here.
//!
//! Reads as much of the protocol as it takes to see where messages begin. Invariant: a COMMIT that is said to have
//! failed never reached the server, one whose answer is lost took effect before the connection ends.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
};

use crate::plan::{Fault, Op, Plan, Seam, Verdict};

/// Where the server's socket is; known when the first URL is rewritten.
pub type Socket = Arc<Mutex<Option<PathBuf>>>;

/// The same database, by way of the listener at `port`.
pub fn through(url: &str, port: u16, socket: &Socket) -> String {
    let (before, host) = url.split_once("?host=").expect("a URL of the test cluster");
    let folder = host.split('&').next().unwrap_or(host).replace("%2F", "/");
    let number = host.split('&').find_map(|part| part.strip_prefix("port=")).unwrap_or("5432");
    *socket.lock().unwrap_or_else(PoisonError::into_inner) =
        Some(PathBuf::from(folder).join(format!(".s.PGSQL.{number}")));
    let (login, database) = before.rsplit_once('/').expect("a database");
    let login = login.rsplit_once('@').map_or(login, |(login, _)| login);
    format!("{login}@127.0.0.1:{port}/{database}?sslmode=disable")
}

/// Serves until the test ends.
pub async fn serve(listener: TcpListener, socket: Socket, plan: Arc<Plan>) {
    while let Ok((client, _)) = listener.accept().await {
        let path = socket.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(path) = path else { continue };
        let plan = plan.clone();
        let _ = client.set_nodelay(true);
        tokio::spawn(async move {
            if let Ok(server) = UnixStream::connect(path).await {
                let _ = carry(client, server, &plan).await;
            }
        });
    }
}

async fn carry(mut client: TcpStream, mut server: UnixStream, plan: &Plan) -> io::Result<()> {
    let mut waiting: Vec<u8> = Vec::new();
    let (mut from_client, mut from_server) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    let (mut started, mut life) = (false, plan.life());
    loop {
        tokio::select! {
            () = life.over() => return Ok(()),
            read = client.read(&mut from_client) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                waiting.extend_from_slice(&from_client[..read]);
                while let Some(length) = message(&waiting, started) {
                    let rest = waiting.split_off(length);
                    let message = std::mem::replace(&mut waiting, rest);
                    started = true;
                    if !pass(&message, &mut server, plan).await? {
                        return Ok(());
                    }
                }
            }
            read = server.read(&mut from_server) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                client.write_all(&from_server[..read]).await?;
            }
        }
    }
}

/// Length of the first message, when all of it is here. The very first has no type.
fn message(bytes: &[u8], started: bool) -> Option<usize> {
    let at = usize::from(started);
    let length = bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)?;
    let whole = at + usize::try_from(length).ok()?;
    (bytes.len() >= whole).then_some(whole)
}

/// Forwards a message. `false`: the connection is over.
async fn pass(message: &[u8], server: &mut UnixStream, plan: &Plan) -> io::Result<bool> {
    let is_commit = message.first() == Some(&b'Q') && message[5..].starts_with(b"COMMIT");
    let verdict = if is_commit {
        plan.ask(&Op { seam: Seam::Sql, name: "COMMIT".to_owned() })
    } else {
        Verdict::Pass
    };
    match verdict {
        Verdict::Dead => return Ok(false),
        Verdict::Do(Fault::Delay) => tokio::time::sleep(Duration::from_millis(25)).await,
        Verdict::Do(Fault::LoseAck | Fault::KillAfter) => {
            server.write_all(message).await?;
            until_ready(server).await?;
            if verdict == Verdict::Do(Fault::KillAfter) {
                plan.kill(Seam::Sql);
            }
            return Ok(false);
        }
        Verdict::Do(_) => return Ok(false),
        Verdict::Pass => {}
    }
    server.write_all(message).await?;
    Ok(true)
}

/// Reads to the end of the server's answer, `ReadyForQuery`.
async fn until_ready(server: &mut UnixStream) -> io::Result<()> {
    loop {
        let kind = server.read_u8().await?;
        let length = server.read_u32().await?;
        let mut body = vec![0; usize::try_from(length).unwrap_or(0).saturating_sub(4)];
        server.read_exact(&mut body).await?;
        if kind == b'Z' {
            return Ok(());
        }
    }
}
