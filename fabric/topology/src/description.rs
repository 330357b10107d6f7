//! A network as people write it: parts by name. Any format that serde knows will do.

use serde::{Deserialize, Serialize};

/// All leaf switches, and what hangs at them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    pub leaves: Vec<LeafSwitch>,
    pub nodes: Vec<Server>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeafSwitch {
    pub name: String,
    pub zone: String,
    /// Leaves of one pod reach each other by the same spine switches. Empty: the zone is one pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub name: String,
    pub role: Role,
    pub ports: Vec<Port>,
}

/// What a node is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Role {
    Compute { gpus: u32 },
    Storage,
    Management,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// By name.
    pub leaf: String,
    pub gbit_per_s: u32,
}
