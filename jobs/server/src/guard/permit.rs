//! The right to have one request in work. It lives as long as the answer, and its end makes room for another.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::accounts::Account;
use crate::api::error::ApiError;

/// Cheap to clone: the place is given back with the last.
#[derive(Debug, Clone)]
pub struct Permit {
    held: Option<Arc<Held>>,
    charged: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Held {
    account: Arc<Account>,
}

impl Permit {
    /// Where no keys are asked for.
    pub fn open() -> Self {
        Self { held: None, charged: Arc::default() }
    }

    /// # Errors
    /// 429 at any limit of the key.
    pub fn of(account: Arc<Account>) -> Result<Self, ApiError> {
        let running = account.running.fetch_add(1, Ordering::AcqRel);
        // From here on the end of `held` undoes it.
        let held = Arc::new(Held { account: account.clone() });
        if account.key.limits.concurrent.is_some_and(|most| running >= most) {
            let message =
                format!("key {:?} has {running} requests in work, its limit", account.key.name);
            return Err(ApiError::too_many("concurrent_requests", message, Duration::from_secs(1)));
        }
        account.admit(Instant::now())?;
        Ok(Self { held: Some(held), charged: Arc::default() })
    }

    /// Tokens that this request used so far.
    pub fn charged(&self) -> usize {
        self.charged.load(Ordering::Relaxed)
    }

    /// Tokens that were used.
    pub fn charge(&self, tokens: usize) {
        self.charged.fetch_add(tokens, Ordering::Relaxed);
        if let Some(held) = &self.held {
            held.account.charge(tokens);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::guard::{
        accounts::Accounts,
        keys::{KeyLimits, Keys},
    };

    fn account(limits: KeyLimits) -> Arc<Account> {
        let mut keys = Keys::default();
        let text = keys.add("k", limits).unwrap();
        let accounts = Accounts::default();
        accounts.load(&keys, &BTreeMap::new());
        assert!(accounts.find(&format!("{text}x")).is_none() && accounts.find("").is_none());
        accounts.find(&text).unwrap()
    }

    #[test]
    fn each_limit_refuses_and_lets_go() {
        let two = account(KeyLimits { concurrent: Some(2), ..KeyLimits::default() });
        let first = Permit::of(two.clone()).unwrap();
        let clone = first.clone();
        let _second = Permit::of(two.clone()).unwrap();
        assert_eq!(Permit::of(two.clone()).unwrap_err().code, "concurrent_requests");
        drop(first);
        assert!(Permit::of(two.clone()).is_err(), "its clone holds the place");
        drop(clone);
        assert!(Permit::of(two).is_ok());

        let slow = account(KeyLimits { requests_per_minute: Some(1), ..KeyLimits::default() });
        drop(Permit::of(slow.clone()).unwrap());
        let error = Permit::of(slow).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (429, "requests_per_minute"));
        assert!(error.retry_after.is_some());

        let wordy = account(KeyLimits { tokens_per_minute: Some(10), ..KeyLimits::default() });
        Permit::of(wordy.clone()).unwrap().charge(30);
        assert_eq!(Permit::of(wordy).unwrap_err().code, "tokens_per_minute");

        let poor = account(KeyLimits { quota_tokens: Some(10), ..KeyLimits::default() });
        Permit::of(poor.clone()).unwrap().charge(10);
        assert_eq!(Permit::of(poor).unwrap_err().code, "insufficient_quota");
    }

    #[test]
    fn what_was_used_outlives_another_limit_and_a_restart() {
        let mut keys = Keys::default();
        let text = keys.add("k", KeyLimits::default()).unwrap();
        let accounts = Accounts::default();
        accounts.load(&keys, &BTreeMap::from([("k".to_owned(), 5)]));
        Permit::of(accounts.find(&text).unwrap()).unwrap().charge(3);
        keys.keys[0].limits.quota_tokens = Some(8);
        accounts.load(&keys, &BTreeMap::new());
        assert_eq!(accounts.used(), BTreeMap::from([("k".to_owned(), 8)]));
        assert!(Permit::of(accounts.find(&text).unwrap()).is_err());
        keys.remove("k").unwrap();
        accounts.load(&keys, &BTreeMap::new());
        assert!(accounts.find(&text).is_none(), "a removed key opens nothing");
    }
}
