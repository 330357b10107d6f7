//! The side that asks, and measures.

use std::{
    io,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use super::{
    admission,
    wire::{DOWNLOAD, END, Received, TRIP, UPLOAD, Wire, left},
};
use crate::{Peer, limits, report::median};

/// What was measured from here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    /// Median of round trips.
    pub(crate) trip_us: f64,
    /// From here to the peer, and from it.
    pub(crate) send_mib_s: f64,
    pub(crate) receive_mib_s: f64,
    /// That were not as they were sent, on either side.
    pub(crate) wrong_chunks: u64,
}

/// Round trips for a moment, then each direction for this time or until so many bytes went, over a few connections
/// at once.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`]: the peer knows another token. Others: it does not answer, or is too slow.
pub(crate) fn measure(peer: &Peer, bytes: u64, time: Duration) -> io::Result<Found> {
    // Trips have as much as a direction; the rest is for connecting and for what is on its way at the end.
    let deadline = Instant::now() + 5 * time + limits::PART_SLACK;
    let admission_deadline = deadline.min(Instant::now() + limits::PAIR_ADMISSION);
    let mut streams = Vec::new();
    for _ in 0..limits::PAIR_STREAMS {
        let mut wire = connect(peer, admission_deadline)?;
        wire.extend(deadline);
        streams.push(wire);
    }
    let trip_us = trips(&mut streams[0], time)?;
    let share = bytes / streams.len() as u64;
    let (sent, send_mib_s) = together(&mut streams, |wire| {
        wire.send(&[UPLOAD])?;
        wire.send_chunks(share, time)?;
        Ok(Received { bytes: wire.receive_number()?, wrong_chunks: wire.receive_number()? })
    })?;
    let (received, receive_mib_s) = together(&mut streams, |wire| {
        wire.send(&[DOWNLOAD])?;
        wire.send(&share.to_le_bytes())?;
        wire.send(&(time.as_millis() as u64).to_le_bytes())?;
        wire.receive_chunks(share)
    })?;
    streams[0].send(&[END])?;
    let wrong_chunks = sent.wrong_chunks + received.wrong_chunks;
    Ok(Found { trip_us, send_mib_s, receive_mib_s, wrong_chunks })
}

fn connect(peer: &Peer, deadline: Instant) -> io::Result<Wire> {
    let stream = TcpStream::connect_timeout(&peer.address, left(deadline)?)?;
    let mut wire = Wire::new(stream, deadline)?;
    admission::of_client(&mut wire, &peer.token)?;
    Ok(wire)
}

fn trips(wire: &mut Wire, time: Duration) -> io::Result<f64> {
    let until = Instant::now() + time;
    let mut trips = Vec::new();
    while trips.is_empty() || (trips.len() < limits::PAIR_TRIPS && Instant::now() < until) {
        let begun = Instant::now();
        let number = trips.len() as u64;
        wire.send(&[TRIP])?;
        wire.send(&number.to_le_bytes())?;
        if wire.receive_number()? != number {
            return Err(io::ErrorKind::InvalidData.into());
        }
        trips.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(trips).unwrap_or(f64::INFINITY))
}

/// All connections at once: what went, and MiB/s of all.
fn together(
    streams: &mut [Wire],
    transfer: impl Fn(&mut Wire) -> io::Result<Received> + Sync,
) -> io::Result<(Received, f64)> {
    let (begun, transfer) = (Instant::now(), &transfer);
    let all: Vec<io::Result<Received>> = thread::scope(|scope| {
        let started: Vec<_> =
            streams.iter_mut().map(|wire| scope.spawn(move || transfer(wire))).collect();
        started.into_iter().map(|one| one.join().expect("a transfer does not panic")).collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    let mut sum = Received::default();
    for one in all {
        let one = one?;
        sum.bytes += one.bytes;
        sum.wrong_chunks += one.wrong_chunks;
    }
    Ok((sum, sum.bytes as f64 / (1u64 << 20) as f64 / seconds))
}

#[cfg(test)]
mod tests;
