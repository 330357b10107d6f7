//! How many GPUs a user, a priority and a group may have at once, each alone or together.

use std::{collections::BTreeMap, fmt};

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

impl fmt::Display for QuotaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let priority = self.priority.map(|priority| format!("priority {priority:?}"));
        let user = self.user.as_ref().map(|user| format!("user {user}"));
        let group = self.group.as_ref().map(|group| format!("group {group}"));
        let parts: Vec<String> = [user, group, priority].into_iter().flatten().collect();
        match parts.is_empty() {
            true => f.write_str("everybody together"),
            false => f.write_str(&parts.join(", ")),
        }
    }
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

/// So many keys cost less to compare than eight to make.
const FEW: usize = 32;

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
    pub(crate) fn blocks(&self, spec: &JobSpec, gpus: u64) -> Option<(&QuotaKey, Allowance)> {
        if self.of.is_empty() {
            return None;
        }
        let mut of = self.matching(spec);
        of.find(|(_, allowance)| allowance.used + gpus > allowance.limit)
    }

    /// A quota that a job is above by itself.
    pub(crate) fn never_allows(&self, spec: &JobSpec, gpus: u64) -> Option<(&QuotaKey, Allowance)> {
        self.matching(spec).find(|(_, allowance)| gpus > allowance.limit)
    }

    fn matching(&self, spec: &JobSpec) -> impl Iterator<Item = (&QuotaKey, Allowance)> {
        self.keys_for(spec).into_iter().map(|key| {
            let (key, has) = self.of.get_key_value(&key).expect("it was just found");
            (key, *has)
        })
    }

    /// The quotas that a job is under. Of a few all are looked at; of many, all that it may be under.
    fn keys_for(&self, spec: &JobSpec) -> Vec<QuotaKey> {
        if self.of.len() <= FEW {
            return self.of.keys().filter(|key| key.is_for(spec)).cloned().collect();
        }
        keys(spec).into_iter().filter(|key| self.of.contains_key(key)).collect()
    }

    pub(crate) fn take(&mut self, spec: &JobSpec, gpus: u64) {
        for key in self.keys_for(spec) {
            self.of.get_mut(&key).expect("it was just found").used += gpus;
        }
    }

    /// Gives back, and names the quotas that have room again.
    pub(crate) fn give(&mut self, spec: &JobSpec, gpus: u64) -> Vec<QuotaKey> {
        let freed = self.keys_for(spec);
        for key in &freed {
            self.of.get_mut(key).expect("it was just found").used -= gpus;
        }
        freed
    }

    pub(crate) fn get(&self, key: &QuotaKey) -> Option<Allowance> {
        self.of.get(key).copied()
    }

    pub(crate) fn applies(key: &QuotaKey, spec: &JobSpec) -> bool {
        key.is_for(spec)
    }
}

/// All quotas that a job may be under: each of the three is named or is not.
fn keys(spec: &JobSpec) -> [QuotaKey; 8] {
    std::array::from_fn(|named| QuotaKey {
        user: (named & 1 != 0).then(|| spec.user.clone()),
        priority: (named & 2 != 0).then_some(spec.priority),
        group: (named & 4 != 0).then(|| spec.group.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_quotas_the_same_are_found_as_of_few() {
        let spec = JobSpec { user: "u7".into(), group: "g".into(), ..JobSpec::default() };
        let mut quotas = Quotas::default();
        let group = QuotaKey { group: Some("g".into()), ..QuotaKey::default() };
        quotas.set(group.clone(), Some(9), 0);
        quotas.set(QuotaKey::default(), Some(9), 0);
        for user in 0..100 {
            let key = QuotaKey { user: Some(format!("u{user}")), ..QuotaKey::default() };
            let other = QuotaKey { group: Some("h".into()), ..key.clone() };
            quotas.set(key, Some(9), 0);
            quotas.set(other, Some(9), 0);
            let found: Vec<_> = quotas.matching(&spec).map(|(key, _)| key.clone()).collect();
            let mut linear: Vec<_> =
                quotas.of.keys().filter(|key| key.is_for(&spec)).cloned().collect();
            linear.sort();
            assert_eq!(BTreeMap::from_iter(found.iter().map(|key| (key, ()))).len(), linear.len());
            assert!(linear.iter().all(|key| found.contains(key)));
        }
        quotas.take(&spec, 1);
        assert_eq!(quotas.get(&group).unwrap().used, 1);
        assert_eq!(quotas.give(&spec, 1).len(), 3);
    }
}
