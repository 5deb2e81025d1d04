//! The main job, step by step, with figures: a real folder travels agent → sealed packs → locked store → committed
//! snapshot → restore, through the real control plane.
//!
//! It uses what a stranger uses: the agent's program, the public API, an S3 client. The agent's home stays in the
//! state folder, so that a second start finds the earlier data.

mod agent;
mod compare;
mod locks;
mod screen;
mod source;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use api::{
    Page,
    auth::{TokenReply, TokenRequest},
    catalog::{Entry, EntryKind, PackKind, Snapshot, SnapshotPacks},
    client::{Client, Identity},
};
use domain::{Clock as _, SystemClock};
use tokio::task::spawn_blocking;

use crate::{commands::dev::Job, dev::manifest::Manifest};
use agent::{Agent, BackedUp};
use locks::Administrator;
use screen::{Screen, bytes, number};

struct Show<'a> {
    state: PathBuf,
    manifest: &'a Manifest,
    agent: Agent,
    screen: Screen,
}

/// Runs the job on a platform that answers.
pub async fn run(state: &Path, manifest: &Manifest, job: &Job) -> anyhow::Result<()> {
    let state = state.canonicalize()?;
    let agent = Agent { program: job.agent.clone(), home: state.join("demo-agent") };
    let mut show = Show { state, manifest, agent, screen: Screen::new() };
    show.screen.title("Everhold: from nothing to a restored backup");
    let source = match &job.source {
        Some(source) => source.canonicalize().context("--source is not there")?,
        None => spawn_blocking(source::find).await??,
    };
    let notes = show.state.join("demo-notes");
    source::prepare_notes(&notes)?;

    show.enrol().await?;
    let first = show.back_up(&source, &notes).await?;
    let api = show.sign_in().await?;
    show.browse(&api, &first, &source).await?;
    show.restore(&first, &source, &notes).await?;
    let second = show.back_up_again(&source, &notes).await?;
    show.locks(&api, &second).await?;
    show.screen.title(
        "Everything above happened through the same doors your machines and people will use.",
    );
    Ok(())
}

impl Show<'_> {
    async fn enrol(&mut self) -> anyhow::Result<()> {
        self.screen.step("Enrol this machine");
        // A kit opens the backups of its own enrolment for ever: none is removed.
        let kit = place_of_kit(&self.state, self.agent.home.exists())?;
        let mut earlier = self.agent.snapshots().await.ok();
        if earlier.is_none() {
            let token = &self.manifest.enrolment_token;
            let moved = self.agent.enrol(&self.manifest.api_url, token, &kit).await?;
            if moved {
                self.screen.say(format!("the platform is at {} now", self.manifest.api_url));
                earlier = Some(self.agent.snapshots().await?);
            }
        }
        if let Some(earlier) = earlier {
            let found = number(earlier.len() as u64);
            let newest =
                earlier.first().map(|s| format!(", {} among them", s.id)).unwrap_or_default();
            self.screen
                .done(format!("enrolled by an earlier start; {found} snapshots are there{newest}"));
            return Ok(());
        }
        self.screen.say("its keys were made on this machine and never leave it");
        self.screen.done(format!(
            "enrolled; the recovery kit is in {} (keep it elsewhere)",
            kit.display()
        ));
        Ok(())
    }

    async fn back_up(&mut self, source: &Path, notes: &Path) -> anyhow::Result<BackedUp> {
        self.screen.step(format!("Back up {} and {}", source.display(), notes.display()));
        let done = self.agent.back_up(&[source, notes]).await?;
        self.figures(&done);
        self.screen.done(format!("{} committed, {}", done.snapshot_id, words(&done.status)));
        Ok(done)
    }

    fn figures(&self, done: &BackedUp) {
        self.screen.say(format!(
            "{} files, {} read; {} of content was new, {} travelled (compressed, encrypted, with metadata)",
            number(done.files),
            bytes(done.source_bytes),
            bytes(done.new_bytes),
            bytes(done.stored_bytes)
        ));
        let rate = done.source_bytes.saturating_mul(1_000) / done.duration_ms.max(1);
        self.screen.say(format!("{} ms, {}/s", number(done.duration_ms), bytes(rate)));
        for exception in done.exceptions.iter().take(3) {
            let path = exception["path"].as_str().unwrap_or_default();
            self.screen.say(format!(
                "exception: {path} ({})",
                exception["kind"].as_str().unwrap_or_default()
            ));
        }
        if done.exceptions.len() > 3 {
            self.screen.say(format!("and {} more exceptions", done.exceptions.len() - 3));
        }
    }

    /// As the tenant's administrator.
    async fn sign_in(&self) -> anyhow::Result<Client> {
        let anonymous = Client::http(&self.manifest.api_url, Identity::Anonymous)?;
        let tenant = &self.manifest.tenant;
        let request = TokenRequest::Password {
            email: tenant.email.clone(),
            password: tenant.password.clone(),
            tenant_id: None,
        };
        let reply: TokenReply = anonymous.post("/v1/auth/token", &request).await?;
        Ok(anonymous.with_identity(Identity::Bearer(reply.access_token)))
    }

    async fn browse(&mut self, api: &Client, done: &BackedUp, source: &Path) -> anyhow::Result<()> {
        self.screen.step("Browse the snapshot through the API");
        let tenant = self.manifest.tenant.id;
        let base = format!("/v1/tenants/{tenant}/snapshots/{}", done.snapshot_id);
        let snapshot: Snapshot = api.get(&base).await?;
        self.screen.say(format!(
            "committed {}, protected until {}, locked until {}",
            snapshot.committed_at, snapshot.protect_until, snapshot.locked_until
        ));
        let mut folder = source.to_owned();
        for _ in 0..2 {
            let path = url::form_urlencoded::byte_serialize(folder.as_os_str().as_encoded_bytes());
            let path: String = path.collect();
            let page: Page<Entry> =
                api.get(&format!("{base}/entries?path={path}&limit=1000")).await?;
            if page.items.is_empty() {
                bail!("{} is empty in the snapshot", folder.display());
            }
            let more = if page.next_cursor.is_some() { "or more " } else { "" };
            let names: Vec<&str> =
                page.items.iter().take(4).map(|entry| entry.name.as_str()).collect();
            self.screen.say(format!(
                "{}: {} {more}entries: {} …",
                folder.display(),
                page.items.len(),
                names.join(", ")
            ));
            match page.items.iter().find(|entry| entry.kind == EntryKind::Directory) {
                Some(below) => folder = PathBuf::from(&below.path),
                None => break,
            }
        }
        self.screen.done("folder by folder, read from the locked packs");
        Ok(())
    }

    async fn restore(
        &mut self,
        done: &BackedUp,
        source: &Path,
        notes: &Path,
    ) -> anyhow::Result<()> {
        let target = self.state.join("demo-restored");
        if target.exists() {
            fs::remove_dir_all(&target).context("an earlier restore cannot be removed")?;
        }
        self.screen.step(format!("Restore it to {}", target.display()));
        self.agent.restore(&done.snapshot_id, &target).await?;
        self.screen.done("restored");

        self.screen.step("Compare, byte for byte and attribute for attribute");
        let mut total = compare::Comparison::default();
        for origin in [source, notes] {
            let restored = target.join(origin.strip_prefix("/").unwrap_or(origin));
            let origin = origin.to_owned();
            let one = spawn_blocking(move || compare::trees(&origin, &restored)).await??;
            total.entries += one.entries;
            total.files += one.files;
            total.bytes += one.bytes;
            total.differences.extend(one.differences);
        }
        for difference in &total.differences {
            self.screen.say(format!("DIFFERS: {difference}"));
        }
        if !total.differences.is_empty() {
            bail!("the restored tree differs from its origin");
        }
        let owner = if rustix::process::geteuid().is_root() { "owner, " } else { "" };
        self.screen.say(format!(
            "type, mode, {owner}time in ns, links, extended attributes and content of {} entries",
            number(total.entries)
        ));
        self.screen.done(format!(
            "{} files, {}: all equal",
            number(total.files),
            bytes(total.bytes)
        ));
        fs::remove_dir_all(&target).context("the restored tree cannot be removed")?;
        Ok(())
    }

    async fn back_up_again(&mut self, source: &Path, notes: &Path) -> anyhow::Result<BackedUp> {
        let changed = source::change_notes(notes, SystemClock.now().unix_millis())?;
        self.screen.step("Change two files, add one, and back up again");
        let done = self.agent.back_up(&[source, notes]).await?;
        self.figures(&done);
        if done.new_bytes > changed {
            bail!(
                "{} of content travelled, but only {} changed",
                bytes(done.new_bytes),
                bytes(changed)
            );
        }
        self.screen.done(format!("only the {} that changed travelled", bytes(done.new_bytes)));
        Ok(done)
    }

    async fn locks(&mut self, api: &Client, done: &BackedUp) -> anyhow::Result<()> {
        self.screen.step("Try to destroy it with the store administrator's key");
        let tenant = self.manifest.tenant.id;
        let path = format!("/v1/tenants/{tenant}/snapshots/{}/packs", done.snapshot_id);
        let packs: SnapshotPacks = api.get(&path).await?;
        let data = packs.items.iter().filter(|pack| pack.kind == PackKind::Data);
        let pack =
            data.max_by_key(|pack| pack.length).context("the snapshot names no data pack")?;
        let version = pack.version_id.as_deref().context("the pack has a version")?;
        let store = Administrator::new(&self.manifest.s3);
        let seen = store.look(&pack.key, version).await?;
        self.screen.say(format!("{} ({})", pack.key, bytes(seen.length)));
        self.screen.say(format!("the store says: {} until {}", seen.mode, seen.until));
        let refusal = store.try_to_delete(&pack.key, version).await?;
        self.screen.say(format!("deleting this version: {refusal}"));
        let after = store.look(&pack.key, version).await?;
        if after.length != seen.length {
            bail!("the pack has changed");
        }
        self.screen.done("refused, and the pack is still there");
        Ok(())
    }
}

/// Where the kit goes. That of an enrolment before this one gets another name first.
fn place_of_kit(state: &Path, is_begun: bool) -> anyhow::Result<PathBuf> {
    let kit = state.join("demo-kit.json");
    if !is_begun && kit.exists() {
        let earlier = (1..).map(|number| state.join(format!("demo-kit-before-{number}.json")));
        let free = earlier.into_iter().find(|name| !name.exists()).context("a free name")?;
        fs::rename(&kit, free).context("an earlier kit cannot be moved")?;
    }
    Ok(kit)
}

fn words(status: &str) -> String {
    status.replace('_', " ")
}
