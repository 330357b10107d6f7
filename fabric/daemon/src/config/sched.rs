//! Configuration of the scheduler's replicas and of the agents on compute nodes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{LogConfig, RaftConfig, RanksConfig, SecurityConfig};

/// `schedd.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedConfig {
    /// This replica's number, from 1. Never give a number to another machine.
    pub node: u32,
    pub cluster_id: String,
    /// Data-plane address, for agents and the other replicas.
    pub listen: String,
    /// gRPC (TLS) address for `ff2ctl`.
    pub admin_listen: String,
    /// HTTP address of metrics and the status page.
    pub http_listen: String,
    pub data_dir: PathBuf,
    pub security: SecurityConfig,
    /// Every replica, this one included, as first formed.
    pub peers: Vec<SchedPeer>,
    /// Data-plane addresses of the metads, which tell what tokens were revoked.
    pub metads: Vec<String>,
    /// Where jobs have their folders, as it is called on the compute nodes: on the mounted volume.
    pub jobs_dir: PathBuf,
    #[serde(default)]
    pub compute: ComputeConfig,
    #[serde(default)]
    pub policy: PolicyConfig,
    /// Partitions that have limits or are made of leaves. The same on each replica.
    #[serde(default)]
    pub partitions: Vec<PartitionConfig>,
    #[serde(default)]
    pub raft: RaftConfig,
    #[serde(default)]
    pub threads: usize,
    #[serde(default)]
    pub log: LogConfig,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedPeer {
    pub node: u32,
    /// Data-plane address.
    pub address: String,
    /// gRPC address: where a client is sent that asks another one than the leader.
    pub admin_address: String,
}

/// What holds for all compute nodes. The same on each replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ComputeConfig {
    /// Cores that jobs may have of a node whose agent does not say how many it has.
    pub cpus: u32,
    /// MiB that jobs may have of such a node.
    pub memory_mib: u32,
    /// Runs on a node that hears from no scheduler for so long are ended; then they are started elsewhere.
    pub lease_ms: u32,
    /// Nodes look at themselves so often, while nothing runs there, and after a run was cut off there: one that fails
    /// is quarantined. 0: only when somebody asks for it.
    pub validate_every_s: u64,
    /// Nodes whose network ports go down again and again get nothing new, nor do those beside them if they are many.
    pub cordon_flapping: bool,
}

impl Default for ComputeConfig {
    fn default() -> Self {
        // A compute node of Fire-Flyer 2 (arXiv 2408.14158, table I).
        Self {
            cpus: 64,
            memory_mib: 512 << 10,
            lease_ms: 15_000,
            validate_every_s: 604_800,
            cordon_flapping: true,
        }
    }
}

/// How jobs make room for others. The same on each replica; what the first start of a scheduler said stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// So long a run lasts at least before it makes room: it costs a checkpoint and a start.
    pub min_run_s: u64,
    /// So long a job waits before others of its priority make room for it.
    pub patience_s: u64,
    /// How often it is looked who could make room for those that wait.
    pub plan_every_s: u64,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self { min_run_s: 1_800, patience_s: 300, plan_every_s: 60 }
    }
}

/// Nodes that jobs may ask for by a name, and what holds for jobs that do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionConfig {
    pub name: String,
    /// It is made of the nodes at these; empty: of those that operators tag `partition:NAME`.
    #[serde(default)]
    pub leaves: Vec<String>,
    /// Time limit of a job that says none; 0: none, or `time_max_s` if that is set.
    #[serde(default)]
    pub time_default_s: u64,
    /// No job may ask for a longer time limit; 0: any.
    #[serde(default)]
    pub time_max_s: u64,
    /// No job may ask for more nodes; 0: any number.
    #[serde(default)]
    pub nodes_max: u32,
}

/// `agent.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    pub cluster_id: String,
    /// What the node is called; never another one.
    pub name: String,
    /// Where other nodes reach the ranks that run here.
    pub host: String,
    /// Where it hangs in the network.
    pub zone: String,
    #[serde(default)]
    pub pod: String,
    pub leaf: String,
    /// Where jobs have their folders: on the mounted volume. The node is not used while it is missing.
    #[serde(default)]
    pub jobs_dir: PathBuf,
    /// No jobs run here, and `jobs_dir` is not needed: only the network ports are watched, as those of storage nodes.
    #[serde(default)]
    pub ports_only: bool,
    /// Runs, and the admin socket.
    pub data_dir: PathBuf,
    /// HTTP address of metrics; none by default.
    #[serde(default)]
    pub http_listen: Option<String>,
    pub security: SecurityConfig,
    /// Data-plane addresses of the scheduler's replicas.
    pub schedds: Vec<String>,
    /// So many GPUs are said to be there, for a machine without; none: those that NVML finds.
    #[serde(default)]
    pub fake_gpus: Option<u32>,
    /// Cores that jobs may have; none: those that this process may use.
    #[serde(default)]
    pub cpus: Option<u32>,
    /// MiB that jobs may have; none: all of the machine's, or of the control group's that this process is in.
    #[serde(default)]
    pub memory_mib: Option<u32>,
    /// What jobs call them that ask for a kind; none: by the name that NVML has.
    #[serde(default)]
    pub gpu_kind: Option<String>,
    /// Network interfaces that are watched beside those of cards: bonds, or what lies in a container.
    #[serde(default)]
    pub links: Vec<String>,
    #[serde(default)]
    pub threads: usize,
    #[serde(default)]
    pub ranks: RanksConfig,
    #[serde(default)]
    pub log: LogConfig,
}
