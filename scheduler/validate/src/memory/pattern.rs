//! Does memory keep what is written?
//!
//! Each word is given a value that follows from its place, so that a stuck address shows as well as a stuck bit; all
//! is written before it is read, because caches would answer otherwise. Then the same with all bits turned round.

use std::time::{Duration, Instant};

use crate::{Check, Verdict, judge::Measured, limits, pattern::mix, threads, validate::Course};

const WORDS: usize = limits::MEMORY_BLOCK as usize / size_of::<u64>();

pub(crate) fn check(course: &Course) -> Vec<Check> {
    let free = (course.hardware.memory_available_mib << 20) / course.budget.pattern_divisor;
    let cores = &course.hardware.cores;
    let blocks = free.min(course.budget.pattern_bytes) / limits::MEMORY_BLOCK / cores.len() as u64;
    if blocks == 0 {
        return vec![Check::not_tried("memory.pattern", "too little memory is free to be tried")];
    }
    let time = course.budget.pattern;
    let work = |core: u32, ()| try_blocks(u64::from(core) << 48, blocks, WORDS, time, |_| ());
    let found = threads::on_cores(cores, |_| (), work).into_iter().reduce(Found::join);
    judge(course, &found.unwrap_or_default())
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Found {
    words: u64,
    wrong: u64,
    /// Of one word: which bits.
    bits: u64,
}

impl Found {
    fn join(self, other: Self) -> Self {
        Self {
            words: self.words + other.words,
            wrong: self.wrong + other.wrong,
            bits: self.bits | other.bits,
        }
    }
}

fn judge(course: &Course, found: &Found) -> Vec<Check> {
    let mib = (found.words * size_of::<u64>() as u64) >> 20;
    let mut what = format!("words of {mib} MiB of memory that were not kept");
    if found.wrong > 0 {
        what += &format!(" (bits {:#018x})", found.bits);
    }
    let measured =
        Measured { name: "memory.wrong_words", figure: found.wrong as f64, unit: "", what: &what };
    vec![course.judge.none_of(measured, Verdict::Failed)]
}

/// So many blocks, or as many as can be written in a third of the time: they are read and written once more, and
/// read again. `between` sees all of them before they are read first.
fn try_blocks(
    seed: u64,
    count: u64,
    words: usize,
    time: Duration,
    between: impl FnOnce(&mut [Vec<u64>]),
) -> Found {
    let until = Instant::now() + time / 3;
    let mut blocks: Vec<Vec<u64>> = Vec::new();
    while blocks.is_empty() || (blocks.len() < count as usize && Instant::now() < until) {
        let first = seed + (blocks.len() * words) as u64;
        blocks.push((first..first + words as u64).map(mix).collect());
    }
    between(&mut blocks);
    let mut found = Found { words: (blocks.len() * words) as u64, ..Found::default() };
    for turned in [0, u64::MAX] {
        for (number, block) in blocks.iter_mut().enumerate() {
            let first = seed + (number * words) as u64;
            for (place, word) in block.iter_mut().enumerate() {
                let expected = mix(first + place as u64) ^ turned;
                let difference = *word ^ expected;
                found.wrong += u64::from(difference != 0);
                found.bits |= difference;
                *word = !expected;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(60);

    #[test]
    fn good_memory_has_no_fault() {
        let found = try_blocks(1 << 48, 3, 1_000, TIME, |_| ());
        assert_eq!(found, Found { words: 3_000, wrong: 0, bits: 0 });
    }

    #[test]
    fn a_turned_bit_is_found_with_its_place_in_the_word() {
        let found = try_blocks(0, 3, 1_000, TIME, |blocks| blocks[1][500] ^= 1 << 17);
        assert_eq!(found, Found { words: 3_000, wrong: 1, bits: 1 << 17 });
    }

    #[test]
    fn a_block_that_lies_at_anothers_place_is_found() {
        let found = try_blocks(0, 2, 1_000, TIME, |blocks| blocks.swap(0, 1));
        assert_eq!(found.wrong, 2_000);
    }

    #[test]
    fn time_is_a_bound() {
        let found = try_blocks(0, u64::MAX, 1_000, Duration::ZERO, |_| ());
        assert_eq!(found.words, 1_000);
    }
}
