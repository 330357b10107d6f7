//! Faults as they befall the world: never more at once than what was promised can bear, so that every
//! loss is somebody's error.

use std::time::Duration;

use ff2_proto::{ChainId, TargetId, pb};

use super::{
    CHAOS, CHUNK_CLIENTS, LOAD_END, LOCK_CLIENTS, METADS, NAME_CLIENTS, OPERATOR, STORAGEDS, What,
    World, index_of,
};
use crate::{
    disk::Damage, faults::Fault, net::Place, operator::Change, rng::Rng, storaged::Storaged,
};

/// What the lease of a member must have left if it is to stand in for a lost store, by its own clock. The
/// judgement of deaths (docs/design/0003) compares two half leases with a whole one: without this it would
/// hold for clocks that run alike only.
const LEFT_OF_LEASE: Duration = Duration::from_millis(900);

/// Longer than any run.
const NEVER: Duration = Duration::from_secs(3_600);

impl World {
    pub(super) fn fault(&mut self) {
        if self.now >= LOAD_END {
            self.note("the load ends");
            if self.duties.spares {
                self.lose_for_good();
            }
            self.chunk_clients.iter_mut().for_each(|client| client.stopping = true);
            self.name_clients.iter_mut().for_each(|client| client.stopping = true);
            self.lock_clients.iter_mut().for_each(|client| client.stopping = true);
            return;
        }
        if self.now >= CHAOS.end {
            self.net.calm();
            self.clocks.settle(self.now);
            self.note("healed");
            // What is down or paused comes back by itself.
            return self.schedule(LOAD_END, 0, None, What::Fault);
        }
        let pause = self.faults.pause();
        let fault = self.faults.next();
        self.note(&format!("{fault:?}"));
        self.strike(fault);
        self.schedule((self.now + pause).min(CHAOS.end), 0, None, What::Fault);
    }

    fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Crash { places, back_after } => {
                for place in places {
                    self.crash(place, back_after);
                }
            }
            Fault::Wipe { place, only_one, back_after } => self.lose(place, only_one, back_after),
            Fault::Damage { place, damage } => self.damage(place, damage),
            Fault::Isolate { place, from_metads: true } => self.net.isolate(place, &METADS),
            Fault::Isolate { place, from_metads: false } => {
                let servers = METADS.into_iter().chain(STORAGEDS);
                let clients = [CHUNK_CLIENTS, NAME_CLIENTS, LOCK_CLIENTS].into_iter().flatten();
                let all: Vec<Place> = servers.chain(clients).collect();
                self.net.isolate(place, &all);
            }
            Fault::Cut { between: (one, other) } => self.net.cut(one, other),
            Fault::Pause { place, until_after } => {
                self.paused[place as usize] = self.now + until_after;
            }
            Fault::Heal => self.net.heal(),
            Fault::Membership => self.change_members(),
            Fault::Clock => {
                if let Some(how) = self.clocks.stray(self.now) {
                    self.note(&how);
                }
            }
        }
    }

    /// A storage node goes, if all that it has is elsewhere.
    fn lose_for_good(&mut self) {
        let place = *self.faults.rng().pick(&STORAGEDS).expect("there are storage nodes");
        if self.others_serve(place) {
            self.note(&format!("storage node {place} goes for good"));
            self.crash(place, NEVER);
            self.lost = Some(place);
        }
    }

    /// At times a leader crashes between the two halves of a change of members: a moment that faults at
    /// random times do not meet.
    pub(super) fn strike_between(&mut self, metad: usize) {
        let is_time = CHAOS.contains(&self.now) && self.metads[metad].leads_between();
        if is_time && self.faults.rng().chance(30) {
            let back_after = Duration::from_millis(self.faults.rng().within(100..9_000));
            self.note(&format!("metad {} crashes between two configurations", METADS[metad]));
            self.crash(METADS[metad], back_after);
        }
    }

    /// A crash, after which disks are empty.
    fn lose(&mut self, place: Place, only_one: bool, back_after: Duration) {
        if let Some(metad) = index_of(&METADS, place) {
            let may_lose = self.all_vote();
            self.crash(place, back_after);
            if may_lose && !self.metads[metad].is_out() {
                let rng = self.faults.rng();
                self.metads[metad].wipe([rng.next(), rng.next()]);
                self.note("its disk is lost");
            }
            return;
        }
        let node = index_of(&STORAGEDS, place).expect("metads and storage nodes have disks");
        let may_lose = self.others_serve(place);
        self.crash(place, back_after);
        if may_lose {
            let targets: Vec<TargetId> = self.storageds[node].disks.keys().copied().collect();
            let one = self.faults.rng().pick(&targets).copied();
            self.storageds[node].wipe(one.filter(|_| only_one));
            self.note(if only_one { "one of its disks is lost" } else { "its disks are lost" });
        }
    }

    /// Damages what one replica wrote, if another that serves and stays has the same: all damage that there is at a
    /// time is on one node. Nor is there any while chains are to have fewer replicas.
    fn damage(&mut self, place: Place, damage: Damage) {
        let node = index_of(&STORAGEDS, place).expect("damage is for storage nodes");
        let elsewhere = self.storageds.iter().any(|s| s.place != place && s.is_damaged());
        let targets: Vec<TargetId> = self.storageds[node].disks.keys().copied().collect();
        let rng = self.faults.rng();
        let Some(&target) = rng.pick(&targets) else { return };
        let mut rng = Rng::new(rng.next(), "damage");
        let Some(other) = self.other_that_serves(place, target).filter(|_| !elsewhere) else {
            return;
        };
        self.note(&format!("on target {target}"));
        let mut disk = self.storageds[node].disks.remove(&target).expect("listed");
        let mut disks = self.storageds.iter().flat_map(|storaged| &storaged.disks);
        let other = disks.find_map(|(id, disk)| (*id == other).then_some(disk));
        disk.damage(damage, &mut rng, |chunk, id| other.is_some_and(|o| o.holds(chunk, id)));
        self.storageds[node].disks.insert(target, disk);
    }

    /// Another member of the target's chain, which serves at this moment and does not leave.
    fn other_that_serves(&self, place: Place, target: TargetId) -> Option<TargetId> {
        let routing = self.routing()?;
        if !self.wishes.none_is_to_shrink(&routing) {
            return None;
        }
        let stays = |member: &pb::ChainMember| {
            let mut targets = routing.targets.values().filter(|other| other.chain != 0);
            targets.all(|other| other.replaces != member.target)
        };
        let chain = routing.targets.get(&target)?.chain;
        let members = routing.chains.get(&ChainId(chain))?.members.iter();
        let serves = |member: &&pb::ChainMember| {
            let node = self.storageds.iter().find(|s| s.node == member.node);
            member.state() == pb::PublicState::Serving
                && stays(member)
                && node.is_some_and(|s| {
                    s.place != place && self.has_lease(s) && s.serves(TargetId(member.target))
                })
        };
        members.filter(serves).map(|member| TargetId(member.target)).next()
    }

    /// Whether each chain of this storage node has another member that serves at this moment, with
    /// undamaged disks. That is what a chain needs to bear the loss of a store: see docs/design/0003.
    fn others_serve(&self, place: Place) -> bool {
        let Some(routing) = self.routing() else { return false };
        let here = |member: &pb::ChainMember| {
            let storaged = self.storageds.iter().find(|s| s.node == member.node);
            storaged.is_some_and(|storaged| storaged.place == place)
        };
        // The one whose clock strays proves nothing by its lease.
        let is_well = |s: &Storaged| {
            s.place != place
                && self.clocks.stray != Some(s.place)
                && self.will_have_lease(s, LEFT_OF_LEASE)
                && !s.is_damaged()
        };
        let serves = |member: &pb::ChainMember| {
            let mut others = self.storageds.iter().filter(|s| s.node == member.node);
            let is_serving = |s: &Storaged| is_well(s) && s.serves(TargetId(member.target));
            member.state() == pb::PublicState::Serving && others.any(is_serving)
        };
        let mut chains = routing.chains.values().filter(|chain| chain.members.iter().any(here));
        !routing.chains.is_empty() && chains.all(|chain| chain.members.iter().any(serves))
    }

    /// Lets the operator begin the next change, if the last one is over.
    fn change_members(&mut self) {
        if !self.all_vote() {
            return;
        }
        let change = self.operator.choose(self.faults.rng());
        self.note(&format!("{change:?}"));
        if let Change::Add(place) = change {
            let metad = index_of(&METADS, place).expect("metads are added");
            let rng = self.faults.rng();
            self.metads[metad].come_in([rng.next(), rng.next()]);
            self.schedule(self.now, place, None, What::Start);
        }
        let (delay, later) = self.operator.begin(change);
        self.schedule(self.now + delay, OPERATOR, None, What::Later(later));
    }

    pub(super) fn change_done(&mut self, change: Change) {
        self.note(&format!("{change:?} is done"));
        if let Change::Remove(place) = change {
            let metad = index_of(&METADS, place).expect("metads are removed");
            // Whoever removed it stops it.
            self.crash(place, Duration::ZERO);
            self.metads[metad].go_out();
        }
    }
}
