//! How many flows share a link.

use crate::{
    graph::Graph,
    tables::{Lost, Tables},
};

/// Flows on each channel, for pairs of endpoints (from, to).
pub fn loads(graph: &Graph, tables: &Tables, pairs: &[(usize, usize)]) -> Result<Vec<u32>, Lost> {
    let mut loads = vec![0; graph.channels()];
    for &(from, to) in pairs {
        for channel in tables.path(graph, from, to)? {
            loads[channel] += 1;
        }
    }
    Ok(loads)
}

/// The most flows on one channel.
pub fn largest(graph: &Graph, tables: &Tables, pairs: &[(usize, usize)]) -> Result<u32, Lost> {
    Ok(loads(graph, tables, pairs)?.into_iter().max().unwrap_or(0))
}

/// Every one of `count` endpoints sends to the one `by` places further on, round the end.
pub fn shift(count: usize, by: usize) -> Vec<(usize, usize)> {
    (0..count).map(|from| (from, (from + by) % count)).filter(|(from, to)| from != to).collect()
}
