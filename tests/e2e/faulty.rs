//! Faults between agent, control plane and store, by proxies: backups commit, every key has one version, restores are
//! equal, nothing hangs, and what is refused for good ends with advice.
//!
//! [`Faulty`] is the scene others may use too: the embedded store as a process of its own, a proxy before it whose
//! address the platform takes for the store's (so signatures hold), and a proxy before the control plane.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use testkit::proxy::{Fault, FaultProxy, Request, Rule};

use crate::{
    compare,
    harness::{Agent, Platform, Stop, bin, folder, is_root, noise, tool},
};

/// A platform whose store and control plane are reached through proxies.
pub struct Faulty {
    pub agent: Agent,
    /// Before the control plane, for the agent alone.
    pub control: FaultProxy,
    _platform: Platform,
    /// Before the store, for everybody.
    pub store: FaultProxy,
    _process: Stop,
    pub dir: tempfile::TempDir,
}

/// `everhold devstore` on a folder with one key for all jobs.
pub fn devstore(dir: &Path) -> (Stop, SocketAddr) {
    let keys = dir.join("keys.json");
    let key = r#"[{"access_key": "admin", "secret_key": "a secret of this test", "policy": "administrator"}]"#;
    fs::write(&keys, key).expect("keys");
    let mut child = Command::new(bin("everhold"))
        .arg("devstore")
        .arg("--dir")
        .arg(dir.join("store"))
        .args(["--listen", "127.0.0.1:0", "--keys"])
        .arg(&keys)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("everhold devstore starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    let child = Stop(child);
    BufReader::new(stdout).read_line(&mut line).expect("its address");
    let address = line.trim().strip_prefix("http://").expect("an address");
    (child, address.parse().expect("an address"))
}

/// Makes a folder of some megabytes that do not compress: several packs.
pub fn noisy(source: &Path) -> PathBuf {
    fs::create_dir(source).expect("mkdir");
    for file in 0..6 {
        fs::write(source.join(format!("noise-{file}")), noise(file, 6 << 20)).expect("write");
        fs::write(source.join(format!("small-{file}")), format!("{file}\n").repeat(500))
            .expect("write");
    }
    source.to_owned()
}

impl Faulty {
    pub fn start() -> Self {
        let dir = folder();
        let (process, address) = devstore(dir.path());
        let store = FaultProxy::before(address).expect("proxy");
        let settings = dir.path().join("store.toml");
        let text = format!(
            "endpoint = \"{}\"\naccess_key = \"admin\"\nsecret_key = \"a secret of this test\"\n",
            store.url()
        );
        fs::write(&settings, text).expect("settings");
        let args: [&std::ffi::OsStr; 2] = ["--store".as_ref(), settings.as_ref()];
        let platform = Platform::start_with(&dir.path().join("state"), &args);
        let api = platform.get("/api_url").strip_prefix("http://").expect("http").to_owned();
        let api = api.trim_end_matches('/').replace("localhost", "127.0.0.1");
        let control = FaultProxy::before(api.parse().expect("an address")).expect("proxy");
        let agent = Agent::enrol_at(&platform, &control.url(), &dir.path().join("home"), None);
        Self { agent, control, _platform: platform, store, _process: process, dir }
    }

    /// A folder of some megabytes that do not compress: several packs.
    pub fn source(&self) -> PathBuf {
        noisy(&self.dir.path().join("source"))
    }

    /// Every key that was ever put has been stored once, everything verifies, and the restore is equal.
    fn is_whole(&self, source: &Path) {
        self.store.clear();
        self.control.clear();
        let mut stored: BTreeMap<String, usize> = BTreeMap::new();
        for seen in self.store.seen().iter().filter(|seen| is_put(&seen.request)) {
            let made = usize::from(seen.answered == Some(200));
            *stored.entry(seen.request.path.clone()).or_default() += made;
        }
        assert!(stored.len() >= 3, "data, metadata, manifest: {stored:?}");
        assert!(stored.values().all(|count| *count == 1), "one version each: {stored:#?}");
        self.agent.run(["verify", "--read-data"]).expect(0);
        let target = self.dir.path().join("out");
        self.agent.restore("latest", &target);
        compare::same_content(source, &target.join(source.strip_prefix("/").expect("absolute")));
    }
}

/// An agent's upload.
pub fn is_put(request: &Request) -> bool {
    request.method == "PUT" && request.is_presigned()
}

/// An agent's download.
pub fn is_get(request: &Request) -> bool {
    request.method == "GET" && request.is_presigned()
}

fn posts(end: &'static str) -> impl Fn(&Request) -> bool + Send + 'static {
    move |request| request.method == "POST" && request.path.ends_with(end)
}

#[test]
fn lost_acknowledgements_store_nothing_twice() {
    let scene = Faulty::start();
    let source = scene.source();
    // The first PUT, every third after it, and each step of the control plane once.
    scene.store.add(Rule::new(Fault::LoseAnswer).when(is_put).times(2));
    for end in ["/packs", "/packs/confirm", "/commit", "/sessions"] {
        scene.control.add(Rule::new(Fault::LoseAnswer).when(posts(end)));
    }
    let said = scene.agent.backup(&[&source]);
    assert_eq!(said["status"], "succeeded", "{said}");
    assert_eq!((scene.store.struck(), scene.control.struck()), (2, 4));
    let refused = scene.store.seen().iter().filter(|seen| seen.answered == Some(412)).count();
    assert_eq!(refused, 2, "the second tries were told that the object exists");
    scene.is_whole(&source);
}

#[test]
fn cut_connections_and_passing_errors_are_tried_again() {
    let scene = Faulty::start();
    let source = scene.source();
    let faults = [
        Fault::CutRequest { after: 100_000 },
        Fault::CutRequest { after: 0 },
        Fault::Refuse,
        Fault::s3_error(500, "InternalError"),
        Fault::s3_error(503, "SlowDown"),
        // As of a grant that has run out.
        Fault::s3_error(403, "AccessDenied"),
        Fault::html_as_200(),
        Fault::ReplaceAnswer { status: 502, content_type: "text/html", body: "bad gateway".into() },
    ];
    let count = faults.len();
    for fault in faults {
        scene.store.add(Rule::new(fault).when(is_put));
    }
    scene.control.add(Rule::new(Fault::Refuse).when(posts("/packs/confirm")));
    let problem = Fault::Answer { status: 503, content_type: "text/plain", body: "away".into() };
    scene.control.add(Rule::new(problem).when(posts("/packs")));
    scene.control.add(Rule::new(Fault::Refuse).when(posts("/commit")));
    let said = scene.agent.backup(&[&source]);
    assert_eq!(said["status"], "succeeded", "{said}");
    assert_eq!((scene.store.struck(), scene.control.struck()), (count, 3));
    scene.is_whole(&source);
}

#[test]
fn a_stalled_store_is_given_up_after_a_minute_and_asked_again() {
    let scene = Faulty::start();
    let source = scene.source();
    scene.store.add(Rule::new(Fault::Stall).when(is_put));
    let start = Instant::now();
    let said = scene.agent.backup(&[&source]);
    assert_eq!(said["status"], "succeeded", "{said}");
    let took = start.elapsed();
    assert!(took > Duration::from_secs(30) && took < Duration::from_secs(110), "{took:?}");
    scene.is_whole(&source);
}

#[test]
fn a_store_that_refuses_for_good_ends_the_run_soon_and_says_what_to_do() {
    let scene = Faulty::start();
    let source = scene.source();
    scene.store.add(Rule::new(Fault::s3_error(403, "AccessDenied")).when(is_put).for_ever());
    let start = Instant::now();
    let said = scene.agent.run(["backup".as_ref(), source.as_os_str()]).expect(1);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert!(said.stderr.contains("403 (AccessDenied)"), "{}", said.stderr);
    assert!(said.stderr.contains("next: ") && said.stderr.contains("probe"), "{}", said.stderr);
    scene.store.clear();
    let said = scene.agent.backup(&[&source]);
    assert_eq!(said["status"], "succeeded", "{said}");
    scene.agent.run(["verify", "--read-data"]).expect(0);
}

#[test]
fn a_restore_outlasts_cut_short_and_foreign_answers() {
    let scene = Faulty::start();
    let source = scene.source();
    scene.agent.backup(&[&source]);
    // Nothing from the cache.
    fs::remove_dir_all(scene.agent.home.join("cache")).expect("cache");
    let faults = [
        Fault::s3_error(500, "InternalError"),
        Fault::s3_error(503, "SlowDown"),
        Fault::CutAnswer { after: 1_000 },
        Fault::ShortAnswer { length: 500 },
        Fault::html_as_200(),
        Fault::Refuse,
        Fault::LoseAnswer,
    ];
    let count = faults.len();
    for (at, fault) in faults.into_iter().enumerate() {
        scene.store.add(Rule::new(fault).when(is_get).skip(at));
    }
    let target = scene.dir.path().join("restored");
    scene.agent.restore("latest", &target);
    compare::same_content(&source, &target.join(source.strip_prefix("/").expect("absolute")));
    assert_eq!(scene.store.struck(), count, "all of them were met");
}

#[test]
fn a_full_disk_of_the_agents_home_ends_the_run_and_is_told() {
    if !is_root() {
        eprintln!("skipped: a small file system needs root");
        return;
    }
    let scene = Faulty::start();
    let source = scene.source();
    let journal = scene.agent.home.join("journal");
    let mount = ["-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs"].map(std::ffi::OsStr::new);
    tool("mount", &[&mount[..], &[journal.as_ref()]].concat()).expect(0);
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            tool("umount", &[self.0.as_ref()]);
        }
    }
    let full = Unmount(journal);
    let said = scene.agent.run(["backup".as_ref(), source.as_os_str()]).expect(1);
    assert!(said.stderr.contains("full"), "{}", said.stderr);
    drop(full);
    let said = scene.agent.backup(&[&source]);
    assert_eq!(said["status"], "succeeded", "{said}");
    scene.is_whole(&source);
}
