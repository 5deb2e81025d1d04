//! `everhold doctor`: looks at an installation from outside and says what to do next.
//!
//! It changes nothing but what a store probe leaves behind. Every line is a check with its finding; a finding
//! that is wrong ends with what would make it right.

use std::{process::ExitCode, sync::Arc};

use domain::{Clock as _, SystemClock, SystemIds};
use pg::migrate::Migrator;
use runtime::{RoleName, ServiceKeys};
use serde::Serialize;
use vault::store::probe;

use super::FOUND;
use crate::{config::ServerConfig, database};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Good,
    Wrong,
}

#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    verdict: Verdict,
    /// What was seen; when wrong, also what to do.
    detail: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn good(&mut self, check: impl Into<String>, detail: impl Into<String>) {
        self.add(check.into(), Verdict::Good, detail.into());
    }
    fn wrong(&mut self, check: impl Into<String>, detail: impl Into<String>) {
        self.add(check.into(), Verdict::Wrong, detail.into());
    }
    fn add(&mut self, check: String, verdict: Verdict, detail: String) {
        self.0.push(Finding { check, verdict, detail });
    }
}

pub async fn run(config: &ServerConfig, json: bool) -> anyhow::Result<ExitCode> {
    let mut findings = Findings::default();
    findings.good("config", format!("readable; public_url is {}", config.public_url));
    keys(config, &mut findings);
    migrations(config, &mut findings).await;
    for role in RoleName::ALL {
        login(config, role, &mut findings).await;
    }
    store(config, &mut findings).await;
    let wrong = findings.0.iter().filter(|finding| finding.verdict == Verdict::Wrong).count();
    if json {
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "checks": findings.0 }))?);
    } else {
        for finding in &findings.0 {
            let word = if finding.verdict == Verdict::Good { "good " } else { "WRONG" };
            println!("{word}  {}: {}", finding.check, finding.detail);
        }
        match wrong {
            0 => println!("all is well: start it with `everhold serve --config FILE`"),
            n => println!("{n} to put right; begin with the first one, others may follow from it"),
        }
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { FOUND })
}

fn keys(config: &ServerConfig, findings: &mut Findings) {
    let keys = &config.keys;
    for (name, secret) in [
        ("keys.access", &keys.access),
        ("keys.service", &keys.service),
        ("keys.receipt", &keys.receipt),
        ("keys.roster", &keys.roster),
    ] {
        match auth::keys::parse_signing_key(secret.expose()) {
            Ok(key) if ServiceKeys::new(&key).is_ok() => {
                findings.good(name, "an Ed25519 private key");
            }
            _ => findings.wrong(
                name,
                "not an Ed25519 private key; make one with `openssl genpkey -algorithm ed25519`",
            ),
        }
    }
    let file = &keys.wrapper_file;
    match vault::keys::FileKeyWrapper::open(file) {
        Ok(_) => findings.good("keys.wrapper_file", "readable by its owner alone"),
        Err(_) if !file.exists() => {
            findings.good(
                "keys.wrapper_file",
                "not there yet; the catalog makes it at its first start",
            );
        }
        Err(error) => {
            findings.wrong("keys.wrapper_file", format!("{error}; it holds 32 bytes, mode 0600"));
        }
    }
}

async fn migrations(config: &ServerConfig, findings: &mut Findings) {
    let Some(owner) = &config.database.owner_url else {
        findings.good("migrations", "not looked at: database.owner_url is not given");
        return;
    };
    let pending = match Migrator::embedded() {
        Ok(migrator) => migrator.pending(owner.expose()).await,
        Err(error) => Err(error),
    };
    match pending {
        Ok(pending) if pending.is_empty() => findings.good("migrations", "up to date"),
        Ok(pending) => findings.wrong(
            "migrations",
            format!("{} missing ({}); run `everhold migrate`", pending.len(), pending.join(", ")),
        ),
        Err(error) => findings.wrong("migrations", format!("{error}; check database.owner_url")),
    }
}

/// Both logins of a role: reachable, a supported server, no way past row security, a clock like ours.
async fn login(config: &ServerConfig, role: RoleName, findings: &mut Findings) {
    let check = format!("database.{role}");
    let urls = match config.database.of_role(role) {
        Ok(urls) => urls,
        Err(error) => return findings.wrong(check, format!("{error:#}")),
    };
    for (login, url) in [(role.login(), urls.url), (role.system_login(), urls.system_url)] {
        match look(&url).await {
            Ok(seen) if !(150_000..190_000).contains(&seen.version) => {
                let version = seen.version / 10_000;
                findings
                    .wrong(&check, format!("PostgreSQL {version} is not supported; use 15 to 18"));
            }
            Ok(seen) if seen.sees_past_row_security => findings.wrong(
                &check,
                format!(
                    "{login} sees past row security; ALTER ROLE {login} NOSUPERUSER NOBYPASSRLS"
                ),
            ),
            Ok(seen) if seen.clock_ahead_ms.abs() > 5_000 => findings.wrong(
                &check,
                format!(
                    "its clock differs by {} ms; run a time service on both machines",
                    seen.clock_ahead_ms
                ),
            ),
            Ok(seen) => {
                let version = seen.version / 10_000;
                findings.good(
                    &check,
                    format!("{login} is let in; PostgreSQL {version}, no way past row security"),
                );
            }
            Err(error) => findings.wrong(
                &check,
                format!(
                    "{login}: {error:#}; run `everhold migrate`, check database.url and passwords"
                ),
            ),
        }
    }
}

struct Seen {
    version: u32,
    sees_past_row_security: bool,
    clock_ahead_ms: i64,
}

async fn look(url: &str) -> anyhow::Result<Seen> {
    let mut connection = database::connect(url).await?;
    let now_ms = i64::try_from(SystemClock.now().unix_millis()).unwrap_or(i64::MAX);
    Ok(Seen {
        version: database::version(&mut connection).await?,
        sees_past_row_security: database::sees_past_row_security(&mut connection).await?,
        clock_ahead_ms: database::clock_ahead_ms(&mut connection, now_ms).await?,
    })
}

async fn store(config: &ServerConfig, findings: &mut Findings) {
    let engine = match config.store.engine(None) {
        Ok(engine) => engine,
        Err(error) => return findings.wrong("store", format!("{error:#}")),
    };
    let report = match probe::run(&engine, Arc::new(SystemClock), Arc::new(SystemIds)).await {
        Ok(report) => report,
        Err(error) => {
            return findings
                .wrong("store", format!("{error}; check [store] and that both buckets exist"));
        }
    };
    let failed: Vec<&str> = report
        .cases
        .iter()
        .filter(|case| case.outcome == probe::Outcome::Fail)
        .map(|case| case.name.as_str())
        .collect();
    if failed.is_empty() {
        findings
            .good("store", format!("{} lock conformance cases, none failed", report.cases.len()));
    } else {
        let list = failed.join(", ");
        findings.wrong(
            "store",
            format!("fails {list}; see `everhold store probe` and do not trust its locks"),
        );
    }
}
