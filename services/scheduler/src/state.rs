//! What every request of the role shares.

use std::sync::Arc;

use domain::{Clock, IdGen, TenantId, WorkloadId};
use runtime::{Peers, Platform, RoleName, ServiceKeys};
use tokio_util::sync::CancellationToken;

use crate::{SchedulerConfig, crowd::Crowd, hub::Hub};

/// The role's state. One per process, shared by `Arc`.
pub struct Scheduler {
    pub db: pg::Db,
    pub keys: ServiceKeys,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdGen>,
    pub hub: Hub,
    /// Long polls of this process: room for a fleet, two for an agent (the second while the first dies).
    pub polls: Crowd,
    /// Event streams of this process. Each asks the database once a second.
    pub streams: Crowd,
    pub config: SchedulerConfig,
    /// Cancelled when the process stops: nobody waits for anything any more.
    pub stopping: CancellationToken,
    /// Schedules are simulated one at a time.
    pub simulating: tokio::sync::Mutex<()>,
    peers: Peers,
}

impl Scheduler {
    pub fn new(platform: &Platform, config: SchedulerConfig) -> Self {
        Self {
            db: platform.db.clone(),
            keys: platform.service_keys.clone(),
            clock: platform.clock.clone(),
            ids: platform.ids.clone(),
            hub: Hub::default(),
            polls: Crowd::of(2_048, 2),
            streams: Crowd::of(512, 8),
            config,
            stopping: CancellationToken::new(),
            simulating: tokio::sync::Mutex::new(()),
            peers: platform.peers.as_seen_by(RoleName::Scheduler),
        }
    }

    /// A workload no run is known of, as the catalog knows it; `None` when it knows none either.
    pub async fn workload_of_catalog(
        &self,
        tenant: TenantId,
        workload: WorkloadId,
    ) -> Result<Option<api::catalog::Workload>, api::client::Error> {
        let path = format!("/internal/v1/catalog/tenants/{tenant}/workloads/{workload}");
        let asked = self.peers.client(RoleName::Catalog)?.get(&path).await;
        match asked {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.code() == Some(api::Code::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
