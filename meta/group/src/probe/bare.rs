//! The limit that a group is held against: raft-rs and RocksDB in the plainest loop that is right. Three
//! replicas on three threads, one database each, messages encoded and decoded, one sync a round. It
//! has no snapshots, no leases, no membership, no views, and forgets nothing.

use std::{
    collections::HashMap,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use prost011::Message as _;
use raft::{
    RawNode, StateRole,
    eraftpb::{Entry, Message},
    storage::MemStorage,
};
use rocksdb::{DB, WriteBatch, WriteOptions};
use tokio::sync::oneshot;

use super::ProbeError;
use crate::{commands, limits};

const TICK: Duration = Duration::from_millis(25);

enum Input {
    Message(Vec<u8>),
    Put(Bytes, oneshot::Sender<()>),
    Stop,
}

/// The three replicas; the first leads.
pub(super) struct Bare {
    inboxes: Vec<Sender<Input>>,
    threads: Vec<JoinHandle<()>>,
}

/// Makes puts.
#[derive(Clone)]
pub(super) struct Client(Sender<Input>);

impl Client {
    /// Returns when a quorum has it on disk and the leader has applied it.
    pub(super) async fn put(&self, command: Bytes) -> Option<()> {
        let (reply, done) = oneshot::channel();
        self.0.send(Input::Put(command, reply)).ok()?;
        done.await.ok()
    }
}

impl Bare {
    pub(super) fn start(data_dir: &Path) -> Result<Self, ProbeError> {
        let (inboxes, takers): (Vec<_>, Vec<_>) = (0..3).map(|_| channel()).unzip();
        let mut threads = Vec::new();
        for (place, inbox) in takers.into_iter().enumerate() {
            let db = DB::open_default(data_dir.join(format!("bare-{place}")))
                .map_err(|error| ProbeError::Bare(error.to_string()))?;
            let replica = Replica::new(place as u64 + 1, db, inboxes.clone());
            threads.push(std::thread::spawn(move || replica.run(&inbox)));
        }
        Ok(Self { inboxes, threads })
    }

    pub(super) fn client(&self) -> Client {
        Client(self.inboxes[0].clone())
    }

    pub(super) fn stop(self) {
        for inbox in &self.inboxes {
            // One that has stopped needs no word.
            let _ = inbox.send(Input::Stop);
        }
        for thread in self.threads {
            thread.join().expect("the bare loop does not panic");
        }
    }
}

struct Replica {
    raw: RawNode<MemStorage>,
    db: DB,
    peers: Vec<Sender<Input>>,
    /// Commands that no entry holds yet: before there is a leader, and while a round gathers.
    gathered: Vec<(Bytes, oneshot::Sender<()>)>,
    /// By the index of their entry.
    waiting: HashMap<u64, Vec<oneshot::Sender<()>>>,
}

impl Replica {
    fn new(id: u64, db: DB, peers: Vec<Sender<Input>>) -> Self {
        let config = raft::Config {
            id,
            // The first to look for votes is the first.
            election_tick: if id == 1 { 10 } else { 40 },
            heartbeat_tick: 4,
            max_size_per_msg: limits::MESSAGE_BYTES_MAX,
            max_inflight_msgs: limits::MESSAGES_INFLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            ..Default::default()
        };
        let store = MemStorage::new_with_conf_state((vec![1, 2, 3], Vec::new()));
        let logger = crate::trace::logger(ff2_proto::GroupId(0));
        let raw = RawNode::new(&config, store, &logger).expect("a sound configuration");
        Self { raw, db, peers, gathered: Vec::new(), waiting: HashMap::new() }
    }

    fn run(mut self, inbox: &Receiver<Input>) {
        let mut next_tick = Instant::now() + TICK;
        loop {
            let wait = next_tick.saturating_duration_since(Instant::now());
            let first = match inbox.recv_timeout(wait) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            for input in first.into_iter().chain(inbox.try_iter()) {
                match input {
                    Input::Message(bytes) => {
                        let message = Message::decode(&*bytes).expect("as it was encoded");
                        // Raft's own refusals, of old terms for example.
                        let _ = self.raw.step(message);
                    }
                    Input::Put(command, reply) => self.gathered.push((command, reply)),
                    Input::Stop => return,
                }
            }
            if Instant::now() >= next_tick {
                next_tick += TICK;
                self.raw.tick();
            }
            self.propose();
            while self.raw.has_ready() {
                self.handle_ready();
            }
        }
    }

    /// All that gathered in one entry, or a few.
    fn propose(&mut self) {
        while self.raw.raft.state == StateRole::Leader && !self.gathered.is_empty() {
            let commands: Vec<Bytes> =
                self.gathered.iter().map(|(command, _)| command.clone()).collect();
            let (data, taken) = commands::pack(&commands);
            if self.raw.propose(Vec::new(), data).is_err() {
                return;
            }
            let replies = self.gathered.drain(..taken).map(|(_, reply)| reply).collect();
            self.waiting.insert(self.raw.raft.raft_log.last_index(), replies);
        }
    }

    fn handle_ready(&mut self) {
        let mut ready = self.raw.ready();
        self.send(ready.take_messages());
        self.apply(ready.take_committed_entries());
        let entries = ready.take_entries();
        let mut batch = WriteBatch::default();
        for entry in &entries {
            batch
                .put([b"l".as_slice(), &entry.index.to_be_bytes()].concat(), entry.encode_to_vec());
        }
        if let Some(hard) = ready.hs() {
            batch.put(b"h", hard.encode_to_vec());
            self.raw.store().wl().set_hardstate(hard.clone());
        }
        self.write(batch, ready.must_sync());
        self.raw.store().wl().append(&entries).expect("entries follow each other");
        self.send(ready.take_persisted_messages());
        let mut light = self.raw.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.raw.store().wl().mut_hard_state().commit = commit;
        }
        self.send(light.take_messages());
        self.apply(light.take_committed_entries());
        self.raw.advance_apply();
    }

    fn write(&self, batch: WriteBatch, sync: bool) {
        if batch.is_empty() {
            return;
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch, &options).expect("the disk takes it");
    }

    fn send(&self, messages: Vec<Message>) {
        for message in messages {
            // To one that has stopped.
            let _ =
                self.peers[message.to as usize - 1].send(Input::Message(message.encode_to_vec()));
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        let mut batch = WriteBatch::default();
        let mut answered = Vec::new();
        for entry in entries {
            answered.extend(self.waiting.remove(&entry.index).into_iter().flatten());
            for command in commands::unpack(entry.data) {
                if let Some((&length, rest)) = command.split_first() {
                    let (key, value) = rest.split_at(usize::from(length));
                    batch.put([b"k".as_slice(), key].concat(), value);
                }
            }
            batch.put(b"a", entry.index.to_be_bytes());
        }
        self.write(batch, false);
        for reply in answered {
            // Who asked may be gone.
            let _ = reply.send(());
        }
    }
}
