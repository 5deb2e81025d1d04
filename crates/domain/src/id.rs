//! Typed ids: UUIDv7, shown as a type prefix and 32 lowercase hex digits (`snp_0190…`).
//!
//! An `Id<Snapshot>` cannot be passed where an `Id<Tenant>` is wanted. Any 128-bit value parses;
//! anything malformed is an error that HTTP answers with 404, like an id of another tenant.

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

use crate::time::Timestamp;

/// A thing that has ids. Sealed by convention: the list below is the whole list.
pub trait Kind: 'static {
    /// Three letters, without the underscore.
    const PREFIX: &'static str;
}

macro_rules! kinds {
    ($($kind:ident $alias:ident $prefix:literal $doc:literal;)*) => {$(
        #[doc = $doc]
        #[derive(Debug)]
        pub enum $kind {}
        impl Kind for $kind { const PREFIX: &'static str = $prefix; }
        #[doc = concat!("Id of: ", $doc)]
        pub type $alias = Id<$kind>;
    )*};
}

kinds! {
    Tenant TenantId "ten" "A tenant; an MSP and the platform are tenants with children.";
    User UserId "usr" "A person or service account.";
    Agent AgentId "agt" "An enrolled agent.";
    Token TokenId "tok" "An enrolment or refresh token (never its secret).";
    Vault VaultId "vlt" "An encrypted deduplicated storage, the dedup domain.";
    Workload WorkloadId "wkl" "A protected thing.";
    Policy PolicyId "pol" "Selector, schedule, retention rule and options.";
    Run RunId "run" "One execution of a backup, restore or verification.";
    Session SessionId "ses" "One writer's stay in a vault, between B0 and B6.";
    Pack PackId "pck" "One upload of a pack or manifest; also the upload id in its object name.";
    Snapshot SnapshotId "snp" "A committed snapshot.";
    Hold HoldId "hld" "A legal hold on a snapshot.";
    Event EventId "evt" "An audit or outbox event.";
}

/// Id of a `K`. `Copy`, ordered by creation (UUIDv7), serialised as its string form.
pub struct Id<K>(Uuid, PhantomData<fn() -> K>);

impl<K> Id<K> {
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid, PhantomData)
    }
    pub const fn uuid(self) -> Uuid {
        self.0
    }
    pub const fn into_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self::from_uuid(Uuid::from_bytes(bytes))
    }
}

impl<K: Kind> Id<K> {
    /// A fresh id from the generator, ordered by `now`.
    pub fn fresh(ids: &dyn IdGen, now: Timestamp) -> Self {
        Self::from_uuid(ids.uuid(now))
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<K> std::hash::Hash for Id<K> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<K: Kind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", K::PREFIX, self.0.simple())
    }
}
impl<K: Kind> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not `<prefix>_<32 lowercase hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {expected}_ and 32 lowercase hex digits")]
pub struct ParseIdError {
    pub expected: &'static str,
}

impl<K: Kind> FromStr for Id<K> {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = ParseIdError { expected: K::PREFIX };
        let hex = text
            .strip_prefix(K::PREFIX)
            .and_then(|rest| rest.strip_prefix('_'))
            .ok_or_else(|| error.clone())?;
        let plain = hex.len() == 32 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !plain {
            return Err(error);
        }
        Uuid::try_parse(hex).map(Self::from_uuid).map_err(|_| error)
    }
}

impl<K: Kind> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de, K: Kind> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl<K: Kind> utoipa::ToSchema for Id<K> {
    fn name() -> std::borrow::Cow<'static, str> {
        let mut name = String::from(K::PREFIX);
        name[..1].make_ascii_uppercase();
        name.push_str("Id");
        name.into()
    }
}
impl<K: Kind> utoipa::PartialSchema for Id<K> {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some(format!("^{}_[0-9a-f]{{32}}$", K::PREFIX)))
            .examples([format!("{}_0190f3a1c2d47e8f9a0b1c2d3e4f5a6b", K::PREFIX)])
            .into()
    }
}

/// Where ids and random bytes come from. An argument everywhere (R11).
pub trait IdGen: Send + Sync {
    /// A fresh UUIDv7 ordered by `now`.
    fn uuid(&self, now: Timestamp) -> Uuid {
        let mut random = [0_u8; 10];
        self.fill(&mut random);
        uuid::Builder::from_unix_timestamp_millis(now.unix_millis(), &random).into_uuid()
    }
    /// Fills `bytes` with randomness fit for secrets (except in tests).
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdGen for SystemIds {
    fn fill(&self, bytes: &mut [u8]) {
        // A machine without randomness cannot make a safe key; going on would be worse than stopping.
        #[expect(clippy::expect_used, reason = "no safe way on without randomness")]
        getrandom::fill(bytes).expect("the operating system gives randomness");
    }
}

/// Repeatable ids for tests: a counter hashed into bytes by a splitmix step. Never for secrets.
#[derive(Debug, Default)]
pub struct SeededIds(std::sync::atomic::AtomicU64);

impl SeededIds {
    pub const fn new(seed: u64) -> Self {
        Self(std::sync::atomic::AtomicU64::new(seed))
    }
}

impl IdGen for SeededIds {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let step = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut z = step.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            chunk.copy_from_slice(&z.to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_id_reads_back_as_itself(value: u128) {
            let id = SnapshotId::from_uuid(Uuid::from_u128(value));
            prop_assert_eq!(id.to_string().parse::<SnapshotId>(), Ok(id));
        }
        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = text.parse::<TenantId>();
        }
    }

    #[test]
    fn an_id_of_another_kind_or_shape_is_refused() {
        let id = TenantId::from_uuid(Uuid::from_u128(7)).to_string();
        assert!(id.parse::<SnapshotId>().is_err());
        assert!(id.to_uppercase().parse::<TenantId>().is_err());
        assert!(id[..35].parse::<TenantId>().is_err());
        assert!("ten_00000000-0000-0000-0000-00000000".parse::<TenantId>().is_err());
    }

    #[test]
    fn fresh_ids_are_ordered_by_time() {
        let ids = SeededIds::new(1);
        let early = RunId::fresh(&ids, Timestamp::from_unix_millis(1_000));
        let late = RunId::fresh(&ids, Timestamp::from_unix_millis(2_000));
        assert!(early < late);
    }
}
