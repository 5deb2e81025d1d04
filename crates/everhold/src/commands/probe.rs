//! `everhold store probe`.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use domain::{SystemClock, SystemIds};
use url::Url;
use vault::store::{
    Capabilities, Credentials, S3Store, StoreConfig,
    probe::{self, Outcome, Report},
};

use super::{FOUND, Usage, load};
use crate::{cli::Probe, dev};

pub async fn run(args: &Probe) -> anyhow::Result<ExitCode> {
    let config = match (&args.state, &args.endpoint) {
        (Some(state), _) => dev::store::of_state(state)?.engine(None)?,
        (None, Some(endpoint)) => from_flags(args, endpoint)?,
        (None, None) => load(args.config.config.as_deref())?.store.engine(None)?,
    };
    if args.make_buckets {
        S3Store::connect(config.clone()).await?.ensure_buckets().await?;
    }
    let report = probe::run(&config, Arc::new(SystemClock), Arc::new(SystemIds)).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { FOUND })
}

fn from_flags(args: &Probe, endpoint: &str) -> anyhow::Result<StoreConfig> {
    let given = |value: &Option<String>, name: &str| {
        value.clone().ok_or_else(|| Usage(format!("--{name} is missing")))
    };
    let bucket = given(&args.bucket, "bucket")?;
    let all = Credentials {
        access_key: given(&args.access_key, "access-key")?,
        secret_key: given(&args.secret_key, "secret-key")?,
    };
    Ok(StoreConfig {
        endpoint: Some(Url::parse(endpoint).context("--endpoint is not a URL")?),
        region: args.region.clone(),
        key_bucket: args.key_bucket.clone().unwrap_or_else(|| format!("{bucket}-keys")),
        bucket,
        path_style: true,
        admin: Some(all.clone()),
        ingest: all.clone(),
        restore: all.clone(),
        steward: all.clone(),
        reaper: all.clone(),
        key_keeper: all,
        capabilities: Capabilities::default(),
    })
}

fn print(report: &Report) {
    for case in &report.cases {
        let outcome = match case.outcome {
            Outcome::Pass => "pass",
            Outcome::Fail => "FAIL",
            Outcome::Unsupported => "n/a ",
        };
        let detail =
            if case.detail.is_empty() { String::new() } else { format!(": {}", case.detail) };
        println!("{outcome}  {}{detail}", case.name);
    }
    let count = |outcome| report.cases.iter().filter(|case| case.outcome == outcome).count();
    println!(
        "{} of {}: {} passed, {} failed, {} not offered",
        report.bucket,
        report.endpoint,
        count(Outcome::Pass),
        count(Outcome::Fail),
        count(Outcome::Unsupported)
    );
}
