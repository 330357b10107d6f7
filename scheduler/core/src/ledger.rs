//! Accounting: GPU time and what it costs, by user and group.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::job::{JobSpec, Priority};

/// Of a user in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// GPUs times ms.
    pub gpu_ms: u64,
    /// In thousandths of what a GPU-hour of [`Priority::Normal`] costs.
    pub cost_milli: u64,
    pub jobs_ended: u64,
    pub preemptions: u64,
}

/// Accounts by group, then by user.
pub type Accounts = BTreeMap<String, BTreeMap<String, Account>>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) accounts: Accounts,
}

/// Hundredths of the price of normal GPU time: who goes first pays more, who takes the rest pays less.
fn price(priority: Priority) -> u64 {
    match priority {
        Priority::Idle => 25,
        Priority::UnderNormal => 75,
        Priority::Normal => 100,
        Priority::AboveNormal => 125,
        Priority::High => 150,
        Priority::VeryHigh => 200,
        Priority::Extreme => 300,
    }
}

/// In thousandths of a normal GPU-hour.
pub fn cost_milli(gpu_ms: u64, priority: Priority) -> u64 {
    gpu_ms * price(priority) / 360_000
}

impl Ledger {
    pub(crate) fn of(&mut self, spec: &JobSpec) -> &mut Account {
        if !self.accounts.contains_key(&spec.group) {
            self.accounts.insert(spec.group.clone(), BTreeMap::new());
        }
        let group = self.accounts.get_mut(&spec.group).expect("it was just put there");
        if !group.contains_key(&spec.user) {
            group.insert(spec.user.clone(), Account::default());
        }
        group.get_mut(&spec.user).expect("it was just put there")
    }

    pub(crate) fn charge(&mut self, spec: &JobSpec, gpu_ms: u64) {
        let account = self.of(spec);
        account.gpu_ms += gpu_ms;
        account.cost_milli += cost_milli(gpu_ms, spec.priority);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_hour_costs_by_its_priority() {
        assert_eq!(cost_milli(3_600_000, Priority::Normal), 1_000);
        assert_eq!(cost_milli(8 * 3_600_000, Priority::Extreme), 24_000);
    }
}
