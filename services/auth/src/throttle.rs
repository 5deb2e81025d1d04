//! Slows down guessing: exponential delay per (account, address) and per address, never a lock-out.
//!
//! Invariant: the account's owner, from another address, is not slowed down by an attacker; memory is
//! bounded; what is kept is a hash, so a dump of it names nobody. Per process: with N replicas an attacker
//! gets N times the free tries, which the delay dwarfs. Pure apart from its own lock; time is an argument.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domain::Timestamp;
use sha2::{Digest as _, Sha256};

/// Wrong tries for one account from one address before the first delay.
const FREE_PER_ACCOUNT: u32 = 5;
/// Wrong tries from one address over all accounts; many people may sit behind it.
const FREE_PER_ADDRESS: u32 = 50;
/// Tries of one account from one address at the same moment: parallel guesses count too.
const PARALLEL: u32 = 8;
const LONGEST_DELAY: Duration = Duration::from_secs(15 * 60);
/// When the address is not known, the owner waits with the attacker: not for long then.
const LONGEST_SHARED_DELAY: Duration = Duration::from_secs(30);
/// After this long without a wrong try all is forgotten.
const MEMORY: Duration = Duration::from_secs(24 * 60 * 60);
const CAPACITY: usize = 20_000;

type Key = [u8; 32];

#[derive(Debug, Clone, Copy)]
struct Record {
    wrong: u32,
    trying: u32,
    last: Timestamp,
}

/// Told to wait this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait(pub Duration);

/// The memory of wrong tries.
#[derive(Debug, Default)]
pub struct Throttle {
    records: Mutex<HashMap<Key, Record>>,
}

/// One admitted try. Say how it ended; dropped without a word, it counts as neither.
#[derive(Debug)]
pub struct Attempt<'a> {
    throttle: &'a Throttle,
    account: Key,
    address: Option<Key>,
}

impl Throttle {
    /// May this account be tried from this address now?
    ///
    /// # Errors
    /// [`Wait`]: how long until the next try counts.
    pub fn admit(
        &self,
        name_key: &str,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Attempt<'_>, Wait> {
        let network = from.map(network_of).unwrap_or_default();
        let account = digest(&[b"account", name_key.as_bytes(), &network]);
        // Without an address, "all from there" would be everybody.
        let address = from.map(|_| digest(&[b"address", &network]));
        let longest = if from.is_some() { LONGEST_DELAY } else { LONGEST_SHARED_DELAY };
        let mut records = self.lock();
        let by_address = address.as_ref().and_then(|address| records.get(address));
        let wait = wait(records.get(&account), FREE_PER_ACCOUNT, longest, now).max(wait(
            by_address,
            FREE_PER_ADDRESS,
            longest,
            now,
        ));
        if wait > Duration::ZERO {
            return Err(Wait(wait));
        }
        make_room(&mut records, now);
        let record = records.entry(account).or_insert(Record { wrong: 0, trying: 0, last: now });
        if record.trying >= PARALLEL {
            return Err(Wait(Duration::from_secs(1)));
        }
        record.trying += 1;
        Ok(Attempt { throttle: self, account, address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt<'_> {
    /// The secret was right: the account starts afresh from this address.
    pub fn succeeded(self) {
        if let Some(record) = self.throttle.lock().get_mut(&self.account) {
            record.wrong = 0;
        }
    }

    /// The secret was wrong.
    pub fn failed(self, now: Timestamp) {
        let mut records = self.throttle.lock();
        for key in [Some(self.account), self.address].into_iter().flatten() {
            let record = records.entry(key).or_insert(Record { wrong: 0, trying: 0, last: now });
            record.wrong = record.wrong.saturating_add(1);
            record.last = now;
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut records = self.throttle.lock();
        if let Some(record) = records.get_mut(&self.account) {
            record.trying = record.trying.saturating_sub(1);
            if record.trying == 0 && record.wrong == 0 {
                records.remove(&self.account);
            }
        }
    }
}

/// One second after the last free try, then twice as long each time.
fn wait(record: Option<&Record>, free: u32, longest: Duration, now: Timestamp) -> Duration {
    let Some(record) = record else { return Duration::ZERO };
    if record.wrong < free || now.since(record.last) >= MEMORY {
        return Duration::ZERO;
    }
    let doublings = (record.wrong - free).min(20);
    let delay = Duration::from_secs(1 << doublings).min(longest);
    delay.saturating_sub(now.since(record.last))
}

/// Forgets what is old; if that is not enough, the oldest. Records with a try under way stay.
fn make_room(records: &mut HashMap<Key, Record>, now: Timestamp) {
    if records.len() < CAPACITY {
        return;
    }
    records.retain(|_, record| record.trying > 0 || now.since(record.last) < LONGEST_DELAY);
    if records.len() < CAPACITY {
        return;
    }
    let mut times: Vec<Timestamp> = records.values().map(|record| record.last).collect();
    let (_, median, _) = times.select_nth_unstable(CAPACITY / 2);
    let median = *median;
    records.retain(|_, record| record.trying > 0 || record.last > median);
}

/// A person's network: the address for IPv4, the /64 for IPv6.
fn network_of(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets()[..8].to_vec(),
    }
}

fn digest(parts: &[&[u8]]) -> Key {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
    const ELSEWHERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)));

    fn start() -> Timestamp {
        Timestamp::from_unix_millis(1_800_000_000_000)
    }

    fn fail(throttle: &Throttle, name: &str, from: Option<IpAddr>, now: Timestamp) {
        throttle.admit(name, from, now).expect("admitted").failed(now);
    }

    #[test]
    fn the_delay_doubles_and_ends() {
        let throttle = Throttle::default();
        let mut now = start();
        for _ in 0..FREE_PER_ACCOUNT {
            fail(&throttle, "a", HERE, now);
        }
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
            let wait = throttle.admit("a", HERE, now).expect_err("must wait");
            assert_eq!(wait.0.as_secs(), seconds);
            now = now + wait.0;
            fail(&throttle, "a", HERE, now);
        }
    }

    #[test]
    fn the_owner_elsewhere_is_not_slowed_down_and_success_forgets() {
        let throttle = Throttle::default();
        for _ in 0..FREE_PER_ACCOUNT {
            fail(&throttle, "a", HERE, start());
        }
        assert!(throttle.admit("a", HERE, start()).is_err());
        assert!(throttle.admit("b", HERE, start()).is_ok());
        assert!(throttle.admit("a", ELSEWHERE, start()).is_ok());
        let later = start() + Duration::from_secs(2);
        throttle.admit("a", HERE, later).expect("waited").succeeded();
        fail(&throttle, "a", HERE, later);
        assert!(throttle.admit("a", HERE, later).is_ok());
    }

    #[test]
    fn one_address_trying_many_accounts_is_slowed_down() {
        let throttle = Throttle::default();
        for n in 0..FREE_PER_ADDRESS {
            fail(&throttle, &n.to_string(), HERE, start());
        }
        assert!(throttle.admit("fresh", HERE, start()).is_err());
        assert!(throttle.admit("fresh", ELSEWHERE, start()).is_ok());
    }

    #[test]
    fn without_addresses_an_attacker_delays_nobody_for_long_and_nobody_else_at_all() {
        let throttle = Throttle::default();
        let mut now = start();
        for _ in 0..100 {
            let wait = throttle.admit("a", None, now).err().map_or(Duration::ZERO, |wait| wait.0);
            assert!(wait <= LONGEST_SHARED_DELAY);
            now = now + wait;
            fail(&throttle, "a", None, now);
        }
        assert!(throttle.admit("b", None, now).is_ok());
    }

    #[test]
    fn parallel_guesses_are_counted_before_they_are_answered() {
        let throttle = Throttle::default();
        let guesses: Vec<_> = (0..PARALLEL).map(|_| throttle.admit("a", HERE, start())).collect();
        assert!(guesses.iter().all(Result::is_ok));
        assert!(throttle.admit("a", HERE, start()).is_err());
        drop(guesses);
        assert!(throttle.admit("a", HERE, start()).is_ok());
    }

    #[test]
    fn memory_is_bounded_and_right_tries_leave_nothing() {
        let throttle = Throttle::default();
        throttle.admit("a", None, start()).expect("admitted").succeeded();
        assert_eq!(throttle.lock().len(), 0);
        for n in 0..(CAPACITY as u32 + 5_000) {
            let from = IpAddr::V4(std::net::Ipv4Addr::from(n));
            fail(&throttle, "a", Some(from), start() + Duration::from_millis(u64::from(n)));
        }
        assert!(throttle.lock().len() <= CAPACITY + 2);
    }
}
