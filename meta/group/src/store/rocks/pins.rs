//! Snapshots that a leader holds while followers fetch them. Each has a small thread that owns the
//! RocksDB snapshot and serves its pages, so that no page is read on the group's thread.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use bytes::Bytes;
use ff2_proto::{Status, pb, status::Code};
use parking_lot::Mutex;
use rocksdb::{DB, Direction, IteratorMode};

use crate::{error::stop, format, limits, store};

/// Page requests that wait for one snapshot's thread; a follower asks for one at a time.
const CALLS_MAX: usize = 4;

/// The pinned snapshots of a group.
#[derive(Clone, Debug)]
pub(crate) struct Pins(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    next: u64,
    folder: PathBuf,
    pins: BTreeMap<u64, Server>,
    closed: bool,
}

/// What is pinned: the state in this place of [`format::CF_STATES`], for a follower or (`to` 0) a backup, which
/// needs nothing of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pin {
    pub(crate) to: u64,
    pub(crate) index: u64,
    pub(crate) state: usize,
}

#[derive(Debug)]
struct Server {
    pin: Pin,
    served: Arc<AtomicU64>,
    calls: mpsc::SyncSender<Call>,
    thread: JoinHandle<()>,
}

pub(crate) type PageReply = Box<dyn FnOnce(pb::FetchSnapshotReply) + Send>;

struct Call {
    request: pb::FetchSnapshotRequest,
    reply: PageReply,
}

impl Pins {
    /// `seed` makes snapshot ids differ from those of earlier runs: a follower that goes on asking
    /// after the leader started again must not get pages of another snapshot.
    pub(super) fn new(seed: u64, folder: PathBuf) -> Self {
        let held = Held { next: seed | 1, folder, pins: BTreeMap::new(), closed: false };
        Self(Arc::new(Mutex::new(held)))
    }

    /// Pins the state as it is now and returns the snapshot's id, or `None` if too many are pinned.
    /// A follower has one at a time.
    pub(super) fn pin(&self, db: &Arc<DB>, pin: Pin) -> Option<u64> {
        let mut held = self.0.lock();
        held.pins.retain(|_, server| server.pin.to != pin.to);
        if held.closed || held.pins.len() >= limits::PINS_MAX {
            return None;
        }
        let (taken, is_taken) = mpsc::sync_channel(1);
        let (calls, waiting) = mpsc::sync_channel(CALLS_MAX);
        let (db, folder) = (Arc::clone(db), held.folder.clone());
        let body = move || serve(&db, pin.state, &folder, &taken, &waiting);
        let thread = std::thread::Builder::new().name("ff2-snapshot".into()).spawn(body).ok()?;
        is_taken.recv().ok()?;
        let id = held.next;
        held.next = held.next.wrapping_add(2);
        held.pins.insert(id, Server { pin, served: Arc::default(), calls, thread });
        Some(id)
    }

    pub(super) fn first_index(&self) -> Option<u64> {
        let held = self.0.lock();
        held.pins.values().filter(|server| server.pin.to != 0).map(|server| server.pin.index).min()
    }

    pub(crate) fn served(&self, snapshot: u64) -> Option<u64> {
        self.0.lock().pins.get(&snapshot).map(|server| server.served.load(Ordering::Relaxed))
    }

    /// Its thread ends by itself after the page at hand.
    pub(crate) fn release(&self, snapshot: u64) {
        self.0.lock().pins.remove(&snapshot);
    }

    pub(super) fn close(&self) {
        let mut held = self.0.lock();
        held.closed = true;
        let pins = std::mem::take(&mut held.pins);
        drop(held);
        for (_, Server { calls, thread, .. }) in pins {
            drop(calls);
            // A page server panics only if the process is going down anyway.
            let _ = thread.join();
        }
    }

    /// Answers with a page, from the snapshot's own thread.
    pub(crate) fn page(&self, request: pb::FetchSnapshotRequest, reply: PageReply) {
        let held = self.0.lock();
        let Some(server) = held.pins.get(&request.snapshot) else {
            drop(held);
            return reply(store::no_such_snapshot());
        };
        server.served.fetch_add(1, Ordering::Relaxed);
        let sent = server.calls.try_send(Call { request, reply });
        drop(held);
        if let Err(mpsc::TrySendError::Full(call) | mpsc::TrySendError::Disconnected(call)) = sent {
            let status = Some(Status::from(Code::Busy).into());
            (call.reply)(pb::FetchSnapshotReply { status, ..Default::default() });
        }
    }
}

fn serve(
    db: &DB,
    state: usize,
    folder: &std::path::Path,
    taken: &mpsc::SyncSender<()>,
    calls: &mpsc::Receiver<Call>,
) {
    // For a backup, which does not run on the group's thread, an install may just be emptying this state: then nothing
    // is pinned.
    let Some(cf) = db.cf_handle(format::CF_STATES[state]) else { return };
    let snapshot = db.snapshot();
    if taken.send(()).is_err() {
        return;
    }
    while let Ok(Call { request, reply }) = calls.recv() {
        let mode = IteratorMode::From(&request.after_key, Direction::Forward);
        let pairs = snapshot.iterator_cf(&cf, mode).map(|pair| match pair {
            Ok((key, value)) => (Bytes::from(key), Bytes::from(value)),
            Err(error) => stop(folder, "read a snapshot", &error),
        });
        let after = request.after_key.clone();
        reply(store::page(&request, pairs.skip_while(move |(key, _)| *key <= after)));
    }
}
