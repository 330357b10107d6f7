//! `ff2ctl job suspend|resume|cancel|requeue|scale`.

use anyhow::Result;
use ff2_proto::pb::{self, JobChange};
use serde_json::json;

use crate::cli::Surroundings;

pub(super) async fn run(around: &Surroundings, job: u64, change: JobChange) -> Result<()> {
    let request = pb::ChangeJobRequest { job, change: change.into(), ..Default::default() };
    around.access.connect_sched()?.change_job(request).await?;
    let told = match change {
        JobChange::JobCancel => "is cancelled: what runs of it is asked to end",
        JobChange::JobSuspend => "makes room, and is held until `ff2ctl job resume`",
        JobChange::JobResume => "waits for its turn",
        JobChange::JobRequeue => "makes room, and waits for its turn",
        JobChange::JobScale | JobChange::JobUnchanged => "has other numbers of replicas",
    };
    let value = json!({ "job": job, "change": word(change) });
    around.output.print(&value, || format!("job {job} {told}"))
}

pub(super) async fn scale(around: &Surroundings, job: u64, min: u32, max: u32) -> Result<()> {
    let change = JobChange::JobScale;
    let request = pb::ChangeJobRequest { job, change: change.into(), min, max };
    around.access.connect_sched()?.change_job(request).await?;
    let value = json!({ "job": job, "change": word(change), "min": min, "max": max });
    around.output.print(&value, || format!("service {job} has from {min} to {max} replicas"))
}

fn word(change: JobChange) -> &'static str {
    match change {
        JobChange::JobUnchanged => "none",
        JobChange::JobCancel => "cancel",
        JobChange::JobSuspend => "suspend",
        JobChange::JobResume => "resume",
        JobChange::JobRequeue => "requeue",
        JobChange::JobScale => "scale",
    }
}
