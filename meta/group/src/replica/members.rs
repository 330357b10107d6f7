//! Members come and go: joins, promotion of learners, removal, leader transfer, status. The leader
//! proposes one configuration change at a time, and carries on what an earlier leader left half done.

use ff2_meta_core::StateMachine;
use ff2_proto::{
    Status,
    marks::{Mark, reached},
    pb,
};
use raft::{
    ProgressState, SnapshotStatus, StateRole,
    eraftpb::{ConfChangeV2, Message, MessageType},
};

use super::{Kind, Output, Replica};
use crate::{limits, membership::Membership, store::LogStore};

impl<St: LogStore, S: StateMachine> Replica<St, S> {
    /// Answers with the raft id once the record holds it; until then starts what is needed and says
    /// Busy. Asked again with the same incarnation, it finds the same id.
    pub(super) fn join(
        &mut self,
        request: &pb::JoinGroupRequest,
    ) -> Result<pb::JoinGroupReply, Status> {
        if self.leading.is_none() || self.over {
            return Err(self.not_leader());
        }
        let membership = self.raw.store().membership();
        if let Some(member) = membership.joined(request.node, request.incarnation) {
            let members = membership.members.keys().map(|id| self.member(*id)).collect();
            return Ok(pb::JoinGroupReply { status: None, raft_id: member.raft_id, members });
        }
        if request.node == 0 || request.incarnation == 0 || request.address.is_empty() {
            return Err(Status::new(pb::Code::InvalidArgument, "a join names node and folder"));
        }
        if request.node == self.config.node {
            let why = "the leader itself holds this node's place in the group";
            return Err(Status::new(pb::Code::Exists, why));
        }
        if membership.ids_of(request.node).into_iter().any(|id| self.may_live(id)) {
            // Letting another folder in would put a healthy replica out.
            let why = format!("node {} answers: is another process configured so?", request.node);
            return Err(Status::new(pb::Code::Busy, why));
        }
        let full = membership.members.len() >= limits::MEMBERS_MAX;
        let voters = self.raw.store().conf().voters.len();
        if full || (voters >= limits::VOTERS_MAX && membership.ids_of(request.node).is_empty()) {
            return Err(Status::new(
                pb::Code::NotPermitted,
                "the group has all the members it may",
            ));
        }
        let member = pb::Member {
            raft_id: membership.next_raft_id,
            node: request.node,
            address: request.address.clone(),
            incarnation: request.incarnation,
        };
        let change = membership.add(member);
        if self.may_change() {
            tracing::info!(group = %self.config.group, node = request.node, "letting a node in");
            self.change(&change);
        }
        Err(Status::new(pb::Code::Busy, "the join is under way; ask again"))
    }

    pub(super) fn remove(&mut self, ticket: u64, node: u32, out: &mut Vec<Output>) {
        match self.start_removal(node) {
            Ok(true) => self.wait_for_last(vec![ticket], Kind::Change),
            Ok(false) => out.push(Output::Done { ticket, done: Ok(()) }),
            Err(status) => out.push(Output::Done { ticket, done: Err(status) }),
        }
    }

    /// Whether a change had to be proposed.
    fn start_removal(&mut self, node: u32) -> Result<bool, Status> {
        if self.leading.is_none() || self.over {
            return Err(self.not_leader());
        }
        let ids = self.raw.store().membership().ids_of(node);
        if ids.is_empty() {
            return Ok(false);
        }
        if node == self.config.node {
            // The next leader does it: a leader that removes itself goes without a word to clients.
            let Some(heir) = self.heir() else {
                let why = "this node is the only one that can lead";
                return Err(Status::new(pb::Code::NotPermitted, why));
            };
            reached(Mark::RemovalHandsOver);
            self.begin_transfer(heir);
            return Err(Status::not_leader(self.address_of(heir)));
        }
        let conf = self.raw.store().conf();
        let left: Vec<u64> = conf.voters.iter().copied().filter(|id| !ids.contains(id)).collect();
        let alive = left.iter().filter(|id| self.is_active(**id)).count();
        if conf.voters.len() > left.len() && alive <= left.len() / 2 {
            let why = format!("only {alive} of the {} voters that would remain answer", left.len());
            return Err(Status::new(pb::Code::NotPermitted, why));
        }
        if !self.may_change() || !self.change(&Membership::remove(ids)) {
            return Err(Status::new(pb::Code::Busy, "another change is under way"));
        }
        Ok(true)
    }

    pub(super) fn transfer(&mut self, node: u32) -> Result<(), Status> {
        if self.leading.is_none() || self.over {
            return Err(self.not_leader());
        }
        if node == self.config.node {
            return Ok(());
        }
        let voters = &self.raw.store().conf().voters;
        let ids = self.raw.store().membership().ids_of(node);
        let heir = ids.into_iter().find(|id| voters.contains(id) && self.is_active(*id));
        let Some(heir) = heir else {
            return Err(Status::new(pb::Code::InvalidArgument, "no live voter is on that node"));
        };
        self.begin_transfer(heir);
        Ok(())
    }

    /// Hands leadership to whoever is best prepared, at a clean stop. Returns whether anybody is.
    pub fn hand_over(&mut self) -> bool {
        let heir = if self.leading.is_some() && !self.over { self.heir() } else { None };
        if let Some(heir) = heir {
            self.begin_transfer(heir);
        }
        heir.is_some()
    }

    fn begin_transfer(&mut self, heir: u64) {
        // First the lease: from here on another leader may rise at any time in this term.
        self.transfer_term = self.leading;
        self.reads.drop_lease();
        self.raw.transfer_leader(heir);
    }

    /// After a transfer that came to nothing: the message that lets the heir campaign may still arrive
    /// at any later time of this term, so leases would be out for good. Hence a new term, in which it
    /// means nothing. This replica asks for it as an heir would, because its voters would not vote
    /// in a term whose leader they hear.
    pub(super) fn renew_term(&mut self) {
        let raft = &mut self.raw.raft;
        let leads = raft.state == StateRole::Leader && self.transfer_term == Some(raft.term);
        if !leads || raft.lead_transferee.is_some() {
            return;
        }
        reached(Mark::TermRenewed);
        tracing::info!(group = %self.config.group, "nobody took over: leading on in a new term");
        let (id, term) = (raft.id, raft.term);
        // A leader would not campaign.
        raft.become_follower(term, raft::INVALID_ID);
        let kind = MessageType::MsgTimeoutNow as i32;
        let campaign = Message { msg_type: kind, from: id, to: id, term, ..Default::default() };
        if let Err(error) = self.raw.step(campaign) {
            tracing::debug!(group = %self.config.group, %error, "elected by timeout then");
        }
    }

    /// The live voter that lacks least.
    fn heir(&self) -> Option<u64> {
        let raft = &self.raw.raft;
        let voters = self.raw.store().conf().voters.iter().copied();
        let live = voters.filter(|id| *id != raft.id && self.is_active(*id));
        live.max_by_key(|id| (raft.prs().get(*id).map_or(0, |peer| peer.matched), *id))
    }

    fn is_active(&self, raft_id: u64) -> bool {
        let raft = &self.raw.raft;
        raft_id == raft.id || raft.prs().get(raft_id).is_some_and(|peer| peer.recent_active)
    }

    /// Not silent for two election timeouts of this leader. raft's own mark says less: it is taken away
    /// at each quorum check, and stands again only at the peer's next answer.
    fn may_live(&self, raft_id: u64) -> bool {
        let heard = self.heard.get(&raft_id).copied().unwrap_or(0).max(self.leading_since);
        self.ticks - heard < 2 * self.config.election_ticks as u64
    }

    /// A leader may propose a change once every earlier one is applied here.
    fn may_change(&self) -> bool {
        let raft = &self.raw.raft;
        self.leading.is_some()
            && raft.state == StateRole::Leader
            && raft.apply_to_current_term()
            && !raft.has_pending_conf()
            && raft.lead_transferee.is_none()
            && self.raw.store().conf().voters_outgoing.is_empty()
    }

    fn change(&mut self, change: &ConfChangeV2) -> bool {
        let proposed = self.raw.propose_conf_change(Vec::new(), change.clone());
        proposed.is_ok() && self.raw.raft.has_pending_conf()
    }

    /// What the leader does by itself, a step at a time.
    pub(super) fn reconcile(&mut self) {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader || !raft.apply_to_current_term() {
            return;
        }
        let joint = !self.raw.store().conf().voters_outgoing.is_empty();
        if joint {
            // raft-rs leaves a joint configuration only if the leader that entered it still leads.
            if !raft.has_pending_conf() && raft.lead_transferee.is_none() {
                reached(Mark::JointLeft);
                tracing::info!(group = %self.config.group, "leaving a joint configuration");
                self.change(&ConfChangeV2::default());
            }
            return;
        }
        if !self.may_change() {
            return;
        }
        let conf = self.raw.store().conf();
        let ready = conf.learners.iter().copied().find(|id| self.may_promote(*id));
        if let Some(raft_id) = ready {
            reached(Mark::LearnerPromoted);
            tracing::info!(group = %self.config.group, raft_id, "a learner has caught up and votes");
            let change = self.raw.store().membership().promote(raft_id);
            self.change(&change);
        }
    }

    fn may_promote(&self, raft_id: u64) -> bool {
        let raft = &self.raw.raft;
        let membership = self.raw.store().membership();
        let Some(member) = membership.members.get(&raft_id) else { return false };
        let newest = membership.ids_of(member.node).last() == Some(&raft_id);
        let caught_up = raft.prs().get(raft_id).is_some_and(|peer| {
            let lag = raft.raft_log.last_index().saturating_sub(peer.matched);
            // After a snapshot an idle group stays in state Probe: matched says all there is to know.
            let fed = peer.matched > 0 && peer.state != ProgressState::Snapshot;
            fed && peer.recent_active && lag <= limits::PROMOTE_LAG_MAX
        });
        newest && caught_up
    }

    /// Tells raft how a snapshot went; without, it would never send to that follower again.
    pub(super) fn report_snapshot(&mut self, to: u64, status: SnapshotStatus) {
        self.raw.report_snapshot(to, status);
    }

    /// The group as this replica sees it; progress of members is known to the leader only.
    pub fn status(&self) -> pb::GroupStatus {
        let raft = &self.raw.raft;
        let store = self.raw.store();
        let leader = match raft.leader_id {
            0 => pb::Member::default(),
            id => self.member(id),
        };
        let leads = raft.state == StateRole::Leader;
        // Who has just come in counts for little until the old configuration, whose votes are needed as
        // well, is left: nobody who reads this should stop another one before.
        let conf = store.conf();
        let votes = |id: &u64| {
            let is_joint = !conf.voters_outgoing.is_empty();
            conf.voters.contains(id) && (!is_joint || conf.voters_outgoing.contains(id))
        };
        let members = store.membership().members.keys().map(|id| {
            let member = self.member(*id);
            let progress = raft.prs().get(*id).filter(|_| leads);
            pb::GroupMember {
                node: member.node,
                raft_id: *id,
                address: member.address,
                match_index: progress.map_or(0, |peer| peer.matched),
                voter: votes(id),
                recently_active: *id == raft.id || progress.is_some_and(|p| p.recent_active),
            }
        });
        pb::GroupStatus {
            group: self.config.group.0,
            leader_node: leader.node,
            leader_address: leader.address,
            term: raft.term,
            commit_index: raft.raft_log.committed,
            applied_index: store.applied(),
            members: members.collect(),
        }
    }
}
