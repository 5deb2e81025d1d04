//! The way of production: `migrate`, `doctor`, and `serve` from a configuration, all roles in one process and
//! spread over two, on a real PostgreSQL and a real S3 endpoint (those of a running `everhold dev`).

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use reqwest::{Client, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    compare,
    harness::{Agent, Platform, bin, folder, tool, wait_for},
};

/// A port nobody listens on, below the range that outgoing connections take theirs from, and never the same twice.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 1_000).expect("below 1000") * 12;
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// `everhold serve` with its ports.
struct Served {
    child: Child,
    public: u16,
    admin: u16,
    log: PathBuf,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Served {
    fn start(config: &Path, roles: &[&str], public: u16, admin: u16) -> Self {
        let log_path = config.with_extension("log");
        let log = fs::File::create(&log_path).expect("log");
        let child = Command::new(bin("everhold"))
            .arg("serve")
            .args(roles)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("everhold serve starts");
        Self { child, public, admin, log: log_path }
    }

    async fn ready(&mut self) {
        let url = format!("http://127.0.0.1:{}/readyz", self.admin);
        for _ in 0..1_200 {
            if reqwest::get(&url).await.is_ok_and(|reply| reply.status() == StatusCode::OK) {
                return;
            }
            if self.child.try_wait().expect("wait").is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{url} never became ready:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("signal");
        let status = wait_for("serve to stop", Duration::from_secs(20), || {
            self.child.try_wait().expect("wait")
        });
        assert!(status.success(), "everhold serve stopped with {status}");
    }
}

/// Writes a configuration for the dev platform's database and store. `origin` is what people and agents use.
fn configure(
    platform: &Platform,
    file: &Path,
    origin: u16,
    (public, admin, internal): (u16, u16, Option<u16>),
    peers: &[(&str, u16)],
) -> PathBuf {
    let secrets = fs::read(platform.state.join("secrets/secrets.json")).expect("secrets");
    let secrets: Value = serde_json::from_slice(&secrets).expect("json");
    let owner = platform.get("/postgres_url");
    let internal =
        internal.map(|port| format!("internal = \"127.0.0.1:{port}\"\n")).unwrap_or_default();
    let peers: String = peers
        .iter()
        .map(|(role, port)| format!("{role} = \"http://127.0.0.1:{port}\"\n"))
        .collect();
    let keys: String = ["access", "service", "receipt", "roster"]
        .iter()
        .map(|name| format!("{name} = {}\n", secrets[name]))
        .collect();
    let store: String = ["ingest", "restore", "steward", "reaper", "key_keeper"]
        .iter()
        .map(|name| {
            let key = &secrets[format!("store_{name}")];
            format!(
                "{name} = {{ access_key = {}, secret_key = {} }}\n",
                key["access_key"], key["secret_key"]
            )
        })
        .collect();
    let text = format!(
        "public_url = \"http://127.0.0.1:{origin}\"\n\
         [listen]\npublic = \"127.0.0.1:{public}\"\nadmin = \"127.0.0.1:{admin}\"\n{internal}\
         [peers]\n{peers}\
         [database]\nurl = \"{}\"\nowner_url = \"{owner}\"\n\
         [keys]\n{keys}wrapper_file = \"{}\"\n\
         [store]\nendpoint = \"{}\"\nbucket = \"{}\"\nkey_bucket = \"everhold-keys\"\npath_style = true\n{store}",
        owner.replacen("postgres@", "", 1),
        platform.state.join("secrets/platform-wrapper.key").display(),
        platform.get("/s3/endpoint"),
        platform.get("/s3/bucket"),
    );
    fs::write(file, text).expect("write");
    file.to_owned()
}

fn source(dir: &Path) -> PathBuf {
    let source = dir.join("source");
    fs::create_dir(&source).expect("mkdir");
    for i in 0..50 {
        fs::write(source.join(format!("file-{i}")), format!("{i}").repeat(i * 100)).expect("write");
    }
    source
}

#[tokio::test]
async fn a_configured_server_migrates_passes_the_doctor_and_serves_beside_another_replica() {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let (public, admin) = (free_port(), free_port());
    let config =
        configure(&platform, &dir.path().join("one.toml"), public, (public, admin, None), &[]);
    let server = bin("everhold").display().to_string();
    for command in ["migrate", "doctor"] {
        tool(&server, &[command.as_ref(), "--config".as_ref(), config.as_ref()]).expect(0);
    }
    let mut served = Served::start(&config, &[], public, admin);
    served.ready().await;
    let metrics = reqwest::get(format!("http://127.0.0.1:{admin}/metrics")).await.expect("answers");
    assert!(metrics.text().await.expect("text").contains("everhold_http_requests"));

    // Enrolled at one replica, backed up through it; the other one knows.
    let source = source(dir.path());
    let agent = Agent::enrol_at(
        &platform,
        &format!("http://127.0.0.1:{public}"),
        &dir.path().join("home"),
        None,
    );
    let snapshot = agent.backup(&[&source])["snapshot_id"].as_str().expect("id").to_owned();
    served.stop();
    let other = Platform::start(&dir.path().join("other"));
    let refused = agent.move_to(other.get("/api_url")).expect(1).stderr;
    assert!(refused.contains("is another platform"), "{refused}");
    drop(other);
    assert_eq!(agent.move_to(platform.get("/api_url")).expect(0).last_json()["moved"], true);
    let target = dir.path().join("out");
    agent.restore(&snapshot, &target);
    compare::same_content(&source, &target.join(source.strip_prefix("/").expect("absolute")));
}

#[tokio::test]
async fn roles_spread_over_two_processes_work_together() {
    let dir = folder();
    let platform = Platform::start(&dir.path().join("state"));
    let source = source(dir.path());
    let agent = Agent::enrol(&platform, &dir.path().join("home"), None);
    let ports: Vec<u16> = (0..6).map(|_| free_port()).collect();
    let [a_public, a_admin, a_internal, b_public, b_admin, b_internal] = ports[..] else {
        unreachable!()
    };
    let a = configure(
        &platform,
        &dir.path().join("a.toml"),
        a_public,
        (a_public, a_admin, Some(a_internal)),
        &[("catalog", b_internal), ("scheduler", b_internal)],
    );
    let b = configure(
        &platform,
        &dir.path().join("b.toml"),
        a_public,
        (b_public, b_admin, Some(b_internal)),
        &[("auth", a_internal), ("audit", a_internal), ("billing", a_internal)],
    );
    let mut people = Served::start(&a, &["auth", "audit", "billing"], a_public, a_admin);
    let mut backups = Served::start(&b, &["catalog", "scheduler"], b_public, b_admin);
    people.ready().await;
    backups.ready().await;

    // The agent speaks to catalog and scheduler; its signatures are checked by auth in the other process.
    agent.move_to(&format!("http://127.0.0.1:{}", backups.public)).expect(0);
    agent.backup(&[&source]);

    // A token of the one process opens the other, and facts arrive in the other direction.
    let client = Client::new();
    let body = json!({"grant_type": "password", "email": platform.get("/tenant/email"), "password": platform.get("/tenant/password")});
    let url = format!("http://127.0.0.1:{}/v1/auth/token", people.public);
    let token: Value =
        client.post(url).json(&body).send().await.expect("answers").json().await.expect("json");
    let token = token["access_token"].as_str().expect("a token");
    let tenant = platform.get("/tenant/id");
    let get = async |port: u16, path: &str| -> Value {
        let url = format!("http://127.0.0.1:{port}/v1/tenants/{tenant}/{path}");
        client
            .get(url)
            .bearer_auth(token)
            .send()
            .await
            .expect("answers")
            .json()
            .await
            .expect("json")
    };
    let snapshots = get(backups.public, "snapshots").await;
    assert_eq!(snapshots["items"].as_array().map(Vec::len), Some(1), "{snapshots}");
    let mut recorded = false;
    for _ in 0..200 {
        let events = get(people.public, "audit/events").await;
        recorded = events.to_string().contains("snapshot.committed");
        if recorded {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(recorded, "the commit's event crossed over to the audit role");
    people.stop();
    backups.stop();
}
