//! Messages from peers: checked here, because raft-rs panics on what cannot come from a sound peer.

use std::time::Duration;

use ff2_meta_core::StateMachine;
use ff2_proto::{
    marks::{Mark, reached},
    pb,
};
use prost011::Message as _;
use raft::eraftpb::{EntryType, Message, MessageType};

use super::{Output, Replica};
use crate::{limits, store::LogStore};

impl<St: LogStore, S: StateMachine> Replica<St, S> {
    pub(super) fn step_batch(
        &mut self,
        now: Duration,
        batch: pb::RaftBatch,
        out: &mut Vec<Output>,
    ) {
        if batch.group != self.config.group.0 {
            return;
        }
        if let Some(from) = batch.from {
            self.learn_address(from);
        }
        for bytes in batch.messages {
            match Message::decode(&*bytes) {
                Ok(message) => self.step_message(now, message, out),
                Err(error) => {
                    tracing::warn!(group = %self.config.group, %error, "dropped an unreadable message");
                }
            }
        }
    }

    fn step_message(&mut self, now: Duration, message: Message, out: &mut Vec<Output>) {
        // A message to this address may be meant for the replica that was here before its disk was lost.
        if message.to != self.raw.raft.id {
            return;
        }
        let kind = match sound(&message) {
            Ok(kind) => kind,
            Err(reason) => {
                tracing::warn!(group = %self.config.group, from = message.from, reason,
                    "dropped a message");
                return;
            }
        };
        let raft = &self.raw.raft;
        match kind {
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote
                if self.quiet_until.is_some_and(|until| now < until)
                    && message.context != raft::CAMPAIGN_TRANSFER =>
            {
                // A leader may be reading under a lease that this replica confirmed.
                reached(Mark::VoteWithheld);
                return;
            }
            MessageType::MsgHeartbeat
                if message.term >= raft.term && message.commit > raft.raft_log.last_index() =>
            {
                out.push(Output::Stop(format!(
                    "group {}: the leader knows that this replica held entry {}, but its log ends at \
                     {}: its folder lost data (an old copy?). Remove the folder, so that the replica \
                     joins anew",
                    self.config.group,
                    message.commit,
                    raft.raft_log.last_index()
                )));
                self.over = true;
                return;
            }
            MessageType::MsgSnapshot if message.term >= raft.term => {
                return self.step_snapshot(message, out);
            }
            _ => {}
        }
        self.hand_to_raft(now, kind, message);
    }

    fn hand_to_raft(&mut self, now: Duration, kind: MessageType, message: Message) {
        let from = message.from;
        let from_leader = matches!(
            kind,
            MessageType::MsgHeartbeat | MessageType::MsgAppend | MessageType::MsgSnapshot
        );
        if self.raw.raft.prs().get(from).is_some() {
            self.heard.insert(from, self.ticks);
        }
        if let Err(error) = self.raw.step(message) {
            tracing::debug!(group = %self.config.group, from, %error, "raft ignored a message");
        }
        if from_leader && self.raw.raft.leader_id == from {
            self.quiet_until = Some(now + self.config.election_timeout());
        }
    }

    /// A peer's own word on where it is: newer than the record if it moved, and all there is before
    /// this replica has the record.
    pub(super) fn learn_address(&mut self, from: pb::Member) {
        let known = self.hints.contains_key(&from.raft_id);
        let room = known || self.hints.len() < limits::HINTS_MAX;
        if from.raft_id != 0 && !from.address.is_empty() && from.address.len() <= 255 && room {
            self.hints.insert(from.raft_id, from.address);
        }
    }

    pub(super) fn address_of(&self, raft_id: u64) -> Option<String> {
        let hint = self.hints.get(&raft_id).cloned();
        let recorded = || self.raw.store().membership().members.get(&raft_id);
        hint.or_else(|| recorded().map(|member| member.address.clone()))
    }

    /// The member as recorded, at its present address.
    pub(super) fn member(&self, raft_id: u64) -> pb::Member {
        let recorded = self.raw.store().membership().members.get(&raft_id).cloned();
        let mut member = recorded.unwrap_or(pb::Member { raft_id, ..Default::default() });
        if let Some(address) = self.hints.get(&raft_id) {
            member.address.clone_from(address);
        }
        member
    }

    pub(super) fn own_member(&self) -> pb::Member {
        let config = &self.config;
        pb::Member {
            raft_id: config.raft_id,
            node: config.node,
            address: config.address.clone(),
            incarnation: 0,
        }
    }
}

/// What raft-rs takes for granted about a message.
fn sound(message: &Message) -> Result<MessageType, &'static str> {
    let kind = MessageType::from_i32(message.msg_type).ok_or("unknown kind")?;
    if message.from == 0 {
        return Err("no sender");
    }
    match kind {
        // We never forward proposals or transfers, and the rest are a replica's own.
        MessageType::MsgPropose
        | MessageType::MsgTransferLeader
        | MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum => Err("not for the wire"),
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp if message.entries.len() != 1 => {
            Err("a read index has one context")
        }
        MessageType::MsgReadIndex => Ok(kind),
        MessageType::MsgAppend => sound_append(message).map(|()| kind),
        MessageType::MsgSnapshot if message.get_snapshot().get_metadata().index == 0 => {
            Err("an empty snapshot")
        }
        // Raft takes it for the term of every index beyond its log.
        MessageType::MsgSnapshot if message.get_snapshot().get_metadata().term == 0 => {
            Err("a snapshot without a term")
        }
        MessageType::MsgAppendResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgSnapshot
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgTimeoutNow
        | MessageType::MsgReadIndexResp
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
            if message.term != 0 =>
        {
            Ok(kind)
        }
        _ => Err("no term"),
    }
}

fn sound_append(message: &Message) -> Result<(), &'static str> {
    if message.term == 0 {
        return Err("no term");
    }
    let (mut term, mut index) = (message.log_term, message.index);
    for entry in &message.entries {
        index = index.checked_add(1).ok_or("an entry beyond all indexes")?;
        if entry.index != index {
            return Err("entries do not follow each other");
        }
        if entry.term < term || entry.term > message.term {
            return Err("terms of entries do not grow");
        }
        if EntryType::from_i32(entry.entry_type).is_none() {
            return Err("unknown kind of entry");
        }
        term = entry.term;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::Entry;

    use super::*;

    fn append(indexes: &[u64], terms: &[u64]) -> Message {
        let entry = |(&index, &term)| Entry { index, term, ..Default::default() };
        Message {
            msg_type: MessageType::MsgAppend as i32,
            from: 1,
            term: 6,
            index: 5,
            log_term: 5,
            entries: indexes.iter().zip(terms).map(entry).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn what_raft_would_panic_on_is_refused() {
        assert!(sound(&append(&[6, 7], &[5, 6])).is_ok());
        assert!(sound(&append(&[7], &[6])).is_err(), "a gap");
        let last = Message { index: u64::MAX - 1, ..append(&[u64::MAX], &[6]) };
        assert!(sound(&last).is_ok());
        let beyond = Message { index: u64::MAX, ..append(&[u64::MAX], &[6]) };
        assert!(sound(&beyond).is_err(), "no index comes after the last");
        assert!(sound(&append(&[6, 7], &[6, 5])).is_err(), "terms shrink");
        assert!(sound(&append(&[6], &[7])).is_err(), "a term of the future");
        assert!(sound(&Message { msg_type: 99, ..append(&[], &[]) }).is_err());
        assert!(sound(&Message { from: 0, ..append(&[], &[]) }).is_err());
        assert!(sound(&Message { term: 0, ..append(&[], &[]) }).is_err());
        for kind in [MessageType::MsgPropose, MessageType::MsgHup, MessageType::MsgReadIndex] {
            assert!(sound(&Message { msg_type: kind as i32, ..append(&[], &[]) }).is_err());
        }
        let empty = Message { msg_type: MessageType::MsgSnapshot as i32, ..append(&[], &[]) };
        assert!(sound(&empty).is_err());
        let mut snapshot = empty;
        let metadata = snapshot.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (9, 6);
        assert!(sound(&snapshot).is_ok());
        snapshot.mut_snapshot().mut_metadata().term = 0;
        assert!(sound(&snapshot).is_err(), "it would match any entry beyond the log");
    }

    fn messages() -> Vec<Vec<u8>> {
        let of = |kind: MessageType| Message { msg_type: kind as i32, ..append(&[], &[]) };
        let mut snapshot = of(MessageType::MsgSnapshot);
        snapshot.mut_snapshot().mut_metadata().index = 7;
        let more = [of(MessageType::MsgHeartbeat), of(MessageType::MsgRequestVote), snapshot];
        let all = [append(&[6, 7, 8], &[5, 6, 6]), append(&[], &[])].into_iter().chain(more);
        all.map(|message| message.encode_to_vec()).collect()
    }

    #[test]
    fn damaged_messages() {
        ff2_fuzz::target!(messages(), |bytes| {
            let Ok(message) = ff2_fuzz::bounded(bytes, || Message::decode(bytes)) else { return };
            assert_eq!(Message::decode(message.encode_to_vec().as_slice()), Ok(message.clone()));
            if let Ok(MessageType::MsgAppend) = ff2_fuzz::bounded(bytes, || sound(&message)) {
                for (place, entry) in message.entries.iter().enumerate() {
                    assert_eq!(Some(entry.index), message.index.checked_add(place as u64 + 1));
                }
            }
        });
    }
}
