//! Ports of clusters that run at the same time.
//!
//! `ff2ctl up` takes any that are free. A server that a test just restarts leaves its own free for a moment, and the
//! cluster of another test could take them: so each test that may run beside others has a range of its own.

use std::{
    env,
    hash::{BuildHasher, RandomState},
    net::TcpListener,
};

use anyhow::{Context, Result, ensure};

/// Those that `ff2ctl up` itself takes from.
const FIRST: u16 = 10_000;
/// Of one slot, of which there are two.
const SLOT: u16 = 10_400;
/// Enough for any cluster of a test.
const CLUSTER: u16 = 100;
const TRIES: u64 = 100;

/// The option that keeps a cluster to the ports of this test; none if no other test may run beside it.
pub(crate) fn of_slot() -> Result<Vec<String>> {
    // From nextest, for tests in a group.
    let Ok(slot) = env::var("NEXTEST_TEST_GROUP_SLOT") else { return Ok(Vec::new()) };
    let Ok(slot) = slot.parse::<u16>() else { return Ok(Vec::new()) };
    ensure!(slot < 2, "tests with clusters have two slots of ports, not {}", slot + 1);
    let random = RandomState::new();
    let base = |at: u64| {
        let offset = random.hash_one(at) % u64::from(SLOT - CLUSTER);
        FIRST + slot * SLOT + offset as u16
    };
    let is_free = |base: &u16| {
        (*base..*base + CLUSTER).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
    };
    let base = (0..TRIES).map(base).find(is_free);
    let base = base.with_context(|| format!("no {CLUSTER} free ports in a row in slot {slot}"))?;
    Ok(vec!["--base-port".into(), base.to_string()])
}
