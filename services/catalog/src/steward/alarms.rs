//! Alarms about locks: a row while it stands, an audit event at each end, a counter and a gauge.
//!
//! Invariant: a refused extension and an object that is not as recorded always end up here, never only in the log.

use domain::{EventId, Timestamp, VaultId};
use pg::{AuditEvent, TenantTx};
use prometheus::{IntCounterVec, IntGauge, Opts};

use super::store::{self, NewAlarm};
use crate::state::Catalog;

/// What is wrong with a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The store refused to extend it.
    Refused,
    /// The store does not answer, and the lock ends soon.
    Unreached,
    /// There is no such version.
    Missing,
    /// No COMPLIANCE lock is on it.
    Unlocked,
    /// It is locked for less long than recorded or asked for.
    Short,
    /// Size or checksum differ.
    Altered,
}

impl Trouble {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreached => "unreached",
            Self::Missing => "missing",
            Self::Unlocked => "unlocked",
            Self::Short => "short",
            Self::Altered => "altered",
        }
    }
}

/// The figures of this process.
#[derive(Clone)]
pub struct Figures {
    raised: IntCounterVec,
    standing: IntGauge,
}

impl Figures {
    /// # Errors
    /// When a name is no metric's: a bug.
    pub fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            raised: IntCounterVec::new(
                Opts::new("everhold_lock_alarms_raised_total", "Lock alarms raised, by kind"),
                &["kind"],
            )?,
            standing: IntGauge::new("everhold_lock_alarms_standing", "Lock alarms that stand")?,
        })
    }
    /// For the process's registry.
    pub fn collectors(&self) -> Vec<Box<dyn prometheus::core::Collector>> {
        vec![Box::new(self.raised.clone()), Box::new(self.standing.clone())]
    }
    pub fn set_standing(&self, count: i64) {
        self.standing.set(count);
    }
    /// Raised since the process began.
    pub fn raised(&self, trouble: Trouble) -> u64 {
        self.raised.with_label_values(&[trouble.as_str()]).get()
    }
}

/// The object an alarm is about.
#[derive(Debug, Clone)]
pub struct About<'a> {
    pub vault: VaultId,
    /// `pack` or `snapshot` (its receipt), and its id as text.
    pub subject: (&'static str, String),
    pub key: &'a str,
    pub version: &'a str,
    pub wanted: Timestamp,
}

/// Raises an alarm; the event to commit with it, unless it stands already.
///
/// # Errors
/// The database's.
pub async fn raise(
    app: &Catalog,
    tx: &mut TenantTx,
    about: &About<'_>,
    trouble: Trouble,
    detail: &str,
) -> Result<Option<AuditEvent>, pg::Error> {
    let now = app.clock.now();
    let alarm = NewAlarm {
        id: EventId::fresh(&*app.ids, now),
        vault: about.vault,
        key: about.key,
        version: about.version,
        kind: trouble.as_str(),
        detail,
        wanted: about.wanted,
    };
    if !store::insert_alarm(tx, &alarm, now).await? {
        return Ok(None);
    }
    app.lock_figures.raised.with_label_values(&[trouble.as_str()]).inc();
    tracing::error!(kind = trouble.as_str(), key = about.key, "a lock is not what it should be");
    let (kind, id) = (about.subject.0, about.subject.1.as_str());
    let event_id = EventId::fresh(&*app.ids, now);
    let event = AuditEvent::new(event_id, now, &crate::reconciler(), "lock.alarm_raised", kind, id);
    let event = event.detail("kind", trouble.as_str()).detail("wanted", about.wanted);
    Ok(Some(event.detail("vault_id", about.vault).detail("detail", detail)))
}

/// Ends alarms of these kinds about objects that are as they should be; the events to commit with it.
///
/// # Errors
/// The database's.
pub async fn clear(
    app: &Catalog,
    tx: &mut TenantTx,
    keys: &[String],
    kinds: &[Trouble],
) -> Result<Vec<AuditEvent>, pg::Error> {
    let now = app.clock.now();
    let kinds: Vec<String> = kinds.iter().map(|kind| kind.as_str().to_owned()).collect();
    let ended = store::clear_alarms(tx, keys, &kinds, now).await?;
    let event = |(key, kind): (String, String)| {
        let id = EventId::fresh(&*app.ids, now);
        let actor = crate::reconciler();
        AuditEvent::new(id, now, &actor, "lock.alarm_cleared", "object", &key).detail("kind", kind)
    };
    Ok(ended.into_iter().map(event).collect())
}
