//! Keys at work: who a key belongs to, and what it used so far.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::{Mutex, RwLock};
use subtle::ConstantTimeEq;

use super::{
    keys::{Key, KeyLimits, Keys, hash},
    rates::Bucket,
};
use crate::api::error::ApiError;

/// All keys of a server. They may be exchanged while it runs.
#[derive(Debug, Default)]
pub struct Accounts {
    all: RwLock<Vec<Arc<Account>>>,
}

/// One key.
#[derive(Debug)]
pub struct Account {
    pub key: Key,
    requests: Option<Mutex<Bucket>>,
    tokens: Option<Mutex<Bucket>>,
    pub(super) running: AtomicU32,
    used: AtomicU64,
}

impl Accounts {
    /// Takes over a file's keys. A key that was there goes on where it was: what it used counts.
    pub fn load(&self, keys: &Keys, used: &BTreeMap<String, u64>) {
        let mut all = self.all.write();
        let next = keys.keys.iter().map(|key| {
            let before = all.iter().find(|account| account.key == *key).cloned();
            before.unwrap_or_else(|| {
                // Other limits for the same name: its use goes on.
                let same = all.iter().find(|account| account.key.name == key.name);
                let known =
                    same.map(|account| account.used()).or_else(|| used.get(&key.name).copied());
                Arc::new(Account::new(key.clone(), known.unwrap_or(0), Instant::now()))
            })
        });
        *all = next.collect();
    }

    /// Whose key this is. Each comparison takes as long whether it matches or not, and all are made.
    pub fn find(&self, text: &str) -> Option<Arc<Account>> {
        let asked = hash(text);
        let mut found = None;
        for account in self.all.read().iter() {
            if bool::from(account.key.hash.as_bytes().ct_eq(asked.as_bytes())) {
                found = Some(account.clone());
            }
        }
        found
    }

    /// What others counted of the same keys, where that is more.
    pub fn raise(&self, used: &BTreeMap<String, u64>) {
        for account in self.all.read().iter() {
            if let Some(used) = used.get(&account.key.name) {
                account.used.fetch_max(*used, Ordering::Relaxed);
            }
        }
    }

    /// Tokens that each key used, by name.
    pub fn used(&self) -> BTreeMap<String, u64> {
        self.all.read().iter().map(|account| (account.key.name.clone(), account.used())).collect()
    }
}

impl Account {
    fn new(key: Key, used: u64, now: Instant) -> Self {
        let bucket = |rate: Option<u32>| rate.map(|rate| Mutex::new(Bucket::new(rate, now)));
        let KeyLimits { requests_per_minute, tokens_per_minute, .. } = key.limits;
        let (requests, tokens) = (bucket(requests_per_minute), bucket(tokens_per_minute));
        Self { key, requests, tokens, running: AtomicU32::new(0), used: AtomicU64::new(used) }
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether another request may begin.
    ///
    /// # Errors
    /// 429, by the limit that is reached.
    pub(super) fn admit(&self, now: Instant) -> Result<(), ApiError> {
        let name = &self.key.name;
        if self.key.limits.quota_tokens.is_some_and(|quota| self.used() >= quota) {
            let message =
                format!("key {name:?} has used its quota of tokens; ask the operator for more");
            let status = axum::http::StatusCode::TOO_MANY_REQUESTS;
            return Err(ApiError::new(status, "insufficient_quota", "insufficient_quota", message));
        }
        if let Some(Err(after)) = self.tokens.as_ref().map(|bucket| bucket.lock().ask(now)) {
            let message = format!("key {name:?} is at its limit of tokens per minute");
            return Err(ApiError::too_many("tokens_per_minute", message, after));
        }
        if let Some(Err(after)) = self.requests.as_ref().map(|bucket| bucket.lock().take(now)) {
            let message = format!("key {name:?} is at its limit of requests per minute");
            return Err(ApiError::too_many("requests_per_minute", message, after));
        }
        Ok(())
    }

    pub(super) fn charge(&self, tokens: usize) {
        self.used.fetch_add(tokens as u64, Ordering::Relaxed);
        if let Some(bucket) = &self.tokens {
            bucket.lock().charge(tokens);
        }
    }
}
