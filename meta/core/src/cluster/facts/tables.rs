//! Chain tables and volumes.

use std::collections::BTreeSet;

use ff2_proto::{NodeId, ROOT_INODE, Status, TableId, pb, status::Code};
use pb::{LocalState, NodeRole, PublicState};

use super::{Answer, check_text, invalid, not_found};
use crate::cluster::{NEWBORN_VERSION, edit::Edit, limits};

/// A table with new chains, each on new targets. All members begin last-serving: no chain has data
/// yet, and the first report of each store puts its generation on record before it may serve.
pub(super) fn create_table(fact: pb::CreateTable, edit: &mut Edit<'_>) -> Answer {
    check_table(&fact, edit)?;
    let table_id = edit.record.next_table;
    edit.record.next_table += 1;
    let chains = create_chains(fact.chains, edit);
    edit.put_table(pb::ChainTable {
        id: table_id,
        version: 1,
        sizes: vec![chains.len() as u32],
        chains,
        replicas: fact.replicas,
        description: fact.description,
        changed_at: 0,
    });
    Ok(pb::ClusterReply { table_id, ..Default::default() })
}

/// More chains for a table. Files that are there keep the version, and so the chains, that they were
/// made under; new ones use the new version.
pub(super) fn extend_table(fact: pb::ExtendTable, edit: &mut Edit<'_>) -> Answer {
    let Some(table) = edit.routing().tables.get(&TableId(fact.table)) else {
        return Err(not_found(format!("there is no chain table {}", fact.table)));
    };
    if table.version != fact.version {
        let detail = format!("chain table {} has changed meanwhile: try again", fact.table);
        return Err(Status::new(Code::Busy, detail));
    }
    let mut table = table.clone();
    check_chains(&fact.chains, table.replicas, table.chains.len(), edit)?;
    table.chains.extend(create_chains(fact.chains, edit));
    table.sizes.push(table.chains.len() as u32);
    table.version += 1;
    let table_id = table.id;
    edit.put_table(table);
    Ok(pb::ClusterReply { table_id, ..Default::default() })
}

fn create_chains(placed: Vec<pb::PlacedChain>, edit: &mut Edit<'_>) -> Vec<u32> {
    let mut chains = Vec::with_capacity(placed.len());
    for placed in placed {
        let id = edit.record.next_chain;
        edit.record.next_chain += 1;
        let members = placed.targets.into_iter().map(|place| create_target(place, id, edit));
        let chain = pb::Chain {
            id,
            version: NEWBORN_VERSION,
            members: members.collect(),
            changed_at: 0,
            ..Default::default()
        };
        edit.put_chain(chain);
        chains.push(id);
    }
    chains
}

fn create_target(place: pb::PlacedTarget, chain: u32, edit: &mut Edit<'_>) -> pb::ChainMember {
    let id = edit.record.next_target;
    edit.record.next_target += 1;
    edit.put_target(pb::Target {
        id,
        chain,
        node: place.node,
        disk_uuid: place.disk_uuid,
        public_state: PublicState::Lastsrv.into(),
        local_state: LocalState::LocalOffline.into(),
        ..Default::default()
    });
    pb::ChainMember { target: id, state: PublicState::Lastsrv.into(), node: place.node }
}

fn check_table(fact: &pb::CreateTable, edit: &Edit<'_>) -> Result<(), Status> {
    check_text("description", &fact.description)?;
    if !(1..=limits::REPLICAS_MAX).contains(&fact.replicas) {
        return Err(invalid(format!("a chain has 1 to {} replicas", limits::REPLICAS_MAX)));
    }
    check_chains(&fact.chains, fact.replicas, 0, edit)
}

/// Chains to be added to a table that has `present` already.
fn check_chains(
    chains: &[pb::PlacedChain],
    replicas: u32,
    present: usize,
    edit: &Edit<'_>,
) -> Result<(), Status> {
    if chains.is_empty() || present + chains.len() > limits::TABLE_CHAINS_MAX {
        return Err(invalid(format!("a table has 1 to {} chains", limits::TABLE_CHAINS_MAX)));
    }
    for chain in chains {
        let nodes: BTreeSet<u32> = chain.targets.iter().map(|place| place.node).collect();
        if nodes.len() != chain.targets.len() || nodes.len() != replicas as usize {
            return Err(invalid("the replicas of a chain lie on different nodes"));
        }
        for place in &chain.targets {
            let node = edit.routing().nodes.get(&NodeId(place.node));
            let has_disk = node.is_some_and(|node| {
                node.role() == NodeRole::Storaged
                    && node.disks.iter().any(|disk| disk.uuid == place.disk_uuid)
            });
            if !has_disk {
                return Err(invalid(format!("node {} has no such disk (any more)", place.node)));
            }
        }
    }
    Ok(())
}

pub(super) fn create_volume(fact: pb::CreateVolume, edit: &mut Edit<'_>) -> Answer {
    check_text("volume name", &fact.name)?;
    if fact.name.is_empty() || fact.name.contains(['/', ' ']) {
        return Err(invalid("a volume's name is not empty and has no slash or space"));
    }
    let volumes = &edit.routing().volumes;
    if volumes.values().any(|volume| volume.name == fact.name) {
        let detail = format!("there is a volume named {}", fact.name);
        return Err(Status::new(Code::Exists, detail));
    }
    if volumes.len() >= limits::VOLUMES_MAX {
        return Err(Status::new(Code::QuotaExceeded, "there are too many volumes"));
    }
    let volume_id = edit.record.next_volume;
    edit.record.next_volume += 1;
    edit.put_volume(pb::Volume {
        id: volume_id,
        name: fact.name,
        group: fact.group,
        root_inode: ROOT_INODE.0,
        ..Default::default()
    });
    Ok(pb::ClusterReply { volume_id, ..Default::default() })
}
