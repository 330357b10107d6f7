//! A block's file. Numbers are little-endian.
//!
//! ```text
//!  0  8  magic "FF2KVBLK"          48 32  key of the block: all tokens up to its end
//!  8  4  version, 1                80  8  seconds to compute it again, f64
//! 12  4  0                         88 16  XXH3-128 of bytes 0..88 and the body
//! 16 32  root: model, block size  104  .  body: f32, layer after layer [tokens, kv_lora + rope]
//! ```

use xxhash_rust::xxh3::Xxh3;

use crate::blocks::Key;

const MAGIC: &[u8; 8] = b"FF2KVBLK";
const VERSION: u32 = 1;
const SUMMED: usize = 88;
pub(super) const HEAD: usize = 104;

pub(super) fn encode(root: &Key, key: &Key, seconds: f64, body: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(HEAD + body.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&[0; 4]);
    file.extend_from_slice(&root.0);
    file.extend_from_slice(&key.0);
    file.extend_from_slice(&seconds.to_le_bytes());
    file.extend_from_slice(&sum(&file, body).to_le_bytes());
    file.extend_from_slice(body);
    file
}

/// The body and its seconds, if the file is whole and what its name says. None of anything else: it is only a cache.
pub(super) fn decode(
    root: &Key,
    key: &Key,
    file: &[u8],
    body_len: usize,
) -> Option<(Vec<u8>, f64)> {
    let (head, body) = file.split_at_checked(HEAD)?;
    let seconds = f64::from_le_bytes(*head[80..].first_chunk()?);
    let expected = u128::from_le_bytes(*head[SUMMED..].first_chunk()?);
    let good = head[..8] == *MAGIC
        && head[8..12] == VERSION.to_le_bytes()
        && head[16..48] == root.0
        && head[48..80] == key.0
        && body.len() == body_len
        && seconds.is_finite()
        && sum(&head[..SUMMED], body) == expected;
    good.then(|| (body.to_vec(), seconds))
}

fn sum(head: &[u8], body: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(head);
    hash.update(body);
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_changed_or_shortened_file_is_taken() {
        let (root, key) = (Key([1; 32]), Key([2; 32]));
        let file = encode(&root, &key, 0.5, &[7; 40]);
        assert_eq!(decode(&root, &key, &file, 40), Some((vec![7; 40], 0.5)));
        assert_eq!(decode(&root, &root, &file, 40), None);
        assert_eq!(decode(&key, &key, &file, 40), None);
        assert_eq!(decode(&root, &key, &file, 44), None);
        for len in 0..file.len() {
            assert_eq!(decode(&root, &key, &file[..len], 40), None, "{len}");
        }
        for at in 0..file.len() {
            // The reserved bytes are summed too.
            let mut changed = file.clone();
            changed[at] ^= 4;
            assert_eq!(decode(&root, &key, &changed, 40), None, "byte {at}");
        }
    }

    #[test]
    fn the_bytes_stay_what_they_are() {
        let file = encode(&Key([1; 32]), &Key([2; 32]), 0.5, &[9; 4]);
        assert_eq!(&file[..16], b"FF2KVBLK\x01\0\0\0\0\0\0\0");
        assert_eq!(file[80..88], 0.5f64.to_le_bytes());
        assert_eq!(&file[104..], [9; 4]);
    }
}
