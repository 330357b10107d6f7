//! The routers of a service. Each is an address; the one that began first leads: it alone chooses replicas, counts what
//! keys use and says how many replicas there should be. The others hand on to it what they are asked, and the next one
//! leads when it is silent or gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::folder::RouterEntry;
use crate::limits;

/// See the module.
#[derive(Debug)]
pub struct Routers {
    own: RouterEntry,
    others: Mutex<BTreeMap<String, Other>>,
}

#[derive(Debug)]
struct Other {
    entry: RouterEntry,
    /// When it answered last.
    heard: Instant,
    failures: u32,
    /// Cancelled when it is silent: what it has not begun to answer goes elsewhere.
    lost: CancellationToken,
}

/// Another router that leads.
#[derive(Debug, Clone)]
pub struct Leader {
    pub inside: SocketAddr,
    pub url: String,
    pub lost: CancellationToken,
}

impl Routers {
    pub fn new(own: RouterEntry) -> Self {
        Self { own, others: Mutex::default() }
    }

    pub fn own(&self) -> &RouterEntry {
        &self.own
    }

    /// Takes over who is announced. Returns those that are not there any more: who had this router's address before.
    pub fn set(&self, entries: Vec<RouterEntry>, now: Instant) -> Vec<RouterEntry> {
        let of_others = entries.into_iter().filter(|entry| entry.id != self.own.id);
        let (gone, there): (Vec<_>, Vec<_>) =
            of_others.partition(|entry| entry.url == self.own.url);
        let ids: BTreeSet<&str> = there.iter().map(|entry| entry.id.as_str()).collect();
        let mut others = self.others.lock();
        others.retain(|id, _| ids.contains(id.as_str()));
        for entry in there {
            others.entry(entry.id.clone()).or_insert_with(|| {
                tracing::info!(id = entry.id, url = entry.url, "another router");
                Other { entry, heard: now, failures: 0, lost: CancellationToken::new() }
            });
        }
        gone
    }

    pub fn others(&self) -> Vec<RouterEntry> {
        self.others.lock().values().map(|it| it.entry.clone()).collect()
    }

    /// It answered.
    pub fn heard(&self, id: &str, now: Instant) {
        if let Some(other) = self.others.lock().get_mut(id) {
            (other.heard, other.failures) = (now, 0);
        }
    }

    /// It did not answer. Returns for how long it has been silent.
    pub fn missed(&self, id: &str, now: Instant) -> Duration {
        let mut others = self.others.lock();
        let Some(other) = others.get_mut(id) else { return Duration::ZERO };
        other.failures += 1;
        if other.failures == limits::ROUTER_FAILURES_MAX {
            tracing::warn!(id, url = other.entry.url, "is silent: the next router leads");
            std::mem::take(&mut other.lost).cancel();
        }
        now.duration_since(other.heard)
    }

    /// None: this router leads.
    pub fn leader(&self) -> Option<Leader> {
        let others = self.others.lock();
        let before =
            others.values().filter(|it| it.is_there() && it.entry.place() < self.own.place());
        let first = before.min_by_key(|it| it.entry.place())?;
        let RouterEntry { inside, url, .. } = first.entry.clone();
        Some(Leader { inside, url, lost: first.lost.clone() })
    }

    pub fn leads(&self) -> bool {
        self.leader().is_none()
    }

    /// Whether another one would lead if this one did not.
    pub fn has_other(&self) -> bool {
        self.others.lock().values().any(Other::is_there)
    }

    /// Addresses for clients: the one that leads first.
    pub fn urls(&self) -> Vec<String> {
        let others = self.others.lock();
        let there = others.values().filter(|it| it.is_there()).map(|it| &it.entry);
        let mut all: Vec<&RouterEntry> = there.chain([&self.own]).collect();
        all.sort_by_key(|entry| entry.place());
        all.into_iter().map(|entry| entry.url.clone()).collect()
    }
}

impl Other {
    fn is_there(&self) -> bool {
        self.failures < limits::ROUTER_FAILURES_MAX
    }
}

impl RouterEntry {
    /// In the order of leading. Who comes later never takes the lead from one that has it.
    pub fn place(&self) -> (u64, &str) {
        (self.since_ms, &self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, since_ms: u64) -> RouterEntry {
        let inside = ([127, 0, 0, 1], 1).into();
        RouterEntry { id: id.to_owned(), since_ms, inside, url: format!("http://{id}") }
    }

    fn silent(routers: &Routers, id: &str) {
        for _ in 0..limits::ROUTER_FAILURES_MAX {
            routers.missed(id, Instant::now());
        }
    }

    #[test]
    fn the_eldest_that_is_there_leads() {
        let (routers, now) = (Routers::new(entry("b", 2)), Instant::now());
        assert!(routers.leads() && !routers.has_other());
        assert_eq!(routers.set(vec![entry("a", 1), entry("b", 2), entry("c", 3)], now), []);
        assert_eq!(routers.urls(), ["http://a", "http://b", "http://c"]);
        let leader = routers.leader().unwrap();
        assert_eq!(leader.url, "http://a");
        routers.missed("a", now);
        assert!(!routers.leads(), "once is nothing");
        silent(&routers, "a");
        assert!(leader.lost.is_cancelled() && routers.leads());
        assert_eq!(routers.urls(), ["http://b", "http://c"]);
        // One that was cut off leads again: it began first.
        routers.heard("a", now);
        let leader = routers.leader().unwrap();
        assert!(leader.url == "http://a" && !leader.lost.is_cancelled());
        // One that leaves finishes what it has.
        routers.set(vec![entry("c", 3)], now);
        assert!(routers.leads() && !leader.lost.is_cancelled());
        silent(&routers, "c");
        assert!(!routers.has_other());
    }

    #[test]
    fn of_one_age_the_first_by_name_leads() {
        let (one, two) = (Routers::new(entry("a", 1)), Routers::new(entry("b", 1)));
        one.set(vec![entry("b", 1)], Instant::now());
        two.set(vec![entry("a", 1)], Instant::now());
        assert!(one.leads() && !two.leads());
    }

    #[test]
    fn who_had_this_address_before_is_gone() {
        let routers = Routers::new(entry("b", 2));
        let before = RouterEntry { id: "a".to_owned(), since_ms: 1, ..entry("b", 2) };
        assert_eq!(routers.set(vec![before.clone()], Instant::now()), [before]);
        assert!(routers.leads() && !routers.has_other());
    }
}
