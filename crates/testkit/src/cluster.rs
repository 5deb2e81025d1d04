//! One PostgreSQL cluster per test run.
//!
//! Every test process holds a shared lock on `users` for its life. The first one starts the cluster and a
//! watchdog that waits for the exclusive lock and then stops it. All by file locks and the cluster's own
//! pid file; nothing is found by name. fsync is off: a cluster that does not start is thrown away.

use std::{
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};

use crate::scratch::in_memory;

/// The running cluster, as this process sees it.
pub(crate) struct Cluster {
    /// Superuser URL of the database `postgres`: `postgres://postgres@localhost/postgres?host=…`.
    pub url: String,
    /// Folder of the cluster and of its locks.
    pub dir: PathBuf,
    /// Held until the process ends: while it is, the watchdog waits.
    _user: File,
}

static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();

impl Cluster {
    /// The cluster of this run, started if need be.
    pub fn get() -> Result<&'static Self> {
        let started = CLUSTER.get_or_init(|| Self::start().map_err(|error| format!("{error:#}")));
        started.as_ref().map_err(|error| anyhow::anyhow!("no test cluster: {error}"))
    }

    fn start() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let dir = root.join("target/tmp/testkit-pg");
        std::fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        let user = lock(&dir, "users", FlockOperation::LockShared)?;
        let starting = lock(&dir, "starting", FlockOperation::LockExclusive)?;
        let script = root.join("scripts/pg.sh");
        let cluster = || {
            let mut name = DefaultHasher::new();
            root.hash(&mut name);
            let found = in_memory(&format!("everhold-testkit-{:016x}", name.finish()));
            found.unwrap_or_else(|| dir.join("cluster"))
        };
        let url = match run(&script, "start", &cluster()) {
            Ok(url) => url,
            // Left half-written by a crash: with fsync off that is expected, and nothing in it is wanted.
            Err(_) => {
                std::fs::remove_dir_all(cluster()).ok();
                run(&script, "start", &cluster())?
            }
        };
        watch(&root, &dir, &cluster())?;
        drop(starting);
        Ok(Self { url, dir, _user: user })
    }

    /// Runs `work` while no other test process does.
    pub async fn alone<T>(&self, name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let (dir, name) = (self.dir.clone(), name.to_owned());
        let held =
            tokio::task::spawn_blocking(move || lock(&dir, &name, FlockOperation::LockExclusive))
                .await??;
        let result = work.await;
        drop(held);
        result
    }
}

/// A held lock; closing the file lets go. Children do not inherit it (close-on-exec).
fn lock(dir: &Path, name: &str, operation: FlockOperation) -> Result<File> {
    let file = File::options().create(true).append(true).open(dir.join(name))?;
    flock(&file, operation).with_context(|| format!("lock {name}"))?;
    Ok(file)
}

fn run(script: &Path, command: &str, dir: &Path) -> Result<String> {
    let output = Command::new(script)
        .arg(command)
        .arg(dir)
        .stdin(Stdio::null())
        .output()
        .with_context(|| script.display().to_string())?;
    if !output.status.success() {
        bail!("{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Waits until nobody holds `users` for five seconds, stops the cluster, ends. One at a time.
const WATCHDOG: &str = r#"
exec 7>>"$1/watchdog"; flock -n 7 || exit 0
exec 8>>"$1/users"
while :; do
  flock -x 8; flock -u 8
  sleep 5
  if flock -xn 8; then
    "$2/scripts/pg.sh" stop "$3" 7>&- 8>&-
    # Memory is given back.
    [ "$3" = "$1/cluster" ] || rm -rf "$3"
    exit
  fi
done
"#;

fn watch(root: &Path, dir: &Path, cluster: &Path) -> Result<()> {
    let mut command = Command::new("setsid");
    command.args(["-f", "bash", "-c", WATCHDOG, "testkit-watchdog"]).args([dir, root, cluster]);
    let null = || Stdio::null();
    let status = command.stdin(null()).stdout(null()).stderr(null()).status()?;
    if !status.success() {
        bail!("the watchdog does not start: {status}");
    }
    Ok(())
}
