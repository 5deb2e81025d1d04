//! Policies as files: what a person writes, keeps beside other configuration and applies as often as they like.

use std::path::Path;

use anyhow::Context as _;
use api::{
    Page,
    policy::{Policy, PolicySettings, Setting, SimulatePolicy, Simulation, WritePolicy},
};
use serde::{Deserialize, Serialize};

use super::{Out, args::PolicyCommand, find, session::Session, table::Table};
use crate::commands::{Usage, say};

pub const EXAMPLE: &str = r#"A policy's file:

  name = "nightly"
  default = true                 # for every workload that was given no other
  protected = ["rpo"]            # what policies that extend this one may not loosen

  [settings]
  rpo_minutes = 1560             # alert when the newest good backup is older than 26 hours

  [settings.source]
  paths = ["/etc", "/home"]
  excludes = ["*.cache"]

  [settings.schedule]
  cron = ["30 2 * * *"]          # or every_minutes = 60
  zone = "Europe/Berlin"
  jitter_minutes = 60
  run_if_missed = true
  windows = [{ from = "22:00", to = "06:00" }]   # days = ["sat", "sun"] would be those alone

  [settings.retry]
  attempts = 3
  after_minutes = 10
"#;

/// A policy as a person writes it down.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    name: String,
    /// By name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extends: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    protected: Vec<Setting>,
    #[serde(default)]
    settings: PolicySettings,
}

/// All policies of the tenant: they come in one page.
pub async fn list(session: &Session) -> anyhow::Result<Vec<Policy>> {
    let page: Page<Policy> = session.get(&session.path("policies")).await?;
    Ok(page.items)
}

pub async fn run(session: &Session, out: &Out, command: &PolicyCommand) -> anyhow::Result<()> {
    let policies = list(session).await?;
    match command {
        PolicyCommand::List => out.list(&policies, |policies| {
            let head = ["POLICY", "NAME", "SCHEDULE", "WORKLOADS", "STATE"];
            Table::new(&head, "no policies; `everhold policy apply --help` shows one").rows(
                policies,
                |p| {
                    let state = match (p.is_paused, p.is_default) {
                        (true, _) => "paused",
                        (false, true) => "default",
                        (false, false) => "",
                    };
                    vec![
                        p.id.to_string(),
                        p.name.clone(),
                        p.schedule_words.clone().unwrap_or_else(|| "by hand".to_owned()),
                        p.workloads.to_string(),
                        state.to_owned(),
                    ]
                },
            )
        }),
        PolicyCommand::Show { policy } => {
            let found = named(&policies, policy)?;
            if out.is_json {
                return out.one(found, |_| String::new());
            }
            Ok(say(toml::to_string_pretty(&file_of(found, &policies))?.trim_end())?)
        }
        PolicyCommand::Apply { file } => apply(session, out, &policies, &read(file)?).await,
        PolicyCommand::Remove { policy } => {
            let found = named(&policies, policy)?;
            session.delete(&session.path(format_args!("policies/{}", found.id))).await?;
            out.one(found, |p| format!("{} {} is removed", p.id, p.name))
        }
        PolicyCommand::Simulate { file, ticks, from } => {
            let file = read(file)?;
            let schedule = file.settings.schedule.ok_or_else(|| {
                Usage("the file has no [settings.schedule]: nothing would run by itself".to_owned())
            })?;
            let body = SimulatePolicy { schedule, from: *from, ticks: *ticks };
            let shown: Simulation =
                session.post(&session.path("policy-simulations"), &body).await?;
            if !out.is_json {
                say(&shown.words)?;
            }
            out.list(&shown.ticks, |ticks| {
                Table::new(&["LOCAL TIME", "UTC", "STARTS BY"], "nothing").rows(ticks, |tick| {
                    let by = tick.start_by.map_or_else(|| "waits".to_owned(), |by| by.to_string());
                    vec![tick.local.clone(), tick.at.to_string(), by]
                })
            })
        }
    }
}

async fn apply(
    session: &Session,
    out: &Out,
    policies: &[Policy],
    file: &PolicyFile,
) -> anyhow::Result<()> {
    let extends = match &file.extends {
        Some(name) => Some(named(policies, name)?.id),
        None => None,
    };
    let key = api::names::key(&file.name);
    let before = policies.iter().find(|policy| api::names::key(&policy.name) == key);
    let body = WritePolicy {
        name: file.name.clone(),
        extends,
        settings: file.settings.clone(),
        protected: file.protected.clone(),
        is_default: file.default,
        is_paused: file.paused,
        revision: before.map(|policy| policy.revision),
    };
    let Some(before) = before else {
        let made: Policy = session.post(&session.path("policies"), &body).await?;
        return out.one(&made, |p| told(p, "made"));
    };
    if before.name == body.name
        && before.extends == body.extends
        && before.settings == body.settings
        && before.protected == sorted(&body.protected)
        && (before.is_default, before.is_paused) == (body.is_default, body.is_paused)
    {
        return out.one(before, |p| told(p, "as it was"));
    }
    let path = session.path(format_args!("policies/{}", before.id));
    let replaced: Policy = session.put(&path, &body).await?;
    out.one(&replaced, |p| told(p, "replaced"))
}

fn told(policy: &Policy, what: &str) -> String {
    let when = policy.schedule_words.as_deref().unwrap_or("by hand");
    format!(
        "{} {}: {what}; {when}; holds for {} workloads",
        policy.id, policy.name, policy.workloads
    )
}

fn sorted(settings: &[Setting]) -> Vec<Setting> {
    let mut settings = settings.to_vec();
    settings.sort_unstable();
    settings.dedup();
    settings
}

fn named<'a>(policies: &'a [Policy], name: &str) -> anyhow::Result<&'a Policy> {
    find("policy", policies, name, |p| p.id.to_string(), |p| &p.name)
}

fn file_of(policy: &Policy, all: &[Policy]) -> PolicyFile {
    let above = policy.extends.and_then(|id| all.iter().find(|other| other.id == id));
    PolicyFile {
        name: policy.name.clone(),
        extends: above.map(|above| above.name.clone()),
        default: policy.is_default,
        paused: policy.is_paused,
        protected: policy.protected.clone(),
        settings: policy.settings.clone(),
    }
}

fn read(file: &Path) -> anyhow::Result<PolicyFile> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    toml::from_str(&text).map_err(|error| Usage(format!("{}: {error}", file.display())).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_help_is_a_policy_and_is_written_as_it_was_read() {
        let text = EXAMPLE.split_once("\n\n").expect("a head").1;
        let file: PolicyFile = toml::from_str(text).expect("reads");
        assert_eq!(file.settings.rpo_minutes, Some(1_560));
        let again: PolicyFile =
            toml::from_str(&toml::to_string_pretty(&file).expect("writes")).expect("reads");
        assert_eq!(again.settings, file.settings);
    }
}
