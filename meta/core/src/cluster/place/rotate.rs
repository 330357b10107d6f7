//! Chains as in cyclic designs: rotations of a few base blocks.
//!
//! Block {0, a, b} gives {i, i+a, i+b} for each node i. A pair of nodes shares a chain once for each time that their
//! distance is one of a block's: so balancing the distances balances all pairs (Colbourn and Dinitz, "Handbook of
//! Combinatorial Designs", II.1 and VI.16).

/// Distances that put two members at one leaf count as used so often: they are taken only where there are no others.
const SAME_LEAF: usize = 1 << 20;

/// `rotations` times a chain of `replicas` of `nodes` that begins at each of them: places from 0. Nodes lie at `leaves`
/// in turn; 0: nobody knows. There are more nodes than replicas.
pub(super) fn chains(
    nodes: usize,
    replicas: usize,
    rotations: usize,
    leaves: usize,
) -> Vec<Vec<usize>> {
    debug_assert!(nodes > replicas && replicas > 0);
    // How often each distance is used; d and nodes - d are the same pair.
    let mut used = vec![0_usize; nodes];
    if leaves > 0 && nodes.is_multiple_of(leaves) {
        (leaves..nodes).step_by(leaves).for_each(|distance| used[distance] = SAME_LEAF);
    }
    let mut all = Vec::with_capacity(nodes * rotations);
    for _ in 0..rotations {
        let block = block(replicas, &mut used);
        all.extend(
            (0..nodes).map(|turn| block.iter().map(|member| (member + turn) % nodes).collect()),
        );
    }
    all
}

/// A block whose distances were used least: each next member is the one that adds the least crowding.
fn block(replicas: usize, used: &mut [usize]) -> Vec<usize> {
    let nodes = used.len();
    let mut block = vec![0];
    while block.len() < replicas {
        let cost = |candidate: usize| {
            let mut added = std::collections::BTreeMap::new();
            for member in &block {
                let distance = candidate - member;
                *added.entry(distance).or_insert(0) += 1;
                *added.entry(nodes - distance).or_insert(0) += 1;
            }
            // The sum of squares grows by this.
            let crowding = |(distance, more): (&usize, &usize)| more * (2 * used[*distance] + more);
            added.iter().map(crowding).sum::<usize>()
        };
        let last = block.last().copied().unwrap_or(0);
        let room = nodes - (replicas - block.len() - 1);
        let next = (last + 1..room).min_by_key(|candidate| cost(*candidate)).unwrap_or(last + 1);
        for member in &block {
            used[next - member] += 1;
            used[nodes - (next - member)] += 1;
        }
        block.push(next);
    }
    block
}
