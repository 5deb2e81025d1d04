//! Facts from one role's outbox to the role they are for, at least once and in order.

use std::time::Duration;

use api::{
    Code,
    internal::{DeliverFacts, Fact},
};
use pg::outbox::{OutboxRow, Relay, RelayError};

use crate::{Platform, RoleName, Worker};

/// Which topics go where.
const RECEIVERS: [(RoleName, &str); 4] = [
    (RoleName::Audit, "audit"),
    (RoleName::Billing, "meter"),
    (RoleName::Scheduler, "snapshot_committed"),
    (RoleName::Scheduler, "workload_created"),
];
const PAUSE: Duration = Duration::from_millis(250);
/// Delivered rows stay a while for people who look into an incident.
const KEEP_DELIVERED: Duration = Duration::from_secs(24 * 3_600);
const CLEAN_EVERY: Duration = Duration::from_secs(600);

/// A fact was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    #[error("a stored fact has not the form of its topic")]
    Malformed(#[from] serde_json::Error),
    #[error("the receiver refused the facts")]
    Refused(#[from] api::client::Error),
}

/// The workers that empty this role's outbox. Every role with an outbox hands them over.
pub fn relay_workers(platform: &Platform) -> Vec<Worker> {
    let mut workers: Vec<Worker> = RECEIVERS
        .into_iter()
        .map(|(receiver, topic)| {
            let platform = platform.clone();
            let relay = Relay::new(platform.db.clone(), &[topic]);
            Worker::every("outbox_relay", PAUSE, move || {
                let (platform, relay) = (platform.clone(), relay.clone());
                async move { relay_once(&platform, &relay, receiver).await.map(|sent| sent > 0) }
            })
        })
        .collect();
    let db = platform.db.clone();
    workers.push(Worker::every("outbox_cleanup", CLEAN_EVERY, move || {
        let db = db.clone();
        async move { pg::outbox::forget_delivered(&db, KEEP_DELIVERED).await.map(|_| false) }
    }));
    workers
}

/// Hands over what can be handed over now, to every receiver. For tests and orderly stops.
///
/// # Errors
/// [`RelayError`].
pub async fn deliver_pending(platform: &Platform) -> Result<usize, RelayError<DeliveryError>> {
    let mut sent = 0;
    for (receiver, topic) in RECEIVERS {
        let relay = Relay::new(platform.db.clone(), &[topic]);
        loop {
            let batch = relay_once(platform, &relay, receiver).await?;
            if batch == 0 {
                break;
            }
            sent += batch;
        }
    }
    Ok(sent)
}

async fn relay_once(
    platform: &Platform,
    relay: &Relay,
    receiver: RoleName,
) -> Result<usize, RelayError<DeliveryError>> {
    relay.run_parking(|rows| deliver(platform, receiver, rows), rejects).await
}

/// Whether the receiver spoke about the facts themselves. What it says about who asks or where (401, 403,
/// 404) is a mistake in our set-up: the facts are good and wait until it is mended.
fn rejects(error: &DeliveryError) -> bool {
    match error {
        DeliveryError::Malformed(_) => true,
        DeliveryError::Refused(error) => matches!(
            error.code(),
            Some(Code::BadRequest | Code::Validation | Code::Conflict | Code::PayloadTooLarge)
        ),
    }
}

async fn deliver(
    platform: &Platform,
    receiver: RoleName,
    rows: Vec<OutboxRow>,
) -> Result<(), DeliveryError> {
    let facts = rows.into_iter().map(fact).collect::<Result<Vec<Fact>, _>>()?;
    let client = platform.peers.client(receiver)?;
    client.post::<_, ()>("/internal/v1/outbox", &DeliverFacts { facts }).await?;
    Ok(())
}

fn fact(row: OutboxRow) -> Result<Fact, serde_json::Error> {
    let mut value = row.payload;
    if let Some(object) = value.as_object_mut() {
        object.insert("topic".to_owned(), row.topic.into());
    }
    serde_json::from_value(value)
}
