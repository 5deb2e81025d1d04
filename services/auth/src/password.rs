//! Passwords: what is accepted, how they are stored, what checking one costs.
//!
//! Invariant: every check costs the same, whether the name exists or not, and at most `parallel` of them
//! run at once, so that a flood of sign-ins queues for a while, then is turned away, and never eats the
//! machine's memory. Knows nothing of users or of HTTP.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use domain::IdGen;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Shortest password accepted, in characters.
pub const MIN_CHARS: usize = 12;
/// Longest, in bytes: nobody types more, and hashing it is work for the asker's benefit only.
pub const MAX_BYTES: usize = 512;

/// OWASP's and NIST's first choice for Argon2id: 46 MiB, one pass, one lane.
const MEMORY_KIB: u32 = 46 * 1024;
const PASSES: u32 = 1;
/// Checks that may wait for their turn before newcomers are turned away.
const QUEUE: usize = 64;

/// A hash no password has, at today's cost: what an unknown name is checked against.
const DECOY: &str = concat!(
    "$argon2id$v=19$m=47104,t=1,p=1$ZXZlcmhvbGQgZGVjb3kuLg$",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
);

static COMMON: &str = include_str!("../data/common_passwords.txt");

/// A password on its way in; wiped when dropped, never shown.
pub type Secret = Zeroizing<String>;

/// Why a password is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Weakness {
    #[error("at least {MIN_CHARS} characters")]
    TooShort,
    #[error("at most {MAX_BYTES} bytes")]
    TooLong,
    #[error("this password is on the list of passwords attackers try first; choose another")]
    Common,
    #[error("this password contains the name it signs in with; choose another")]
    ContainsName,
}

/// Why a password could not be checked or stored.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// More sign-ins are waiting than are worth waiting for.
    #[error("too many passwords are being checked")]
    Busy,
    #[error("the password could not be hashed")]
    Hash(#[source] argon2::password_hash::Error),
    #[error("the hashing task ended early")]
    Task(#[source] tokio::task::JoinError),
}

/// Judges a new password for the account that signs in as `email`.
///
/// # Errors
/// The first [`Weakness`] found.
pub fn judge(password: &str, email: &str) -> Result<(), Weakness> {
    if password.chars().count() < MIN_CHARS {
        return Err(Weakness::TooShort);
    }
    if password.len() > MAX_BYTES {
        return Err(Weakness::TooLong);
    }
    let lower = password.to_lowercase();
    if is_common(&lower) {
        return Err(Weakness::Common);
    }
    let email = email.to_lowercase();
    if !email.is_empty() && (lower.contains(&email) || email.contains(&lower)) {
        return Err(Weakness::ContainsName);
    }
    Ok(())
}

fn is_common(lower: &str) -> bool {
    static LIST: OnceLock<(HashSet<&str>, HashSet<String>)> = OnceLock::new();
    let (exact, folded) =
        LIST.get_or_init(|| (COMMON.lines().collect(), COMMON.lines().map(fold).collect()));
    let mut seen: Vec<char> = lower.chars().collect();
    seen.sort_unstable();
    seen.dedup();
    seen.len() < 5 || exact.contains(lower) || folded.contains(&fold(lower))
}

/// Undoes the swaps everybody knows: `p@ssw0rd` is `password`.
fn fold(lower: &str) -> String {
    lower
        .chars()
        .map(|c| match c {
            '0' => 'o',
            '1' | '!' | '|' => 'l',
            '3' => 'e',
            '4' | '@' => 'a',
            '5' | '$' => 's',
            '7' | '+' => 't',
            other => other,
        })
        .collect()
}

/// Hashes and checks passwords, a few at a time, off the async threads.
#[derive(Clone)]
pub struct Passwords {
    working: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Passwords {
    /// Works on at most `parallel` passwords at once (46 MiB each).
    pub fn new(parallel: usize) -> Self {
        Self {
            working: Arc::new(Semaphore::new(parallel.max(1))),
            waiting: Arc::new(Semaphore::new(QUEUE)),
        }
    }

    /// PHC string to store.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] under a flood.
    pub async fn hash(&self, password: Secret, ids: &dyn IdGen) -> Result<String, PasswordError> {
        let salt = salt(ids);
        self.run(move || hash(password.as_bytes(), &salt)).await?
    }

    /// Whether `password` is the one stored; `None` (an unknown name) costs the same and is never right.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] under a flood.
    pub async fn verify(
        &self,
        password: Secret,
        stored: Option<String>,
    ) -> Result<bool, PasswordError> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| DECOY.to_owned());
        let matches = self.run(move || verify(password.as_bytes(), &stored)).await??;
        Ok(matches && known)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _queued = self.waiting.try_acquire().map_err(|_| PasswordError::Busy)?;
        // The permit travels into the task: a caller who hangs up must not free a place still in use.
        let turn = self.working.clone().acquire_owned().await.map_err(|_| PasswordError::Busy)?;
        let task = move || {
            let result = work();
            drop(turn);
            result
        };
        tokio::task::spawn_blocking(task).await.map_err(PasswordError::Task)
    }
}

fn salt(ids: &dyn IdGen) -> [u8; 16] {
    let mut salt = [0; 16];
    ids.fill(&mut salt);
    salt
}

fn hasher() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None)
        .map_err(|_| PasswordError::Hash(argon2::password_hash::Error::Crypto))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &[u8], salt: &[u8]) -> Result<String, PasswordError> {
    let hash: PasswordHash =
        hasher()?.hash_password_with_salt(password, salt).map_err(PasswordError::Hash)?;
    Ok(hash.to_string())
}

fn verify(password: &[u8], stored: &str) -> Result<bool, PasswordError> {
    let stored = PasswordHash::new(stored)
        .map_err(|_| PasswordError::Hash(argon2::password_hash::Error::EncodingInvalid))?;
    match hasher()?.verify_password(password, &stored) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(error) => Err(PasswordError::Hash(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::SeededIds;

    #[test]
    fn weak_passwords_are_refused_and_say_why() {
        let email = "lena.hartmann@praxis.example";
        for (password, weakness) in [
            ("short-one!!", Weakness::TooShort),
            ("Password1234", Weakness::Common),
            ("P@ssw0rd1234", Weakness::Common),
            ("Welcome2026!", Weakness::Common),
            ("qwertyuiop123", Weakness::Common),
            ("aaaaaaaaaaaaaaaa", Weakness::Common),
            ("lena.hartmann@praxis.example", Weakness::ContainsName),
            ("lena.hartmann", Weakness::ContainsName),
        ] {
            assert_eq!(judge(password, email), Err(weakness), "{password}");
        }
        assert_eq!(judge(&"long".repeat(200), email), Err(Weakness::TooLong));
        assert_eq!(judge("vier Kähne auf dem See", email), Ok(()));
        // Twelve characters, not twelve bytes.
        assert_eq!(judge("äöüßéèâîôûñ", email), Err(Weakness::TooShort));
    }

    #[test]
    fn the_list_holds_only_what_is_long_enough_to_matter() {
        assert!(COMMON.lines().count() > 2_000);
        assert!(COMMON.lines().all(|line| line.chars().count() >= MIN_CHARS));
    }

    #[tokio::test]
    async fn only_the_password_that_was_stored_opens() {
        let ids = SeededIds::new(1);
        let passwords = Passwords::new(2);
        let secret = |text: &str| Secret::new(text.to_owned());
        let stored = passwords.hash(secret("vier Kähne"), &ids).await.expect("hash");
        assert!(stored.starts_with("$argon2id$v=19$m=47104,t=1,p=1$"), "{stored}");
        assert!(passwords.verify(secret("vier Kähne"), Some(stored.clone())).await.expect("check"));
        assert!(!passwords.verify(secret("vier kähne"), Some(stored)).await.expect("check"));
        assert!(!passwords.verify(secret("vier Kähne"), None).await.expect("check"));
    }

    #[tokio::test]
    async fn a_flood_is_turned_away_instead_of_queued_for_ever() {
        let passwords = Passwords::new(1);
        let hold = passwords.working.clone().acquire_owned().await.expect("open");
        let waiting: Vec<_> = (0..QUEUE)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.verify(Secret::default(), None).await })
            })
            .collect();
        while passwords.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = passwords.verify(Secret::default(), None).await;
        assert!(matches!(refused, Err(PasswordError::Busy)), "{refused:?}");
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        drop(hold);
    }
}
