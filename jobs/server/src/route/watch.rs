//! Who the replicas and routers are, and how they are: a loop for each, so that neither a folder that hangs nor a slow
//! replica stops a question to others.

use std::{sync::Arc, time::Instant};

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{
    folder::{Entry, RouterEntry, ServiceFolder},
    http::Route,
};
use crate::limits;

/// Reads who is announced, again and again, until `stop`.
pub async fn follow_folder(route: Arc<Route>, folder: ServiceFolder, stop: CancellationToken) {
    loop {
        let read = {
            let folder = folder.clone();
            tokio::task::spawn_blocking(move || {
                (folder.replicas().entries(), folder.routers().entries())
            })
        };
        match read.await {
            Ok((replicas, routers)) => {
                match replicas {
                    Ok(entries) => route.replicas.set(entries, Instant::now()),
                    Err(error) => tracing::warn!(%error, "the replicas of before are taken"),
                }
                match routers {
                    Ok(entries) => forget(&folder, route.routers.set(entries, Instant::now())),
                    Err(error) => tracing::warn!(%error, "the routers of before are taken"),
                }
            }
            Err(error) => tracing::warn!(%error, "who was there before is taken"),
        }
        if tokio::time::timeout(limits::REPLICA_LOOK, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// Asks all replicas how they are, again and again, until `stop`.
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

/// Asks the other routers whether they are there, again and again, until `stop`.
pub async fn follow_routers(route: Arc<Route>, folder: ServiceFolder, stop: CancellationToken) {
    loop {
        let begun = tokio::time::Instant::now();
        let asked = route.routers.others().into_iter().map(|entry| ask_router(&route, entry));
        forget(&folder, join_all(asked).await.into_iter().flatten().collect());
        let next = begun + limits::REPLICA_LOOK;
        if tokio::time::timeout_at(next, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// Returns one that has been silent for so long that it is dead, most likely.
async fn ask_router(route: &Arc<Route>, entry: RouterEntry) -> Option<RouterEntry> {
    match route.upstream.report(entry.inside).await {
        Ok(_) => {
            route.routers.heard(&entry.id, Instant::now());
            None
        }
        Err(error) => {
            tracing::debug!(id = entry.id, error = format!("{error:#}"), "not heard");
            let silent = route.routers.missed(&entry.id, Instant::now());
            (silent >= limits::REPLICA_FORGOTTEN).then_some(entry)
        }
    }
}

fn forget(folder: &ServiceFolder, gone: Vec<RouterEntry>) {
    for entry in gone {
        tracing::info!(id = entry.id, url = entry.url, "a router is forgotten");
        let folder = folder.clone();
        // Nothing waits for it: what stays is found again.
        tokio::task::spawn_blocking(move || folder.routers().withdraw(&entry.id));
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
                tokio::task::spawn_blocking(move || folder.replicas().withdraw(&entry.id));
            }
        }
    }
}
