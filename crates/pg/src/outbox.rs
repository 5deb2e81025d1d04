//! Handing facts over: at least once, in order, never skipping a late commit.
//!
//! A batch is taken below the xmin horizon and marked delivered in the transaction that locked it. A crash
//! between delivery and mark repeats the batch; receivers keep the event id. A fact its receiver will never
//! take is parked, so that it holds up nobody else's.

use domain::TenantId;
use serde_json::Value;
use sqlx::Row as _;
use uuid::Uuid;

use crate::{Db, Error, OperationalReason, SystemReason, SystemTx};

/// A fact on its way.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    pub id: Uuid,
    pub tenant: TenantId,
    pub topic: String,
    pub payload: Value,
    pub trace_context: Option<String>,
}

/// Why a batch was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum RelayError<E> {
    #[error("the outbox cannot be read")]
    Database(#[from] Error),
    /// The receiver did not take it; the rows stay and are tried again.
    #[error("the receiver did not take the facts")]
    Delivery(#[source] E),
}

/// Reads one schema's outbox for one receiver.
#[derive(Debug, Clone)]
pub struct Relay {
    db: Db,
    topics: Vec<String>,
    batch: i64,
}

impl Relay {
    /// A relay of these topics. Several replicas may run: one works, the others find nothing.
    pub fn new(db: Db, topics: &[&str]) -> Self {
        Self { db, topics: topics.iter().map(|t| (*t).to_owned()).collect(), batch: 100 }
    }

    /// Hands one batch to `deliver` and marks it delivered. Returns how many rows went; 0: nothing to do.
    ///
    /// # Errors
    /// [`RelayError`]; the batch stays undelivered.
    pub async fn run_once<F, E>(&self, deliver: F) -> Result<usize, RelayError<E>>
    where
        F: AsyncFnOnce(Vec<OutboxRow>) -> Result<(), E>,
    {
        let mut tx = SystemTx::begin(&self.db, SystemReason::OutboxRelay).await?;
        let Some(rows) = self.claim(&mut tx).await? else {
            tx.rollback().await?;
            return Ok(0);
        };
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        deliver(rows).await.map_err(RelayError::Delivery)?;
        let outcome = Outcome { delivered: ids, parked: Vec::new(), failed: None };
        self.record(tx, outcome).await
    }

    /// As [`Self::run_once`]; but when the receiver rejects the batch for good, its rows go one by one and
    /// those rejected again are parked.
    ///
    /// # Errors
    /// [`RelayError`]; what was not delivered or parked by then stays.
    pub async fn run_parking<F, D, E>(
        &self,
        deliver: F,
        rejects: fn(&E) -> bool,
    ) -> Result<usize, RelayError<E>>
    where
        F: Fn(Vec<OutboxRow>) -> D,
        D: Future<Output = Result<(), E>>,
        E: std::error::Error + 'static,
    {
        let mut tx = SystemTx::begin(&self.db, SystemReason::OutboxRelay).await?;
        let Some(rows) = self.claim(&mut tx).await? else {
            tx.rollback().await?;
            return Ok(0);
        };
        let outcome = match deliver(rows.clone()).await {
            Ok(()) => Outcome {
                delivered: rows.iter().map(|row| row.id).collect(),
                parked: Vec::new(),
                failed: None,
            },
            Err(error) if rejects(&error) => one_by_one(rows, &deliver, rejects).await,
            Err(error) => return Err(RelayError::Delivery(error)),
        };
        self.record(tx, outcome).await
    }

    async fn record<E>(
        &self,
        mut tx: SystemTx,
        outcome: Outcome<E>,
    ) -> Result<usize, RelayError<E>> {
        let statements = self.db.schema.statements();
        let marks = [
            (statements.mark_delivered, &outcome.delivered),
            (statements.mark_parked, &outcome.parked),
        ];
        for (statement, ids) in marks.into_iter().filter(|(_, ids)| !ids.is_empty()) {
            sqlx::query(statement).bind(ids).execute(tx.conn()).await.map_err(Error::from)?;
        }
        tx.commit_operational(OperationalReason::OutboxRelay).await?;
        match outcome.failed {
            Some(error) => Err(RelayError::Delivery(error)),
            None => Ok(outcome.delivered.len() + outcome.parked.len()),
        }
    }

    /// How many facts wait, for metrics and tests.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn backlog(&self) -> Result<i64, Error> {
        let mut tx = SystemTx::begin(&self.db, SystemReason::OutboxRelay).await?;
        Ok(sqlx::query_scalar(self.db.schema.statements().count_undelivered)
            .bind(&self.topics)
            .fetch_one(tx.conn())
            .await?)
    }

    /// Two relays at once would each keep order and together lose it.
    async fn lead(&self, tx: &mut SystemTx) -> Result<bool, Error> {
        let name = format!("outbox {} {}", self.db.schema, self.topics.join(" "));
        Ok(sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(name)
            .fetch_one(tx.conn())
            .await?)
    }

    /// The next batch, if this relay leads and there is one.
    async fn claim(&self, tx: &mut SystemTx) -> Result<Option<Vec<OutboxRow>>, Error> {
        if !self.lead(tx).await? {
            return Ok(None);
        }
        let rows = self.take(tx).await?;
        Ok((!rows.is_empty()).then_some(rows))
    }

    async fn take(&self, tx: &mut SystemTx) -> Result<Vec<OutboxRow>, Error> {
        let rows = sqlx::query(self.db.schema.statements().take_undelivered)
            .bind(&self.topics)
            .bind(self.batch)
            .fetch_all(tx.conn())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(OutboxRow {
                    tenant: TenantId::from_uuid(row.try_get("tenant_id")?),
                    id: row.try_get("id")?,
                    topic: row.try_get("topic")?,
                    payload: row.try_get("payload")?,
                    trace_context: row.try_get("trace_context")?,
                })
            })
            .collect()
    }
}

/// What became of a batch.
struct Outcome<E> {
    delivered: Vec<Uuid>,
    parked: Vec<Uuid>,
    /// Why the rest was not tried.
    failed: Option<E>,
}

/// In order, each alone. Ends at the first failure that says nothing about its row.
async fn one_by_one<F, D, E>(
    rows: Vec<OutboxRow>,
    deliver: &F,
    rejects: fn(&E) -> bool,
) -> Outcome<E>
where
    F: Fn(Vec<OutboxRow>) -> D,
    D: Future<Output = Result<(), E>>,
    E: std::error::Error + 'static,
{
    let mut outcome = Outcome { delivered: Vec::new(), parked: Vec::new(), failed: None };
    for row in rows {
        let (id, topic, tenant) = (row.id, row.topic.clone(), row.tenant);
        match deliver(vec![row]).await {
            Ok(()) => outcome.delivered.push(id),
            Err(error) if rejects(&error) => {
                let cause: &dyn std::error::Error = &error;
                tracing::error!(fact = %id, %topic, %tenant, error = cause,
                    "a fact was rejected by its receiver and is parked");
                outcome.parked.push(id);
            }
            Err(error) => {
                outcome.failed = Some(error);
                break;
            }
        }
    }
    outcome
}

/// Removes rows delivered more than `older_than` ago. Returns how many.
///
/// # Errors
/// See [`Error`].
pub async fn forget_delivered(db: &Db, older_than: std::time::Duration) -> Result<u64, Error> {
    let mut tx = SystemTx::begin(db, SystemReason::OutboxRelay).await?;
    let done = sqlx::query(db.schema.statements().forget_delivered)
        .bind(older_than.as_secs_f64())
        .execute(tx.conn())
        .await?;
    tx.commit_operational(OperationalReason::Cleanup).await?;
    Ok(done.rows_affected())
}
