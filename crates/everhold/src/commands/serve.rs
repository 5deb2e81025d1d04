//! `everhold serve`: roles from a configuration.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use domain::{SystemClock, SystemIds};
use process::lifecycle::Lifecycle;
use runtime::RoleName;
use tokio::net::TcpListener;

use super::{FOUND, Usage};
use crate::{
    config::ServerConfig,
    server::{Listeners, Server},
};

/// Kubernetes gives 30 seconds by default.
const DRAIN_WITHIN: Duration = Duration::from_secs(15);

/// Every role, or those named.
pub fn roles(names: &[String]) -> Result<Vec<RoleName>, Usage> {
    if names.is_empty() {
        return Ok(RoleName::ALL.to_vec());
    }
    let mut roles = Vec::new();
    for name in names {
        let role = RoleName::parse(name).ok_or_else(|| {
            Usage(format!(
                "there is no role {name}; there are auth, catalog, scheduler, audit, billing"
            ))
        })?;
        if !roles.contains(&role) {
            roles.push(role);
        }
    }
    Ok(roles)
}

pub async fn run(config: &ServerConfig, roles: &[RoleName]) -> anyhow::Result<ExitCode> {
    let life = Lifecycle::new();
    life.stop_on_signals()?;
    let clock = Arc::new(SystemClock);
    let server = Server::build(config, roles, clock, Arc::new(SystemIds), None).await?;
    let internal = match &config.listen.internal {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let listeners = Listeners {
        public: vec![bind(&config.listen.public).await?],
        admin: bind(&config.listen.admin).await?,
        internal,
    };
    server.start(&life, listeners);
    let names: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    tracing::info!(
        roles = names.join(" "),
        public = config.listen.public,
        admin = config.listen.admin,
        "serving"
    );
    let drained = life.drain(DRAIN_WITHIN).await;
    Ok(if drained { ExitCode::SUCCESS } else { FOUND })
}

async fn bind(address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_role_named_means_all_and_an_unknown_one_is_refused() {
        assert_eq!(roles(&[]).expect("all").len(), 5);
        let twice = ["audit".to_owned(), "audit".to_owned()];
        assert_eq!(roles(&twice).expect("one"), [RoleName::Audit]);
        assert!(roles(&["frontend".to_owned()]).is_err());
    }
}
