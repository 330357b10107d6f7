//! The cluster at a glance, and what is wrong with it in words that say what to do.

use std::time::Duration;

use ff2_meta_core::cluster::{delta, limits::WAYS_LEVEL, stuck, why_not_served};
use ff2_proto::{NodeId, Routing, RoutingVersion, TargetId, pb};
use pb::{LocalState, NodeRole, PublicState, ns_request::Op};

use super::AdminState;
use crate::{
    cluster::{leader::ClusterLead, wall_ms},
    limits,
};

/// Lines about chains, before the rest is only counted.
const CHAINS_TOLD: usize = 8;
/// How long before the end of a certificate the status warns.
const CERTIFICATE_WARNING_S: u64 = 30 * 86_400;
/// The status must come even when a namespace has no quorum.
const ASK: Duration = Duration::from_secs(2);

impl AdminState {
    pub(crate) async fn status(&self, lead: &ClusterLead) -> pb::ClusterStatusReply {
        let routing = self.cluster.routing();
        let mut shown = Routing::clone(&routing);
        let (mut loads, mut syncs, mut scrubs) = (Vec::new(), Vec::new(), Vec::new());
        let (mut silent, mut cut) = (Vec::new(), Vec::new());
        let mut certificates = Vec::new();
        for (id, node) in &mut shown.nodes {
            let vitals = lead.vitals(*id);
            if node.alive && node.role() == NodeRole::Storaged {
                loads.push(vitals.load.clone());
            }
            if node.alive {
                let expires_s = vitals.load.certificate_expires_s;
                certificates.extend(ending_certificate(node, expires_s, wall_ms() / 1_000));
            }
            if node.alive {
                cut.extend(vitals.unreachable.iter().map(|other| (*id, *other)));
            }
            freshen(node, vitals.disks);
            for (target, report) in vitals.reports {
                let Some(target) = shown.targets.get_mut(&target) else { continue };
                target.used_bytes = report.used_bytes;
                if node.alive && report.silent_successor != 0 {
                    silent.push((target.id, report.silent_successor));
                }
                if node.alive {
                    scrubs.push(pb::TargetScrub { target: target.id, scrub: report.scrub });
                }
                if target.public_state() == PublicState::Serving {
                    continue;
                }
                syncs.push(pb::TargetSync {
                    target: target.id,
                    done_chunks: report.sync_done_chunks,
                    total_chunks: report.sync_total_chunks,
                    waiting_for: report.waiting_for,
                });
            }
        }
        let groups = self.groups(&shown);
        let (sessions, statfs) = self.namespace_figures().await;
        let mut problems = problems(&shown, &groups, &syncs);
        problems.extend(scrubs.iter().filter_map(|scrub| unrepaired(&shown, scrub)));
        problems.extend(silent.iter().filter_map(|pair| no_answer(&shown, *pair)));
        problems.extend(cut.iter().filter_map(|pair| no_way(&shown, *pair)));
        let stuck = stuck(&shown, &lead.space(&shown));
        problems.append(&mut certificates);
        let upgrade = super::upgrade::unfinished(lead, &routing);
        problems.extend(stuck.iter().take(CHAINS_TOLD).map(no_place));
        pb::ClusterStatusReply {
            cluster_id: shown.cluster_id.clone(),
            healthy: problems.is_empty(),
            problems,
            routing: Some(delta(&shown, RoutingVersion(0))),
            groups,
            loads,
            syncs,
            sessions,
            statfs,
            scrubs,
            stuck,
            level_known: ff2_fabric::level::known(),
            upgrade: upgrade.unwrap_or_default(),
        }
    }

    /// Only a group's leader hears its members, and an idle one forgets between two of its messages
    /// that it did: the leases too say who lives.
    fn groups(&self, routing: &Routing) -> Vec<pb::GroupStatus> {
        let mut cluster = self.cluster.group.status();
        let mut namespace = self.namespace.group.status();
        for member in cluster.members.iter_mut().chain(&mut namespace.members) {
            let node = routing.nodes.get(&NodeId(member.node));
            member.recently_active |= node.is_some_and(|node| node.alive);
        }
        vec![cluster, namespace]
    }

    async fn namespace_figures(&self) -> (u64, Option<pb::StatFs>) {
        let figures = async {
            let sessions = self.sessions().await?.len() as u64;
            let statfs = match self.namespace.volumes().first() {
                Some(volume) => {
                    let reply =
                        self.namespace.ask(*volume, Op::StatFs(pb::StatFsOp { inode: 0 })).await?;
                    reply.statfs
                }
                None => None,
            };
            Ok::<_, ff2_proto::Status>((sessions, statfs))
        };
        let figures = tokio::time::timeout(ASK, figures).await;
        let (sessions, mut statfs) = figures.ok().and_then(Result::ok).unwrap_or_default();
        if let Some(statfs) = &mut statfs {
            self.namespace.fill_space(statfs).await;
        }
        (sessions, statfs)
    }
}

/// Says of a node when its certificate ends soon, or has. Clients then refuse to talk to it.
fn ending_certificate(node: &pb::Node, expires_s: u64, now_s: u64) -> Option<String> {
    if expires_s == 0 || expires_s > now_s + CERTIFICATE_WARNING_S {
        return None;
    }
    let when = match expires_s.checked_sub(now_s) {
        Some(left_s) => format!("ends in {} days", left_s / 86_400),
        None => "has ended".to_owned(),
    };
    let (id, host, address) = (node.id, &node.hostname, &node.address);
    Some(format!(
        "the certificate of node {id} ({host}, {address}) {when}: `ff2ctl security rotate` makes new ones"
    ))
}

/// The record's disks with the space that heartbeats tell.
fn freshen(node: &mut pb::Node, reported: Vec<pb::Disk>) {
    for disk in &mut node.disks {
        if let Some(fresh) = reported.iter().find(|fresh| fresh.uuid == disk.uuid) {
            disk.used_bytes = fresh.used_bytes;
            disk.capacity_bytes = fresh.capacity_bytes.max(disk.used_bytes);
        }
    }
}

/// What a person should do something about, worst first.
pub(super) fn problems(
    routing: &Routing,
    groups: &[pb::GroupStatus],
    syncs: &[pb::TargetSync],
) -> Vec<String> {
    let mut problems = Vec::new();
    group_problems(routing, groups, &mut problems);
    node_problems(routing, &mut problems);
    chain_problems(routing, syncs, &mut problems);
    if routing.tables.is_empty() {
        problems.push(
            "there is no chain table, so no file can hold data: `ff2ctl table create` makes one"
                .into(),
        );
    } else if routing.volumes.is_empty() {
        problems
            .push("there is no volume to mount: `ff2ctl volume create default` makes one".into());
    }
    problems
}

fn group_problems(routing: &Routing, groups: &[pb::GroupStatus], problems: &mut Vec<String>) {
    for group in groups {
        let id = group.group;
        if group.leader_node == 0 {
            problems.push(format!("group {id} has no leader: see that most metads run"));
            continue;
        }
        let voters = group.members.iter().filter(|member| member.voter).count();
        let metads = routing.nodes.values().filter(|node| node.role() == NodeRole::Metad).count();
        if voters < metads {
            problems.push(format!(
                "group {id} has {voters} voters and the cluster {metads} metads: start the missing \
                 one, with an empty data folder if its disk is lost"
            ));
        }
        for member in group.members.iter().filter(|member| !member.recently_active) {
            let (node, address) = (member.node, &member.address);
            problems.push(format!(
                "metad {node} ({address}) does not answer in group {id}: start ff2-metad there"
            ));
        }
        if voters.is_multiple_of(2) {
            problems.push(format!(
                "group {id} has {voters} voters: an even number bears no more failures than one less"
            ));
        }
    }
}

fn node_problems(routing: &Routing, problems: &mut Vec<String>) {
    for node in routing.nodes.values() {
        let (id, host, address) = (node.id, &node.hostname, &node.address);
        let program = match node.role() {
            NodeRole::Metad => "ff2-metad",
            NodeRole::Storaged => "ff2-storaged",
            NodeRole::Client | NodeRole::RoleUnknown => continue,
        };
        let has_targets = || routing.targets.values().any(|target| target.node == id);
        if !node.alive && node.draining && !has_targets() {
            problems.push(format!(
                "node {id} ({host}, {address}) is dead, and nothing lies on it: `ff2ctl node remove {id}`"
            ));
        } else if !node.alive {
            problems.push(format!("node {id} ({host}, {address}) is dead: start {program} there"));
        }
        for disk in &node.disks {
            let place = format!("disk {} ({}) of node {id} ({host})", disk.index, disk.path);
            if disk.failed {
                problems.push(format!(
                    "{place} has failed: put a new one in, format it and restart ff2-storaged; then \
                     `ff2ctl target replace` makes its targets anew there, copied from other nodes"
                ));
                continue;
            }
            let percent = (disk.used_bytes * 100).checked_div(disk.capacity_bytes).unwrap_or(0);
            if percent >= limits::DISK_FULL_PERCENT {
                problems.push(format!("{place} is {percent} % full: delete files or add disks"));
            }
        }
    }
}

fn chain_problems(routing: &Routing, syncs: &[pb::TargetSync], problems: &mut Vec<String>) {
    let mut lines: Vec<(bool, String)> = Vec::new();
    for chain in routing.chains.values() {
        let serving = chain.members.iter().filter(|m| m.state() == PublicState::Serving).count();
        let wanted = routing.staying(chain).count();
        if serving == 0 {
            lines.push((false, no_server(routing, chain)));
        } else if serving < wanted {
            lines.push((true, degraded(routing, chain, (serving, wanted), syncs)));
        }
    }
    // Chains without a server first.
    lines.sort_by_key(|(serves, _)| *serves);
    let more = lines.len().saturating_sub(CHAINS_TOLD);
    problems.extend(lines.into_iter().take(CHAINS_TOLD).map(|(_, line)| line));
    if more > 0 {
        problems.push(format!("{more} more chains lack replicas"));
    }
}

fn no_place(stuck: &pb::StuckMove) -> String {
    let pb::StuckMove { chain, target, node, why } = stuck;
    match target {
        0 => format!(
            "chain {chain} is to have one replica more, and has no place for it: {why}, or ask for fewer \
             (`ff2ctl table replicas`)"
        ),
        _ => format!(
            "node {node} drains, and target {target} of chain {chain} has no place to go to: {why}, or \
             `ff2ctl node undrain {node}`"
        ),
    }
}

/// Both live, and the one behind answers other questions: its disk hangs, or it is not yet said that the way is cut.
fn no_answer(routing: &Routing, (target, successor): (u64, u64)) -> Option<String> {
    let target = routing.targets.get(&TargetId(target))?;
    let successor = routing.targets.get(&TargetId(successor))?;
    if !routing.nodes.get(&NodeId(successor.node)).is_some_and(|node| node.alive) {
        return None;
    }
    Some(format!(
        "node {} gets no answer from node {} (target {} behind target {}), so writes to chain {} wait: see to the \
         link between them and the disk of the latter, or restart that server",
        target.node, successor.node, successor.id, target.id, target.chain
    ))
}

/// Both live. Of each chain of both one gives way.
fn no_way(routing: &Routing, (node, other): (NodeId, NodeId)) -> Option<String> {
    let is_alive = |id: NodeId| routing.nodes.get(&id).is_some_and(|node| node.alive);
    let meanwhile = match routing.level < WAYS_LEVEL {
        true => "writes to the chains of both wait, unless `ff2ctl upgrade finish` is possible",
        false => "the chains of both go on with one of the two",
    };
    (is_alive(node) && is_alive(other)).then(|| {
        format!(
            "node {node} does not reach node {other}, though both live: see to the link between them; until then \
             {meanwhile}"
        )
    })
}

/// Damage that stays: a target leaves its chain to have a chunk repaired only while others serve.
fn unrepaired(routing: &Routing, scrub: &pb::TargetScrub) -> Option<String> {
    let count = scrub.scrub.as_ref()?.unrepaired_chunks;
    let target = routing.targets.get(&TargetId(scrub.target)).filter(|_| count > 0)?;
    let id = target.id;
    Some(format!(
        "target {id} on node {} has {count} damaged chunks: they are repaired once another replica of \
         chain {} serves (`ff2ctl why {id}`)",
        target.node, target.chain
    ))
}

fn no_server(routing: &Routing, chain: &pb::Chain) -> String {
    if let Some(why) = why_not_served(routing, chain) {
        return why;
    }
    let waits: Vec<String> = chain
        .members
        .iter()
        .filter(|member| member.state() == PublicState::Lastsrv)
        .map(|member| {
            let target = routing.targets.get(&TargetId(member.target));
            let alive = routing.nodes.get(&NodeId(member.node)).is_some_and(|node| node.alive);
            let what = match target.map(pb::Target::local_state) {
                _ if !alive => "start that node",
                Some(LocalState::LocalUnknown) => "its store is another one: put the old disk back",
                _ => "its store is not loaded yet",
            };
            format!("target {} on node {} ({what})", member.target, member.node)
        })
        .collect();
    format!("chain {} serves nothing; it waits for {}", chain.id, waits.join(" or "))
}

fn degraded(
    routing: &Routing,
    chain: &pb::Chain,
    (serving, wanted): (usize, usize),
    syncs: &[pb::TargetSync],
) -> String {
    let others: Vec<String> = chain
        .members
        .iter()
        .filter(|member| member.state() != PublicState::Serving)
        .map(|member| {
            let sync = syncs.iter().find(|sync| sync.target == member.target);
            let state = match (member.state(), sync) {
                (PublicState::Syncing, Some(sync)) => {
                    format!("copied, {} of {} chunks", sync.done_chunks, sync.total_chunks)
                }
                (PublicState::Syncing, None) => "copied".into(),
                (PublicState::Waiting, _) => "waiting for its turn".into(),
                _ => absence(routing, member),
            };
            format!("target {} on node {} is {state}", member.target, member.node)
        })
        .collect();
    format!("chain {} has {serving} of {wanted} replicas: {}", chain.id, others.join("; "))
}

fn absence(routing: &Routing, member: &pb::ChainMember) -> String {
    let target = routing.targets.get(&TargetId(member.target));
    match routing.nodes.get(&NodeId(member.node)).filter(|node| node.alive) {
        Some(node) if !node.disks.iter().any(|disk| has(disk, target)) => {
            "offline (its disk is not there: put it back, or replace the target)".into()
        }
        Some(_) => "offline (its disk failed, or is being loaded)".into(),
        None => "offline with its node".into(),
    }
}

fn has(disk: &pb::Disk, target: Option<&pb::Target>) -> bool {
    target.is_some_and(|target| target.disk_uuid == disk.uuid)
}

#[cfg(test)]
mod tests {
    use ff2_proto::{ChainId, TableId, VolumeId};

    use super::*;

    #[test]
    fn a_certificate_that_ends_soon_is_told() {
        let node = pb::Node { id: 101, hostname: "store-a".into(), ..Default::default() };
        let (now_s, day) = (1_000 * 86_400, 86_400);
        let said = |expires_s| ending_certificate(&node, expires_s, now_s);
        assert_eq!(said(0), None, "it has none");
        assert_eq!(said(now_s + 31 * day), None);
        assert!(said(now_s + 12 * day).unwrap().contains("(store-a, ) ends in 12 days"));
        assert!(said(now_s - 1).unwrap().contains("has ended"));
    }

    #[test]
    fn a_way_that_is_cut_is_told_with_what_comes_of_it() {
        let (mut routing, _) = healthy();
        let said = |routing: &Routing| no_way(routing, (NodeId(101), NodeId(102)));
        assert!(said(&routing).unwrap().ends_with("unless `ff2ctl upgrade finish` is possible"));
        routing.level = WAYS_LEVEL;
        assert!(said(&routing).unwrap().ends_with("go on with one of the two"));
        routing.nodes.get_mut(&NodeId(102)).unwrap().alive = false;
        assert_eq!(said(&routing), None, "that says it");
    }

    fn healthy() -> (Routing, Vec<pb::GroupStatus>) {
        let mut routing = Routing::default();
        for (id, role) in
            [(1, NodeRole::Metad), (101, NodeRole::Storaged), (102, NodeRole::Storaged)]
        {
            let disk = pb::Disk { capacity_bytes: 100, used_bytes: 10, ..Default::default() };
            let node = pb::Node {
                id,
                role: role.into(),
                alive: true,
                disks: if role == NodeRole::Storaged { vec![disk] } else { Vec::new() },
                ..Default::default()
            };
            routing.nodes.insert(NodeId(id), node);
        }
        let member =
            |target, node| pb::ChainMember { target, node, state: PublicState::Serving.into() };
        let members = vec![member(1, 101), member(2, 102)];
        for member in &members {
            let target = pb::Target { id: member.target, node: member.node, ..Default::default() };
            routing.targets.insert(TargetId(member.target), target);
        }
        let chain = pb::Chain { id: 1, version: 2, members, changed_at: 1, ..Default::default() };
        routing.chains.insert(ChainId(1), chain);
        routing.tables.insert(TableId(1), pb::ChainTable::default());
        routing.volumes.insert(VolumeId(1), pb::Volume::default());
        let voter =
            pb::GroupMember { node: 1, voter: true, recently_active: true, ..Default::default() };
        let group = pb::GroupStatus { leader_node: 1, members: vec![voter], ..Default::default() };
        (routing, vec![group])
    }

    fn only(routing: &Routing, groups: &[pb::GroupStatus]) -> String {
        let found = problems(routing, groups, &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    #[test]
    fn a_healthy_cluster_has_no_problems() {
        let (routing, groups) = healthy();
        assert_eq!(problems(&routing, &groups, &[]), Vec::<String>::new());
    }

    #[test]
    fn each_problem_says_what_to_do() {
        let (mut routing, groups) = healthy();
        routing.nodes.get_mut(&NodeId(102)).unwrap().alive = false;
        assert!(only(&routing, &groups).contains("start ff2-storaged there"));

        let (mut routing, groups) = healthy();
        routing.nodes.get_mut(&NodeId(102)).unwrap().disks[0].used_bytes = 95;
        assert!(only(&routing, &groups).contains("95 % full"));

        let (mut routing, groups) = healthy();
        routing.nodes.get_mut(&NodeId(102)).unwrap().disks[0].failed = true;
        assert!(only(&routing, &groups).contains("put a new one in"));

        let (mut routing, groups) = healthy();
        let chain = routing.chains.get_mut(&ChainId(1)).unwrap();
        chain.members[1].set_state(PublicState::Offline);
        assert!(!only(&routing, &groups).contains("its disk is not there"));
        routing.nodes.get_mut(&NodeId(102)).unwrap().disks[0].uuid = vec![7; 16].into();
        assert!(only(&routing, &groups).contains("its disk is not there"));

        let (mut routing, groups) = healthy();
        routing.tables.clear();
        assert!(only(&routing, &groups).contains("no chain table"));

        let (routing, mut groups) = healthy();
        groups[0].members[0].recently_active = false;
        assert!(only(&routing, &groups).contains("start ff2-metad there"));
        groups[0].leader_node = 0;
        assert!(only(&routing, &groups).contains("no leader"));
    }

    #[test]
    fn chains_name_what_they_wait_for() {
        let (mut routing, groups) = healthy();
        let chain = routing.chains.get_mut(&ChainId(1)).unwrap();
        chain.members[1].set_state(PublicState::Syncing);
        let sync =
            pb::TargetSync { target: 2, done_chunks: 3, total_chunks: 9, ..Default::default() };
        let found = problems(&routing, &groups, &[sync]);
        assert_eq!(
            found,
            ["chain 1 has 1 of 2 replicas: target 2 on node 102 is copied, 3 of 9 chunks"]
        );

        let chain = routing.chains.get_mut(&ChainId(1)).unwrap();
        chain.members[0].set_state(PublicState::Lastsrv);
        chain.members[1].set_state(PublicState::Waiting);
        let text = only(&routing, &groups);
        assert!(
            text.starts_with("chain 1 serves nothing; it waits for target 1 on node 101"),
            "{text}"
        );
    }
}
