use std::{
    os::fd::AsFd,
    sync::atomic::Ordering::{Relaxed, SeqCst},
    time::Duration,
};

use ff2_proto::Code;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::*;
use crate::{
    BufPool, Call, ClusterKey, Identity, Tuning,
    counters::Counters,
    echo::{CLUSTER, ECHO, Net, ask},
    frame::{Limits, encode_message},
    handshake::{self, Approach},
    limits::{SHARED_SLABS_MAX, USER_SHARED_SLABS_MAX, USERS_SHARED_SLABS_MAX},
    onesided::{
        annex::Annex,
        tests::{Ends, pattern, reply},
    },
    tcp,
    transport::Lane,
};

fn pulse() -> Arc<Pulse> {
    Pulse::new(Tuning::default(), Counters::new())
}

fn ends() -> Ends {
    let (near, far) = UnixStream::pair().unwrap();
    let moved = Counters::new();
    let mut client = split(near, &Pulse::new(Tuning::default(), moved.clone())).unwrap();
    let mut server = split(far, &pulse()).unwrap();
    client.0.may_share(4);
    client.1.open(Limits::AUTHENTICATED, 0);
    server.1.open(Limits::AUTHENTICATED, 4);
    Ends { client, server, moved }
}

#[tokio::test]
async fn payloads_are_pulled_and_replies_land() {
    onesided::tests::payloads_are_pulled_and_replies_land(ends()).await;
}

#[tokio::test]
async fn what_has_no_place_comes_in_the_stream() {
    onesided::tests::what_has_no_place_comes_in_the_stream(ends()).await;
}

#[tokio::test]
async fn memory_that_nobody_announced_is_refused() {
    onesided::tests::memory_that_nobody_announced_is_refused(ends).await;
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
    let joining = handshake::join(
        &mut sender,
        &mut receiver,
        &identity,
        CLUSTER,
        Approach { local_name: name, ..Approach::by_network(Lane::Bulk) },
        None,
    );
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
        let joining = handshake::join(
            &mut sender,
            &mut receiver,
            &identity,
            CLUSTER,
            Approach { local_name: &name, ..Approach::by_network(lane) },
            None,
        );
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
    crate::server::tests::buffers_stay_with_a_call_that_nobody_waits_for(net).await;
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
        rdma: None,
        zone: String::new(),
    };
    let peers = crate::Peers::with_tuning(config, tuning);
    let client = crate::NamespaceClient::new(peers.channel(&tcp.local_addr().unwrap().to_string()));
    // A server that takes the call and then stands still, but lives: it still has our memory.
    let server = async {
        let welcome = handshake::Welcome {
            credit_bytes: 1 << 20,
            requests: 8,
            local_name: name.clone(),
            ..Default::default()
        };
        let routing = crate::RoutingCache::new();
        let mut gate = handshake::Gate {
            cluster_id: CLUSTER,
            key: &key,
            routing: &routing,
            came_by: "",
            binding: None,
            must_encrypt: None,
            welcome: &welcome,
            rdma: crate::rdma::Answering::new(None, false),
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
    let joining = handshake::join(
        &mut sender,
        &mut receiver,
        &identity,
        CLUSTER,
        Approach::by_network(Lane::Bulk),
        None,
    );
    let name = joining.await.unwrap().local_name;
    (sender, receiver) =
        split(UnixStream::connect(path_of(&name)).await.unwrap(), &pulse()).unwrap();
    let joining = handshake::join(
        &mut sender,
        &mut receiver,
        &identity,
        CLUSTER,
        Approach { local_name: &name, ..Approach::by_network(Lane::Bulk) },
        None,
    );
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
