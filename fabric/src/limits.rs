//! Bounds of connections, queues and buffers.

use std::time::Duration;

pub use ff2_proto::limits::{BULK_BYTES_MAX, HEADER_BYTES_MAX as MESSAGE_BYTES_MAX};

/// Bytes of a user's message: above the longest, a read of many parts.
pub const USER_MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Messages of users above this count against [`USER_MESSAGES_BYTES`].
pub const SMALL_MESSAGE_BYTES: usize = 4 << 10;
/// Of all users' messages in progress on one server together.
pub const USER_MESSAGES_BYTES: usize = 64 << 20;

/// Smallest buffer, and the alignment of all: what O_DIRECT asks for.
pub const PAGE_BYTES: usize = 4 << 10;
/// Largest buffer whose capacity is rounded up to a power of two.
pub const BUF_BYTES_MAX: usize = 64 << 20;
/// The pool's memory comes in pieces of this size, and so do registrations: large enough for several
/// chunks, small enough that an idle pool costs little.
pub const SLAB_BYTES: usize = 16 << 20;

/// Bytes of a handshake message: a token with many groups is below 1 KiB.
pub const HANDSHAKE_BYTES_MAX: usize = 4 << 10;
/// A handshake takes two round trips; a loaded host may need seconds for them.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that have not proved who they are.
pub const HANDSHAKES_MAX: usize = 256;
/// Connections of one server.
pub const CONNECTIONS_MAX: usize = 16 << 10;

/// Connect and handshake together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after a failed attempt to connect; doubles up to the maximum.
pub const RECONNECT_MIN: Duration = Duration::from_millis(20);
pub const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// Each side says that it lives when it sent nothing else for so long.
pub const KEEPALIVE: Duration = Duration::from_millis(2_048);
/// A peer that was silent this long is gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);
/// A peer that takes none of our bytes this long holds our buffers for nothing.
pub const STALL_MAX: Duration = Duration::from_secs(30);

/// Requests in progress on one connection; more wait on the client.
pub const REQUESTS_MAX: u32 = 1024;
/// Bulk bytes of unanswered requests on one connection: above bandwidth times delay of a fast link.
pub const CREDIT_BYTES: u32 = 128 << 20;
/// Connections to one peer for bulk bytes, beside the one for small messages.
pub const BULK_LANES: usize = 2;
/// Calls that send or expect more bulk bytes than this ride a bulk connection.
pub const SMALL_BULK_BYTES: usize = 64 << 10;
/// Memory of a server for payloads up to that size.
pub const SMALL_MEMORY_BYTES: u64 = 32 << 20;
/// Peers that a process remembers.
pub const PEERS_MAX: usize = 16 << 10;
/// How long a reply without a place waits for a pool buffer before it is thrown away.
pub const REPLY_BUFFER_WAIT: Duration = Duration::from_secs(1);
/// A stopping server lets the requests in progress finish this long.
pub const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Frames that one system call sends.
pub const FRAMES_PER_WRITE: usize = 64;
/// Pieces of memory that one system call sends.
pub const SLICES_PER_WRITE: usize = 256;
/// Bytes of a transport's own words in a frame: places of the pieces of one payload.
pub const ANNEX_BYTES_MAX: usize = 64 << 10;
/// Slabs that a daemon maps of one connection of another daemon.
pub const SHARED_SLABS_MAX: u32 = 256;
/// And of one connection of a user: as much as the default pool of a mount.
pub const USER_SHARED_SLABS_MAX: u32 = 16;
/// Of all users' connections of a server together. What a user shares may be charged to who touches it.
pub const USERS_SHARED_SLABS_MAX: u32 = 256;
/// Descriptors that came before the frame that speaks of them: the read-ahead has room for fewer frames.
pub const DESCRIPTORS_WAITING_MAX: usize = 6;
/// How long a peer whose local connection broke is reached by the network instead.
pub const LOCAL_PAUSE: Duration = Duration::from_secs(60);

/// Bytes of a message by RDMA: most frames fit into one.
pub const RDMA_MESSAGE_BYTES: usize = 8 << 10;
/// Messages of one connection that were sent and not read yet, unless it is configured; each has a buffer.
pub const RDMA_MESSAGES: u32 = 16;
/// Messages and transfers that a device has at a time for one connection.
pub const RDMA_WORKS: u32 = 64;
/// A network that drops RDMA packets is found out within so long.
pub const RDMA_FIRST_FRAME_MAX: Duration = Duration::from_secs(1);
/// Places that a connection is tried from before it stays with TCP: within the time that connecting may take.
pub const RDMA_PLACES_TRIED: usize = 2;
/// A connection that the peer closes so early may have been closed because it did not work there.
pub const RDMA_TRIAL: Duration = Duration::from_secs(3);
/// How long a connection that did not come about by the nearest of its server's addresses stays with another one,
/// before that is tried again. The pause doubles up to `RDMA_PAUSE_MAX` while that fails.
pub const FAR_PAUSE: Duration = Duration::from_secs(60);
/// How long a place that failed toward a peer is left out there, and a connection that fell back stays with TCP before
/// it tries again. The pause doubles up to the maximum while that fails.
pub const RDMA_PAUSE: Duration = Duration::from_secs(60);
pub const RDMA_PAUSE_MAX: Duration = Duration::from_secs(16 * 60);
/// How old what is known of this host's RDMA ports may be, and that there are none.
pub const PLACES_AGE_MAX: Duration = Duration::from_secs(60);
pub const NO_PLACES_AGE_MAX: Duration = Duration::from_secs(1);
/// How often who sends looks whether its device was taken away, at most.
pub const RDMA_LOOK: Duration = Duration::from_secs(1);
/// Bulk bytes move through pieces of this size, of which a server has so many for each device.
pub const STAGING_PIECE_BYTES: usize = 256 << 10;
pub const STAGING_PIECES: u32 = 128;
/// Parts of a reply that are shorter are copied together: a copy is less work than a transfer of their own.
pub const LENT_BYTES_MIN: usize = 16 << 10;
/// Pieces of one payload that are on their way at a time: above bandwidth times delay of a fast link.
pub const STAGING_WINDOW: usize = 4;

/// Payloads of one connection that are pulled at a time: while the last bytes of one come, the next one begins.
pub const PULLS_MAX: usize = 4;
/// How long an ending connection waits for its last messages to be there: as long as a device tries.
pub const FINISH_MAX: Duration = Duration::from_secs(1);

/// Frames in flight inside an in-process connection.
pub const MEM_FRAMES_MAX: usize = 64;

const _: () = assert!(USER_MESSAGE_BYTES_MAX <= USER_MESSAGES_BYTES);
const _: () = assert!(BULK_BYTES_MAX <= BUF_BYTES_MAX);
const _: () = assert!(
    STAGING_WINDOW <= STAGING_PIECES as usize
        && (PULLS_MAX + 1) * STAGING_WINDOW < RDMA_WORKS as usize
);
const _: () = assert!(RDMA_MESSAGE_BYTES >= crate::frame::HEAD_BYTES_MIN);
const _: () = assert!(SLAB_BYTES.is_power_of_two() && SLAB_BYTES >= PAGE_BYTES);
const _: () = assert!(BULK_BYTES_MAX <= CREDIT_BYTES as usize);
