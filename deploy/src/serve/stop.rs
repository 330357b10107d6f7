//! `ff2ctl serve stop NAME`: the routers first, which finish what they have; then the replicas.

use std::time::Duration;

use anyhow::{Context, Result};
use ff2_proto::pb::{self, JobChange};
use serde_json::json;

use super::service;
use crate::{cli::Surroundings, connect::Sched};

const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn run(around: &Surroundings, name: &str) -> Result<()> {
    let service = service::named(around, name).await?;
    let service = service
        .with_context(|| format!("no service is called {name}: `ff2ctl serve list` shows all"))?;
    let sched = around.access.connect_sched()?;
    let router = service.router;
    cancel(&sched, router).await?;
    let progress = around.output.progress();
    progress.now(format!("{name}: what runs is finished"));
    while service::all(&sched).await?.iter().any(|it| it.router == router) {
        tokio::time::sleep(LOOK).await;
    }
    progress.finish();
    let plan = service.folder.plan()?.context("the service's folder does not name its replicas")?;
    for job in &plan.jobs {
        // Those of earlier versions have ended.
        if let Err(error) = cancel(&sched, *job).await {
            tracing::debug!(job, %error, "not cancelled");
        }
    }
    let value = json!({ "name": name, "router": router, "jobs": plan.jobs });
    around.output.print(&value, || {
        format!("{name} is served no more; its keys stay in {}", service.folder.path().display())
    })
}

async fn cancel(sched: &Sched, job: u64) -> Result<()> {
    let change = JobChange::JobCancel;
    let request = pb::ChangeJobRequest { job, change: change.into(), ..Default::default() };
    sched.change_job(request).await.map(drop)
}
