//! The disk that a new member of a chain comes to.

use std::collections::BTreeMap;

use ff2_proto::{Routing, TargetId, pb};

use super::{
    limits,
    place::{PlaceableDisk, placeable_disks},
    space::Space,
};

/// What a place is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) chain: &'a pb::Chain,
    /// The member that is given up in the same moment: its node may have the new one, on another disk.
    pub(super) instead_of: Option<&'a pb::Target>,
}

/// Why there is no place, and what a person does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPlace {
    #[error("its chain serves nothing, so there is nothing to copy from: bring its members back")]
    NothingToCopy,
    #[error(
        "every storage node that is alive and not draining holds a member of its chain already: add a \
         storage node"
    )]
    NoNode,
    #[error("every disk that may have it would be {} % full: add disks", limits::FILL_PERCENT_MAX)]
    Full,
}

/// The disks that may get targets, and what lies where: made once for many questions.
#[derive(Debug)]
pub(super) struct Places<'a> {
    routing: &'a Routing,
    space: &'a Space,
    disks: Vec<PlaceableDisk>,
    /// Targets in chains, by disk; and those of them that do not leave without another.
    counts: BTreeMap<&'a [u8], u32>,
    staying: BTreeMap<&'a [u8], u32>,
    /// In how many chains two nodes meet.
    pairs: BTreeMap<(u32, u32), u32>,
}

impl<'a> Places<'a> {
    pub(super) fn new(routing: &'a Routing, space: &'a Space) -> Self {
        let (mut counts, mut staying) = (BTreeMap::new(), BTreeMap::new());
        for target in routing.targets.values().filter(|target| target.chain != 0) {
            let disk: &[u8] = &target.disk_uuid;
            *counts.entry(disk).or_insert(0) += 1;
            *staying.entry(disk).or_insert(0) += u32::from(!target.leaving);
        }
        let mut pairs = BTreeMap::new();
        for members in routing.chains.values().map(|chain| &chain.members) {
            for member in members {
                for other in members.iter().filter(|other| other.node != member.node) {
                    *pairs.entry((member.node, other.node)).or_insert(0) += 1;
                }
            }
        }
        Self { routing, space, disks: placeable_disks(routing), counts, staying, pairs }
    }

    /// The disk for it, of those that `is_free` lets through now; `None`: later.
    ///
    /// It lies on a node without a member of the chain, and has room for what the chain holds. Then the emptier
    /// disk, in steps of ten percent; then the one with fewer targets for its size; then the node that meets the
    /// chain's other nodes least often, so that many share the work when one of them dies.
    pub(super) fn destination(
        &self,
        wanted: &Wanted<'_>,
        is_free: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<&PlaceableDisk>, NoPlace> {
        let out =
            |member: &pb::ChainMember| wanted.instead_of.is_some_and(|t| t.id == member.target);
        let others = || wanted.chain.members.iter().filter(|member| !out(member));
        let is_allowed = |disk: &&PlaceableDisk| {
            let is_its_own = wanted.instead_of.is_some_and(|t| t.disk_uuid[..] == disk.uuid[..]);
            !is_its_own && others().all(|member| member.node != disk.node.0)
        };
        let mut allowed = self.disks.iter().filter(is_allowed).peekable();
        if allowed.peek().is_none() {
            return Err(NoPlace::NoNode);
        }
        let bytes = self.bytes_of(wanted.chain);
        let with_fill = |disk: &'_ PlaceableDisk| {
            let coming = bytes.saturating_mul(1 + u64::from(disk.coming));
            self.space.fill_with(&disk.uuid, coming)
        };
        let mut roomy = allowed.filter_map(|disk| Some((with_fill(disk)?, disk))).peekable();
        if roomy.peek().is_none() {
            return Err(NoPlace::Full);
        }
        let meets = |disk: &PlaceableDisk| -> u32 {
            let met = |other: &pb::ChainMember| self.pairs.get(&(disk.node.0, other.node)).copied();
            others().filter_map(met).sum()
        };
        let best = roomy.filter(|(_, disk)| is_free(&disk.uuid)).min_by_key(|(percent, disk)| {
            let load = load(disk.targets + 1, self.space.capacity(&disk.uuid));
            (percent / 10, load, meets(disk), disk.node, &disk.uuid)
        });
        Ok(best.map(|(_, disk)| disk))
    }

    /// Targets on a disk that do not leave.
    pub(super) fn staying_on(&self, disk: &[u8]) -> u32 {
        self.staying.get(disk).copied().unwrap_or(0)
    }

    /// What a member of the chain holds: as much as the largest share that one has of its disk.
    fn bytes_of(&self, chain: &pb::Chain) -> u64 {
        let targets = chain.members.iter();
        let targets = targets.filter_map(|m| self.routing.targets.get(&TargetId(m.target)));
        let share = |target: &pb::Target| {
            let targets = self.counts.get(&target.disk_uuid[..]).copied().unwrap_or(0);
            self.space.share(&target.disk_uuid, targets)
        };
        targets.map(share).max().unwrap_or(0)
    }
}

/// Targets for the size of the disk, as a number that can be compared.
fn load(targets: u32, capacity: u64) -> u128 {
    (u128::from(targets) << 80) / u128::from(capacity.max(1))
}
