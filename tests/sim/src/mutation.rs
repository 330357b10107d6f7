//! Errors that are planted into simulated nodes, to see whether the simulator would find them. They are
//! in the simulator's drivers, never in the machines: no daemon can have them.

use clap::ValueEnum;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mutation {
    /// A storage node answers clients although its lease is over.
    Fence,
    /// Calls between targets, and of clients, count under whatever chain version the target is at.
    VersionCheck,
    /// A store says that an update is durable before anything was synced.
    Sync,
    /// A doubled update of a chunk is carried out twice.
    OnceChunks,
    /// A doubled mutation of the namespace is carried out twice.
    OnceNames,
    /// A read returns what the disk gives, whatever its checksum.
    Checksum,
    /// A target that is to leave its chain says that it answers no reads any more, and does.
    Retire,
    /// A storage node does not hear of snapshots, and keeps nothing for them.
    Keep,
    /// A member that has retired is taken out of its chain before the others were heard without it.
    Unheard,
    /// The scrub reads nothing.
    Scrub,
    /// What stays away is not made anew elsewhere.
    Spares,
    /// What leaves a folder goes on counting there.
    Quota,
    /// The trash is emptied long before it is time.
    Trash,
    /// Sessions end long before their time, and their locks with them.
    ExpireEarly,
    /// Nobody ends the sessions of those that fell silent.
    ExpireNever,
}
