//! `ff2ctl job list`.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::Result;
use ff2_proto::pb;
use serde_json::json;

use super::words;
use crate::{cli::Surroundings, output::table};

/// Between two looks of `--watch`.
const WATCH: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Those that have ended too.
    #[arg(long)]
    ended: bool,
    /// Of one user only.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Show it again and again, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

pub(super) async fn run(around: &Surroundings, args: &Args) -> Result<()> {
    let sched = around.access.connect_sched()?;
    loop {
        let user = args.user.clone().unwrap_or_default();
        let request = pb::ListJobsRequest { user, ended: args.ended, most: 0 };
        let reply = sched.list_jobs(request).await?;
        if args.watch && io::stdout().is_terminal() {
            // Clears the screen.
            io::stdout().write_all(b"\x1b[2J\x1b[H")?;
        }
        let value = json!({
            "jobs": reply.jobs.iter().map(words::job).collect::<Vec<_>>(), "left_out": reply.left_out,
        });
        around.output.print(&value, || shown(&reply))?;
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(WATCH).await;
    }
}

fn shown(reply: &pb::ListJobsReply) -> String {
    if reply.jobs.is_empty() {
        return "no jobs".into();
    }
    let rows = reply.jobs.iter().map(|job| {
        vec![
            job.job.to_string(),
            job.name.clone(),
            job.user.clone(),
            job.priority.clone(),
            job.state.clone(),
            words::gpus(job).to_string(),
            words::nodes(&job.nodes),
            words::span(job.ran_ms),
            job.why.clone(),
        ]
    });
    let head = ["JOB", "NAME", "USER", "PRIORITY", "STATE", "GPUS", "NODES", "RAN", "WHY"];
    let mut text = table(&head, rows);
    if reply.left_out > 0 {
        text += &format!("and {} more\n", reply.left_out);
    }
    text
}
