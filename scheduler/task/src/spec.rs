//! What is to run on this node.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::limits;

/// One attempt of a job, as far as one node is concerned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// For the whole life of the job.
    pub job: u64,
    pub name: String,
    /// From 1; grows each time that the job is started.
    pub attempt: u32,
    /// Program and arguments of each rank.
    pub command: Vec<String>,
    pub work_dir: PathBuf,
    /// Beside what [`crate::environment`] adds, which comes first.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Ranks on this node, and the number of its first.
    pub ranks: u32,
    #[serde(default)]
    pub first_rank: u32,
    /// Ranks of the whole job.
    pub world_size: u32,
    #[serde(default)]
    pub node_rank: u32,
    pub nodes: u32,
    /// Where rank 0 is.
    pub master_addr: String,
    pub master_port: u16,
    /// Indexes of this node's GPUs that are the job's, shared out among the ranks in order.
    #[serde(default)]
    pub gpus: Vec<u32>,
    /// The job's own folder: the same for all attempts.
    pub folder: PathBuf,
    /// Where the job keeps its checkpoints.
    pub checkpoint: PathBuf,
    /// Sent to all processes when they are asked to make room, if the job wants a signal.
    #[serde(default)]
    pub signal: Option<Notice>,
    pub grace_s: u64,
    /// Whose processes and files these are, if not the supervisor's.
    #[serde(default)]
    pub user: Option<User>,
    /// Put into the job's folder before the ranks start: what `command` names there.
    #[serde(default)]
    pub script: Option<String>,
    /// Where the output of each rank of this node goes, and that to standard error if it goes elsewhere. None: to the
    /// job's folder.
    #[serde(default)]
    pub output: Option<Vec<PathBuf>>,
    #[serde(default)]
    pub errors: Option<Vec<PathBuf>>,
    /// The run ends then, unless its keeper is told otherwise: ms since the machine started.
    #[serde(default)]
    pub until_boot_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// The signals that a job may ask to be told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Notice {
    Term,
    Int,
    Hup,
    Usr1,
    Usr2,
    Cont,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("a job needs a command")]
    NoCommand,
    #[error("{0} ranks on one node: from 1 to {max}", max = limits::RANKS_MAX)]
    Ranks(u32),
    #[error("ranks {first} to {last} are on this node, of {world_size} in all")]
    World { first: u32, last: u32, world_size: u32 },
    #[error("{gpus} GPUs cannot be shared out among {ranks} ranks")]
    Gpus { gpus: usize, ranks: u32 },
    #[error(
        "a grace of {0} s: from {min} to {max}",
        min = limits::GRACE_MIN.as_secs(),
        max = limits::GRACE_MAX.as_secs()
    )]
    Grace(u64),
    #[error("{0} logs for {1} ranks")]
    Logs(usize, u32),
    #[error("{0:?} cannot be the name of an environment variable")]
    Variable(String),
    #[error("there is no signal {0:?} for this: TERM, INT, HUP, USR1, USR2 or CONT")]
    Signal(String),
}

impl RunSpec {
    /// # Errors
    /// What cannot be started, and what would be right.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.command.first().is_none_or(String::is_empty) {
            return Err(SpecError::NoCommand);
        }
        if !(1..=limits::RANKS_MAX).contains(&self.ranks) {
            return Err(SpecError::Ranks(self.ranks));
        }
        let last = self.first_rank.saturating_add(self.ranks - 1);
        if last >= self.world_size {
            let (first, world_size) = (self.first_rank, self.world_size);
            return Err(SpecError::World { first, last, world_size });
        }
        if !self.gpus.len().is_multiple_of(self.ranks as usize) && self.gpus.len() > 1 {
            return Err(SpecError::Gpus { gpus: self.gpus.len(), ranks: self.ranks });
        }
        let grace = Duration::from_secs(self.grace_s);
        if !(limits::GRACE_MIN..=limits::GRACE_MAX).contains(&grace) {
            return Err(SpecError::Grace(self.grace_s));
        }
        for logs in [&self.output, &self.errors].into_iter().flatten() {
            if logs.len() != self.ranks as usize {
                return Err(SpecError::Logs(logs.len(), self.ranks));
            }
        }
        let wrong = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
        match self.env.keys().find(wrong) {
            Some(name) => Err(SpecError::Variable(name.clone())),
            None => Ok(()),
        }
    }
}

impl std::str::FromStr for Notice {
    type Err = SpecError;

    /// With or without `SIG`, in any case.
    fn from_str(name: &str) -> Result<Self, SpecError> {
        let upper = name.to_ascii_uppercase();
        match upper.strip_prefix("SIG").unwrap_or(&upper) {
            "TERM" => Ok(Self::Term),
            "INT" => Ok(Self::Int),
            "HUP" => Ok(Self::Hup),
            "USR1" => Ok(Self::Usr1),
            "USR2" => Ok(Self::Usr2),
            "CONT" => Ok(Self::Cont),
            _ => Err(SpecError::Signal(name.into())),
        }
    }
}

impl Notice {
    /// Without `SIG`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Int => "INT",
            Self::Hup => "HUP",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
            Self::Cont => "CONT",
        }
    }

    pub(crate) fn signal(self) -> Signal {
        match self {
            Self::Term => Signal::TERM,
            Self::Int => Signal::INT,
            Self::Hup => Signal::HUP,
            Self::Usr1 => Signal::USR1,
            Self::Usr2 => Signal::USR2,
            Self::Cont => Signal::CONT,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two ranks of four, on the second of two nodes.
    pub(crate) fn spec() -> RunSpec {
        RunSpec {
            job: 7,
            name: "train".into(),
            attempt: 1,
            command: vec!["true".into()],
            work_dir: "/".into(),
            env: BTreeMap::new(),
            ranks: 2,
            first_rank: 2,
            world_size: 4,
            node_rank: 1,
            nodes: 2,
            master_addr: "10.0.0.1".into(),
            master_port: 29_500,
            gpus: vec![4, 5, 6, 7],
            folder: "/jobs/7".into(),
            checkpoint: "/jobs/7/checkpoint".into(),
            signal: None,
            grace_s: 30,
            user: None,
            script: None,
            output: None,
            errors: None,
            until_boot_ms: None,
        }
    }

    #[test]
    fn what_cannot_be_started_is_said() {
        let broken = |change: &dyn Fn(&mut RunSpec)| {
            let mut spec = spec();
            change(&mut spec);
            spec.check().unwrap_err().to_string()
        };
        assert_eq!(spec().check(), Ok(()));
        assert!(broken(&|spec| spec.command.clear()).contains("command"));
        assert!(broken(&|spec| spec.ranks = 0).contains("from 1"));
        assert!(broken(&|spec| spec.first_rank = 3).contains("3 to 4"));
        assert!(broken(&|spec| spec.gpus = vec![1, 2, 3]).contains("3 GPUs"));
        assert!(broken(&|spec| spec.grace_s = 1).contains("from 5 to 300"));
        assert!(broken(&|spec| drop(spec.env.insert("A=B".into(), "".into()))).contains("A=B"));
    }

    #[test]
    fn signals_have_the_names_that_people_use() {
        for name in ["USR1", "SIGUSR1", "usr1"] {
            assert_eq!(name.parse(), Ok(Notice::Usr1));
        }
        assert!("KILL".parse::<Notice>().unwrap_err().to_string().contains("USR1"));
    }
}
