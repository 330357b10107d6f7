//! `ff2ctl group`: who is charged for jobs, and their shares.

use anyhow::Result;
use ff2_proto::pb;
use serde_json::{Value, json};

use crate::{cli::Surroundings, output::table};

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Groups that had jobs, their users and shares.
    List,
    /// Give a group another weight in the fair share: with twice as much it gets twice as much before it goes behind.
    Set {
        group: String,
        #[arg(long, value_name = "N")]
        weight: u32,
    },
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    let sched = around.access.connect_sched()?;
    if let Command::Set { group, weight } = command {
        let request = pb::SetJobGroupRequest { group: group.clone(), weight: *weight };
        sched.set_job_group(request).await?;
        let value = json!({ "group": group, "weight": weight });
        return around.output.print(&value, || format!("group {group} has weight {weight}"));
    }
    let groups = sched.list_job_groups(pb::ListJobGroupsRequest {}).await?.groups;
    let value = groups.iter().map(|of| {
        json!({
            "group": of.group, "weight": of.weight, "user": of.user, "gpu_hours": of.gpu_ms as f64 / 3.6e6,
            "jobs_ended": of.jobs_ended,
        })
    });
    around.output.print(&Value::Array(value.collect()), || {
        if groups.is_empty() {
            return "no group had a job yet".into();
        }
        let rows = groups.iter().map(|of| {
            let hours = format!("{:.1}", of.gpu_ms as f64 / 3.6e6);
            vec![
                of.group.clone(),
                of.weight.to_string(),
                of.user.clone(),
                hours,
                of.jobs_ended.to_string(),
            ]
        });
        table(&["GROUP", "WEIGHT", "USER", "GPU-HOURS", "JOBS ENDED"], rows)
    })
}
