use proptest::prelude::*;

use super::*;

fn header() -> Header {
    Header {
        kind: Kind::Request,
        method: 0x0301,
        id: 0x0102_0304_0506_0708,
        routing_version: 77,
        message_bytes: 3,
        bulk_bytes: 4096,
        timeout_ms: 5000,
        annex_bytes: 9,
        message_crc: crc32c(b"abc"),
    }
}

#[test]
fn the_bytes_on_the_wire_never_change() {
    let golden = [
        b'f', b'f', b'2', 2, 8, 0, 0x01, 0x03, 8, 7, 6, 5, 4, 3, 2, 1, 77, 0, 0, 0, 0, 0, 0, 0, 3,
        0, 0, 0, 0, 16, 0, 0, 0x88, 0x13, 0, 0, 9, 0, 0, 0, 0xb7, 0x3f, 0x4b, 0x36,
    ];
    let bytes = header().encode();
    assert_eq!(bytes[..44], golden);
    assert_eq!(bytes[44..], crc32c(&golden).to_le_bytes());
    assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of CRC-32C");
    assert_eq!(Header::decode(&bytes, Limits::AUTHENTICATED), Ok(header()));
}

#[test]
fn a_message_is_sealed_behind_its_header() {
    let claims = ff2_proto::pb::UserClaims { uid: 7, ..Default::default() };
    let mut head = encode_message(&claims);
    seal(&mut head, Header::new(Kind::Reply, 9, 1), b"annex", 6);
    let (room, body) = head.split_at(HEADER_BYTES);
    let header = Header::decode(room.try_into().unwrap(), Limits::AUTHENTICATED).unwrap();
    assert_eq!((header.message_bytes, header.annex_bytes, header.bulk_bytes), (2, 5, 6));
    let (message, annex) = header.open(Bytes::copy_from_slice(body)).unwrap();
    assert_eq!((&message[..], &annex[..]), (&b"\x08\x07"[..], &b"annex"[..]));
    let other = Bytes::from_static(b"\x08\x08annex");
    assert_eq!(header.open(other), Err(FrameError::MessageChecksum));
    assert_eq!(header.open(Bytes::from_static(b"\x08\x07")), Err(FrameError::Truncated));
}

#[test]
fn lengths_are_bounded_before_anything_is_read() {
    let long = Header { message_bytes: 4097, bulk_bytes: 0, ..header() };
    let limit = Limits::HANDSHAKE;
    let refused = FrameError::MessageTooLong { bytes: 4097, limit: 4096 };
    assert_eq!(Header::decode(&long.encode(), limit), Err(refused));
    assert!(Header::decode(&long.encode(), Limits::AUTHENTICATED).is_ok());
    let refused = FrameError::BulkTooLong { bytes: 4096, limit: 0 };
    assert_eq!(Header::decode(&header().encode(), limit), Err(refused));
    let vast = Header { bulk_bytes: u32::MAX, ..header() };
    assert!(matches!(
        Header::decode(&vast.encode(), Limits::AUTHENTICATED),
        Err(FrameError::BulkTooLong { .. })
    ));
    let vast = Header { annex_bytes: u32::MAX, ..header() };
    assert!(matches!(
        Header::decode(&vast.encode(), Limits::AUTHENTICATED),
        Err(FrameError::AnnexTooLong(_))
    ));
}

#[test]
fn unknown_kinds_and_other_protocols_are_named() {
    let mut bytes = header().encode();
    bytes[4] = 99;
    let crc = crc32c(&bytes[..44]);
    bytes[44..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Header::decode(&bytes, Limits::AUTHENTICATED), Err(FrameError::Kind(99)));
    let mut http = [b' '; HEADER_BYTES];
    http[..14].copy_from_slice(b"GET / HTTP/1.1");
    assert!(matches!(Header::decode(&http, Limits::AUTHENTICATED), Err(FrameError::Magic(_))));
}

proptest! {
    #[test]
    fn any_flipped_bit_is_found(bit in 0..HEADER_BYTES * 8) {
        let mut bytes = header().encode();
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Header::decode(&bytes, Limits::AUTHENTICATED).is_err());
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::array::uniform(any::<u8>())) {
        let bytes: [u8; 32] = bytes;
        let mut header = [0; HEADER_BYTES];
        header[..32].copy_from_slice(&bytes);
        prop_assert!(Header::decode(&header, Limits::AUTHENTICATED).is_err());
        header[..4].copy_from_slice(b"ff2\x02");
        let crc = crc32c(&header[..44]);
        header[44..].copy_from_slice(&crc.to_le_bytes());
        let _ = Header::decode(&header, Limits::AUTHENTICATED);
    }
}

fn frames() -> Vec<Vec<u8>> {
    let claims =
        ff2_proto::pb::UserClaims { uid: 7, name: "somebody".into(), ..Default::default() };
    let frame = |kind, annex: &[u8], bulk| {
        let mut head = encode_message(&claims);
        seal(&mut head, Header::new(kind, 9, 1), annex, bulk);
        head
    };
    vec![
        frame(Kind::Request, b"annex", 4096),
        frame(Kind::Reply, b"", 0),
        frame(Kind::Hello, b"", 0),
        header().encode().to_vec(),
    ]
}

/// A frame that is accepted is one that was sent, unless somebody made the checksums fit; and then its
/// lengths are within the bounds, and its body is taken apart as they say.
#[test]
fn damaged_frames() {
    ff2_fuzz::target!(frames(), |bytes| {
        let Some((head, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return };
        if Header::decode(head, Limits::AUTHENTICATED).is_ok() {
            assert!(frames().iter().any(|sent| sent[..HEADER_BYTES] == *head));
        }
        let mut head = *head;
        head[..4].copy_from_slice(&MAGIC.to_le_bytes());
        head[40..44].copy_from_slice(&crc32c(body).to_le_bytes());
        let crc = crc32c(&head[..44]);
        head[44..].copy_from_slice(&crc.to_le_bytes());
        for limits in [Limits::AUTHENTICATED, Limits::USER, Limits::HANDSHAKE] {
            let decoded = ff2_fuzz::bounded(bytes, || Header::decode(&head, limits));
            let Ok(header) = decoded else { continue };
            assert!(header.message_bytes as usize <= limits.message_bytes);
            assert!(header.bulk_bytes as usize <= limits.bulk_bytes);
            assert_eq!(Header::decode(&header.encode(), limits).as_ref(), Ok(&header));
            if let Ok((message, annex)) = header.open(Bytes::copy_from_slice(body)) {
                assert_eq!([&message[..], &annex[..]].concat(), body);
                assert_eq!(message.len(), header.message_bytes as usize);
            }
        }
    });
}
