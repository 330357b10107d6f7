//! A pair that two tasks use: the one that sends on a connection and the one that receives.
//!
//! Both work on it under a lock that is never held while one waits. Whoever waits asks the device first, has it
//! tell of what happens next, and asks once more; what he finds for the other he leaves in the state, and wakes
//! him. Who waits when the device tells something does not matter.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::{AsFd, OwnedFd},
    pin::pin,
    sync::Arc,
};

use ff2_verbs::{
    Access, Buffer, Direction, Event, Failure, Lendable, Local, Message, Pair, Place, Pool,
    Refused, Remote, Shared, Transfer, Why, WorkId,
};
use parking_lot::Mutex;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Notify,
};

use super::{
    End, Rail, reason,
    staging::{Loan, Piece, Staging},
};
use crate::{buf::Slab, frame::FrameError, onesided::annex::Span, transport::LinkError};

#[derive(Debug)]
pub(super) struct SharedPair {
    state: Mutex<State>,
    completions: AsyncFd<OwnedFd>,
    /// Something that the other half waits for may have happened.
    changed: Notify,
    rail: Arc<Rail>,
    staging: Option<Arc<Staging>>,
    pub(super) place: Place,
    /// For messages that are sent.
    outgoing: Arc<Pool>,
    /// The slabs that transfers of ours move bytes from and to, by id; `None`: the device does not take it.
    ours: Mutex<HashMap<u64, Option<Arc<Shared>>>>,
}

#[derive(Debug)]
pub(super) struct State {
    /// `None` once it is destroyed: nobody reaches memory of ours by it any more.
    pair: Option<Pair>,
    broken: Option<Failure>,
    /// What came and was not read yet, and how much of the first was.
    received: VecDeque<Message>,
    read: usize,
    moving: HashMap<WorkId, Moving>,
    /// Of them, those that nobody waits for.
    pushes: usize,
    /// The slabs that the peer showed, in their order, and how many it may.
    theirs: Vec<Remote>,
    theirs_max: u32,
}

/// A transfer that the device has, or that is done and not fetched.
#[derive(Debug)]
struct Moving {
    direction: Direction,
    done: Option<Transfer>,
    // After the buffer: who waits for this finds it free.
    loan: Option<Loan>,
}

impl SharedPair {
    /// Must be called inside the runtime that will drive it. The pair is connected.
    pub(super) fn new(end: End) -> io::Result<Arc<Self>> {
        let End { pair, place, outgoing, rail, staging } = end;
        let told = pair.as_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` is one open descriptor for as long as it lives, and nobody takes it out.
        let completions = unsafe { AsyncFd::register_with_interest(told, Interest::READABLE) }?;
        let state = Mutex::new(State {
            pair: Some(pair),
            broken: None,
            received: VecDeque::new(),
            read: 0,
            moving: HashMap::new(),
            pushes: 0,
            theirs: Vec::new(),
            theirs_max: 0,
        });
        let changed = Notify::new();
        let ours = Mutex::default();
        Ok(Arc::new(Self { state, completions, changed, rail, staging, place, outgoing, ours }))
    }

    /// Waits until `ready` finds in the state what it looks for. Cancel-safe, so long as `ready` is.
    pub(super) async fn until<T>(
        &self,
        mut ready: impl FnMut(&mut State) -> Option<Result<T, LinkError>>,
    ) -> Result<T, LinkError> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            // Before the device is to tell of it, and after: what happened in between it does not.
            for armed in [false, true] {
                let mut state = self.state.lock();
                if armed {
                    state.arm()?;
                }
                if state.turn()? {
                    self.changed.notify_waiters();
                }
                if let Some(found) = ready(&mut state) {
                    return found;
                }
            }
            tokio::select! {
                () = changed => (),
                told = self.completions.readable() => {
                    let mut told = told?;
                    self.state.lock().acknowledge()?;
                    told.clear_ready();
                }
            }
        }
    }

    /// Room for bulk bytes: a server's alone, for a client moves none.
    pub(super) fn staging(&self) -> Result<&Staging, FrameError> {
        self.staging.as_deref().ok_or(FrameError::BulkMisplaced)
    }

    /// Takes what came, without waiting for more.
    pub(super) fn rest(&self, into: &mut [u8]) -> Option<Result<usize, LinkError>> {
        let mut state = self.state.lock();
        if let Err(error) = state.turn() {
            return Some(Err(error.into()));
        }
        state.read(into)
    }

    /// A buffer for a message of ours.
    pub(super) async fn blank_message(&self) -> Result<Buffer, LinkError> {
        self.until(|state| match self.outgoing.take() {
            Some(buffer) => Some(Ok(buffer)),
            None => state.usable().err().map(Err),
        })
        .await
    }

    /// Sends a message when the peer has room for it.
    pub(super) async fn send(&self, message: Buffer) -> Result<(), LinkError> {
        let mut message = Some(message);
        self.until(|state| {
            let pair = match state.usable() {
                Ok(pair) => pair,
                Err(why) => return Some(Err(why)),
            };
            match pair.send(message.take().expect("not taken yet")) {
                Ok(()) => Some(Ok(())),
                Err(Refused { why: Why::Full, given }) => {
                    message = Some(given);
                    None
                }
                Err(Refused { why, .. }) => Some(Err(refused(why))),
            }
        })
        .await
    }

    /// Waits until the peer's device has all messages.
    pub(super) async fn acknowledged(&self) -> Result<(), LinkError> {
        self.until(|state| match state.usable() {
            Ok(pair) => (pair.unacknowledged() == 0).then_some(Ok(())),
            Err(why) => Some(Err(why)),
        })
        .await
    }

    /// Starts a transfer of staged bytes as soon as the device takes it.
    pub(super) async fn start(
        &self,
        direction: Direction,
        piece: Piece,
        remote: Remote,
    ) -> Result<WorkId, LinkError> {
        let Piece { buffer, loan } = piece;
        self.start_with(direction, buffer.into(), Some(loan), remote).await
    }

    /// As [`SharedPair::start`], with memory of its own.
    pub(super) async fn start_with(
        &self,
        direction: Direction,
        local: Local,
        loan: Option<Loan>,
        remote: Remote,
    ) -> Result<WorkId, LinkError> {
        let mut given = Some((vec![Transfer { local, remote }], loan));
        self.until(|state| {
            let pair = match state.usable() {
                Ok(pair) => pair,
                Err(why) => return Some(Err(why)),
            };
            let (transfers, loan) = given.take().expect("not taken yet");
            match pair.transfer(direction, transfers) {
                Ok(id) => {
                    state.pushes += usize::from(direction == Direction::Push);
                    state.moving.insert(id, Moving { direction, done: None, loan });
                    Some(Ok(id))
                }
                Err(Refused { why: Why::Full, given: back }) => {
                    given = Some((back, loan));
                    None
                }
                Err(Refused { why, .. }) => Some(Err(refused(why))),
            }
        })
        .await
    }

    /// Waits for the bytes of a pull.
    pub(super) async fn pulled(&self, id: WorkId) -> Result<(Local, Option<Loan>), LinkError> {
        self.until(|state| {
            if state.moving.get(&id).is_some_and(|moving| moving.done.is_some()) {
                let Moving { done, loan, .. } = state.moving.remove(&id)?;
                return Some(Ok((done?.local, loan)));
            }
            state.usable().err().map(Err)
        })
        .await
    }

    /// Waits until fewer than so many pushes are on their way.
    pub(super) async fn pushes_below(&self, most: usize) -> Result<(), LinkError> {
        self.until(|state| match state.usable() {
            Ok(_) => (state.pushes < most).then_some(Ok(())),
            Err(why) => Some(Err(why)),
        })
        .await
    }

    /// The peer may show so many slabs.
    pub(super) fn grant(&self, slabs: u32) {
        self.state.lock().theirs_max = slabs;
    }

    /// The peer shows a slab.
    pub(super) fn learn(&self, slab: Remote) -> Result<(), FrameError> {
        let mut state = self.state.lock();
        if state.theirs.len() >= state.theirs_max as usize {
            return Err(FrameError::BulkMisplaced);
        }
        state.theirs.push(slab);
        Ok(())
    }

    /// A place in a slab that the peer has shown.
    pub(super) fn theirs(&self, place: Span) -> Result<Remote, FrameError> {
        let state = self.state.lock();
        let slab = state.theirs.get(place.slab as usize).ok_or(FrameError::BulkMisplaced)?;
        slab.part(place.offset, place.len).ok_or(FrameError::BulkMisplaced)
    }

    /// Fails if the device was taken away: some drivers let what is there go on until all is closed.
    pub(super) fn is_there(&self) -> Result<(), LinkError> {
        let why = || io::Error::other(format!("the device {} was taken away", self.place.device));
        if self.rail.is_there() { Ok(()) } else { Err(why().into()) }
    }

    /// Registers a slab of ours, for the peer.
    pub(super) fn show(&self, slab: &Arc<Slab>) -> io::Result<Arc<Shared>> {
        self.rail.share(slab, Access::Peers).map_err(|error| io::Error::other(reason(error)))
    }

    /// Lends a part of a slab to a transfer of ours: no peer reaches it. Gives back what the device cannot use.
    pub(super) fn lend<T: Lendable>(&self, slab: &Arc<Slab>, owner: T) -> Result<Local, T> {
        let mut ours = self.ours.lock();
        let known = ours.entry(slab.id()).or_insert_with(|| {
            let shared = self.rail.share(slab, Access::Local);
            shared.inspect_err(|error| tracing::debug!(%error, "a slab is not registered")).ok()
        });
        match known {
            Some(shared) => shared.lend(owner).map(Local::from),
            None => Err(owner),
        }
    }

    /// Our end is no more: the peer reaches no memory of ours by it.
    pub(super) fn destroy(&self) {
        let mut state = self.state.lock();
        state.pair = None;
        state.moving.clear();
        drop(state);
        self.changed.notify_waiters();
    }
}

impl State {
    /// Asks the device what happened; whether anything did.
    fn turn(&mut self) -> io::Result<bool> {
        let Some(pair) = &mut self.pair else { return Ok(false) };
        let events = pair.poll().map_err(|error| io::Error::other(reason(error)))?;
        let any = !events.is_empty();
        for event in events {
            match event {
                Event::Received(message) => self.received.push_back(message),
                Event::Broken(failure) => self.broken = Some(failure),
                Event::Transferred { id, transfers, outcome: Ok(()) } => self.moved(id, transfers),
                Event::Transferred { id, transfers, outcome: Err(failure) } => {
                    self.broken.get_or_insert(failure);
                    drop(transfers);
                    self.moving.remove(&id);
                }
            }
        }
        Ok(any)
    }

    fn moved(&mut self, id: WorkId, mut transfers: Vec<Transfer>) {
        let Some(moving) = self.moving.get_mut(&id) else { return };
        match moving.direction {
            Direction::Pull => moving.done = transfers.pop(),
            Direction::Push => {
                drop(transfers);
                self.moving.remove(&id);
                self.pushes -= 1;
            }
        }
    }

    fn arm(&mut self) -> io::Result<()> {
        let armed = self.pair.as_mut().map_or(Ok(()), Pair::arm);
        armed.map_err(|error| io::Error::other(reason(error)))
    }

    fn acknowledge(&mut self) -> io::Result<()> {
        let done = self.pair.as_mut().map_or(Ok(()), Pair::acknowledge);
        done.map_err(|error| io::Error::other(reason(error)))
    }

    /// The pair, if it still works.
    fn usable(&mut self) -> Result<&mut Pair, LinkError> {
        match (self.broken, &mut self.pair) {
            (Some(failure), _) => Err(io::Error::other(failure).into()),
            (None, Some(pair)) => Ok(pair),
            (None, None) => Err(LinkError::Stopped),
        }
    }

    /// Takes bytes that came; `None` if there are none yet. What came before the end is told before it.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Option<Result<usize, LinkError>> {
        let Some(message) = self.received.front() else { return self.usable().err().map(Err) };
        let left = &message[self.read..];
        let count = left.len().min(into.len());
        into[..count].copy_from_slice(&left[..count]);
        self.read += count;
        if self.read == message.len() {
            self.read = 0;
            self.received.pop_front();
        }
        Some(Ok(count))
    }
}

fn refused(why: Why) -> LinkError {
    io::Error::other(match why {
        Why::Error(error) => reason(error),
        why => why.to_string(),
    })
    .into()
}
