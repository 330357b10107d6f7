//! What a target or a file is waiting for.

use ff2_meta_core::cluster::why_not_served;
use ff2_proto::{ChainId, Code, NodeId, Routing, Status, TargetId, VolumeId, layout, pb};
use pb::{PublicState, ns_request::Op};

use super::AdminState;
use crate::cluster::leader::ClusterLead;

impl AdminState {
    pub(super) async fn why(
        &self,
        lead: &ClusterLead,
        request: pb::WhyRequest,
    ) -> Result<Vec<String>, Status> {
        let routing = self.cluster.routing();
        if request.target != 0 {
            return why_target(&routing, lead, TargetId(request.target));
        }
        if request.path.is_empty() {
            return Err(Status::new(Code::InvalidArgument, "name a target or a path"));
        }
        self.why_path(&routing, lead, &request.path).await
    }

    async fn why_path(
        &self,
        routing: &Routing,
        lead: &ClusterLead,
        path: &str,
    ) -> Result<Vec<String>, Status> {
        let volume = *self
            .namespace
            .volumes()
            .first()
            .ok_or_else(|| Status::new(Code::NotFound, "there is no volume yet"))?;
        let resolve = pb::ResolveOp {
            base: ff2_proto::ROOT_INODE.0,
            path: path.trim_start_matches('/').as_bytes().to_vec().into(),
            follow_last: true,
        };
        let attr = self.namespace.ask(volume, Op::Resolve(resolve)).await?.attr;
        let attr = attr.ok_or_else(|| Status::new(Code::NotFound, path))?;
        let mut reasons = vec![format!(
            "{path} is inode {} of volume {volume}, {} bytes, version {}",
            attr.inode, attr.size, attr.version
        )];
        reasons.extend(self.pending_work(volume, attr.inode).await?);
        if let Some(layout) = attr.layout.filter(|_| attr.kind() == pb::FileKind::Regular) {
            let table = routing.table_chains(&layout).unwrap_or_default();
            for chain in layout::stripe_chains(&table, layout.stripe, layout.seed) {
                reasons.extend(why_chain(routing, lead, chain));
            }
        }
        if reasons.len() == 1 {
            reasons.push("nothing keeps it: its chains serve with all replicas".into());
        }
        Ok(reasons)
    }

    /// What the namespace's leader still owes to this inode.
    async fn pending_work(&self, volume: VolumeId, inode: u64) -> Result<Vec<String>, Status> {
        let mut reasons = Vec::new();
        let (after_inode, limit) = (inode - 1, 1);
        let op = Op::ListTruncating(pb::ListTruncatingOp { after_inode, limit });
        let truncations = self.namespace.ask(volume, op).await?.truncations;
        for truncation in truncations.iter().filter(|truncation| truncation.inode == inode) {
            reasons.push(format!(
                "it is being cut to {} bytes: other operations wait until its chunks are",
                truncation.size
            ));
        }
        let op = Op::ListLengthDoubts(pb::ListLengthDoubtsOp { after_inode, limit });
        let doubts = self.namespace.ask(volume, op).await?.length_doubts;
        if doubts.iter().any(|doubt| doubt.inode == inode) {
            reasons.push("its length is being asked from its chains: a writer was lost".into());
        }
        Ok(reasons)
    }
}

/// Nothing for a chain that has all its replicas.
fn why_chain(routing: &Routing, lead: &ClusterLead, id: ChainId) -> Vec<String> {
    let Some(chain) = routing.chains.get(&id) else {
        return vec![format!("chain {id} is unknown")];
    };
    let serving = chain.members.iter().filter(|m| m.state() == PublicState::Serving).count();
    let wanted = routing.staying(chain).count();
    if serving >= wanted {
        return Vec::new();
    }
    let mut reasons = vec![format!("chain {id} has {serving} of {wanted} replicas serving")];
    reasons.extend(why_not_served(routing, chain));
    for member in chain.members.iter().filter(|m| m.state() != PublicState::Serving) {
        let more = why_target(routing, lead, TargetId(member.target)).unwrap_or_default();
        reasons.extend(more.into_iter().map(|reason| format!("  {reason}")));
    }
    reasons
}

fn why_target(routing: &Routing, lead: &ClusterLead, id: TargetId) -> Result<Vec<String>, Status> {
    let Some(target) = routing.targets.get(&id) else {
        return Err(Status::new(Code::NoSuchTarget, format!("there is no target {id}")));
    };
    let vitals = lead.vitals(NodeId(target.node));
    let mut reasons = vec![format!(
        "target {id} of chain {} on node {} is {} (its store: {})",
        target.chain,
        target.node,
        target.public_state().as_str_name(),
        target.local_state().as_str_name()
    )];
    match routing.nodes.get(&NodeId(target.node)) {
        Some(node) if !node.alive => {
            reasons.push(format!(
                "its node is dead: nothing was heard for {} ms; start ff2-storaged at {}",
                vitals.heartbeat_age_ms, node.address
            ));
        }
        Some(node) => {
            let disk = node.disks.iter().find(|disk| disk.uuid == target.disk_uuid);
            match disk {
                None => reasons.push(
                    "its disk is not in the node, or cannot be opened: put it back, or see the log"
                        .into(),
                ),
                Some(disk) if disk.failed => {
                    reasons.push(format!("its disk {} has failed", disk.path));
                }
                Some(_) => {}
            }
        }
        None => reasons.push("its node was removed".into()),
    }
    let report = vitals.reports.get(&id);
    reasons.extend(why_state(routing, target, report));
    reasons.extend(why_move(routing, target));
    Ok(reasons)
}

/// Whether it comes or goes, and what that waits for.
fn why_move(routing: &Routing, target: &pb::Target) -> Option<String> {
    let chain = routing.chains.get(&ChainId(target.chain))?;
    if target.replaces != 0 {
        let text =
            format!("it takes the place of target {}, which serves until then", target.replaces);
        return Some(text);
    }
    let comes = |member: &&pb::ChainMember| {
        let other = routing.targets.get(&TargetId(member.target));
        other.is_some_and(|other| other.replaces == target.id)
    };
    let newcomer = chain.members.iter().find(comes);
    let mut others = chain.members.iter().filter(|member| member.target != target.id);
    let missing = others.find(|member| member.state() != PublicState::Serving);
    match (newcomer, missing) {
        (None, _) if !target.leaving => None,
        (_, Some(other)) => {
            Some(format!("it leaves its chain once target {} serves", other.target))
        }
        (_, None) => Some("it leaves its chain in a moment: all the others serve".to_owned()),
    }
}

fn why_state(
    routing: &Routing,
    target: &pb::Target,
    report: Option<&pb::TargetReport>,
) -> Vec<String> {
    let mut reasons = Vec::new();
    let chain = routing.chains.get(&ChainId(target.chain));
    let in_state =
        |state| chain.and_then(|chain| chain.members.iter().find(|member| member.state() == state));
    match target.public_state() {
        PublicState::Serving => {}
        PublicState::Lastsrv if chain.is_some_and(|chain| chain.restored != 0) => {
            reasons.extend(chain.and_then(|chain| why_not_served(routing, chain)));
        }
        PublicState::Lastsrv => {
            reasons.push(
                "it served when the chain lost its last replica: it serves again when it is back \
                 with its data"
                    .into(),
            );
            reasons.push(format!(
                "if that data is gone for good, `ff2ctl chain revive {} --from TARGET \
                 --accept-data-loss` lets the chain serve from another replica, without what that one \
                 missed",
                target.chain
            ));
        }
        PublicState::Syncing => reasons.push(match report {
            Some(report) => format!(
                "its chunks are copied from its predecessor: {} of {}",
                report.sync_done_chunks, report.sync_total_chunks
            ),
            None => "its chunks are copied from its predecessor".into(),
        }),
        PublicState::Waiting => reasons.push(match in_state(PublicState::Syncing) {
            Some(other) => format!("target {} of the chain is copied first", other.target),
            None => "nobody in its chain serves, so there is nobody to copy from".into(),
        }),
        PublicState::Offline | PublicState::PublicUnknown => {
            reasons.push("it takes part again when its node reports it".into());
        }
    }
    let waits = report.map(|report| report.waiting_for.as_str()).filter(|text| !text.is_empty());
    reasons.extend(waits.map(|text| format!("its node says: {text}")));
    reasons
}
