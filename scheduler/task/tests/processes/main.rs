//! Real processes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod keeper;
mod run;

use std::{collections::BTreeMap, path::Path};

use ff2_task::RunSpec;

/// A script that so many ranks run in this folder.
fn spec(dir: &Path, ranks: u32, script: &str) -> RunSpec {
    RunSpec {
        job: 1,
        name: "test".into(),
        attempt: 1,
        command: vec!["bash".into(), "-c".into(), script.into()],
        work_dir: dir.into(),
        env: BTreeMap::new(),
        ranks,
        first_rank: 0,
        world_size: ranks,
        node_rank: 0,
        nodes: 1,
        master_addr: "127.0.0.1".into(),
        master_port: 29_500,
        gpus: vec![],
        folder: dir.join("job"),
        checkpoint: dir.join("checkpoint"),
        signal: None,
        grace_s: 5,
        user: None,
        script: None,
        output: None,
        errors: None,
        until_boot_ms: None,
    }
}
