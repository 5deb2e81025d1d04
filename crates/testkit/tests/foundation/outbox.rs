//! Facts leave at least once, in order, and none is skipped.

use std::{convert::Infallible, io::ErrorKind};

use pg::{
    Db, Schema, TenantTx,
    outbox::{OutboxRow, Relay, RelayError},
};
use serde_json::json;
use testkit::TestDb;

use super::transactions::{scope, tenant};

const TOPIC: &str = "meter";

async fn publish(db: &Db, n: u32) {
    let mut tx = TenantTx::begin(db, scope(tenant())).await.unwrap();
    tx.publish(TOPIC, &json!({ "n": n })).await.unwrap();
    tx.commit_operational(pg::OperationalReason::FactIngest).await.unwrap();
}

fn numbers(rows: &[OutboxRow]) -> Vec<u64> {
    rows.iter().map(|row| row.payload["n"].as_u64().unwrap()).collect()
}

/// Runs until as many facts came: the horizon is the cluster's, and other tests' transactions hold it back, also
/// between two facts.
async fn next(relay: &Relay, count: usize) -> Vec<u64> {
    let mut got = Vec::new();
    for _ in 0..2_000 {
        relay
            .run_once(async |rows| {
                got.extend(numbers(&rows));
                Ok::<_, Infallible>(())
            })
            .await
            .unwrap();
        if got.len() >= count {
            return got;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("only {got:?} came");
}

#[tokio::test]
async fn a_refused_batch_stays_and_comes_again_in_order() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    let relay = Relay::new(db.clone(), &[TOPIC]);
    for n in 0..5 {
        publish(&db, n).await;
    }
    let mut refused = false;
    for _ in 0..2_000 {
        let result = relay.run_once(async |_| Err::<(), _>("receiver is down")).await;
        if matches!(result, Err(RelayError::Delivery(_))) {
            refused = true;
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(refused);
    assert_eq!(relay.backlog().await.unwrap(), 5);
    assert_eq!(next(&relay, 5).await, [0, 1, 2, 3, 4]);
    assert_eq!(relay.backlog().await.unwrap(), 0);
}

#[tokio::test]
async fn a_crash_between_delivery_and_mark_delivers_again() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    publish(&db, 7).await;
    let (delivered, mut crash) = tokio::sync::mpsc::channel(1);
    let relay = Relay::new(db.clone(), &[TOPIC]);
    let doomed = tokio::spawn({
        let relay = relay.clone();
        async move {
            loop {
                let _ = relay
                    .run_once(async |rows| {
                        delivered.send(numbers(&rows)).await.unwrap();
                        std::future::pending::<Result<(), Infallible>>().await
                    })
                    .await;
                tokio::task::yield_now().await;
            }
        }
    });
    assert_eq!(crash.recv().await.unwrap(), [7]);
    doomed.abort();
    assert!(doomed.await.unwrap_err().is_cancelled());
    assert_eq!(next(&relay, 1).await, [7], "at least once");
}

#[tokio::test]
async fn a_transaction_that_commits_late_is_not_skipped() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    let relay = Relay::new(db.clone(), &[TOPIC]);
    let mut late = TenantTx::begin(&db, scope(tenant())).await.unwrap();
    late.publish(TOPIC, &json!({ "n": 1 })).await.unwrap();
    publish(&db, 2).await;
    let early = relay.run_once(async |_| Ok::<_, Infallible>(())).await.unwrap();
    assert_eq!(early, 0, "nothing beyond a transaction that may still commit");
    late.commit_operational(pg::OperationalReason::FactIngest).await.unwrap();
    assert_eq!(next(&relay, 2).await, [1, 2]);
}

#[tokio::test]
async fn two_relays_at_once_hand_over_each_fact_once() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    publish(&db, 1).await;
    let relay = Relay::new(db.clone(), &[TOPIC]);
    let (inside, mut entered) = tokio::sync::mpsc::channel(1);
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let first = tokio::spawn({
        let (relay, go) = (relay.clone(), go.clone());
        async move {
            loop {
                let sent = relay
                    .run_once(async |_| {
                        inside.send(()).await.unwrap();
                        go.notified().await;
                        Ok::<_, Infallible>(())
                    })
                    .await
                    .unwrap();
                if sent > 0 {
                    return sent;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    entered.recv().await.unwrap();
    let second = relay.run_once(async |_| Ok::<_, Infallible>(())).await.unwrap();
    assert_eq!(second, 0, "one leads");
    go.notify_one();
    assert_eq!(first.await.unwrap(), 1);
    assert_eq!(relay.backlog().await.unwrap(), 0);
}

#[tokio::test]
async fn delivered_rows_are_forgotten_and_waiting_ones_never() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    let relay = Relay::new(db.clone(), &[TOPIC]);
    publish(&db, 1).await;
    next(&relay, 1).await;
    publish(&db, 2).await;
    let gone = pg::outbox::forget_delivered(&db, std::time::Duration::ZERO).await.unwrap();
    assert_eq!(gone, 1);
    assert_eq!(next(&relay, 1).await, [2]);
}

/// What a receiver says in these tests: `InvalidData` about a fact, anything else about itself.
type Answer = Result<(), ErrorKind>;

/// Runs parking rounds until nothing waits or the receiver is down. Gives what was taken, in order.
async fn park(relay: &Relay, answer: fn(u64) -> Answer) -> Vec<u64> {
    let taken = std::sync::Mutex::new(Vec::new());
    let deliver = |rows: Vec<OutboxRow>| {
        let judged = numbers(&rows).into_iter().try_for_each(answer);
        if judged.is_ok() {
            taken.lock().unwrap().extend(numbers(&rows));
        }
        std::future::ready(judged.map_err(std::io::Error::from))
    };
    for _ in 0..2_000 {
        let result = relay
            .run_parking(&deliver, |error: &std::io::Error| error.kind() == ErrorKind::InvalidData)
            .await;
        if result.is_err() || relay.backlog().await.unwrap() == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    taken.into_inner().unwrap()
}

#[tokio::test]
async fn a_fact_its_receiver_rejects_is_parked_and_the_others_go_on() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    let relay = Relay::new(db.clone(), &[TOPIC]);
    for n in 0..5 {
        publish(&db, n).await;
    }
    let taken = park(&relay, |n| if n == 2 { Err(ErrorKind::InvalidData) } else { Ok(()) }).await;
    assert_eq!(taken, [0, 1, 3, 4]);
    assert_eq!(relay.backlog().await.unwrap(), 0, "a parked fact does not wait");
    let mut superuser = database.superuser().await.unwrap();
    let parked: Vec<i32> = sqlx::query_scalar(
        "SELECT (payload->>'n')::int FROM billing.outbox WHERE parked_at IS NOT NULL AND delivered_at IS NULL",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    assert_eq!(parked, [2]);
    pg::outbox::forget_delivered(&db, std::time::Duration::ZERO).await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM billing.outbox")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert_eq!(left, 1, "what is parked is kept for a person to look at");
}

#[tokio::test]
async fn a_receiver_that_goes_down_half_way_loses_and_parks_nothing_it_did_not_judge() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    let relay = Relay::new(db.clone(), &[TOPIC]);
    for n in 0..4 {
        publish(&db, n).await;
    }
    let answer = |n| match n {
        1 => Err(ErrorKind::InvalidData),
        2 => Err(ErrorKind::ConnectionRefused),
        _ => Ok(()),
    };
    assert_eq!(park(&relay, answer).await, [0]);
    assert_eq!(next(&relay, 2).await, [2, 3]);
}
