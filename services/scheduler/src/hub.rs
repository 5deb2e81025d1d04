//! Wakes long polls and event streams of this process when something changed.
//!
//! A hint, never the truth: with several replicas the change may happen elsewhere, so every waiter also
//! looks at the database now and then. Losing a wake-up costs a second, inventing one costs a query.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::Notify;
use uuid::Uuid;

/// Wake-ups by agent (work for it) and by run (it moved). Cheap to clone.
#[derive(Clone, Default)]
pub struct Hub(Arc<Mutex<HashMap<Uuid, Weak<Notify>>>>);

impl Hub {
    /// A place to wait. Keep it while asking the database, so that nothing falls between: use
    /// [`Notify::notified`] and `enable` it first.
    pub fn watch(&self, id: Uuid) -> Arc<Notify> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = all.get(&id).and_then(Weak::upgrade) {
            return there;
        }
        // Nobody waits for most ids any more; clearing here keeps the map as small as its use.
        if all.len() >= 64 && all.len().is_power_of_two() {
            all.retain(|_, waiters| waiters.strong_count() > 0);
        }
        let fresh = Arc::new(Notify::new());
        all.insert(id, Arc::downgrade(&fresh));
        fresh
    }

    #[cfg(test)]
    pub fn is_watched(&self, id: Uuid) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&id).is_some_and(|waiters| waiters.strong_count() > 0)
    }

    pub fn wake(&self, id: Uuid) {
        let waiters = {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&id).and_then(Weak::upgrade)
        };
        if let Some(waiters) = waiters {
            waiters.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_that_is_enabled_misses_nothing() {
        let hub = Hub::default();
        let id = Uuid::from_u128(1);
        let place = hub.watch(id);
        let waiting = place.notified();
        tokio::pin!(waiting);
        waiting.as_mut().enable();
        hub.wake(Uuid::from_u128(2));
        hub.wake(id);
        waiting.await;
    }

    #[test]
    fn places_nobody_waits_at_are_forgotten() {
        let hub = Hub::default();
        for n in 0..1_000 {
            hub.watch(Uuid::from_u128(n));
        }
        assert!(hub.0.lock().expect("unpoisoned").len() <= 64);
    }
}
