//! Which nodes this one does not reach, although they live: what the cluster must know for their chains to go on.
//!
//! A target whose successor is silent raises the suspicion. It may be the disk that is slow, and a chain does not go
//! on without a member for that: a probe, which any answer ends, tells. A node that does not answer several is *cut*
//! off, and stays so until it has answered as many as make it likely that it will go on doing so.

use std::{collections::BTreeMap, time::Duration};

use ff2_proto::{Code, NodeId, Status};

use crate::limits;

/// What is known of the ways to other nodes. It never sends anything: its owner probes whom it names.
#[derive(Debug, Default)]
pub struct Cuts {
    suspects: BTreeMap<NodeId, Probes>,
}

#[derive(Debug, Default)]
struct Probes {
    /// Without an answer, in a row.
    failed: u32,
    /// Answered in a row.
    answered: u32,
    is_cut: bool,
    next_at: Duration,
    under_way: bool,
}

impl Cuts {
    /// Nodes that are silent now. Of those that do not live any more nothing need be known.
    pub fn suspect(
        &mut self,
        silent: impl IntoIterator<Item = NodeId>,
        lives: impl Fn(NodeId) -> bool,
    ) {
        for node in silent {
            self.suspects.entry(node).or_default();
        }
        self.suspects.retain(|node, _| lives(*node));
    }

    /// Whom to probe now.
    pub fn due(&mut self, now: Duration) -> Vec<NodeId> {
        let due = self.suspects.iter_mut().filter(|(_, p)| !p.under_way && p.next_at <= now);
        due.map(|(node, probes)| {
            probes.under_way = true;
            *node
        })
        .collect()
    }

    /// The outcome of a probe. Returns whether the node is cut off, or is not any more, by this.
    pub fn probed(&mut self, now: Duration, node: NodeId, has_answered: bool) -> bool {
        let Some(probes) = self.suspects.get_mut(&node) else { return false };
        probes.under_way = false;
        probes.next_at = now + limits::PROBE_PAUSE;
        if !has_answered {
            probes.failed += 1;
            probes.answered = 0;
            let was_cut = probes.is_cut;
            probes.is_cut |= probes.failed >= limits::PROBES_TO_CUT;
            return probes.is_cut && !was_cut;
        }
        probes.failed = 0;
        probes.answered += 1;
        if !probes.is_cut || probes.answered >= limits::PROBES_TO_HEAL {
            let probes = self.suspects.remove(&node).expect("just seen");
            return probes.is_cut;
        }
        false
    }

    pub fn cut(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.suspects.iter().filter(|(_, probes)| probes.is_cut).map(|(node, _)| *node)
    }
}

/// Whether this stands for no answer at all, rather than for one that the other gave.
pub fn is_silence(status: &Status) -> bool {
    matches!(status.code, Code::Unreachable | Code::Timeout | Code::UnknownOutcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: NodeId = NodeId(7);

    /// Probes once, with this outcome; returns whether anything changed.
    fn probe(cuts: &mut Cuts, now: &mut Duration, has_answered: bool) -> bool {
        assert_eq!(cuts.due(*now), [OTHER]);
        assert_eq!(cuts.due(*now), [], "one at a time");
        let changed = cuts.probed(*now, OTHER, has_answered);
        assert_eq!(cuts.due(*now), [], "after a pause");
        *now += limits::PROBE_PAUSE;
        changed
    }

    fn is_cut(cuts: &Cuts) -> bool {
        cuts.cut().eq([OTHER])
    }

    #[test]
    fn one_that_answers_is_merely_slow() {
        let (mut cuts, mut now) = (Cuts::default(), Duration::ZERO);
        cuts.suspect([OTHER], |_| true);
        assert!(!probe(&mut cuts, &mut now, true) && !is_cut(&cuts));
        assert_eq!(cuts.due(now), [], "no suspicion is left");
    }

    #[test]
    fn a_cut_needs_failures_in_a_row_and_an_end_of_it_answers_in_a_row() {
        let (mut cuts, mut now) = (Cuts::default(), Duration::ZERO);
        cuts.suspect([OTHER], |_| true);
        for last in 1..=limits::PROBES_TO_CUT {
            assert_eq!(probe(&mut cuts, &mut now, false), last == limits::PROBES_TO_CUT);
        }
        assert!(is_cut(&cuts));
        for _ in 1..limits::PROBES_TO_HEAL {
            assert!(!probe(&mut cuts, &mut now, true) && is_cut(&cuts));
        }
        assert!(!probe(&mut cuts, &mut now, false), "the row is broken");
        for last in 1..=limits::PROBES_TO_HEAL {
            assert_eq!(probe(&mut cuts, &mut now, true), last == limits::PROBES_TO_HEAL);
        }
        assert!(!is_cut(&cuts));
    }

    #[test]
    fn nothing_is_kept_of_nodes_that_do_not_live() {
        let (mut cuts, mut now) = (Cuts::default(), Duration::ZERO);
        cuts.suspect([OTHER], |_| true);
        for _ in 0..limits::PROBES_TO_CUT {
            probe(&mut cuts, &mut now, false);
        }
        cuts.suspect([], |node| node != OTHER);
        assert!(!is_cut(&cuts) && cuts.due(now).is_empty());
        assert!(!cuts.probed(now, OTHER, false), "a late outcome");
    }
}
