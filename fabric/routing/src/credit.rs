//! Deadlock: buffers that wait for each other in a circle.

use std::collections::BTreeSet;

use crate::{
    graph::{Channel, Graph, Peer},
    tables::Tables,
};

/// A circle of channels in which each can wait for credits of the next, if the tables have one. Without a circle the
/// tables cannot deadlock (Dally and Seitz, 1987).
pub fn credit_loop(graph: &Graph, tables: &Tables) -> Option<Vec<Channel>> {
    let mut waits: Vec<BTreeSet<Channel>> = vec![BTreeSet::new(); graph.channels()];
    let sources: BTreeSet<usize> = graph.endpoints.iter().map(|endpoint| endpoint.switch).collect();
    for to in 0..graph.endpoints.len() {
        // Each switch on a way from some host is passed once for each destination.
        let mut passed = vec![false; graph.ports.len()];
        for &source in &sources {
            let (mut at, mut before) = (source, None::<Channel>);
            while let Some(port) = tables.port(at, to) {
                let Some((peer, channel)) = graph.ports[at].get(&port) else { break };
                if let Some(before) = before {
                    waits[before].insert(*channel);
                }
                if std::mem::replace(&mut passed[at], true) {
                    break;
                }
                let Peer::Switch(next) = *peer else { break };
                (at, before) = (next, Some(*channel));
            }
        }
    }
    circle(&waits)
}

/// Depth first, without recursion: networks are deep enough only in our heads, but tables come from files too.
fn circle(waits: &[BTreeSet<Channel>]) -> Option<Vec<Channel>> {
    let mut done = vec![false; waits.len()];
    let mut on_way = vec![false; waits.len()];
    for start in 0..waits.len() {
        if done[start] {
            continue;
        }
        let mut way = vec![(start, waits[start].iter())];
        on_way[start] = true;
        while let Some((at, rest)) = way.last_mut() {
            match rest.next() {
                Some(&next) if on_way[next] => {
                    let from = way.iter().position(|(channel, _)| *channel == next)?;
                    return Some(way[from..].iter().map(|(channel, _)| *channel).collect());
                }
                Some(&next) if !done[next] => {
                    on_way[next] = true;
                    way.push((next, waits[next].iter()));
                }
                Some(_) => {}
                None => {
                    done[*at] = true;
                    on_way[*at] = false;
                    way.pop();
                }
            }
        }
    }
    None
}
