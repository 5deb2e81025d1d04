//! The probe: what an endpoint really enforces, case by case.
//!
//! Owns the list of lock conformance cases of `vault.md` and their judgement. Invariant: it writes
//! only under `probe/`, locks nothing for longer than a few minutes, and deletes only what an earlier
//! probe left there once its lock is over. A case that a store fails is a finding, never a panic; a
//! property the protocol can do without is `unsupported`.

mod context;
mod creating;
mod locking;
mod reading;
mod scopes;
mod signing;

use std::{future::Future, pin::Pin, sync::Arc};

use domain::{Clock, IdGen, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Capabilities, StoreConfig, StoreError};
use context::Context;

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Pass,
    Fail,
    /// The store lacks it, and the protocol has another way.
    Unsupported,
}

/// One case and its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    pub name: String,
    pub outcome: Outcome,
    /// Empty for a plain pass.
    pub detail: String,
}

/// The evidence of one probe.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub endpoint: String,
    pub bucket: String,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub cases: Vec<Case>,
    /// To be recorded for the store and used for signing.
    pub capabilities: Capabilities,
}

impl Report {
    /// Whether no case failed.
    pub fn passed(&self) -> bool {
        self.cases.iter().all(|case| case.outcome != Outcome::Fail)
    }

    fn outcome(&self, name: &str) -> Option<Outcome> {
        self.cases.iter().find(|case| case.name == name).map(|case| case.outcome)
    }
}

/// Why a case did not pass.
#[derive(Debug)]
enum Finding {
    Fail(String),
    Unsupported(String),
}

impl From<StoreError> for Finding {
    fn from(error: StoreError) -> Self {
        Self::Fail(explain(&error))
    }
}

/// An error with its causes on one line.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn fail<T>(text: impl Into<String>) -> Result<T, Finding> {
    Err(Finding::Fail(text.into()))
}

fn unsupported<T>(text: impl Into<String>) -> Result<T, Finding> {
    Err(Finding::Unsupported(text.into()))
}

/// `Ok` may carry a remark.
type Verdict = Result<String, Finding>;
type Running<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;
type Body = for<'a> fn(&'a Context) -> Running<'a>;

/// Names a case after its function.
macro_rules! cases {
    ($($path:ident :: $name:ident),* $(,)?) => {
        &[$((stringify!($name), |cx| Box::pin($path::$name(cx)))),*]
    };
}

/// Every case, in an order in which "later" is later.
const CASES: &[(&str, Body)] = cases![
    creating::granted_upload_is_stored_with_its_lock,
    locking::extension_at_once,
    locking::locked_delete_refused,
    locking::locked_delete_in_a_batch_refused,
    locking::shortening_refused,
    locking::weakening_to_governance_refused,
    locking::bypass_refused,
    creating::create_only,
    creating::create_only_in_a_race,
    creating::wrong_sha256_refused,
    creating::wrong_md5_refused,
    creating::wrong_body_refused_by_the_grant,
    creating::short_body_leaves_no_object,
    signing::dropped_lock_refused,
    signing::altered_lock_date_refused,
    signing::altered_mode_refused,
    signing::other_length_refused,
    signing::other_key_refused,
    signing::added_copy_source_refused,
    signing::added_acl_refused,
    signing::added_legal_hold_refused,
    signing::added_metadata_refused,
    signing::expired_url_refused,
    signing::forged_signature_refused,
    signing::anonymous_refused,
    reading::read_by_version_id,
    reading::read_by_presigned_url,
    reading::versions_listed,
    reading::absent_version_is_absent,
    reading::clock_skew,
    reading::key_store_round_trip,
    scopes::ingest_signer_only_puts,
    scopes::restore_signer_only_reads,
    scopes::steward_only_extends,
    scopes::reaper_only_deletes,
    scopes::key_keeper_stays_in_its_bucket,
    locking::extension_later,
    locking::lock_still_reported,
];

/// Runs every case against the endpoint. Needs the buckets to exist. Fails only when the
/// configuration itself is unusable; everything else is in the report.
pub async fn run(
    config: &StoreConfig,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
) -> Result<Report, StoreError> {
    let started_at = clock.now();
    let cx = Context::prepare(config, Arc::clone(&clock), ids).await?;
    let mut cases = Vec::with_capacity(CASES.len());
    for (name, body) in CASES {
        let (outcome, detail) = match body(&cx).await {
            Ok(remark) => (Outcome::Pass, remark),
            Err(Finding::Fail(why)) => (Outcome::Fail, why),
            Err(Finding::Unsupported(why)) => (Outcome::Unsupported, why),
        };
        cases.push(Case { name: (*name).to_owned(), outcome, detail });
    }
    let mut report = Report {
        endpoint: config.endpoint.as_ref().map_or_else(|| "aws".into(), ToString::to_string),
        bucket: config.bucket.clone(),
        started_at,
        finished_at: clock.now(),
        cases,
        capabilities: Capabilities::default(),
    };
    report.capabilities = detected(&report);
    Ok(report)
}

fn detected(report: &Report) -> Capabilities {
    let has = |name| report.outcome(name) == Some(Outcome::Pass);
    Capabilities {
        create_only: has("create_only") && has("create_only_in_a_race"),
        checksum_sha256: has("wrong_sha256_refused"),
        content_md5: has("wrong_md5_refused"),
        unsigned_headers_refused: has("added_copy_source_refused")
            && has("added_acl_refused")
            && has("added_legal_hold_refused"),
    }
}
