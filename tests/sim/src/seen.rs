//! What a cluster does by itself and the cores have no marks for: drivers' duties, of which a run says that it saw
//! them done.

/// Something that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// A scrub came upon bytes that are not those written.
    ScrubFound,
    /// A target was given up for a new one elsewhere, because it stayed away.
    SpareTaken,
    /// A storage node went for good, and all chains are whole without it.
    MadeWhole,
    /// A folder was full, and nothing more was let in.
    QuotaRefused,
    /// A removed file was found in the trash.
    TrashKept,
    /// What had been in the trash for its time is gone.
    TrashEmptied,
    /// A lock of a session that fell silent went to somebody else.
    LockPassedOn,
}

impl Seen {
    pub const ALL: [Self; 7] = [
        Self::ScrubFound,
        Self::SpareTaken,
        Self::MadeWhole,
        Self::QuotaRefused,
        Self::TrashKept,
        Self::TrashEmptied,
        Self::LockPassedOn,
    ];
}
