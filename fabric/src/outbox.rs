//! The frames that wait to be sent on one connection, and the loop that sends them.
//!
//! Whoever has a frame puts it here; the connection's one writer takes all that wait and sends them
//! with one system call. The queue is bounded by what fills it: requests by the slots of a
//! connection, replies by the requests in progress.

use std::{collections::VecDeque, pin::pin};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Interval, MissedTickBehavior, interval_at},
};

use crate::{
    frame::{HEADER_BYTES, Header, Kind},
    limits::FRAMES_PER_WRITE,
    pulse::Pulse,
    transport::{Frame, LinkError, Sender},
};

/// A queue of frames; `T` is what each frame's owner wants kept until it was sent.
#[derive(Debug)]
pub(crate) struct Outbox<T> {
    queue: Mutex<Queue<T>>,
    filled: Notify,
}

#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<(Frame, T)>,
    closed: bool,
}

impl<T> Outbox<T> {
    pub(crate) fn new() -> Self {
        let queue = Queue { waiting: VecDeque::new(), closed: false };
        Self { queue: Mutex::new(queue), filled: Notify::new() }
    }

    /// Queues a frame; gives it back if the connection is closed.
    pub(crate) fn push(&self, frame: Frame, kept: T) -> Result<(), T> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(kept);
        }
        queue.waiting.push_back((frame, kept));
        let first = queue.waiting.len() == 1;
        drop(queue);
        if first {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes back a frame that was not begun to be sent.
    pub(crate) fn withdraw(&self, which: impl Fn(&T) -> bool) -> Option<T> {
        let mut queue = self.queue.lock();
        let place = queue.waiting.iter().position(|(_, kept)| which(kept))?;
        queue.waiting.remove(place).map(|(_, kept)| kept)
    }

    /// Takes no more frames. Gives back those that were not begun to be sent.
    pub(crate) fn close(&self) -> Vec<T> {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.waiting.drain(..).map(|(_, kept)| kept).collect()
    }

    fn take(&self, frames: &mut Vec<Frame>, kept: &mut Vec<T>) {
        let mut queue = self.queue.lock();
        let count = queue.waiting.len().min(FRAMES_PER_WRITE);
        for (frame, keep) in queue.waiting.drain(..count) {
            frames.push(frame);
            kept.push(keep);
        }
    }

    /// Sends what is queued until the connection fails; the caller races it with the end of the
    /// connection. Also says that we live, and watches that the peer does.
    pub(crate) async fn send_all(
        &self,
        sender: &mut Sender,
        pulse: &Pulse,
        version: impl Fn() -> u64,
    ) -> Result<(), LinkError> {
        let mut tick = interval_at(pulse.first_tick().into(), pulse.tuning.keepalive);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut frames, mut kept) = (Vec::new(), Vec::new());
        loop {
            self.take(&mut frames, &mut kept);
            if frames.is_empty() {
                tokio::select! {
                    // First the rare one: frames that never end must not hide a silent peer.
                    biased;
                    _ = tick.tick() => pulse.check(false)?,
                    () = self.filled.notified() => continue,
                }
                if !pulse.is_idle() {
                    continue;
                }
                frames.push(alive(version()));
            }
            send(sender, &mut frames, pulse, &mut tick).await?;
            frames.clear();
            kept.clear();
        }
    }
}

async fn send(
    sender: &mut Sender,
    frames: &mut [Frame],
    pulse: &Pulse,
    tick: &mut Interval,
) -> Result<(), LinkError> {
    // A stall is counted from here.
    pulse.sent(0);
    // Nothing answers a post: who waits until it is sent may end this process then.
    let posts = frames.iter().any(|frame| frame.header.kind == Kind::Post);
    let mut sending = pin!(async {
        sender.send(frames).await?;
        if posts { sender.finish().await } else { Ok(()) }
    });
    loop {
        tokio::select! {
            biased;
            sent = &mut sending => return sent,
            _ = tick.tick() => pulse.check(true)?,
        }
    }
}

fn alive(version: u64) -> Frame {
    Frame::new(Header::new(Kind::Alive, 0, version), vec![0; HEADER_BYTES], Vec::new())
}
