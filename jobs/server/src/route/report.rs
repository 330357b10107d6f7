//! How the service does, for people: what the router that leads says to `ff2ctl serve`, writes into the service's
//! folder, where it is found without a router, and as a job puts into a line of status, which the scheduler's page
//! shows (docs/JOBS.md).

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{folder::ServiceFolder, http::Route};
use crate::service::seconds;

const PERIOD: Duration = Duration::from_secs(1);
/// Tokens a second are those of so many periods.
const PERIODS: usize = 10;

/// What is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of the router that leads.
    pub url: String,
    /// Of all routers, that one first.
    pub urls: Vec<String>,
    /// Replicas that take requests, by their job.
    pub ready: std::collections::BTreeMap<u64, u32>,
    /// There should be; 0: nobody said, or not known yet.
    pub wanted: u32,
    /// Since this router began.
    pub requests: u64,
    pub in_flight: i64,
    pub tokens_per_second: f64,
    /// Of the tokens of prompts, the part that was found in prefix caches; 0 to 1.
    pub cached: f64,
    /// Unix time, s.
    pub at: u64,
}

impl Report {
    /// The same on a line.
    pub fn line(&self) -> String {
        let ready: u32 = self.ready.values().sum();
        format!(
            "{ready} of {} replicas, {} requests ({} under way), {:.1} tokens/s, {:.0} % cached, {}",
            self.wanted.max(ready),
            self.requests,
            self.in_flight,
            self.tokens_per_second,
            100.0 * self.cached,
            self.url,
        )
    }
}

/// What replicas generated of late.
#[derive(Debug, Default)]
pub struct Rate(Mutex<VecDeque<(Instant, u64)>>);

impl Rate {
    /// To be called each [`PERIOD`], with all that was generated so far.
    fn note(&self, now: Instant, generated: u64) {
        let mut past = self.0.lock();
        past.push_back((now, generated));
        if past.len() > PERIODS {
            past.pop_front();
        }
    }

    fn per_second(&self, now: Instant, generated: u64) -> f64 {
        let past = self.0.lock();
        let Some((at, before)) = past.front() else { return 0.0 };
        let elapsed = now.duration_since(*at).as_secs_f64();
        generated.saturating_sub(*before) as f64 / elapsed.max(f64::EPSILON)
    }
}

impl Route {
    pub fn report(&self) -> Report {
        let mut ready = std::collections::BTreeMap::new();
        for member in self.replicas.members().iter().filter(|it| it.is_ready) {
            *ready.entry(member.job).or_default() += 1;
        }
        let tokens = self.replicas.tokens();
        Report {
            url: self.routers.own().url.clone(),
            urls: self.routers.urls(),
            ready,
            wanted: self.wanted.load(Ordering::Relaxed),
            requests: self.figures.requests.get(),
            in_flight: self.figures.in_flight(),
            tokens_per_second: self.rate.per_second(Instant::now(), tokens.generated),
            cached: tokens.found as f64 / tokens.looked_up.max(1) as f64,
            at: seconds(SystemTime::now()),
        }
    }

    /// For a line of status.
    fn line(&self) -> String {
        match self.routers.leader() {
            None => self.report().line(),
            Some(leader) => {
                format!("stands by at {}; {} leads", self.routers.own().url, leader.url)
            }
        }
    }
}

/// Tells until `stop`.
pub async fn tell(route: Arc<Route>, folder: ServiceFolder, stop: CancellationToken) {
    let line = std::env::var_os("FF2_STATUS").map(PathBuf::from);
    route.rate.note(Instant::now(), 0);
    loop {
        route.rate.note(Instant::now(), route.replicas.tokens().generated);
        let (folder, line) = (folder.clone(), line.clone().map(|path| (path, route.line())));
        let report = route.decides().then(|| route.report());
        let written = tokio::task::spawn_blocking(move || {
            if let Some((path, line)) = line {
                // It is shown and no more: the next second has another one.
                let _ = write(&path, &line);
            }
            report.map_or(Ok(()), |report| folder.report(&report))
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "nobody is told how the service does"),
            Err(error) => tracing::warn!(%error, "nobody is told how the service does"),
        }
        if tokio::time::timeout(PERIOD, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// Whole or not at all.
fn write(path: &Path, line: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, line)?;
    fs::rename(&new, path)
}
