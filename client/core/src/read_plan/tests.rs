use std::collections::BTreeSet;

use pb::PublicState as S;

use super::*;

const NOW: Duration = Duration::from_secs(50);

/// Chain `c` of `chains` has replicas on nodes c, c + 1, c + 2 (round the nodes 0..nodes).
fn routing(nodes: u32, chains: u32) -> Routing {
    let mut routing = Routing::default();
    for id in 0..nodes {
        let node =
            pb::Node { id, address: format!("host-{id}:1"), alive: true, ..Default::default() };
        routing.nodes.insert(NodeId(id), node);
    }
    for id in 0..chains {
        let members = (0..3)
            .map(|place| {
                let node = (id + place) % nodes;
                let target = u64::from(id) * 10 + u64::from(place);
                pb::ChainMember { target, state: S::Serving.into(), node }
            })
            .collect();
        let chain = pb::Chain { id, version: 4, members, changed_at: 1, ..Default::default() };
        routing.chains.insert(ChainId(id), chain);
    }
    routing
}

fn spans(count: u32, chains: u32, length: u32) -> Vec<ReadSpan> {
    (0..count)
        .map(|index| ReadSpan {
            chain: ChainId(index % chains),
            chunk: ChunkId::new(InodeId(9), index),
            offset: 0,
            length,
        })
        .collect()
}

fn all(spans: &[ReadSpan]) -> Vec<usize> {
    (0..spans.len()).collect()
}

#[test]
fn one_call_per_node_while_it_has_room() {
    let routing = routing(4, 8);
    let spans = spans(16, 8, 1 << 10);
    let plan = plan_read(&routing, &spans, &all(&spans), &TargetHealth::new(), NOW, 1);
    assert!(plan.unserved.is_empty());
    let nodes: BTreeSet<_> = plan.batches.iter().map(|batch| batch.node).collect();
    assert_eq!(nodes.len(), plan.batches.len(), "small reads of a node share a call");
    for batch in &plan.batches {
        for part in &batch.parts {
            let chain = &routing.chains[&spans[part.span].chain];
            let member = chain.member(part.target).expect("planned from the chain");
            assert_eq!(NodeId(member.node), batch.node);
            assert_eq!(part.chain_version, ChainVersion(4));
        }
    }
}

#[test]
fn calls_are_bounded_in_bytes_and_parts() {
    let routing = routing(3, 1);
    for length in [1, 3 << 20] {
        let spans = spans(600, 1, length);
        let plan = plan_read(&routing, &spans, &all(&spans), &TargetHealth::new(), NOW, 1);
        for batch in &plan.batches {
            assert!(batch.parts.len() <= limits::READ_BATCH_PARTS_MAX);
            assert!(batch.bytes <= limits::READ_BATCH_BYTES_MAX);
        }
    }
    // A span above the bound goes alone rather than never.
    let large = spans(2, 1, 64 << 20);
    let plan = plan_read(&routing, &large, &all(&large), &TargetHealth::new(), NOW, 1);
    assert_eq!(plan.batches.len(), 2);
}

#[test]
fn salts_spread_one_chunk_over_its_replicas() {
    let routing = routing(3, 1);
    let spans = spans(1, 1, 4096);
    let mut reads = BTreeMap::<NodeId, u32>::new();
    for salt in 0..3000 {
        let plan = plan_read(&routing, &spans, &[0], &TargetHealth::new(), NOW, salt);
        *reads.entry(plan.batches[0].node).or_default() += 1;
    }
    assert_eq!(reads.len(), 3);
    assert!(reads.values().all(|count| (800..1200).contains(count)), "{reads:?}");
}

#[test]
fn small_reads_go_together_and_large_ones_beside_each_other() {
    let routing = routing(4, 8);
    let plan = |length, salt| {
        // Reads begin anywhere.
        let mut spans = spans(8, 8, length);
        spans.rotate_left(salt as usize % 8);
        plan_read(&routing, &spans, &all(&spans), &TargetHealth::new(), NOW, salt)
    };
    let calls = |length| (0..1000).map(|salt| plan(length, salt).batches.len()).sum::<usize>();
    // Each node holds three of four chunks: whoever is asked first has six of eight, and another one the rest.
    assert!(calls(4 << 10) <= 2000, "{}", calls(4 << 10));
    assert!(calls(1 << 20) > 3000, "{}", calls(1 << 20));
    let mut parts = BTreeMap::<NodeId, usize>::new();
    for batch in (0..1000).flat_map(|salt| plan(4 << 10, salt).batches) {
        *parts.entry(batch.node).or_default() += batch.parts.len();
    }
    assert!(parts.values().all(|parts| (1600..2400).contains(parts)), "{parts:?}");
    let many = spans(64, 8, 4 << 10);
    let plan = plan_read(&routing, &many, &all(&many), &TargetHealth::new(), NOW, 3);
    assert_eq!(
        plan.batches.len(),
        4,
        "no node is asked for all while others are asked for nothing"
    );
}

#[test]
fn failed_and_dead_replicas_are_the_last_choice() {
    let mut routing = routing(3, 1);
    let spans = spans(1, 1, 4096);
    let mut health = TargetHealth::new();
    health.failed(NOW, TargetId(0));
    routing.nodes.get_mut(&NodeId(1)).unwrap().alive = false;
    for salt in 0..50 {
        let plan = plan_read(&routing, &spans, &[0], &health, NOW, salt);
        assert_eq!(plan.batches[0].parts[0].target, TargetId(2));
    }
    health.failed(NOW, TargetId(2));
    let plan = plan_read(&routing, &spans, &[0], &health, NOW, 1);
    assert_eq!(plan.batches.len(), 1, "when all failed, one is asked nevertheless");
}

#[test]
fn a_chain_without_a_serving_member_waits() {
    let mut routing = routing(3, 2);
    for member in &mut routing.chains.get_mut(&ChainId(0)).unwrap().members {
        member.state = S::Lastsrv.into();
    }
    let mut spans = spans(2, 2, 4096);
    spans.push(ReadSpan { chain: ChainId(77), ..spans[0] });
    let plan = plan_read(&routing, &spans, &[0, 1, 2], &TargetHealth::new(), NOW, 1);
    assert_eq!(plan.unserved, vec![0, 2]);
    assert_eq!(plan.batches.len(), 1);
}

#[test]
fn only_what_is_wanted_is_planned() {
    let routing = routing(3, 1);
    let spans = spans(4, 1, 4096);
    let plan = plan_read(&routing, &spans, &[3], &TargetHealth::new(), NOW, 1);
    assert_eq!(plan.batches.len(), 1);
    assert_eq!(plan.batches[0].parts[0].span, 3);
}

#[test]
fn spans_follow_the_layout() {
    let layout = pb::Layout { chunk_size: 64 << 10, stripe: 3, ..Default::default() };
    let chains = [ChainId(5), ChainId(6), ChainId(7)];
    let spans = read_spans(InodeId(1), &layout, &chains, 60 << 10, 200 << 10);
    assert_eq!(spans.iter().map(|span| span.length).sum::<u32>(), 200 << 10);
    let expected = [5, 6, 7, 5, 6].map(ChainId);
    assert!(spans.iter().zip(expected).all(|(span, chain)| span.chain == chain));
}
