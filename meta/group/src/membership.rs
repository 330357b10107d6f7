//! Who is in the group: raft ids, their nodes and addresses. Replicated: every change travels in the
//! context of the raft configuration change that makes it, so the two never differ.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::pb;
use prost::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};

/// The members by raft id, as of the applied index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Membership {
    pub members: BTreeMap<u64, pb::Member>,
    /// Raft ids are never given twice: a replica that lost its log must not be taken for its old self.
    pub next_raft_id: u64,
}

/// The membership as it lies on disk and, for one added member, in the log.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MembershipRecord {
    #[prost(message, repeated, tag = "1")]
    members: Vec<MemberRecord>,
    #[prost(uint64, tag = "2")]
    next_raft_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MemberRecord {
    #[prost(uint64, tag = "1")]
    raft_id: u64,
    #[prost(uint32, tag = "2")]
    node: u32,
    #[prost(string, tag = "3")]
    address: String,
    #[prost(uint64, tag = "4")]
    incarnation: u64,
}

impl Membership {
    /// The founding members.
    pub fn new(members: impl IntoIterator<Item = pb::Member>) -> Self {
        let members: BTreeMap<_, _> = members.into_iter().map(|m| (m.raft_id, m)).collect();
        let next_raft_id = members.keys().last().map_or(1, |last| last.saturating_add(1));
        Self { members, next_raft_id }
    }

    /// From a snapshot's manifest.
    pub(crate) fn from_manifest(manifest: &pb::SnapshotManifest) -> Self {
        let mut membership = Self::new(manifest.members.iter().cloned());
        membership.next_raft_id = membership.next_raft_id.max(manifest.next_raft_id);
        membership
    }

    /// Raft ids of a node; more than one while a new one replaces an old one.
    pub fn ids_of(&self, node: u32) -> BTreeSet<u64> {
        self.members.values().filter(|m| m.node == node).map(|m| m.raft_id).collect()
    }

    /// The member that joined with this folder, if it did.
    pub(crate) fn joined(&self, node: u32, incarnation: u64) -> Option<&pb::Member> {
        self.members.values().find(|m| m.node == node && m.incarnation == incarnation)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let members = self.members.values().map(MemberRecord::from).collect();
        MembershipRecord { members, next_raft_id: self.next_raft_id }.encode_to_vec()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        let record = MembershipRecord::decode(bytes)?;
        let members = record.members.into_iter().map(|m| (m.raft_id, m.into())).collect();
        Ok(Self { members, next_raft_id: record.next_raft_id })
    }

    /// The change of a logged configuration change, or `None` if it must be refused: its raft id was
    /// given before, or it does not carry the member that it adds.
    pub(crate) fn changed(&self, change: &ConfChangeV2) -> Option<Self> {
        let mut next = self.clone();
        if !change.context.is_empty() {
            let added = MemberRecord::decode(change.context.as_slice()).ok()?;
            if added.raft_id < self.next_raft_id {
                return None;
            }
            next.next_raft_id = added.raft_id.checked_add(1)?;
            next.members.insert(added.raft_id, added.into());
        }
        for single in &change.changes {
            match ConfChangeType::from_i32(single.change_type)? {
                ConfChangeType::RemoveNode => {
                    next.members.remove(&single.node_id);
                }
                ConfChangeType::AddNode | ConfChangeType::AddLearnerNode => {
                    next.members.get(&single.node_id)?;
                }
            }
        }
        Some(next)
    }

    /// Lets a new member in as a learner.
    pub(crate) fn add(&self, member: pb::Member) -> ConfChangeV2 {
        assert_eq!(member.raft_id, self.next_raft_id, "ids are given in order");
        let context = MemberRecord::from(&member).encode_to_vec();
        let changes = vec![single(ConfChangeType::AddLearnerNode, member.raft_id)];
        ConfChangeV2 { context, changes, ..Default::default() }
    }

    /// Makes a learner a voter and, in the same step, removes what its node was before.
    pub(crate) fn promote(&self, raft_id: u64) -> ConfChangeV2 {
        let node = self.members.get(&raft_id).map_or(0, |member| member.node);
        let old = self.ids_of(node).into_iter().filter(|id| *id < raft_id);
        let removed = old.map(|id| single(ConfChangeType::RemoveNode, id));
        let changes = std::iter::once(single(ConfChangeType::AddNode, raft_id)).chain(removed);
        ConfChangeV2 { changes: changes.collect(), ..Default::default() }
    }

    pub(crate) fn remove(ids: impl IntoIterator<Item = u64>) -> ConfChangeV2 {
        let changes = ids.into_iter().map(|id| single(ConfChangeType::RemoveNode, id)).collect();
        ConfChangeV2 { changes, ..Default::default() }
    }
}

fn single(kind: ConfChangeType, node_id: u64) -> ConfChangeSingle {
    ConfChangeSingle { change_type: kind as i32, node_id }
}

/// Whether this configuration gives the replica a place at all.
pub(crate) fn contains(conf: &ConfState, raft_id: u64) -> bool {
    let all = [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next];
    all.iter().any(|ids| ids.contains(&raft_id))
}

impl From<&pb::Member> for MemberRecord {
    fn from(m: &pb::Member) -> Self {
        Self {
            raft_id: m.raft_id,
            node: m.node,
            address: m.address.clone(),
            incarnation: m.incarnation,
        }
    }
}

impl From<MemberRecord> for pb::Member {
    fn from(m: MemberRecord) -> Self {
        Self { raft_id: m.raft_id, node: m.node, address: m.address, incarnation: m.incarnation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(raft_id: u64, node: u32, incarnation: u64) -> pb::Member {
        pb::Member { raft_id, node, address: format!("host{node}:1"), incarnation }
    }

    #[test]
    fn a_lost_folder_comes_back_under_a_new_id() {
        let start = Membership::new((1..=3).map(|id| member(id, id as u32, 0)));
        let added = start.changed(&start.add(member(4, 3, 77))).expect("a new id");
        assert_eq!(added.ids_of(3), BTreeSet::from([3, 4]));
        assert_eq!(added.joined(3, 77).map(|m| m.raft_id), Some(4));
        let promoted = added.changed(&added.promote(4)).expect("known members");
        assert_eq!(promoted.ids_of(3), BTreeSet::from([4]));
        assert_eq!(promoted.next_raft_id, 5);
        assert_eq!(Membership::decode(&promoted.encode()), Ok(promoted));
    }

    #[test]
    fn ids_are_never_given_twice() {
        let start = Membership::new((1..=3).map(|id| member(id, id as u32, 0)));
        let add = start.add(member(4, 4, 1));
        let added = start.changed(&add).expect("a new id");
        let removed = added.changed(&Membership::remove([4])).expect("removal");
        assert!(removed.changed(&add).is_none(), "the id was given before");
        assert!(start.changed(&start.promote(9)).is_none(), "not a member");
    }

    #[test]
    fn the_last_raft_id_is_given_to_nobody() {
        let start = Membership::new((1..=3).map(|id| member(id, id as u32, 0)));
        let last = Membership { next_raft_id: u64::MAX, ..start.clone() };
        assert!(start.changed(&last.add(member(u64::MAX, 4, 1))).is_none(), "none comes after it");
        assert_eq!(Membership::new([member(u64::MAX, 4, 1)]).next_raft_id, u64::MAX);
    }

    fn start() -> Membership {
        Membership::new((1..=3).map(|id| member(id, id as u32, 0)))
    }

    fn records() -> Vec<Vec<u8>> {
        let manifest = pb::SnapshotManifest {
            members: vec![member(3, 3, 7)],
            next_raft_id: 9,
            ..Default::default()
        };
        vec![start().encode(), manifest.encode_to_vec(), Membership::default().encode()]
    }

    #[test]
    fn damaged_memberships() {
        ff2_fuzz::target!(records(), |bytes| {
            if let Ok(membership) = ff2_fuzz::bounded(bytes, || Membership::decode(bytes)) {
                assert_eq!(Membership::decode(&membership.encode()), Ok(membership));
            }
            if let Ok(manifest) = pb::SnapshotManifest::decode(bytes) {
                let known = ff2_fuzz::bounded(bytes, || Membership::from_manifest(&manifest));
                assert!(known.members.len() <= manifest.members.len());
                assert!(known.members.keys().all(|id| *id <= known.next_raft_id));
            }
        });
    }

    fn changes() -> Vec<Vec<u8>> {
        let all = [start().add(member(4, 4, 1)), start().promote(3), Membership::remove([1, 2])];
        all.iter().map(prost011::Message::encode_to_vec).collect()
    }

    #[test]
    fn damaged_changes() {
        ff2_fuzz::target!(changes(), |bytes| {
            let Ok(change) = <ConfChangeV2 as prost011::Message>::decode(bytes) else { return };
            if let Some(next) = ff2_fuzz::bounded(bytes, || start().changed(&change)) {
                assert!(next.next_raft_id >= start().next_raft_id, "no id is given twice");
                assert!(next.members.keys().all(|id| *id < next.next_raft_id));
            }
        });
    }
}
