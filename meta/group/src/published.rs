//! How far the group's thread is, and until when readers on other threads may answer without asking it.

use std::time::Duration;

use crate::word::Word;

/// Written by the group's thread alone.
#[derive(Debug)]
pub(crate) struct Published<W> {
    /// Nanoseconds of the group's clock; 0 without a lease.
    lease_until: W,
    commit: W,
    applied: W,
}

impl<W: Word> Published<W> {
    pub(crate) fn new(commit: u64, applied: u64) -> Self {
        Self { lease_until: W::new(0), commit: W::new(commit), applied: W::new(applied) }
    }

    /// Before outputs are performed: what others hear of, readers here must not lack. The lease comes last, so
    /// that whoever sees a new one sees what it was given for.
    pub(crate) fn publish(&self, commit: u64, applied: u64, lease: Option<Duration>) {
        let nanos = lease.map_or(0, |until| until.as_nanos().try_into().unwrap_or(0));
        self.commit.store(commit);
        self.applied.store(applied);
        self.lease_until.store(nanos);
    }

    /// Look here first, and then whether the state [shows all](Self::shows_all).
    pub(crate) fn lease_until(&self) -> Duration {
        Duration::from_nanos(self.lease_until.load())
    }

    /// Whether the state has all that is committed. A follower may already serve what is.
    pub(crate) fn shows_all(&self) -> bool {
        let applied = self.applied.load();
        applied >= self.commit.load()
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applied.load()
    }
}

#[cfg(test)]
mod tests {
    use loom::{
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering::SeqCst},
        },
        thread,
    };

    use super::*;

    const LEASE: Option<Duration> = Some(Duration::from_nanos(1));

    /// A group of which commands are numbers: its state is the last that was applied.
    struct Model {
        published: Published<AtomicU64>,
        state: AtomicU64,
        /// What somebody elsewhere was answered.
        answered: AtomicU64,
    }

    impl Model {
        /// As a reader that has a lease does; whoever was answered before must find it here.
        fn read(&self) {
            let answered = self.answered.load(SeqCst);
            if !self.published.lease_until().is_zero() && self.published.shows_all() {
                assert!(self.state.load(SeqCst) >= answered, "a read goes back in time");
            }
        }
    }

    fn beside_a_reader(
        lease: Option<Duration>,
        group: impl Fn(&Model) + Send + Sync + Copy + 'static,
    ) {
        loom::model(move || {
            let published = Published::new(5, 5);
            published.publish(5, 5, lease);
            let (state, answered) = (AtomicU64::new(5), AtomicU64::new(0));
            let model = Arc::new(Model { published, state, answered });
            let beside = model.clone();
            let thread = thread::spawn(move || group(&beside));
            model.read();
            thread.join().unwrap();
        });
    }

    #[test]
    fn what_a_follower_serves_is_never_missing() {
        beside_a_reader(LEASE, |model| {
            model.published.publish(6, 5, LEASE);
            // Followers hear that it is committed.
            model.answered.store(6, SeqCst);
            model.state.store(6, SeqCst);
            model.published.publish(6, 6, LEASE);
        });
    }

    #[test]
    fn a_new_lease_comes_with_all_that_another_leader_answered() {
        beside_a_reader(None, |model| {
            // By the leader before. This one has a lease, and applies it later.
            model.answered.store(7, SeqCst);
            model.published.publish(7, 5, LEASE);
            model.state.store(7, SeqCst);
            model.published.publish(7, 7, LEASE);
        });
    }
}
