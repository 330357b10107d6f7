//! Bounds of one server: what a request may ask for, and what strangers may take up. Those that an operator chooses
//! are flags; docs/SERVING.md lists them.

use std::time::Duration;

/// Choices of one request (`n`).
pub const CHOICES_MAX: usize = 32;
/// Stop strings and stop tokens of a request, and bytes of a string: each is looked for in each piece of text.
pub const STOPS_MAX: usize = 16;
pub const STOP_BYTES_MAX: usize = 256;
/// Bad words of a request: each is looked for before each token.
pub const BAD_WORDS_MAX: usize = 256;
/// Biased tokens of a request.
pub const BIASES_MAX: usize = 1024;
/// Likeliest tokens told beside each, as OpenAI has it.
pub const LOGPROBS_MAX: i64 = 20;
/// Prompts of one completion request.
pub const PROMPTS_MAX: usize = 64;

/// Connections that are open at once, unless the operator says otherwise, and descriptors that are left for other
/// things: files of the prefix cache, the answers of a router's replicas.
pub const CONNECTIONS: usize = 16_384;
pub const DESCRIPTORS_KEPT: usize = 512;
/// A head larger than this is no browser's and no client's.
pub const HEAD_BYTES_MAX: usize = 32 << 10;
/// From a connection's begin, or the answer before, to a whole head.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// From a head to its whole body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that takes no byte for so long is gone.
pub const WRITE_STALL: Duration = Duration::from_secs(20);
/// Pause after a failed accept: out of descriptors, most likely.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Wrong keys from one address in a minute before it is refused unread.
pub const WRONG_KEYS_PER_MINUTE: u32 = 20;
/// Addresses that are remembered for that.
pub const ADDRESSES_MAX: usize = 4096;

/// Of a grammar or schema: compiling takes time in proportion, and more where it is ambiguous.
pub const GRAMMAR_BYTES_MAX: usize = 64 << 10;

/// A router asks each replica so often how it is, and waits so long for the answer: a step of a large model takes a
/// while.
pub const REPLICA_LOOK: Duration = Duration::from_secs(1);
pub const REPLICA_PATIENCE: Duration = Duration::from_secs(3);
/// So many answers in a row that did not come, and what a replica has not begun to answer goes elsewhere.
pub const REPLICA_FAILURES_MAX: u32 = 3;
/// A connection to a replica, TLS included.
pub const REPLICA_CONNECT: Duration = Duration::from_secs(3);
/// After so long a silence a replica is taken for dead, and is announced no more. One that lives announces itself
/// again.
pub const REPLICA_FORGOTTEN: Duration = Duration::from_secs(60);
/// A replica looks so often whether it is announced, and waits so long for the router's secrets.
pub const ANNOUNCE_LOOK: Duration = Duration::from_secs(5);
pub const SECRETS_PATIENCE: Duration = Duration::from_secs(120);
/// Routers ask each other every [`REPLICA_LOOK`] and wait so long: what answers is idle. After so many answers that did
/// not come the next one leads.
pub const ROUTER_PATIENCE: Duration = Duration::from_secs(1);
pub const ROUTER_FAILURES_MAX: u32 = 3;
/// A router that waits for its address looks so often whether it is free.
pub const ADDRESS_LOOK: Duration = Duration::from_millis(200);
/// For who has the address to say that it is another router.
pub const ADDRESS_PATIENCE: Duration = Duration::from_secs(3);
/// A request waits so long for a replica that takes it: one that starts anew, most likely.
pub const REPLICA_WAIT: Duration = Duration::from_secs(15);
/// Blocks that a router remembers of a replica, 16 MiB of prompts with about 6 MiB of memory.
pub const SEEN_BLOCKS_MAX: usize = 1 << 16;
/// Of a whole answer, which is passed on when it is all there.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
