use std::{
    os::fd::AsFd,
    sync::atomic::Ordering::{Relaxed, SeqCst},
    time::Duration,
};

use ff2_proto::Code;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::*;
use crate::{
    Buf, BufPool, Call, ClusterKey, Identity, Tuning,
    counters::Counters,
    echo::{CLUSTER, ECHO, Net, SLOW, ask, until},
    frame::{Limits, encode_message},
    handshake,
    limits::{SHARED_SLABS_MAX, USER_SHARED_SLABS_MAX, USERS_SHARED_SLABS_MAX},
    onesided::annex::Annex,
    tcp,
    transport::{Frame, Landing, Lane},
};

fn pulse() -> Arc<Pulse> {
    Pulse::new(Tuning::default(), Counters::new())
}

/// Both ends of a connection: a client's sender and the server's receiver, and the way back.
struct Ends {
    client: (transport::Sender, transport::Receiver),
    server: (transport::Sender, transport::Receiver),
    /// What the client's side sent and heard through the socket.
    pulse: Arc<Counters>,
}

fn ends() -> Ends {
    let (near, far) = UnixStream::pair().unwrap();
    let counters = Counters::new();
    let mut client = split(near, &Pulse::new(Tuning::default(), counters.clone())).unwrap();
    let mut server = split(far, &pulse()).unwrap();
    client.0.may_share(4);
    client.1.open(Limits::AUTHENTICATED, 0);
    server.1.open(Limits::AUTHENTICATED, 4);
    Ends { client, server, pulse: counters }
}

fn request(bulk: Vec<SharedBuf>) -> Frame {
    let head = encode_message(&ask(ECHO, 1, 0));
    Frame::new(Header::new(Kind::Request, 1, 0), head, bulk)
}

fn reply(bulk: Vec<SharedBuf>, landing: Option<Span>) -> Frame {
    let mut frame =
        Frame::new(Header::new(Kind::Reply, 1, 0), encode_message(&ask(ECHO, 1, 0)), bulk);
    frame.landing = landing.map(Landing::Theirs);
    frame
}

/// A pool buffer with a pattern.
fn pattern(pool: &Arc<BufPool>, len: usize) -> Buf {
    let mut buf = pool.try_get(len).unwrap();
    for (at, byte) in buf.iter_mut().enumerate() {
        *byte = (at * 7 + len) as u8;
    }
    buf
}

#[tokio::test]
async fn payloads_are_pulled_and_replies_land() {
    let mut ends = ends();
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
    assert!(ends.pulse.bytes_out.load(Relaxed) < 2_000, "the payload went through the socket");

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
    assert!(ends.pulse.bytes_in.load(Relaxed) < 2_000, "the reply went through the socket");
}

#[tokio::test]
async fn what_has_no_place_comes_in_the_stream() {
    let mut ends = ends();
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

#[tokio::test]
async fn memory_that_nobody_announced_is_refused() {
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

#[tokio::test]
async fn who_finds_no_room_waits_for_it() {
    use tokio::io::AsyncWriteExt;
    let (near, far) = UnixStream::pair().unwrap();
    let (mut write, _near) = socket::halves(near).unwrap();
    let (_far, mut read) = socket::halves(far).unwrap();
    read.open();
    let bytes: Vec<u8> = (0..4 << 20).map(|at: u32| (at / 100) as u8).collect();
    let sent = bytes.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
    });
    let mut came = Vec::new();
    let mut piece = vec![0; 100_000];
    loop {
        let count = crate::stream::ReadHalf::read(&mut read, &mut piece).await.unwrap();
        if count == 0 {
            break;
        }
        came.extend_from_slice(&piece[..count]);
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    assert!(came == bytes, "all of it, in order, and then the end");
}

#[tokio::test]
async fn descriptors_are_taken_from_who_proved_himself_and_only_memory() {
    let sealed = BufPool::new(1 << 20).try_get(4096).unwrap().slab().unwrap().clone();
    let file = tempfile::tempfile().unwrap();
    for (open, memory) in [(false, true), (true, true), (true, false)] {
        let (near, far) = UnixStream::pair().unwrap();
        let mut receiver = split(far, &pulse()).unwrap().1;
        if open {
            receiver.open(Limits::AUTHENTICATED, 4);
        }
        let (mut write, _read) = socket::halves(near).unwrap();
        let mut head = vec![0; HEADER_BYTES];
        seal(&mut head, Header::new(Kind::Slab, 0, 0), &[], 0);
        let sent = if memory { sealed.memory() } else { file.as_fd() };
        assert_eq!(write.send_with(&head, sent).await.unwrap(), head.len());
        drop(write);
        let ended = receiver.head().await.unwrap_err();
        // The one that was taken is followed by the end of the connection, the others end it.
        assert_eq!(matches!(ended, LinkError::Closed), open && memory, "{ended}");
    }
}

#[tokio::test]
async fn descriptors_without_a_word_end_the_connection() {
    let (near, far) = UnixStream::pair().unwrap();
    let mut receiver = split(far, &pulse()).unwrap().1;
    receiver.open(Limits::AUTHENTICATED, 4);
    let (mut write, _read) = socket::halves(near).unwrap();
    let slab = BufPool::new(1 << 20).try_get(4096).unwrap().slab().unwrap().clone();
    for _ in 0..HEADER_BYTES - 1 {
        // Bytes of a header that never ends.
        write.send_with(b"f", slab.memory()).await.unwrap();
    }
    let ended = receiver.head().await.unwrap_err();
    assert!(ended.to_string().contains("without a word"), "{ended}");
}

#[tokio::test]
async fn who_stands_between_is_shown_no_memory() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let identity = Identity::Daemon(net.key.clone());
    // He has the client call a socket of his, and passes its words on to the server.
    let tcp = TcpStream::connect(&net.address).await.unwrap();
    let (mut sender, mut receiver) = tcp::split(tcp, &pulse()).unwrap();
    let name = "ff2/somebody-elses";
    let joining =
        handshake::join(&mut sender, &mut receiver, &identity, CLUSTER, (Lane::Bulk, name), None);
    let LinkError::Refused(status) = joining.await.unwrap_err() else { panic!("it is a refusal") };
    assert_eq!(status.code, Code::Unauthenticated);
    assert!(status.detail.contains("somebody is between"), "{status}");
    net.stop().await;
}

#[tokio::test]
async fn users_share_a_few_slabs_and_then_none() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let claims = ff2_proto::pb::UserClaims { uid: 7, name: "ada".into(), ..Default::default() };
    let identity = Identity::User(net.key.issue(claims));
    let mut held = Vec::new();
    let mut name = String::new();
    let granted_to = USERS_SHARED_SLABS_MAX / USER_SHARED_SLABS_MAX;
    for number in 0..=1 + granted_to {
        let (mut sender, mut receiver) = if number == 0 {
            tcp::split(TcpStream::connect(&net.address).await.unwrap(), &pulse()).unwrap()
        } else {
            split(UnixStream::connect(path_of(&name)).await.unwrap(), &pulse()).unwrap()
        };
        let lane = Lane::Bulk;
        let joining =
            handshake::join(&mut sender, &mut receiver, &identity, CLUSTER, (lane, &name), None);
        let welcome = joining.await.unwrap();
        let by_local_socket_and_early = (1..=granted_to).contains(&number);
        let granted = if by_local_socket_and_early { USER_SHARED_SLABS_MAX } else { 0 };
        assert_eq!(welcome.shared_slabs, granted, "connection {number}");
        name = welcome.local_name;
        held.push((sender, receiver));
    }
    net.stop().await;
}

#[tokio::test]
async fn peers_of_one_host_share_memory() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let peers = net.peers();
    let payload = pattern(peers.pool(), 1 << 20).freeze();
    let into = Some(peers.pool().try_get(1 << 20).unwrap());
    let call = Call { bulk: vec![payload.clone()], into, ..Call::default() };
    let (_, echoed) = net.client(&peers).execute(&ask(ECHO, 0, 0), call).await.unwrap();
    assert!(echoed[..] == payload[..]);
    let through_sockets = peers.counters().bytes_out.load(Relaxed);
    assert!(through_sockets < 10_000, "{through_sockets}");
    net.stop().await;
}

#[tokio::test]
async fn buffers_stay_with_a_call_that_nobody_waits_for() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let peers = net.peers();
    let (client, pool) = (net.client(&peers), peers.pool());
    let all = pool.free_bytes();
    let payload = pattern(pool, 100_000).freeze();
    let into = pool.try_get(100_000);
    let held = all - pool.free_bytes();
    let call = Call { bulk: vec![payload], into, ..Call::within(Duration::from_secs(20)) };
    let request = ask(SLOW, 0, 300);
    tokio::select! {
        _ = client.execute(&request, call) => panic!("it takes its time"),
        () = until(|| net.echo.running.load(SeqCst) == 1) => (),
    }
    // Given up. The server will still write to the place of the reply: nobody else may have it yet.
    assert_eq!(all - pool.free_bytes(), held);
    until(|| pool.free_bytes() == all).await;
    assert_eq!(net.echo.done.load(SeqCst), 1, "the place came back before the server had answered");
    net.stop().await;
}

#[tokio::test]
async fn buffers_of_a_lost_connection_are_paid_back_but_not_lent_again() {
    let key = ClusterKey::generate().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name = new_name().unwrap();
    let local = UnixListener::bind(path_of(&name)).unwrap();
    let tuning = Tuning {
        keepalive: Duration::from_millis(50),
        silence_max: Duration::from_millis(300),
        ..Tuning::default()
    };
    let config = crate::PeersConfig {
        cluster_id: CLUSTER.into(),
        identity: Identity::Daemon(key.clone()),
        pool: BufPool::new(8 << 20),
        routing: crate::RoutingCache::new(),
        tls: None,
    };
    let peers = crate::Peers::with_tuning(config, tuning);
    let client = crate::NamespaceClient::new(peers.channel(&tcp.local_addr().unwrap().to_string()));
    // A server that takes the call and then stands still, but lives: it still has our memory.
    let server = async {
        let welcome = handshake::Welcome {
            credit_bytes: 1 << 20,
            requests: 8,
            local_name: name.clone(),
            shared_slabs: 0,
            protocol: 0,
        };
        let routing = crate::RoutingCache::new();
        let mut gate = handshake::Gate {
            cluster_id: CLUSTER,
            key: &key,
            routing: &routing,
            came_by: "",
            binding: None,
            must_encrypt: false,
            welcome: &welcome,
            grant_slabs: &|_| 1,
        };
        let (mut sender, mut receiver) =
            tcp::split(tcp.accept().await.unwrap().0, &pulse()).unwrap();
        handshake::admit(&mut sender, &mut receiver, &gate).await.unwrap();
        gate.came_by = &name;
        let (mut sender, mut receiver) = split(local.accept().await.unwrap().0, &pulse()).unwrap();
        handshake::admit(&mut sender, &mut receiver, &gate).await.unwrap();
        let landing = receiver.head().await.unwrap().landing.unwrap();
        (sender, receiver, landing)
    };
    let pool = peers.pool();
    let all = pool.free_bytes();
    let call = Call { into: pool.try_get(4096), ..Call::within(Duration::from_secs(20)) };
    let request = ask(ECHO, 1, 0);
    let (failed, server) = tokio::join!(client.execute(&request, call), server);
    assert_eq!(failed.unwrap_err().code, Code::UnknownOutcome);
    assert_eq!(pool.free_bytes(), all, "others can go on");
    let others: Vec<_> = std::iter::from_fn(|| pool.try_get(4096)).collect();
    let before: Vec<_> = others.iter().map(|other| other[0]).collect();
    let (mut sender, receiver, landing) = server;
    let late = SharedBuf::from(vec![0xee; 4096]);
    // The socket may be shut by now; the bytes land all the same.
    let _ = sender.send(&mut [reply(vec![late], Some(landing))]).await;
    let after: Vec<_> = others.iter().map(|other| other[0]).collect();
    assert!(before == after, "a late reply landed in a buffer that somebody else has");
    drop((sender, receiver, others));
    assert_eq!(pool.free_bytes(), all);
}

#[tokio::test]
async fn a_request_cannot_claim_that_its_payload_is_there() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let identity = Identity::Daemon(net.key.clone());
    let tcp = TcpStream::connect(&net.address).await.unwrap();
    let (mut sender, mut receiver) = tcp::split(tcp, &pulse()).unwrap();
    let joining =
        handshake::join(&mut sender, &mut receiver, &identity, CLUSTER, (Lane::Bulk, ""), None);
    let name = joining.await.unwrap().local_name;
    (sender, receiver) =
        split(UnixStream::connect(path_of(&name)).await.unwrap(), &pulse()).unwrap();
    let joining =
        handshake::join(&mut sender, &mut receiver, &identity, CLUSTER, (Lane::Bulk, &name), None);
    assert_eq!(joining.await.unwrap().shared_slabs, SHARED_SLABS_MAX);
    let annex = Annex { landed: true, ..Annex::default() };
    let mut head = encode_message(&ask(ECHO, 1, 0));
    let method = crate::stubs::method::NAMESPACE_EXECUTE.number;
    let header = Header { timeout_ms: 1000, method, ..Header::new(Kind::Request, 1, 0) };
    seal(&mut head, header, &annex.encode(), 100_000);
    sender.send_raw(&head).await;
    let ended = loop {
        match receiver.head().await {
            Ok(head) => assert_eq!(head.header.kind, Kind::Alive),
            Err(why) => break why,
        }
    };
    assert!(matches!(ended, LinkError::Closed | LinkError::Io(_)), "{ended}");
    assert_eq!(net.echo.done.load(SeqCst), 0, "old bytes of the server's pool were its payload");
    net.stop().await;
}
