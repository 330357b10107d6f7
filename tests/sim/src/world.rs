//! Time, events and processes of a simulated cluster, and the run from start to verdict.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use ff2_proto::{RoutingVersion, pb};
use ff2_storage_core::target::Input;
use xxhash_rust::xxh3::Xxh3;

use crate::{
    chunk_client::{self, ChunkClient},
    faults::{Fault, Faults},
    message::{Message, RpcId},
    metad::{self, Metad},
    name_client::{self, NameClient},
    net::{Net, Place},
    rng::Rng,
    storaged::{self, Storaged},
    verdict::{self, Verdict},
};

pub(crate) const METADS: [Place; 3] = [1, 2, 3];
pub(crate) const STORAGEDS: [Place; 4] = [11, 12, 13, 14];
const CHUNK_CLIENTS: [Place; 3] = [20, 21, 22];
/// Above 25: see `name_client`'s use of its number in times.
const NAME_CLIENTS: [Place; 3] = [30, 31, 32];

/// When the faults begin and end.
const CHAOS: std::ops::Range<Duration> = Duration::from_secs(8)..Duration::from_secs(40);
/// The load goes on for a while in a healed cluster: longer than a lease, so that it finds chains that serve.
const LOAD_END: Duration = Duration::from_secs(48);
/// By then everything must have converged.
const END: Duration = Duration::from_secs(150);

/// What a process schedules for itself.
#[derive(Clone, Debug)]
pub(crate) enum Later {
    Metad(metad::Timer),
    Storaged(storaged::Timer),
    ChunkClient(chunk_client::Timer),
    NameClient(name_client::Timer),
}

#[expect(clippy::large_enum_variant, reason = "short-lived values of a simulation")]
#[derive(Clone, Debug)]
enum What {
    Deliver { from: Place, message: Message },
    Later(Later),
    Start,
    Fault,
}

#[derive(Debug)]
struct Event {
    place: Place,
    /// The life of the process that scheduled it; timers of earlier lives are void.
    life: Option<u64>,
    what: What,
}

/// What a process may use while it handles an event.
pub(crate) struct Context<'a> {
    pub(crate) now: Duration,
    pub(crate) place: Place,
    pub(crate) rng: &'a mut Rng,
    pub(crate) metads: &'a [Place],
    sends: Vec<(Place, Message)>,
    timers: Vec<(Duration, Later)>,
    rpcs: &'a mut RpcId,
}

impl Context<'_> {
    pub(crate) fn send(&mut self, to: Place, message: Message) {
        self.sends.push((to, message));
    }

    pub(crate) fn after(&mut self, delay: Duration, later: Later) {
        self.timers.push((delay, later));
    }

    pub(crate) fn next_rpc(&mut self) -> RpcId {
        *self.rpcs += 1;
        *self.rpcs
    }

    /// A write with its sync: mostly fast, at times very slow.
    pub(crate) fn disk_delay(&mut self) -> Duration {
        let slow = self.rng.chance(4);
        Duration::from_micros(self.rng.within(if slow { 10_000..120_000 } else { 200..3_000 }))
    }

    pub(crate) fn read_delay(&mut self) -> Duration {
        Duration::from_micros(self.rng.within(30..2_000))
    }
}

pub(crate) struct World {
    pub(crate) now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64)>>,
    bodies: BTreeMap<u64, Event>,
    next_event: u64,
    pub(crate) net: Net,
    rng: Rng,
    rpcs: RpcId,
    lives: BTreeMap<Place, u64>,
    paused: BTreeMap<Place, Duration>,
    faults: Faults,
    /// Up to here the log tells of chains.
    noted: RoutingVersion,
    pub(crate) metads: Vec<Metad>,
    pub(crate) storageds: Vec<Storaged>,
    pub(crate) chunk_clients: Vec<ChunkClient>,
    pub(crate) name_clients: Vec<NameClient>,
    hash: Xxh3,
    pub(crate) handled: u64,
    pub(crate) log: Vec<String>,
}

/// Runs one seed from start to verdict.
pub fn run(seed: u64) -> Verdict {
    let mut world = World::start(seed);
    world.schedule(CHAOS.start, 0, None, What::Fault);
    let mut converged = None;
    while world.now < END && world.turn() {
        if world.now > LOAD_END && world.handled.is_multiple_of(64) && verdict::converged(&world) {
            converged = Some(world.now);
            break;
        }
    }
    let hash = world.hash.digest();
    verdict::judge(seed, &world, converged, hash)
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            bodies: BTreeMap::new(),
            next_event: 0,
            net: Net::new(seed),
            rng: Rng::new(seed, "processes"),
            rpcs: 0,
            lives: BTreeMap::new(),
            paused: BTreeMap::new(),
            faults: Faults::new(seed),
            noted: RoutingVersion(0),
            metads: METADS.iter().map(|&place| Metad::new(place, seed, &METADS)).collect(),
            storageds: STORAGEDS.iter().map(|&place| Storaged::new(place)).collect(),
            chunk_clients: CHUNK_CLIENTS.iter().map(|&place| ChunkClient::new(place)).collect(),
            name_clients: NAME_CLIENTS.iter().map(|&place| NameClient::new(place)).collect(),
            hash: Xxh3::new(),
            handled: 0,
            log: Vec::new(),
        }
    }

    /// A cluster that begins to live, without faults.
    pub(crate) fn start(seed: u64) -> Self {
        let mut world = Self::new(seed);
        for place in METADS.into_iter().chain(STORAGEDS) {
            world.schedule(Duration::ZERO, place, None, What::Start);
        }
        for place in CHUNK_CLIENTS.into_iter().chain(NAME_CLIENTS) {
            world.schedule(Duration::from_secs(3), place, None, What::Start);
        }
        world
    }

    /// The next event; false if there is none.
    pub(crate) fn turn(&mut self) -> bool {
        let Some(Reverse((at, number))) = self.events.pop() else { return false };
        self.now = at;
        let event = self.bodies.remove(&number).expect("an event has a body");
        self.handle(event);
        true
    }

    fn schedule(&mut self, at: Duration, place: Place, life: Option<u64>, what: What) {
        self.next_event += 1;
        self.events.push(Reverse((at, self.next_event)));
        self.bodies.insert(self.next_event, Event { place, life, what });
    }

    fn life(&self, place: Place) -> u64 {
        self.lives.get(&place).copied().unwrap_or(0)
    }

    fn is_running(&self, place: Place) -> bool {
        let metad = self.metads.iter().find(|m| m.place == place).map(Metad::is_running);
        let storaged = self.storageds.iter().find(|s| s.place == place).map(Storaged::is_running);
        metad.or(storaged).unwrap_or(true)
    }

    fn handle(&mut self, event: Event) {
        let Event { place, life, what } = event;
        if life.is_some_and(|life| life != self.life(place)) {
            return;
        }
        if let Some(&until) = self.paused.get(&place)
            && until > self.now
        {
            // A stopped process finds everything waiting when it goes on.
            return self.schedule(until, place, life, what);
        }
        self.handled += 1;
        self.hash.update(&self.now.as_nanos().to_le_bytes());
        self.hash.update(&place.to_le_bytes());
        self.carry_out(place, what);
        if METADS.contains(&place) {
            self.note_chains();
        }
    }

    fn carry_out(&mut self, place: Place, what: What) {
        match what {
            What::Start if self.is_running(place) && !is_client(place) => {}
            What::Start => self.with(place, |process, cx| process.start(cx)),
            What::Later(later) => self.with(place, |process, cx| process.on_timer(cx, later)),
            What::Deliver { from, message } if self.is_running(place) => {
                self.with(place, |process, cx| process.on_message(cx, from, message));
            }
            What::Deliver { .. } => {}
            What::Fault => self.fault(),
        }
    }

    /// Runs a process's handler and carries out what it asked for.
    fn with(&mut self, place: Place, handle: impl FnOnce(&mut dyn Process, &mut Context<'_>)) {
        let mut cx = Context {
            now: self.now,
            place,
            rng: &mut self.rng,
            metads: &METADS,
            sends: Vec::new(),
            timers: Vec::new(),
            rpcs: &mut self.rpcs,
        };
        let metads = self.metads.iter_mut().map(|p| (p.place, p as &mut dyn Process));
        let storageds = self.storageds.iter_mut().map(|p| (p.place, p as &mut dyn Process));
        let chunks = self.chunk_clients.iter_mut().map(|p| (p.place, p as &mut dyn Process));
        let names = self.name_clients.iter_mut().map(|p| (p.place, p as &mut dyn Process));
        let mut all = metads.chain(storageds).chain(chunks).chain(names);
        let (_, process) = all.find(|(at, _)| *at == place).expect("events are for processes");
        handle(process, &mut cx);
        let (sends, timers) = (cx.sends, cx.timers);
        let life = self.life(place);
        for (delay, later) in timers {
            self.schedule(self.now + delay, place, Some(life), What::Later(later));
        }
        for (to, message) in sends {
            for delay in self.net.delays(place, to) {
                let what = What::Deliver { from: place, message: message.clone() };
                self.schedule(self.now + delay, to, None, what);
            }
        }
    }

    pub(crate) fn crash(&mut self, place: Place, back_after: Duration) {
        if !self.is_running(place) {
            return;
        }
        *self.lives.entry(place).or_default() += 1;
        self.paused.remove(&place);
        self.with(place, |process, cx| process.crash(cx));
        self.schedule(self.now + back_after, place, None, What::Start);
    }

    fn fault(&mut self) {
        if self.now >= LOAD_END {
            self.note("the load ends");
            self.chunk_clients.iter_mut().for_each(|client| client.stopping = true);
            self.name_clients.iter_mut().for_each(|client| client.stopping = true);
            return;
        }
        if self.now >= CHAOS.end {
            self.net.calm();
            self.note("healed");
            // What is down or paused comes back by itself.
            return self.schedule(LOAD_END, 0, None, What::Fault);
        }
        let pause = self.faults.pause();
        let fault = self.faults.next();
        self.note(&format!("{fault:?}"));
        match fault {
            Fault::Crash { places, back_after } => {
                for place in places {
                    self.crash(place, back_after);
                }
            }
            Fault::Wipe { place, back_after } => {
                let is_metad = METADS.contains(&place);
                let may_lose = if is_metad { self.all_vote() } else { self.others_serve(place) };
                self.crash(place, back_after);
                if may_lose {
                    self.with(place, |process, cx| process.wipe(cx));
                    self.note("its disks are lost");
                }
            }
            Fault::Isolate { place, from_metads: true } => self.net.isolate(place, &METADS),
            Fault::Isolate { place, from_metads: false } => {
                let all: Vec<Place> = METADS
                    .into_iter()
                    .chain(STORAGEDS)
                    .chain(CHUNK_CLIENTS)
                    .chain(NAME_CLIENTS)
                    .collect();
                self.net.isolate(place, &all);
            }
            Fault::Pause { place, until_after } => {
                self.paused.insert(place, self.now + until_after);
            }
            Fault::Heal => self.net.heal(),
        }
        self.schedule((self.now + pause).min(CHAOS.end), 0, None, What::Fault);
    }

    /// Each version of a chain, when the first metad has it.
    fn note_chains(&mut self) {
        let Some(routing) = self.routing() else { return };
        if routing.version <= self.noted {
            return;
        }
        let news = routing.chains.values().filter(|chain| chain.changed_at > self.noted.0);
        let lines: Vec<String> = news.map(describe).collect();
        self.noted = routing.version;
        lines.iter().for_each(|line| self.note(line));
    }

    fn note(&mut self, what: &str) {
        self.log.push(format!("{:9.3} s  {what}", self.now.as_secs_f64()));
    }

    /// The routing of the metad that knows most.
    pub(crate) fn routing(&self) -> Option<std::sync::Arc<ff2_proto::Routing>> {
        self.metads.iter().filter_map(Metad::routing).max_by_key(|routing| routing.version)
    }

    /// Whether all metads are in both groups, none is on its way out or in: then the others hold all
    /// that was acknowledged, and one of them may lose its disk.
    pub(crate) fn all_vote(&self) -> bool {
        let ids: Vec<[u64; 2]> = self.metads.iter().filter_map(Metad::raft_ids).collect();
        let of = |group: usize| {
            let mut ids: Vec<u64> = ids.iter().map(|ids| ids[group]).collect();
            ids.sort_unstable();
            ids
        };
        let (zero, one) = (of(0), of(1));
        ids.len() == METADS.len() && self.metads.iter().all(|m| m.sees_voters([&zero, &one]))
    }

    /// Whether each chain of this storage node has another member that serves at this moment. That is
    /// what a chain needs to bear the loss of a store: see docs/design/0003.
    fn others_serve(&self, place: Place) -> bool {
        let Some(routing) = self.routing() else { return false };
        let here = |member: &pb::ChainMember| {
            let storaged = self.storageds.iter().find(|s| s.node == member.node);
            storaged.is_some_and(|storaged| storaged.place == place)
        };
        let serves = |member: &pb::ChainMember| {
            let mut others = self.storageds.iter().filter(|s| s.node == member.node);
            member.state() == pb::PublicState::Serving
                && others.any(|s| s.place != place && s.has_lease(self.now))
        };
        let mut chains = routing.chains.values().filter(|chain| chain.members.iter().any(here));
        !routing.chains.is_empty() && chains.all(|chain| chain.members.iter().any(serves))
    }

    pub(crate) fn everything_serves(&self) -> bool {
        let Some(routing) = self.routing() else { return false };
        // A leader that is down may have published more than those that run know.
        let known = self.storageds.iter().filter_map(Storaged::routing).map(|known| known.version);
        if known.max().is_some_and(|newest| newest > routing.version) {
            return false;
        }
        let serving =
            |chain: &pb::Chain| chain.members.iter().all(|m| m.state() == pb::PublicState::Serving);
        !routing.chains.is_empty() && routing.chains.values().all(serving)
    }
}

fn describe(chain: &pb::Chain) -> String {
    let members: Vec<String> =
        chain.members.iter().map(|m| format!("{} {}", m.node, m.state().as_str_name())).collect();
    format!("chain {} version {}: {}", chain.id, chain.version, members.join(", "))
}

fn is_client(place: Place) -> bool {
    CHUNK_CLIENTS.contains(&place) || NAME_CLIENTS.contains(&place)
}

/// What every simulated process does.
trait Process {
    fn start(&mut self, cx: &mut Context<'_>);
    fn on_timer(&mut self, cx: &mut Context<'_>, later: Later);
    fn on_message(&mut self, cx: &mut Context<'_>, from: Place, message: Message);
    fn crash(&mut self, cx: &mut Context<'_>);
    /// The disks of the process, which is down, are replaced by empty ones.
    fn wipe(&mut self, cx: &mut Context<'_>);
}

impl Process for Metad {
    fn start(&mut self, cx: &mut Context<'_>) {
        Metad::start(self, cx);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, later: Later) {
        match later {
            Later::Metad(timer) => Metad::on_timer(self, cx, timer),
            other => panic!("{other:?} is not for a metad"),
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, from: Place, message: Message) {
        Metad::on_message(self, cx, from, message);
    }

    fn crash(&mut self, cx: &mut Context<'_>) {
        Metad::crash(self, cx);
    }

    fn wipe(&mut self, cx: &mut Context<'_>) {
        Metad::wipe(self, cx);
    }
}

impl Process for Storaged {
    fn start(&mut self, cx: &mut Context<'_>) {
        Storaged::start(self, cx);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, later: Later) {
        match later {
            Later::Storaged(timer) => Storaged::on_timer(self, cx, timer),
            other => panic!("{other:?} is not for a storaged"),
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, _from: Place, message: Message) {
        match message {
            Message::Call { rpc, from, call } => self.on_call(cx, from, rpc, call),
            Message::Answer { rpc, answer } => self.on_answer(cx, rpc, answer),
            Message::Settle { target, chain_version, from, outcome } => {
                let outcomes = vec![outcome];
                self.on_settle(cx, target, Input::Settle { chain_version, from, outcomes });
            }
            other => panic!("{other:?} is not for a storaged"),
        }
    }

    fn crash(&mut self, cx: &mut Context<'_>) {
        Storaged::crash(self, cx);
    }

    fn wipe(&mut self, _cx: &mut Context<'_>) {
        Storaged::wipe(self);
    }
}

macro_rules! client {
    ($client:ident) => {
        impl Process for $client {
            fn start(&mut self, cx: &mut Context<'_>) {
                $client::start(self, cx);
            }

            fn on_timer(&mut self, cx: &mut Context<'_>, later: Later) {
                match later {
                    Later::$client(timer) => $client::on_timer(self, cx, timer),
                    other => panic!("{other:?} is not for a client"),
                }
            }

            fn on_message(&mut self, cx: &mut Context<'_>, _from: Place, message: Message) {
                match message {
                    Message::Answer { rpc, answer } => self.on_answer(cx, rpc, answer),
                    other => panic!("{other:?} is not for a client"),
                }
            }

            fn crash(&mut self, _cx: &mut Context<'_>) {
                panic!("clients do not crash here");
            }

            fn wipe(&mut self, _cx: &mut Context<'_>) {
                panic!("clients have no disks");
            }
        }
    };
}

client!(ChunkClient);
client!(NameClient);
