//! Plans as tables, and the laws every plan keeps.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::retention::protect;

const START: i64 = 1_790_000_000;

fn day(number: u64) -> Timestamp {
    Timestamp::from_unix_secs(START).expect("in range") + Duration::from_secs(number * DAY)
}

/// A workload backed up at these moments, with slots and promises as the server gives them.
fn history(rule: &RetentionRule, moments: &[Timestamp]) -> Vec<Candidate<usize>> {
    let mut latest = None;
    let commit = |(id, at): (usize, &Timestamp)| {
        let given = protect(rule, latest, *at);
        latest = Some(*at);
        Candidate {
            id,
            seq: id as u64,
            committed_at: *at,
            slots: given.slots,
            protect_until: given.protect_until,
            keep_until: None,
            in_use_until: None,
            quality: Quality::Whole,
            standing: BTreeSet::new(),
        }
    };
    moments.iter().enumerate().map(commit).collect()
}

fn text(plan: &Plan<usize>) -> String {
    let mut out = String::new();
    let mut list = |name: &str, kept: &[Kept<usize>]| {
        for k in kept {
            writeln!(out, "{name} {}: {:?} {:?} {:?}", k.id, k.reasons, k.guards, k.until)
                .expect("a string takes all");
        }
    };
    list("keep", &plan.keep);
    list("protected", &plan.protected);
    writeln!(out, "expire {:?}", plan.expire).expect("a string takes all");
    out
}

#[test]
fn a_year_of_dailies_thins_out_by_its_slots_with_a_reason_for_each() {
    let rule =
        RetentionRule { daily: 7, weekly: 4, monthly: 3, keep_last: 2, ..Default::default() };
    let moments: Vec<Timestamp> = (0..120).map(day).collect();
    insta::assert_snapshot!(text(&plan(&rule, &history(&rule, &moments), day(120))));
}

#[test]
fn a_workload_nobody_backs_up_any_more_keeps_its_last_good_days() {
    let rule = RetentionRule::default();
    let mut all = history(&rule, &(0..6).map(day).collect::<Vec<_>>());
    all[3].quality = Quality::Partial;
    all[4].quality = Quality::Damaged;
    let later = plan(&rule, &all, day(4_000));
    assert_eq!(later.protected.iter().map(|kept| kept.id).collect::<Vec<_>>(), [1, 2, 5]);
    assert_eq!(later.expire, [0, 3, 4]);
}

#[test]
fn holds_readers_parents_and_undone_expiries_stay_in_spite_of_the_rule() {
    let rule = RetentionRule::default();
    let mut all = history(&rule, &(0..10).map(day).collect::<Vec<_>>());
    let now = day(4_000);
    all[1].standing.insert(Guard::Held);
    all[2].standing.insert(Guard::BuiltOn);
    all[3].in_use_until = Some(now + Duration::from_secs(1));
    all[4].keep_until = Some(now + Duration::from_secs(1));
    all[5].in_use_until = Some(now);
    let decided = plan(&rule, &all, now);
    assert_eq!(decided.expire, [0, 5, 6]);
    assert!(decided.keep.is_empty());
    let until = |id| decided.protected.iter().find(|kept| kept.id == id).map(|kept| kept.until);
    assert_eq!(until(1), Some(Until::Open));
    assert_eq!(until(3), Some(Until::At(now + Duration::from_secs(1))));
}

#[test]
fn a_longer_rule_keeps_what_the_commit_promised_less() {
    let short = RetentionRule { weekly: 0, monthly: 1, ..RetentionRule::default() };
    let all = history(&short, &(0..60).map(day).collect::<Vec<_>>());
    let now = day(200);
    assert_eq!(plan(&short, &all, now).keep, []);
    let long = RetentionRule { monthly: 12, ..short };
    let kept = plan(&long, &all, now).keep;
    assert!(!kept.is_empty() && kept.iter().all(|k| k.reasons == [Reason::Slot(Slot::Month)]));
}

#[test]
fn of_two_commits_in_one_moment_the_later_in_the_chain_is_the_newest() {
    let rule = RetentionRule::default();
    let mut all = history(&rule, &[day(0), day(0)]);
    // Ids say nothing about order.
    (all[0].id, all[1].id) = (7, 3);
    let decided = plan(&rule, &all, day(4_000));
    assert_eq!(decided.fate(&3), Some(Fate::Protected), "the newest stays");
    assert_eq!(decided.fate(&7), Some(Fate::Protected), "so does the first good one of its day");
    all[0].quality = Quality::Partial;
    all[1].quality = Quality::Partial;
    all.push(Candidate { id: 1, seq: 2, ..all[1].clone() });
    let decided = plan(&rule, &all, day(4_000));
    assert_eq!((decided.fate(&1), decided.fate(&3)), (Some(Fate::Protected), Some(Fate::Expire)));
}

#[test]
fn an_empty_workload_has_an_empty_plan() {
    let decided = plan::<usize>(&RetentionRule::default(), &[], day(0));
    assert_eq!(decided.staying().count() + decided.expire.len(), 0);
}

prop_compose! {
    fn rules()(within_days in 0_u32..10, hourly in 0_u32..5, daily in 0_u32..10, weekly in 0_u32..6,
               monthly in 0_u32..6, yearly in 0_u32..2, keep_last in 0_u32..5) -> RetentionRule {
        RetentionRule { within_days, hourly, daily, weekly, monthly, yearly, keep_last }
    }
}

fn qualities() -> impl Strategy<Value = Quality> {
    prop_oneof![4 => Just(Quality::Whole), 2 => Just(Quality::Partial), 1 => Just(Quality::Damaged)]
}

prop_compose! {
    /// A rule, a history under it with everything that may happen to a snapshot, and a moment after it.
    fn histories()(rule in rules(),
                   steps in prop::collection::vec((1_u64..200_000, qualities(), 0_u8..10, 0_u64..400), 0..40),
                   later in 0_u64..500) -> (RetentionRule, Vec<Candidate<usize>>, Timestamp) {
        let mut now = day(0);
        let moments: Vec<Timestamp> = steps.iter().map(|(gap, ..)| {
            now = now + Duration::from_secs(*gap);
            now
        }).collect();
        let mut all = history(&rule, &moments);
        for (candidate, (_, quality, chance, days)) in all.iter_mut().zip(&steps) {
            candidate.quality = *quality;
            match chance {
                0 => drop(candidate.standing.insert(Guard::Held)),
                1 => drop(candidate.standing.insert(Guard::BuiltOn)),
                2 => candidate.in_use_until = Some(day(*days)),
                3 => candidate.keep_until = Some(day(*days)),
                _ => {}
            }
        }
        (rule, all, now + Duration::from_secs(later * DAY))
    }
}

/// May it go, by the rules of `vault.md`, looked at alone?
fn is_free(c: &Candidate<usize>, now: Timestamp) -> bool {
    c.protect_until <= now
        && c.standing.is_empty()
        && [c.keep_until, c.in_use_until].into_iter().flatten().all(|end| end <= now)
}

proptest! {
    #[test]
    fn every_snapshot_has_exactly_one_fate((rule, all, now) in histories()) {
        let decided = plan(&rule, &all, now);
        let kept = decided.staying().map(|kept| kept.id);
        let mut ids: Vec<usize> = kept.chain(decided.expire.iter().copied()).collect();
        ids.sort_unstable();
        prop_assert_eq!(ids, (0..all.len()).collect::<Vec<_>>());
        prop_assert!(decided.keep.iter().all(|kept| !kept.reasons.is_empty()));
        prop_assert!(decided.protected.iter().all(|kept| kept.reasons.is_empty() && !kept.guards.is_empty()));
        prop_assert!(decided.staying().all(|kept| kept.until > Until::At(now)));
    }

    #[test]
    fn only_what_nothing_protects_expires((rule, all, now) in histories()) {
        let decided = plan(&rule, &all, now);
        for id in &decided.expire {
            prop_assert!(is_free(&all[*id], now));
        }
        // The newest that is not damaged stays, and as many good days as there are, up to the floor.
        let newest = all.iter().rev().find(|c| c.quality != Quality::Damaged).or(all.last());
        prop_assert!(newest.is_none_or(|c| !decided.expire.contains(&c.id)));
        let days = |stay: bool| -> BTreeSet<i64> {
            let good = all.iter().filter(|c| c.quality == Quality::Whole);
            let among = good.filter(|c| !stay || !decided.expire.contains(&c.id));
            among.map(|c| Slot::Day.period(c.committed_at)).collect()
        };
        prop_assert!(days(true).len() >= days(false).len().min(GOOD_DAYS));
    }

    #[test]
    fn the_order_of_the_input_changes_nothing((rule, all, now) in histories()) {
        let mut backwards = all.clone();
        backwards.reverse();
        prop_assert_eq!(plan(&rule, &all, now), plan(&rule, &backwards, now));
    }

    #[test]
    fn time_alone_never_brings_an_expired_one_back((rule, all, now) in histories(), days in 0_u64..1_000) {
        let (early, late) = (plan(&rule, &all, now), plan(&rule, &all, now + Duration::from_secs(days * DAY)));
        for id in &early.expire {
            prop_assert!(late.expire.contains(id));
        }
    }

    #[test]
    fn executing_a_plan_and_planning_again_expires_nothing_more((rule, all, now) in histories()) {
        let first = plan(&rule, &all, now);
        let rest: Vec<_> = all.iter().filter(|c| !first.expire.contains(&c.id)).cloned().collect();
        let again = plan(&rule, &rest, now);
        prop_assert_eq!(again.expire, Vec::<usize>::new());
    }

    #[test]
    fn a_flood_pushes_no_earlier_first_of_a_day_out((rule, all, now) in histories(), flood in 1_usize..50) {
        // A compromised agent commits as often as it likes on the day of the last backup.
        let rule = RetentionRule { keep_last: 0, ..rule };
        prop_assume!(!all.is_empty());
        let last = all[all.len() - 1].committed_at;
        // That day counts as good already: otherwise the flood makes it one more good day, which a single backup does too.
        let is_good = |c: &Candidate<usize>| c.quality == Quality::Whole && Slot::Day.period(c.committed_at) == Slot::Day.period(last);
        prop_assume!(all.iter().any(is_good));
        let midnight = Slot::Day.period(last) + 1;
        let room = (midnight * 86_400 - last.unix_secs()).unsigned_abs();
        prop_assume!(room > flood as u64);
        let mut moments: Vec<Timestamp> = all.iter().map(|c| c.committed_at).collect();
        moments.extend((1..=flood).map(|n| last + Duration::from_secs(n as u64)));
        let mut flooded = history(&rule, &moments);
        flooded[..all.len()].clone_from_slice(&all);
        let now = now.max(last + Duration::from_secs(flood as u64 + 1));
        let (before, after) = (plan(&rule, &all, now), plan(&rule, &flooded, now));
        let firsts = |kept: &&Kept<usize>| {
            let day = |id: usize| Slot::Day.period(all[id].committed_at);
            kept.id == 0 || day(kept.id - 1) < day(kept.id)
        };
        for kept in before.staying().filter(firsts).filter(|kept| all[kept.id].quality == Quality::Whole) {
            prop_assert!(!after.expire.contains(&kept.id), "{} was pushed out", kept.id);
        }
    }
}
