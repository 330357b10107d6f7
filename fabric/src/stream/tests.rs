use std::{collections::VecDeque, sync::Arc};

use super::*;
use crate::{
    Tuning,
    counters::Counters,
    frame::{Kind, encode_message, seal},
};

/// Gives out what was sent in pieces of so many bytes, and keeps where bytes were put.
struct Pieces {
    bytes: VecDeque<u8>,
    piece: usize,
    /// Address and length of each read.
    reads: Vec<(usize, usize)>,
}

impl ReadHalf for Pieces {
    async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = into.len().min(self.piece).min(self.bytes.len());
        for (place, byte) in into.iter_mut().zip(self.bytes.drain(..count)) {
            *place = byte;
        }
        self.reads.push((into.as_ptr().addr(), count));
        Ok(count)
    }
}

fn pulse() -> Arc<Pulse> {
    Pulse::new(Tuning::default(), Counters::new())
}

fn reader(bytes: &[u8], piece: usize) -> Reader<Pieces> {
    let pieces = Pieces { bytes: bytes.iter().copied().collect(), piece, reads: Vec::new() };
    let mut reader = Reader::new(pieces);
    reader.limits = Limits::AUTHENTICATED;
    reader
}

fn frame(id: u64, message: usize, bulk: &[u8], pad: bool) -> Vec<u8> {
    let name = "x".repeat(message);
    let mut head = encode_message(&ff2_proto::pb::UserClaims { name, ..Default::default() });
    let room = HEAD_BYTES_MIN.saturating_sub(head.len());
    let padding = vec![0; if pad && !bulk.is_empty() { room } else { 0 }];
    seal(&mut head, Header::new(Kind::Request, id, 0), &padding, bulk.len());
    [&head, bulk].concat()
}

#[tokio::test]
async fn frames_are_read_however_they_arrive() {
    let bulk: Vec<u8> = (0..5000).map(|at| at as u8).collect();
    let sizes = [(3, 0), (3, 5000), (0, 1), (1000, 17), (70_000, 0), (200, 4096), (5, 0)];
    let mut bytes = Vec::new();
    for (id, (message, bulk_bytes)) in (0..).zip(sizes) {
        bytes.extend(frame(id, message, &bulk[..bulk_bytes], true));
    }
    for piece in [1, 7, 255, 256, 4096, usize::MAX] {
        let (mut reader, pulse) = (reader(&bytes, piece), pulse());
        for (id, (_, bulk_bytes)) in (0..).zip(sizes) {
            let (header, ..) = reader.head(&pulse).await.unwrap();
            assert_eq!((header.id, header.bulk_bytes as usize), (id, bulk_bytes));
            let mut taken = vec![0; bulk_bytes];
            reader.half.reads.clear();
            if id == 5 {
                reader.skip(bulk_bytes, &pulse).await.unwrap();
                continue;
            }
            reader.bulk(&mut taken, &pulse).await.unwrap();
            assert!(taken == bulk[..bulk_bytes]);
            // All of them by reads to their place: none came by way of the read-ahead.
            let place = taken.as_ptr().addr()..taken.as_ptr().addr() + bulk_bytes;
            let direct = reader.half.reads.iter().filter(|(at, _)| place.contains(at));
            assert_eq!(direct.map(|(_, count)| count).sum::<usize>(), bulk_bytes);
        }
        assert!(matches!(reader.head(&pulse).await, Err(LinkError::Closed)));
    }
}

#[tokio::test]
async fn bulk_bytes_too_close_to_the_start_are_refused() {
    let bytes = frame(1, 3, b"bulk", false);
    let (mut reader, pulse) = (reader(&bytes, usize::MAX), pulse());
    reader.head(&pulse).await.unwrap();
    let refused = reader.bulk(&mut [0; 4], &pulse).await;
    assert!(matches!(refused, Err(LinkError::Frame(FrameError::BulkMisplaced))));
}

#[tokio::test]
async fn a_stream_that_ends_within_a_frame_is_no_clean_end() {
    let bytes = frame(1, 300, b"bulk", true);
    for cut in [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 100, bytes.len() - 1] {
        let (mut reader, pulse) = (reader(&bytes[..cut], usize::MAX), pulse());
        let ended = match reader.head(&pulse).await {
            Ok(_) => reader.bulk(&mut [0; 4], &pulse).await.unwrap_err(),
            Err(why) => why,
        };
        assert!(matches!(ended, LinkError::Frame(FrameError::Truncated)), "{cut}: {ended}");
    }
}
