//! Makes the first replicas of a new scheduler.

use anyhow::{Context, Result, bail};
use ff2_daemon::config::SchedConfig;
use ff2_fabric::ClusterKey;
use ff2_group::{GroupError, format_group};
use ff2_proto::{SCHED_GROUP, pb};

/// Writes this replica's folder. Refuses one that holds a replica: that one would be lost.
///
/// # Errors
/// There is one, the key cannot be read, or the folder not be written.
pub fn format(config: &SchedConfig) -> Result<()> {
    ClusterKey::load(&config.security.cluster_key_file).context("load the cluster key")?;
    let folder = &config.data_dir;
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let mut peers: Vec<_> = config.peers.iter().collect();
    peers.sort_by_key(|peer| peer.node);
    // Every replica computes the same: raft ids follow the order of the numbers.
    let members: Vec<pb::Member> = peers
        .iter()
        .enumerate()
        .map(|(place, peer)| pb::Member {
            raft_id: place as u64 + 1,
            node: peer.node,
            address: peer.address.clone(),
            incarnation: 0,
        })
        .collect();
    match format_group(folder, SCHED_GROUP, config.node, &members) {
        Ok(()) => Ok(()),
        Err(GroupError::AlreadyFormatted { .. }) => bail!(
            "{} holds a replica already; to make a new scheduler, remove the folder (its jobs are lost)",
            folder.display()
        ),
        Err(error) => Err(error).context("format the scheduler's group"),
    }
}
