//! The self-fence: how long this node may serve without hearing from the cluster.
//!
//! A node whose lease ran out is declared dead by the group-0 leader one full lease after the last
//! heartbeat that the leader *received*. The node stops at half a lease after it *sent* the last
//! heartbeat that was answered. Sending comes before receiving, so the node has always stopped at
//! least half a lease before others take over, whatever the network did to the messages. The clock
//! is CLOCK_BOOTTIME: it goes on while the machine sleeps, and nobody can set it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on CLOCK_BOOTTIME.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootTime(u64);

impl BootTime {
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).expect("time since boot is not negative");
        let nanos = u64::try_from(now.tv_nsec).expect("a timespec is normalised");
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }
}

/// The arithmetic, without a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct HalfLease {
    /// Valid strictly before this time; 0 when no heartbeat was answered yet.
    until_ns: u64,
}

impl HalfLease {
    /// A heartbeat sent at `sent` was answered with this lease. An answer that comes out of order
    /// never shortens what a later heartbeat gained.
    fn renewed(self, sent: BootTime, lease: Duration) -> Self {
        let half = u64::try_from(lease.as_nanos() / 2).unwrap_or(u64::MAX);
        Self { until_ns: self.until_ns.max(sent.0.saturating_add(half)) }
    }

    fn remaining(self, now: BootTime) -> Duration {
        Duration::from_nanos(self.until_ns.saturating_sub(now.0))
    }
}

/// Whether this node may serve; cheap to ask before each I/O, shared by clones.
#[derive(Clone)]
pub struct Lease {
    until_ns: Arc<AtomicU64>,
}

impl Lease {
    /// Not valid until the first heartbeat is answered.
    pub(crate) fn new() -> Self {
        Self { until_ns: Arc::new(AtomicU64::new(0)) }
    }

    /// A lease that never ends, for tests and tools that serve without a cluster.
    pub fn endless() -> Self {
        Self { until_ns: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// False from half a lease after the sending of the last heartbeat that was answered.
    pub fn is_valid(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// How long it is valid without another answer.
    pub fn remaining(&self) -> Duration {
        let half = HalfLease { until_ns: self.until_ns.load(Ordering::Acquire) };
        half.remaining(BootTime::now())
    }

    pub(crate) fn renew(&self, sent: BootTime, lease: Duration) {
        let half = HalfLease::default().renewed(sent, lease);
        self.until_ns.fetch_max(half.until_ns, Ordering::AcqRel);
    }

    /// Ends now: a clean leave, or another process has taken this node's place.
    pub(crate) fn revoke(&self) {
        self.until_ns.store(0, Ordering::Release);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("remaining", &self.remaining()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    fn at(ms: u64) -> BootTime {
        BootTime(ms * 1_000_000)
    }

    fn valid(lease: HalfLease, now: BootTime) -> bool {
        !lease.remaining(now).is_zero()
    }

    #[test]
    fn nothing_is_served_before_the_first_answer() {
        assert!(!valid(HalfLease::default(), at(0)));
        assert!(!Lease::new().is_valid());
    }

    #[test]
    fn half_a_lease_counts_from_the_sending() {
        let lease = HalfLease::default().renewed(at(10_000), LEASE);
        assert!(valid(lease, at(11_499)));
        assert!(!valid(lease, at(11_500)));
        assert_eq!(lease.remaining(at(11_000)), Duration::from_millis(500));
    }

    #[test]
    fn an_answer_that_comes_too_late_renews_nothing() {
        // Sent at 10 s, the process is stopped (or the machine sleeps), the answer is read at 20 s.
        let lease = HalfLease::default().renewed(at(10_000), LEASE);
        assert!(!valid(lease, at(20_000)));
        let lease = lease.renewed(at(20_000), LEASE);
        assert!(valid(lease, at(20_001)));
    }

    #[test]
    fn a_pause_of_the_process_ends_the_lease_without_any_event() {
        let lease = HalfLease::default().renewed(at(10_000), LEASE);
        assert!(valid(lease, at(10_100)));
        // Nothing runs for two seconds; the first question after it must be answered with no.
        assert!(!valid(lease, at(12_100)));
    }

    #[test]
    fn answers_out_of_order_never_shorten() {
        let lease = HalfLease::default().renewed(at(12_000), LEASE).renewed(at(11_000), LEASE);
        assert!(valid(lease, at(13_499)));
        // The cluster shortens the lease: the next heartbeat may not cut what was promised before,
        // since the leader judges by the lease that it gave.
        let shorter = lease.renewed(at(12_100), Duration::from_millis(200));
        assert!(valid(shorter, at(13_499)));
    }

    #[test]
    fn the_node_stops_before_the_leader_may_declare_it_dead() {
        // Worst case: the heartbeat travels without delay, so the leader's count starts at once.
        for sent in [0, 1, 999, 123_456] {
            let lease = HalfLease::default().renewed(at(sent), LEASE);
            let declared_dead = at(sent + 3_000);
            assert!(!valid(lease, declared_dead));
            assert!(declared_dead.0 - lease.until_ns >= 1_500_000_000);
        }
    }

    #[test]
    fn absurd_numbers_saturate() {
        let lease = HalfLease::default().renewed(BootTime(u64::MAX - 1), Duration::MAX);
        assert_eq!(lease.until_ns, u64::MAX);
    }

    #[test]
    fn the_shared_lease_follows_the_clock() {
        let lease = Lease::new();
        let seen_by_a_worker = lease.clone();
        lease.renew(BootTime::now(), Duration::from_secs(3_600));
        assert!(seen_by_a_worker.is_valid());
        lease.revoke();
        assert!(!seen_by_a_worker.is_valid());
        lease.renew(BootTime(0), Duration::from_millis(1));
        assert!(!seen_by_a_worker.is_valid());
    }
}
