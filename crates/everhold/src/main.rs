//! The server binary: serve, migrate, doctor, store probe, and the embedded default (`dev`, `demo`).
//!
//! Owns the wiring of roles into processes, and everything that only the embedded default needs. The roles
//! themselves are libraries; nothing here knows a table or a single operation.

mod cli;
mod commands;
mod config;
mod console;
mod database;
mod demo;
mod dev;
mod http;
mod portal;
mod receipts;
mod server;

use std::process::ExitCode;

use clap::Parser as _;
use process::telemetry::{self, Telemetry, TelemetryConfig};

use cli::{Cli, Command, ConfigCommand, StoreCommand};
use commands::{Usage, dev::Job};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(code) => code,
        Err(error) if error.is::<Usage>() => {
            eprintln!("everhold: {error:#}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("everhold: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Telemetry first, from the configuration the command names, then the command in an async runtime.
fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match cli.command {
        Command::Serve { roles, config } => {
            let roles = commands::serve::roles(&roles)?;
            let config = commands::load(config.config.as_deref())?;
            let telemetry = telemetry::init("everhold", &config.telemetry)?;
            let code = runtime.block_on(commands::serve::run(&config, &roles));
            finish(telemetry, code)
        }
        Command::Dev(args) => {
            let telemetry = telemetry::init("everhold", &args.telemetry())?;
            let job = if args.once { Some(job(args.agent.clone(), None)?) } else { None };
            let code = runtime.block_on(commands::dev::run(&args, job));
            finish(telemetry, code)
        }
        Command::Demo(args) => {
            let quiet = TelemetryConfig {
                // The job is the show; the log speaks up only when something is wrong.
                filter: if args.dev.log == "info" {
                    "warn".to_owned()
                } else {
                    args.dev.log.clone()
                },
                ..args.dev.telemetry()
            };
            let telemetry = telemetry::init("everhold", &quiet)?;
            let job = job(args.dev.agent.clone(), args.source)?;
            let code = runtime.block_on(commands::dev::run(&args.dev, Some(job)));
            finish(telemetry, code)
        }
        other => {
            let warnings =
                TelemetryConfig { filter: "warn".to_owned(), ..TelemetryConfig::default() };
            let telemetry = telemetry::init("everhold", &warnings)?;
            let code = runtime.block_on(brief(other));
            finish(telemetry, code)
        }
    }
}

/// The commands that print something and end.
async fn brief(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Migrate { config, json } => {
            commands::migrate::run(&commands::load(config.config.as_deref())?, json).await
        }
        Command::Doctor { config, json } => {
            commands::doctor::run(&commands::load(config.config.as_deref())?, json).await
        }
        Command::Store { command: StoreCommand::Probe(args) } => commands::probe::run(&args).await,
        Command::Admin { command } => commands::admin::run(&command).await,
        Command::Devstore { dir, listen, keys } => {
            commands::devstore::run(dir, listen, &keys).await
        }
        Command::Openapi => {
            commands::say(server::openapi().await?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Config { command: ConfigCommand::Schema } => {
            let schema = process::config::schema::<config::ServerConfig>();
            commands::say(serde_json::to_string_pretty(&schema)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Console(noun) => console::run(&noun).await,
        Command::Serve { .. } | Command::Dev(_) | Command::Demo(_) => Ok(ExitCode::SUCCESS),
    }
}

fn finish(telemetry: Telemetry, code: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    telemetry.flush();
    code
}

/// The agent's program: as named, or beside this one.
fn job(
    agent: Option<std::path::PathBuf>,
    source: Option<std::path::PathBuf>,
) -> anyhow::Result<Job> {
    let agent = match agent {
        Some(agent) => agent,
        None => std::env::current_exe()?.with_file_name("everhold-agent"),
    };
    if !agent.is_file() {
        let text = format!(
            "the agent's program is not at {}: build it (`cargo build --release -p everhold-agent`) or name it \
             with --agent",
            agent.display()
        );
        return Err(Usage(text).into());
    }
    Ok(Job { agent, source })
}
