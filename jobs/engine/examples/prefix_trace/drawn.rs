//! A trace by a law and a seed: kinds of conversations as servers see them, unlike those of Mooncake's trace in their
//! shares, lengths and pauses. Chosen once, before any policy was replayed on it.

use std::collections::BTreeMap;

/// Conversations of one kind. Shares, and blocks and pauses as means of exponential distributions.
struct Kind {
    share: f64,
    /// That a prompt is followed by another.
    goes_on: f64,
    /// Prompts of others in between.
    pause: f64,
    /// Blocks of the first prompt behind the common one, and of each further.
    first: f64,
    more: f64,
}

const KINDS: [Kind; 4] = [
    // Documents asked about once; chats; programs that call tools; people who come back.
    Kind { share: 0.55, goes_on: 0.1, pause: 100.0, first: 25.0, more: 1.0 },
    Kind { share: 0.25, goes_on: 0.8, pause: 300.0, first: 2.0, more: 2.0 },
    Kind { share: 0.12, goes_on: 0.93, pause: 20.0, first: 8.0, more: 3.0 },
    Kind { share: 0.08, goes_on: 0.6, pause: 3000.0, first: 12.0, more: 4.0 },
];
/// Blocks of the prompts that many conversations begin with; each half as frequent as the one before.
const COMMON: [u64; 5] = [3, 6, 1, 12, 2];

/// Prompts as ids of their blocks.
pub(crate) fn prompts(count: usize) -> Vec<Vec<u64>> {
    let mut random = Random(7);
    let mut next_id = COMMON.iter().sum::<u64>();
    let mut due: BTreeMap<(usize, u64), (usize, Vec<u64>)> = BTreeMap::new();
    let mut prompts = Vec::new();
    while prompts.len() < count {
        let at = prompts.len();
        let (kind, mut prompt) = match due.first_key_value() {
            Some(((when, _), _)) if *when <= at => due.pop_first().expect("it was seen").1,
            _ => begin(&mut random),
        };
        let law = &KINDS[kind];
        let is_first = prompt.len() as u64 <= *COMMON.iter().max().expect("some");
        let mean = if is_first { law.first } else { law.more };
        for _ in 0..1 + random.exponential(mean) {
            prompt.push(next_id);
            next_id += 1;
        }
        if random.unit() < law.goes_on {
            let when = at + 1 + random.exponential(law.pause);
            due.insert((when, next_id), (kind, prompt.clone()));
        }
        prompts.push(prompt);
    }
    prompts
}

fn begin(random: &mut Random) -> (usize, Vec<u64>) {
    let mut rest = random.unit();
    let kind = KINDS.iter().position(|kind| {
        rest -= kind.share;
        rest < 0.0
    });
    let common = (random.unit().log2().abs() as usize).min(COMMON.len() - 1);
    let from = COMMON[..common].iter().sum::<u64>();
    (kind.unwrap_or(0), (from..from + COMMON[common]).collect())
}

/// SplitMix64 (Steele et al. 2014).
struct Random(u64);

impl Random {
    /// Above 0, up to 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (((z ^ (z >> 31)) >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> usize {
        (-mean * self.unit().ln()) as usize
    }
}
