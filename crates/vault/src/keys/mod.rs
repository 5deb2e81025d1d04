//! Keys: who holds what, how an epoch key reaches its recipients, and how it comes back from a kit.
//!
//! Owns agent keys, vault keys, wraps (HPKE), the roster of agents and the recovery kit. Invariants: no
//! secret has `Debug` or `Display`; every secret is zeroized; a wrap or roster of one vault, epoch or
//! recipient is none for another; a roster counts only under an authority the caller names.

mod agent;
mod kit;
mod roster;
mod wrap;
mod wrapper;

pub use agent::AgentKeys;
pub use kit::{KitError, KitVault, RecoveryKit, RootKey};
pub use roster::{Member, Roster, RosterAuthority, RosterError};
pub use wrap::{EpochKey, Recipient, RecipientKind, VaultKeys, Wrap, WrapError};
pub use wrapper::{FileKeyWrapper, KeyWrapper, KeyWrapperError};
