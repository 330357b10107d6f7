//! Which node a daemon is that asks to join.

use ff2_proto::{
    NodeId, Routing,
    marks::{Mark, reached},
    pb,
};

/// The node on record that this daemon is. One without an id is new, unless it joined before and does not
/// know it: the answer was lost, or what it had written down was. Then its address and a disk tell, since
/// the node on record may hold targets already, which nobody else could bring back.
pub(super) fn known_as(routing: &Routing, request: &pb::JoinRequest) -> Option<NodeId> {
    if request.node_id != 0 {
        let id = NodeId(request.node_id);
        return routing.nodes.contains_key(&id).then_some(id);
    }
    let is_same = |node: &&pb::Node| {
        node.role() == request.role()
            && node.address == request.address
            && (node.incarnation == request.incarnation || shares_disk(node, request))
    };
    let known = routing.nodes.values().find(is_same)?;
    if known.incarnation != request.incarnation {
        reached(Mark::KnownByDisk);
    }
    Some(NodeId(known.id))
}

fn shares_disk(node: &pb::Node, request: &pb::JoinRequest) -> bool {
    node.disks.iter().any(|known| request.disks.iter().any(|disk| disk.uuid == known.uuid))
}
