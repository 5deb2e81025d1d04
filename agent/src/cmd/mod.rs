//! The command line: what can be asked for, and how each command is carried out.
//!
//! Parsing and wording live here and in the modules below; nothing else in the crate writes to a
//! terminal or knows exit codes.

mod backup;
mod browse;
mod daemon;
mod enroll;
mod fsck;
mod mount;
pub mod open;
mod rescue;
mod restore;
mod snapshots;
mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    control::{Rate, TransferError, World},
    output::{Exit, Format, Output},
    pipeline::backup::Memory,
    pipeline::member::{Member, MemberError},
    pipeline::source::FetchError,
    state::{Home, default_home},
};

/// Back up, restore and verify this machine with Everhold.
///
/// Exit codes: 0 good, 1 failed, 2 wrong usage, 3 done with exceptions (each listed).
#[derive(Debug, Parser)]
#[command(name = "everhold-agent", version, max_term_width = 100)]
pub struct Cli {
    /// Print results as JSON, one object per line.
    #[arg(long, global = true)]
    pub json: bool,
    /// The agent's own folder (default: /var/lib/everhold-agent as root, else the XDG state folder).
    #[arg(long, global = true, env = "EVERHOLD_AGENT_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    #[arg(long, global = true, env = "XDG_STATE_HOME", hide = true)]
    xdg_state: Option<PathBuf>,
    #[arg(long, global = true, env = "HOME", hide = true)]
    user_home: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make this machine an agent of a tenant.
    Enroll(Enroll),
    /// Back up files and folders.
    Backup(Backup),
    /// List the snapshots of this machine.
    Snapshots,
    /// List a folder of a snapshot.
    Ls {
        /// Snapshot id, or `latest`.
        snapshot: String,
        /// Folder or file; the top when absent.
        path: Option<PathBuf>,
    },
    /// Find names in the newest snapshot.
    Find {
        /// Glob over names (`*.conf`) or, with a slash, over paths (`/etc/**/*.conf`).
        pattern: String,
        /// Snapshot id, or `latest`.
        #[arg(long, default_value = "latest")]
        snapshot: String,
    },
    /// Show what differs between two snapshots.
    Diff {
        /// The older one: id or `latest`.
        a: String,
        /// The newer one: id or `latest`.
        b: String,
    },
    /// Restore a snapshot, or parts of it, into a folder.
    Restore(Restore),
    /// Show snapshots as a read-only file system, until Ctrl-C.
    Mount(Mount),
    /// Check that what the store serves is what was backed up.
    Verify {
        /// Snapshot id, or `latest`.
        #[arg(default_value = "latest")]
        snapshot: String,
        /// Read and re-hash every byte instead of the directories of packs alone.
        #[arg(long)]
        read_data: bool,
    },
    /// Check a whole vault, trusting nothing: signatures, names, frames, ids, trees, references.
    ///
    /// Of this agent's own snapshots, through the server; or, with --kit, of any copy of the bucket.
    Fsck(fsck::Fsck),
    /// List and restore with nothing but the bucket and the recovery kit: no server, no account.
    Rescue(rescue::Rescue),
    /// Show who this agent is and how it stands.
    Status,
    /// Run in the background: carry out runs started in the portal.
    Daemon(Share),
}

#[derive(Debug, Args)]
pub struct Enroll {
    /// Address of the server, like https://backup.example.com; for a machine that is enrolled, the new address of its
    /// platform.
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// The enrolment token (evh_en_…); better given in the environment, where others do not see it.
    #[arg(long, env = "EVERHOLD_ENROLMENT_TOKEN", hide_env_values = true)]
    pub token: String,
    /// Name of this machine for people; its host name when absent.
    #[arg(long)]
    pub name: Option<String>,
    /// Write the recovery kit to this new file. Keep it away from this machine.
    #[arg(long, value_name = "FILE")]
    pub kit_out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// What to back up.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Leave out what matches: a name (`*.tmp`) or a path (`/home/*/.cache`).
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Patterns from a file, one a line; `#` begins a comment.
    #[arg(long, value_name = "FILE")]
    pub exclude_from: Vec<PathBuf>,
    /// Do not go into other file systems.
    #[arg(long)]
    pub one_file_system: bool,
    /// Leave out the content of folders with a CACHEDIR.TAG.
    #[arg(long)]
    pub exclude_caches: bool,
    /// A label of the snapshot.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub tag: Vec<(String, String)>,
    #[command(flatten)]
    pub share: Share,
}

/// What a backup may take of this machine.
#[derive(Debug, Default, Args)]
pub struct Share {
    /// How much memory a backup may use.
    #[arg(long, value_enum, default_value_t)]
    pub memory: Memory,
    /// Send at most so much a second to the store: 500k, 10M, 1.5G.
    #[arg(long, value_name = "RATE")]
    pub limit_upload: Option<Rate>,
    /// Read at most so much a second from files: 500k, 10M, 1.5G.
    #[arg(long, value_name = "RATE")]
    pub limit_read: Option<Rate>,
    /// Fetch at most so much a second from the store, where something is carried over: 500k, 10M, 1.5G.
    #[arg(long, value_name = "RATE")]
    pub limit_download: Option<Rate>,
    /// How often what was read is made safe, so that a backup which is interrupted goes on from there; 300 if not said.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub checkpoint_every: Option<u64>,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// Snapshot id, or `latest`.
    pub snapshot: String,
    /// Folder to restore into; /a/b of the snapshot becomes DIR/a/b. It need not be empty: see --overwrite.
    /// A restore that was interrupted goes on where it was when the same is restored into it again.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["stdout", "tar"])]
    pub target: Option<PathBuf>,
    /// Only what matches: a name (`*.conf`) or a path (`/etc/ssh`), with all below it.
    #[arg(long, value_name = "GLOB", conflicts_with = "path")]
    pub include: Vec<String>,
    /// Only this file or folder, as it is spelled in the snapshot, with all below it; nothing else is looked at.
    #[arg(long, value_name = "PATH")]
    pub path: Vec<PathBuf>,
    /// List what would be done and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// What to do with files that exist in the target already. Replaced files are changed where they differ:
    /// what is there is read and compared, and only what differs is fetched and written.
    #[arg(long, value_enum, default_value_t = Overwrite::Never)]
    pub overwrite: Overwrite,
    /// Read back every file of the order afterwards and compare its ids.
    #[arg(long)]
    pub verify: bool,
    /// Restore files of which a part cannot be had with zeros in its place, and list them (exit code 3).
    #[arg(long)]
    pub zero_damaged: bool,
    /// Do not wait until what was restored is on the disk.
    #[arg(long)]
    pub no_sync: bool,
    /// Read at most so much a second from the store: 500k, 10M, 1.5G.
    #[arg(long, value_name = "RATE")]
    pub limit_download: Option<Rate>,
    /// Write the content of the one file selected to standard output.
    #[arg(long, conflicts_with_all = ["target", "tar", "dry_run", "verify"])]
    pub stdout: bool,
    /// Write everything selected to standard output as a tar archive, with attributes and ACLs.
    #[arg(long, conflicts_with_all = ["target", "dry_run", "verify"])]
    pub tar: bool,
}

#[derive(Debug, Args)]
pub struct Mount {
    /// An empty folder; it shows all snapshots of this machine by date (DIR/2026-11-22T10-30-00Z, DIR/latest).
    pub dir: PathBuf,
    /// Show this one alone: snapshot id, or `latest`.
    #[arg(long, value_name = "SNAPSHOT")]
    pub snapshot: Option<String>,
    /// Let other users of this machine look too, as far as owners, modes and ACLs of the snapshot let them. Without it
    /// only the mounting user can, and sees everything.
    #[arg(long)]
    pub allow_other: bool,
}

/// When an existing file gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Overwrite {
    /// Keep every existing file; those that differ are listed.
    Never,
    /// Replace files older than the snapshot's.
    Older,
    /// Replace files whose size or time differ.
    Changed,
    /// Replace all.
    Always,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a tag looks like key=value".to_owned()),
    }
}

impl Cli {
    fn home(&self) -> Home {
        let is_root = rustix::process::geteuid().is_root();
        let fallback =
            || default_home(is_root, self.xdg_state.as_deref(), self.user_home.as_deref());
        let path = self.home.clone().unwrap_or_else(fallback);
        // Commands change no directory, but a relative home would look odd in messages.
        Home::at(std::path::absolute(&path).unwrap_or(path))
    }
}

/// Carries out a command.
pub async fn run(cli: Cli) -> Exit {
    let format = if cli.json { Format::Json } else { Format::Human };
    let output = Output { format };
    let home = cli.home();
    let world = World::real();
    let member = || Member::open(home.clone(), world.clone());
    let done = match cli.command {
        Command::Enroll(args) => enroll::run(&home, args, &world, &output).await,
        Command::Backup(args) => with(member(), |m| backup::run(m, args, &output)).await,
        Command::Snapshots => with(member(), |m| snapshots::run(m, &output)).await,
        Command::Ls { snapshot, path } => {
            with(member(), |m| browse::ls(m, snapshot, path, &output)).await
        }
        Command::Find { pattern, snapshot } => {
            with(member(), |m| browse::find(m, pattern, snapshot, &output)).await
        }
        Command::Diff { a, b } => with(member(), |m| browse::diff(m, a, b, &output)).await,
        Command::Restore(args) => with(member(), |m| restore::run(m, args, &output)).await,
        Command::Mount(args) => with(member(), |m| mount::run(m, args, &output)).await,
        Command::Verify { snapshot, read_data } => {
            with(member(), |m| verify::run(m, snapshot, read_data, &output)).await
        }
        Command::Fsck(args) if args.needs_server() => {
            with(member(), |m| fsck::run_here(m, args, &output)).await
        }
        Command::Fsck(args) => fsck::run_on_copy(args, &output).await,
        Command::Rescue(args) => rescue::run(args, &world, &output).await,
        Command::Status => with(member(), |m| snapshots::status(m, &output)).await,
        Command::Daemon(share) => with(member(), |m| daemon::run(m, &share, &output)).await,
    };
    done.unwrap_or_else(|error| {
        complain(&error, &home, &output);
        Exit::Failed
    })
}

async fn with<F>(
    member: Result<Member, MemberError>,
    command: impl FnOnce(Member) -> F,
) -> anyhow::Result<Exit>
where
    F: Future<Output = anyhow::Result<Exit>>,
{
    command(member?).await
}

/// The failure with its causes, and what to do next.
fn complain(error: &anyhow::Error, home: &Home, output: &Output) {
    let call = error.chain().find_map(|cause| cause.downcast_ref::<api::client::Error>());
    let stored = error.chain().find_map(|cause| cause.downcast_ref::<TransferError>());
    let fetched = error.chain().find_map(|cause| cause.downcast_ref::<FetchError>());
    let hint = call
        .map(|call| crate::control::advice(call, home.path()))
        .or_else(|| stored.map(|stored| stored.advice().to_owned()))
        .or_else(|| fetched.and_then(FetchError::advice).map(str::to_owned));
    let text = chain(error);
    if output.is_json() {
        output.json(&serde_json::json!({ "error": text, "hint": hint }));
    }
    output.note(format_args!("error: {text}"));
    if let Some(hint) = hint {
        output.note(format_args!("next: {hint}"));
    }
}

/// Causes joined by colons, each said once.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.extend([": ", &cause]);
        }
    }
    crate::output::plain(&text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_spelled_as_documented() {
        let lines = [
            "enroll --server http://x --token t --name n --kit-out k",
            "backup /a /b --exclude *.tmp --exclude x --exclude-from f --one-file-system --exclude-caches --tag a=b --json",
            "snapshots --json",
            "ls latest /a --json",
            "find *.conf",
            "diff latest latest",
            "restore latest --target d --include x --dry-run --overwrite changed",
            "mount d",
            "mount d --snapshot latest --allow-other --json",
            "restore latest --target d --path /a --verify --zero-damaged --no-sync --limit-download 10M",
            "restore latest --path /a/b --stdout",
            "restore latest --path /a --tar --zero-damaged",
            "verify",
            "verify latest --read-data",
            "fsck",
            "fsck --structure --json",
            "fsck --affected 00",
            "fsck --kit k --bucket-dir d",
            "rescue --kit k --bucket-dir d list --json",
            "rescue --kit k --s3-endpoint http://x --bucket b --key-bucket c ls latest /a",
            "rescue --kit k --bucket-dir d --keys-dir e restore latest --to x --include *.c --zero-damaged",
            "rescue --kit k --bucket-dir d verify",
            "status",
            "daemon",
        ];
        for line in lines {
            let words = std::iter::once("everhold-agent").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_restore_goes_to_one_place() {
        for line in ["", "--stdout --target d", "--stdout --tar", "--tar --target d", "--target"] {
            let words = ["everhold-agent", "restore", "latest"].into_iter();
            let words = words.chain(line.split(' ').filter(|word| !word.is_empty()));
            let error = Cli::try_parse_from(words).expect_err(line);
            assert_eq!(error.exit_code(), i32::from(Exit::Usage.code()), "{line}");
        }
    }

    #[test]
    fn a_tag_without_a_key_is_wrong_usage() {
        let words = ["everhold-agent", "backup", "/a", "--tag", "=x"];
        let error = Cli::try_parse_from(words).expect_err("no key");
        assert_eq!(error.exit_code(), i32::from(Exit::Usage.code()));
    }
}
