//! Which targets move so that each disk has as many as its size asks for.
//!
//! A move goes from a disk to one that has, for its size, fewer targets even with it: then no two disks differ
//! by more than one step in the end, as far as chains allow it (no two members on one node), and it ends,
//! since each move makes the fullest disks less full. Of the targets that may move, the one is taken whose
//! chain's other nodes its new node meets least often.

use std::collections::BTreeMap;

use ff2_proto::{Routing, TargetId, pb};
use pb::PublicState;

use super::{place::placeable_disks, space::Space};

/// Sizes of disks are told apart in so many steps of the largest: two disks of one kind may differ by some
/// bytes, which is no reason to move anything.
const SIZE_STEPS: u64 = 64;

/// What to move next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    Move(pb::MoveTarget),
    /// Something, but not now.
    Later,
    Even,
}

/// All moves, in order, and what each disk has before and after.
pub fn plan(routing: &Routing, space: &Space) -> pb::RebalanceReply {
    let mut board = Board::new(routing, space);
    let before: Vec<u32> = board.disks.iter().map(|disk| disk.targets).collect();
    let mut moves = Vec::new();
    // A target moves a few times at most; the bound is for the reader.
    for _ in 0..routing.targets.len() * 2 {
        let Some(step) = board.next(|_, _| true) else { break };
        moves.push(board.describe(&step));
        board.carry_out(&step);
    }
    let disks = board.disks.iter().zip(before).map(|(disk, targets)| pb::DiskShare {
        node: disk.node,
        disk_uuid: disk.uuid.clone().into(),
        targets,
        targets_after: disk.targets,
        capacity_bytes: space.capacity(&disk.uuid),
    });
    pb::RebalanceReply { disks: disks.collect(), moves }
}

/// The first of the moves that `is_free` lets through now.
pub(super) fn next(
    routing: &Routing,
    space: &Space,
    is_free: impl Fn(&[u8], &[u8]) -> bool,
) -> Next {
    let board = Board::new(routing, space);
    if let Some(step) = board.next(is_free) {
        let planned = board.describe(&step);
        let pb::PlannedMove { target, to_node: node, to_disk: disk_uuid, .. } = planned;
        return Next::Move(pb::MoveTarget { target, node, disk_uuid });
    }
    match board.next(|_, _| true) {
        Some(_) => Next::Later,
        None => Next::Even,
    }
}

struct Board<'a> {
    space: &'a Space,
    disks: Vec<Slot>,
    chains: Vec<Members>,
    /// In how many chains two nodes meet.
    pairs: BTreeMap<(u32, u32), u32>,
}

struct Slot {
    node: u32,
    uuid: Vec<u8>,
    targets: u32,
    size: u64,
    /// That are to come, or are coming.
    coming_bytes: u64,
    share_bytes: u64,
}

struct Members {
    chain: u32,
    /// All serve, and none is on its way.
    may_move: bool,
    members: Vec<Member>,
}

struct Member {
    target: u64,
    node: u32,
    /// Place in the board's disks, if it is one that may be left.
    disk: Option<usize>,
}

struct Step {
    chain: usize,
    member: usize,
    to: usize,
}

impl<'a> Board<'a> {
    fn new(routing: &Routing, space: &'a Space) -> Self {
        let placeable = placeable_disks(routing);
        let largest = placeable.iter().map(|disk| space.capacity(&disk.uuid)).max().unwrap_or(0);
        let disks: Vec<Slot> = placeable
            .into_iter()
            .map(|disk| {
                let rounded = u128::from(space.capacity(&disk.uuid)) * u128::from(SIZE_STEPS);
                let half = u128::from(largest / 2);
                let size = (rounded + half).checked_div(u128::from(largest)).unwrap_or(1);
                let share_bytes = space.share(&disk.uuid, disk.targets);
                let coming_bytes = share_bytes.saturating_mul(u64::from(disk.coming));
                Slot {
                    node: disk.node.0,
                    uuid: disk.uuid,
                    targets: disk.targets,
                    size: u64::try_from(size).unwrap_or(u64::MAX).max(1),
                    coming_bytes,
                    share_bytes,
                }
            })
            .collect();
        let places: BTreeMap<&[u8], usize> =
            disks.iter().enumerate().map(|(place, disk)| (&disk.uuid[..], place)).collect();
        let members = |chain| Members::new(routing, chain, &places);
        let chains: Vec<Members> = routing.chains.values().map(members).collect();
        let mut pairs = BTreeMap::new();
        for chain in &chains {
            for member in &chain.members {
                for other in chain.members.iter().filter(|other| other.node != member.node) {
                    *pairs.entry((member.node, other.node)).or_insert(0) += 1;
                }
            }
        }
        Self { space, disks, chains, pairs }
    }

    /// From the fullest disk that something may leave, to the emptiest that may have it.
    fn next(&self, is_free: impl Fn(&[u8], &[u8]) -> bool) -> Option<Step> {
        let mut order: Vec<usize> = (0..self.disks.len()).collect();
        order.sort_by(|&a, &b| {
            let (a, b) = (&self.disks[a], &self.disks[b]);
            let full = u64::from(b.targets) * a.size;
            full.cmp(&(u64::from(a.targets) * b.size)).then_with(|| a.uuid.cmp(&b.uuid))
        });
        for &from in &order {
            for &to in order.iter().rev() {
                let (source, place) = (&self.disks[from], &self.disks[to]);
                let is_fuller = u64::from(place.targets + 1) * source.size
                    < u64::from(source.targets) * place.size;
                if !is_fuller {
                    // Those that follow are fuller still.
                    break;
                }
                let bytes = place.coming_bytes.saturating_add(source.share_bytes);
                let has_room = self.space.fill_with(&place.uuid, bytes).is_some();
                if source.node == place.node || !has_room || !is_free(&source.uuid, &place.uuid) {
                    continue;
                }
                if let Some(step) = self.best(from, to) {
                    return Some(step);
                }
            }
        }
        None
    }

    fn best(&self, from: usize, to: usize) -> Option<Step> {
        let node = self.disks[to].node;
        let mut best: Option<(u32, Step)> = None;
        for (index, chain) in self.chains.iter().enumerate().filter(|(_, chain)| chain.may_move) {
            if chain.members.iter().any(|member| member.node == node) {
                continue;
            }
            let Some(member) = chain.members.iter().position(|m| m.disk == Some(from)) else {
                continue;
            };
            let others = chain.members.iter().enumerate().filter(|(other, _)| *other != member);
            let met = others.map(|(_, other)| self.met(node, other.node)).sum();
            if best.as_ref().is_none_or(|(least, _)| met < *least) {
                best = Some((met, Step { chain: index, member, to }));
            }
        }
        best.map(|(_, step)| step)
    }

    fn met(&self, a: u32, b: u32) -> u32 {
        self.pairs.get(&(a, b)).copied().unwrap_or(0)
    }

    fn describe(&self, step: &Step) -> pb::PlannedMove {
        let chain = &self.chains[step.chain];
        let member = &chain.members[step.member];
        let from = &self.disks[member.disk.expect("it leaves a disk of the board")];
        let to = &self.disks[step.to];
        pb::PlannedMove {
            target: member.target,
            chain: chain.chain,
            from_node: from.node,
            from_disk: from.uuid.clone().into(),
            to_node: to.node,
            to_disk: to.uuid.clone().into(),
        }
    }

    fn carry_out(&mut self, step: &Step) {
        let member = &self.chains[step.chain].members[step.member];
        let (before, from) = (member.node, member.disk.expect("it leaves a disk of the board"));
        let after = self.disks[step.to].node;
        let members = self.chains[step.chain].members.iter().enumerate();
        let others: Vec<u32> =
            members.filter(|(other, _)| *other != step.member).map(|(_, m)| m.node).collect();
        for other in others {
            for pair in [(before, other), (other, before)] {
                let count = self.pairs.get_mut(&pair).expect("each pair was counted");
                *count -= 1;
            }
            for pair in [(after, other), (other, after)] {
                *self.pairs.entry(pair).or_default() += 1;
            }
        }
        let bytes = self.disks[from].share_bytes;
        self.disks[from].targets -= 1;
        self.disks[step.to].targets += 1;
        self.disks[step.to].coming_bytes += bytes;
        let member = &mut self.chains[step.chain].members[step.member];
        (member.node, member.disk) = (after, Some(step.to));
    }
}

impl Members {
    fn new(routing: &Routing, chain: &pb::Chain, disks: &BTreeMap<&[u8], usize>) -> Self {
        let target = |id: u64| routing.targets.get(&TargetId(id));
        let is_settled = |member: &pb::ChainMember| {
            let is_on_the_way = |target: &pb::Target| target.replaces != 0 || target.leaving;
            member.state() == PublicState::Serving
                && target(member.target).is_some_and(|target| !is_on_the_way(target))
        };
        let members = chain.members.iter().map(|member| {
            let target = target(member.target);
            let disk = target.and_then(|target| disks.get(&target.disk_uuid[..]).copied());
            Member { target: member.target, node: member.node, disk }
        });
        let may_move = chain.members.iter().all(is_settled);
        Self { chain: chain.id, may_move, members: members.collect() }
    }
}

#[cfg(test)]
mod tests;
