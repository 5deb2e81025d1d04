//! The command line of the console.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use domain::{RunId, Timestamp, TokenId};

/// What every command of the console takes.
#[derive(Debug, Args)]
pub struct Common {
    /// Act in this tenant below one's own, named by its name or id.
    #[arg(long, global = true, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// JSON instead of tables and lines.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub kept: Kept,
}

/// Where the sign-in is kept.
#[derive(Debug, Args)]
pub struct Kept {
    /// The file the sign-in is kept in; ~/.config/everhold/session.json when left out.
    #[arg(long, global = true, env = "EVERHOLD_SESSION", value_name = "FILE")]
    pub session: Option<PathBuf>,
    #[arg(long, global = true, env = "XDG_CONFIG_HOME", hide = true)]
    pub config_home: Option<PathBuf>,
    #[arg(long, global = true, env = "HOME", hide = true)]
    pub home: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Noun {
    /// Sign in to a platform, and keep the sign-in for the commands that follow.
    Login(Login),
    /// End the sign-in, here and at the server.
    Logout {
        #[command(flatten)]
        kept: Kept,
    },
    /// Say who is signed in, and where.
    Whoami {
        #[command(flatten)]
        common: Common,
    },
    /// One's own sign-ins, here and elsewhere.
    Session {
        #[command(flatten)]
        common: Common,
        #[command(subcommand)]
        command: SessionCommand,
    },
    /// Change one's own password. Every sign-in ends, and this machine is signed in anew.
    Password(Password),
    /// Tenants: one's own and those below it.
    Tenant {
        #[command(flatten)]
        common: Common,
        #[command(subcommand)]
        command: TenantCommand,
    },
    /// Accounts of people.
    User {
        #[command(flatten)]
        common: Common,
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Enrolled machines.
    Agent {
        #[command(flatten)]
        common: Common,
        #[command(subcommand)]
        command: AgentCommand,
    },
    /// Enrolment tokens: what lets a machine in.
    Token {
        #[command(flatten)]
        common: Common,
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Protected things, their policies, and how they stand with them.
    Workload {
        #[command(flatten)]
        common: Common,
        #[command(subcommand)]
        command: WorkloadCommand,
    },
    /// Policies: what is backed up when.
    Policy {
        #[command(flatten)]
        common: Common,
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Runs: backups that wait, run or have ended.
    Run {
        #[command(flatten)]
        common: Common,
        #[command(subcommand)]
        command: RunCommand,
    },
}

#[derive(Debug, Args)]
pub struct Login {
    #[command(flatten)]
    pub kept: Kept,
    /// Address of the platform: https://backup.example.com
    #[arg(long, value_name = "URL")]
    pub server: String,
    #[arg(long)]
    pub email: String,
    /// Read the password from standard input instead of asking for it.
    #[arg(long)]
    pub password_stdin: bool,
}

#[derive(Debug, Args)]
pub struct Password {
    #[command(flatten)]
    pub kept: Kept,
    /// Read the current and the new password from standard input, a line each, instead of asking for them.
    #[arg(long)]
    pub password_stdin: bool,
}

#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    List,
    /// End a sign-in: of a machine that was lost, of a person who has left it open.
    End {
        session: TokenId,
    },
}

#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// One's own tenant and all below it.
    List,
    /// Make an MSP below the platform, or a tenant below an MSP.
    Create { name: String },
}

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    List,
    /// Make an account. The password is read from standard input.
    Create {
        email: String,
        #[arg(long)]
        name: String,
        /// Can be given more than once: tenant.admin, tenant.operator, tenant.restorer, auditor, …
        #[arg(long = "role", required = true)]
        roles: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    List,
    /// End an agent's identity, at once and for good. What it backed up stays.
    Revoke {
        agent: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    List,
    /// Make a token and print it. It is shown once.
    Create {
        /// How many machines it lets in, up to 1000.
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// Hours it lives, up to 168.
        #[arg(long, default_value_t = 24)]
        hours: u32,
        /// A note for people.
        #[arg(long, default_value = "")]
        label: String,
    },
    Revoke {
        token: TokenId,
    },
}

#[derive(Debug, Subcommand)]
pub enum WorkloadCommand {
    /// Workloads with their policies: what is due when, and whose objective is breached.
    List,
    /// Give a workload a policy, or with --default let the tenant's default policy hold for it.
    Assign {
        workload: String,
        #[arg(required_unless_present = "default")]
        policy: Option<String>,
        #[arg(long, conflicts_with = "policy")]
        default: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    List,
    /// A policy as a file that `apply` reads; with --json, and what is in force by it.
    Show {
        policy: String,
    },
    /// Make the policy of a TOML file, or replace the one of its name. Doing it again changes nothing.
    #[command(after_long_help = super::policy::EXAMPLE)]
    Apply {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Remove a policy that holds for no workload and that no other extends.
    Remove {
        policy: String,
    },
    /// Say when a policy's file would run, without saving it.
    Simulate {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// How many times, up to 200.
        #[arg(long, default_value_t = 10)]
        ticks: u32,
        /// From this moment on instead of now: 2027-03-27T00:00:00Z
        #[arg(long)]
        from: Option<Timestamp>,
    },
}

#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// The newest runs first.
    List {
        /// Only of this workload.
        #[arg(long)]
        workload: Option<String>,
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Queue a backup of a workload, as its policy or its last run says.
    Start {
        workload: String,
    },
    Show {
        run: RunId,
    },
    /// A queued run ends at once, a running one when its agent is next heard.
    Cancel {
        run: RunId,
    },
}
