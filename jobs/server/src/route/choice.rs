//! Which replica answers: the one where a request costs least. Cost is counted in bytes of prompt, those that are to be
//! computed before the answer begins: what is new of its own prompt, and what others there wait for. So a prompt goes
//! where it was computed before, until more waits there than computing it elsewhere takes.

/// What a request that is under way weighs beside its prompt: its tokens slow down those of others. About 64 tokens.
pub const ANSWER_BYTES: usize = 256;

/// A replica, as one request sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Choices that it generates at once.
    pub slots: usize,
    /// Requests that it has of this router.
    pub in_flight: usize,
    /// Bytes of prompts that these have still to compute, with [`ANSWER_BYTES`] for each.
    pub pending: usize,
    /// Bytes of this request's prompt that it has computed before.
    pub known: usize,
    /// Blocks that it keeps, and can keep: what comes new to a full one pushes something out.
    pub kept: usize,
    pub keeps: usize,
}

impl Candidate {
    /// Bytes. What is pushed out is computed again by somebody, so new bytes cost twice where all is full.
    fn cost(&self, bytes: usize) -> usize {
        let new = bytes.saturating_sub(self.known);
        let pushed_out = new * self.kept.min(self.keeps) / self.keeps.max(1);
        new + pushed_out + self.pending
    }
}

/// The place of the best one, for a prompt of so many bytes. None where there is none.
///
/// While any has a free slot none is taken that has not: nothing waits while somebody idles.
pub fn choose(candidates: &[Candidate], bytes: usize) -> Option<usize> {
    let is_free = |it: &Candidate| it.in_flight < it.slots;
    let any_free = candidates.iter().any(is_free);
    let fit = candidates.iter().enumerate().filter(|(_, it)| is_free(it) || !any_free);
    let best = fit.min_by_key(|(place, it)| (it.cost(bytes), it.in_flight, it.kept, *place));
    best.map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::prompt::{BLOCK_BYTES, Prompt, Seen};

    const IDLE: Candidate =
        Candidate { slots: 4, in_flight: 0, pending: 0, known: 0, kept: 0, keeps: 100 };

    #[test]
    fn a_prompt_goes_where_it_is_known_unless_more_waits_there() {
        let knows = Candidate { known: 4000, kept: 16, ..IDLE };
        assert_eq!(choose(&[IDLE, knows, IDLE], 5000), Some(1));
        let busy = Candidate { in_flight: 1, pending: 3000, ..knows };
        assert_eq!(choose(&[IDLE, busy], 5000), Some(1));
        let busier = Candidate { pending: 6000, ..busy };
        assert_eq!(choose(&[IDLE, busier], 5000), Some(0));
    }

    #[test]
    fn none_waits_at_one_while_another_has_a_free_slot() {
        let full = Candidate { in_flight: 4, known: 1 << 20, ..IDLE };
        let free = Candidate { in_flight: 3, pending: 1 << 20, ..IDLE };
        assert_eq!(choose(&[full, free], 1 << 20), Some(1));
        let fuller = Candidate { in_flight: 5, ..full };
        assert_eq!(choose(&[fuller, full], 1 << 20), Some(1), "all are full");
        assert_eq!(choose(&[], 100), None);
    }

    #[test]
    fn what_is_new_goes_where_it_pushes_least_out() {
        let full = Candidate { kept: 100, ..IDLE };
        let half = Candidate { kept: 50, ..IDLE };
        assert_eq!(choose(&[full, half], 3000), Some(1));
        // A system prompt that one has does not tie all conversations to it.
        let full = Candidate { known: 500, ..full };
        assert_eq!(choose(&[full, half], 3000), Some(1));
    }

    const REPLICAS: usize = 4;
    const CONVERSATIONS: usize = 120;
    const TURNS: usize = 8;
    /// Of all replicas together: what all conversations come to at their end.
    const BLOCKS: usize = CONVERSATIONS * TURNS * 8 + 16;

    /// Conversations with a common system prompt whose turns come interleaved, each 8 blocks longer than before; so
    /// many are under way at once. Returns the part of all blocks that their replica had.
    fn hits(replicas: usize, mut choose: impl FnMut(&[Candidate], usize) -> usize) -> f64 {
        let each = BLOCKS / replicas;
        // What the router believes, and what the replica has: the same here, as blocks are the same.
        let mut caches: Vec<Seen> = (0..replicas).map(|_| Seen::default()).collect();
        let mut under_way: Vec<(usize, usize)> = Vec::new();
        let (mut hit, mut all) = (0, 0);
        let mut next = 7_u64;
        for turn in 0..TURNS {
            let mut order: Vec<usize> = (0..CONVERSATIONS).collect();
            order.sort_by_cached_key(|_| random(&mut next));
            for conversation in order {
                let prompt = of_turn(conversation, turn);
                let candidates: Vec<Candidate> = caches
                    .iter()
                    .enumerate()
                    .map(|(place, cache)| {
                        let there = under_way.iter().filter(|(at, _)| *at == place);
                        Candidate {
                            slots: 16,
                            in_flight: there.clone().count(),
                            pending: there.map(|(_, bytes)| bytes).sum(),
                            known: cache.known(&prompt) * BLOCK_BYTES,
                            kept: cache.len(),
                            keeps: each,
                        }
                    })
                    .collect();
                let place = choose(&candidates, prompt.bytes);
                hit += caches[place].known(&prompt);
                all += prompt.blocks.len();
                caches[place].note(&prompt, each);
                under_way.push((place, prompt.bytes - candidates[place].known + ANSWER_BYTES));
                if under_way.len() > 8 {
                    under_way.remove(0);
                }
            }
        }
        hit as f64 / all as f64
    }

    fn of_turn(conversation: usize, turn: usize) -> Prompt {
        let system = (0..16_u64).flat_map(|n| [n; BLOCK_BYTES / 8]);
        let own = (0..(turn + 1) * 8).flat_map(|n| {
            let block = (conversation as u64 + 1) << 32 | n as u64;
            [block; BLOCK_BYTES / 8]
        });
        Prompt::of_bytes(&system.chain(own).flat_map(u64::to_le_bytes).collect::<Vec<_>>())
    }

    fn random(state: &mut u64) -> u64 {
        // Knuth's MMIX generator.
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    #[test]
    fn conversations_hit_nearly_as_on_one_replica_with_all_the_memory() {
        let one = hits(1, |_, _| 0);
        let routed = hits(REPLICAS, |candidates, bytes| choose(candidates, bytes).unwrap());
        let mut state = 1;
        let by_chance =
            hits(REPLICAS, |candidates, _| random(&mut state) as usize % candidates.len());
        eprintln!("one {one:.3}, routed {routed:.3}, by chance {by_chance:.3}");
        assert!(routed > 0.95 * one, "{routed} of {one}");
        assert!(routed > by_chance + 0.2, "{routed}, and by chance {by_chance}");
    }
}
