use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use Observation as O;
use PublicState as S;

const STATES: [S; 5] = [S::Serving, S::Lastsrv, S::Syncing, S::Waiting, S::Offline];

fn chain(version: u64, states: &[S]) -> pb::Chain {
    let members = states
        .iter()
        .enumerate()
        .map(|(place, &state)| {
            let number = place as u64 + 1;
            pb::ChainMember { target: number, state: state.into(), node: number as u32 }
        })
        .collect();
    pb::Chain { id: 1, version, members, changed_at: 0, ..Default::default() }
}

fn state_of(chain: &pb::Chain, target: u64) -> S {
    chain.members.iter().find(|m| m.target == target).unwrap().state()
}

fn step(states: &[S], seen: &[O]) -> Vec<S> {
    let next = next_chain(&chain(9, states), seen);
    (1..=states.len() as u64).map(|target| state_of(&next, target)).collect()
}

/// Chains that can exist: in order, at most one syncing, serving and last-serving never together,
/// and one of them always.
fn reachable(states: &[S]) -> bool {
    let count = |state| states.iter().filter(|&&s| s == state).count();
    let ordered = states.windows(2).all(|pair| rank(pair[0]) <= rank(pair[1]));
    let (serving, last, syncing) = (count(S::Serving), count(S::Lastsrv), count(S::Syncing));
    ordered && syncing <= 1 && (serving > 0) != (last > 0) && (syncing == 0 || serving > 0)
}

fn all_of<T: Copy>(alphabet: &[T], length: usize) -> Vec<Vec<T>> {
    let mut words = vec![Vec::new()];
    for _ in 0..length {
        words = words
            .iter()
            .flat_map(|word| {
                alphabet.iter().map(move |&letter| [word.as_slice(), &[letter]].concat())
            })
            .collect();
    }
    words
}

#[test]
fn every_chain_of_up_to_four_members_obeys_the_rules() {
    let mut judged = 0;
    for length in 1..=4 {
        for states in all_of(&STATES, length).into_iter().filter(|states| reachable(states)) {
            for seen in all_of(&O::ALL, length) {
                judged += 1;
                let before = chain(9, &states);
                obeys(&before, &seen, &next_chain(&before, &seen));
            }
        }
    }
    assert!(judged > 5_000, "{judged}");
}

fn obeys(before: &pb::Chain, seen: &[O], after: &pb::Chain) {
    let told = || format!("{before:?}\n{seen:?}\n{after:?}");
    let states: Vec<S> = after.members.iter().map(pb::ChainMember::state).collect();
    assert!(reachable(&states), "{}", told());
    assert_eq!(after.version, before.version + u64::from(after.members != before.members));
    let was_serving = before.members.iter().any(|m| m.state() == S::Serving);
    for (member, &observation) in before.members.iter().zip(seen) {
        let (from, to) = (member.state(), state_of(after, member.target));
        if to == S::Serving {
            assert!(matches!(observation, O::Online | O::Complete), "{}", told());
            let right = match from {
                S::Serving | S::Lastsrv => true,
                S::Syncing => observation == O::Complete,
                S::Waiting | S::Offline | S::PublicUnknown => false,
            };
            assert!(right, "{}", told());
        }
        if to == S::Lastsrv {
            assert!(matches!(from, S::Serving | S::Lastsrv), "{}", told());
        }
        if to == S::Offline {
            assert_eq!(observation, O::Gone, "{}", told());
        }
        // Deaths are judged together: whoever served when the last one went is last-serving.
        if was_serving && observation == O::Gone && from == S::Serving && states[0] != S::Serving {
            assert_eq!(to, S::Lastsrv, "{}", told());
        }
    }
    // A second look at the same facts may only let one more member sync, or begin it anew.
    let again = next_chain(after, &observed_again(before, seen, after));
    assert!(again.version <= after.version + 1, "{}", told());
}

/// The same observations in the new order; a proof of completeness holds for one version only.
fn observed_again(before: &pb::Chain, seen: &[O], after: &pb::Chain) -> Vec<O> {
    let of = |target| {
        let place = before.members.iter().position(|m| m.target == target).unwrap();
        match seen[place] {
            O::Complete => O::Online,
            other => other,
        }
    };
    after.members.iter().map(|m| of(m.target)).collect()
}

#[test]
fn all_serving_members_that_die_together_are_last_serving_and_the_first_back_serves() {
    assert_eq!(step(&[S::Serving; 3], &[O::Gone; 3]), [S::Lastsrv; 3]);
    assert_eq!(
        step(&[S::Lastsrv; 3], &[O::Gone, O::Online, O::Gone]),
        [S::Offline, S::Serving, S::Offline]
    );
    assert_eq!(
        step(&[S::Lastsrv; 3], &[O::Online, O::Online, O::Online]),
        [S::Serving, S::Syncing, S::Waiting]
    );
}

#[test]
fn lost_data_is_never_promoted_and_its_loss_is_never_silent() {
    assert_eq!(step(&[S::Lastsrv; 2], &[O::Lost, O::Gone]), [S::Waiting, S::Lastsrv]);
    assert_eq!(step(&[S::Lastsrv; 2], &[O::Lost, O::Online]), [S::Syncing, S::Serving]);
    assert_eq!(step(&[S::Lastsrv], &[O::Lost]), [S::Lastsrv], "the chain goes on waiting for it");
    assert_eq!(step(&[S::Serving, S::Serving], &[O::Lost, O::Gone]), [S::Waiting, S::Lastsrv]);
}

#[test]
fn a_finished_sync_saves_the_chain_whose_last_server_dies() {
    assert_eq!(step(&[S::Serving, S::Syncing], &[O::Gone, O::Complete]), [S::Offline, S::Serving]);
    assert_eq!(step(&[S::Serving, S::Syncing], &[O::Gone, O::Online]), [S::Lastsrv, S::Waiting]);
}

#[test]
fn a_sync_that_lost_its_data_begins_anew_under_another_version() {
    assert_eq!(step(&[S::Serving, S::Syncing], &[O::Online, O::Lost]), [S::Serving, S::Waiting]);
    assert_eq!(step(&[S::Serving, S::Waiting], &[O::Online, O::Online]), [S::Serving, S::Syncing]);
}

#[test]
fn newborn_members_serve_together() {
    let born = chain(NEWBORN_VERSION, &[S::Lastsrv; 3]);
    let next = next_chain(&born, &[O::Online, O::Gone, O::Online]);
    let states: Vec<_> = next.members.iter().map(|m| (m.target, m.state())).collect();
    assert_eq!(states, [(1, S::Serving), (3, S::Serving), (2, S::Offline)]);
    assert_eq!(next.version, 2);
}

/// The table in the docs, as the function answers. `UPDATE_TABLES=1` writes it anew.
#[test]
fn the_state_table_of_the_docs_is_what_the_function_does() {
    let settings: [(&str, &[S], &[O]); 4] = [
        ("another serves", &[S::Serving], &[O::Online]),
        ("another serves, one syncs", &[S::Serving, S::Syncing], &[O::Online, O::Online]),
        ("nobody serves, a last-serving one is gone", &[S::Lastsrv], &[O::Gone]),
        ("nobody else", &[], &[]),
    ];
    let mut table = String::from("| state | seen |");
    for (name, ..) in settings {
        table += &format!(" {name} |");
    }
    table += "\n|---|---|---|---|---|---|\n";
    for state in STATES {
        for seen in O::ALL {
            table += &format!("| {} | {seen:?} |", state.as_str_name());
            for (_, others, others_seen) in settings {
                // The member stands behind the others of its rank, as a chain orders them.
                let mut all: Vec<(S, O, bool)> =
                    others.iter().zip(others_seen).map(|(&s, &o)| (s, o, false)).collect();
                all.push((state, seen, true));
                all.sort_by_key(|(state, ..)| rank(*state));
                let states: Vec<S> = all.iter().map(|row| row.0).collect();
                let observed: Vec<O> = all.iter().map(|row| row.1).collect();
                let place = all.iter().position(|row| row.2).unwrap();
                let possible = reachable(&states) || others.is_empty();
                let to = step(&states, &observed)[place].as_str_name();
                table += &format!(" {} |", if possible { to } else { "-" });
            }
            table.push('\n');
        }
    }
    println!("{table}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cluster/chain/table.md");
    if std::env::var_os("UPDATE_TABLES").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    assert_eq!(table, std::fs::read_to_string(path).unwrap(), "run with UPDATE_TABLES=1");
}

// ---- a chain of stores that lose power, data and connections while writes go on ----

#[derive(Clone, Debug)]
enum Event {
    /// A write that every member reached by the chain stores, acknowledged if all of them do.
    Write,
    Stop(usize),
    Start(usize),
    Wipe(usize),
    /// The syncing member gets what its predecessor has.
    Sync,
    /// The cluster looks at all members and decides.
    Judge,
}

#[derive(Clone, Debug, Default)]
struct Store {
    up: bool,
    wiped: bool,
    restarted: bool,
    synced_at: u64,
    writes: BTreeSet<u32>,
}

struct World {
    chain: pb::Chain,
    stores: Vec<Store>,
    acknowledged: BTreeSet<u32>,
    next_write: u32,
}

impl World {
    fn new(replicas: usize) -> Self {
        let stores = vec![Store { up: true, ..Store::default() }; replicas];
        let chain = chain(NEWBORN_VERSION, &vec![S::Lastsrv; replicas]);
        Self { chain, stores, acknowledged: BTreeSet::new(), next_write: 0 }
    }

    fn store(&mut self, target: u64) -> &mut Store {
        &mut self.stores[target as usize - 1]
    }

    fn writable(&self) -> Vec<u64> {
        let takes = |m: &&pb::ChainMember| matches!(m.state(), S::Serving | S::Syncing);
        self.chain.members.iter().filter(takes).map(|m| m.target).collect()
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Write => self.write(),
            Event::Stop(place) => self.stores[place].up = false,
            Event::Start(place) if !self.stores[place].up => {
                self.stores[place].up = true;
                self.stores[place].restarted = true;
            }
            Event::Wipe(place) if !self.stores[place].up => {
                let store = &mut self.stores[place];
                *store = Store { wiped: true, ..Store::default() };
            }
            Event::Start(_) | Event::Wipe(_) => {}
            Event::Sync => self.sync(),
            Event::Judge => self.judge(),
        }
    }

    fn write(&mut self) {
        let serves = self.chain.members.first().is_some_and(|m| m.state() == S::Serving);
        if !serves {
            return;
        }
        self.next_write += 1;
        let write = self.next_write;
        for target in self.writable() {
            let store = self.store(target);
            // A restarted process does not act before the cluster judged its restart.
            if !store.up || store.restarted {
                return;
            }
            store.writes.insert(write);
        }
        self.acknowledged.insert(write);
    }

    fn sync(&mut self) {
        let writable = self.writable();
        let Some(&[from, to]) = writable.last_chunk::<2>() else { return };
        let syncing = state_of(&self.chain, to) == S::Syncing;
        let able = |store: &Store| store.up && !store.restarted;
        if syncing && able(self.store(from)) && able(self.store(to)) {
            let writes = self.store(from).writes.clone();
            let version = self.chain.version;
            let store = self.store(to);
            store.writes = writes;
            store.synced_at = version;
        }
    }

    fn judge(&mut self) {
        // A restart is a death that is over: seen as gone once, with all others, then as it is.
        let seen = self.observe(|store| if store.restarted { O::Gone } else { O::Online });
        self.decide(&seen);
        for store in &mut self.stores {
            store.restarted = false;
        }
        let seen = self.observe(|store| if store.wiped { O::Lost } else { O::Online });
        self.decide(&seen);
        for place in 0..self.stores.len() {
            // The record takes the new generation, unless the chain still waits for the old one.
            if self.stores[place].up && state_of(&self.chain, place as u64 + 1) != S::Lastsrv {
                self.stores[place].wiped = false;
            }
        }
    }

    fn observe(&self, online: impl Fn(&Store) -> O) -> Vec<O> {
        let of = |member: &pb::ChainMember| {
            let store = &self.stores[member.target as usize - 1];
            match online(store) {
                _ if !store.up => O::Gone,
                O::Online if store.synced_at == self.chain.version => O::Complete,
                seen => seen,
            }
        };
        self.chain.members.iter().map(of).collect()
    }

    fn decide(&mut self, seen: &[O]) {
        let next = next_chain(&self.chain, seen);
        if self.chain.version == NEWBORN_VERSION && next.version == NEWBORN_VERSION {
            return;
        }
        obeys(&chain_past_birth(&self.chain), seen, &chain_past_birth(&next));
        self.chain = next;
    }

    fn check(&self) {
        let states: Vec<S> = self.chain.members.iter().map(pb::ChainMember::state).collect();
        assert!(reachable(&states), "{:?}", self.chain);
        for member in &self.chain.members {
            let store = &self.stores[member.target as usize - 1];
            let holds = matches!(member.state(), S::Serving | S::Lastsrv);
            if holds && !store.wiped {
                assert!(store.writes.is_superset(&self.acknowledged), "{member:?} lost a write");
            }
        }
    }
}

/// The rules of [`obeys`] hold for newborn chains too, but for the number of those promoted.
fn chain_past_birth(chain: &pb::Chain) -> pb::Chain {
    pb::Chain { version: chain.version + 8, ..chain.clone() }
}

fn events(replicas: usize) -> impl Strategy<Value = Vec<Event>> {
    let place = 0..replicas;
    let event = prop_oneof![
        4 => Just(Event::Write),
        2 => place.clone().prop_map(Event::Stop),
        2 => place.clone().prop_map(Event::Start),
        1 => place.prop_map(Event::Wipe),
        3 => Just(Event::Sync),
        6 => Just(Event::Judge),
    ];
    prop::collection::vec(event, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn who_serves_always_has_every_acknowledged_write(
        (replicas, events) in (1..=4usize).prop_flat_map(|n| (Just(n), events(n)))
    ) {
        let mut world = World::new(replicas);
        for event in events {
            world.apply(&event);
            world.check();
        }
    }

    #[test]
    fn a_chain_whose_stores_all_return_serves_again_with_all_replicas(
        (replicas, events) in (1..=4usize).prop_flat_map(|n| (Just(n), events(n)))
    ) {
        let mut world = World::new(replicas);
        for event in events.into_iter().filter(|event| !matches!(event, Event::Wipe(_))) {
            world.apply(&event);
        }
        for place in 0..replicas {
            world.apply(&Event::Start(place));
        }
        for _ in 0..2 * replicas + 2 {
            world.apply(&Event::Judge);
            world.apply(&Event::Sync);
        }
        world.apply(&Event::Judge);
        world.check();
        prop_assert!(world.chain.members.iter().all(|m| m.state() == S::Serving));
    }
}
