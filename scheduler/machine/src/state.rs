//! The network and the core over it. It grows with the nodes that join.

use std::collections::BTreeMap;

use ff2_sched_core::{
    Config, Decision, Event, Facts, Foreign, NodeState, Resources, Scheduler, Scope,
};
use ff2_topology::{Description, LeafSwitch, NodeId, Port, Role, Server, Topology};
use serde::{Deserialize, Serialize};

use crate::{
    command::{Answer, Command, Fact, Joined, Submission},
    history::History,
    limits,
};

/// Ports are not told apart here.
const GBIT_PER_S: u32 = 200;

#[derive(Clone, Debug)]
pub struct State {
    around: Around,
    topology: Topology,
    nodes: BTreeMap<String, NodeId>,
    pub(crate) scheduler: Scheduler,
}

/// What a snapshot has beside the core's facts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Around {
    network: Description,
    /// Of nodes, in their order.
    hosts: Vec<String>,
    history: History,
    /// Why nodes are in the state that they are in.
    node_notes: BTreeMap<NodeId, String>,
    version: u64,
}

impl State {
    pub fn new(config: Config) -> Self {
        let topology = Topology::new(&Description::default());
        let topology = topology.expect("nothing contradicts nothing");
        let scheduler = Scheduler::new(&topology, config);
        Self { around: Around::default(), topology, nodes: BTreeMap::new(), scheduler }
    }

    /// # Errors
    /// If the facts are of another network.
    pub(crate) fn restore(around: Around, facts: Facts) -> Result<Self, Foreign> {
        let network = &around.network;
        let topology = Topology::new(network).expect("checked when its nodes joined");
        let scheduler = Scheduler::restore(&topology, facts)?;
        let named = |(at, node): (usize, &Server)| (node.name.clone(), NodeId(at as u32));
        let nodes = network.nodes.iter().enumerate().map(named).collect();
        Ok(Self { around, topology, nodes, scheduler })
    }

    pub(crate) fn around(&self) -> &Around {
        &self.around
    }

    pub fn history(&self) -> &History {
        &self.around.history
    }

    /// The place in the log of the last command that is in here: it only grows, on whichever replica one looks.
    pub fn version(&self) -> u64 {
        self.around.version
    }

    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The number of a node, by its name.
    pub fn node(&self, name: &str) -> Option<NodeId> {
        self.nodes.get(name).copied()
    }

    pub fn name(&self, node: NodeId) -> &str {
        self.around.network.nodes.get(node.0 as usize).map_or("", |node| &node.name)
    }

    pub fn is_at(&self, node: NodeId, leaf: &str, gpus: u32) -> bool {
        let of = self.around.network.nodes.get(node.0 as usize);
        of.is_some_and(|of| of.role == Role::Compute { gpus } && of.ports[0].leaf == leaf)
    }

    /// Why it is in the state that it is in, if anybody said so.
    pub fn why_node(&self, node: NodeId) -> &str {
        self.around.node_notes.get(&node).map_or("", String::as_str)
    }

    /// The names of a node's zone and leaf switch.
    pub fn place(&self, node: NodeId) -> (&str, &str) {
        let network = &self.around.network;
        let Some(of) = network.nodes.get(node.0 as usize) else { return ("", "") };
        let leaf = &of.ports[0].leaf;
        let zone = network.leaves.iter().find(|known| known.name == *leaf);
        (zone.map_or("", |known| &known.zone), leaf)
    }

    /// Where others reach the ranks of a node.
    pub fn host(&self, node: NodeId) -> &str {
        self.around.hosts.get(node.0 as usize).map_or("", String::as_str)
    }

    /// Takes in a command. What the core decided comes out, for who keeps books of it.
    pub(crate) fn apply(
        &mut self,
        index: u64,
        command: &Command,
        out: &mut Vec<Decision>,
    ) -> Answer {
        self.around.version = index;
        match &command.fact {
            Fact::Joined(joined) => self.join(joined),
            Fact::Submitted(submission) => self.submit(command.at_ms, submission, out),
            Fact::Event(Event::Submit(_)) => Answer::refused("a job is submitted with its order"),
            Fact::Event(event) => {
                let from = out.len();
                self.step(command.at_ms, event.clone(), &command.note, out);
                let refused = out[from..].iter().find_map(|decision| match decision {
                    Decision::Refused(refusal) => Some(Answer::refused(refusal)),
                    _ => None,
                });
                refused.unwrap_or(Answer::Done)
            }
        }
    }

    fn step(&mut self, at_ms: u64, event: Event, note: &str, out: &mut Vec<Decision>) {
        let from = out.len();
        let told = match &event {
            // What is long of it is of no concern to the history.
            Event::Submit(_) => Event::Tick,
            other => other.clone(),
        };
        if let Event::Node { scope, state } = &event {
            self.note_nodes(*scope, *state, note);
        }
        self.scheduler.step(at_ms, event, out);
        let scheduler = &self.scheduler;
        self.around.history.take(scheduler.now_ms(), &told, note, &out[from..], |job| {
            let job = scheduler.job(job)?;
            let spec = &job.spec;
            Some((spec.name.clone(), spec.user.clone(), job.gpus()))
        });
    }

    fn submit(&mut self, at_ms: u64, what: &Submission, out: &mut Vec<Decision>) -> Answer {
        if what.order.len() > limits::ORDER_BYTES_MAX {
            let most = limits::ORDER_BYTES_MAX;
            return Answer::refused(format!("a job of {} bytes: at most {most}", what.order.len()));
        }
        if what.key.is_empty() || what.key.len() > limits::KEY_BYTES_MAX {
            let most = limits::KEY_BYTES_MAX;
            return Answer::refused(format!("the key of a submission has from 1 to {most} bytes"));
        }
        let from = out.len();
        self.step(at_ms, Event::Submit(Box::new(what.spec.clone())), "", out);
        let answer = out[from..].iter().find_map(|decision| match decision {
            Decision::Accepted { first, count } => {
                Some(Answer::Accepted { first: first.0, count: *count })
            }
            Decision::Refused(refusal) => Some(Answer::refused(refusal)),
            _ => None,
        });
        answer.expect("the core answers each submission")
    }

    fn note_nodes(&mut self, scope: Scope, state: NodeState, note: &str) {
        let nodes: Vec<NodeId> = match scope {
            Scope::Node(node) => vec![node],
            Scope::Leaf(leaf) if leaf.index() < self.topology.leaves().len() => {
                self.topology.at_leaf(leaf).collect()
            }
            Scope::Leaf(_) => Vec::new(),
        };
        for node in nodes.into_iter().filter(|node| (node.0 as usize) < self.around.hosts.len()) {
            match state {
                NodeState::Up => drop(self.around.node_notes.remove(&node)),
                _ => drop(self.around.node_notes.insert(node, note.into())),
            }
        }
    }

    fn join(&mut self, joined: &Joined) -> Answer {
        if let Some(known) = self.node(&joined.name) {
            let answer = self.is_as_before(known, joined);
            if answer == Answer::Done {
                self.around.hosts[known.0 as usize].clone_from(&joined.host);
            }
            return answer;
        }
        if self.around.network.nodes.len() >= limits::NODES_MAX {
            return Answer::refused(format!("{} nodes have joined already", limits::NODES_MAX));
        }
        let mut around = self.around.clone();
        let network = &mut around.network;
        let leaf = LeafSwitch {
            name: joined.leaf.clone(),
            zone: joined.zone.clone(),
            pod: joined.pod.clone(),
        };
        match network.leaves.iter().find(|known| known.name == leaf.name) {
            Some(known) if *known == leaf => {}
            Some(known) => {
                let (zone, pod) = (&known.zone, &known.pod);
                return Answer::refused(format!(
                    "leaf {:?} is in zone {zone:?} and pod {pod:?}, as others of it said",
                    leaf.name
                ));
            }
            None => network.leaves.push(leaf),
        }
        // At the end: those before keep their numbers.
        network.nodes.push(Server {
            name: joined.name.clone(),
            role: Role::Compute { gpus: joined.gpus },
            ports: vec![Port { leaf: joined.leaf.clone(), gbit_per_s: GBIT_PER_S }],
        });
        if let Err(problem) = Topology::new(network) {
            return Answer::refused(problem);
        }
        around.hosts.push(joined.host.clone());
        let mut facts = self.scheduler.facts();
        if joined.cpus > 0 && joined.memory > 0 {
            let node = NodeId(around.hosts.len() as u32 - 1);
            facts
                .sizes
                .push((node, Resources { gpus: 0, cpus: joined.cpus, memory: joined.memory }));
        }
        *self = Self::restore(around, facts).expect("it has grown");
        Answer::Done
    }

    fn is_as_before(&self, known: NodeId, joined: &Joined) -> Answer {
        let node = &self.around.network.nodes[known.0 as usize];
        let leaf = &node.ports[0].leaf;
        let is_same = node.role == Role::Compute { gpus: joined.gpus } && *leaf == joined.leaf;
        match is_same {
            true => Answer::Done,
            false => Answer::refused(format!(
                "node {:?} was at leaf {leaf:?}, {:?}: one that is something else needs another name",
                joined.name, node.role
            )),
        }
    }
}
