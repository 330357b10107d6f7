//! A server as one of several of a service: its secrets come from the service's folder, and there it says where it is.

use std::{env, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use ff2_server::{
    limits,
    route::{
        folder::{Entry, ServiceFolder},
        roll::{Announced, Roll},
    },
};
use tokio_util::sync::CancellationToken;

/// Between two looks for the secrets.
const LOOK: Duration = Duration::from_millis(200);

/// Opens the folder and waits for the router to make its secrets.
///
/// # Errors
/// A folder that cannot be used, or a router that does not come.
pub(crate) fn join(path: &Path) -> Result<ServiceFolder> {
    let folder = ServiceFolder::open(path)?;
    let begun = std::time::Instant::now();
    while !folder.has_secrets() {
        if begun.elapsed() > limits::SECRETS_PATIENCE {
            bail!(
                "{} has no secrets: start its router, `ff2-serve route {}`",
                path.display(),
                path.display()
            );
        }
        std::thread::sleep(LOOK);
    }
    Ok(folder)
}

/// Another one at each start.
///
/// # Errors
/// No randomness.
pub(crate) fn id() -> Result<String> {
    let mut drawn = [0; 6];
    getrandom::fill(&mut drawn).context("draw an id")?;
    Ok(drawn.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// How this process is announced; as a job with its number and its place in it.
///
/// # Errors
/// No randomness for an id.
pub(crate) fn entry(address: std::net::SocketAddr) -> Result<Entry> {
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let index = number("FF2_REPLICA").unwrap_or(0) as u32;
    Ok(Entry { id: id()?, address, index, job: number("FF2_SERVICE").unwrap_or(0) })
}

/// Keeps this process announced until `stop`, also after somebody took it for dead.
pub(crate) async fn stay_announced<T: Announced>(roll: Roll<T>, entry: T, stop: CancellationToken) {
    loop {
        let (roll_, entry_) = (roll.clone(), entry.clone());
        let announced =
            tokio::task::spawn_blocking(move || match roll_.is_announced(entry_.id()) {
                true => Ok(()),
                false => roll_.announce(&entry_),
            });
        match announced.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the service does not know of this process"),
            Err(error) => tracing::warn!(%error, "the service does not know of this process"),
        }
        if tokio::time::timeout(limits::ANNOUNCE_LOOK, stop.cancelled()).await.is_ok() {
            break;
        }
    }
    let gone = tokio::task::spawn_blocking(move || roll.withdraw(entry.id()));
    if let Err(error) = gone.await {
        tracing::warn!(%error, "the service finds out by itself that this process is gone");
    }
}
