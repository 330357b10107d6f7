//! Snapshots of chunks, in some seeds: ordered one after the other while everything goes wrong, and made by
//! whichever metad leads. (The namespace takes no part: its half is a function of one log.)
//!
//! A read of a snapshot counts as one at its cut: between the order, and the moment at which a leader finds
//! that no update begins any more. So the order of all that was done to a chunk must explain it.

use std::{collections::BTreeMap, time::Duration};

use ff2_meta_core::cluster::LeaseBook;
use ff2_proto::{Routing, pb};
use ff2_storage_core::target;
use pb::cluster_command::Fact;

/// The first one, how often, and how many.
const FIRST: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_secs(45);
const COUNT: usize = 5;

/// When a snapshot was ordered, and when it was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) ordered: Duration,
    pub(crate) cut: Option<Duration>,
}

/// What one metad knows of it: it may lead for a part only.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshots {
    pub(crate) are_made: bool,
    windows: BTreeMap<u32, Window>,
}

/// In one seed of seven.
pub(crate) fn are_made(seed: u64) -> bool {
    seed % 7 == 3
}

impl Snapshots {
    /// The leader's next fact, at this time of the world.
    pub(crate) fn step(
        &mut self,
        now: Duration,
        routing: &Routing,
        book: &LeaseBook,
    ) -> Option<Fact> {
        if !self.are_made {
            return None;
        }
        let Some(volume) = routing.volumes.values().next() else {
            return Some(Fact::CreateVolume(pb::CreateVolume { name: "sim".into(), group: 1 }));
        };
        let mut snapshots = volume.snapshots.clone();
        let publish = |snapshots, frozen| {
            let volume = volume.id;
            let fact = pb::PublishSnapshotsRequest { volume, snapshots, frozen };
            Some(Fact::PublishSnapshots(fact))
        };
        if volume.frozen {
            let version = volume.changed_at;
            if !book.is_known(routing, version) || !book.are_held(routing, version) {
                return None;
            }
            let id = *snapshots.last()?;
            let fresh = Window { ordered: now, cut: None };
            self.windows.entry(id).or_insert(fresh).cut.get_or_insert(now);
            return publish(snapshots, false);
        }
        let due = now.checked_sub(FIRST)?.as_secs() / PAUSE.as_secs() + 1;
        if snapshots.len() >= COUNT.min(due as usize) {
            return None;
        }
        let id = snapshots.len() as u32 + 1;
        self.windows.entry(id).or_insert(Window { ordered: now, cut: None });
        snapshots.push(id);
        publish(snapshots, true)
    }

    /// All that the metads know together.
    pub(crate) fn windows<'a>(all: impl Iterator<Item = &'a Self>) -> BTreeMap<u32, Window> {
        let mut together: BTreeMap<u32, Window> = BTreeMap::new();
        for (&id, window) in all.flat_map(|snapshots| &snapshots.windows) {
            let known = together.entry(id).or_insert(*window);
            known.ordered = known.ordered.min(window.ordered);
            // The first one that found it began what was done next.
            known.cut = known.cut.into_iter().chain(window.cut).min();
        }
        together
    }
}

/// Those that can be read: all but one that is being made.
pub(crate) fn readable(routing: &Routing) -> Vec<u32> {
    let Some(volume) = routing.volumes.values().next() else { return Vec::new() };
    let mut ids = volume.snapshots.clone();
    if volume.frozen {
        ids.pop();
    }
    ids
}

/// What a storage node tells its targets.
pub(crate) fn told(routing: &Routing) -> target::Snapshots {
    let volume = routing.volumes.values().next().cloned().unwrap_or_default();
    target::Snapshots { ids: volume.snapshots, frozen: volume.frozen }
}
