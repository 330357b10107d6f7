//! What the scheduler is told of the node's network ports.

use std::path::Path;

use ff2_node::links::{self, Link};
use ff2_proto::pb;

/// As they are under `sys`, with the interfaces in `also` beside those of cards.
pub(crate) fn look(sys: &Path, also: &[String]) -> Vec<pb::LinkReading> {
    links::look(sys, also).into_iter().map(reading).collect()
}

fn reading(link: Link) -> pb::LinkReading {
    pb::LinkReading {
        name: link.name,
        kind: link.kind.name().into(),
        up: link.up,
        bits_per_s: link.bits_per_s.unwrap_or(0),
        received_bytes: link.received_bytes,
        sent_bytes: link.sent_bytes,
        downs: link.downs,
        errors: link.errors,
    }
}

#[cfg(test)]
mod tests;
