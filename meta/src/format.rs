//! Makes the first replicas of a new cluster's groups.

use anyhow::{Context, Result, ensure};
use ff2_daemon::config::MetadConfig;
use ff2_fabric::ClusterKey;
use ff2_group::{GroupError, format_group};
use ff2_proto::{CLUSTER_GROUP, pb};

use crate::NAMESPACE_GROUP;

/// Writes the folders of all groups for this node. Refuses a folder that holds a replica: that one
/// would be lost.
pub fn format(config: &MetadConfig) -> Result<()> {
    ClusterKey::load(&config.security.cluster_key_file).context("load the cluster key")?;
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("create {}", config.data_dir.display()))?;
    let members = founding_members(config);
    let mut made = 0;
    for group in [CLUSTER_GROUP, NAMESPACE_GROUP] {
        match format_group(&config.data_dir, group, config.node, &members) {
            Ok(()) => made += 1,
            // Made by an earlier run that was cut short.
            Err(GroupError::AlreadyFormatted { .. }) => {}
            Err(error) => return Err(error).with_context(|| format!("format group {group}")),
        }
    }
    ensure!(
        made > 0,
        "{} holds replicas already; to make a new cluster, remove the folder (its data is lost)",
        config.data_dir.display()
    );
    Ok(())
}

/// Every metad computes the same: raft ids follow the order of node ids.
pub(crate) fn founding_members(config: &MetadConfig) -> Vec<pb::Member> {
    let mut peers: Vec<_> = config.peers.iter().collect();
    peers.sort_by_key(|peer| peer.node);
    let member = |(place, peer): (usize, &&ff2_daemon::config::PeerConfig)| pb::Member {
        raft_id: place as u64 + 1,
        node: peer.node,
        address: peer.address.clone(),
        incarnation: 0,
    };
    peers.iter().enumerate().map(member).collect()
}
