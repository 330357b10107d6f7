//! `ff2ctl scrub start|status`.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};
use ff2_proto::pb;
use serde_json::{Value, json};

use crate::{
    cli::Surroundings,
    connect::{self, Admin},
    output::table,
    show::Picture,
};

const POLL: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Have every target read all that it stores, and repair what its disk lost.
    ///
    /// They do so by themselves every `storage.scrub_every_s`, at `storage.scrub_bytes_per_s` of each disk.
    Start {
        /// Return when all targets that are there have done it; fails if damage was found.
        #[arg(long)]
        wait: bool,
    },
    /// How far each target is, and what was found.
    Status,
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    let admin = around.access.connect()?;
    match command {
        Command::Start { wait } => {
            let round = admin.start_scrub(pb::StartScrubRequest {}).await?.round;
            if *wait {
                return follow(around, &admin, round).await;
            }
            around.output.print(&json!({ "round": round }), || {
                format!("scrub {round} begins; `ff2ctl scrub status` tells how far it is")
            })
        }
        Command::Status => {
            let state = State::of(admin.status().await?);
            around.output.print(&state.value(), || state.text())
        }
    }
}

async fn follow(around: &Surroundings, admin: &Admin, round: u64) -> Result<()> {
    let progress = around.output.progress();
    let state = loop {
        let state = State::of(admin.status().await?);
        let left = state.scrubs.values().filter(|scrub| scrub.round < round).count();
        if left == 0 {
            break state;
        }
        progress.now(format!("scrub {round}: {}", state.sum(round)));
        tokio::time::sleep(POLL).await;
    };
    progress.finish();
    around.output.print(&state.value(), || state.text())?;
    let damaged: u64 = state.scrubs.values().map(|scrub| scrub.damaged_chunks).sum();
    ensure!(
        damaged == 0,
        "the scrub found {damaged} damaged chunks; they are copied anew from other replicas: \
         {}",
        connect::SEE_STATUS
    );
    Ok(())
}

struct State {
    picture: Picture,
    scrubs: BTreeMap<u64, pb::ScrubReport>,
}

impl State {
    fn of(mut status: pb::ClusterStatusReply) -> Self {
        let scrubs = std::mem::take(&mut status.scrubs);
        let scrubs = scrubs.into_iter().map(|s| (s.target, s.scrub.unwrap_or_default()));
        Self { scrubs: scrubs.collect(), picture: Picture::of(status) }
    }

    fn sum(&self, round: u64) -> String {
        let done = self.scrubs.values().filter(|scrub| scrub.round >= round).count();
        let walking = self.scrubs.values().filter(|scrub| scrub.running);
        let (chunks, of) = walking.fold((0, 0), |(done, total), scrub| {
            (done + scrub.done_chunks, total + scrub.total_chunks)
        });
        let all = self.scrubs.len();
        format!("{done} of {all} targets, {chunks} of {of} chunks of those under way")
    }

    fn value(&self) -> Value {
        let targets = self.scrubs.iter().map(|(target, scrub)| {
            json!({
                "target": target, "round": scrub.round, "running": scrub.running,
                "finished_at_s": scrub.finished_at_s, "done_chunks": scrub.done_chunks,
                "total_chunks": scrub.total_chunks, "damaged_chunks": scrub.damaged_chunks,
                "unrepaired_chunks": scrub.unrepaired_chunks,
            })
        });
        json!({ "targets": targets.collect::<Vec<_>>() })
    }

    fn text(&self) -> String {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let rows = self.scrubs.iter().map(|(id, scrub)| {
            let node = self.picture.targets.get(id).map_or(0, |target| target.node);
            let progress = match (scrub.running, scrub.finished_at_s) {
                (true, _) => format!("{} of {} chunks", scrub.done_chunks, scrub.total_chunks),
                (false, 0) => "-".to_owned(),
                (false, _) => format!("{} chunks", scrub.done_chunks),
            };
            let ended = match scrub.finished_at_s {
                0 => "never".to_owned(),
                at_s => ago(now_s.saturating_sub(at_s)),
            };
            let (found, left) = (scrub.damaged_chunks, scrub.unrepaired_chunks);
            vec![
                id.to_string(),
                node.to_string(),
                progress,
                found.to_string(),
                left.to_string(),
                ended,
            ]
        });
        table(&["TARGET", "NODE", "READ", "DAMAGED", "UNREPAIRED", "LAST FINISHED"], rows)
    }
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
