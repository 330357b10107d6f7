//! What holds of every transport by which a server moves the bulk bytes; the transports' own tests call it.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::annex::{Annex, Span};
use crate::{
    Buf, BufPool, SharedBuf,
    counters::Counters,
    echo::{ECHO, ask},
    frame::{FrameError, HEADER_BYTES, Header, Kind, encode_message, seal},
    transport::{Frame, Landing, LinkError, Receiver, Sender},
};

/// Both ends of a connection, of which the client may share four slabs.
pub(crate) struct Ends {
    pub(crate) client: (Sender, Receiver),
    pub(crate) server: (Sender, Receiver),
    /// What the client sent and heard by itself.
    pub(crate) moved: Arc<Counters>,
}

pub(crate) fn request(bulk: Vec<SharedBuf>) -> Frame {
    let head = encode_message(&ask(ECHO, 1, 0));
    Frame::new(Header::new(Kind::Request, 1, 0), head, bulk)
}

pub(crate) fn reply(bulk: Vec<SharedBuf>, landing: Option<Span>) -> Frame {
    let mut frame =
        Frame::new(Header::new(Kind::Reply, 1, 0), encode_message(&ask(ECHO, 1, 0)), bulk);
    frame.landing = landing.map(Landing::Theirs);
    frame
}

/// A pool buffer with a pattern.
pub(crate) fn pattern(pool: &Arc<BufPool>, len: usize) -> Buf {
    let mut buf = pool.try_get(len).unwrap();
    for (at, byte) in buf.iter_mut().enumerate() {
        *byte = (at * 7 + len) as u8;
    }
    buf
}

pub(crate) async fn payloads_are_pulled_and_replies_land(mut ends: Ends) {
    let pool = BufPool::new(8 << 20);
    let (payload, into) = (pattern(&pool, 1 << 20).freeze(), pool.try_get(1 << 20).unwrap());
    let (slab, offset) = into.place().unwrap();
    // Pieces of the pool, and one that lies in no slab, in the middle.
    let plain = SharedBuf::from(vec![9; 300]);
    let mut sent = request(vec![
        payload.slice(4096..),
        plain.clone(),
        SharedBuf::empty(),
        payload.slice(..4096),
    ]);
    sent.landing = Some(Landing::Ours { slab: slab.clone(), offset, len: into.len() });
    ends.client.0.send(&mut [sent]).await.unwrap();
    assert!(ends.moved.bytes_out.load(Relaxed) < 2_000, "the client sent the payload");

    let head = ends.server.1.head().await.unwrap();
    let mut taken = vec![0; head.header.bulk_bytes as usize];
    let (before, rest) = taken.split_at_mut(5000);
    ends.server.1.bulk(before).await.unwrap();
    ends.server.1.bulk(rest).await.unwrap();
    let wanted = [&payload[4096..], &plain, &payload[..4096]].concat();
    assert!(taken == wanted);

    let server_pool = BufPool::new(8 << 20);
    let answer = pattern(&server_pool, 700_000).freeze();
    let parts = vec![answer.slice(..100), answer.slice(100..)];
    ends.server.0.send(&mut [reply(parts, head.landing)]).await.unwrap();
    let head = ends.client.1.head().await.unwrap();
    assert!(head.landed && head.header.bulk_bytes == 700_000);
    let mut into = into;
    into.truncate(700_000);
    ends.client.1.bulk(&mut into).await.unwrap();
    assert!(into[..] == answer[..]);
    assert!(ends.moved.bytes_in.load(Relaxed) < 2_000, "the client read the reply");
}

pub(crate) async fn what_has_no_place_comes_in_the_stream(mut ends: Ends) {
    let pool = BufPool::new(8 << 20);
    let into = pool.try_get(4096).unwrap();
    let (slab, offset) = into.place().unwrap();
    let mut sent = request(Vec::new());
    sent.landing = Some(Landing::Ours { slab: slab.clone(), offset, len: 4096 });
    ends.client.0.send(&mut [sent]).await.unwrap();
    let landing = ends.server.1.head().await.unwrap().landing.unwrap();
    // Larger than its place; without a place; and one of very many pieces.
    let large = pattern(&BufPool::new(1 << 20), 5000).freeze();
    let crumbs = vec![large.slice(..1); Annex::SPANS_MAX + 1];
    let mut frames = [
        reply(vec![large.clone()], Some(landing)),
        reply(vec![large.clone()], None),
        request(crumbs),
    ];
    ends.server.0.send(&mut frames).await.unwrap();
    for len in [5000, 5000, Annex::SPANS_MAX + 1] {
        let head = ends.client.1.head().await.unwrap();
        assert_eq!((head.header.bulk_bytes as usize, head.landed), (len, false));
        let mut taken = vec![0; len];
        ends.client.1.skip(1).await.unwrap();
        ends.client.1.bulk(&mut taken[1..]).await.unwrap();
        let wanted = if len == 5000 { large[1..].to_vec() } else { vec![large[0]; len - 1] };
        assert!(taken[1..] == wanted);
    }
}

pub(crate) async fn memory_that_nobody_announced_is_refused(ends: impl Fn() -> Ends) {
    for spans in [vec![Span { slab: 0, offset: 0, len: 10 }], Vec::new()] {
        let mut ends = ends();
        let annex = Annex { landed: false, landing: None, parts: spans };
        let mut head = encode_message(&ask(ECHO, 1, 0));
        seal(&mut head, Header::new(Kind::Request, 1, 0), &annex.encode(), 10);
        ends.client.0.send_raw(&head).await;
        let refused = match ends.server.1.head().await {
            Ok(_) => ends.server.1.bulk(&mut [0; 10]).await.unwrap_err(),
            Err(why) => why,
        };
        assert!(matches!(refused, LinkError::Frame(FrameError::BulkMisplaced)), "{refused}");
    }
    let mut ends = ends();
    let mut head = vec![0; HEADER_BYTES];
    seal(&mut head, Header::new(Kind::Slab, 0, 0), &[], 0);
    ends.client.0.send_raw(&head).await;
    let refused = ends.server.1.head().await.unwrap_err();
    assert!(matches!(refused, LinkError::Frame(FrameError::BulkMisplaced)), "{refused}");
}
