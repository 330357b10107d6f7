//! Carries out what `fleet` decides: drains replicas, and tells the scheduler by its command line, as an operator
//! would.

use std::{
    process::Stdio,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::{
    fleet::{Fleet, FleetOptions, Order, Plan},
    folder::ServiceFolder,
    http::Route,
};

const LOOK: Duration = Duration::from_secs(1);
/// After an order that the scheduler did not take.
const PAUSE: Duration = Duration::from_secs(5);
/// A scheduler that is silent is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks at the plan and the replicas until `stop`. Only a router that leads decides.
pub async fn direct(
    route: Arc<Route>,
    folder: ServiceFolder,
    options: FleetOptions,
    stop: CancellationToken,
) {
    let mut fleet = Fleet::new(options, Instant::now());
    let mut pause = LOOK;
    while tokio::time::timeout(pause, stop.cancelled()).await.is_err() {
        pause = LOOK;
        if !route.decides() {
            // Whoever takes the lead again begins with what it finds, as one that starts anew.
            fleet = Fleet::new(options, Instant::now());
            continue;
        }
        let read = {
            let folder = folder.clone();
            tokio::task::spawn_blocking(move || folder.plan())
        };
        let plan = match read.await.map_err(anyhow::Error::from) {
            Ok(Ok(Some(plan))) => plan,
            // Replicas that somebody starts by hand are taken as they are.
            Ok(Ok(None)) => continue,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the plan is not understood");
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "the plan was not read");
                continue;
            }
        };
        let decision = fleet.step(Instant::now(), &plan, &route.replicas.members());
        route.wanted.store(fleet.wanted().unwrap_or(0), Ordering::Relaxed);
        route.replicas.drain(&decision.drain);
        for order in decision.orders.into_iter().filter(|_| !plan.scheduler.is_empty()) {
            match give(&plan, order).await {
                Ok(()) => tracing::info!(?order, "ordered"),
                Err(error) => {
                    tracing::warn!(?order, error = format!("{error:#}"), "will be ordered again");
                    fleet.failed(order);
                    pause = PAUSE;
                }
            }
        }
    }
}

async fn give(plan: &Plan, order: Order) -> Result<()> {
    let words = match order {
        Order::Scale { job, min, max } => {
            vec!["job".into(), "scale".into(), job.to_string(), min.to_string(), max.to_string()]
        }
        Order::Cancel { job } => vec!["job".into(), "cancel".into(), job.to_string()],
    };
    let (program, first) = plan.scheduler.split_first().context("the plan names no program")?;
    let mut command = Command::new(program);
    command.args(first).args(&words).stdin(Stdio::null()).kill_on_drop(true);
    let ran = tokio::time::timeout(PATIENCE, command.output()).await;
    let ran =
        ran.context("the scheduler is silent")?.with_context(|| format!("start {program}"))?;
    let told = String::from_utf8_lossy(&ran.stderr);
    // Cancelled is cancelled, whoever did it.
    let is_over = matches!(order, Order::Cancel { .. }) && told.contains("has ended");
    if !ran.status.success() && !is_over {
        bail!("{} {}: {}", program, words.join(" "), told.trim());
    }
    Ok(())
}
