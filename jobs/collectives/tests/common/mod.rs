//! Ranks as threads of a test.

#![allow(dead_code, reason = "each test uses a part")]

use std::{net::TcpListener, path::Path, thread, time::Duration};

use ff2_collectives::{Communicator, Network, Rendezvous};

pub(crate) fn rendezvous(folder: &Path, port: u16, rank: usize, world: usize) -> Rendezvous {
    Rendezvous {
        rank,
        world,
        master: format!("127.0.0.1:{port}"),
        job: "job 1 attempt 1".into(),
        key: folder.join("ranks.key"),
        timeout: Duration::from_secs(20),
        patience: Duration::from_secs(20),
        network: Network::default(),
    }
}

/// One that was free a moment ago.
pub(crate) fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs `work` as every rank and returns what each made.
pub(crate) fn ranks<T: Send>(world: usize, work: impl Fn(Communicator) -> T + Sync) -> Vec<T> {
    let (folder, port) = (tempfile::tempdir().unwrap(), port());
    ranks_of(world, |rank| rendezvous(folder.path(), port, rank, world), work)
}

/// The same, where `own` says how each meets the others.
pub(crate) fn ranks_of<T: Send>(
    world: usize,
    own: impl Fn(usize) -> Rendezvous,
    work: impl Fn(Communicator) -> T + Sync,
) -> Vec<T> {
    thread::scope(|scope| {
        let start = |rank| {
            let (own, work) = (own(rank), &work);
            scope.spawn(move || work(Communicator::meet(own).unwrap()))
        };
        let all: Vec<_> = (0..world).map(start).collect();
        all.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}
