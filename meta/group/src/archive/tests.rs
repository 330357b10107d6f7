use super::*;

fn pair(key: u32) -> pb::KeyValue {
    let value = vec![key as u8; (key as usize * 37) % 300];
    pb::KeyValue { key: key.to_be_bytes().to_vec().into(), value: value.into() }
}

/// Two groups, some pages.
fn backup(keys: u32) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), "the-cluster", 1_764_000_000, "0.1.0").unwrap();
    for group in [1, 0] {
        writer.group(GroupBegin { group, index: 9 }).unwrap();
        let all: Vec<_> = (0..keys).map(pair).collect();
        for page in all.chunks(7) {
            writer.pairs(page.to_vec()).unwrap();
        }
        assert_eq!(writer.end_group().unwrap().pairs, u64::from(keys));
    }
    let (bytes, amount) = writer.finish().unwrap();
    assert_eq!(amount.pairs, 2 * u64::from(keys));
    bytes
}

fn read(bytes: &[u8]) -> Result<Vec<Piece>, ArchiveError> {
    let mut reader = Reader::new(bytes)?;
    let mut pieces = Vec::new();
    loop {
        let piece = reader.next_piece()?;
        let ends = matches!(piece, Piece::End(_));
        pieces.push(piece);
        if ends {
            assert_eq!(reader.at(), bytes.len() as u64);
            return Ok(pieces);
        }
    }
}

#[test]
fn what_was_written_is_read() {
    let bytes = backup(50);
    let pieces = read(&bytes).unwrap();
    let pairs: Vec<u32> = pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Pairs(pairs) => Some(pairs),
            _ => None,
        })
        .flatten()
        .map(|pair| u32::from_be_bytes(pair.key[..].try_into().unwrap()))
        .collect();
    assert_eq!(pairs, (0..50).chain(0..50).collect::<Vec<_>>());
    assert_eq!(pieces[0], Piece::Group(GroupBegin { group: 1, index: 9 }));
    let header = Reader::new(&bytes[..]).unwrap().header().clone();
    assert_eq!((header.cluster_id.as_str(), header.taken_at_s), ("the-cluster", 1_764_000_000));
}

#[test]
fn bytes_of_the_file_stay_as_they_are() {
    let bytes = backup(1);
    assert_eq!(&bytes[..16], b"ff2 backup\r\n\x1a\n\0\0");
    assert_eq!(&bytes[16..21], [HEADER, 28, 0, 0, 0]);
    assert_eq!(&bytes[25..27], [8, 1]);
    assert_eq!(&bytes[27..40], b"\x12\x0bthe-cluster");
    assert_eq!(&bytes[46..53], b"\x22\x050.1.0");
    let kinds = [GROUP, PAIRS, GROUP_END, GROUP, PAIRS, GROUP_END, TRAILER];
    let mut at = 53;
    for kind in kinds {
        assert_eq!(bytes[at], kind, "at {at}");
        at += 9 + u32::from_le_bytes(bytes[at + 1..at + 5].try_into().unwrap()) as usize;
    }
    assert_eq!(at, bytes.len());
}

/// Cut off anywhere, it is refused.
#[test]
fn a_cut_off_file_is_refused() {
    let bytes = backup(10);
    for length in 0..bytes.len() {
        let error = read(&bytes[..length]).expect_err("a part of a backup is none");
        let expected = matches!(error, ArchiveError::CutOff { .. } | ArchiveError::NoBackup);
        assert!(expected, "{length}: {error}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(read(&longer), Err(ArchiveError::Damaged { .. })));
}

/// Any bit that is not as it was written is found.
#[test]
fn every_flipped_bit_is_found() {
    let bytes = backup(10);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn another_format_and_another_file_are_told_as_such() {
    let header = Header { format: 2, cluster_id: "c".into(), taken_at_s: 1, release: "9.9".into() };
    let body = prost::Message::encode_to_vec(&header);
    let bytes = [&MAGIC[..], &head(HEADER, &body), &body].concat();
    assert!(matches!(read(&bytes), Err(ArchiveError::UnknownFormat { found: 2 })));
    assert!(matches!(
        read(b"#!/bin/sh\necho hello, this is no backup"),
        Err(ArchiveError::NoBackup)
    ));
}

/// A frame that is missing as a whole has no wrong checksum of its own.
#[test]
fn a_missing_or_doubled_frame_is_found() {
    let bytes = backup(30);
    let mut starts = vec![16];
    while let Some(&at) = starts.last().filter(|at| **at < bytes.len()) {
        let length = u32::from_le_bytes(bytes[at + 1..at + 5].try_into().unwrap());
        starts.push(at + 9 + length as usize);
    }
    for frame in starts.windows(2) {
        let without = [&bytes[..frame[0]], &bytes[frame[1]..]].concat();
        assert!(read(&without).is_err(), "without the frame at {}", frame[0]);
        let twice = [&bytes[..frame[1]], &bytes[frame[0]..]].concat();
        assert!(read(&twice).is_err(), "the frame at {} twice", frame[0]);
    }
}

#[test]
fn damaged_backups() {
    ff2_fuzz::target!(4_000, vec![backup(0), backup(3), backup(20)], |bytes| {
        if let Ok(pieces) = ff2_fuzz::bounded(bytes, || read(bytes)) {
            let mut reader = Reader::new(bytes).unwrap();
            let header = reader.header().clone();
            let _ = reader.next_piece();
            let mut writer =
                Writer::new(Vec::new(), &header.cluster_id, header.taken_at_s, &header.release)
                    .unwrap();
            for piece in pieces {
                match piece {
                    Piece::Group(begin) => writer.group(begin).unwrap(),
                    Piece::Pairs(pairs) => writer.pairs(pairs).unwrap(),
                    Piece::GroupEnd(_) => drop(writer.end_group().unwrap()),
                    Piece::End(_) => {}
                }
            }
            let (again, _) = writer.finish().unwrap();
            read(&again).expect("what was accepted is written and read again");
        }
    });
}
