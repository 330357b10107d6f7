//! Which nodes have in their caches what jobs read, as the leader asks them.
//!
//! Nodes are asked about paths that were just submitted, and about those that waiting jobs name. What they say is told
//! to the core when all have answered, or when they had time to.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::pb;
use ff2_sched_core::Event;
use ff2_topology::NodeId;

use crate::{limits, state::State};

/// See the module. Times are of the leader's monotonic clock, ms.
#[derive(Clone, Debug, Default)]
pub struct Warmth {
    /// Of the newest question: a time, so that a later leader's is larger.
    number: u64,
    asked_ms: u64,
    paths: BTreeMap<String, Path>,
    answered: BTreeSet<NodeId>,
    is_told: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Debug, Default)]
struct Path {
    asker: Asker,
    /// A thousandth of it each, by node.
    held: BTreeMap<NodeId, u32>,
}

impl Warmth {
    /// Asks about these as well. Some may be too many: then no more is known of them.
    pub fn ask(
        &mut self,
        now_ms: u64,
        number: u64,
        paths: impl IntoIterator<Item = (String, Asker)>,
    ) {
        for (path, asker) in paths {
            let is_new = !self.paths.contains_key(&path);
            if path.len() <= limits::INPUT_BYTES_MAX
                && (!is_new || self.paths.len() < limits::INPUTS_ASKED)
            {
                self.paths.entry(path).or_default().asker = asker;
            }
        }
        self.number = number.max(self.number + 1);
        self.asked_ms = now_ms;
        self.answered.clear();
        self.is_told = false;
    }

    /// Asks no more about paths that nobody wants to know of.
    pub fn keep(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.paths.retain(|path, _| is_wanted(path));
    }

    pub fn knows(&self, path: &str) -> bool {
        self.paths.contains_key(path)
    }

    /// Nothing is asked while there is no path.
    pub fn question(&self) -> (u64, Vec<pb::DataAsk>) {
        let ask = |(path, of): (&String, &Path)| pb::DataAsk {
            path: path.clone(),
            uid: of.asker.uid,
            gid: of.asker.gid,
        };
        let number = if self.paths.is_empty() { 0 } else { self.number };
        (number, self.paths.iter().map(ask).collect())
    }

    pub fn hear(&mut self, node: NodeId, request: &pb::AgentSyncRequest) {
        if request.data_asked != self.number || !self.answered.insert(node) {
            return;
        }
        for pb::DataHeld { path, permille } in &request.data {
            if let Some(path) = self.paths.get_mut(path) {
                path.held.insert(node, *permille);
            }
        }
    }

    /// Whether the answers are all that will come: those of all these nodes, or time is over.
    pub fn is_settled(&self, now_ms: u64, nodes: impl IntoIterator<Item = NodeId>) -> bool {
        let late = now_ms.saturating_sub(self.asked_ms) >= limits::INPUTS_WAIT_MS;
        late || nodes.into_iter().all(|node| self.answered.contains(&node))
    }

    /// Whether it is time to ask again.
    pub fn is_due(&self, now_ms: u64, every_ms: u64) -> bool {
        now_ms.saturating_sub(self.asked_ms) >= every_ms
    }

    /// What the core does not know yet. Call it when the answers are settled.
    pub fn facts(&mut self, state: &State) -> Vec<Event> {
        if std::mem::replace(&mut self.is_told, true) {
            return Vec::new();
        }
        let scheduler = state.scheduler();
        let forgotten = scheduler.inputs_cached().filter(|input| !self.paths.contains_key(*input));
        let forgotten = forgotten.map(|input| (input.clone(), Vec::new()));
        let known = self.paths.iter().map(|(input, path)| {
            let held = path.held.iter().filter(|(_, held)| **held >= limits::HELD_PERMILLE);
            (input.clone(), held.map(|(node, _)| *node).collect())
        });
        let changed = forgotten.chain(known).filter(|(input, nodes): &(String, Vec<NodeId>)| {
            let before = scheduler.cached(input).into_iter().flatten();
            !before.eq(nodes)
        });
        changed.map(|(input, nodes)| Event::Cached { input, nodes }).collect()
    }
}

#[cfg(test)]
mod tests {
    use ff2_sched_core::Config;

    use super::*;
    use crate::{Command, Fact, Joined};

    fn state(nodes: u32) -> State {
        let mut state = State::new(Config::default());
        for node in 0..nodes {
            let joined = Joined {
                name: format!("n{node}"),
                zone: "z".into(),
                pod: String::new(),
                leaf: "l".into(),
                gpus: 8,
                cpus: 0,
                memory: 0,
                host: String::new(),
            };
            apply(&mut state, Fact::Joined(joined));
        }
        state
    }

    fn apply(state: &mut State, fact: Fact) {
        let command = Command { at_ms: 1, fact, note: String::new() };
        state.apply(1, &command, &mut Vec::new());
    }

    fn says(number: u64, held: &[(&str, u32)]) -> pb::AgentSyncRequest {
        let held = held
            .iter()
            .map(|(path, permille)| pb::DataHeld { path: (*path).into(), permille: *permille });
        pb::AgentSyncRequest { data_asked: number, data: held.collect(), ..Default::default() }
    }

    #[test]
    fn what_most_of_is_cached_is_told_once_and_forgotten_when_nobody_asks() {
        let mut state = state(3);
        let mut warmth = Warmth::default();
        assert_eq!(warmth.question(), (0, Vec::new()), "nothing is asked");
        warmth.ask(100, 7, [("/d".to_owned(), Asker { uid: 5, gid: 6 })]);
        let (number, asked) = warmth.question();
        assert_eq!((number, asked[0].path.as_str(), asked[0].uid), (7, "/d", 5));
        let nodes = [NodeId(0), NodeId(1), NodeId(2)];
        warmth.hear(nodes[0], &says(7, &[("/d", 900), ("/other", 1_000)]));
        warmth.hear(nodes[1], &says(7, &[("/d", 100)]));
        warmth.hear(nodes[2], &says(3, &[("/d", 1_000)]));
        assert!(!warmth.is_settled(200, nodes), "an answer to an older question is none");
        assert!(warmth.is_settled(100 + limits::INPUTS_WAIT_MS, nodes));
        let told = warmth.facts(&state);
        assert_eq!(told, [Event::Cached { input: "/d".into(), nodes: vec![nodes[0]] }]);
        assert_eq!(warmth.facts(&state), [], "once");
        told.into_iter().for_each(|event| apply(&mut state, Fact::Event(event)));
        warmth.ask(300, 7, []);
        assert_eq!(warmth.question().0, 8, "numbers grow though the clock does not");
        assert_eq!(warmth.facts(&state), [], "nothing changed");
        warmth.keep(|_| false);
        warmth.ask(400, 9, []);
        let forgotten = warmth.facts(&state);
        assert_eq!(forgotten, [Event::Cached { input: "/d".into(), nodes: Vec::new() }]);
    }

    #[test]
    fn no_more_is_asked_than_there_may_be() {
        let mut warmth = Warmth::default();
        let many = (0..2 * limits::INPUTS_ASKED).map(|n| (format!("/{n}"), Asker::default()));
        warmth.ask(0, 1, many);
        warmth.ask(0, 1, [("/x".repeat(limits::INPUT_BYTES_MAX), Asker::default())]);
        assert_eq!(warmth.question().1.len(), limits::INPUTS_ASKED);
    }
}
