//! What a rank finds in its environment.
//!
//! | variable | meaning |
//! |---|---|
//! | `RANK`, `WORLD_SIZE` | this rank, and how many there are |
//! | `LOCAL_RANK`, `LOCAL_WORLD_SIZE` | the same on this node |
//! | `NODE_RANK`, `FF2_NODES` | this node among those of the job, and how many there are |
//! | `MASTER_ADDR`, `MASTER_PORT` | where rank 0 is, and a port that was free there |
//! | `CUDA_VISIBLE_DEVICES` | the rank's GPUs, if the job has any |
//! | `FF2_JOB_ID`, `FF2_JOB_NAME` | of the job, the same after each resumption |
//! | `FF2_ATTEMPT` | 1, and one more each time that the job is started |
//! | `FF2_CHECKPOINT` | the folder for checkpoints, the same after each resumption |
//! | `FF2_STATE` | a small file of the job's own that survives resumptions |
//! | `FF2_STATUS` | a file for a line that the job says of itself, for people to see |
//! | `FF2_SLOT` | a file that tells when the job writes its checkpoints, if it has a slot for them |
//! | `FF2_SUSPEND` | a file that is there when the job is asked to make room |
//! | `FF2_SUSPEND_FD` | a file descriptor that is at its end then, to wait for |
//! | `FF2_ACK` | a file to make once everything is saved |
//! | `FF2_GRACE` | seconds from the request to the end, at most |

use std::collections::BTreeMap;

use crate::{JobFolder, RunSpec};

/// Of one rank of this node, counted from 0. The descriptor is added where the rank is started.
pub fn of_rank(spec: &RunSpec, local_rank: u32) -> BTreeMap<String, String> {
    let folder = JobFolder::new(&spec.folder, spec.attempt);
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let mut env = spec.env.clone();
    let mut set = |name: &str, value: String| env.insert(name.into(), value);
    set("RANK", (spec.first_rank + local_rank).to_string());
    set("WORLD_SIZE", spec.world_size.to_string());
    set("LOCAL_RANK", local_rank.to_string());
    set("LOCAL_WORLD_SIZE", spec.ranks.to_string());
    set("NODE_RANK", spec.node_rank.to_string());
    set("FF2_NODES", spec.nodes.to_string());
    set("MASTER_ADDR", spec.master_addr.clone());
    set("MASTER_PORT", spec.master_port.to_string());
    set("FF2_JOB_ID", spec.job.to_string());
    set("FF2_JOB_NAME", spec.name.clone());
    set("FF2_ATTEMPT", spec.attempt.to_string());
    set("FF2_CHECKPOINT", path(&spec.checkpoint));
    set("FF2_STATE", path(&folder.state()));
    set("FF2_STATUS", path(&folder.status()));
    set("FF2_SLOT", path(&folder.slot()));
    set("FF2_SUSPEND", path(&folder.request()));
    set("FF2_ACK", path(&folder.acknowledgement()));
    set("FF2_GRACE", spec.grace_s.to_string());
    if !spec.gpus.is_empty() {
        let gpus: Vec<String> = gpus_of(spec, local_rank).iter().map(u32::to_string).collect();
        set("CUDA_VISIBLE_DEVICES", gpus.join(","));
    }
    env
}

/// An equal part each, in order. A single one is shared by all.
fn gpus_of(spec: &RunSpec, local_rank: u32) -> &[u32] {
    let each = spec.gpus.len() / spec.ranks as usize;
    let first = each * local_rank as usize;
    if each == 0 { &spec.gpus } else { &spec.gpus[first..first + each] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::spec;

    #[test]
    fn a_rank_knows_its_place() {
        let env = of_rank(&spec(), 1);
        let get = |name: &str| env[name].as_str();
        assert_eq!((get("RANK"), get("WORLD_SIZE")), ("3", "4"));
        assert_eq!((get("LOCAL_RANK"), get("LOCAL_WORLD_SIZE")), ("1", "2"));
        assert_eq!((get("NODE_RANK"), get("FF2_NODES")), ("1", "2"));
        assert_eq!((get("MASTER_ADDR"), get("MASTER_PORT")), ("10.0.0.1", "29500"));
        assert_eq!(get("CUDA_VISIBLE_DEVICES"), "6,7");
        assert_eq!(get("FF2_STATE"), "/jobs/7/state");
        assert_eq!(get("FF2_STATUS"), "/jobs/7/status");
        assert_eq!(get("FF2_SLOT"), format!("/jobs/7/slot-{}", spec().attempt));
    }

    #[test]
    fn nobody_takes_the_place_of_what_the_contract_says() {
        let mut spec = spec();
        spec.env.insert("RANK".into(), "99".into());
        spec.env.insert("MINE".into(), "1".into());
        let env = of_rank(&spec, 0);
        assert_eq!((env["RANK"].as_str(), env["MINE"].as_str()), ("2", "1"));
    }

    #[test]
    fn one_gpu_is_shared_by_all_ranks() {
        let spec = RunSpec { gpus: vec![5], ..spec() };
        assert_eq!(of_rank(&spec, 0)["CUDA_VISIBLE_DEVICES"], "5");
        assert_eq!(of_rank(&spec, 1)["CUDA_VISIBLE_DEVICES"], "5");
        let none = RunSpec { gpus: vec![], ..spec };
        assert!(!of_rank(&none, 0).contains_key("CUDA_VISIBLE_DEVICES"));
    }
}
