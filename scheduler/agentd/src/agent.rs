//! The conversation with the scheduler.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use ff2_fabric::{AgentsClient, Call, leader::LeaderFinder};
use ff2_proto::{Status, pb};
use ff2_sched_machine::actions;
use ff2_task::keeper::boot_ms;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    data, limits, links, pair,
    runs::Runs,
    validation::{Found, Validator},
};

#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) node: pb::AgentNode,
    pub(crate) jobs_dir: PathBuf,
    pub(crate) finder: LeaderFinder,
    pub(crate) runs: Arc<Mutex<Runs>>,
    pub(crate) validator: Arc<Validator>,
    pub(crate) validated: Mutex<Found>,
    /// The last that was answered, and the last that another node was waited for.
    pub(crate) data: Mutex<data::Answer>,
    pub(crate) pair: Mutex<Option<pb::PairServer>>,
    /// Network interfaces that are watched beside those of cards.
    pub(crate) links: Vec<String>,
    /// It may open files as any user.
    pub(crate) is_root: bool,
    /// What it last carried out.
    pub(crate) seen: Mutex<Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) version: u64,
    pub(crate) orders: u64,
    /// Until when runs may go on, ms since the machine started.
    pub(crate) until_boot_ms: u64,
}

impl Agent {
    /// Asks and carries out, until `stop`. `answered` is called with each answer.
    pub(crate) async fn talk(&self, stop: &CancellationToken, answered: impl Fn()) {
        let mut told = false;
        loop {
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.round() => outcome,
            };
            match outcome {
                Ok(was_answered) => {
                    if was_answered {
                        if told {
                            tracing::info!("a scheduler answers again");
                        }
                        told = false;
                        answered();
                    }
                    continue;
                }
                Err(problem) if !told => {
                    tracing::warn!(problem, "this node takes no jobs until this is mended");
                    told = true;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(limits::PAUSE) => {}
            }
        }
    }

    /// Whether there was an answer.
    async fn round(&self) -> Result<bool, String> {
        self.see_jobs_dir().await?;
        let reports = self.with_runs(|runs| {
            runs.look();
            runs.reports()
        });
        let reports = reports.await;
        let seen = *self.seen.lock();
        let validated = self.validated.lock().clone();
        let held = self.data.lock().clone();
        let (links, links_at_ms) = self.look_at_links().await?;
        let request = pb::AgentSyncRequest {
            node: Some(self.node.clone()),
            runs: reports.clone(),
            seen_version: seen.version,
            seen_orders: seen.orders,
            validated: validated.number,
            validation: validated.report,
            data_asked: held.number,
            data: held.data,
            pair: self.pair.lock().clone(),
            links,
            links_at_ms,
            wait_ms: u32::try_from(limits::WAIT.as_millis()).unwrap_or(u32::MAX),
        };
        // The lease counts from before the question.
        let asked_boot_ms = boot_ms();
        let reply = tokio::select! {
            reply = self.ask(&request) => reply.map_err(|status| status.to_string())?,
            // What has ended here is told at once: dropping the question takes nothing back.
            () = self.something_ended() => return Ok(false),
        };
        let until_boot_ms = asked_boot_ms + u64::from(reply.lease_ms);
        self.answer_data(reply.data_asked, reply.data).await?;
        self.wait_for_pair(reply.serve_pair, reply.serve_token).await?;
        let orders = reply.runs;
        let is_idle = self.with_runs(move |runs| {
            runs.renew(until_boot_ms);
            runs.carry_out(actions(&reports, &orders), until_boot_ms);
            orders.is_empty() && !runs.are_live()
        });
        if is_idle.await && reply.validate > self.validated.lock().number {
            let token = reply.validate_token;
            self.validate(reply.validate, reply.validate_with, token, &request).await?;
        }
        *self.seen.lock() =
            Seen { version: reply.version, orders: reply.orders_hash, until_boot_ms };
        Ok(true)
    }

    /// Nothing is started meanwhile; so that nobody takes the node for dead, it says again what it said before.
    async fn validate(
        &self,
        number: u64,
        with: String,
        token: String,
        said: &pb::AgentSyncRequest,
    ) -> Result<(), String> {
        let validator = self.validator.clone();
        let run = tokio::task::spawn_blocking(move || {
            let peer = (!with.is_empty()).then(|| pair::peer(&with, &token)).flatten();
            validator.run(number, peer)
        });
        let still_here = async {
            loop {
                let reply = self.ask(said).await;
                tracing::debug!(is_heard = reply.is_ok(), "this node looks at itself");
                tokio::time::sleep(limits::PAUSE).await;
            }
        };
        let found = tokio::select! {
            found = run => found.map_err(|error| error.to_string())?,
            never = still_here => never,
        };
        *self.validated.lock() = found;
        Ok(())
    }

    async fn answer_data(&self, number: u64, asked: Vec<pb::DataAsk>) -> Result<(), String> {
        if number == 0 || number == self.data.lock().number {
            return Ok(());
        }
        let is_root = self.is_root;
        let answer = tokio::task::spawn_blocking(move || data::look(number, &asked, is_root)).await;
        *self.data.lock() = answer.map_err(|error| error.to_string())?;
        Ok(())
    }

    async fn wait_for_pair(&self, number: u64, token: String) -> Result<(), String> {
        if number == 0 || self.pair.lock().as_ref().is_some_and(|pair| pair.number == number) {
            return Ok(());
        }
        let host = self.node.host.clone();
        let pair = tokio::task::spawn_blocking(move || pair::wait(&host, number, &token)).await;
        *self.pair.lock() = Some(pair.map_err(|error| error.to_string())?);
        Ok(())
    }

    async fn look_at_links(&self) -> Result<(Vec<pb::LinkReading>, u64), String> {
        let also = self.links.clone();
        let look = move || (links::look(Path::new("/sys"), &also), boot_ms());
        tokio::task::spawn_blocking(look).await.map_err(|error| error.to_string())
    }

    async fn ask(&self, request: &pb::AgentSyncRequest) -> Result<pb::AgentSyncReply, Status> {
        let deadline = Instant::now() + limits::PATIENCE;
        self.finder
            .call(deadline, |channel, limit| async move {
                let client = AgentsClient::new(channel);
                let (reply, _) = client.sync(request, Call::within(limit)).await?;
                Ok(reply)
            })
            .await
    }

    async fn something_ended(&self) {
        loop {
            tokio::time::sleep(limits::LOOK).await;
            let live = self.runs.lock().are_live();
            if live && self.with_runs(Runs::look).await {
                return;
            }
        }
    }

    /// Jobs have their folders on the file system: without it nothing could run. One that hangs makes this node
    /// silent, and then its jobs go elsewhere.
    async fn see_jobs_dir(&self) -> Result<(), String> {
        if self.node.ports_only {
            return Ok(());
        }
        let path = self.jobs_dir.clone();
        let found = tokio::task::spawn_blocking(move || std::fs::metadata(&path)).await;
        let shown = self.jobs_dir.display();
        match found {
            Ok(Ok(found)) if found.is_dir() => Ok(()),
            Ok(Ok(_)) => Err(format!("jobs_dir {shown} is not a folder")),
            Ok(Err(error)) => Err(format!("jobs_dir {shown}: {error}: is the volume mounted?")),
            Err(error) => Err(format!("jobs_dir {shown} was not looked at: {error}")),
        }
    }

    async fn with_runs<R: Send + 'static>(
        &self,
        with: impl FnOnce(&mut Runs) -> R + Send + 'static,
    ) -> R {
        let runs = self.runs.clone();
        let done = tokio::task::spawn_blocking(move || with(&mut runs.lock())).await;
        done.expect("what is done with runs does not panic")
    }

    /// How long runs may still go on without another answer.
    pub(crate) fn lease_left(&self) -> Duration {
        Duration::from_millis(self.seen.lock().until_boot_ms.saturating_sub(boot_ms()))
    }
}
