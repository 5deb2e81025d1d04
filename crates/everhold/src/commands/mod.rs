//! What the subcommands do. Each prints to stdout what it was asked for; logs go to stderr.

pub mod dev;
pub mod devstore;
pub mod doctor;
pub mod migrate;
pub mod probe;
pub mod serve;

use std::{path::Path, process::ExitCode};

use crate::config::ServerConfig;

/// It was asked wrongly: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// A check found something wrong, and said so already: exit code 1.
pub const FOUND: ExitCode = ExitCode::FAILURE;

pub fn load(file: Option<&Path>) -> anyhow::Result<ServerConfig> {
    let config: ServerConfig =
        process::config::load(file).map_err(|error| Usage(error.to_string()))?;
    config.check().map_err(|error| Usage(format!("{error:#}")))?;
    Ok(config)
}
