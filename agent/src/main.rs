//! The agent binary.

use std::process::ExitCode;

use clap::Parser as _;
use everhold_agent::{cmd, output::Exit};
use process::telemetry::TelemetryConfig;

/// Less memory at its peak than the system's, and a third less time where there is much to compare and little to read:
/// `docs/performance.md`. How it is set: `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = cmd::Cli::parse();
    let telemetry = TelemetryConfig { filter: "warn".to_owned(), ..TelemetryConfig::default() };
    // Warnings are for people to see; without them the commands work all the same.
    let telemetry = process::telemetry::init("everhold-agent", &telemetry).ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let exit = match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(cmd::run(cli));
            // Engine threads of a canceled command may still be reading: they have nothing left to save.
            runtime.shutdown_background();
            exit
        }
        Err(error) => {
            eprintln!("error: the agent cannot start: {error}");
            Exit::Failed
        }
    };
    if let Some(telemetry) = telemetry {
        telemetry.flush();
    }
    ExitCode::from(exit.code())
}
