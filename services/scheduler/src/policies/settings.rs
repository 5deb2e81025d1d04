//! What is in force where one policy extends another. Pure.
//!
//! Invariant: what a policy above protects is in force below it at least as strictly, whatever was stored below before
//! the protection was made.

use std::collections::BTreeSet;

use api::{
    policy::{PolicySettings, Retry, Setting},
    scheduler::RunSource,
};

/// One policy of a chain.
#[derive(Debug, Clone)]
pub struct Level {
    pub settings: PolicySettings,
    pub protected: Vec<Setting>,
}

/// What a chain of policies says together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    pub settings: PolicySettings,
    /// Settings of the last policy of the chain that are looser than what is protected above it.
    pub overruled: Vec<Setting>,
}

/// Folds a chain, from the policy that extends none down to the one asked about.
pub fn in_force(chain: &[Level]) -> InForce {
    let mut protected: BTreeSet<Setting> = BTreeSet::new();
    let mut force = InForce::default();
    for level in chain {
        force = over(force.settings, &level.settings, &protected);
        protected.extend(&level.protected);
    }
    force
}

/// `below` over `above`, of which `protected` may only become stricter.
fn over(above: PolicySettings, below: &PolicySettings, protected: &BTreeSet<Setting>) -> InForce {
    let mut overruled = Vec::new();
    let mut keep = |setting: Setting, is_looser: bool| {
        let overrules = is_looser && protected.contains(&setting);
        if overrules {
            overruled.push(setting);
        }
        overrules
    };
    let source = pick(above.source, below.source.as_ref(), |above, below| {
        keep(Setting::Source, reads_less(below, above))
    });
    let schedule = pick(above.schedule, below.schedule.as_ref(), |above, below| {
        keep(Setting::Schedule, below != above)
    });
    let retry = pick(above.retry, below.retry.as_ref(), |above, below| {
        keep(Setting::Retry, tries_less(*below, *above))
    });
    let rpo_minutes = pick(above.rpo_minutes, below.rpo_minutes.as_ref(), |above, below| {
        keep(Setting::Rpo, below > above)
    });
    InForce { settings: PolicySettings { source, schedule, retry, rpo_minutes }, overruled }
}

/// What is said below, unless nothing is, or it is overruled by what is said above.
fn pick<T: Clone>(
    above: Option<T>,
    below: Option<&T>,
    overrules: impl FnOnce(&T, &T) -> bool,
) -> Option<T> {
    match (above, below) {
        (above, None) => above,
        (Some(above), Some(below)) if overrules(&above, below) => Some(above),
        (_, Some(below)) => Some(below.clone()),
    }
}

/// Whether `below` leaves out something that `above` reads.
pub fn reads_less(below: &RunSource, above: &RunSource) -> bool {
    let all_paths = above.paths.iter().all(|path| below.paths.contains(path));
    let no_more_excluded = below.excludes.iter().all(|pattern| above.excludes.contains(pattern));
    let crosses = above.one_file_system || !below.one_file_system;
    let caches = above.exclude_caches || !below.exclude_caches;
    !(all_paths && no_more_excluded && crosses && caches)
}

const fn tries_less(below: Retry, above: Retry) -> bool {
    below.attempts < above.attempts || below.after_minutes > above.after_minutes
}

#[cfg(test)]
mod tests {
    use api::policy::Schedule;

    use super::*;

    fn level(settings: PolicySettings, protected: &[Setting]) -> Level {
        Level { settings, protected: protected.to_vec() }
    }
    fn rpo(minutes: u32) -> PolicySettings {
        PolicySettings { rpo_minutes: Some(minutes), ..PolicySettings::default() }
    }
    fn reads(paths: &[&str], excludes: &[&str]) -> PolicySettings {
        let all = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let source =
            RunSource { paths: all(paths), excludes: all(excludes), ..RunSource::default() };
        PolicySettings { source: Some(source), ..PolicySettings::default() }
    }
    fn schedule(cron: &str) -> Schedule {
        Schedule {
            cron: vec![cron.to_owned()],
            every_minutes: None,
            zone: "UTC".into(),
            windows: Vec::new(),
            jitter_minutes: 0,
            run_if_missed: false,
        }
    }

    #[test]
    fn what_is_not_said_is_inherited_and_what_is_said_holds() {
        let above = PolicySettings { schedule: Some(schedule("0 2 * * *")), ..rpo(1_440) };
        let force = in_force(&[level(above.clone(), &[]), level(rpo(2_880), &[])]);
        assert_eq!(force.settings.schedule, above.schedule);
        assert_eq!(force.settings.rpo_minutes, Some(2_880));
        assert_eq!(force.overruled, []);
    }

    #[test]
    fn what_is_protected_becomes_stricter_below_and_never_looser() {
        let chain = |below| [level(rpo(60), &[Setting::Rpo]), level(rpo(below), &[])];
        assert_eq!(in_force(&chain(30)).settings.rpo_minutes, Some(30));
        let looser = in_force(&chain(61));
        assert_eq!((looser.settings.rpo_minutes, looser.overruled), (Some(60), vec![Setting::Rpo]));
        // A protection reaches past a level that says nothing.
        let far = [
            level(rpo(60), &[Setting::Rpo]),
            level(PolicySettings::default(), &[]),
            level(rpo(90), &[]),
        ];
        assert_eq!(in_force(&far).settings.rpo_minutes, Some(60));
        // Its own protection binds those below it, not itself.
        let own = [level(rpo(60), &[]), level(rpo(90), &[Setting::Rpo])];
        assert_eq!(in_force(&own).settings.rpo_minutes, Some(90));
    }

    #[test]
    fn a_protected_source_is_read_whole() {
        let above = reads(&["/etc", "/srv"], &["*.tmp"]);
        let force = |below: PolicySettings| {
            in_force(&[level(above.clone(), &[Setting::Source]), level(below, &[])])
        };
        assert_eq!(force(reads(&["/etc", "/srv", "/home"], &[])).overruled, []);
        for looser in [
            reads(&["/etc"], &["*.tmp"]),
            reads(&["/etc", "/srv"], &["*.tmp", "*.db"]),
            reads(&[], &[]),
        ] {
            let force = force(looser);
            assert_eq!(force.overruled, [Setting::Source]);
            assert_eq!(force.settings.source, above.source);
        }
        let mut narrow = above.clone();
        narrow.source.as_mut().expect("said").one_file_system = true;
        assert_eq!(force(narrow).overruled, [Setting::Source]);
        let mut less = above.clone();
        less.source.as_mut().expect("said").exclude_caches = true;
        assert_eq!(force(less).overruled, [Setting::Source]);
    }

    #[test]
    fn a_protected_schedule_stays_and_retries_do_not_shrink() {
        let with = |cron: &str, attempts| PolicySettings {
            schedule: Some(schedule(cron)),
            retry: Some(Retry { attempts, after_minutes: 5 }),
            ..PolicySettings::default()
        };
        let both = [Setting::Schedule, Setting::Retry];
        let force =
            in_force(&[level(with("0 2 * * *", 3), &both), level(with("0 2 * * 1", 2), &[])]);
        assert_eq!(force.overruled, both);
        let force =
            in_force(&[level(with("0 2 * * *", 3), &both), level(with("0 2 * * *", 4), &[])]);
        assert_eq!(force.overruled, []);
    }
}
