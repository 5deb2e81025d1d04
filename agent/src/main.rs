//! The agent binary.

use std::process::ExitCode;

use clap::Parser as _;
use everhold_agent::{cmd, output::Exit};

fn main() -> ExitCode {
    let cli = cmd::Cli::parse();
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
    ExitCode::from(exit.code())
}
