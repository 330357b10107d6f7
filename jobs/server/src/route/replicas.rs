//! The replicas as the router knows them: which may be asked, what each has to do, and what it has seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    choice::{ANSWER_BYTES, Candidate, choose},
    fleet::Member,
    folder::Entry,
    prompt::{BLOCK_BYTES, Prompt, Seen},
};
use crate::limits;

/// What a replica says of itself (`GET /load`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// It takes nothing new.
    pub stopping: bool,
    /// Choices that it generates at once.
    pub slots: usize,
    /// Choices under way, and requests that wait.
    pub running: usize,
    pub waiting: usize,
    /// Tokens that its cache has room for.
    pub keeps_tokens: usize,
    /// Tokens since it started: generated, looked up in the prefix cache, found there.
    pub generated: u64,
    pub looked_up: u64,
    pub found: u64,
}

/// Tokens of all replicas, also of those that are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    pub generated: u64,
    pub looked_up: u64,
    pub found: u64,
}

/// See the module. Shared by all requests.
#[derive(Debug, Default)]
pub struct Replicas {
    state: Mutex<State>,
    /// Told when one may be asked that might not before.
    pub news: Notify,
}

#[derive(Debug, Default)]
struct State {
    by_id: BTreeMap<String, Replica>,
    /// Of those that are gone.
    past: Tokens,
    /// Of all prompts, to know how many bytes a token has.
    prompt_bytes: u64,
    prompt_tokens: u64,
}

#[derive(Debug)]
struct Replica {
    entry: Entry,
    load: Load,
    /// It answered when it was asked last, and takes requests.
    is_ready: bool,
    /// It is to be ended: it gets nothing new.
    is_draining: bool,
    /// When it answered last.
    heard: Instant,
    failures: u32,
    /// Requests there that have not begun to answer go elsewhere when this is cancelled.
    lost: CancellationToken,
    in_flight: usize,
    pending: usize,
    seen: Seen,
}

impl Replicas {
    /// Takes over who is announced. Who is not any more gets nothing new, and is forgotten when nothing runs there.
    pub fn set(&self, entries: Vec<Entry>, now: Instant) {
        let mut state = self.state.lock();
        let ids: BTreeSet<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        for (id, replica) in &mut state.by_id {
            replica.is_ready &= ids.contains(id.as_str());
        }
        let is_over = |id: &str, it: &Replica| !ids.contains(id) && it.in_flight == 0;
        let past = state.by_id.iter().filter(|(id, it)| is_over(id, it));
        let past = past.fold(state.past, |sum, (_, it)| sum.and(&it.load));
        state.past = past;
        state.by_id.retain(|id, it| !is_over(id, it));
        for entry in entries {
            let id = entry.id.clone();
            state.by_id.entry(id).or_insert_with(|| {
                tracing::info!(id = entry.id, address = %entry.address, "a replica");
                Replica::new(entry, now)
            });
        }
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.state.lock().by_id.values().map(|it| it.entry.clone()).collect()
    }

    /// It answered.
    pub fn heard(&self, id: &str, load: Load, now: Instant) {
        let mut state = self.state.lock();
        let Some(replica) = state.by_id.get_mut(id) else { return };
        let was_ready = replica.is_ready;
        (replica.load, replica.heard, replica.failures) = (load, now, 0);
        replica.is_ready = !load.stopping;
        if replica.is_ready && !was_ready {
            tracing::info!(id, "takes requests");
            self.news.notify_waiters();
        }
    }

    /// It did not answer when it was asked how it is. Returns for how long it has been silent.
    pub fn missed(&self, id: &str, now: Instant) -> Duration {
        let mut state = self.state.lock();
        let Some(replica) = state.by_id.get_mut(id) else { return Duration::ZERO };
        replica.failures += 1;
        if replica.failures == limits::REPLICA_FAILURES_MAX {
            replica.give_up("does not answer");
        }
        now.duration_since(replica.heard)
    }

    /// A request could not be put to it, or it refused one because it stops. It gets no other before it was heard.
    pub fn refused(&self, id: &str, why: &str) {
        let mut state = self.state.lock();
        if let Some(replica) = state.by_id.get_mut(id).filter(|it| it.is_ready) {
            tracing::info!(id, why, "gets no requests until it answers again");
            replica.is_ready = false;
        }
    }

    /// Exactly these are to be ended.
    pub fn drain(&self, ids: &BTreeSet<String>) {
        let mut state = self.state.lock();
        for (id, replica) in &mut state.by_id {
            let is_draining = ids.contains(id);
            if is_draining != replica.is_draining {
                tracing::info!(id, is_draining, "draining");
                replica.is_draining = is_draining;
                self.news.notify_waiters();
            }
        }
    }

    /// The best one but for these, with a place there.
    pub fn pick(self: &Arc<Self>, prompt: &Prompt, but: &BTreeSet<String>) -> Option<Seat> {
        let mut state = self.state.lock();
        let bytes_per_token = state.bytes_per_token();
        let open = |it: &&Replica| it.is_open() && !but.contains(&it.entry.id);
        let (ids, candidates): (Vec<&str>, Vec<Candidate>) = state
            .by_id
            .values()
            .filter(open)
            .map(|it| (it.entry.id.as_str(), it.candidate(prompt, bytes_per_token)))
            .unzip();
        let place = choose(&candidates, prompt.bytes)?;
        let (id, candidate) = (ids[place].to_owned(), candidates[place]);
        let replica = state.by_id.get_mut(&id).expect("it was just there");
        let pending = prompt.bytes.saturating_sub(candidate.known) + ANSWER_BYTES;
        replica.in_flight += 1;
        replica.pending += pending;
        replica.seen.note(prompt, candidate.keeps);
        Some(Seat {
            replicas: self.clone(),
            address: replica.entry.address,
            lost: replica.lost.clone(),
            id,
            pending,
        })
    }

    /// Whether another than these might be asked now.
    pub fn any_but(&self, but: &BTreeSet<String>) -> bool {
        self.state.lock().by_id.values().any(|it| it.is_open() && !but.contains(&it.entry.id))
    }

    /// Notes how long a prompt is.
    pub fn measured(&self, bytes: usize, tokens: usize) {
        let mut state = self.state.lock();
        state.prompt_bytes += bytes as u64;
        state.prompt_tokens += tokens as u64;
    }

    /// As who decides how many there should be sees them.
    pub fn members(&self) -> Vec<Member> {
        let state = self.state.lock();
        let member = |it: &Replica| Member {
            id: it.entry.id.clone(),
            job: it.entry.job,
            index: it.entry.index,
            is_ready: it.is_ready,
            in_flight: it.in_flight,
            slots: it.load.slots,
        };
        state.by_id.values().map(member).collect()
    }

    pub fn tokens(&self) -> Tokens {
        let state = self.state.lock();
        state.by_id.values().fold(state.past, |sum, it| sum.and(&it.load))
    }
}

impl Tokens {
    fn and(self, load: &Load) -> Self {
        Self {
            generated: self.generated + load.generated,
            looked_up: self.looked_up + load.looked_up,
            found: self.found + load.found,
        }
    }
}

impl State {
    /// A usual one, until something is known.
    fn bytes_per_token(&self) -> usize {
        const USUAL: u64 = 4;
        self.prompt_bytes.checked_div(self.prompt_tokens).unwrap_or(USUAL).max(1) as usize
    }
}

impl Replica {
    fn new(entry: Entry, now: Instant) -> Self {
        Self {
            entry,
            load: Load::default(),
            is_ready: false,
            is_draining: false,
            heard: now,
            failures: 0,
            lost: CancellationToken::new(),
            in_flight: 0,
            pending: 0,
            seen: Seen::default(),
        }
    }

    fn is_open(&self) -> bool {
        self.is_ready && !self.is_draining
    }

    fn candidate(&self, prompt: &Prompt, bytes_per_token: usize) -> Candidate {
        let keeps = self.load.keeps_tokens.saturating_mul(bytes_per_token) / BLOCK_BYTES;
        Candidate {
            slots: self.load.slots,
            in_flight: self.in_flight,
            pending: self.pending,
            known: self.seen.known(prompt) * BLOCK_BYTES,
            kept: self.seen.len(),
            keeps: keeps.min(limits::SEEN_BLOCKS_MAX),
        }
    }

    fn give_up(&mut self, why: &str) {
        tracing::warn!(id = self.entry.id, why, "what it has not begun to answer goes elsewhere");
        self.is_ready = false;
        std::mem::take(&mut self.lost).cancel();
    }
}

/// A request's place at a replica, given back at its end.
#[derive(Debug)]
pub struct Seat {
    replicas: Arc<Replicas>,
    pub id: String,
    pub address: std::net::SocketAddr,
    pub lost: CancellationToken,
    pending: usize,
}

impl Seat {
    /// Its prompt is computed: what is left are its tokens.
    pub fn began(&mut self) {
        self.reduce(ANSWER_BYTES);
    }

    fn reduce(&mut self, to: usize) {
        let mut state = self.replicas.state.lock();
        let Some(replica) = state.by_id.get_mut(&self.id) else { return };
        let less = self.pending.saturating_sub(to);
        self.pending -= less;
        replica.pending = replica.pending.checked_sub(less).expect("each gives back what it took");
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.reduce(0);
        let mut state = self.replicas.state.lock();
        if let Some(replica) = state.by_id.get_mut(&self.id) {
            replica.in_flight = replica.in_flight.checked_sub(1).expect("each leaves once");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load {
        stopping: false,
        slots: 2,
        running: 0,
        waiting: 0,
        keeps_tokens: 1 << 20,
        generated: 10,
        looked_up: 8,
        found: 4,
    };

    fn entry(id: &str) -> Entry {
        Entry { id: id.to_owned(), address: ([127, 0, 0, 1], 1).into(), index: 0, job: 0 }
    }

    fn two() -> Arc<Replicas> {
        let (replicas, now) = (Arc::new(Replicas::default()), Instant::now());
        replicas.set(vec![entry("a"), entry("b")], now);
        replicas.heard("a", LOAD, now);
        replicas.heard("b", LOAD, now);
        replicas
    }

    fn pick(replicas: &Arc<Replicas>, prompt: &Prompt) -> Option<Seat> {
        replicas.pick(prompt, &BTreeSet::new())
    }

    #[test]
    fn a_conversation_stays_and_another_goes_elsewhere() {
        let replicas = two();
        let prompt = |letter: u8| Prompt::of_bytes(&vec![letter; 4096]);
        let first = pick(&replicas, &prompt(1)).unwrap().id.clone();
        let second = pick(&replicas, &prompt(2)).unwrap().id.clone();
        assert_ne!(first, second, "the one that keeps less");
        for _ in 0..3 {
            assert_eq!(pick(&replicas, &prompt(1)).unwrap().id, first);
            assert_eq!(pick(&replicas, &prompt(2)).unwrap().id, second);
        }
    }

    #[test]
    fn who_drains_stops_or_is_silent_gets_nothing() {
        let (replicas, now) = (two(), Instant::now());
        let prompt = Prompt::default();
        let but = |id: &str| BTreeSet::from([id.to_owned()]);
        replicas.drain(&but("a"));
        assert_eq!(pick(&replicas, &prompt).unwrap().id, "b");
        assert!(replicas.pick(&prompt, &but("b")).is_none() && !replicas.any_but(&but("b")));
        replicas.drain(&BTreeSet::new());
        replicas.heard("b", Load { stopping: true, ..LOAD }, now);
        replicas.heard("a", LOAD, now);
        let seat = pick(&replicas, &prompt).unwrap();
        assert_eq!(seat.id, "a");
        replicas.missed("a", now);
        assert!(!seat.lost.is_cancelled(), "once is nothing");
        let silent = (1..limits::REPLICA_FAILURES_MAX)
            .map(|_| replicas.missed("a", now + Duration::from_secs(9)));
        assert_eq!(silent.max(), Some(Duration::from_secs(9)));
        assert!(seat.lost.is_cancelled() && pick(&replicas, &prompt).is_none());
        replicas.heard("a", LOAD, now);
        let again = pick(&replicas, &prompt).unwrap();
        assert!(!again.lost.is_cancelled());
        replicas.refused("a", "stops");
        assert!(pick(&replicas, &prompt).is_none());
    }

    #[test]
    fn who_is_gone_is_forgotten_when_nothing_runs_there_and_its_tokens_count() {
        let (replicas, now) = (two(), Instant::now());
        let mut seat =
            replicas.pick(&Prompt::default(), &BTreeSet::from(["b".to_owned()])).unwrap();
        replicas.set(vec![entry("b")], now);
        assert_eq!(replicas.members().len(), 2);
        assert_eq!(pick(&replicas, &Prompt::default()).unwrap().id, "b");
        seat.began();
        drop(seat);
        replicas.set(vec![entry("b")], now);
        assert_eq!(replicas.members().len(), 1);
        assert_eq!(replicas.tokens(), Tokens { generated: 20, looked_up: 16, found: 8 });
        assert!(replicas.members().iter().all(|it| it.in_flight == 0));
    }
}
