//! Keeps a [`RoutingCache`] fresh by long polls: for mounts, and for daemons between heartbeats.
//!
//! Any metad will do. One that answers with less than what somebody else spoke of is behind: the
//! next is asked.

use std::{sync::Arc, time::Duration};

use ff2_proto::{RoutingVersion, Status, pb};
use tokio::{sync::watch, task::JoinHandle};

use super::RoutingCache;
use crate::{Call, ClusterClient, Peers, clock, leader::backoff};

/// A metad holds the question this long when nothing changes.
const HOLD: Duration = Duration::from_secs(10);
/// A metad that answers "nothing new" sooner does not hold questions (it stops, or it is another
/// one's turn); asking it again at once would be a tight loop.
const HELD: Duration = Duration::from_millis(100);
/// On top of it, for the way there and back and a busy metad.
const SLACK: Duration = Duration::from_secs(2);
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The task that asks; it ends with [`RoutingWatch::stop`] or when this is dropped.
#[derive(Debug)]
pub struct RoutingWatch {
    task: JoinHandle<()>,
}

impl RoutingWatch {
    pub fn start(metads: Vec<String>, peers: Arc<Peers>, routing: Arc<RoutingCache>) -> Self {
        let heard = routing.heard();
        let asking = Asking { metads, peers, routing, at: backoff::random_index() };
        Self { task: tokio::spawn(asking.run(heard)) }
    }

    pub fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for RoutingWatch {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Asking {
    metads: Vec<String>,
    peers: Arc<Peers>,
    routing: Arc<RoutingCache>,
    /// Which metad is asked, modulo their number.
    at: usize,
}

impl Asking {
    async fn run(mut self, mut heard: watch::Receiver<RoutingVersion>) {
        if self.metads.is_empty() {
            tracing::error!("no metad address is configured: the routing stays as it is");
            return;
        }
        let mut pause = PAUSE_MIN;
        loop {
            let known = self.routing.version();
            let wanted = *heard.borrow_and_update();
            let hold = if wanted > known { Duration::ZERO } else { HOLD };
            let started = clock::now();
            // A rumour of something newer interrupts the long poll; the poll has no effect to lose.
            let outcome = tokio::select! {
                outcome = self.ask(known, hold) => outcome,
                _ = heard.wait_for(|heard| *heard > known && hold > Duration::ZERO) => continue,
            };
            let fresh = self.routing.version();
            let useful = match outcome {
                Ok(()) => fresh > known || (wanted <= known && clock::now() >= started + HELD),
                Err(ref status) => {
                    tracing::debug!(%status, "asking for the routing failed");
                    false
                }
            };
            if useful && fresh >= wanted {
                pause = PAUSE_MIN;
                continue;
            }
            self.at = self.at.wrapping_add(1);
            tokio::time::sleep(backoff::jittered(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn ask(&self, known: RoutingVersion, hold: Duration) -> Result<(), Status> {
        let address = &self.metads[self.at % self.metads.len()];
        let request = pb::WatchRoutingRequest {
            since: known.0,
            wait_ms: u32::try_from(hold.as_millis()).unwrap_or(u32::MAX),
        };
        let call = Call { timeout: hold + SLACK, ..Call::default() };
        let client = ClusterClient::new(self.peers.channel(address));
        let (delta, _) = client.watch_routing(&request, call).await?;
        let version = RoutingVersion(delta.version);
        if !self.routing.apply(delta) {
            self.routing.heard_of(version);
        }
        Ok(())
    }
}
