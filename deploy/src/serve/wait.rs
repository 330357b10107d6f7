//! Waiting until a service serves, and saying what it waits for.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ff2_proto::pb;

use super::folder::{Report, ServiceFolder};
use crate::{cli::Surroundings, connect::Sched};

const LOOK: Duration = Duration::from_millis(500);
/// Once it serves, for the routers that do not yet: with no node of its own one may never have an address.
const ADDRESSES: Duration = Duration::from_secs(5);

/// What is waited for.
pub(super) struct Waited<'a> {
    pub(super) name: &'a str,
    pub(super) folder: &'a ServiceFolder,
    pub(super) router: u64,
    /// Of the replicas that are wanted.
    pub(super) job: u64,
    pub(super) replicas: u32,
    /// That there should be: each has an address to tell.
    pub(super) routers: u32,
}

impl Waited<'_> {
    /// Its replicas serve, and no others.
    fn is_done(&self, report: &Report) -> bool {
        let ready = report.ready.get(&self.job).copied().unwrap_or(0);
        ready >= self.replicas && report.ready.len() == 1
    }

    fn told(&self, report: Option<&Report>) -> String {
        let Some(report) = report else { return format!("{}: its router starts", self.name) };
        let ready = report.ready.get(&self.job).copied().unwrap_or(0);
        let others: u32 = report.ready.values().sum::<u32>() - ready;
        let others =
            if others > 0 { format!(", {others} of before still serve") } else { String::new() };
        format!("{}: {ready} of {} replicas take requests{others}", self.name, self.replicas)
    }
}

/// None if nobody wanted to wait.
pub(super) async fn until_ready(
    around: &Surroundings,
    waited: &Waited<'_>,
    seconds: u64,
) -> Result<Option<Report>> {
    if seconds == 0 {
        return Ok(None);
    }
    let (progress, begun) = (around.output.progress(), Instant::now());
    let sched = around.access.connect_sched()?;
    let (mut last, mut serves) = (String::new(), None);
    loop {
        // One that is just being written is there the next time.
        let report = waited.folder.report().ok().flatten();
        if let Some(report) = report.as_ref().filter(|report| waited.is_done(report)) {
            let is_told = report.urls.len() >= waited.routers as usize;
            if is_told || serves.get_or_insert_with(Instant::now).elapsed() >= ADDRESSES {
                return Ok(Some(report.clone()));
            }
        }
        let told = waited.told(report.as_ref());
        if told != last {
            progress.done(&told);
            last.clone_from(&told);
        }
        if begun.elapsed() >= Duration::from_secs(seconds) {
            let (router, job) = (waited.router, waited.job);
            bail!(
                "after {seconds} s, {told}{}; `ff2ctl job logs {router}` and `ff2ctl job logs {job}` say more, and it \
                 may still come",
                waits_for(&sched, &[router, job]).await
            );
        }
        progress.now(told);
        tokio::time::sleep(LOOK).await;
    }
}

/// Why jobs do not run, in brackets.
async fn waits_for(sched: &Sched, jobs: &[u64]) -> String {
    let mut why = Vec::new();
    for job in jobs {
        let shown = sched.show_job(pb::ShowJobRequest { job: *job }).await;
        let Some(info) = shown.ok().and_then(|shown| shown.job) else { continue };
        if info.state != "running" {
            why.push(format!("job {job} is {}: {}", info.state, info.why));
        }
    }
    if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_when_the_wanted_serve_alone() {
        let folder = ServiceFolder::at("/nowhere".into());
        let waited =
            Waited { name: "chat", folder: &folder, router: 1, job: 3, replicas: 2, routers: 1 };
        let report = |ready: &[(u64, u32)]| Report {
            ready: ready.iter().copied().collect(),
            ..Report::default()
        };
        assert!(!waited.is_done(&report(&[])));
        assert!(!waited.is_done(&report(&[(2, 1), (3, 2)])));
        assert!(!waited.is_done(&report(&[(3, 1)])));
        assert!(waited.is_done(&report(&[(3, 2)])));
        let told = waited.told(Some(&report(&[(2, 1), (3, 1)])));
        assert_eq!(told, "chat: 1 of 2 replicas take requests, 1 of before still serve");
        assert!(waited.told(None).contains("router"));
    }
}
