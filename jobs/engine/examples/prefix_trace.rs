//! Replays a trace of conversations through the eviction of the prefix cache, in the format of Mooncake's (JSON lines
//! with `input_length` and `hash_ids` of 512 tokens each), beside what is ideal. Arguments: FILE, blocks of capacity...
//!
//! Ideal is what a cache of the same capacity would hit that knows the future: it keeps only blocks that some later
//! prompt begins with, and gives up the one needed last (Belady 1966). No policy that runs can be better.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use ff2_engine::Eviction;

const BLOCK_TOKENS: u64 = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("expected a trace, then capacities in blocks")?;
    let capacities: Result<Vec<u64>, _> = arguments.map(|a| a.parse()).collect();
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
    let blocks: usize = prompts.iter().map(Vec::len).sum();
    let distinct = prompts.iter().flatten().collect::<BTreeSet<_>>().len();
    println!("{} prompts, {blocks} blocks, {distinct} distinct", prompts.len());
    println!("capacity  hit ratio  by last use  ideal   of the ideal");
    for capacity in capacities? {
        let ratio = |hits: usize| hits as f64 / blocks as f64;
        let ours = ratio(replay(&prompts, capacity, 1.0));
        // Blocks that cost nothing differ by their last use alone.
        let recency = ratio(replay(&prompts, capacity, 0.0));
        let ideal = ratio(clairvoyant(&prompts, capacity));
        let share = 100.0 * ours / ideal;
        println!("{capacity:8}  {ours:9.4}  {recency:11.4}  {ideal:.4}  {share:.1} %");
    }
    Ok(())
}

/// Blocks that were there when a prompt began with them. All cost as much, as the engine says of blocks that it
/// computed at about the same time.
fn replay(prompts: &[Vec<u64>], capacity: u64, seconds: f64) -> usize {
    let mut cache = Eviction::<u64>::new(capacity);
    let mut hits = 0;
    for prompt in prompts {
        hits += prompt.iter().take_while(|id| cache.contains(id)).count();
        for id in prompt {
            if !cache.contains(id) {
                cache.put(*id, 1, seconds);
            }
        }
        cache.used(prompt);
        while cache.evict().is_some() {}
    }
    hits
}

fn clairvoyant(prompts: &[Vec<u64>], capacity: u64) -> usize {
    let mut uses: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (at, prompt) in prompts.iter().enumerate() {
        prompt.iter().for_each(|id| uses.entry(*id).or_default().push(at));
    }
    let next = |id: &u64, at: usize| {
        let uses = &uses[id];
        uses.get(uses.partition_point(|used| *used <= at)).copied()
    };
    // By next use; of those of one prompt the last goes first.
    let mut order: BTreeSet<(usize, usize, u64)> = BTreeSet::new();
    let mut present: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    let mut hits = 0;
    for (at, prompt) in prompts.iter().enumerate() {
        hits += prompt.iter().take_while(|id| present.contains_key(id)).count();
        for (depth, id) in prompt.iter().enumerate() {
            if let Some((next, depth)) = present.remove(id) {
                order.remove(&(next, depth, *id));
            }
            if let Some(next) = next(id, at) {
                present.insert(*id, (next, depth));
                order.insert((next, depth, *id));
            }
        }
        while present.len() as u64 > capacity {
            let (_, _, id) = order.pop_last().expect("as many as are present");
            present.remove(&id);
        }
    }
    hits
}
