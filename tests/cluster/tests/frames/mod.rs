//! Frames of the data plane, written anew from the description in `fabric/src/frame.rs`: a test that used
//! the code under test could not send what that code would not.

use std::{io::Read, net::TcpStream};

const HEADER_BYTES: usize = 48;

pub(crate) const HELLO: u8 = 1;
pub(crate) const CHALLENGE: u8 = 2;
pub(crate) const PROOF: u8 = 3;
pub(crate) const REFUSED: u8 = 5;
pub(crate) const REQUEST: u8 = 8;

/// A frame that is well made.
pub(crate) fn frame(kind: u8, message: &[u8]) -> Vec<u8> {
    sealed(kind, message, message.len() as u32, 0)
}

/// A frame whose checksums hold, whatever lengths it tells.
pub(crate) fn sealed(kind: u8, message: &[u8], message_bytes: u32, bulk_bytes: u32) -> Vec<u8> {
    let mut header = vec![0; HEADER_BYTES];
    header[..4].copy_from_slice(b"ff2\x02");
    header[4] = kind;
    header[24..28].copy_from_slice(&message_bytes.to_le_bytes());
    header[28..32].copy_from_slice(&bulk_bytes.to_le_bytes());
    header[32..36].copy_from_slice(&1_000_u32.to_le_bytes());
    header[40..44].copy_from_slice(&crc32c(message).to_le_bytes());
    let crc = crc32c(&header[..44]);
    header[44..].copy_from_slice(&crc.to_le_bytes());
    header.extend_from_slice(message);
    header
}

/// The first message of a daemon's handshake, as protobuf.
pub(crate) fn hello(protocol: u8, cluster: &str, nonce: &[u8]) -> Vec<u8> {
    let mut message = vec![0x08, protocol, 0x12, u8::try_from(cluster.len()).unwrap()];
    message.extend_from_slice(cluster.as_bytes());
    message.extend_from_slice(&[0x1a, u8::try_from(nonce.len()).unwrap()]);
    message.extend_from_slice(nonce);
    message.extend_from_slice(&[0x20, 1]);
    message
}

/// Reads a whole frame and returns its kind.
pub(crate) fn read_one(stream: &mut TcpStream) -> u8 {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).unwrap();
    stream.read_exact(&mut vec![0; length(&header)]).unwrap();
    header[4]
}

/// The kinds of the frames in an answer, which is whole or was cut.
pub(crate) fn kinds(mut answer: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    while let Some((header, rest)) = answer.split_at_checked(HEADER_BYTES) {
        found.push(header[4]);
        answer = rest.get(length(header)..).unwrap_or_default();
    }
    found
}

fn length(header: &[u8]) -> usize {
    u32::from_le_bytes(header[24..28].try_into().unwrap()) as usize
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    };
    !bytes.iter().fold(!0, step)
}

pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut noise = Vec::with_capacity(length + 8);
    let mut state = 88_172_645_463_325_252_u64;
    while noise.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(length);
    noise
}
