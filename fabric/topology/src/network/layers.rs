//! How far each switch is from the hosts.

use std::collections::VecDeque;

use super::Network;

/// Breadth first from all switches with hosts at once. Declared layers would go wrong with every imported file.
pub(super) fn of(network: &Network) -> Vec<u32> {
    let numbers = network.switch_numbers();
    let mut near: Vec<Vec<usize>> = vec![Vec::new(); network.switches.len()];
    let mut layers = vec![0; network.switches.len()];
    let mut open = VecDeque::new();
    for link in &network.links {
        match (numbers.get(link.a.node.as_str()), numbers.get(link.b.node.as_str())) {
            (Some(&a), Some(&b)) => {
                near[a].push(b);
                near[b].push(a);
            }
            (Some(&leaf), None) | (None, Some(&leaf)) => {
                if layers[leaf] == 0 {
                    layers[leaf] = 1;
                    open.push_back(leaf);
                }
            }
            (None, None) => {}
        }
    }
    while let Some(at) = open.pop_front() {
        for &next in &near[at] {
            if layers[next] == 0 {
                layers[next] = layers[at] + 1;
                open.push_back(next);
            }
        }
    }
    layers
}
