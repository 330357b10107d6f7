//! `ff2ctl quota gpus`: what the scheduler lets jobs have at once.

use anyhow::{Result, anyhow, ensure};
use ff2_proto::pb;
use serde_json::{Value, json};

use crate::{cli::Surroundings, output::table};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// How many; `none` takes the limit away. Without it all limits are listed.
    limit: Option<String>,
    /// Of jobs of this user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Of jobs that are charged to this group.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Of jobs of this priority.
    #[arg(long, value_name = "PRIORITY")]
    priority: Option<ff2_submit::Priority>,
}

pub(super) async fn run(around: &Surroundings, args: &Args) -> Result<()> {
    let sched = around.access.connect_sched()?;
    if let Some(limit) = &args.limit {
        let remove = limit == "none";
        let gpus = match remove {
            true => 0,
            false => {
                limit.parse().map_err(|_| anyhow!("{limit:?} is no number of GPUs, nor `none`"))?
            }
        };
        let quota = pb::JobQuota {
            user: args.user.clone().unwrap_or_default(),
            group: args.group.clone().unwrap_or_default(),
            priority: args.priority.map(|priority| priority.to_string()).unwrap_or_default(),
            gpus,
            used: 0,
        };
        sched.set_job_quota(pb::SetJobQuotaRequest { quota: Some(quota), remove }).await?;
    } else {
        let names = args.user.is_some() || args.group.is_some() || args.priority.is_some();
        ensure!(!names, "say how many GPUs, or `none`");
    }
    let quotas = sched.list_job_quotas(pb::ListJobQuotasRequest {}).await?.quotas;
    let value = quotas.iter().map(value).collect();
    around.output.print(&Value::Array(value), || {
        if quotas.is_empty() {
            return "no limits".into();
        }
        let any = |text: &str| if text.is_empty() { "any".to_owned() } else { text.to_owned() };
        let rows = quotas.iter().map(|quota| {
            vec![
                any(&quota.user),
                any(&quota.group),
                any(&quota.priority),
                quota.gpus.to_string(),
                quota.used.to_string(),
            ]
        });
        table(&["USER", "GROUP", "PRIORITY", "GPUS", "USED"], rows)
    })
}

fn value(quota: &pb::JobQuota) -> Value {
    json!({
        "user": quota.user, "group": quota.group, "priority": quota.priority, "gpus": quota.gpus,
        "used": quota.used,
    })
}
