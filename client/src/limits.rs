//! Bounds of the client library.

use std::time::Duration;

/// Time to find a metad, learn the routing and open a session.
pub const CONNECT: Duration = Duration::from_secs(30);
/// How long an operation outlasts a failure of its servers before it becomes an error.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// How long attributes, and bytes that were read ahead, may be shown without asking again.
pub const CACHE: Duration = Duration::from_secs(1);
/// Registered buffers of one client.
pub const BUFFER_BYTES: u64 = 256 << 20;
/// Bytes of one read; a longer one is cut.
pub const READ_BYTES_MAX: u64 = 16 << 20;
/// Bytes of one write call to the chains; a longer one goes in several.
pub const WRITE_BYTES_MAX: usize = 16 << 20;
/// One chain holds at most this part of what reads and updates in flight may hold together.
pub const CHAIN_SHARE: u64 = 4;
/// One piece of read-ahead: reads of this size or less are answered without a copy.
pub const AHEAD_PIECE: u64 = 1 << 20;
/// A file that is being written reports its length at least this often.
pub const REPORT_AGE: Duration = Duration::from_secs(2);
/// Lengths that are being reported from time to time: a part of the session's mutations.
pub const REPORTS_MAX: usize = 64;
/// Open files that move into a new session at the same time.
pub const TAKEN_OVER_TOGETHER: usize = 32;
/// Times that an operation begins again under a new session.
pub const RENEWALS_MAX: u32 = 4;
/// Times that an expired grant is renewed within one read or write.
pub const GRANT_RENEWALS_MAX: u32 = 3;
/// Transfers by path: bytes of one piece, and pieces in flight.
pub const TRANSFER_PIECE: usize = 2 << 20;
pub const TRANSFER_PIECES: usize = 4;
/// How long a write waits to be taken in behind others before it goes to the chains itself.
pub const BEHIND_WAIT: Duration = Duration::from_millis(200);
/// How long the namespace may hold the question whether locks came: within one attempt of a call.
pub const LOCK_QUESTION: Duration = Duration::from_millis(1_500);
/// Pause between two questions for locks, or for the session, that were answered at once or failed.
pub const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// How long the namespace may hold the question for invalidations: within one attempt of a call.
pub const INVALIDATION_QUESTION: Duration = Duration::from_millis(1_500);
/// One such question with its attempts: the lease counts from its beginning.
pub const INVALIDATION_PATIENCE: Duration = Duration::from_secs(3);
/// Least time between two questions when one was of no use.
pub const INVALIDATION_PAUSE: Duration = Duration::from_millis(50);
/// A namespace without callbacks is asked again after this.
pub const CALLBACKS_RETRY: Duration = Duration::from_secs(30);
/// Access times wait so long for others.
pub const ACCESS_LINGER: Duration = Duration::from_secs(5);
/// One request of them.
pub const ACCESS_PATIENCE: Duration = Duration::from_secs(3);
/// Goodbye to the namespace; the session expires by itself if it takes longer.
pub const GOODBYE: Duration = Duration::from_secs(5);
/// Changes that were foreseen and wait for the namespace: some megabytes of small files.
pub const JOURNAL_MAX: usize = 2_048;
/// Of them, those of one request: a part of the session's mutations.
pub const JOURNAL_BATCH: usize = 128;
/// ... and about their bytes: well within a message.
pub const JOURNAL_BATCH_BYTES: usize = 128 << 10;
/// Of one of them, beside names and written bytes: with the groups of its user.
pub const JOURNAL_ENTRY_BYTES: usize = 512;
/// They wait so long for others, if nobody waits for them.
pub const JOURNAL_LINGER: Duration = Duration::from_millis(1);
/// The same while there are only closes of files that were synced.
pub const JOURNAL_LAZY: Duration = Duration::from_millis(50);
/// A change that may be foreseen in a moment looks again after this at the latest.
pub const JOURNAL_PAUSE: Duration = Duration::from_millis(20);
/// One request of them; it is repeated as long as the session lives.
pub const JOURNAL_PATIENCE: Duration = Duration::from_secs(10);
/// Nothing is foreseen in the last moment of the cache lease.
pub const SOLE_MARGIN: Duration = Duration::from_secs(1);
/// Of a session's lease the part that a faster clock of the namespace's leader may be ahead by its end: clocks of hosts
/// are a tenth apart at most.
pub(crate) const LEASE_MARGIN: u32 = 8;
/// Numbers for new inodes that are asked for at once, and when: those that are left last for some tenths of a second.
pub const NUMBERS: u32 = 2_048;
pub const NUMBERS_LOW: usize = 1_024;
/// How often a file is asked for by its number, so that its removal can be foreseen: what was answered may be given up
/// for something newer meanwhile.
pub const BY_NUMBER_MAX: u32 = 3;
