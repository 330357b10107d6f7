//! Time, events and processes of a simulated cluster, and the run from start to verdict.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use ff2_proto::{RoutingVersion, marks, pb};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    chunk_client::{self, ChunkClient},
    clock::Clocks,
    duties::Duties,
    events::Events,
    faults::Faults,
    lock_client::{self, LockClient},
    message::{Message, RpcId},
    metad::{self, Metad},
    name_client::{self, NameClient},
    net::{Net, Place},
    operator::{self, Change, Operator},
    pace::Pace,
    panics,
    process::Process,
    rng::Rng,
    seen::Seen,
    setting::Setting,
    snapshots,
    storaged::{self, Storaged},
    verdict::{self, Verdict},
    wishes::Wishes,
};

mod strike;

pub(crate) const METADS: [Place; 4] = [1, 2, 3, 4];
/// The metads of the beginning; the other one may be added.
pub(crate) const FOUNDERS: [Place; 3] = [1, 2, 3];
pub(crate) const STORAGEDS: [Place; 4] = [11, 12, 13, 14];
const CHUNK_CLIENTS: [Place; 3] = [20, 21, 22];
const NAME_CLIENTS: [Place; 3] = [30, 31, 32];
/// In their stead, in some seeds.
const LOCK_CLIENTS: [Place; 3] = [33, 34, 35];
const OPERATOR: Place = 40;
/// Above all places.
const PLACES: usize = 41;

const CLIENTS_START: Duration = Duration::from_secs(3);
/// When the faults begin and end.
const CHAOS: std::ops::Range<Duration> = Duration::from_secs(8)..Duration::from_secs(248);
/// The load goes on for a while in a healed cluster: longer than a lease, so that it finds chains that serve.
pub(crate) const LOAD_END: Duration = Duration::from_secs(256);
/// By then everything must have converged.
const END: Duration = Duration::from_secs(380);

/// Shorter than most crashes last, with the time until they are noticed.
const SPARES_AFTER_MS: u64 = 2_500;

/// What a process schedules for itself.
#[derive(Clone, Debug)]
pub(crate) enum Later {
    Metad(metad::Timer),
    Storaged(storaged::Timer),
    ChunkClient(chunk_client::Timer),
    NameClient(name_client::Timer),
    LockClient(lock_client::Timer),
    Operator(operator::Timer),
}

#[derive(Debug)]
enum What {
    Deliver {
        from: Place,
        message: Box<Message>,
    },
    Later(Later),
    Start,
    /// Of the world itself.
    Fault,
    Wish,
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
    /// On the clock of this process.
    pub(crate) now: Duration,
    /// On no process's clock: for what is judged later, and as the wall clock where that counts.
    pub(crate) world_now: Duration,
    pub(crate) seen: &'a mut BTreeSet<Seen>,
    pub(crate) place: Place,
    pub(crate) rng: &'a mut Rng,
    pub(crate) metads: &'a [Place],
    sends: Vec<(Place, Box<Message>)>,
    timers: Vec<(Duration, Later)>,
    rpcs: &'a mut RpcId,
    changed: Option<Change>,
}

impl Context<'_> {
    pub(crate) fn send(&mut self, to: Place, message: Message) {
        self.sends.push((to, Box::new(message)));
    }

    /// After so much time on this process's clock.
    pub(crate) fn after(&mut self, delay: Duration, later: Later) {
        self.timers.push((delay, later));
    }

    pub(crate) fn next_rpc(&mut self) -> RpcId {
        *self.rpcs += 1;
        *self.rpcs
    }

    /// The operator was told that a metad is in, or out.
    pub(crate) fn change_done(&mut self, change: Change) {
        self.changed = Some(change);
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
    /// True time, which only clients' clocks show.
    pub(crate) now: Duration,
    events: Events<Event>,
    pub(crate) net: Net,
    pub(crate) clocks: Clocks,
    rng: Rng,
    rpcs: RpcId,
    lives: [u64; PLACES],
    /// Until when a process stands still.
    paused: [Duration; PLACES],
    faults: Faults,
    /// What a person asks of the storage, and what that is drawn from.
    wishes: Wishes,
    moods: Rng,
    /// Up to here the log tells of chains.
    noted: RoutingVersion,
    pub(crate) metads: Vec<Metad>,
    pub(crate) storageds: Vec<Storaged>,
    pub(crate) chunk_clients: Vec<ChunkClient>,
    pub(crate) name_clients: Vec<NameClient>,
    pub(crate) lock_clients: Vec<LockClient>,
    pace: Pace,
    pub(crate) operator: Operator,
    pub(crate) duties: Duties,
    /// The storage node that went for good.
    pub(crate) lost: Option<Place>,
    pub(crate) seen: BTreeSet<Seen>,
    hash: Xxh3,
    pub(crate) handled: u64,
    pub(crate) log: Vec<String>,
}

/// Runs one seed from start to verdict.
pub fn run(seed: u64) -> Verdict {
    run_as(seed, Setting::default())
}

/// As [`run`], in another setting.
pub fn run_as(seed: u64, setting: Setting) -> Verdict {
    panics::watch();
    marks::take();
    let mut world = World::start(seed, Clocks::new(seed), setting);
    world.schedule(CHAOS.start, 0, None, What::Fault);
    world.metads.iter_mut().for_each(|m| m.snapshots.are_made = snapshots::are_made(seed));
    world.undertake(Duties::of(seed));
    if Wishes::are_made(seed) {
        world.schedule(CHAOS.start, 0, None, What::Wish);
    }
    // A panic is a finding like any other: a machine was in a state that it must never be in.
    let converged = catch_unwind(AssertUnwindSafe(|| world.live())).unwrap_or_default();
    let hash = world.hash.digest();
    verdict::judge(seed, &world, converged, hash, panics::seen())
}

impl World {
    fn new(seed: u64, clocks: Clocks, setting: Setting) -> Self {
        let pace = Pace::new(seed);
        Self {
            now: Duration::ZERO,
            events: Events::default(),
            net: Net::new(seed),
            clocks,
            rng: Rng::new(seed, "processes"),
            rpcs: 0,
            lives: [0; PLACES],
            paused: [Duration::ZERO; PLACES],
            faults: Faults::new(seed),
            wishes: Wishes::default(),
            moods: Rng::new(seed, "wishes"),
            noted: RoutingVersion(0),
            metads: METADS.map(|place| Metad::new(place, seed, setting)).into(),
            storageds: STORAGEDS.map(|place| Storaged::new(place, setting.mutation)).into(),
            chunk_clients: CHUNK_CLIENTS
                .map(|place| ChunkClient::new(place, pace, place == CHUNK_CLIENTS[0]))
                .into(),
            name_clients: NAME_CLIENTS.map(|place| NameClient::new(place, pace)).into(),
            lock_clients: Vec::new(),
            pace,
            operator: Operator::new(OPERATOR),
            duties: Duties::default(),
            lost: None,
            seen: BTreeSet::new(),
            hash: Xxh3::new(),
            handled: 0,
            log: Vec::new(),
        }
    }

    fn undertake(&mut self, duties: Duties) {
        self.duties = duties;
        if duties.scrubs {
            self.storageds.iter_mut().for_each(|storaged| storaged.scrubs = true);
            // Nobody else looks for damage.
            self.chunk_clients.iter_mut().for_each(ChunkClient::looks_at_nothing);
        }
        if duties.keeps {
            self.metads.iter_mut().for_each(|metad| metad.keeps = true);
            self.name_clients.iter_mut().for_each(|client| client.keeps = true);
        }
        if duties.locks {
            self.metads.iter_mut().for_each(|metad| metad.ends_sessions = true);
            self.name_clients.clear();
            let client = |place| LockClient::new(place, self.pace);
            self.lock_clients = LOCK_CLIENTS.map(client).into();
            for place in LOCK_CLIENTS {
                self.schedule(CLIENTS_START, place, None, What::Start);
            }
        }
        if duties.spares {
            self.metads.iter_mut().for_each(|metad| metad.spares_after_ms = SPARES_AFTER_MS);
        }
    }

    /// A cluster that begins to live, without faults.
    pub(crate) fn start(seed: u64, clocks: Clocks, setting: Setting) -> Self {
        let mut world = Self::new(seed, clocks, setting);
        for place in FOUNDERS.into_iter().chain(STORAGEDS) {
            world.schedule(Duration::ZERO, place, None, What::Start);
        }
        for place in CHUNK_CLIENTS.into_iter().chain(NAME_CLIENTS) {
            world.schedule(CLIENTS_START, place, None, What::Start);
        }
        world
    }

    /// Goes on until all has converged, and tells when that was.
    fn live(&mut self) -> Option<Duration> {
        while self.now < END && self.turn() {
            let looks = self.now > LOAD_END && self.handled.is_multiple_of(64);
            if looks && verdict::converged(self) {
                return Some(self.now);
            }
        }
        None
    }

    /// The next event; false if there is none.
    pub(crate) fn turn(&mut self) -> bool {
        let Some((at, event)) = self.events.pop() else { return false };
        self.now = at;
        self.handle(event);
        true
    }

    fn schedule(&mut self, at: Duration, place: Place, life: Option<u64>, what: What) {
        self.events.push(at, Event { place, life, what });
    }

    fn life(&self, place: Place) -> u64 {
        self.lives[place as usize]
    }

    fn is_running(&self, place: Place) -> bool {
        if let Some(metad) = index_of(&METADS, place) {
            return self.metads[metad].is_running();
        }
        index_of(&STORAGEDS, place).is_none_or(|node| self.storageds[node].is_running())
    }

    fn handle(&mut self, event: Event) {
        let Event { place, life, what } = event;
        if life.is_some_and(|life| life != self.life(place)) {
            return;
        }
        let until = self.paused[place as usize];
        if until > self.now {
            // A stopped process finds everything waiting when it goes on.
            return self.schedule(until, place, life, what);
        }
        self.handled += 1;
        self.hash.update(&self.now.as_nanos().to_le_bytes());
        self.hash.update(&place.to_le_bytes());
        self.carry_out(place, what);
        if let Some(metad) = index_of(&METADS, place) {
            self.note_chains(metad);
            self.strike_between(metad);
        }
    }

    fn carry_out(&mut self, place: Place, what: What) {
        match what {
            What::Start if !self.may_start(place) => {}
            What::Start => self.with(place, |process, cx| process.start(cx)),
            What::Later(later) => self.with(place, |process, cx| process.on_timer(cx, later)),
            What::Deliver { from, message } if self.is_running(place) => {
                self.with(place, |process, cx| process.on_message(cx, from, *message));
            }
            What::Deliver { .. } => {}
            What::Fault => self.fault(),
            What::Wish => self.wish(),
        }
    }

    fn may_start(&self, place: Place) -> bool {
        let is_out = |metad: usize| self.metads[metad].is_out();
        if NAME_CLIENTS.contains(&place) {
            return !self.duties.locks;
        }
        is_client(place)
            || (!self.is_running(place) && !index_of(&METADS, place).is_some_and(is_out))
    }

    /// Runs a process's handler and carries out what it asked for.
    fn with(&mut self, place: Place, handle: impl FnOnce(&mut dyn Process, &mut Context<'_>)) {
        let clock = self.clocks.of(place);
        let mut cx = Context {
            now: clock.shows(self.now),
            world_now: self.now,
            seen: &mut self.seen,
            place,
            rng: &mut self.rng,
            metads: &METADS,
            sends: Vec::new(),
            timers: Vec::new(),
            rpcs: &mut self.rpcs,
            changed: None,
        };
        let process: &mut dyn Process = if let Some(metad) = index_of(&METADS, place) {
            &mut self.metads[metad]
        } else if let Some(node) = index_of(&STORAGEDS, place) {
            &mut self.storageds[node]
        } else if let Some(client) = index_of(&CHUNK_CLIENTS, place) {
            &mut self.chunk_clients[client]
        } else if let Some(client) = index_of(&NAME_CLIENTS, place) {
            &mut self.name_clients[client]
        } else if let Some(client) = index_of(&LOCK_CLIENTS, place) {
            &mut self.lock_clients[client]
        } else {
            &mut self.operator
        };
        handle(process, &mut cx);
        let (sends, timers, changed) = (cx.sends, cx.timers, cx.changed);
        let life = self.life(place);
        for (delay, later) in timers {
            let at = self.now + clock.lasts(delay);
            self.schedule(at, place, Some(life), What::Later(later));
        }
        for (to, message) in sends {
            self.post(place, to, message);
        }
        if let Some(change) = changed {
            self.change_done(change);
        }
    }

    fn post(&mut self, from: Place, to: Place, message: Box<Message>) {
        let mut delays = self.net.delays(from, to);
        let Some(last) = delays.pop() else { return };
        for delay in delays {
            let message = message.clone();
            self.schedule(self.now + delay, to, None, What::Deliver { from, message });
        }
        self.schedule(self.now + last, to, None, What::Deliver { from, message });
    }

    pub(crate) fn crash(&mut self, place: Place, back_after: Duration) {
        if !self.is_running(place) {
            return;
        }
        self.lives[place as usize] += 1;
        self.paused[place as usize] = Duration::ZERO;
        self.with(place, |process, cx| process.crash(cx));
        self.schedule(self.now + back_after, place, None, What::Start);
    }

    /// Each version of a chain, when the first metad has it.
    fn note_chains(&mut self, metad: usize) {
        let Some(routing) = self.metads[metad].routing() else { return };
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

    /// Asks for something else, and for what can be done when the faults are over.
    fn wish(&mut self) {
        let is_last = self.now >= CHAOS.end;
        let is_damaged = self.storageds.iter().any(Storaged::is_damaged);
        let pause = self.wishes.change(&mut self.moods, is_damaged);
        if is_last {
            self.wishes.settle(&mut self.moods, is_damaged);
        }
        let wishes = self.wishes.clone();
        self.note(&format!("{wishes:?}"));
        self.metads.iter_mut().for_each(|metad| metad.wishes = wishes.clone());
        if !is_last {
            self.schedule((self.now + pause).min(CHAOS.end), 0, None, What::Wish);
        }
    }

    /// The routing of the metad that knows most.
    pub(crate) fn routing(&self) -> Option<std::sync::Arc<ff2_proto::Routing>> {
        self.metads.iter().filter_map(Metad::routing).max_by_key(|routing| routing.version)
    }

    /// The metads that are in, as the operator knows.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Metad> {
        self.metads.iter().filter(|metad| self.operator.members.contains(&metad.place))
    }

    /// Whether all metads are in both groups, none is on its way out or in: then the others hold all
    /// that was acknowledged, and one of them may lose its disk.
    pub(crate) fn all_vote(&self) -> bool {
        let ids: Vec<[u64; 2]> = self.members().filter_map(Metad::raft_ids).collect();
        let of = |group: usize| {
            let mut ids: Vec<u64> = ids.iter().map(|ids| ids[group]).collect();
            ids.sort_unstable();
            ids
        };
        let (zero, one) = (of(0), of(1));
        self.operator.is_idle()
            && ids.len() == self.members().count()
            && self.members().all(|m| m.sees_voters([&zero, &one]))
    }

    /// Whether a storage node may answer for the cluster, by its own clock.
    pub(crate) fn has_lease(&self, storaged: &Storaged) -> bool {
        self.will_have_lease(storaged, Duration::ZERO)
    }

    /// As [`Self::has_lease`], for so long if nobody renews it.
    fn will_have_lease(&self, storaged: &Storaged, left: Duration) -> bool {
        storaged.has_lease(self.clocks.of(storaged.place).shows(self.now) + left)
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
        !routing.chains.is_empty()
            && routing.chains.values().all(serving)
            && self.wishes.are_met(&routing)
    }
}

fn describe(chain: &pb::Chain) -> String {
    let members: Vec<String> =
        chain.members.iter().map(|m| format!("{} {}", m.node, m.state().as_str_name())).collect();
    format!("chain {} version {}: {}", chain.id, chain.version, members.join(", "))
}

/// Places of one kind are numbered in a row.
fn index_of(places: &[Place], place: Place) -> Option<usize> {
    let index = place.checked_sub(places[0])? as usize;
    (index < places.len()).then_some(index)
}

fn is_client(place: Place) -> bool {
    [CHUNK_CLIENTS, NAME_CLIENTS, LOCK_CLIENTS].as_flattened().contains(&place)
}
