//! Bounds of one server: what a request may ask for, and what strangers may take up. Those that an operator chooses
//! are flags; docs/SERVING.md lists them.

use std::time::Duration;

/// Choices of one request (`n`).
pub const CHOICES_MAX: usize = 32;
/// Stop strings and stop tokens of a request, and bytes of a string: each is looked for in each piece of text.
pub const STOPS_MAX: usize = 16;
pub const STOP_BYTES_MAX: usize = 256;
/// Biased tokens of a request.
pub const BIASES_MAX: usize = 1024;
/// Likeliest tokens told beside each, as OpenAI has it.
pub const LOGPROBS_MAX: i64 = 20;
/// Prompts of one completion request.
pub const PROMPTS_MAX: usize = 64;

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
