//! `everhold migrate`.

use std::process::ExitCode;

use pg::migrate::{Migrator, Passwords};
use runtime::RoleName;

use super::Usage;
use crate::config::ServerConfig;

pub async fn run(config: &ServerConfig, json: bool) -> anyhow::Result<ExitCode> {
    let owner = config.database.owner_url.as_ref();
    let owner = owner.ok_or_else(|| Usage("migrate needs database.owner_url".to_owned()))?;
    let report = Migrator::embedded()?.run(owner.expose(), &passwords(config)?).await?;
    if json {
        let line = serde_json::json!({ "applied": report.applied, "present": report.present });
        println!("{line}");
    } else {
        for name in &report.applied {
            println!("applied {name}");
        }
        println!("{} applied now, {} before", report.applied.len(), report.present);
    }
    Ok(ExitCode::SUCCESS)
}

/// Both logins of a role get one, or neither: a login left without would keep whoever it lets in now.
fn passwords(config: &ServerConfig) -> Result<Passwords, Usage> {
    let mut all = Passwords::default();
    for role in RoleName::ALL {
        let system = format!("{role}_system");
        match (config.database.password(role.as_str()), config.database.password(&system)) {
            (Some(tenant), Some(system)) => {
                all = all.set(role, tenant.to_owned(), system.to_owned());
            }
            (None, None) => {}
            _ => {
                let text = format!("database.passwords needs both {role} and {system}, or neither");
                return Err(Usage(text));
            }
        }
    }
    Ok(all)
}
