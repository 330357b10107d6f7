//! `ff2ctl job run` on the cluster: hands a job in, shows what its first rank prints, and ends as it does.

use anyhow::{Result, bail};
use ff2_proto::pb;
use ff2_submit::JobRequest;
use serde_json::json;

use super::{local, logs, submit};
use crate::{cli::Surroundings, stop::Stop};

pub(super) async fn run(around: &Surroundings, args: &local::Args) -> Result<()> {
    let request: JobRequest = args.request()?;
    let stop = Stop::on_signals()?;
    let job = submit::hand_in(around, &request).await?.first;
    let sched = around.access.connect_sched()?;
    if !around.output.is_json() {
        eprintln!("ff2ctl: job {job}");
    }
    let reply = sched.show_job(pb::ShowJobRequest { job }).await?;
    let mut log = logs::Log::new(logs::path(&reply, 0));
    let ended = tokio::select! {
        ended = logs::follow(&sched, job, &mut log) => ended?,
        () = stopped(&stop) => {
            let change = pb::JobChange::JobCancel.into();
            sched.change_job(pb::ChangeJobRequest { job, change, ..Default::default() }).await?;
            bail!("interrupted: job {job} is cancelled");
        }
    };
    if around.output.is_json() {
        let value = json!({ "job": job, "state": ended.state, "attempts": ended.attempt, "why": ended.why });
        around.output.print(&value, String::new)?;
    }
    match ended.state.as_str() {
        "succeeded" => Ok(()),
        state => bail!("job {job}: {state} {}", ended.why),
    }
}

async fn stopped(stop: &Stop) {
    while stop.reason().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
