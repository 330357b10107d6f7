//! Marks at rare paths, by which a simulation proves that it went there.
//!
//! A core says [`reached`] where something seldom happens. In debug builds the thread's counters know
//! it, and whoever runs a machine on that thread asks for them with [`take`]; in release builds nothing
//! is left of it. No code but a test ever reads a counter, so a run stays a function of its inputs.

use std::cell::RefCell;

/// A name for each rare path, and what happens there.
macro_rules! marks {
    ($($(#[$doc:meta])* $mark:ident),* $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mark {
            $($(#[$doc])* $mark,)*
        }

        impl Mark {
            pub const ALL: &[Self] = &[$(Self::$mark),*];
        }
    };
}

marks! {
    // The CRAQ machine.
    /// A server whose lease is over refuses a client.
    FenceRefuses,
    /// A client names another chain version than the present one, or not the head.
    StaleUpdateRefused,
    /// A forward comes under another chain version.
    StaleForwardRefused,
    /// A doubled update is answered from the chunk's table.
    DoubleAnswered,
    /// A doubled update waits for the one that is pending, or before it.
    DoubleAttached,
    /// A new head commits what its predecessor had begun.
    InheritedCommitted,
    /// The last member of a chain settles what nobody behind it answers for.
    LastSettles,
    /// A later forward tells that the pending update was committed.
    NextTellsCommit,
    /// A later forward tells that the pending update was dropped.
    NextTellsDrop,
    /// An update that a member had dropped comes again, and is taken.
    DroppedTaken,
    /// A question to the head finds an outcome whose word was lost.
    OutcomeFound,
    /// The head is asked before a read, because an update is pending.
    ReadAsksHead,
    /// Bytes that were read do not count: the target left its chain, or its lease ended, meanwhile.
    ReadTooLate,
    /// A member lacks the version that a forward builds on.
    BaseMissing,
    /// A pending update is sent as the whole chunk.
    WholeSent,
    /// A resync sends a chunk.
    CopySent,
    /// A resync removes a chunk that the chain has not.
    CopyRemoves,
    /// A live update was faster than the resync's copy.
    CopyOvertaken,
    /// A start finds the copy of a chunk that was being repaired.
    CopyLeftBehind,
    /// A resync finds chunks in place that an earlier one brought, or that never changed.
    ResyncResumes,
    /// A target is not complete: updates from before its sync are not settled.
    SyncNotSettled,
    /// A damaged chunk takes its target out of the chain, for repair.
    DamagedLeaves,
    /// A damaged chunk is found where nobody can stand in.
    DamagedStays,
    /// The version that an update builds on is damaged.
    BaseDamaged,
    /// A damaged chunk is good again.
    DamageHealed,
    /// A resync cannot read a chunk on its own side.
    SourceDamaged,
    /// A resync gives way to another member, because it cannot read what this one lacks.
    ResyncGivesWay,
    /// A member is out of its chain, since others do not reach it.
    CutGivesWay,
    /// What a chunk was is kept as a clone, for a snapshot.
    CloneMade,
    /// Updates that waited while a snapshot was made go on.
    UpdatesThawed,
    /// A member that its chain can do without answers no reads any more.
    MemberRetires,
    /// ... and does again, because the chain needs it after all.
    MemberStays,

    // The cluster machine.
    /// A death waits until the silence of others is decided.
    DeathWaits,
    /// A death waits because it would leave a chain to members that fenced themselves.
    SilentChainWaits,
    /// A daemon that does not know its node is known by its address and a disk.
    KnownByDisk,
    /// A restart is judged as a death before the node joins.
    RestartJudged,
    /// A node whose death is being logged is not heard.
    DyingUnheard,
    /// A chain has nobody that serves, and waits for who served last.
    ChainWaits,
    /// Who served last is back, and its chain serves.
    LastServes,
    /// A store is another one than that on record.
    StoreLost,
    /// A newcomer serves, and the member that it replaces is out.
    MoveCompleted,
    /// A newcomer is given up before it serves.
    MoveAbandoned,
    /// A member leaves although no newcomer takes its place.
    ReplicaTakenOut,
    /// A member that was retired is not taken out: somebody else is gone meanwhile.
    RetirementEnds,

    // The namespace machine.
    /// A doubled mutation is answered from the session's table.
    AnswerRemembered,

    // A replica of a group.
    /// A snapshot took the place of the state.
    SnapshotInstalled,
    /// A follower gives a snapshot up.
    SnapshotGivenUp,
    /// A vote is refused because a leader may be reading under its lease.
    VoteWithheld,
    /// A learner has caught up and votes.
    LearnerPromoted,
    /// A leader leaves a joint configuration that another one entered.
    JointLeft,
    /// A leader that is to be removed hands over first.
    RemovalHandsOver,
    /// A leader goes on in a new term, because nobody took over.
    TermRenewed,
    /// A replica learns that it was removed.
    Removed,
    /// The torn end of a log is cut.
    TornLogCut,
}

/// How often each mark was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached(Vec<u64>);

impl Default for Reached {
    fn default() -> Self {
        Self(vec![0; Mark::ALL.len()])
    }
}

impl Reached {
    pub fn count(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }

    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(&other.0) {
            *count += more;
        }
    }

    /// Those that were reached in none of the runs that were added.
    pub fn never(&self) -> Vec<Mark> {
        Mark::ALL.iter().copied().filter(|mark| self.count(*mark) == 0).collect()
    }
}

thread_local! {
    static REACHED: RefCell<Reached> = RefCell::default();
}

/// Whether marks are counted in this build.
pub const COUNTED: bool = cfg!(debug_assertions);

/// The path of this mark was taken.
#[inline]
pub fn reached(mark: Mark) {
    if COUNTED {
        REACHED.with_borrow_mut(|reached| reached.0[mark as usize] += 1);
    }
}

/// The counters of this thread, which begin anew.
pub fn take() -> Reached {
    REACHED.take()
}

#[cfg(test)]
mod tests;
