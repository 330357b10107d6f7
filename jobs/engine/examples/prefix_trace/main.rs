//! Replays a trace of conversations through policies of eviction for the prefix cache, beside two ideals. Arguments:
//! FILE, blocks of capacity... FILE has the format of Mooncake's traces (JSON lines with `input_length` and `hash_ids`
//! of 512 tokens each), or is `drawn`: conversations by a law and a seed ([`drawn`]), on which nothing was tuned.
//!
//! What the future holds no policy that runs can know: see [`ideal`] for the two ideals.

mod drawn;
mod ideal;
mod policies;

use std::{collections::BTreeSet, fs};

use ideal::{Informed, Knowledge, Law};
use policies::{Ours, Policy, S3Fifo, SecondSight, Segmented, Sieve, Weighed};

const BLOCK_TOKENS: u64 = 512;
const DRAWN_PROMPTS: usize = 12_000;

type Make = fn(usize) -> Box<dyn Policy>;

/// By name. The first is that of the engine.
const POLICIES: [(&str, Make); 8] = [
    ("ours", |capacity| Box::new(Ours::new(capacity, 1.0))),
    // Blocks that cost nothing differ by their last use alone.
    ("LRU", |capacity| Box::new(Ours::new(capacity, 0.0))),
    ("LFU, ageing", |capacity| Box::new(Weighed::new(capacity, |uses, _| uses))),
    ("short first", |capacity| {
        Box::new(Weighed::new(capacity, |uses, new| uses.sqrt() / new.sqrt().sqrt()))
    }),
    ("segmented LRU", |capacity| Box::new(Segmented::new(capacity))),
    ("SIEVE", |capacity| Box::new(Sieve::new(capacity))),
    ("S3-FIFO", |capacity| Box::new(S3Fifo::new(capacity))),
    ("second sight", |capacity| Box::new(SecondSight::new(capacity))),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("expected a trace or `drawn`, then capacities in blocks")?;
    let capacities = arguments.map(|a| a.parse()).collect::<Result<Vec<usize>, _>>()?;
    let prompts = if path == "drawn" { drawn::prompts(DRAWN_PROMPTS) } else { read(&path)? };
    let blocks: usize = prompts.iter().map(Vec::len).sum();
    let distinct = prompts.iter().flatten().collect::<BTreeSet<_>>().len();
    println!("{} prompts, {blocks} blocks, {distinct} distinct", prompts.len());
    let law = Law::of(&prompts, Knowledge::ALL);
    let ratio = |hits: usize| format!("{:.4}", hits as f64 / blocks as f64);
    print!("| capacity |");
    POLICIES.iter().for_each(|(name, _)| print!(" {name} |"));
    println!(" knows the law | knows the future |");
    for capacity in &capacities {
        let capacity = *capacity;
        print!("| {capacity} |");
        for (_, make) in POLICIES {
            print!(" {} |", ratio(hits(&prompts, &mut *make(capacity))));
        }
        let informed = hits(&prompts, &mut Informed::new(capacity, &law));
        println!(" {} | {} |", ratio(informed), ratio(ideal::clairvoyant(&prompts, capacity)));
    }
    causes(&prompts, &capacities, ratio);
    Ok(())
}

/// What each thing is worth that the law takes into account.
fn causes(prompts: &[Vec<u64>], capacities: &[usize], ratio: impl Fn(usize) -> String) {
    let one_less = [
        ("all", Knowledge::ALL),
        ("not of removed blocks", Knowledge { past: false, ..Knowledge::ALL }),
        ("not how many came new", Knowledge { new: false, ..Knowledge::ALL }),
        ("neither", Knowledge { uses: true, new: false, past: false }),
        ("not the uses", Knowledge { uses: false, ..Knowledge::ALL }),
        ("the last use alone", Knowledge { uses: false, new: false, past: false }),
    ];
    println!(
        "\n| the law knows |{}",
        capacities.iter().map(|it| format!(" {it} |")).collect::<String>()
    );
    for (name, knowledge) in one_less {
        let law = Law::of(prompts, knowledge);
        let of = |it: &usize| format!(" {} |", ratio(hits(prompts, &mut Informed::new(*it, &law))));
        println!("| {name} |{}", capacities.iter().map(of).collect::<String>());
    }
}

fn read(path: &str) -> Result<Vec<Vec<u64>>, Box<dyn std::error::Error>> {
    let mut prompts = Vec::new();
    for line in fs::read_to_string(path)?.lines() {
        let request: serde_json::Value = serde_json::from_str(line)?;
        let len = request["input_length"].as_u64().ok_or("expected input_length")?;
        let ids = request["hash_ids"].as_array().ok_or("expected hash_ids")?;
        let ids: Option<Vec<u64>> = ids.iter().map(|id| id.as_u64()).collect();
        let mut ids = ids.ok_or("expected numbers in hash_ids")?;
        // Only full blocks have a key.
        ids.truncate(usize::try_from(len / BLOCK_TOKENS)?);
        prompts.push(ids);
    }
    Ok(prompts)
}

/// Blocks that were there when a prompt began with them.
fn hits(prompts: &[Vec<u64>], policy: &mut dyn Policy) -> usize {
    let mut hits = 0;
    for prompt in prompts {
        hits += prompt.iter().take_while(|id| policy.holds(**id)).count();
        policy.prompt(prompt);
    }
    hits
}
