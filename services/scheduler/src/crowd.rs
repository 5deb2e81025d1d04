//! Bounds those who wait: so many in all, so many for each of them.
//!
//! Invariant: a seat is free again when it is dropped, however its holder ended; what is kept is as large as
//! the number of those who sit. Per process. Knows nothing of what they wait for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use authz::Actor;

/// Kind and id: a person and an agent never share a count.
type Key = (&'static str, String);

/// Those who wait. Cheap to clone.
#[derive(Clone)]
pub struct Crowd {
    sitting: Arc<Mutex<HashMap<Key, usize>>>,
    all: usize,
    each: usize,
}

/// The right to wait, until dropped.
pub struct Seat {
    crowd: Crowd,
    key: Key,
}

impl Crowd {
    /// At most `all` at once, and `each` of one principal.
    pub fn of(all: usize, each: usize) -> Self {
        Self { sitting: Arc::default(), all, each }
    }

    /// A seat for `actor`; `None` when it has its share already, or nobody gets one.
    pub fn enter(&self, actor: &Actor) -> Option<Seat> {
        let key = (actor.kind(), actor.id());
        let mut sitting = self.lock();
        let taken = sitting.get(&key).copied().unwrap_or(0);
        if taken >= self.each || sitting.values().sum::<usize>() >= self.all {
            return None;
        }
        sitting.insert(key.clone(), taken + 1);
        drop(sitting);
        Some(Seat { crowd: self.clone(), key })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, usize>> {
        self.sitting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut sitting = self.crowd.lock();
        match sitting.get_mut(&self.key) {
            Some(taken) if *taken > 1 => *taken -= 1,
            _ => {
                sitting.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::{AgentId, TenantId};

    use super::*;

    fn agent(n: u8) -> Actor {
        Actor::Agent { tenant: TenantId::from_bytes([1; 16]), id: AgentId::from_bytes([n; 16]) }
    }

    #[test]
    fn each_has_its_share_and_all_together_theirs() {
        let crowd = Crowd::of(3, 2);
        let first = crowd.enter(&agent(1)).expect("a seat");
        let second = crowd.enter(&agent(1)).expect("a seat");
        assert!(crowd.enter(&agent(1)).is_none(), "its share is taken");
        let third = crowd.enter(&agent(2)).expect("a seat");
        assert!(crowd.enter(&agent(3)).is_none(), "the house is full");
        drop(first);
        let again = crowd.enter(&agent(1)).expect("its seat is free");
        assert!(crowd.enter(&agent(2)).is_none());
        drop((second, third, again));
        assert!(crowd.lock().is_empty(), "nobody is remembered");
    }
}
