//! Ports and names for a new cluster.

use std::net::TcpListener;

use anyhow::{Context, Result, ensure};

use crate::cluster::HOST;

/// Below the range from which Linux takes ports of outgoing connections (32768 by default): a port
/// there could be taken while its server restarts.
const FIRST: u16 = 10_000;
const LAST: u16 = 31_000;
/// Ranges tried before giving up.
const TRIES: u32 = 200;

/// Where a plan takes what it cannot decide from.
pub(super) trait Ports {
    /// `count` free ports in a row, from `base` if it is given.
    fn free(&self, count: u32, base: Option<u16>) -> Result<Vec<u16>>;
    fn cluster_id(&self) -> Result<String>;
}

/// Asks the system.
pub(super) fn system() -> impl Ports {
    System
}

struct System;

impl Ports for System {
    fn free(&self, count: u32, base: Option<u16>) -> Result<Vec<u16>> {
        free_ports(count, base)
    }

    fn cluster_id(&self) -> Result<String> {
        Ok(format!("local-{:08x}", random()?))
    }
}

fn free_ports(count: u32, base: Option<u16>) -> Result<Vec<u16>> {
    let count = u16::try_from(count).context("a reasonable number of ports")?;
    if let Some(base) = base {
        ensure!(
            base.checked_add(count).is_some(),
            "--base-port {base} is too high for {count} ports"
        );
        let taken: Vec<u16> = range(base, count).filter(|port| !is_free(*port)).collect();
        ensure!(
            taken.is_empty(),
            "ports {taken:?} are in use: choose another --base-port, or leave it out to get free ones"
        );
        return Ok(range(base, count).collect());
    }
    for _ in 0..TRIES {
        // Random, so that two clusters that start together take different ones.
        let span = u32::from(LAST - FIRST - count.min(LAST - FIRST - 1));
        let base = FIRST + (random()? % span) as u16;
        if range(base, count).all(is_free) {
            return Ok(range(base, count).collect());
        }
    }
    anyhow::bail!("no {count} free ports in a row between {FIRST} and {LAST}: give --base-port")
}

fn range(base: u16, count: u16) -> impl Iterator<Item = u16> {
    base..base.saturating_add(count)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((HOST, port)).is_ok()
}

fn random() -> Result<u32> {
    getrandom::u32().map_err(|error| anyhow::anyhow!("no random numbers: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_free_and_a_taken_base_is_told() {
        let ports = free_ports(5, None).unwrap();
        assert_eq!(ports.len(), 5);
        assert!(ports.iter().all(|port| (FIRST..LAST).contains(port)));
        let held = TcpListener::bind((HOST, 0)).unwrap();
        let taken = held.local_addr().unwrap().port();
        let error = free_ports(1, Some(taken)).unwrap_err().to_string();
        assert!(error.contains(&taken.to_string()) && error.contains("--base-port"), "{error}");
        assert!(free_ports(10, Some(u16::MAX - 3)).is_err());
    }
}
