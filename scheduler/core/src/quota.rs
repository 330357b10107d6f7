//! How many GPUs a user, a priority and a group may have at once, each alone or together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::job::{JobSpec, Priority};

/// Whom a quota is for; what is not named may be any.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuotaKey {
    pub user: Option<String>,
    pub priority: Option<Priority>,
    pub group: Option<String>,
}

impl QuotaKey {
    fn is_for(&self, spec: &JobSpec) -> bool {
        self.user.as_ref().is_none_or(|user| *user == spec.user)
            && self.priority.is_none_or(|priority| priority == spec.priority)
            && self.group.as_ref().is_none_or(|group| *group == spec.group)
    }
}

/// GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    pub limit: u64,
    /// By jobs that run, stop or claimed their nodes.
    pub used: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quotas {
    of: BTreeMap<QuotaKey, Allowance>,
}

impl Quotas {
    /// Sets a limit, or removes it; `used` is what jobs have that it is for.
    pub(crate) fn set(&mut self, key: QuotaKey, limit: Option<u64>, used: u64) {
        match limit {
            Some(limit) => self.of.insert(key, Allowance { limit, used }),
            None => self.of.remove(&key),
        };
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&QuotaKey, Allowance)> {
        self.of.iter().map(|(key, allowance)| (key, *allowance))
    }

    /// The first quota that a job would go beyond.
    pub(crate) fn blocks(&self, spec: &JobSpec) -> Option<(&QuotaKey, Allowance)> {
        let mut of = self.matching(spec);
        of.find(|(_, allowance)| allowance.used + spec.gpus() > allowance.limit)
    }

    /// A quota that a job is above by itself.
    pub(crate) fn never_allows(&self, spec: &JobSpec) -> Option<(&QuotaKey, Allowance)> {
        self.matching(spec).find(|(_, allowance)| spec.gpus() > allowance.limit)
    }

    fn matching(&self, spec: &JobSpec) -> impl Iterator<Item = (&QuotaKey, Allowance)> {
        self.iter().filter(move |(key, _)| key.is_for(spec))
    }

    pub(crate) fn take(&mut self, spec: &JobSpec) {
        for (_, allowance) in self.of.iter_mut().filter(|(key, _)| key.is_for(spec)) {
            allowance.used += spec.gpus();
        }
    }

    /// Gives back, and names the quotas that have room again.
    pub(crate) fn give(&mut self, spec: &JobSpec) -> Vec<QuotaKey> {
        let mut freed = Vec::new();
        for (key, allowance) in self.of.iter_mut().filter(|(key, _)| key.is_for(spec)) {
            allowance.used -= spec.gpus();
            freed.push(key.clone());
        }
        freed
    }

    pub(crate) fn applies(key: &QuotaKey, spec: &JobSpec) -> bool {
        key.is_for(spec)
    }
}
