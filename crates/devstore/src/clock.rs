//! The time locks are judged by, and the alarm for a clock that was set forward.
//!
//! Setting the host's clock forward expires every lock of a store on that host. So the store keeps a
//! trusted time that only advances with the machine's monotonic clock, and persists it. While the
//! wall clock runs more than an hour ahead of it, locks are judged by the trusted time: no version
//! whose lock ends in the gap can be deleted or weakened until an operator confirms the wall clock.
//! Time the machine was off counts as such a gap, because nothing proves it passed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::{Clock, Timestamp};

use crate::model::Heartbeat;

/// How far ahead the wall clock may run before it is doubted.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(3_600);

/// Where the monotonic time comes from: the machine's start and the time since, sleep included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uptime {
    pub boot: Option<String>,
    pub since: Duration,
}

impl Uptime {
    pub(crate) fn now() -> Self {
        #[cfg(target_os = "linux")]
        let id = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let id = rustix::time::ClockId::Monotonic;
        let now = rustix::time::clock_gettime(id);
        let secs = Duration::from_secs(now.tv_sec.unsigned_abs());
        let nanos = Duration::from_nanos(now.tv_nsec.unsigned_abs());
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        Self { boot: boot.map(|id| id.trim().to_owned()), since: secs + nanos }
    }
}

pub(crate) struct LockClock {
    wall: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    trusted: Timestamp,
    /// Uptime at which `trusted` was true.
    at: Duration,
}

impl LockClock {
    /// Continues from the last heartbeat, or trusts the wall clock when there is none.
    pub(crate) fn new(wall: Arc<dyn Clock>, last: Option<&Heartbeat>, uptime: &Uptime) -> Self {
        let trusted = last.map_or_else(|| wall.now(), |beat| resumed(beat, uptime));
        Self { wall, state: Mutex::new(State { trusted, at: uptime.since }) }
    }
    pub(crate) fn wall(&self) -> Timestamp {
        self.wall.now()
    }
    /// The time locks end by: the wall clock, or the trusted time while the wall clock is doubted.
    pub(crate) fn locks(&self) -> Timestamp {
        let (wall, trusted) = self.read();
        if is_doubtful(wall, trusted) { trusted } else { wall }
    }
    /// Whether the wall clock is doubted.
    pub(crate) fn doubted(&self) -> bool {
        let (wall, trusted) = self.read();
        is_doubtful(wall, trusted)
    }
    /// Wall and trusted time, each read once: a clock that ticks between two readings is not a jump.
    fn read(&self) -> (Timestamp, Timestamp) {
        (self.wall.now(), self.trusted(Uptime::now().since))
    }
    /// An operator says that the wall clock is right.
    pub(crate) fn confirm(&self) {
        let state = State { trusted: self.wall.now(), at: Uptime::now().since };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
    pub(crate) fn heartbeat(&self) -> Heartbeat {
        let uptime = Uptime::now();
        Heartbeat {
            trusted: self.trusted(uptime.since),
            boot: uptime.boot,
            since_boot_ns: u64::try_from(uptime.since.as_nanos()).unwrap_or(u64::MAX),
        }
    }
    fn trusted(&self, since: Duration) -> Timestamp {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.trusted + since.saturating_sub(state.at)
    }
}

fn is_doubtful(wall: Timestamp, trusted: Timestamp) -> bool {
    wall > trusted + TOLERANCE
}

fn resumed(beat: &Heartbeat, uptime: &Uptime) -> Timestamp {
    let same_boot = beat.boot.is_some() && beat.boot == uptime.boot;
    if !same_boot {
        return beat.trusted;
    }
    beat.trusted + uptime.since.saturating_sub(Duration::from_nanos(beat.since_boot_ns))
}

#[cfg(test)]
mod tests {
    use domain::ManualClock;

    use super::*;

    fn start() -> Timestamp {
        Timestamp::from_unix_millis(1_800_000_000_000)
    }
    fn close(a: Timestamp, b: Timestamp) -> bool {
        a.since(b).max(b.since(a)) < Duration::from_secs(60)
    }

    #[test]
    fn a_clock_that_merely_ticks_is_not_doubted() {
        let clock = LockClock::new(Arc::new(domain::SystemClock), None, &Uptime::now());
        assert!((0..1_000).all(|_| !clock.doubted()));
    }

    #[test]
    fn a_jump_is_doubted_until_confirmed_and_small_steps_do_not_add_up() {
        let wall = Arc::new(ManualClock::at(start()));
        let clock = LockClock::new(wall.clone(), None, &Uptime::now());
        wall.advance(Duration::from_secs(3_000));
        assert!(!clock.doubted());
        wall.advance(Duration::from_secs(3_000));
        assert!(clock.doubted(), "two steps below the tolerance are one jump");
        assert!(close(clock.locks(), start()));
        clock.confirm();
        assert!(!clock.doubted());
        assert_eq!(clock.locks(), wall.now());
    }

    #[test]
    fn a_restart_of_the_process_keeps_the_trusted_time() {
        let wall = Arc::new(ManualClock::at(start()));
        let first = LockClock::new(wall.clone(), None, &Uptime::now());
        wall.advance(Duration::from_secs(90_000));
        let beat = first.heartbeat();
        let second = LockClock::new(wall, Some(&beat), &Uptime::now());
        assert!(second.doubted());
        assert!(close(second.locks(), start()));
    }

    #[test]
    fn time_the_machine_was_off_is_not_trusted_but_uptime_is() {
        let beat =
            Heartbeat { trusted: start(), boot: Some("one".into()), since_boot_ns: 5_000_000_000 };
        let two_hours = Duration::from_secs(7_205);
        let same = Uptime { boot: Some("one".into()), since: two_hours };
        assert_eq!(resumed(&beat, &same), start() + Duration::from_secs(7_200));
        let other = Uptime { boot: Some("two".into()), since: two_hours };
        assert_eq!(resumed(&beat, &other), start());
    }
}
