//! How people and tools look into a daemon.
//!
//! HTTP over the unix socket `<data_dir>/admin.sock` (only this user may open it): `/status`,
//! `/config`, `/inflight`, `/dump`, `/metrics`. Over TCP on `http_listen` only `/metrics`, `/status`
//! and the pages that the daemon adds, since anybody may read there. It never changes anything: what
//! changes the cluster goes through metad's gRPC.

mod client;
mod server;
mod socket;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use axum::Router;
pub use client::{admin_get, admin_text};
use parking_lot::{Mutex, RwLock};
use serde_json::{Map, Value, json};
pub(crate) use server::{serve_socket, serve_tcp};
pub use socket::SOCKET_NAME;

use crate::{fault, inflight::InFlight, limits, metrics::Metrics};

type Provider = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Value> + Send>> + Send + Sync>;

/// What the admin endpoints show; clones share it. The daemon registers what it knows about itself.
#[derive(Clone)]
pub struct Admin {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    version: &'static str,
    config: Value,
    started: Instant,
    ready: AtomicBool,
    metrics: Arc<Metrics>,
    inflight: InFlight,
    status: Mutex<BTreeMap<&'static str, Provider>>,
    dumps: Mutex<BTreeMap<&'static str, Provider>>,
    pages: RwLock<Router>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl Admin {
    pub fn new(
        name: &'static str,
        version: &'static str,
        config: Value,
        metrics: Arc<Metrics>,
        inflight: InFlight,
    ) -> Self {
        let shared = Shared {
            name,
            version,
            config,
            started: Instant::now(),
            ready: AtomicBool::new(false),
            metrics,
            inflight,
            status: Mutex::default(),
            dumps: Mutex::default(),
            pages: RwLock::new(Router::new()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Says that the daemon serves (or no longer does).
    pub fn set_ready(&self, ready: bool) {
        let before = self.shared.ready.swap(ready, Ordering::AcqRel);
        if before != ready {
            tracing::info!(ready, "readiness changed");
        }
    }

    pub fn is_ready(&self) -> bool {
        self.shared.ready.load(Ordering::Acquire)
    }

    /// Adds a part to `/status`, under `key`.
    pub fn status<F, Fut>(&self, key: &'static str, provider: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Value> + Send + 'static,
    {
        let provider: Provider = Arc::new(move || Box::pin(provider()));
        self.shared.status.lock().insert(key, provider);
    }

    /// Adds a part to `/dump`, under `key`: inner state, as large as it takes.
    pub fn dump<F, Fut>(&self, key: &'static str, provider: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Value> + Send + 'static,
    {
        let provider: Provider = Arc::new(move || Box::pin(provider()));
        self.shared.dumps.lock().insert(key, provider);
    }

    /// Serves more pages over TCP, for example a status page. Replaces what was added before.
    pub fn pages(&self, pages: Router) {
        *self.shared.pages.write() = pages;
    }

    pub(crate) async fn show_status(&self) -> Value {
        let providers = self.shared.status.lock().clone();
        let mut status = json!({
            "name": self.shared.name,
            "version": self.shared.version,
            "pid": std::process::id(),
            "ready": self.is_ready(),
            "uptime_s": self.shared.started.elapsed().as_secs(),
            "in_flight": self.shared.inflight.count(),
        });
        let parts = status.as_object_mut().expect("an object was just made");
        parts.extend(ask(providers).await);
        status
    }

    pub(crate) async fn show_dump(&self) -> Value {
        let providers = self.shared.dumps.lock().clone();
        let mut dump = json!({
            "status": self.show_status().await,
            "inflight": self.shared.inflight.dump(),
            "faults": fault::list(),
        });
        dump.as_object_mut().expect("an object was just made").extend(ask(providers).await);
        dump
    }
}

/// Asks all parts, one after the other; a stuck one is reported as such and holds up nobody.
async fn ask(providers: BTreeMap<&'static str, Provider>) -> Map<String, Value> {
    let mut answers = Map::new();
    for (key, provider) in providers {
        let answer = tokio::time::timeout(limits::PROVIDER, provider()).await;
        let answer = answer.unwrap_or_else(|_| json!({ "error": "no answer: this part is stuck" }));
        answers.insert(key.to_owned(), answer);
    }
    answers
}

#[cfg(test)]
mod tests;
