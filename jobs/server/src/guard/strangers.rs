//! Addresses that try keys. Guessing 256 bits is hopeless; this bounds what trying costs us and how loud it is.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::rates::Bucket;
use crate::limits;

/// Wrong keys by address. The oldest is forgotten where there are too many: that address begins anew.
#[derive(Debug, Default)]
pub struct Strangers {
    by_address: Mutex<BTreeMap<IpAddr, (Instant, Bucket)>>,
}

impl Strangers {
    /// Whether this address is heard at all.
    pub fn ask(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.by_address.lock().get_mut(&address).map_or(Ok(()), |(_, bucket)| bucket.ask(now))
    }

    pub fn was_wrong(&self, address: IpAddr, now: Instant) {
        let mut all = self.by_address.lock();
        if all.len() >= limits::ADDRESSES_MAX && !all.contains_key(&address) {
            let oldest = all.iter().min_by_key(|(_, (at, _))| *at).map(|(address, _)| *address);
            oldest.and_then(|oldest| all.remove(&oldest));
        }
        let fresh = || (now, Bucket::new(limits::WRONG_KEYS_PER_MINUTE, now));
        let (at, bucket) = all.entry(address).or_insert_with(fresh);
        *at = now;
        bucket.charge(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_tries_many_keys_is_not_heard_and_others_are() {
        let (strangers, now) = (Strangers::default(), Instant::now());
        let address = |last| IpAddr::from([127, 0, 0, last]);
        for _ in 0..limits::WRONG_KEYS_PER_MINUTE {
            strangers.ask(address(1), now).unwrap();
            strangers.was_wrong(address(1), now);
        }
        assert!(strangers.ask(address(1), now).is_err());
        assert!(strangers.ask(address(2), now).is_ok());
        assert!(strangers.ask(address(1), now + Duration::from_secs(60)).is_ok());
        for number in 0..=limits::ADDRESSES_MAX {
            let number = u32::try_from(number).unwrap();
            strangers.was_wrong(
                IpAddr::from((number + (1 << 24)).to_be_bytes()),
                now + Duration::from_secs(1),
            );
        }
        assert!(strangers.by_address.lock().len() <= limits::ADDRESSES_MAX);
    }
}
