//! Evens a placement out: two chains exchange members, so that the loads of disks stay as they are.

use super::Plan;

impl Plan {
    /// Exchanges members that are at the same leaf as another of their chain with those of any other chain, as far as
    /// that can be.
    pub(super) fn part_leaves(&mut self) {
        /// Where one leaf has many of the nodes, some chains cannot be parted: then this ends the search.
        const TRIES_MAX: usize = 200_000;
        let mut tries = 0;
        for a in 0..self.chains.len() {
            // What this one gets rid of may come from any chain, and one exchange may leave another to do.
            for b in (0..self.chains.len()).filter(|b| *b != a) {
                if self.is_apart(&self.chains[a]) {
                    break;
                }
                self.exchange_between(a, b);
                tries += 1;
                if tries == TRIES_MAX {
                    return;
                }
            }
        }
    }

    fn is_apart(&self, chain: &[usize]) -> bool {
        let leaf = |place: usize| self.nodes[place].leaf;
        let mut pairs = (1..chain.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
        pairs.all(|(a, b)| leaf(chain[a]) != leaf(chain[b]))
    }

    /// Exchanges nodes between two chains while that evens out the pairs. Loads stay as they are.
    pub(super) fn exchange(&mut self) {
        /// Chains whose pairs are looked at; above, the greedy choice is even enough by numbers.
        const CHAINS_MAX: usize = 512;
        const ROUNDS_MAX: u32 = 16;
        let count = self.chains.len().min(CHAINS_MAX);
        for _ in 0..ROUNDS_MAX {
            let mut better = false;
            for a in 0..count {
                for b in a + 1..count {
                    better |= self.exchange_between(a, b);
                }
            }
            if !better {
                return;
            }
        }
    }

    fn exchange_between(&mut self, a: usize, b: usize) -> bool {
        for i in 0..self.chains[a].len() {
            for j in 0..self.chains[b].len() {
                let (x, y) = (self.chains[a][i], self.chains[b][j]);
                if x == y || self.chains[a].contains(&y) || self.chains[b].contains(&x) {
                    continue;
                }
                let before = self.unevenness(a, b, [x, y]);
                self.swap(a, i, b, j);
                let after = self.unevenness(a, b, [x, y]);
                if after < before {
                    return true;
                }
                self.swap(a, i, b, j);
            }
        }
        false
    }

    fn swap(&mut self, a: usize, i: usize, b: usize, j: usize) {
        let (mut left, mut right) = (self.chains[a].clone(), self.chains[b].clone());
        self.count_pairs(&left, -1);
        self.count_pairs(&right, -1);
        std::mem::swap(&mut left[i], &mut right[j]);
        self.count_pairs(&left, 1);
        self.count_pairs(&right, 1);
        (self.chains[a], self.chains[b]) = (left, right);
    }

    /// Sum of the squares of the pair counts that moving these two nodes between two chains changes:
    /// their total stays, so the smaller, the more even. A chain with two members at one leaf counts for more
    /// than all pairs.
    fn unevenness(&self, a: usize, b: usize, moved: [usize; 2]) -> u64 {
        const AT_ONE_LEAF: u64 = 1 << 40;
        let both = [&self.chains[a], &self.chains[b]];
        let crowded = both.into_iter().filter(|chain| !self.is_apart(chain)).count() as u64;
        let others = || self.chains[a].iter().chain(&self.chains[b]);
        let others = || others().filter(|node| !moved.contains(node));
        let counts = moved.iter().flat_map(|&node| others().map(move |&other| (node, other)));
        let pairs: u64 = counts.map(|(node, other)| u64::from(self.met(node, other)).pow(2)).sum();
        crowded * AT_ONE_LEAF + pairs
    }
}
