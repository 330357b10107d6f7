#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn write(path: &Path, vocab: u32, masked: bool) -> Header {
    let mut writer = ShardWriter::create(path, vocab, [7; 32], masked).unwrap();
    writer.push(&[1, 2, 3, 4, 5], |place| place > 1, 11).unwrap();
    writer.push(&[6, 7, 8, 9, vocab - 1], |place| place < 2, 9).unwrap();
    writer.finish().unwrap()
}

fn open(path: &Path) -> Result<Shard, DataError> {
    let folder = Store::Folder(path.parent().unwrap().to_owned());
    Shard::open(&folder, path.file_name().unwrap().to_str().unwrap())
}

/// The format is a promise: files of today must be readable by later versions.
#[test]
fn the_bytes_are_those_of_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ff2tokens");
    write(&path, 1000, true);
    let bytes = fs::read(&path).unwrap();
    let mut expected = b"FF2TOKEN\x01\0\0\0\x02\0\0\0\xe8\x03\0\0\x01\0\0\0".to_vec();
    for number in [10u64, 2, 20] {
        expected.extend(number.to_le_bytes());
    }
    expected.extend([7; 32]);
    assert_eq!(bytes[..80], expected);
    let tokens = [1u16, 2, 3, 4, 5, 6, 7, 8, 9, 999];
    let mut body: Vec<u8> = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
    body.extend([0b0111_1100, 0]);
    body.extend([5u64, 10].iter().flat_map(|end| end.to_le_bytes()));
    assert_eq!(bytes[88..], body);
    assert_eq!(bytes[80..84], crc32_iscsi(&body).to_le_bytes());
}

#[test]
fn any_run_of_tokens_can_be_read_with_its_mask() {
    let folder = tempfile::tempdir().unwrap();
    for (vocab, masked) in [(1000, true), (1000, false), (70_000, true)] {
        let path = folder.path().join("a.ff2tokens");
        let written = write(&path, vocab, masked);
        let shard = open(&path).unwrap();
        shard.verify().unwrap();
        assert_eq!(*shard.header(), written);
        let all = [1, 2, 3, 4, 5, 6, 7, 8, 9, vocab - 1];
        let mask = [false, false, true, true, true, true, true, false, false, false];
        for from in 0..10 {
            for count in 1..=10 - from {
                let first = 10 - count;
                let runs = shard.read(&[from as u64, first as u64], count).unwrap();
                assert_eq!(runs.len(), 2);
                for (run, from) in runs.iter().zip([from, first]) {
                    assert_eq!(run.ids, all[from..from + count]);
                    let expected: Vec<_> =
                        mask[from..from + count].iter().map(|m| *m || !masked).collect();
                    assert_eq!(run.learned, expected, "{from} {count}");
                }
            }
        }
    }
}

#[test]
fn damage_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train-00000.ff2tokens");
    write(&path, 1000, false);
    let whole = fs::read(&path).unwrap();
    let refused = |bytes: &[u8], expected: &str| {
        fs::write(&path, bytes).unwrap();
        let error = open(&path).and_then(|shard| shard.verify()).unwrap_err().to_string();
        assert!(error.contains("train-00000.ff2tokens: "), "{error}");
        assert!(error.contains(expected), "{error}");
    };
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    refused(b"FF2", "3 bytes, expected a shard of tokens");
    refused(&flipped(0), "no shard of tokens");
    refused(&flipped(8), "version 0, expected version 1");
    refused(&flipped(25), "header is damaged");
    refused(&flipped(90), "its tokens are damaged (CRC32C");
    refused(&whole[..whole.len() - 1], "123 bytes, expected the 124 that its 10 tokens take");
    fs::remove_file(&path).unwrap();
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("is gone"), "{error}");
}
