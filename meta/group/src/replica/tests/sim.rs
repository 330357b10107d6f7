//! Replicas in memory, a network that delays, drops and partitions from a seed, and power cuts that
//! lose what was not synced. What must hold always is checked after every output.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use ff2_meta_core::{Kv, KvRead, StateMachine};
use ff2_proto::{GroupId, pb};
use xxhash_rust::xxh3::Xxh3;

use super::super::*;
use crate::MemStore;

pub(super) const TICK: Duration = Duration::from_millis(10);

/// Command: `key=value`; the answer is the number of commands so far.
#[derive(Debug, Default)]
pub(super) struct Counter(u64);

impl StateMachine for Counter {
    type View = u64;

    fn restore(&mut self, kv: &dyn KvRead) {
        let count = kv.get(b"count").map_or(0, |n| u64::from_be_bytes(n[..].try_into().unwrap()));
        self.0 = count;
    }

    fn apply(&mut self, _index: u64, command: &[u8], kv: &mut dyn Kv) -> Bytes {
        self.0 += 1;
        let text = String::from_utf8_lossy(command);
        if let Some((key, value)) = text.split_once('=') {
            kv.put(key.as_bytes(), Bytes::copy_from_slice(value.as_bytes()));
        }
        kv.put(b"count", Bytes::copy_from_slice(&self.0.to_be_bytes()));
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    fn view(&self) -> u64 {
        self.0
    }
}

pub(super) struct Random(u64);

impl Random {
    pub(super) fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

enum Packet {
    Batch(pb::RaftBatch),
    Fetch { from: u32, request: pb::FetchSnapshotRequest },
    Page { snapshot: u64, page: Result<pb::FetchSnapshotReply, Status> },
}

pub(super) struct Sim {
    pub(super) now: Duration,
    pub(super) random: Random,
    pub(super) seed: u64,
    pub(super) replicas: BTreeMap<u32, Replica<MemStore, Counter>>,
    /// Calm ticks that a replica has not done yet.
    owed: BTreeMap<u32, u32>,
    pub(super) crashed: BTreeMap<u32, (MemStore, u64)>,
    /// By arrival time, then order of sending.
    network: BTreeMap<(Duration, u64), (u32, u32, Packet)>,
    pub(super) sent: u64,
    pub(super) cut: Option<u32>,
    /// A node whose disk was lost, and the incarnation of its new folder.
    pub(super) wiped: Option<(u32, u64)>,
    pub(super) faults: bool,
    /// Somebody sends what no replica would: it may name addresses of nobody, and make a replica stop, with a
    /// reason for people.
    pub(super) is_anybody_mad: bool,
    pub(super) ticket: u64,
    /// Tickets of reads, with the count that must be seen at least.
    pub(super) reads: BTreeMap<u64, u64>,
    pub(super) acknowledged: u64,
    pub(super) leaders: BTreeMap<u64, u64>,
    pub(super) done: Vec<(u64, Result<(), Status>)>,
    pub(super) events: Xxh3,
}

pub(super) fn address(node: u32) -> String {
    format!("n{node}:1")
}

/// `None`: no node has the address, which only somebody mad would name.
fn node_at(address: &str) -> Option<u32> {
    address.trim_start_matches('n').trim_end_matches(":1").parse().ok()
}

fn founders() -> Vec<pb::Member> {
    let member =
        |n: u32| pb::Member { raft_id: n.into(), node: n, address: address(n), incarnation: 0 };
    (1..=3).map(member).collect()
}

impl Sim {
    pub(super) fn new(seed: u64, faults: bool) -> Self {
        let mut sim = Self {
            now: Duration::ZERO,
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            seed,
            replicas: BTreeMap::new(),
            owed: BTreeMap::new(),
            crashed: BTreeMap::new(),
            network: BTreeMap::new(),
            sent: 0,
            cut: None,
            wiped: None,
            faults,
            is_anybody_mad: false,
            ticket: 0,
            reads: BTreeMap::new(),
            acknowledged: 0,
            leaders: BTreeMap::new(),
            done: Vec::new(),
            events: Xxh3::new(),
        };
        for node in 1..=3 {
            let store = MemStore::formed(&address(node), seed + u64::from(node), &founders());
            sim.start(node, node.into(), store);
        }
        sim
    }

    pub(super) fn start(&mut self, node: u32, raft_id: u64, store: MemStore) {
        let config = ReplicaConfig {
            group: GroupId(1),
            node,
            raft_id,
            address: address(node),
            tick: TICK,
            election_ticks: 12,
            heartbeat_ticks: 2,
            calm_heartbeat_ticks: 4,
            first_tick: 0,
            log_keep_entries: 20,
            broadcast_commits: self.seed.is_multiple_of(2),
            seed: self.seed ^ self.random.next(u64::MAX),
        };
        let mut replica = Replica::new(config, store, Counter::default(), self.now).unwrap();
        replica.introduce(founders());
        self.owed.remove(&node);
        self.replicas.insert(node, replica);
    }

    pub(super) fn step(&mut self, node: u32, input: Input) {
        let now = self.now;
        self.make_up(node);
        let Some(replica) = self.replicas.get_mut(&node) else { return };
        let mut out = Vec::new();
        replica.step(now, input, &mut out);
        self.settle(node, out);
    }

    /// The calm ticks that a replica owes, as its driver does before it takes anything in.
    pub(super) fn make_up(&mut self, node: u32) {
        let now = self.now;
        for _ in 0..self.owed.remove(&node).unwrap_or(0) {
            let Some(replica) = self.replicas.get_mut(&node) else { return };
            let mut out = Vec::new();
            replica.tick(now, &mut out);
            assert!(out.is_empty(), "a calm tick does nothing: {out:?}");
        }
    }

    pub(super) fn settle(&mut self, node: u32, mut out: Vec<Output>) {
        let now = self.now;
        let replica = self.replicas.get_mut(&node).unwrap();
        replica.turn(now, &mut out);
        self.perform(node, out);
        loop {
            // A power cut may come between any two parts of a ready.
            for part in 0..3 {
                if self.faults && self.random.next(4_000) == 0 {
                    return self.crash(node);
                }
                let Some(replica) = self.replicas.get_mut(&node) else { return };
                if part == 0 && !replica.has_ready() {
                    return;
                }
                let mut out = Vec::new();
                match part {
                    0 => replica.take_ready(now, &mut out),
                    1 => replica.apply_ready(now, &mut out),
                    _ => replica.persist_ready(now, &mut out),
                }
                self.perform(node, out);
            }
        }
    }

    pub(super) fn perform(&mut self, node: u32, out: Vec<Output>) {
        for output in out {
            self.events.update(format!("{node} {:?} {output:?}", self.now).as_bytes());
            match output {
                Output::Send { address, batch } => {
                    self.send(node, node_at(&address), Packet::Batch(batch));
                }
                Output::Fetch { address, request } => {
                    self.send(node, node_at(&address), Packet::Fetch { from: node, request });
                }
                Output::Answer { answer: Ok(count), .. } => {
                    let count = u64::from_be_bytes(count[..].try_into().unwrap());
                    self.acknowledged = self.acknowledged.max(count);
                }
                Output::Read { ticket, may } => {
                    let asked = self.reads.remove(&ticket).expect("asked");
                    if may.is_ok() {
                        let seen = self.replicas[&node].machine().view();
                        assert!(seen >= asked, "seed {}: stale read {seen} < {asked}", self.seed);
                    }
                }
                Output::Leadership(known) if known.is_leader => {
                    let id = known.leader.unwrap().raft_id;
                    let first = *self.leaders.entry(known.term).or_insert(id);
                    assert_eq!(first, id, "seed {}: two leaders in a term", self.seed);
                }
                Output::Done { ticket, done } => self.done.push((ticket, done)),
                Output::Stop(reason) if self.is_anybody_mad => {
                    assert!(!reason.is_empty());
                    self.replicas.remove(&node);
                    return;
                }
                Output::Stop(reason) => panic!("seed {}: {reason}", self.seed),
                Output::Answer { .. }
                | Output::Joined { .. }
                | Output::Leadership(_)
                | Output::Applied
                | Output::Removed => {}
            }
        }
        self.check_lease_reads(node);
    }

    /// Whoever holds a lease sees everything acknowledged, or knows that it does not.
    pub(super) fn check_lease_reads(&self, node: u32) {
        let Some(replica) = self.replicas.get(&node) else { return };
        let lease = replica.lease_until().is_some_and(|until| self.now < until);
        if lease && replica.applied() >= replica.commit() {
            let seen = replica.machine().view();
            let needed = self.acknowledged;
            assert!(seen >= needed, "seed {}: stale lease {seen} < {needed}", self.seed);
        }
    }

    fn send(&mut self, from: u32, to: Option<u32>, packet: Packet) {
        let Some(to) = to else {
            assert!(self.is_anybody_mad, "seed {}: a packet to nobody", self.seed);
            return;
        };
        let lost = self.faults && self.random.next(40) == 0;
        if lost || self.cut == Some(from) || self.cut == Some(to) {
            return;
        }
        let slow = if self.faults && self.random.next(20) == 0 { 200 } else { 3 };
        let delay = Duration::from_millis(1 + self.random.next(slow));
        self.sent += 1;
        self.network.insert((self.now + delay, self.sent), (from, to, packet));
    }

    pub(super) fn crash(&mut self, node: u32) {
        let Some(replica) = self.replicas.remove(&node) else { return };
        let raft_id = replica.config().raft_id;
        let store = replica.into_store();
        let kept = self.random.next(store.unsynced() as u64 + 1) as usize;
        let seed = self.random.next(u64::MAX);
        self.crashed.insert(node, (store.crash(kept, seed), raft_id));
    }

    pub(super) fn restart_crashed(&mut self) {
        for (node, (store, raft_id)) in std::mem::take(&mut self.crashed) {
            self.start(node, raft_id, store);
        }
    }

    /// Time goes on by one tick.
    pub(super) fn advance(&mut self) {
        let end = self.now + TICK;
        while let Some(entry) = self.network.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), (from, to, packet)) = entry.remove_entry();
            self.now = at;
            match packet {
                Packet::Batch(batch) => self.step(to, Input::Messages(batch)),
                Packet::Page { snapshot, page } => self.step(to, Input::Page { snapshot, page }),
                Packet::Fetch { from: asker, request } => {
                    assert_eq!(asker, from);
                    if let Some(replica) = self.replicas.get(&to) {
                        let page = Ok(replica.store().page(&request));
                        let page = Packet::Page { snapshot: request.snapshot, page };
                        self.send(to, Some(asker), page);
                    }
                }
            }
        }
        self.now = end;
        let nodes: Vec<u32> = self.replicas.keys().copied().collect();
        for node in nodes {
            let Some(replica) = self.replicas.get_mut(&node) else { continue };
            let owed = self.owed.entry(node).or_default();
            if *owed < replica.calm_ticks() {
                *owed += 1;
                continue;
            }
            self.make_up(node);
            let Some(replica) = self.replicas.get_mut(&node) else { continue };
            let mut out = Vec::new();
            replica.tick(end, &mut out);
            self.settle(node, out);
            self.check_lease_reads(node);
        }
    }

    pub(super) fn leader(&self) -> Option<u32> {
        let leads = self.replicas.iter().filter(|(_, replica)| replica.leadership().is_leader);
        leads.max_by_key(|(_, replica)| replica.leadership().term).map(|(node, _)| *node)
    }

    pub(super) fn await_leader(&mut self) -> u32 {
        for _ in 0..2_000 {
            self.advance();
            if let Some(leader) = self.leader() {
                return leader;
            }
        }
        panic!("seed {}: no leader", self.seed);
    }

    pub(super) fn propose(&mut self, node: u32, command: String) {
        self.ticket += 1;
        let ticket = self.ticket;
        self.step(node, Input::Propose { ticket, command: command.into() });
    }

    pub(super) fn read(&mut self, node: u32) {
        self.ticket += 1;
        if self.replicas.contains_key(&node) {
            self.reads.insert(self.ticket, self.acknowledged);
            let ticket = self.ticket;
            self.step(node, Input::Read { ticket });
        }
    }

    /// The wiped node asks its way back in.
    pub(super) fn rejoin(&mut self) {
        let Some((node, incarnation)) = self.wiped else { return };
        let Some(leader) = self.leader() else { return };
        let request = pb::JoinGroupRequest { group: 1, node, address: address(node), incarnation };
        let Some(replica) = self.replicas.get_mut(&leader) else { return };
        let reply = replica.join(&request);
        self.settle(leader, Vec::new());
        if let Ok(reply) = reply {
            self.wiped = None;
            let seed = self.random.next(u64::MAX);
            self.start(node, reply.raft_id, MemStore::empty(&address(node), seed));
        }
    }

    /// Takes a follower's disk away, if the group is whole: more is more than it promises to stand.
    pub(super) fn wipe(&mut self, node: u32) {
        let Some(leader) = self.leader() else { return };
        let Some(replica) = self.replicas.get(&leader) else { return };
        let conf = replica.store().conf();
        let one_each = replica.store().membership().members.len() == 3;
        let whole = conf.voters.len() == 3 && conf.voters_outgoing.is_empty() && one_each;
        let running = self.replicas.len() == 3 && self.wiped.is_none() && self.cut.is_none();
        if whole && running && node != leader {
            self.replicas.remove(&node);
            self.wiped = Some((node, self.random.next(u64::MAX) | 1));
        }
    }

    /// Everything heals, everybody applies the same.
    pub(super) fn converge(&mut self) {
        self.faults = false;
        self.cut = None;
        self.restart_crashed();
        for _ in 0..3_000 {
            self.advance();
            self.rejoin();
            if self.wiped.is_some() {
                continue;
            }
            let leader = self.leader().and_then(|node| self.replicas.get(&node));
            let Some(commit) = leader.map(|replica| replica.commit()) else { continue };
            if self.replicas.values().all(|replica| replica.applied() == commit) {
                let hashes: Vec<u64> =
                    self.replicas.values().map(|replica| replica.store().kv().hash()).collect();
                assert!(hashes.iter().all(|hash| *hash == hashes[0]), "seed {}", self.seed);
                return;
            }
        }
        panic!("seed {}: the replicas do not converge: {:?}", self.seed, self.replicas);
    }
}
