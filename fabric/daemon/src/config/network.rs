//! By what a process reaches its peers.

use ff2_fabric::{
    limits::RDMA_MESSAGES,
    rdma::{Class, Subnet, Workload},
};
use serde::{Deserialize, Serialize};

use super::Problems;

/// An address in a zone of the network, of a server that has a card in several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneListen {
    pub zone: String,
    /// `host:port`.
    pub listen: String,
}

/// `[network]` of every configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// The zone of the network that this process is in: storage nodes that have an address there are reached by it,
    /// and by their others where it does not answer. Empty, or they have none there: by their `listen` first.
    pub zone: String,
    pub transport: Transport,
    /// RDMA leaves from addresses within these ranges, in their order; none: from where the route to the peer leads.
    pub rdma_subnets: Vec<String>,
    /// RDMA encrypts nothing. True: its network is as good, so what must be encrypted may go by it too.
    pub rdma_trusted: bool,
    /// Messages that a peer may send on one RDMA connection before they are read: 12 KiB of pinned memory for each,
    /// of every connection.
    pub rdma_messages: u32,
    /// What this process's own calls carry.
    pub workload: WorkloadName,
    /// How the network is to treat RDMA connections: for small messages, for bytes of files, for bytes of processes
    /// whose workload is checkpoints, and for sums and exchanges between the ranks of a job.
    pub rdma_metadata: ClassConfig,
    pub rdma_storage: ClassConfig,
    pub rdma_checkpoint: ClassConfig,
    pub rdma_collective: ClassConfig,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            zone: String::new(),
            transport: Transport::default(),
            rdma_subnets: Vec::new(),
            rdma_trusted: false,
            rdma_messages: RDMA_MESSAGES,
            workload: WorkloadName::default(),
            rdma_metadata: ClassConfig::default(),
            rdma_storage: ClassConfig::default(),
            rdma_checkpoint: ClassConfig::default(),
            rdma_collective: ClassConfig::default(),
        }
    }
}

/// Of a daemon. (Ranks of a job, whose workload is collectives, have no file.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadName {
    #[default]
    Files,
    /// For a mount that jobs write checkpoints by and nothing else.
    Checkpoints,
}

impl From<WorkloadName> for Workload {
    fn from(name: WorkloadName) -> Self {
        match name {
            WorkloadName::Files => Self::Files,
            WorkloadName::Checkpoints => Self::Checkpoints,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Never RDMA.
    #[default]
    Tcp,
    /// The start fails without a device; each peer that is reached otherwise is warned of.
    Rdma,
    /// By RDMA where both sides can.
    Auto,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Rdma => "rdma",
            Self::Auto => "auto",
        })
    }
}

impl std::str::FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "rdma" => Ok(Self::Rdma),
            "auto" => Ok(Self::Auto),
            other => Err(format!("{other}: neither tcp, rdma nor auto")),
        }
    }
}

/// Of the packets of a connection. What the numbers mean is the switches' configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassConfig {
    /// 0 to 15, of InfiniBand; on Ethernet, the priority.
    pub service_level: u8,
    /// The byte of IP headers: DSCP in its upper six bits.
    pub traffic_class: u8,
}

impl From<ClassConfig> for Class {
    fn from(class: ClassConfig) -> Self {
        let ClassConfig { service_level, traffic_class } = class;
        Self { service_level, traffic_class }
    }
}

/// `[ranks]` of an agent: by what ranks that run on its node reach each other, unless their job says so itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RanksConfig {
    /// `rdma`: the agent does not start without a device, for no rank would.
    pub transport: Transport,
    /// RDMA leaves from addresses within these ranges; none: from where the route to the other rank leads.
    pub rdma_subnets: Vec<String>,
    /// How the network is to treat RDMA between ranks.
    pub rdma_class: ClassConfig,
}

impl RanksConfig {
    pub(super) fn validate(&self, problems: &mut Problems) {
        subnets("ranks.rdma_subnets", &self.rdma_subnets, problems);
        self.rdma_class.validate("ranks.rdma_class", problems);
    }
}

impl ClassConfig {
    fn validate(self, key: &str, problems: &mut Problems) {
        problems.require(self.service_level <= 15, &format!("{key}.service_level"), "0 to 15");
    }
}

/// A name as `zone` of the agents in that zone has it. It travels in the routing.
pub(super) fn zone(key: &str, name: &str, problems: &mut Problems) {
    let plain = name.len() <= 64 && !name.chars().any(char::is_control);
    problems.require(plain, key, "at most 64 bytes, without control characters");
}

fn subnets(key: &str, subnets: &[String], problems: &mut Problems) {
    for subnet in subnets {
        if let Err(wrong) = subnet.parse::<Subnet>() {
            problems.add(key, wrong);
        }
    }
}

impl NetworkConfig {
    pub(super) fn validate(&self, problems: &mut Problems) {
        zone("network.zone", &self.zone, problems);
        subnets("network.rdma_subnets", &self.rdma_subnets, problems);
        let messages = 4..=1024;
        problems.require(
            messages.contains(&self.rdma_messages),
            "network.rdma_messages",
            "4 to 1024",
        );
        let classes = [
            ("metadata", self.rdma_metadata),
            ("storage", self.rdma_storage),
            ("checkpoint", self.rdma_checkpoint),
            ("collective", self.rdma_collective),
        ];
        for (name, class) in classes {
            class.validate(&format!("network.rdma_{name}"), problems);
        }
    }
}
