//! The client library against a cluster inside the process: real connections and the real namespace
//! machine, storage in memory, faults switched on by hand.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod behind;
mod failures;
mod fake;
mod files;
mod inline;
mod journal;
mod locks;
mod names;
mod quotas;

use std::time::Duration;

use fake::{CLUSTER_ID, Fake};
use ff2_client::{Client, ClientOptions};

/// A client of uid 0 with a root token.
async fn connect(fake: &Fake) -> Client {
    connect_with(fake, |options| options).await
}

async fn connect_with(fake: &Fake, change: impl FnOnce(ClientOptions) -> ClientOptions) -> Client {
    // Small files are a test of their own; elsewhere they stand for large ones.
    let options = ClientOptions::new(fake.metads(), fake.token(0, true), CLUSTER_ID).inline(false);
    Client::connect(change(options)).await.unwrap()
}

/// Waits until something becomes true; the bound is far above what it takes.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what} did not happen");
}

fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}
