//! A request that was accepted, as those read it who run it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::request::JobRequest;

/// What runs, as whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub request: JobRequest,
    pub submitter: Submitter,
    /// What it has of its submitter's environment, under what the request says.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Of all tasks, and on each.
    pub ranks: u32,
    pub ranks_per_task: u32,
    pub grace_s: u64,
    /// The indexes of an array.
    #[serde(default)]
    pub indexes: Vec<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submitter {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}
