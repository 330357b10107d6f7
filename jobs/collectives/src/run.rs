//! Follows a schedule on one operation's numbers.

use std::{collections::BTreeMap, sync::Arc};

use ff2_fabric::Buf;
use futures::future::try_join_all;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    CollectiveError,
    communicator::Channel,
    links::About,
    mailbox::Piece,
    schedule::{How, Sequence, Step},
};

/// One operation of one stream, on its way.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) channel: Arc<Channel>,
    pub(crate) number: u64,
    /// The same on all ranks, see [`kind`].
    pub(crate) kind: u32,
}

/// Kinds of operations, as they are told from each other.
pub(crate) mod kind {
    pub(crate) const ALL_REDUCE: u32 = 1;
    pub(crate) const REDUCE_SCATTER: u32 = 2;
    pub(crate) const ALL_GATHER: u32 = 3;
    pub(crate) const BROADCAST: u32 = 4;
    pub(crate) const ALL_TO_ALL: u32 = 5;
    pub(crate) const BARRIER: u32 = 6;

    /// As people read it.
    pub(crate) fn name(kind: u32) -> &'static str {
        match kind {
            ALL_REDUCE => "all-reduce",
            REDUCE_SCATTER => "reduce-scatter",
            ALL_GATHER => "all-gather",
            BROADCAST => "broadcast",
            ALL_TO_ALL => "all-to-all",
            BARRIER => "barrier",
            _ => "something unknown",
        }
    }
}

impl Operation {
    /// Carries the sequences out beside each other; returns the numbers as they are then.
    pub(crate) async fn follow(
        &self,
        sequences: Vec<Sequence>,
        numbers: Vec<f32>,
    ) -> Result<Vec<f32>, CollectiveError> {
        let numbers = Mutex::new(numbers);
        try_join_all(sequences.iter().map(|steps| self.sequence(steps, &numbers))).await?;
        Ok(numbers.into_inner())
    }

    async fn sequence(
        &self,
        steps: &Sequence,
        numbers: &Mutex<Vec<f32>>,
    ) -> Result<(), CollectiveError> {
        // Which piece of a tag it is, by rank; both sides count alike.
        let (mut sent, mut received) = (BTreeMap::new(), BTreeMap::new());
        let total_bytes = 4 * numbers.lock().len() as u64;
        for step in steps {
            match step {
                Step::Send { to, tag, part } => {
                    let piece = count(&mut sent, (*to, *tag));
                    let window = self.channel.window(*to, *tag).await?;
                    let mut bytes = self.channel.links.buffer(4 * part.len()).await;
                    write(&numbers.lock()[part.clone()], &mut bytes);
                    self.send(*to, (*tag, piece), total_bytes, bytes, window);
                }
                Step::Receive { from, tag, part, how } => {
                    let number = count(&mut received, (*from, *tag));
                    let piece = self.receive(*from, (*tag, number)).await?;
                    if piece.total_bytes != total_bytes || piece.bytes.len() != 4 * part.len() {
                        return Err(self.differs(*from, piece.total_bytes, total_bytes));
                    }
                    read(&piece.bytes, &mut numbers.lock()[part.clone()], *how);
                }
            }
        }
        Ok(())
    }

    /// Sends the piece `(tag, number)` to a rank of the channel.
    pub(crate) fn send(
        &self,
        to: usize,
        piece: (u32, u32),
        total_bytes: u64,
        bytes: Buf,
        window: OwnedSemaphorePermit,
    ) {
        let key = self.channel.key(self.channel.me, self.number, piece);
        let about = About { kind: self.kind, total_bytes };
        self.channel.links.send(self.channel.members[to], key, about, bytes, window);
    }

    /// Receives the piece `(tag, number)` of a rank of the channel.
    pub(crate) async fn receive(
        &self,
        from: usize,
        piece: (u32, u32),
    ) -> Result<Piece, CollectiveError> {
        self.channel.links.receive(self.channel.key(from, self.number, piece)).await
    }

    fn differs(&self, from: usize, theirs: u64, ours: u64) -> CollectiveError {
        let (name, rank) = (kind::name(self.kind), self.channel.links.rank);
        let reason = format!(
            "its {name} (operation {} of stream {}) has {theirs} bytes, that of rank {rank} {ours}: all ranks must \
             do the same",
            self.number, self.channel.stream
        );
        CollectiveError::Lost { rank: self.channel.members[from], reason }
    }
}

/// Why a rank that is at another kind of operation ends all.
pub(crate) fn other_kind(operation: u64, stream: u32, theirs: u32, ours: u32) -> String {
    format!(
        "its operation {operation} of stream {stream} is {}, that of another rank {}: all ranks must do the same",
        kind::name(theirs),
        kind::name(ours)
    )
}

fn count(counts: &mut BTreeMap<(usize, u32), u32>, of: (usize, u32)) -> u32 {
    let next = counts.entry(of).or_insert(0);
    *next += 1;
    *next - 1
}

fn write(numbers: &[f32], bytes: &mut [u8]) {
    for (into, number) in bytes.as_chunks_mut().0.iter_mut().zip(numbers) {
        *into = number.to_le_bytes();
    }
}

fn read(bytes: &[u8], numbers: &mut [f32], how: How) {
    let come = bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four));
    match how {
        How::Add => numbers.iter_mut().zip(come).for_each(|(here, there)| *here += there),
        How::Replace => numbers.iter_mut().zip(come).for_each(|(here, there)| *here = there),
    }
}
