//! What each user may have of rings.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use crate::limits;

#[derive(Debug, Default)]
pub(super) struct Quotas {
    users: Mutex<BTreeMap<u32, Used>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    rings: usize,
    region_bytes: u64,
}

/// What something takes of its user's; dropped, it is given back.
#[derive(Debug)]
pub(super) struct Share {
    quotas: Arc<Quotas>,
    uid: u32,
    used: Used,
}

impl Quotas {
    /// One more ring. `Err`: why not, for people.
    pub(super) fn ring(self: &Arc<Self>, uid: u32) -> Result<Share, String> {
        self.take(uid, Used { rings: 1, region_bytes: 0 })
    }

    pub(super) fn region(self: &Arc<Self>, uid: u32, region_bytes: u64) -> Result<Share, String> {
        self.take(uid, Used { rings: 0, region_bytes })
    }

    /// Rings and bytes of regions, of all users.
    pub(super) fn used(&self) -> (usize, u64) {
        let users = self.users.lock();
        let sum = |(rings, bytes), used: &Used| (rings + used.rings, bytes + used.region_bytes);
        users.values().fold((0, 0), sum)
    }

    fn take(self: &Arc<Self>, uid: u32, more: Used) -> Result<Share, String> {
        let mut users = self.users.lock();
        let all: usize = users.values().map(|used| used.rings).sum();
        if all + more.rings > limits::RINGS_MAX {
            let most = limits::RINGS_MAX;
            return Err(format!("the mount serves {most} rings already: close some"));
        }
        let mut used = users.get(&uid).copied().unwrap_or_default();
        used.rings += more.rings;
        used.region_bytes = used.region_bytes.saturating_add(more.region_bytes);
        if used.rings > limits::RINGS_PER_USER_MAX {
            let most = limits::RINGS_PER_USER_MAX;
            return Err(format!("user {uid} has {most} rings on this mount already: close some"));
        }
        if used.region_bytes > limits::RING_REGION_BYTES_PER_USER_MAX {
            let most = limits::RING_REGION_BYTES_PER_USER_MAX >> 30;
            return Err(format!(
                "regions of user {uid} would have more than {most} GiB on this mount: remove some"
            ));
        }
        users.insert(uid, used);
        drop(users);
        Ok(Share { quotas: self.clone(), uid, used: more })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut users = self.quotas.users.lock();
        let Some(used) = users.get_mut(&self.uid) else { return };
        used.rings -= self.used.rings;
        used.region_bytes -= self.used.region_bytes;
        if *used == Used::default() {
            users.remove(&self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn users_are_bounded_apart_and_get_back_what_they_return() {
        let quotas = Arc::new(Quotas::default());
        let rings: Vec<Share> =
            (0..limits::RINGS_PER_USER_MAX).map(|_| quotas.ring(7).unwrap()).collect();
        assert!(quotas.ring(7).unwrap_err().contains("close some"));
        drop(quotas.ring(8).unwrap());
        let most = limits::RING_REGION_BYTES_PER_USER_MAX;
        let region = quotas.region(7, most).unwrap();
        assert!(quotas.region(7, 1).is_err() && quotas.region(8, u64::MAX).is_err());
        assert_eq!(quotas.used(), (rings.len(), most));
        drop((rings, region));
        assert_eq!(quotas.used(), (0, 0));
        assert!(quotas.users.lock().is_empty());
        drop(quotas.ring(7).unwrap());
    }

    #[test]
    fn all_users_together_are_bounded() {
        let quotas = Arc::new(Quotas::default());
        let taken: Vec<Share> =
            (0..u32::MAX).map_while(|number| quotas.ring(number / 10).ok()).collect();
        assert_eq!(taken.len(), limits::RINGS_MAX);
        drop(taken);
        assert_eq!(quotas.used(), (0, 0));
    }
}
