//! The disk that a new member of a chain comes to.

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

/// The disk for it, of those that `is_free` lets through now; `None`: later.
///
/// It lies on a node without a member of the chain, and has room for what the chain holds. Then the emptier
/// disk, in steps of ten percent; then the one with fewer targets for its size; then the node that meets the
/// chain's other nodes least often, so that many share the work when one of them dies.
pub(super) fn destination(
    routing: &Routing,
    space: &Space,
    wanted: &Wanted<'_>,
    is_free: impl Fn(&[u8]) -> bool,
) -> Result<Option<PlaceableDisk>, NoPlace> {
    let out = |member: &pb::ChainMember| wanted.instead_of.is_some_and(|t| t.id == member.target);
    let others = || wanted.chain.members.iter().filter(|member| !out(member));
    let is_allowed = |disk: &PlaceableDisk| {
        let is_its_own = wanted.instead_of.is_some_and(|t| t.disk_uuid[..] == disk.uuid[..]);
        !is_its_own && others().all(|member| member.node != disk.node.0)
    };
    let disks: Vec<PlaceableDisk> =
        placeable_disks(routing).into_iter().filter(is_allowed).collect();
    if disks.is_empty() {
        return Err(NoPlace::NoNode);
    }
    let bytes = chain_bytes(routing, space, wanted.chain);
    let fill = |disk: &PlaceableDisk| {
        let coming = bytes.saturating_mul(1 + u64::from(disk.coming));
        space.fill_with(&disk.uuid, coming)
    };
    let roomy: Vec<(u64, PlaceableDisk)> =
        disks.into_iter().filter_map(|disk| Some((fill(&disk)?, disk))).collect();
    if roomy.is_empty() {
        return Err(NoPlace::Full);
    }
    let meets = |disk: &PlaceableDisk| {
        let meets = |chain: &&pb::Chain| {
            let mut nodes = chain.members.iter().map(|member| member.node);
            nodes.any(|node| node == disk.node.0)
        };
        let other = |member: &pb::ChainMember| others().any(|other| other.node == member.node);
        let chains = routing.chains.values().filter(meets);
        chains.flat_map(|chain| &chain.members).filter(|member| other(member)).count()
    };
    let free = roomy.into_iter().filter(|(_, disk)| is_free(&disk.uuid));
    let best = free.min_by_key(|(percent, disk)| {
        let load = load(disk.targets + 1, space.capacity(&disk.uuid));
        (percent / 10, load, meets(disk), disk.node, disk.uuid.clone())
    });
    Ok(best.map(|(_, disk)| disk))
}

/// What a member of the chain holds: as much as the largest share that one has of its disk.
fn chain_bytes(routing: &Routing, space: &Space, chain: &pb::Chain) -> u64 {
    let targets = chain.members.iter().filter_map(|m| routing.targets.get(&TargetId(m.target)));
    let share = |target: &pb::Target| {
        let here = routing.targets.values().filter(|other| other.chain != 0);
        let here = here.filter(|other| other.disk_uuid == target.disk_uuid).count();
        space.share(&target.disk_uuid, u32::try_from(here).unwrap_or(u32::MAX))
    };
    targets.map(share).max().unwrap_or(0)
}

/// Targets for the size of the disk, as a number that can be compared.
fn load(targets: u32, capacity: u64) -> u128 {
    (u128::from(targets) << 80) / u128::from(capacity.max(1))
}
