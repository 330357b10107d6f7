//! What one end of a connection tells the other before they connect.
//!
//! ```text
//!  0  version       u8    1
//!  1  mtu           u8    as `enum ibv_mtu`: 1 is 256 bytes, 5 is 4096
//!  2  reads         u8    READs that this end answers at a time
//!  3  (zero)        u8
//!  4  lid           u16   of the port, on InfiniBand
//!  6  messages      u16   that this end has room for
//!  8  queue pair    u32   its number, 24 bits
//! 12  packet number u32   of the first packet that this end sends, 24 bits
//! 16  message bytes u32   of the longest message that this end takes
//! 20  gid           16 bytes
//! ```
//! Integers are little endian.

use crate::{Error, device::mtu_code};

/// See the module. Tell it by a way that both trust: who has it may send to this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub(crate) mtu_bytes: u32,
    pub(crate) reads: u8,
    pub(crate) lid: u16,
    pub(crate) messages: u16,
    pub(crate) queue_pair: u32,
    pub(crate) packet: u32,
    pub(crate) message_bytes: u32,
    pub(crate) gid: [u8; 16],
}

const VERSION: u8 = 1;

impl Endpoint {
    pub const BYTES: usize = 36;

    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let mtu = mtu_code(self.mtu_bytes).expect("of a port, or decoded");
        bytes[..3].copy_from_slice(&[VERSION, mtu as u8, self.reads]);
        bytes[4..6].copy_from_slice(&self.lid.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.messages.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.queue_pair.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.packet.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.message_bytes.to_le_bytes());
        bytes[20..].copy_from_slice(&self.gid);
        bytes
    }

    /// Where it is.
    pub fn gid(&self) -> [u8; 16] {
        self.gid
    }

    /// Its network is InfiniBand itself: there alone ports have a local number.
    pub fn is_infiniband(&self) -> bool {
        self.lid != 0
    }

    /// Bytes of the longest message that it takes.
    pub fn message_bytes(&self) -> u32 {
        self.message_bytes
    }

    /// # Errors
    /// [`Error::Endpoint`] for what no end of a connection says.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let bytes: &[u8; Self::BYTES] =
            bytes.try_into().map_err(|_| Error::Endpoint("it has another length"))?;
        if bytes[0] != VERSION {
            return Err(Error::Endpoint("its version is another"));
        }
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        let mtu = (1..=5).contains(&bytes[1]).then(|| 128 << bytes[1]);
        let endpoint = Self {
            mtu_bytes: mtu.ok_or(Error::Endpoint("there is no such MTU"))?,
            reads: bytes[2],
            lid: half(4),
            messages: half(6),
            queue_pair: word(8),
            packet: word(12),
            message_bytes: word(16),
            gid: bytes[20..].try_into().expect("the rest"),
        };
        if endpoint.reads == 0 || endpoint.messages == 0 || endpoint.message_bytes == 0 {
            return Err(Error::Endpoint("it takes nothing"));
        }
        if endpoint.queue_pair >> 24 != 0 || endpoint.packet >> 24 != 0 {
            return Err(Error::Endpoint("numbers have 24 bits"));
        }
        Ok(endpoint)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint {
            mtu_bytes: 4096,
            reads: 16,
            lid: 0x0102,
            messages: 0x0304,
            queue_pair: 0x0005_0607,
            packet: 0x0008_090a,
            message_bytes: 0x0b0c_0d0e,
            gid: *b"0123456789abcdef",
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let golden = b"\x01\x05\x10\x00\x02\x01\x04\x03\x07\x06\x05\x00\x0a\x09\x08\x00\
            \x0e\x0d\x0c\x0b0123456789abcdef";
        assert_eq!(&endpoint().encode(), golden);
        assert_eq!(Endpoint::decode(golden).unwrap(), endpoint());
    }

    #[test]
    fn damaged_bytes_are_refused_or_read() {
        let bytes = endpoint().encode();
        assert!(Endpoint::decode(&bytes[1..]).is_err());
        for (at, wrong) in [(0, 2), (1, 0), (1, 6), (2, 0), (11, 1), (15, 1)] {
            let mut damaged = bytes;
            damaged[at] = wrong;
            assert!(matches!(Endpoint::decode(&damaged), Err(Error::Endpoint(_))), "{at}");
        }
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[at / 8] ^= 1 << (at % 8);
            if let Ok(other) = Endpoint::decode(&damaged) {
                assert_eq!(Endpoint::decode(&other.encode()).unwrap(), other);
            }
        }
    }
}
