//! A ring: takes its operations, runs a bounded number of them, posts what came of them.

use std::{
    future::poll_fn, os::unix::net::UnixStream as StdStream, pin::Pin, sync::Arc, task::Poll,
};

use ff2_client_core::TwoClasses;
use ff2_ring::{
    control::ring_bell,
    layout::{Completed, LOW},
    mapping::RingMemory,
    queue::{Broken, MountSide},
};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::net::UnixStream;

use super::{
    asks::Ring,
    work::{self, Posted, Work},
};
use crate::{limits, mounted::Mounted};

/// What came of operations that ran.
enum Came {
    /// And the bytes that it was to move.
    Done(u64, Completed),
    /// Those that were not posted meanwhile must run each by itself.
    Apart(Vec<Work>),
}

type Running = FuturesUnordered<Pin<Box<dyn Future<Output = Came> + Send>>>;

/// Serves until the program is gone, breaks the rules, or the mount ends.
pub(super) async fn serve(at: Arc<Mounted>, ring: Arc<Ring>, memory: RingMemory, bell: StdStream) {
    let mut side = MountSide::new(memory);
    match UnixStream::from_std(bell) {
        Ok(bell) => {
            let mut served = Served {
                at,
                ring: &ring,
                side: &mut side,
                waiting: TwoClasses::default(),
                posted: Posted::default(),
                bytes: 0,
            };
            let outcome = served.run(&bell).await;
            if outcome == Err(Broken) {
                tracing::info!("a program broke the rules of its ring, which is closed");
                side.close(libc::EPROTO);
            } else {
                side.close(libc::ESHUTDOWN);
            }
            // The bell hangs up now, and the program looks why.
        }
        Err(error) => tracing::warn!(%error, "a ring is not served"),
    }
    ring.ended();
}

struct Served<'a> {
    at: Arc<Mounted>,
    ring: &'a Ring,
    side: &'a mut MountSide<RingMemory>,
    /// Taken and not started.
    waiting: TwoClasses<Work>,
    /// Done, of those that still run.
    posted: Posted,
    /// That the running ones move.
    bytes: u64,
}

impl Served<'_> {
    async fn run(&mut self, bell: &UnixStream) -> Result<(), Broken> {
        let mut running = Running::new();
        let mut unpublished = 0_u32;
        loop {
            let mut moved = self.take()?;
            self.start(&running);
            while let Some(Some(came)) = running.next().now_or_never() {
                self.end(came, &running);
                moved = true;
            }
            moved |= self.post();
            unpublished = if moved { unpublished + 1 } else { 0 };
            // Once for two turns, as what others of this thread bring meanwhile can go along.
            if unpublished.is_multiple_of(2) {
                self.publish(bell);
            }
            if moved {
                // Others of this thread, too.
                tokio::task::yield_now().await;
                if self.ring.stop.is_cancelled() {
                    return Ok(());
                }
                continue;
            }
            if !self.side.sleeps() {
                continue;
            }
            let woken = tokio::select! {
                () = self.ring.stop.cancelled() => false,
                readable = bell.readable() => readable.is_ok() && silence(bell),
                came = next(&mut running, &self.posted), if !running.is_empty() => {
                    came.into_iter().for_each(|came| self.end(came, &running));
                    true
                }
            };
            self.side.wakes();
            if !woken {
                return Ok(());
            }
        }
    }

    /// True: there was something.
    fn take(&mut self) -> Result<bool, Broken> {
        let mut any = false;
        while let Some(submission) = self.side.take()? {
            any = true;
            match Work::parse(self.ring, submission) {
                Ok(work) if submission.class == LOW => self.waiting.push_low(work),
                Ok(work) => self.waiting.push_high(work),
                Err(completed) => self.side.post(completed),
            }
        }
        Ok(any)
    }

    /// As many as may run beside each other; one that is larger than the bound runs alone.
    fn start(&mut self, running: &Running) {
        while let Some(next) = self.waiting.peek() {
            let is_room = self.bytes + next.bytes() <= limits::RING_BYTES_RUNNING_MAX;
            let may_run = running.is_empty() || is_room;
            if !may_run || running.len() >= limits::RING_OPERATIONS_RUNNING_MAX {
                return;
            }
            let works = self.pop_together();
            let bytes: u64 = works.iter().map(Work::bytes).sum();
            self.bytes += bytes;
            if works.len() == 1 {
                self.run_apart(works, running);
                continue;
            }
            let (at, posted) = (self.at.clone(), self.posted.clone());
            running.push(Box::pin(async move {
                Came::Apart(work::run_together(&at, works, &posted).await)
            }));
        }
    }

    fn run_apart(&self, works: Vec<Work>, running: &Running) {
        for work in works {
            let (at, bytes) = (self.at.clone(), work.bytes());
            running.push(Box::pin(async move { Came::Done(bytes, work.run(at).await) }));
        }
    }

    /// The next operation, with those behind it that can go to the servers together with it.
    fn pop_together(&mut self) -> Vec<Work> {
        let mut works: Vec<Work> = self.waiting.pop().into_iter().collect();
        while works.len() < limits::RING_READS_TOGETHER_MAX
            && let (Some(first), Some(next)) = (works.first(), self.waiting.peek())
            && first.goes_with(next)
        {
            works.extend(self.waiting.pop());
        }
        works
    }

    fn end(&mut self, came: Came, running: &Running) {
        match came {
            Came::Done(bytes, completed) => {
                self.bytes -= bytes;
                self.side.post(completed);
            }
            Came::Apart(works) => self.run_apart(works, running),
        }
    }

    /// True: there was something.
    fn post(&mut self) -> bool {
        let posted = self.posted.take();
        let any = !posted.is_empty();
        for (bytes, completed) in posted {
            self.bytes -= bytes;
            self.side.post(completed);
        }
        any
    }

    fn publish(&mut self, bell: &UnixStream) {
        if self.side.publish() {
            ring_bell(bell);
        }
    }
}

/// The next that ends; none when something is posted first.
async fn next(running: &mut Running, posted: &Posted) -> Option<Came> {
    poll_fn(|cx| match running.poll_next_unpin(cx) {
        Poll::Ready(came) => Poll::Ready(came),
        Poll::Pending if posted.is_empty() => Poll::Pending,
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// False: the program is gone.
fn silence(bell: &UnixStream) -> bool {
    let mut rings = [0; 64];
    match bell.try_read(&mut rings) {
        Ok(count) => count > 0,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}
