//! The state in keys.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use ff2_meta_core::{Kv, KvRead, StateMachine};
use ff2_sched_core::{Config, Decision, Facts, JobId};

use crate::{
    command::{Answer, Command, Fact},
    keys, limits,
    state::State,
};

/// See the crate. Its view is the state itself: readers look at it between two commands.
#[derive(Debug)]
pub struct SchedMachine {
    config: Config,
    state: Arc<RwLock<State>>,
    /// Commands that lie beside the facts.
    since_facts: usize,
    /// How many jobs of a submission there were, and how many have not ended, by the first.
    open: BTreeMap<u64, Open>,
    /// Submissions that have ended, oldest first.
    ended: VecDeque<u64>,
    next_end: u64,
}

#[derive(Clone, Debug)]
struct Open {
    count: u32,
    left: u32,
}

/// What is kept of a submission.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Order {
    key: String,
    count: u32,
    order: String,
}

impl SchedMachine {
    pub fn new(config: Config) -> Self {
        Self {
            state: Arc::new(RwLock::new(State::new(config.clone()))),
            config,
            since_facts: 0,
            open: BTreeMap::new(),
            ended: VecDeque::new(),
            next_end: 0,
        }
    }

    /// Applies a command that was not applied before; the books of submissions are the caller's.
    fn take(&mut self, index: u64, command: &Command) -> (Answer, Vec<Decision>) {
        let mut decisions = Vec::new();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let answer = state.apply(index, command, &mut decisions);
        (answer, decisions)
    }

    fn keep_books(
        &mut self,
        command: &Command,
        answer: &Answer,
        decisions: &[Decision],
        kv: &mut dyn Kv,
    ) {
        if let (Fact::Submitted(what), Answer::Accepted { first, count }) = (&command.fact, answer)
        {
            let order = Order { key: what.key.clone(), count: *count, order: what.order.clone() };
            let order = serde_json::to_vec(&order).expect("numbers and strings");
            kv.put(&keys::numbered(keys::ORDERS, *first), order.into());
            let first_bytes = Bytes::copy_from_slice(&first.to_be_bytes());
            kv.put(&keys::named(keys::SUBMISSIONS, &what.key), first_bytes);
            self.open.insert(*first, Open { count: *count, left: *count });
        }
        for decision in decisions {
            if let Decision::Ended { job, .. } = decision {
                self.one_ended(*job, kv);
            }
        }
    }

    fn one_ended(&mut self, job: JobId, kv: &mut dyn Kv) {
        let Some((first, open)) = self.open.range_mut(..=job.0).next_back() else { return };
        if job.0 >= first + u64::from(open.count) {
            return;
        }
        open.left = open.left.saturating_sub(1);
        if open.left > 0 {
            return;
        }
        let first = *first;
        self.open.remove(&first);
        let value = Bytes::copy_from_slice(&first.to_be_bytes());
        kv.put(&keys::numbered(keys::ENDED, self.next_end), value);
        self.next_end += 1;
        self.ended.push_back(first);
        if self.ended.len() > limits::ENDED_ORDERS_KEPT {
            let oldest = self.next_end - self.ended.len() as u64;
            kv.delete(&keys::numbered(keys::ENDED, oldest));
            let forgotten = self.ended.pop_front().expect("there are more than enough");
            forget(forgotten, kv);
        }
    }

    /// Writes the facts as they are now, in place of the commands that led to them.
    fn write_facts(&mut self, kv: &mut dyn Kv) {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let facts = serde_json::to_vec(&state.scheduler.facts()).expect("numbers and strings");
        let around = serde_json::to_vec(state.around()).expect("numbers and strings");
        drop(state);
        for kind in [keys::FACTS, keys::COMMANDS] {
            let (from, to) = keys::all(kind);
            for (key, _) in kv.scan(&from, &to, usize::MAX) {
                kv.delete(&key);
            }
        }
        for (at, part) in facts.chunks(limits::FACTS_PART).enumerate() {
            kv.put(&keys::numbered(keys::FACTS, at as u64), Bytes::copy_from_slice(part));
        }
        kv.put(keys::AROUND, around.into());
        self.since_facts = 0;
    }
}

impl StateMachine for SchedMachine {
    type View = Arc<RwLock<State>>;

    fn restore(&mut self, kv: &dyn KvRead) {
        let whole = |kind: u8| {
            let (from, to) = keys::all(kind);
            kv.scan(&from, &to, usize::MAX)
        };
        let facts: Vec<u8> = whole(keys::FACTS).into_iter().flat_map(|(_, part)| part).collect();
        let state = match kv.get(keys::AROUND) {
            None => State::new(self.config.clone()),
            Some(around) => {
                let around = serde_json::from_slice(&around).expect("written by this machine");
                let facts: Facts = serde_json::from_slice(&facts).expect("written by this machine");
                State::restore(around, facts).expect("written together")
            }
        };
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        let commands = whole(keys::COMMANDS);
        self.since_facts = commands.len();
        for (key, command) in commands {
            let command = serde_json::from_slice(&command).expect("written by this machine");
            self.take(keys::number(&key), &command);
        }
        let ended = whole(keys::ENDED);
        self.next_end = ended.last().map_or(0, |(key, _)| keys::number(key) + 1);
        let first = |bytes: &Bytes| bytes[..].try_into().map(u64::from_be_bytes).unwrap_or(0);
        self.ended = ended.iter().map(|(_, value)| first(value)).collect();
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        self.open.clear();
        for (key, value) in whole(keys::ORDERS) {
            let first = keys::number(&key);
            let order: Order = serde_json::from_slice(&value).expect("written by this machine");
            let jobs = (first..first + u64::from(order.count)).map(JobId);
            let left = jobs.filter(|job| state.scheduler.job(*job).is_some()).count() as u32;
            if left > 0 {
                self.open.insert(first, Open { count: order.count, left });
            }
        }
    }

    fn apply(&mut self, index: u64, command: &[u8], kv: &mut dyn Kv) -> Bytes {
        let decoded: Command = match serde_json::from_slice(command) {
            Ok(decoded) => decoded,
            Err(error) => return Answer::refused(format!("no command: {error}")).encode(),
        };
        if let Fact::Submitted(what) = &decoded.fact
            && let Some(known) = submitted_before(&what.key, kv)
        {
            return known.encode();
        }
        let (answer, decisions) = self.take(index, &decoded);
        self.keep_books(&decoded, &answer, &decisions, kv);
        kv.put(&keys::numbered(keys::COMMANDS, index), Bytes::copy_from_slice(command));
        self.since_facts += 1;
        if self.since_facts > limits::COMMANDS_KEPT {
            self.write_facts(kv);
        }
        answer.encode()
    }

    fn view(&self) -> Self::View {
        self.state.clone()
    }
}

/// What was handed in with the submission whose first job this is, as long as it is kept.
pub fn order_of(kv: &dyn KvRead, first: u64) -> Option<String> {
    read_order(kv, first).map(|order| order.order)
}

fn read_order(kv: &dyn KvRead, first: u64) -> Option<Order> {
    let bytes = kv.get(&keys::numbered(keys::ORDERS, first))?;
    Some(serde_json::from_slice(&bytes).expect("written by this machine"))
}

/// The answer that a submission with this key had.
fn submitted_before(key: &str, kv: &dyn KvRead) -> Option<Answer> {
    let first = kv.get(&keys::named(keys::SUBMISSIONS, key))?;
    let first = u64::from_be_bytes(first[..].try_into().ok()?);
    let count = read_order(kv, first)?.count;
    Some(Answer::Accepted { first, count })
}

fn forget(first: u64, kv: &mut dyn Kv) {
    if let Some(order) = read_order(kv, first) {
        kv.delete(&keys::named(keys::SUBMISSIONS, &order.key));
    }
    kv.delete(&keys::numbered(keys::ORDERS, first));
}
