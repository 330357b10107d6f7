//! Whether a RocksDB write-ahead log that cannot be read to its end was torn by a crash, or damaged later.
//!
//! A sync that is cut off by a loss of power may have brought later pages of the log to the disk and not
//! earlier ones: a hole of zeros, with records behind it. RocksDB tells that from damage no more than from
//! an incomplete end, and there it must be told apart: what a sync that returned covered is relied on by
//! others, and taking it back in silence is worse than a refusal. A hole near the end is what no completed
//! sync covers; wrong bytes, or a hole that is further away from the end than one sync writes, are damage.
//!
//! The format is RocksDB's `log_format.h`: blocks of 32 KiB, records of checksum, length and type that do not
//! cross them.

use std::{fs, io, path::Path};

const BLOCK: usize = 32 << 10;
const PAGE: usize = 4 << 10;
const HEADER: usize = 7;
/// With the number of the log, where files are used again.
const RECYCLED_HEADER: usize = 11;
const RECYCLED: std::ops::RangeInclusive<u8> = 5..=8;
/// Zeros at the end of a page are a hole from so many on: a record has some by chance.
const HOLE: usize = 16;

/// Whether the newest log of the database in `folder` ends in a hole that a cut-off sync left. `in_flight`:
/// bytes that one sync may write.
///
/// # Errors
///
/// If the folder or the log cannot be read.
pub fn is_torn(folder: &Path, in_flight: usize) -> io::Result<bool> {
    let mut logs = Vec::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|kind| kind == "log") {
            logs.push(path);
        }
    }
    let Some(newest) = logs.iter().max() else { return Ok(false) };
    Ok(has_late_hole(&fs::read(newest)?, in_flight))
}

fn has_late_hole(log: &[u8], in_flight: usize) -> bool {
    let Some(bad) = first_bad(log, 0) else { return false };
    let is_late = log.len() - bad <= in_flight;
    is_late && has_hole(&log[..resumes(log, bad)], bad)
}

/// Where the first record begins that cannot be read.
fn first_bad(log: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while at < log.len() {
        let left = BLOCK - at % BLOCK;
        if left < HEADER {
            at += left;
            continue;
        }
        let end = log.len().min(at + left);
        match record(&log[at..end]) {
            Some(length) => at += length,
            None => return Some(at),
        }
    }
    None
}

/// Bytes of the record at the beginning, if it is whole.
fn record(bytes: &[u8]) -> Option<usize> {
    let (header, _) = bytes.split_at_checked(HEADER)?;
    let sum = u32::from_le_bytes(header[..4].try_into().expect("four bytes"));
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let kind = header[6];
    if kind == 0 {
        return None;
    }
    let size = if RECYCLED.contains(&kind) { RECYCLED_HEADER } else { HEADER };
    let covered = bytes.get(6..size + length)?;
    (masked(crc_fast::crc32_iscsi(covered)) == sum).then_some(size + length)
}

/// As RocksDB stores a checksum of bytes that may hold checksums themselves.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The first block behind `bad` that begins with a whole record.
fn resumes(log: &[u8], bad: usize) -> usize {
    let mut at = (bad / BLOCK + 1) * BLOCK;
    while at < log.len() && record(&log[at..log.len().min(at + BLOCK)]).is_none() {
        at += BLOCK;
    }
    at.min(log.len())
}

/// Whether a page from `bad` on was not written: all of it is zeros, or all behind what was there before.
fn has_hole(log: &[u8], bad: usize) -> bool {
    let mut at = bad;
    while at < log.len() {
        let end = log.len().min((at / PAGE + 1) * PAGE);
        let zeros = log[at..end].iter().rev().take_while(|byte| **byte == 0).count();
        if zeros >= HOLE {
            return true;
        }
        at = end;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Full records of so many bytes each, one after the other; none crosses a block.
    fn log(sizes: impl IntoIterator<Item = usize>) -> Vec<u8> {
        let mut log = Vec::new();
        for (number, size) in sizes.into_iter().enumerate() {
            let left = BLOCK - log.len() % BLOCK;
            if left < HEADER + size {
                log.resize(log.len() + left, 0);
            }
            let mut covered = vec![1];
            covered.extend((0..size).map(|at| (at + number) as u8 | 1));
            log.extend(masked(crc_fast::crc32_iscsi(&covered)).to_le_bytes());
            log.extend((size as u16).to_le_bytes());
            log.extend(covered);
        }
        log
    }

    #[test]
    fn a_hole_near_the_end_is_torn() {
        let whole = log([20_000, 9_000, 100, 30_000]);
        // The end of a block has no room for a record: RocksDB leaves zeros there too.
        assert_eq!(first_bad(&log([100, 200]), 0), None);
        let mut torn = log([10_000, 10_000]);
        assert!(!has_late_hole(&torn, 1 << 20), "all is there");
        torn[12_288..16_384].fill(0);
        assert!(has_late_hole(&torn, 1 << 20));
        assert!(!has_late_hole(&torn, 5_000), "a sync writes less");
        // The page of the last record's begin kept what it had before.
        let mut torn = log([10_000, 10_000]);
        torn[10_007..12_288].fill(0);
        assert!(has_late_hole(&torn, 1 << 20));
        // Records behind the hole came with it.
        let mut torn = whole;
        torn[24_576..28_672].fill(0);
        assert!(has_late_hole(&torn, 1 << 20));
    }

    #[test]
    fn wrong_bytes_are_damage() {
        let mut flipped = log([10_000, 10_000]);
        flipped[15_000] ^= 4;
        assert!(!has_late_hole(&flipped, 1 << 20));
        let mut early = log([10_000; 200]);
        early[12_288..16_384].fill(0);
        assert!(!has_late_hole(&early, 1 << 20));
    }

    #[test]
    fn damaged_logs() {
        ff2_fuzz::target!(vec![log([100, 5_000, 3]), log([40_000 % BLOCK])], |bytes| {
            ff2_fuzz::bounded(bytes, || has_late_hole(bytes, 1 << 20));
        });
    }
}
