//! What becomes of a workload's snapshots under a rule: kept for reasons, protected in spite of the rule, or
//! expired. Pure, in server time; executing a plan is somebody else's business.
//!
//! Invariants: a snapshot is never expired before its promise, under hold, while something builds on it or reads
//! it, or as one of the last good ones. Slots come from the commit and the last good ones are counted by days, so
//! whoever floods a workload with snapshots pushes none of the earlier ones out.

use std::collections::{BTreeMap, BTreeSet};

use super::{DAY, RetentionRule, Slot};
use crate::time::Timestamp;

/// Of so many days that have one, the first good snapshot is never expired; nor is the newest.
pub const GOOD_DAYS: usize = 3;

/// How much a snapshot is worth when everything else fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// Everything asked for is in it.
    Whole,
    /// Some files could not be protected.
    Partial,
    /// Something it needs is lost.
    Damaged,
}

/// Until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Until {
    /// Free from this moment on.
    At(Timestamp),
    /// As long as things stand as they do.
    Open,
}

/// Why the rule keeps a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is younger than the rule's `within_days`.
    Within,
    /// The first of its period, for as long as the rule keeps such.
    Slot(Slot),
    /// One of the rule's `keep_last` newest.
    Last,
}

/// Why a snapshot stays whatever the rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    /// `protect_until`, given at its commit, lies ahead.
    Promised,
    /// A person took back its expiry a while ago.
    Prolonged,
    Held,
    /// The newest, or the first good one of one of the last days that have one.
    LastGood,
    /// An open backup builds on it.
    BuiltOn,
    /// It is being restored, verified or mounted.
    InUse,
}

/// One committed snapshot of the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<K> {
    pub id: K,
    /// Place in the workload's chain: the order of commits, whatever a clock said.
    pub seq: u64,
    pub committed_at: Timestamp,
    /// As assigned at its commit.
    pub slots: Vec<Slot>,
    pub protect_until: Timestamp,
    /// Until when a person's undo keeps it.
    pub keep_until: Option<Timestamp>,
    /// Until when somebody may be reading it.
    pub in_use_until: Option<Timestamp>,
    pub quality: Quality,
    /// [`Guard::Held`] and [`Guard::BuiltOn`], where they apply; the others follow from the rest.
    pub standing: BTreeSet<Guard>,
}

/// A snapshot that stays, and until when at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept<K> {
    pub id: K,
    pub reasons: Vec<Reason>,
    pub guards: Vec<Guard>,
    /// The latest end of all of them.
    pub until: Until,
}

/// What becomes of one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Keep,
    Protected,
    Expire,
}

/// Every snapshot is in exactly one of the lists, each oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<K> {
    /// The rule wants these.
    pub keep: Vec<Kept<K>>,
    /// The rule does not, but something forbids to let them go.
    pub protected: Vec<Kept<K>>,
    pub expire: Vec<K>,
}

impl<K: PartialEq> Plan<K> {
    /// `None`: not part of the plan.
    pub fn fate(&self, id: &K) -> Option<Fate> {
        let among = |list: &[Kept<K>]| list.iter().any(|kept| kept.id == *id);
        if among(&self.keep) {
            Some(Fate::Keep)
        } else if among(&self.protected) {
            Some(Fate::Protected)
        } else {
            self.expire.contains(id).then_some(Fate::Expire)
        }
    }
    /// Everything that stays.
    pub fn staying(&self) -> impl Iterator<Item = &Kept<K>> {
        self.keep.iter().chain(&self.protected)
    }
}

/// Decides over all committed snapshots of one workload at `now`. Their order does not matter.
pub fn plan<K: Copy + Ord>(
    rule: &RetentionRule,
    snapshots: &[Candidate<K>],
    now: Timestamp,
) -> Plan<K> {
    let mut ordered: Vec<&Candidate<K>> = snapshots.iter().collect();
    ordered.sort_by_key(|snapshot| (snapshot.seq, snapshot.id));
    let good = last_good(&ordered);
    let first_of_last = ordered.len().saturating_sub(rule.keep_last as usize);
    let mut plan = Plan { keep: Vec::new(), protected: Vec::new(), expire: Vec::new() };
    for (at, snapshot) in ordered.iter().enumerate() {
        let wanted = wanted(rule, snapshot, at >= first_of_last, now);
        let guarded = guarded(snapshot, good.contains(&snapshot.id), now);
        let ends = wanted.iter().map(|(_, until)| *until);
        let Some(until) = ends.chain(guarded.iter().map(|(_, until)| *until)).max() else {
            plan.expire.push(snapshot.id);
            continue;
        };
        let kept = Kept {
            id: snapshot.id,
            reasons: wanted.iter().map(|(reason, _)| *reason).collect(),
            guards: guarded.iter().map(|(guard, _)| *guard).collect(),
            until,
        };
        let list = if wanted.is_empty() { &mut plan.protected } else { &mut plan.keep };
        list.push(kept);
    }
    plan
}

/// The rule's reasons with their ends.
fn wanted<K>(
    rule: &RetentionRule,
    snapshot: &Candidate<K>,
    is_last: bool,
    now: Timestamp,
) -> Vec<(Reason, Until)> {
    let within = std::time::Duration::from_secs(u64::from(rule.within_days) * DAY);
    let slots = snapshot.slots.iter().map(|slot| (Reason::Slot(*slot), slot.promise(rule)));
    let timed = std::iter::once((Reason::Within, within)).chain(slots);
    let ends = timed.map(|(reason, length)| (reason, snapshot.committed_at + length));
    let mut wanted: Vec<_> =
        ends.filter(|(_, end)| *end > now).map(|(reason, end)| (reason, Until::At(end))).collect();
    if is_last {
        wanted.push((Reason::Last, Until::Open));
    }
    wanted
}

/// What forbids to let it go, with the ends.
fn guarded<K>(snapshot: &Candidate<K>, is_good: bool, now: Timestamp) -> Vec<(Guard, Until)> {
    let dated = [
        (Guard::Promised, Some(snapshot.protect_until)),
        (Guard::Prolonged, snapshot.keep_until),
        (Guard::InUse, snapshot.in_use_until),
    ];
    let ahead = |(guard, end): (Guard, Option<Timestamp>)| {
        end.filter(|end| *end > now).map(|end| (guard, Until::At(end)))
    };
    let mut guards: Vec<_> = dated.into_iter().filter_map(ahead).collect();
    let standing = snapshot.standing.iter().copied().chain(is_good.then_some(Guard::LastGood));
    guards.extend(standing.map(|guard| (guard, Until::Open)));
    guards.sort_unstable();
    guards.dedup();
    guards
}

/// The newest, and the first good ones of the last days. Where whole ones are too few, partial ones count as well.
fn last_good<K: Copy + Ord>(ordered: &[&Candidate<K>]) -> BTreeSet<K> {
    let usable = ordered.iter().rev().find(|snapshot| snapshot.quality != Quality::Damaged);
    let newest = usable.or(ordered.last()).map(|snapshot| snapshot.id);
    let whole = first_of_days(ordered, Quality::Whole);
    let partial =
        if whole.len() < GOOD_DAYS { first_of_days(ordered, Quality::Partial) } else { Vec::new() };
    newest.into_iter().chain(whole).chain(partial).collect()
}

fn first_of_days<K: Copy + Ord>(ordered: &[&Candidate<K>], quality: Quality) -> Vec<K> {
    let mut firsts: BTreeMap<i64, K> = BTreeMap::new();
    for snapshot in ordered.iter().filter(|snapshot| snapshot.quality == quality) {
        firsts.entry(Slot::Day.period(snapshot.committed_at)).or_insert(snapshot.id);
    }
    firsts.into_values().rev().take(GOOD_DAYS).collect()
}

#[cfg(test)]
mod tests;
