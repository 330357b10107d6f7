//! Whether this node is fit for jobs: it looks at itself when the scheduler asks for that, and while nothing runs.

use std::{fs, io, path::PathBuf};

use ff2_validate::{Depth, Peer, Plan, validate};
use serde::{Deserialize, Serialize};

/// What was found last, kept over restarts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    /// The number that it was asked for by: a time, Unix ms.
    pub(crate) number: u64,
    /// JSON of ff2-validate's report.
    pub(crate) report: String,
}

#[derive(Debug)]
pub(crate) struct Validator {
    path: PathBuf,
    plan: Plan,
}

impl Validator {
    /// `data_dir` and `jobs_dir` are where a disk and the file system are tried; `gpus` are those that the node should
    /// have, if they are real.
    pub(crate) fn new(data_dir: PathBuf, jobs_dir: PathBuf, gpus: Option<u32>) -> Self {
        let path = data_dir.join("validation.json");
        let plan = Plan {
            depth: Depth::Quick,
            disk: Some(data_dir),
            file_system: Some(jobs_dir),
            gpus,
            ..Plan::default()
        };
        Self { path, plan }
    }

    /// None yet, or none that can be read.
    pub(crate) fn last(&self) -> Found {
        let bytes = fs::read(&self.path).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Takes some seconds, and the whole node; the way to `peer` is measured, if there is one.
    pub(crate) fn run(&self, number: u64, peer: Option<Peer>) -> Found {
        let report = validate(&Plan { peer, ..self.plan.clone() });
        tracing::info!(verdict = %report.verdict, reasons = ?report.reasons(), "looked at this node");
        let report = serde_json::to_string(&report).unwrap_or_default();
        let found = Found { number, report };
        // A disk that takes nothing may be just what was found.
        if let Err(error) = self.keep(&found) {
            tracing::warn!(%error, "what was found is forgotten with this process");
        }
        found
    }

    fn keep(&self, found: &Found) -> io::Result<()> {
        let draft = self.path.with_extension("new");
        fs::write(&draft, serde_json::to_vec(found)?)?;
        fs::rename(draft, &self.path)
    }
}
