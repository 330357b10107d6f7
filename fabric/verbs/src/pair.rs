//! One end of a reliable connection: transfers between buffers of ours and a peer's, and messages with credits.
//!
//! It belongs to one owner: everything takes `&mut self`. Work is posted and comes back by [`Pair::poll`], in the order
//! in which it was posted. After the first failure nothing is taken any more and everything comes back; the owner then
//! makes another connection, by another way if need be.
//!
//! A reliable connection notices a peer that is gone when it sends. Who only receives must ask now and then.

mod endpoint;
mod handle;
mod settings;

use std::{
    collections::VecDeque,
    fmt,
    ops::Deref,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

pub use endpoint::Endpoint;
use handle::{Handle, Request, What};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
pub use settings::{Class, Settings};

use crate::{
    Buffer, Domain, Error, Failure, Local, Place, Pool, Remote,
    completions::{Completion, Completions},
};

/// One end of a connection.
#[derive(Debug)]
pub struct Pair {
    handle: Handle,
    completions: Completions,
    domain: Arc<Domain>,
    place: Place,
    settings: Settings,
    endpoint: Endpoint,
    peer: Option<Endpoint>,
    broken: Option<Failure>,
    /// Whether the owner knows.
    told: bool,
    /// Whether the device was asked to tell of the next event, and that was not acknowledged. Asking is a system call,
    /// and several wait for one pair.
    armed: bool,
    /// What the device has, oldest first: it reports in this order.
    works: VecDeque<Work>,
    next_id: u64,
    /// Requests that the device's queue still takes.
    room: usize,
    receiving: Receiving,
    /// Messages that we may send.
    credits: u32,
}

/// The receiving side of the messages.
#[derive(Debug)]
struct Receiving {
    messages: Arc<Pool>,
    /// Buffers that the device has, oldest first: it fills them in this order.
    posted: VecDeque<Buffer>,
    /// Messages that were taken and whose place has no new buffer yet.
    lacking: u32,
    /// Places that the peer may use again and was not told of.
    owed: u32,
}

/// Memory of ours and some of the peer's. As many bytes are moved as ours has.
#[derive(Debug)]
pub struct Transfer {
    pub local: Local,
    pub remote: Remote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the peer's buffers to ours: READ.
    Pull,
    /// From our buffers to the peer's: WRITE.
    Push,
}

/// Names a batch of transfers until it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId(u64);

/// What happened on a connection.
#[derive(Debug)]
pub enum Event {
    /// All transfers of a batch were done, or not all of them were.
    Transferred {
        id: WorkId,
        transfers: Vec<Transfer>,
        outcome: Result<(), Failure>,
    },
    Received(Message),
    /// Told once, before what it breaks comes back, and not to who called [`Pair::fail`].
    Broken(Failure),
}

/// Bytes that the peer sent. Its place is the peer's again some time after it is dropped.
#[derive(Debug)]
pub struct Message(Buffer);

/// What was not taken comes back at once.
#[derive(Debug)]
pub struct Refused<T> {
    pub why: Why,
    pub given: T,
}

/// Why something was not taken.
#[derive(Debug)]
pub enum Why {
    /// Poll, and try again: the device's queue is full, or the peer has no room for another message.
    Full,
    /// Never will be: more than [`Pair::BATCH_MAX`] transfers or none, nothing to move, or more than the peer's
    /// buffer or room for a message has.
    Size,
    /// Never will be: others may read what is to be written.
    ReadOnly,
    Error(Error),
}

#[derive(Debug)]
struct Work {
    id: u64,
    requests: usize,
    what: Held,
    failure: Option<Failure>,
}

/// What the device may touch until the work is done.
#[derive(Debug)]
enum Held {
    Transfers(Vec<Transfer>),
    Message(#[expect(dead_code, reason = "held, not read")] Buffer),
    Grant,
}

/// Which request of a work reports: the lowest bits of its number.
const PART: u64 = 0;
const LAST: u64 = 1;
const RECEIVE: u64 = 2;
const KINDS: u64 = 4;

impl Pair {
    /// Transfers that are posted at once.
    pub const BATCH_MAX: usize = 32;

    /// An end at a place, not connected yet. Messages are received into buffers of `messages`, of which it takes as
    /// many as the settings say and two more.
    ///
    /// # Errors
    /// [`Error::NoBuffers`] if there are not so many, [`Error::ForeignBuffer`] if they are not the domain's.
    pub fn new(
        domain: &Arc<Domain>,
        place: &Place,
        messages: &Arc<Pool>,
        settings: Settings,
    ) -> Result<Self, Error> {
        settings.check()?;
        let device = domain.device();
        let port = device.port(place.port)?;
        let completions = Completions::new(device, settings.works + settings.receives())?;
        let handle = Handle::new(domain, &completions, &settings)?;
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|error| Error::Call {
            call: "draw a packet number",
            device: device.name().into(),
            source: std::io::Error::other(error.to_string()),
        })?;
        let endpoint = Endpoint {
            mtu_bytes: port.mtu_bytes,
            reads: device.reads_max()?,
            lid: port.lid,
            messages: u16::try_from(settings.messages).expect("checked"),
            queue_pair: handle.number(),
            packet: u32::from_le_bytes(random) >> 8,
            message_bytes: u32::try_from(messages.buffer_bytes()).expect("bounded by the pool"),
            gid: place.gid.bytes,
        };
        let receiving = Receiving {
            messages: messages.clone(),
            posted: VecDeque::new(),
            lacking: settings.receives(),
            owed: 0,
        };
        let mut pair = Self {
            handle,
            completions,
            domain: domain.clone(),
            place: place.clone(),
            settings,
            endpoint,
            peer: None,
            broken: None,
            told: false,
            armed: false,
            works: VecDeque::new(),
            next_id: 0,
            room: settings.works as usize,
            receiving,
            credits: 0,
        };
        pair.handle.begin(place, settings.access)?;
        pair.refill()?;
        match pair.receiving.lacking {
            // The peer learns of them with the endpoint.
            0 => pair.receiving.owed = 0,
            _ => {
                let (wanted, free) = (settings.receives() as usize, pair.receiving.posted.len());
                return Err(Error::NoBuffers { wanted, free });
            }
        }
        Ok(pair)
    }

    /// For the peer.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Goes on with what the peer said of its end. What is sent before the peer does so too arrives all the same.
    pub fn connect(&mut self, peer: &Endpoint) -> Result<(), Error> {
        if self.peer.is_some() {
            return Err(Error::Endpoint("this end is connected already"));
        }
        self.handle.connect(&self.place, self.settings.class, &self.endpoint, peer)?;
        self.peer = Some(*peer);
        self.credits = peer.messages.into();
        Ok(())
    }

    /// The class of our packets as the device has it, once this end is connected. (Soft-RoCE knows no service levels
    /// and says 0.)
    pub fn class(&self) -> Result<Class, Error> {
        self.handle.class()
    }

    /// Moves bytes between this process's memory and the peer's, which is not asked. All of it is done, in any order
    /// within the batch, when [`Event::Transferred`] tells so. A device that does not take it breaks the connection,
    /// and then the buffers may be held until its end.
    pub fn transfer(
        &mut self,
        direction: Direction,
        transfers: Vec<Transfer>,
    ) -> Result<WorkId, Refused<Vec<Transfer>>> {
        let requests = match self.requests(direction, &transfers) {
            Ok(requests) => requests,
            Err(why) => return Err(Refused { why, given: transfers }),
        };
        let id = self.post(&requests, Held::Transfers(transfers));
        Ok(WorkId(id))
    }

    fn requests(&self, direction: Direction, transfers: &[Transfer]) -> Result<Vec<Request>, Why> {
        self.usable().map_err(Why::Error)?;
        if !(1..=Self::BATCH_MAX).contains(&transfers.len()) {
            return Err(Why::Size);
        }
        self.has_room(transfers.len())?;
        let request = |transfer: &Transfer| {
            if direction == Direction::Pull && !transfer.local.is_exclusive() {
                return Err(Why::ReadOnly);
            }
            let local = transfer.local.piece(&self.domain).map_err(Why::Error)?;
            if local.1 == 0 || local.1 > transfer.remote.len {
                return Err(Why::Size);
            }
            let what = match direction {
                Direction::Pull => What::Read(transfer.remote),
                Direction::Push => What::Write(transfer.remote),
            };
            Ok(Request { id: 0, what, local, reported: false })
        };
        transfers.iter().map(request).collect()
    }

    /// Sends a message, if the peer has room for it.
    pub fn send(&mut self, message: Buffer) -> Result<(), Refused<Buffer>> {
        let local = match self.sendable(&message) {
            Ok(local) => local,
            Err(why) => return Err(Refused { why, given: message }),
        };
        self.credits -= 1;
        let what = What::Send(std::mem::take(&mut self.receiving.owed));
        self.post(&[Request { id: 0, what, local, reported: false }], Held::Message(message));
        Ok(())
    }

    fn sendable(&self, message: &Buffer) -> Result<(u64, u32, u32), Why> {
        self.usable().map_err(Why::Error)?;
        let local = message.local(&self.domain).map_err(Why::Error)?;
        let longest = self.peer.map_or(0, |peer| peer.message_bytes);
        if local.1 == 0 || local.1 > longest {
            return Err(Why::Size);
        }
        if self.credits == 0 {
            return Err(Why::Full);
        }
        self.has_room(1)?;
        Ok(local)
    }

    /// Messages that the peer has room for.
    pub fn credits(&self) -> u32 {
        self.credits
    }

    /// Messages of ours that the peer's device has not acknowledged yet.
    pub fn unacknowledged(&self) -> usize {
        self.works.iter().filter(|work| matches!(work.what, Held::Message(_))).count()
    }

    /// What happened since the last time, and nothing if nothing did: never waits.
    pub fn poll(&mut self) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        self.tell(&mut events);
        loop {
            let completions = self.completions.poll()?;
            if completions.is_empty() {
                break;
            }
            for completion in completions {
                self.completed(completion, &mut events);
            }
        }
        if self.broken.is_none() && self.peer.is_some() {
            let refilled = self.refill();
            if let Err(Error::Broken(failure)) = refilled {
                self.give_up(failure, &mut events);
            }
            self.grant();
        }
        Ok(events)
    }

    /// As [`Pair::poll`], and waits so long if nothing happened yet. For threads; a task waits for [`Pair::as_fd`].
    pub fn poll_within(&mut self, time: Duration) -> Result<Vec<Event>, Error> {
        let end = Instant::now() + time;
        loop {
            let events = self.poll()?;
            if !events.is_empty() {
                return Ok(events);
            }
            self.arm()?;
            let events = self.poll()?;
            let left = end.saturating_duration_since(Instant::now());
            if !events.is_empty() || left.is_zero() {
                return Ok(events);
            }
            let left = Timespec::try_from(left).ok();
            let mut watched = [PollFd::new(&self.completions, PollFlags::IN)];
            match poll(&mut watched, left.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => self.acknowledge()?,
                Err(error) => {
                    let device = self.domain.device().name().into();
                    return Err(Error::Call { call: "poll", device, source: error.into() });
                }
            }
        }
    }

    /// The descriptor becomes readable with the next event, or is so already. Poll once more before waiting for it:
    /// what happened before this call is not told.
    pub fn arm(&mut self) -> Result<(), Error> {
        if !self.armed {
            self.completions.arm()?;
            self.armed = true;
        }
        Ok(())
    }

    /// After the descriptor was readable.
    pub fn acknowledge(&mut self) -> Result<(), Error> {
        // The device tells of one event, and then of none until it is asked again.
        self.armed &= !self.completions.acknowledge()?;
        Ok(())
    }

    /// Takes the connection down from this side: everything comes back, and the peer finds nobody.
    pub fn fail(&mut self) -> Result<(), Error> {
        self.broken.get_or_insert(Failure::Flushed);
        self.told = true;
        self.handle.fail()
    }

    fn usable(&self) -> Result<(), Error> {
        match (self.broken, self.peer) {
            (Some(failure), _) => Err(Error::Broken(failure)),
            (None, None) => Err(Error::Endpoint("the peer has not said anything yet")),
            (None, Some(_)) => Ok(()),
        }
    }

    /// One place is kept for grants, or two ends that only send would wait for each other.
    fn has_room(&self, requests: usize) -> Result<(), Why> {
        if self.room > requests { Ok(()) } else { Err(Why::Full) }
    }

    /// Gives the requests of one work to the device, which holds `what` until the last of them is reported.
    fn post(&mut self, requests: &[Request], what: Held) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.room -= requests.len();
        let mut requests = requests.to_vec();
        for request in &mut requests {
            request.id = id * KINDS + PART;
        }
        let last = requests.last_mut().expect("work has a request");
        (last.id, last.reported) = (id * KINDS + LAST, true);
        // SAFETY: `what` owns the memory. It goes into `works`, and leaves when its last request was reported, before
        // which the device reports no later one, or at the end of the pair, which destroys the queue pair first.
        let posted = unsafe { self.handle.post(&requests) };
        self.works.push_back(Work { id, requests: requests.len(), what, failure: None });
        if let Err(failure) = posted {
            self.broken.get_or_insert(failure);
            // Of a device that does not even do this, the pair's end gets everything back.
            let _ = self.handle.fail();
        }
        id
    }

    fn completed(&mut self, completion: Completion, events: &mut Vec<Event>) {
        if let Some(failure) = completion.failure {
            self.give_up(failure, events);
        }
        let (id, kind) = (completion.id / KINDS, completion.id % KINDS);
        if kind == RECEIVE {
            return self.received(&completion, events);
        }
        let Some(work) = self.works.front_mut() else { return };
        assert_eq!(work.id, id, "the device reports in order");
        if let Some(failure) = completion.failure {
            work.failure.get_or_insert(failure);
        }
        if kind == LAST {
            let work = self.works.pop_front().expect("seen above");
            self.room += work.requests;
            if let Held::Transfers(transfers) = work.what {
                let outcome = work.failure.map_or(Ok(()), Err);
                events.push(Event::Transferred { id: WorkId(id), transfers, outcome });
            }
        }
    }

    fn received(&mut self, completion: &Completion, events: &mut Vec<Event>) {
        let Some(mut buffer) = self.receiving.posted.pop_front() else { return };
        if completion.failure.is_some() {
            return;
        }
        let granted = completion.immediate.unwrap_or(0);
        let most = self.peer.map_or(0, |peer| peer.messages.into());
        match self.credits.checked_add(granted).filter(|credits| *credits <= most) {
            Some(credits) => self.credits = credits,
            None => return self.give_up(Failure::Credits, events),
        }
        if completion.bytes > 0 {
            buffer.truncate(completion.bytes as usize);
            self.receiving.lacking += 1;
            events.push(Event::Received(Message(buffer)));
        } else if let Err(Error::Broken(failure)) = self.make_room(buffer) {
            self.give_up(failure, events);
        }
    }

    /// Makes room for a message where there is none, as far as the pool has buffers.
    fn refill(&mut self) -> Result<(), Error> {
        while self.receiving.lacking > 0 {
            let Some(buffer) = self.receiving.messages.take() else { break };
            self.make_room(buffer)?;
            self.receiving.lacking -= 1;
            self.receiving.owed += 1;
        }
        Ok(())
    }

    fn make_room(&mut self, buffer: Buffer) -> Result<(), Error> {
        let local = buffer.local(&self.domain)?;
        // SAFETY: the buffer goes into `posted`, and leaves as the works do.
        let posted = unsafe { self.handle.receive(RECEIVE, local) };
        self.receiving.posted.push_back(buffer);
        posted.map_err(Error::Broken)
    }

    /// Tells the peer of its new credits when they are many; else the next message does.
    fn grant(&mut self) {
        let many = self.receiving.owed >= self.settings.messages.div_ceil(2);
        if many && self.room > 0 && self.broken.is_none() {
            let what = What::Send(std::mem::take(&mut self.receiving.owed));
            let nothing = Request { id: 0, what, local: (0, 0, 0), reported: false };
            self.post(&[nothing], Held::Grant);
        }
    }

    /// Tells the owner once.
    fn give_up(&mut self, failure: Failure, events: &mut Vec<Event>) {
        if self.broken.is_none() {
            self.broken = Some(failure);
            // The device does so itself, but for what is our own judgement.
            let _ = self.handle.fail();
        }
        self.tell(events);
    }

    fn tell(&mut self, events: &mut Vec<Event>) {
        let untold = self.broken.filter(|_| !self.told);
        events.extend(untold.map(Event::Broken));
        self.told |= untold.is_some();
    }
}

impl AsFd for Pair {
    /// Readable when something happened after [`Pair::arm`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.completions.as_fd()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if !self.handle.destroy() {
            // The device may still write to them: better lost than given to somebody else.
            std::mem::forget(std::mem::take(&mut self.works));
            std::mem::forget(std::mem::take(&mut self.receiving.posted));
        }
    }
}

impl Deref for Message {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => {
                f.write_str("as much as there is room for is on its way: poll and try again")
            }
            Self::Size => {
                f.write_str("nothing, or more than the other side's memory or one batch takes")
            }
            Self::ReadOnly => {
                f.write_str("the memory is read by others: pull into some that is not")
            }
            Self::Error(error) => error.fmt(f),
        }
    }
}
