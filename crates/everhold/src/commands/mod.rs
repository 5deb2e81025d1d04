//! What the subcommands do. Each prints to stdout what it was asked for; logs go to stderr.

pub mod admin;
pub mod dev;
pub mod devstore;
pub mod doctor;
mod keeping;
pub mod migrate;
pub mod probe;
pub mod serve;

use std::{
    fmt::Display,
    io::{ErrorKind, Write},
    path::Path,
    process::ExitCode,
};

use crate::config::ServerConfig;

/// It was asked wrongly: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// A check found something wrong, and said so already: exit code 1.
pub const FOUND: ExitCode = ExitCode::FAILURE;

/// A line to stdout. A reader that has seen enough (`| head`) is no error of ours.
///
/// # Errors
/// Everything else that keeps it from being written.
pub fn say(line: impl Display) -> std::io::Result<()> {
    put(&mut std::io::stdout().lock(), &line)
}

fn put(out: &mut impl Write, line: &impl Display) -> std::io::Result<()> {
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

pub fn load(file: Option<&Path>) -> anyhow::Result<ServerConfig> {
    let config: ServerConfig =
        process::config::load(file).map_err(|error| Usage(error.to_string()))?;
    config.check().map_err(|error| Usage(format!("{error:#}")))?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_left_is_no_error() {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let long = "x".repeat(1 << 20);
        assert!(put(&mut writer, &long).is_ok());
    }

    #[test]
    fn what_cannot_be_written_otherwise_is_one() {
        let mut full = std::io::Cursor::new([0; 2]);
        assert!(put(&mut full, &"four").is_err());
    }
}
