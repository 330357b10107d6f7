//! The scheduler's replicas, and the agents on compute nodes.

use std::collections::BTreeSet;

use super::{
    Problems, Validate, address, advertised, cluster_id, distinct, folder, metads, peers, servers,
    threads,
};
use crate::config::{AgentConfig, ComputeConfig, PartitionConfig, SchedConfig};

impl Validate for SchedConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.require(self.node > 0, "node", "numbers count from 1");
        cluster_id(&self.cluster_id, problems);
        advertised("listen", &self.listen, problems);
        advertised("admin_listen", &self.admin_listen, problems);
        address("http_listen", &self.http_listen, problems);
        let own = [&self.listen, &self.admin_listen, &self.http_listen];
        distinct("listen, admin_listen, http_listen", own, problems);
        folder("data_dir", &self.data_dir, problems);
        folder("jobs_dir", &self.jobs_dir, problems);
        self.security.validate(problems);
        let listed = self.peers.iter().map(|peer| (peer.node, peer.address.as_str()));
        peers((self.node, &self.listen), listed, problems);
        for (index, peer) in self.peers.iter().enumerate() {
            advertised(&format!("peers[{index}].admin_address"), &peer.admin_address, problems);
        }
        metads(&self.metads, problems);
        self.compute.validate(problems);
        problems.require(
            self.policy.plan_every_s > 0,
            "policy.plan_every_s",
            "at least one second",
        );
        let mut names = BTreeSet::new();
        for (index, partition) in self.partitions.iter().enumerate() {
            let key = format!("partitions[{index}]");
            problems.require(names.insert(&partition.name), &key, "each has a name of its own");
            partition.validate(&key, problems);
        }
        self.raft.validate(problems);
        threads(self.threads, problems);
        self.log.validate(problems);
    }
}

impl Validate for ComputeConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.require(self.cpus > 0, "compute.cpus", "at least one core");
        problems.require(self.memory_mib > 0, "compute.memory_mib", "at least one MiB");
        problems.require(
            (2_000..=600_000).contains(&self.lease_ms),
            "compute.lease_ms",
            "between 2000 and 600000 milliseconds: runs must outlive a change of leader",
        );
    }
}

impl PartitionConfig {
    fn validate(&self, key: &str, problems: &mut Problems) {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        problems.require(
            !self.name.is_empty() && self.name.chars().all(is_of_name),
            &format!("{key}.name"),
            "letters, digits, _ - and .",
        );
        problems.require(
            self.time_max_s == 0 || self.time_default_s <= self.time_max_s,
            &format!("{key}.time_default_s"),
            "not above time_max_s",
        );
    }
}

impl Validate for AgentConfig {
    fn validate(&self, problems: &mut Problems) {
        cluster_id(&self.cluster_id, problems);
        for (key, value) in [("name", &self.name), ("zone", &self.zone), ("leaf", &self.leaf)] {
            problems.require(!value.is_empty(), key, "say what it is called");
        }
        problems.require(!self.host.is_empty(), "host", "where other nodes reach this one");
        if !self.ports_only {
            folder("jobs_dir", &self.jobs_dir, problems);
        }
        folder("data_dir", &self.data_dir, problems);
        if let Some(listen) = &self.http_listen {
            address("http_listen", listen, problems);
        }
        self.security.validate(problems);
        servers("schedds", &self.schedds, problems);
        problems.require(
            self.fake_gpus.is_none_or(|gpus| gpus <= 64),
            "fake_gpus",
            "at most 64 on a node",
        );
        problems.require(self.cpus != Some(0), "cpus", "at least one core, or leave it out");
        problems.require(
            self.memory_mib != Some(0),
            "memory_mib",
            "at least one MiB, or leave it out",
        );
        threads(self.threads, problems);
        self.ranks.validate(problems);
        self.log.validate(problems);
    }
}
