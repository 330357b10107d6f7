//! The bytes of one frame, for every transport that carries a stream.
//!
//! ```text
//!  0  magic          u32   "ff2" and the frame version
//!  4  kind           u8    Kind
//!  5  (zero)         u8
//!  6  method         u16   of a request or its reply
//!  8  request id     u64   chosen by the client, unique on its connection
//! 16  routing        u64   newest routing version that the sender knows
//! 24  message bytes  u32   protobuf message, behind the header
//! 28  bulk bytes     u32   raw bytes, behind the message
//! 32  timeout        u32   of a request: milliseconds that the caller waits from now
//! 36  annex bytes    u32   the transport's own words, behind the message
//! 40  message crc    u32   CRC-32C of the message and the annex
//! 44  header crc     u32   CRC-32C of the bytes 0..44
//! ```
//! Integers are little endian. Bulk bytes carry no checksum here: the messages that announce them do,
//! so that it covers the way through memory too. Nothing in a frame is trusted before its checksum
//! held, and no length is believed above its bound.
//!
//! Where bulk bytes follow in the stream, at least [`HEAD_BYTES_MIN`] come before them in their frame.
//! So a reader may always read so far from a frame's begin, which is a whole head most of the time and
//! never a byte of bulk: those go from the socket to where they belong, by no way round.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use prost::Message;
use thiserror::Error;

use crate::limits::{ANNEX_BYTES_MAX, BULK_BYTES_MAX, MESSAGE_BYTES_MAX, USER_MESSAGE_BYTES_MAX};

pub const HEADER_BYTES: usize = 48;
/// Header, message and annex of a frame whose bulk bytes follow in the stream have no fewer.
pub const HEAD_BYTES_MIN: usize = 256;
/// "ff2" and the version of this layout.
const MAGIC: u32 = u32::from_le_bytes(*b"ff2\x02");

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The four steps of the handshake.
    Hello = 1,
    Challenge = 2,
    Proof = 3,
    Welcome = 4,
    /// The server will not have this connection; the message is a `Status`.
    Refused = 5,
    /// The client says whether the connection goes on by RDMA.
    Decision = 6,
    Request = 8,
    /// A request without bulk bytes that is not answered.
    Post = 11,
    /// The call was answered.
    Reply = 9,
    /// The call failed; the message is a `Status`.
    Failure = 10,
    /// Says nothing but that the sender lives.
    Alive = 16,
    /// Brings memory that the sender shares with its peer.
    Slab = 17,
}

impl TryFrom<u8> for Kind {
    type Error = FrameError;
    fn try_from(byte: u8) -> Result<Self, FrameError> {
        Ok(match byte {
            1 => Self::Hello,
            2 => Self::Challenge,
            3 => Self::Proof,
            4 => Self::Welcome,
            5 => Self::Refused,
            6 => Self::Decision,
            8 => Self::Request,
            11 => Self::Post,
            9 => Self::Reply,
            10 => Self::Failure,
            16 => Self::Alive,
            17 => Self::Slab,
            other => return Err(FrameError::Kind(other)),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub method: u16,
    pub id: u64,
    pub routing_version: u64,
    pub message_bytes: u32,
    pub bulk_bytes: u32,
    pub timeout_ms: u32,
    pub annex_bytes: u32,
    pub message_crc: u32,
}

/// Why the bytes are no frame. The connection cannot go on after any of these.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error(
        "does not begin with an ff2 frame (magic {0:#010x}): is something else connected here?"
    )]
    Magic(u32),
    #[error("the frame header's checksum does not hold")]
    HeaderChecksum,
    #[error("the message's checksum does not hold")]
    MessageChecksum,
    #[error("unknown frame kind {0}")]
    Kind(u8),
    #[error("a message of {bytes} bytes is above the limit of {limit}")]
    MessageTooLong { bytes: usize, limit: usize },
    #[error("bulk of {bytes} bytes is above the limit of {limit}")]
    BulkTooLong { bytes: usize, limit: usize },
    #[error("an annex of {0} bytes is above the limit of {ANNEX_BYTES_MAX}")]
    AnnexTooLong(usize),
    #[error("the frame's bulk bytes begin too close to its start, or are not where its annex says")]
    BulkMisplaced,
    #[error("a frame of kind {0:?} does not belong here")]
    Unexpected(Kind),
    #[error("the connection ended inside a frame")]
    Truncated,
}

/// The most that one frame may bring; smaller until the peer proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub message_bytes: usize,
    pub bulk_bytes: usize,
}

impl Limits {
    pub const AUTHENTICATED: Self =
        Self { message_bytes: MESSAGE_BYTES_MAX, bulk_bytes: BULK_BYTES_MAX };
    /// Of a user: daemons alone send batches of the log.
    pub const USER: Self = Self { message_bytes: USER_MESSAGE_BYTES_MAX, ..Self::AUTHENTICATED };
    pub const HANDSHAKE: Self =
        Self { message_bytes: crate::limits::HANDSHAKE_BYTES_MAX, bulk_bytes: 0 };
}

impl Header {
    /// A header without lengths and checksum: [`seal`] fills these in.
    pub fn new(kind: Kind, id: u64, routing_version: u64) -> Self {
        Self {
            kind,
            method: 0,
            id,
            routing_version,
            message_bytes: 0,
            bulk_bytes: 0,
            timeout_ms: 0,
            annex_bytes: 0,
            message_crc: 0,
        }
    }

    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[6..8].copy_from_slice(&self.method.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.routing_version.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.message_bytes.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.bulk_bytes.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.timeout_ms.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.annex_bytes.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.message_crc.to_le_bytes());
        let crc = crc32c(&bytes[..44]);
        bytes[44..48].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; HEADER_BYTES], limits: Limits) -> Result<Self, FrameError> {
        let u32_at = |at: usize| u32::from_le_bytes(array(bytes, at));
        let u64_at = |at: usize| u64::from_le_bytes(array(bytes, at));
        if u32_at(0) != MAGIC {
            return Err(FrameError::Magic(u32_at(0)));
        }
        if u32_at(44) != crc32c(&bytes[..44]) {
            return Err(FrameError::HeaderChecksum);
        }
        let header = Self {
            kind: Kind::try_from(bytes[4])?,
            method: u16::from_le_bytes(array(bytes, 6)),
            id: u64_at(8),
            routing_version: u64_at(16),
            message_bytes: u32_at(24),
            bulk_bytes: u32_at(28),
            timeout_ms: u32_at(32),
            annex_bytes: u32_at(36),
            message_crc: u32_at(40),
        };
        let (message, bulk) = (header.message_bytes as usize, header.bulk_bytes as usize);
        if message > limits.message_bytes {
            return Err(FrameError::MessageTooLong { bytes: message, limit: limits.message_bytes });
        }
        if bulk > limits.bulk_bytes {
            return Err(FrameError::BulkTooLong { bytes: bulk, limit: limits.bulk_bytes });
        }
        if header.annex_bytes as usize > ANNEX_BYTES_MAX {
            return Err(FrameError::AnnexTooLong(header.annex_bytes as usize));
        }
        Ok(header)
    }

    /// Bytes of message and annex.
    pub fn body_bytes(&self) -> usize {
        self.message_bytes as usize + self.annex_bytes as usize
    }

    /// Takes message and annex apart, if they are what was sent.
    pub fn open(&self, mut body: Bytes) -> Result<(Bytes, Bytes), FrameError> {
        if body.len() != self.body_bytes() {
            return Err(FrameError::Truncated);
        }
        if crc32c(&body) != self.message_crc {
            return Err(FrameError::MessageChecksum);
        }
        let annex = body.split_off(self.message_bytes as usize);
        Ok((body, annex))
    }
}

/// The message behind room for a header.
pub fn encode_message<M: Message>(message: &M) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEADER_BYTES + message.encoded_len());
    head.resize(HEADER_BYTES, 0);
    message.encode(&mut head).expect("a vector has room");
    head
}

/// Adds the annex, and writes the header into the room that [`encode_message`] left.
///
/// The sender checks the lengths first: a frame above the bounds would end the connection.
pub fn seal(head: &mut Vec<u8>, mut header: Header, annex: &[u8], bulk_bytes: usize) {
    let message_bytes = head.len() - HEADER_BYTES;
    assert!(message_bytes <= MESSAGE_BYTES_MAX);
    assert!(bulk_bytes <= BULK_BYTES_MAX);
    assert!(annex.len() <= ANNEX_BYTES_MAX);
    head.extend_from_slice(annex);
    let (room, body) = head.split_at_mut(HEADER_BYTES);
    header.message_bytes = message_bytes as u32;
    header.annex_bytes = annex.len() as u32;
    header.bulk_bytes = bulk_bytes as u32;
    header.message_crc = crc32c(body);
    room.copy_from_slice(&header.encode());
}

/// CRC-32C (Castagnoli), as in iSCSI.
pub fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn array<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a fixed range of a fixed array")
}

#[cfg(test)]
mod tests;
