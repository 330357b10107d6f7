//! Who the replicas are, and how they are: two loops, so that a folder that hangs stops no question to replicas.

use std::{sync::Arc, time::Instant};

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{
    folder::{Entry, ServiceFolder},
    http::Route,
};
use crate::limits;

/// Reads who is announced, again and again, until `stop`.
pub async fn follow_folder(route: Arc<Route>, folder: ServiceFolder, stop: CancellationToken) {
    loop {
        let read = {
            let folder = folder.clone();
            tokio::task::spawn_blocking(move || folder.entries())
        };
        match read.await {
            Ok(Ok(entries)) => route.replicas.set(entries, Instant::now()),
            Ok(Err(error)) => tracing::warn!(%error, "the replicas of before are taken"),
            Err(error) => tracing::warn!(%error, "the replicas of before are taken"),
        }
        if tokio::time::timeout(limits::REPLICA_LOOK, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// Asks all how they are, again and again, until `stop`.
pub async fn follow_replicas(route: Arc<Route>, folder: ServiceFolder, stop: CancellationToken) {
    loop {
        let begun = tokio::time::Instant::now();
        let entries = route.replicas.entries();
        join_all(entries.into_iter().map(|entry| ask(&route, &folder, entry))).await;
        let next = begun + limits::REPLICA_LOOK;
        if tokio::time::timeout_at(next, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

async fn ask(route: &Arc<Route>, folder: &ServiceFolder, entry: Entry) {
    match route.upstream.load(entry.address).await {
        Ok(load) => route.replicas.heard(&entry.id, load, Instant::now()),
        Err(error) => {
            tracing::debug!(id = entry.id, error = format!("{error:#}"), "not heard");
            let silent = route.replicas.missed(&entry.id, Instant::now());
            if silent >= limits::REPLICA_FORGOTTEN {
                tracing::warn!(id = entry.id, ?silent, "forgotten: it is dead, most likely");
                let folder = folder.clone();
                // Nothing waits for it: what stays is found again.
                tokio::task::spawn_blocking(move || folder.withdraw(&entry.id));
            }
        }
    }
}
