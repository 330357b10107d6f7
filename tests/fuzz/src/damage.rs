//! Bytes that are nearly what a decoder expects.

use bolero::{ValueGenerator, generator::*, produce};

/// One change to an encoding.
#[derive(Clone, Copy, Debug, TypeGenerator)]
struct Edit {
    kind: u8,
    at: u16,
    value: u16,
}

/// Most changes of one input.
const EDITS_MAX: usize = 4;
/// Longest input that is noise alone.
const NOISE_MAX: usize = 96;
/// Numbers at which lengths, counts and offsets go wrong.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0xffff_ffff_ffff_ffff];

/// One of the seeds, mostly with a few bytes changed, taken away, added or copied; or noise. One input in
/// five is a seed as it is.
///
/// # Panics
/// Without a seed.
pub fn damaged(seeds: Vec<Vec<u8>>) -> impl ValueGenerator<Output = Vec<u8>> {
    assert!(!seeds.is_empty(), "a target begins with valid encodings");
    let edits = produce::<Vec<Edit>>().with().len(0..=EDITS_MAX);
    let noise = produce::<Vec<u8>>().with().len(0..=NOISE_MAX);
    (produce::<u8>(), produce::<u16>(), edits, noise).map_gen(move |(how, which, edits, noise)| {
        if how.is_multiple_of(16) {
            return noise;
        }
        let mut bytes = seeds[usize::from(which) % seeds.len()].clone();
        for edit in edits {
            edit.apply(&mut bytes, &seeds);
        }
        bytes
    })
}

impl Edit {
    fn apply(self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = usize::from(self.at) % (bytes.len() + 1);
        let [low, high] = self.value.to_le_bytes();
        let left = bytes.len() - at;
        match self.kind % 9 {
            0 if left > 0 => bytes[at] = low,
            1 if left > 0 => bytes[at] ^= 1 << (low % 8),
            2 if left > 0 => drop(bytes.drain(at..at + 1 + usize::from(low) % left)),
            3 => bytes.insert(at, low),
            4 => bytes.truncate(at),
            5 => bytes.extend(std::iter::repeat_n(low, usize::from(high % 24))),
            6 => {
                let edge = EDGES[usize::from(low) % EDGES.len()];
                let width = [1, 2, 4, 8][usize::from(high) % 4].min(left);
                let shown = if high & 0x80 == 0 { edge.to_le_bytes() } else { edge.to_be_bytes() };
                let from = if high & 0x80 == 0 { 0 } else { 8 - width };
                bytes[at..at + width].copy_from_slice(&shown[from..from + width]);
            }
            7 => {
                let own = bytes[at..at + usize::from(low).min(left)].to_vec();
                drop(bytes.splice(at..at, own));
            }
            _ => {
                let other = &seeds[usize::from(low) % seeds.len()];
                let from = usize::from(high) % (other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    static WHOLE: AtomicUsize = AtomicUsize::new(0);
    static NEAR: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn inputs_are_seeds_and_what_is_near_them() {
        crate::target!(2_000, vec![b"first seed".to_vec(), b"second one".to_vec()], |bytes| {
            let is_whole = bytes == b"first seed" || bytes == b"second one";
            WHOLE.fetch_add(usize::from(is_whole), Relaxed);
            let is_near = bytes.windows(4).any(|part| b"first seed".windows(4).any(|p| p == part));
            NEAR.fetch_add(usize::from(is_near && !is_whole), Relaxed);
        });
        assert!(WHOLE.load(Relaxed) > 100, "{WHOLE:?}");
        assert!(NEAR.load(Relaxed) > 200, "{NEAR:?}");
    }
}
