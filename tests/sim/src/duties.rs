//! What the servers of some seeds see to by themselves, beside all else: each has its kind of seed, so that others
//! stay the runs that they were.

use crate::wishes::Wishes;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Duties {
    /// Storage nodes look at all that they store, and nobody else does.
    pub(crate) scrubs: bool,
    /// What stays away is made anew elsewhere; in the end a storage node goes for good.
    pub(crate) spares: bool,
    /// Folders have quotas, and removed files are kept for a while.
    pub(crate) keeps: bool,
    /// Sessions that fall silent end with their locks; instead of names, clients change locks.
    pub(crate) locks: bool,
}

impl Duties {
    /// Who empties nodes on purpose has none left for what is lost.
    pub(crate) fn of(seed: u64) -> Self {
        let is_kind = |kind: u64| seed % 11 == kind;
        Self {
            scrubs: is_kind(5),
            spares: is_kind(6) && !Wishes::are_made(seed),
            keeps: is_kind(9),
            locks: seed % 13 == 8 && !is_kind(9),
        }
    }
}
