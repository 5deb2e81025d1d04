//! The life of a pack as a pure state machine. The database holds the same table in `catalog.guard_pack`;
//! a test compares the two.

use api::catalog::PackState;

/// Whether a pack may go from one state to the other.
pub const fn may_become(from: PackState, to: PackState) -> bool {
    use PackState::{
        Abandoned, Allocated, Condemned, Deleted, Deleting, Live, Lost, Retained, Uploaded,
    };
    match from {
        Allocated => matches!(to, Uploaded | Abandoned),
        Uploaded => matches!(to, Live | Condemned | Lost),
        Live => matches!(to, Condemned | Lost),
        Condemned => matches!(to, Live | Deleting | Lost),
        // From here no commit can name it again: bytes may be gone before the reply arrives.
        Deleting => matches!(to, Deleted | Retained | Lost),
        Retained => matches!(to, Deleting | Lost),
        Deleted | Lost | Abandoned => false,
    }
}

/// Whether a commit may name a pack in this state.
pub const fn may_be_referenced(state: PackState) -> bool {
    matches!(state, PackState::Uploaded | PackState::Live | PackState::Condemned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_on_its_way_out_never_comes_back() {
        for gone in [PackState::Deleting, PackState::Deleted, PackState::Retained, PackState::Lost]
        {
            assert!(!may_be_referenced(gone), "{gone:?}");
            for usable in PackState::ALL.into_iter().filter(|s| may_be_referenced(*s)) {
                assert!(!may_become(gone, usable), "{gone:?} to {usable:?}");
            }
        }
    }

    #[test]
    fn nothing_unconfirmed_can_be_referenced() {
        assert!(!may_be_referenced(PackState::Allocated));
        assert!(!may_become(PackState::Allocated, PackState::Live));
    }

    #[test]
    fn only_condemned_and_retained_packs_can_start_being_deleted() {
        let doors: Vec<PackState> =
            PackState::ALL.into_iter().filter(|s| may_become(*s, PackState::Deleting)).collect();
        assert_eq!(doors, [PackState::Condemned, PackState::Retained]);
    }
}
