//! Planted bugs: each is a defect the suite must see, compiled in only with the feature `bugs`.

/// A defect on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The commit reads its packs without locking their rows.
    SkipRowLock,
    /// A session's fence is not compared: a sender that was overtaken goes on.
    SkipEpochCheck,
    /// Every frame of a pack is sealed under the same nonce.
    NonceNotAdvanced,
    /// A refused extension of a lock counts as done.
    IgnoreRefusedExtension,
    /// What the agent's cache holds is believed without hashing it.
    TrustStaleCache,
    /// The store's error about an object counts as "there is no such object".
    ErrorAsEmpty,
    /// A delete names the key and no version.
    DeleteByKey,
    /// A manifest's signature is not looked at.
    AcceptUnsignedManifest,
}

impl Bug {
    pub const ALL: [Self; 8] = [
        Self::SkipRowLock,
        Self::SkipEpochCheck,
        Self::NonceNotAdvanced,
        Self::IgnoreRefusedExtension,
        Self::TrustStaleCache,
        Self::ErrorAsEmpty,
        Self::DeleteByKey,
        Self::AcceptUnsignedManifest,
    ];

    /// Its name in `EVERHOLD_BUG`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SkipRowLock => "skip-row-lock",
            Self::SkipEpochCheck => "skip-epoch-check",
            Self::NonceNotAdvanced => "nonce-not-advanced",
            Self::IgnoreRefusedExtension => "ignore-refused-extension",
            Self::TrustStaleCache => "trust-stale-cache",
            Self::ErrorAsEmpty => "error-as-empty",
            Self::DeleteByKey => "delete-by-key",
            Self::AcceptUnsignedManifest => "accept-unsigned-manifest",
        }
    }
}

/// Whether this bug is planted in this process: `EVERHOLD_BUG` names it.
#[cfg(feature = "bugs")]
#[must_use]
pub fn planted(bug: Bug) -> bool {
    static NAME: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "only in builds that cannot ship")]
    let name = NAME.get_or_init(|| std::env::var("EVERHOLD_BUG").ok());
    name.as_deref() == Some(bug.as_str())
}

/// Whether this bug is planted in this process: never.
#[cfg(not(feature = "bugs"))]
#[inline]
#[must_use]
pub const fn planted(_: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let names: std::collections::BTreeSet<_> =
            Bug::ALL.iter().map(|bug| bug.as_str()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
    }
}
