//! How the service does, for people: a file in its folder for `ff2ctl serve`, and as a job a line of status, which the
//! scheduler's page shows (docs/JOBS.md).

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{folder::ServiceFolder, http::Route, replicas::Tokens};
use crate::service::seconds;

const PERIOD: Duration = Duration::from_secs(1);
/// Tokens a second are those of so many periods.
const PERIODS: usize = 10;

/// What is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub url: String,
    /// Replicas that take requests, by their job.
    pub ready: std::collections::BTreeMap<u64, u32>,
    /// There should be; 0: nobody said, or not known yet.
    pub wanted: u32,
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

/// Tells until `stop`.
pub async fn tell(
    route: Arc<Route>,
    folder: ServiceFolder,
    url: String,
    wanted: Arc<AtomicU32>,
    stop: CancellationToken,
) {
    let line = std::env::var_os("FF2_STATUS").map(PathBuf::from);
    let mut past = VecDeque::from([(Instant::now(), Tokens::default())]);
    loop {
        let tokens = route.replicas.tokens();
        past.push_back((Instant::now(), tokens));
        if past.len() > PERIODS {
            past.pop_front();
        }
        let (at, before) = past[0];
        let generated = tokens.generated.saturating_sub(before.generated);
        let mut ready = std::collections::BTreeMap::new();
        for member in route.replicas.members().iter().filter(|it| it.is_ready) {
            *ready.entry(member.job).or_default() += 1;
        }
        let report = Report {
            url: url.clone(),
            ready,
            wanted: wanted.load(Ordering::Relaxed),
            requests: route.figures.requests.get(),
            in_flight: route.figures.in_flight(),
            tokens_per_second: generated as f64 / at.elapsed().as_secs_f64().max(f64::EPSILON),
            cached: tokens.found as f64 / tokens.looked_up.max(1) as f64,
            at: seconds(SystemTime::now()),
        };
        let (folder, line) = (folder.clone(), line.clone());
        let written = tokio::task::spawn_blocking(move || {
            if let Some(line) = line {
                // It is shown and no more: the next second has another one.
                let _ = write(&line, &report.line());
            }
            folder.report(&report)
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
