//! `everhold dev` and `everhold demo`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use process::telemetry::{LogFormat, TelemetryConfig};

use super::FOUND;
use crate::{
    cli::Dev,
    demo,
    dev::{self, InUse, Options, manifest::Manifest},
};

impl Dev {
    pub fn telemetry(&self) -> TelemetryConfig {
        TelemetryConfig {
            format: LogFormat::Auto,
            filter: self.log.clone(),
            otlp_endpoint: self.otlp_endpoint.clone(),
        }
    }

    fn options(&self) -> Options {
        Options {
            state: self.state.clone(),
            port: self.port,
            pg_bin: self.pg_bin.clone(),
            portal: self.portal.clone().or_else(built_portal),
            store: self.store.clone(),
            copy_store: self.copy_store.clone(),
            telemetry: self.telemetry(),
        }
    }
}

/// What to do besides serving.
#[derive(Debug, Clone)]
pub struct Job {
    pub agent: PathBuf,
    pub source: Option<PathBuf>,
}

/// Starts the platform; runs the job if there is one; stays, unless told to do it once.
pub async fn run(args: &Dev, job: Option<Job>) -> anyhow::Result<ExitCode> {
    let running = match dev::start(&args.options()).await {
        Ok(running) => running,
        // Somebody runs it already: the job can be shown on that one.
        Err(error) if error.is::<InUse>() && job.is_some() => {
            return on_running(&args.state, job).await;
        }
        Err(error) => return Err(error),
    };
    let mut code = ExitCode::SUCCESS;
    if let Some(job) = &job {
        let stopping = running.stopping();
        let shown = tokio::select! {
            shown = demo::run(&args.state, &running.manifest, job) => shown,
            () = stopping.cancelled() => Ok(()),
        };
        if let Err(error) = shown {
            eprintln!("the main job failed: {error:#}");
            code = FOUND;
        }
    }
    if !args.once {
        print_addresses(&running.manifest, &running.admin_url);
        running.stopping().cancelled().await;
    }
    running.stop().await?;
    Ok(code)
}

async fn on_running(state: &Path, job: Option<Job>) -> anyhow::Result<ExitCode> {
    let manifest = Manifest::read(state)?;
    if let Some(job) = job {
        demo::run(state, &manifest, &job).await?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_addresses(manifest: &Manifest, admin_url: &str) {
    println!();
    println!("  Portal   {}", manifest.portal_url);
    println!("  Sign in  {}   {}", manifest.tenant.email, manifest.tenant.password);
    println!("  API      {}/openapi.json", manifest.api_url);
    println!("  Health   {admin_url}/readyz");
    println!("  Stop     Ctrl-C (everything stays in the state folder)");
    println!();
}

/// `web/dist` of the checkout this program was built in or is started from.
fn built_portal() -> Option<PathBuf> {
    let program = std::env::current_exe().ok();
    let here = std::env::current_dir().ok();
    let starts = [program, here];
    let folders = starts.iter().flatten().flat_map(|start| start.ancestors().take(5));
    let mut dists = folders.map(|folder| folder.join("web/dist"));
    dists.find(|dist| dist.join("index.html").is_file())
}
