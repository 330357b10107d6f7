//! A small stand-in for the cluster manager: leases, and the chain's states by the same rules.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::pb::{self, LocalState, PublicState};

use super::chain;
use crate::target::Report;

#[derive(Clone, Debug)]
pub(super) struct Manager {
    pub(super) chain: pb::Chain,
    /// Nodes that are alive, and what their targets last said.
    present: BTreeSet<u64>,
    complete: BTreeMap<u64, u64>,
}

impl Manager {
    pub(super) fn new(targets: &[u64]) -> Self {
        let members: Vec<_> = targets.iter().map(|&t| (t, PublicState::Serving)).collect();
        let present = targets.iter().copied().collect();
        Self { chain: chain(2, &members), present, complete: BTreeMap::new() }
    }

    /// These died, in one event.
    pub(super) fn dead(&mut self, targets: &BTreeSet<u64>) {
        self.present.retain(|target| !targets.contains(target));
        self.decide();
    }

    pub(super) fn report(&mut self, target: u64, report: &Report) {
        match report.local_state {
            LocalState::LocalOffline | LocalState::LocalUnknown => {
                self.present.remove(&target);
            }
            LocalState::Online | LocalState::UpToDate => {
                self.present.insert(target);
            }
        }
        if report.local_state == LocalState::UpToDate {
            self.complete.insert(target, report.chain_version);
        } else {
            self.complete.remove(&target);
        }
        self.decide();
    }

    pub(super) fn all_serve(&self) -> bool {
        self.chain.members.iter().all(|member| member.state() == PublicState::Serving)
    }

    pub(super) fn nobody_serves(&self) -> bool {
        !self.chain.members.iter().any(|member| member.state() == PublicState::Serving)
    }

    fn decide(&mut self) {
        loop {
            let next = self.next();
            if next.members == self.chain.members {
                return;
            }
            let version = self.chain.version + 1;
            self.chain = pb::Chain { version, changed_at: version, ..next };
        }
    }

    fn next(&self) -> pb::Chain {
        use PublicState::{Lastsrv, Offline, PublicUnknown, Serving, Syncing, Waiting};
        let mut next = self.chain.clone();
        let here = |member: &pb::ChainMember| self.present.contains(&member.target);
        let complete = |member: &pb::ChainMember| {
            self.complete.get(&member.target) == Some(&self.chain.version)
        };
        let goes_on = |member: &pb::ChainMember| match member.state() {
            Serving => here(member),
            Syncing => here(member) && complete(member),
            Lastsrv | Waiting | Offline | PublicUnknown => false,
        };
        let mut serving: BTreeSet<u64> =
            next.members.iter().filter(|m| goes_on(m)).map(|m| m.target).collect();
        if serving.is_empty() {
            let mut last = next.members.iter().filter(|m| m.state() == Lastsrv && here(m));
            serving.extend(last.next().map(|member| member.target));
        }
        for member in &mut next.members {
            let present = self.present.contains(&member.target);
            let state = match member.state() {
                _ if serving.contains(&member.target) => Serving,
                Serving | Lastsrv if serving.is_empty() => Lastsrv,
                _ if !present => Offline,
                Syncing if !serving.is_empty() => Syncing,
                Serving | Lastsrv | Syncing | Waiting | Offline | PublicUnknown => Waiting,
            };
            member.set_state(state);
        }
        let may_sync = !serving.is_empty() && !next.members.iter().any(|m| m.state() == Syncing);
        if may_sync && let Some(member) = next.members.iter_mut().find(|m| m.state() == Waiting) {
            member.set_state(Syncing);
        }
        next.members.sort_by_key(|member| match member.state() {
            Serving => 0,
            Lastsrv => 1,
            Syncing => 2,
            Waiting => 3,
            Offline | PublicUnknown => 4,
        });
        next
    }
}
