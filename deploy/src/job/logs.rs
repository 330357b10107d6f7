//! `ff2ctl job logs`: from the job's folder, which is on the mount.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ff2_proto::pb;
use ff2_submit::{Names, from_yaml};
use serde_json::json;

use crate::{cli::Surroundings, connect::Sched};

/// Between two looks at whether there is more.
const LOOK: Duration = Duration::from_millis(200);
/// How often it is asked whether the job has ended.
const LOOKS_A_QUESTION: u32 = 5;
const READ: usize = 64 << 10;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    job: u64,
    /// Of this rank.
    #[arg(long, default_value_t = 0, value_name = "N")]
    rank: u32,
    /// Go on until the job has ended.
    #[arg(long, short)]
    follow: bool,
}

pub(super) async fn run(around: &Surroundings, args: &Args) -> Result<()> {
    let sched = around.access.connect_sched()?;
    let reply = sched.show_job(pb::ShowJobRequest { job: args.job }).await?;
    let path = path(&reply, args.rank);
    if around.output.is_json() {
        return around
            .output
            .print(&json!({ "job": args.job, "rank": args.rank, "path": path }), String::new);
    }
    let there = path.exists() || args.follow;
    ensure!(
        there,
        "{} is not there: has the rank started, and is the volume mounted here?",
        path.display()
    );
    let mut log = Log::new(path);
    match args.follow {
        true => follow(&sched, args.job, &mut log).await.map(drop),
        false => log.copy(&mut io::stdout()),
    }
}

/// Where a rank's output goes: as the job says (`--output`), else into its folder.
pub(super) fn path(reply: &pb::ShowJobReply, rank: u32) -> PathBuf {
    let usual = || Path::new(&reply.folder).join("logs").join(format!("rank-{rank}.log"));
    said(reply, rank).unwrap_or_else(usual)
}

fn said(reply: &pb::ShowJobReply, rank: u32) -> Option<PathBuf> {
    // What is forgotten said nothing.
    let (request, of) = (from_yaml(&reply.request).ok()?, reply.job.as_ref()?);
    let pattern = request.output.as_ref()?;
    let node_index = rank / request.layout(of.gpus.max(1)).ok()?.ranks_per_node.max(1);
    let node = reply.runs.first().and_then(|run| run.nodes.get(node_index as usize));
    let indexes = request.array.as_ref().map(ff2_submit::Array::expand).unwrap_or_default();
    let index = indexes.get(of.array_index as usize).copied();
    let names = Names {
        job: of.job,
        array: index.map(|index| (of.array_first, index)),
        name: request.name.as_deref().unwrap_or("job"),
        user: &of.user,
        node: node.map_or("", String::as_str),
        node_index,
        rank,
    };
    let folder = request.work_dir.as_ref().unwrap_or(&reply.folder);
    Some(Path::new(folder).join(pattern.expand(&names)))
}

/// Shows what comes until the job has ended. Returns what it was at last.
pub(super) async fn follow(sched: &Sched, job: u64, log: &mut Log) -> Result<pb::JobInfo> {
    let mut looks = 0;
    loop {
        let info = match looks % LOOKS_A_QUESTION {
            0 => sched.show_job(pb::ShowJobRequest { job }).await?.job,
            _ => None,
        };
        // After the question: of a job that has ended all is there.
        log.copy(&mut io::stdout())?;
        if let Some(info) = info.filter(|info| info.ended_ms != 0) {
            return Ok(info);
        }
        looks += 1;
        tokio::time::sleep(LOOK).await;
    }
}

/// A file that may not be there yet, and grows.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    at: u64,
}

impl Log {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, at: 0 }
    }

    /// Copies what is new.
    fn copy(&mut self, to: &mut impl Write) -> Result<()> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(error).with_context(|| format!("read {}", self.path.display()));
            }
        };
        file.seek(SeekFrom::Start(self.at))?;
        let mut bytes = vec![0; READ];
        loop {
            let count = file.read(&mut bytes)?;
            if count == 0 {
                to.flush()?;
                return Ok(());
            }
            to.write_all(&bytes[..count])?;
            self.at += count as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_where_the_job_said() {
        let reply = |request: &str| pb::ShowJobReply {
            job: Some(pb::JobInfo {
                job: 12,
                user: "ann".into(),
                gpus: 8,
                array_first: 11,
                array_index: 1,
                ..Default::default()
            }),
            request: request.into(),
            runs: vec![pb::JobRun {
                nodes: vec!["a.x".into(), "b.x".into()],
                ..Default::default()
            }],
            folder: "/ff2/jobs/12".into(),
            data: Vec::new(),
        };
        let plain = reply("command: [x]\n");
        assert_eq!(path(&plain, 3), Path::new("/ff2/jobs/12/logs/rank-3.log"));
        let said = "command: [x]\nnodes: 2\nranks-per-node: 2\nwork-dir: /ff2/ann\n\
                    array: 3,5\noutput: out/%A_%a-%N-%t.txt\n";
        assert_eq!(path(&reply(said), 3), Path::new("/ff2/ann/out/11_5-b-3.txt"));
        let absolute = reply("command: [x]\nnodes: 2\noutput: /logs/%j-%u\n");
        assert_eq!(path(&absolute, 1), Path::new("/logs/12-ann"));
    }
}
