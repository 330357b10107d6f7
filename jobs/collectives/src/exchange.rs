//! All-to-all: each rank has something for each other, of any length.

use futures::future::try_join;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{CollectiveError, limits::PIECE_BYTES, run::Operation, schedule};

/// What can be sent as its bytes. Ranks are of one architecture.
pub trait Plain: IntoBytes + FromBytes + Immutable + Copy + Send + Sync + 'static {}

impl<T: IntoBytes + FromBytes + Immutable + Copy + Send + Sync + 'static> Plain for T {}

impl Operation {
    /// `out[r]` goes to the rank r; what each rank sent here comes back, in order of ranks.
    pub(crate) async fn exchange<T: Plain>(
        &self,
        mut out: Vec<Vec<T>>,
    ) -> Result<Vec<Vec<T>>, CollectiveError> {
        let (me, ranks) = (self.channel.me, self.channel.members.len());
        let mut come: Vec<Vec<T>> = vec![Vec::new(); ranks];
        come[me] = std::mem::take(&mut out[me]);
        let sending = async {
            for (to, _) in schedule::turns(me, ranks) {
                self.send_all(to, out[to].as_bytes()).await?;
            }
            Ok(())
        };
        let receiving = async {
            for (_, from) in schedule::turns(me, ranks) {
                come[from] = self.receive_all(from).await?;
            }
            Ok(())
        };
        try_join(sending, receiving).await?;
        Ok(come)
    }

    async fn send_all(&self, to: usize, bytes: &[u8]) -> Result<(), CollectiveError> {
        // Nothing is a piece too: the receiver learns of it by its total.
        let pieces = bytes.len().div_ceil(PIECE_BYTES).max(1);
        for number in 0..pieces {
            let start = number * PIECE_BYTES;
            let part = &bytes[start..bytes.len().min(start + PIECE_BYTES)];
            let window = self.channel.window(to, 0).await?;
            let mut piece = self.channel.links.buffer(part.len()).await;
            piece.copy_from_slice(part);
            self.send(to, (0, number as u32), bytes.len() as u64, piece, window);
        }
        Ok(())
    }

    async fn receive_all<T: Plain>(&self, from: usize) -> Result<Vec<T>, CollectiveError> {
        let first = self.receive(from, (0, 0)).await?;
        let total = usize::try_from(first.total_bytes).unwrap_or(usize::MAX);
        let width = size_of::<T>();
        if width == 0 || !total.is_multiple_of(width) {
            return Err(self.misfit(from, total, width));
        }
        let mut come = Vec::new();
        let room = come.try_reserve_exact(total / width);
        room.map_err(|_| self.misfit(from, total, width))?;
        come.resize(total / width, T::new_zeroed());
        let (bytes, mut at, mut piece, mut number) = (come.as_mut_bytes(), 0, first, 0);
        loop {
            let place = bytes.get_mut(at..at + piece.bytes.len());
            let place = place.ok_or_else(|| self.misfit(from, total, width))?;
            place.copy_from_slice(&piece.bytes);
            at += place.len();
            if at == total {
                return Ok(come);
            }
            number += 1;
            piece = self.receive(from, (0, number)).await?;
        }
    }

    fn misfit(&self, from: usize, bytes: usize, width: usize) -> CollectiveError {
        let rank = self.channel.members[from];
        let reason = format!("it sent {bytes} bytes, expected whole numbers of {width} bytes each");
        CollectiveError::Lost { rank, reason }
    }
}
