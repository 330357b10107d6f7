//! Turns of one inode's updates: [`WriteOrder`] with somebody waiting.

use std::collections::BTreeMap;

use ff2_client_core::WriteOrder;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

#[derive(Debug, Default)]
pub(crate) struct Turns {
    state: Mutex<State>,
    /// Somebody left: there is room again.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    order: WriteOrder,
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

/// One update's place; left when dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    ticket: u64,
    ready: Option<oneshot::Receiver<()>>,
}

impl Turns {
    /// Takes places for updates of these chunks, in the order of the calls.
    pub(crate) async fn enter(&self, chunks: &[u32]) -> Vec<Turn<'_>> {
        loop {
            // Registered before the look, so that a place that frees between is not missed.
            let room = self.room.notified();
            if let Some(turns) = self.try_enter(chunks) {
                return turns;
            }
            room.await;
        }
    }

    fn try_enter(&self, chunks: &[u32]) -> Option<Vec<Turn<'_>>> {
        let mut state = self.state.lock();
        let entered = state.order.enter(chunks.iter().copied())?;
        let turns = entered.into_iter().map(|entered| {
            let ready = (!entered.ready).then(|| {
                let (wake, ready) = oneshot::channel();
                state.waiting.insert(entered.ticket, wake);
                ready
            });
            Turn { turns: self, ticket: entered.ticket, ready }
        });
        Some(turns.collect())
    }
}

impl Turn<'_> {
    /// Returns when every earlier update of the chunk ended.
    pub(crate) async fn come(&mut self) {
        if let Some(ready) = self.ready.take() {
            // The sender lives in `Turns` until this turn comes or is dropped.
            let _ = ready.await;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state.lock();
        state.waiting.remove(&self.ticket);
        if let Some(next) = state.order.leave(self.ticket)
            && let Some(wake) = state.waiting.remove(&next)
        {
            // Nobody receives if the next was dropped this moment; it leaves by itself then.
            let _ = wake.send(());
        }
        drop(state);
        self.turns.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_come_in_order_and_pass_over_who_left() {
        let turns = Turns::default();
        let mut first = turns.enter(&[1, 2]).await;
        let mut second = turns.enter(&[1]).await;
        let third = turns.enter(&[1]).await;
        let mut fourth = turns.enter(&[1]).await;
        for turn in &mut first {
            turn.come().await;
        }
        drop(third);
        drop(first);
        second[0].come().await;
        drop(second);
        fourth[0].come().await;
    }
}
