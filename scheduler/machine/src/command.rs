//! What is logged, and what it is answered with.

use bytes::Bytes;
use ff2_sched_core::{Event, JobSpec};
use serde::{Deserialize, Serialize};

/// A fact, and when the leader heard of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Milliseconds of the Unix clock. A leader whose clock is behind makes no time go back.
    pub at_ms: u64,
    pub fact: Fact,
    /// What people should read of it: how a run ended, why a node is not used.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    Joined(Joined),
    Submitted(Box<Submission>),
    /// Anything else that the core is told. A submission comes as [`Fact::Submitted`].
    Event(Event),
}

/// A node that is there for jobs. Where it is and what it has does not change while it keeps its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joined {
    pub name: String,
    pub zone: String,
    /// Empty: the zone is one pod.
    #[serde(default)]
    pub pod: String,
    pub leaf: String,
    pub gpus: u32,
    /// Cores and MiB that jobs may have; 0: what the configuration says.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cpus: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub memory: u32,
    /// Where other nodes reach its ranks; it may change.
    #[serde(default)]
    pub host: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// Drawn by the client: a submission that comes again, because its answer was lost, is the same one.
    pub key: String,
    pub spec: JobSpec,
    /// What is to run, and as whom: of no concern here.
    pub order: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Done,
    /// The jobs of the submission have the numbers from `first` on.
    Accepted {
        first: u64,
        count: u32,
    },
    Refused {
        why: String,
    },
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Command {
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("numbers and strings").into()
    }
}

impl Answer {
    pub(crate) fn refused(why: impl ToString) -> Self {
        Self::Refused { why: why.to_string() }
    }

    pub(crate) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("numbers and strings").into()
    }

    /// # Errors
    /// The bytes are none that a machine answered with.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}
