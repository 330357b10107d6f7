//! The state of group 0 as it comes from a backup, made fit to go on from.
//!
//! Storage nodes and clients may be ahead of a backup: they know later chain versions, and targets and nodes that it
//! does not. So every number that is given out begins anew at one that was never given, which follows from the time
//! of the restore: two restores of one backup differ too. And nothing is believed of who serves: see [`super::recall`].

use bytes::Bytes;
use ff2_proto::{Status, pb, status::Code};
use pb::{LocalState, NodeRole, PublicState};
use prost::Message;

use super::records;
use crate::kv::Kv;

/// Versions begin at the second of the restore, times this: no cluster makes so many in a second.
const VERSIONS_PER_SECOND: u64 = 1 << 24;

/// When the backup was made and when it is restored, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreTimes {
    pub taken_at_s: u64,
    pub at_s: u64,
}

/// Changes the state in place. A pure function of its arguments: all founding members get equal bytes.
pub fn restore(kv: &mut dyn Kv, times: RestoreTimes) -> Result<(), Status> {
    records::check(kv)?;
    let (routing, mut record) = records::load(kv);
    if record.bootstrap.is_none() {
        return Err(invalid("the backup is of a cluster that was never formed"));
    }
    let second = u32::try_from(times.at_s).map_err(|_| invalid("a time after the year 2105"))?;
    let version = times.at_s * VERSIONS_PER_SECOND;
    let newest = routing.chains.values().map(|chain| chain.version).max().unwrap_or(0);
    if version <= newest.max(record.routing_version) || second <= record.next_node {
        return Err(invalid(
            "the backup is newer than the time of the restore: is the clock right?",
        ));
    }
    record.restored = Some(pb::Restored {
        at_s: times.at_s,
        taken_at_s: times.taken_at_s,
        routing_version: version,
        nodes_from: record.next_node,
        nodes_below: second,
        targets_from: record.next_target,
        targets_below: times.at_s,
    });
    record.routing_version = version;
    record.next_node = second;
    record.next_target = times.at_s;
    for next in [&mut record.next_chain, &mut record.next_table, &mut record.next_volume] {
        *next = second.max(*next);
    }
    record.next_token = record.next_token.max(times.at_s);
    // A later round than any that a store knows.
    record.scrub_round = record.scrub_round.max(times.at_s);
    let changed_at = version;
    for node in routing.nodes.into_values() {
        let is_metad = node.role() == NodeRole::Metad;
        let alive = node.alive && is_metad;
        // It may have been started anew since the backup: it joins again, as whatever it is now.
        let incarnation = if is_metad { node.incarnation } else { 0 };
        records::put_node(kv, &pb::Node { alive, incarnation, changed_at, ..node });
    }
    for target in routing.targets.into_values() {
        let is_member = target.chain != 0;
        let public = if is_member { PublicState::Lastsrv } else { target.public_state() };
        records::put_target(
            kv,
            &pb::Target {
                public_state: public.into(),
                local_state: LocalState::LocalOffline.into(),
                retiring: 0,
                retired: false,
                past: None,
                changed_at,
                ..target
            },
        );
    }
    for mut chain in routing.chains.into_values() {
        chain.restored = chain.version;
        chain.members.iter_mut().for_each(|member| member.set_state(PublicState::Lastsrv));
        records::put_chain(kv, &pb::Chain { version, changed_at, ..chain });
    }
    for table in routing.tables.into_values() {
        records::put_table(kv, &pb::ChainTable { changed_at, ..table });
    }
    for volume in routing.volumes.into_values() {
        records::put_volume(kv, &pb::Volume { changed_at, ..volume });
    }
    records::put_record(kv, &record);
    Ok(())
}

fn invalid(detail: &str) -> Status {
    Status::new(Code::InvalidArgument, detail)
}

/// A value that comes from a file, not from this machine.
pub(super) fn readable<M: Message + Default>(key: &[u8], value: &Bytes) -> Result<(), Status> {
    let unreadable = |error| {
        let detail = format!("the value of {} cannot be read: {error}", key.escape_ascii());
        Status::new(Code::Corrupt, detail)
    };
    M::decode(value.clone()).map(drop).map_err(unreadable)
}

#[cfg(test)]
mod tests;
