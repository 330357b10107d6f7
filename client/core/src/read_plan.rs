//! From a range of a file to read calls: one per node and batch, each part to a serving replica.

use std::{collections::BTreeMap, time::Duration};

use ff2_proto::{
    ChainId, ChainVersion, ChunkId, InodeId, NodeId, Routing, TargetId, layout, pb,
    routing::ChainExt,
};

use crate::{TargetHealth, limits, split_mix};

/// A part of one chunk that is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadSpan {
    pub chain: ChainId,
    pub chunk: ChunkId,
    /// First byte in the chunk.
    pub offset: u32,
    pub length: u32,
}

/// Splits `[offset, offset + length)` at chunk borders; the spans are in the order of the file.
/// `chains` are the file's, from [`layout::stripe_chains`].
pub fn read_spans(
    inode: InodeId,
    layout: &pb::Layout,
    chains: &[ChainId],
    offset: u64,
    length: u64,
) -> Vec<ReadSpan> {
    layout::split(inode, layout, chains.len(), offset, length)
        .into_iter()
        .map(|span| ReadSpan {
            chain: chains[span.stripe_place],
            chunk: span.chunk,
            offset: span.offset,
            length: span.length,
        })
        .collect()
}

/// Where one span is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedPart {
    /// Place in the list of spans that was planned.
    pub span: usize,
    pub target: TargetId,
    pub chain_version: ChainVersion,
}

/// One call: parts that one node serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBatch {
    pub node: NodeId,
    pub parts: Vec<PlannedPart>,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadPlan {
    pub batches: Vec<ReadBatch>,
    /// Spans whose chain has no serving member now, or is not known: wait for newer routing.
    pub unserved: Vec<usize>,
}

/// Plans the spans at the places `wanted`. `salt` differs from call to call, so that reads of one
/// chunk spread over its replicas. Of those that hold a small span, one that is asked anyway takes it: such reads
/// cost the servers less than the calls that bring them.
pub fn plan_read(
    routing: &Routing,
    spans: &[ReadSpan],
    wanted: &[usize],
    health: &TargetHealth,
    now: Duration,
    salt: u64,
) -> ReadPlan {
    let mut plan = ReadPlan::default();
    // The batch of each node that still has room.
    let mut open: BTreeMap<NodeId, usize> = BTreeMap::new();
    for &place in wanted {
        let span = &spans[place];
        let is_asked = |node: NodeId| {
            let asked = open.get(&node).map(|&at| plan.batches[at].parts.len());
            let is_small = span.length <= limits::READ_SMALL_BYTES_MAX;
            is_small && asked.is_some_and(|parts| parts < limits::READ_SMALL_PARTS)
        };
        let Some((node, part)) = choose(routing, span, place, (health, now), salt, is_asked) else {
            plan.unserved.push(place);
            continue;
        };
        let length = u64::from(span.length);
        let room = open.get(&node).copied().filter(|&at| {
            let batch: &ReadBatch = &plan.batches[at];
            batch.parts.len() < limits::READ_BATCH_PARTS_MAX
                && batch.bytes + length <= limits::READ_BATCH_BYTES_MAX
        });
        let at = room.unwrap_or_else(|| {
            plan.batches.push(ReadBatch { node, parts: Vec::new(), bytes: 0 });
            plan.batches.len() - 1
        });
        open.insert(node, at);
        plan.batches[at].parts.push(part);
        plan.batches[at].bytes += length;
    }
    plan.check(wanted.len());
    plan
}

impl ReadPlan {
    fn check(&self, wanted: usize) {
        let planned: usize = self.batches.iter().map(|batch| batch.parts.len()).sum();
        assert_eq!(planned + self.unserved.len(), wanted, "each span is planned once");
        debug_assert!(self.batches.iter().all(|batch| !batch.parts.is_empty()));
    }
}

/// A serving member: of those that did not fail lately, if there are any, one that is asked anyway; else spread by
/// chunk and salt.
fn choose(
    routing: &Routing,
    span: &ReadSpan,
    place: usize,
    (health, now): (&TargetHealth, Duration),
    salt: u64,
    is_asked: impl Fn(NodeId) -> bool,
) -> Option<(NodeId, PlannedPart)> {
    let chain = routing.chains.get(&span.chain)?;
    let reachable = |member: &&pb::ChainMember| routing.address(NodeId(member.node)).is_some();
    let trusted = |member: &&pb::ChainMember| {
        routing.nodes.get(&NodeId(member.node)).is_some_and(|node| node.alive)
            && !health.is_avoided(now, TargetId(member.target))
    };
    let mut seed = salt ^ (span.chunk.inode.0 << 20) ^ u64::from(span.chunk.index);
    let random = split_mix(&mut seed);
    let pick = |count: usize| ((u128::from(random) * count as u128) >> 64) as usize;
    let trusted = || chain.serving().filter(reachable).filter(trusted);
    let member = match trusted().count() {
        0 => {
            let count = chain.serving().filter(reachable).count();
            chain.serving().filter(reachable).nth(pick(count.max(1)))
        }
        count => {
            let asked = trusted().find(|member| is_asked(NodeId(member.node)));
            asked.or_else(|| trusted().nth(pick(count)))
        }
    }?;
    let part = PlannedPart {
        span: place,
        target: TargetId(member.target),
        chain_version: ChainVersion(chain.version),
    };
    Some((NodeId(member.node), part))
}

#[cfg(test)]
mod tests;
