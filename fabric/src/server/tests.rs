use std::{
    sync::atomic::Ordering::{Relaxed, SeqCst},
    time::{Duration, Instant},
};

use ff2_proto::{Code, RoutingVersion, pb};
use futures::future::join_all;
use prost::Message as _;

use crate::{
    Call, Owed, Peers, SharedBuf, Tuning,
    counters::Transport,
    echo::{ECHO, FAIL, FILL, GATED, Net, SLOW, ask, refused, until, within},
    frame::{Header, Kind, encode_message},
    limits::{REQUESTS_MAX, USER_MESSAGE_BYTES_MAX, USER_MESSAGES_BYTES},
    onesided::tests::pattern,
    stubs::method::NAMESPACE_EXECUTE,
    transport::{Frame, Lane},
};

fn payload(len: usize, seed: u8) -> SharedBuf {
    (0..len).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect::<Vec<_>>().into()
}

/// Calls of all sizes, with and without a place for the reply, over any transport.
pub(crate) async fn echo_all_sizes(net: Net) {
    let peers = net.peers();
    let client = net.client(&peers);
    for (seed, len) in [0, 1, 4096, 60_000, 65_537, 1 << 20, 5_000_001].into_iter().enumerate() {
        let bytes = payload(len, seed as u8);
        let parts = vec![bytes.slice(..len / 3), SharedBuf::empty(), bytes.slice(len / 3..)];
        let call = Call { bulk: parts.clone(), ..within(60_000) };
        let (reply, echoed) = client.execute(&ask(ECHO, seed as u64, 0), call).await.unwrap();
        assert_eq!((reply.session, &echoed[..]), (seed as u64, &bytes[..]));

        let into = peers.pool().get(len + 100).await;
        let address = into.as_ptr();
        let call = Call { bulk: parts, into: Some(into), ..within(60_000) };
        let (_, echoed) = client.execute(&ask(ECHO, 0, 0), call).await.unwrap();
        assert_eq!(&echoed[..], &bytes[..]);
        assert_eq!(echoed.as_ptr(), address, "the bytes landed in the caller's buffer");
    }
    let long = ask(ECHO, 1, 0);
    let long = pb::NsRequest {
        cred: Some(pb::Credentials { groups: vec![7; 300_000], ..Default::default() }),
        ..long
    };
    client.execute(&long, within(60_000)).await.unwrap();
    let sent = net.counters.method(NAMESPACE_EXECUTE);
    assert_eq!((sent.calls.load(Relaxed), sent.errors.load(Relaxed)), (15, 0));
    let carried = |way| peers.counters().transport(way).bytes_out.load(Relaxed);
    assert!(Transport::ALL.into_iter().map(carried).sum::<u64>() > 12 << 20);
    drop(client);
    drop(peers);
    let pool = net.pool.clone();
    net.stop().await;
    assert_eq!(pool.free_bytes(), pool.limit_bytes(), "every buffer came back");
}

async fn net(address: &str, shared_memory: bool) -> Net {
    let tuning = Tuning { shared_memory, ..Tuning::default() };
    Net::tuned(address, 64 << 20, tuning).await
}

#[tokio::test]
async fn bulk_bytes_travel_both_ways_over_tcp() {
    echo_all_sizes(net("127.0.0.1:0", false).await).await;
}

#[tokio::test]
async fn bulk_bytes_travel_both_ways_over_a_local_socket() {
    echo_all_sizes(net("127.0.0.1:0", true).await).await;
}

#[tokio::test]
async fn bulk_bytes_travel_both_ways_inside_a_process() {
    echo_all_sizes(net("mem:echo-all-sizes", false).await).await;
}

#[tokio::test]
async fn failures_arrive_as_they_were_made() {
    failures_arrive(Net::start("127.0.0.1:0", 8 << 20).await).await;
}

pub(crate) async fn failures_arrive(net: Net) {
    let peers = net.peers();
    let client = net.client(&peers);
    let status = client.execute(&ask(FAIL, 0, 0), within(60_000)).await.unwrap_err();
    assert_eq!((status.code, status.detail.as_str()), (Code::StaleRouting, "as asked"));
    assert!(status.chain.is_some());

    let other = crate::StorageClient::new(peers.channel(&net.address));
    let missing = other.space(&pb::SpaceRequest {}, within(60_000)).await;
    refused(missing, Code::Unsupported);

    let small = Call { into: peers.pool().try_get(10), ..within(60_000) };
    let detail = refused(client.execute(&ask(FILL, 9, 11), small).await, Code::BadFrame);
    assert!(detail.contains("11 bulk bytes"), "{detail}");
    let (_, filled) = client.execute(&ask(FILL, 9, 11), within(60_000)).await.unwrap();
    assert_eq!(&filled[..], [9; 11], "the connection is in step");

    let vast = Call { bulk: vec![payload(64 << 20, 1), payload(1, 1)], ..within(60_000) };
    refused(client.execute(&ask(ECHO, 0, 0), vast).await, Code::InvalidArgument);
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_share_few_connections() {
    many_calls(Net::start("127.0.0.1:0", 64 << 20).await, 3000).await;
}

pub(crate) async fn many_calls(net: Net, count: u64) {
    let peers = net.peers();
    let client = net.client(&peers);
    let calls = (0..count).map(|seq| {
        let client = client.clone();
        tokio::spawn(async move {
            let len = if seq % 50 == 0 { 300_000 } else { (seq % 97) as usize };
            let bytes = payload(len, seq as u8);
            let call = Call { bulk: vec![bytes.clone()], ..within(60_000) };
            let (reply, echoed) = client.execute(&ask(ECHO, seq, 0), call).await.unwrap();
            assert_eq!((reply.session, &echoed[..]), (seq, &bytes[..]));
        })
    });
    for call in join_all(calls).await {
        call.unwrap();
    }
    assert_eq!(net.counters.connections.load(Relaxed), 3, "one small and two bulk connections");
    net.stop().await;
}

#[tokio::test]
async fn late_replies_are_thrown_away_and_the_connection_goes_on() {
    for shared_memory in [false, true] {
        late_replies(net("127.0.0.1:0", shared_memory).await, shared_memory).await;
    }
}

/// `shared_memory`: the server works in the client's.
pub(crate) async fn late_replies(net: Net, shared_memory: bool) {
    let peers = net.peers();
    let client = net.client(&peers);
    for len in [0, 500_000, 500_000] {
        let call = Call { bulk: vec![payload(len, 1)], ..within(60_000) };
        client.execute(&ask(ECHO, 0, 0), call).await.expect("connects");
    }
    for len in [100, 500_000] {
        let into = peers.pool().get(len).await;
        let call = Call { bulk: vec![payload(len, 3)], into: Some(into), ..within(30) };
        let detail = refused(client.execute(&ask(SLOW, 1, 120), call).await, Code::Timeout);
        assert!(detail.contains("Namespace.Execute within 30ms"), "{detail}");
        let came_back = peers.pool().free_bytes() == 64 << 20;
        assert_eq!(
            came_back, !shared_memory,
            "the server has the place until it answers, or never"
        );
    }
    // The abandoned handlers finish; what they answer must not disturb the calls after them.
    let bytes = payload(200_000, 9);
    for _ in 0..20 {
        let call = Call { bulk: vec![bytes.clone()], ..within(60_000) };
        let (_, echoed) = client.execute(&ask(SLOW, 0, 10), call).await.unwrap();
        assert_eq!(&echoed[..], &bytes[..]);
    }
    until(|| net.echo.done.load(SeqCst) == 25).await;
    assert_eq!(peers.pool().free_bytes(), 64 << 20);
    net.stop().await;
}

/// Of a transport by which the server works in the client's memory.
pub(crate) async fn buffers_stay_with_a_call_that_nobody_waits_for(net: Net) {
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
async fn dropped_calls_give_their_place_back() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let peers = net.peers();
    let client = net.client(&peers);
    // More than the places of a connection, each dropped while its handler runs.
    for _ in 0..3 {
        let request = ask(GATED, 0, 0);
        let calls = (0..REQUESTS_MAX).map(|_| client.execute(&request, within(60_000)));
        let dropped = tokio::time::timeout(Duration::from_millis(100), join_all(calls)).await;
        assert!(dropped.is_err());
        net.echo.gate.add_permits(REQUESTS_MAX as usize);
        until(|| net.echo.running.load(SeqCst) == 0).await;
    }
    client.execute(&ask(ECHO, 0, 0), within(60_000)).await.unwrap();
    net.stop().await;
}

#[tokio::test]
async fn payloads_wait_for_credit() {
    payloads_wait(Net::start("127.0.0.1:0", 8 << 20).await).await;
}

/// A pool of 8 MiB grants 1 MiB to each of the two bulk connections.
pub(crate) async fn payloads_wait(net: Net) {
    let peers = net.peers();
    let client = net.client(&peers);
    let bytes = payload(700_000, 5);
    let calls: Vec<_> = (0..6)
        .map(|seq| {
            let (client, bulk) = (client.clone(), vec![bytes.clone()]);
            let call = Call { bulk, ..within(30_000) };
            tokio::spawn(async move { client.execute(&ask(GATED, seq, 0), call).await })
        })
        .collect();
    until(|| net.echo.running.load(SeqCst) == 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(net.echo.running.load(SeqCst), 2, "the others have no credit");
    client.execute(&ask(ECHO, 0, 0), within(5_000)).await.expect("small calls pass them");

    // One that gives up while it waits takes nothing with it.
    let call = Call { bulk: vec![bytes.clone()], ..within(20) };
    refused(client.execute(&ask(GATED, 9, 0), call).await, Code::Timeout);
    net.echo.gate.add_permits(6);
    for call in calls {
        assert_eq!(&call.await.unwrap().unwrap().1[..], &bytes[..]);
    }
    // Larger than all credit: goes alone.
    let large = payload(3 << 20, 6);
    let call = Call { bulk: vec![large.clone()], ..within(60_000) };
    let (_, echoed) = client.execute(&ask(ECHO, 0, 0), call).await.unwrap();
    assert_eq!(&echoed[..], &large[..]);
    net.stop().await;
}

#[tokio::test]
async fn a_full_pool_answers_busy_at_the_deadline() {
    let net = Net::start("127.0.0.1:0", 1 << 20).await;
    let peers = net.peers();
    let client = net.client(&peers);
    let held = net.pool.get(1 << 20).await;
    // More than what has memory of its own. The server is told a deadline that comes before the patience
    // of the client ends: at the same time, either could be the first to give up.
    let (mut sender, mut receiver) = net.link(Lane::Bulk).await;
    let bulk = payload(100_000, 1);
    let header = Header {
        method: NAMESPACE_EXECUTE.number,
        timeout_ms: 100,
        ..Header::new(Kind::Request, 8, 0)
    };
    let head = encode_message(&ask(ECHO, 0, 0));
    sender.send(&mut [Frame::new(header, head, vec![bulk])]).await.unwrap();
    let answer = async {
        loop {
            let head = receiver.head().await.unwrap();
            if head.header.kind != Kind::Alive {
                break head;
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), answer).await.unwrap();
    assert_eq!((answer.header.kind, answer.header.id), (Kind::Failure, 8));
    let status = pb::Status::decode(answer.message).unwrap();
    assert_eq!(status.code(), Code::Busy, "{status:?}");
    assert!(status.detail.contains("no buffer for 100000 bytes"), "{status:?}");
    drop(held);
    let call = Call { bulk: vec![payload(5000, 1)], ..within(60_000) };
    assert_eq!(client.execute(&ask(ECHO, 0, 0), call).await.unwrap().1.len(), 5000);
    net.stop().await;
}

#[tokio::test]
async fn a_posted_request_is_done_and_not_answered() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let peers = net.peers();
    let channel = peers.channel(&net.address);
    let patience = Duration::from_secs(5);
    // More than a connection has places for requests: each is free again without an answer.
    let posts = 2 * u64::from(REQUESTS_MAX);
    for seq in 0..posts {
        let what = if seq % 2 == 0 { ECHO } else { FAIL };
        channel.post(NAMESPACE_EXECUTE, &ask(what, seq, 0), patience).await.unwrap();
    }
    until(|| net.echo.done.load(SeqCst) as u64 == posts).await;
    let (reply, _) = net.client(&peers).execute(&ask(ECHO, 7, 0), within(60_000)).await.unwrap();
    assert_eq!(reply.session, 7, "the connection goes on");
    assert_eq!(peers.owed(), Owed { connections: 1, ..Owed::default() });

    // Its bytes would come by no credit.
    let (mut sender, mut receiver) = net.link(Lane::Small).await;
    let header = Header { method: NAMESPACE_EXECUTE.number, ..Header::new(Kind::Post, 0, 0) };
    let post = Frame::new(header, encode_message(&ask(ECHO, 0, 0)), vec![payload(10, 1)]);
    sender.send(&mut [post]).await.unwrap();
    let ended = async { while receiver.head().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();

    net.stop().await;
    until_unreachable(&channel).await;
}

/// The end of a connection is noticed a little later than it happens.
async fn until_unreachable(channel: &crate::Channel) {
    for _ in 0..1000 {
        let message = ask(ECHO, 0, 0);
        let posted = channel.post(NAMESPACE_EXECUTE, &message, Duration::from_secs(5));
        match posted.await {
            Ok(()) => tokio::time::sleep(Duration::from_millis(5)).await,
            outcome => return drop(refused(outcome, Code::Unreachable)),
        }
    }
    panic!("posts to a server that is gone still leave");
}

#[tokio::test]
async fn deadlines_and_routing_versions_travel() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let peers = net.peers();
    let client = net.client(&peers);
    let (reply, _) = client.execute(&ask(ECHO, 0, 0), within(7_000)).await.unwrap();
    assert!((3_000..=7_000).contains(&reply.session_lease_ms), "{}", reply.session_lease_ms);

    let mut heard = net.routing.heard();
    let config = net.config(crate::Identity::Daemon(net.key.clone()));
    let newer = config.routing.clone();
    let delta = pb::RoutingDelta { version: 9, ..Default::default() };
    assert!(newer.apply(delta));
    let ahead = Peers::new(config);
    net.client(&ahead).execute(&ask(ECHO, 0, 0), within(60_000)).await.unwrap();
    assert_eq!(*heard.borrow_and_update(), RoutingVersion(9), "the server heard of the client's");

    net.routing.apply(pb::RoutingDelta { version: 11, ..Default::default() });
    net.client(&ahead).execute(&ask(ECHO, 0, 0), within(60_000)).await.unwrap();
    assert_eq!(*newer.heard().borrow(), RoutingVersion(11), "and the client of the server's");
    net.stop().await;
}

#[tokio::test]
async fn users_messages_are_short_and_spread_no_rumours() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let token = net.key.issue(pb::UserClaims { name: "ada".into(), uid: 7, ..Default::default() });
    let config = net.config(crate::Identity::User(token));
    config.routing.apply(pb::RoutingDelta { version: u64::MAX, ..Default::default() });
    let peers = Peers::new(config);
    let user = net.client(&peers);
    let with_path = |bytes: usize| pb::NsRequest {
        op: Some(pb::ns_request::Op::Resolve(pb::ResolveOp {
            path: vec![b'x'; bytes].into(),
            ..Default::default()
        })),
        ..ask(ECHO, 0, 0)
    };
    let largest = USER_MESSAGE_BYTES_MAX - 100;
    user.execute(&with_path(largest), within(60_000)).await.unwrap();
    assert_eq!(*net.routing.heard().borrow(), RoutingVersion(0), "a user's claim");
    user.execute(&with_path(2 * largest), within(60_000)).await.unwrap_err();
    let peers = net.peers();
    let daemon = net.client(&peers);
    daemon.execute(&with_path(2 * largest), within(60_000)).await.unwrap();
    net.stop().await;
}

#[tokio::test]
async fn users_messages_share_a_bound() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let token = net.key.issue(pb::UserClaims { name: "ada".into(), uid: 7, ..Default::default() });
    let peers = Peers::new(net.config(crate::Identity::User(token)));
    let path = vec![b'x'; USER_MESSAGE_BYTES_MAX - 100].into();
    let op = pb::ns_request::Op::Resolve(pb::ResolveOp { path, ..Default::default() });
    let request = pb::NsRequest { op: Some(op), ..ask(GATED, 0, 0) };
    let fit = USER_MESSAGES_BYTES / request.encoded_len();
    let calls: Vec<_> = (0..fit + 20)
        .map(|_| {
            let (client, request) = (net.client(&peers), request.clone());
            tokio::spawn(async move { client.execute(&request, within(60_000)).await })
        })
        .collect();
    until(|| net.echo.running.load(SeqCst) as usize == fit).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(net.echo.running.load(SeqCst) as usize, fit, "the others wait");
    net.echo.gate.add_permits(calls.len());
    for call in calls {
        call.await.unwrap().unwrap();
    }
    net.stop().await;
}

#[tokio::test]
async fn a_stopping_server_answers_what_it_began() {
    a_stopping_server(Net::start("127.0.0.1:0", 8 << 20).await).await;
}

pub(crate) async fn a_stopping_server(net: Net) {
    let peers = net.peers();
    let client = net.client(&peers);
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.execute(&ask(SLOW, 7, 300), within(60_000)).await }
    });
    until(|| net.echo.running.load(SeqCst) == 1).await;
    net.stop.cancel();
    tokio::task::yield_now().await;
    refused(client.execute(&ask(ECHO, 0, 0), within(60_000)).await, Code::ShuttingDown);
    assert_eq!(slow.await.unwrap().unwrap().0.session, 7);
    net.serving.await.unwrap();
    let begun = Instant::now();
    refused(client.execute(&ask(ECHO, 0, 0), within(2_000)).await, Code::Unreachable);
    refused(client.execute(&ask(ECHO, 0, 0), within(2_000)).await, Code::Unreachable);
    assert!(begun.elapsed() < Duration::from_secs(2), "nobody waits for a server that is gone");
}

#[tokio::test]
async fn each_runtime_has_connections_of_its_own() {
    let net = Net::start("127.0.0.1:0", 1 << 20).await;
    let peers = net.peers();
    let client = net.client(&peers);
    for seq in [1, 2] {
        client.execute(&ask(ECHO, seq, 0), within(5_000)).await.unwrap();
    }
    assert_eq!(peers.owed().connections, 1);
    let there = {
        let (client, peers) = (net.client(&peers), peers.clone());
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let asked = ask(ECHO, 3, 0);
            let answer = runtime.unwrap().block_on(client.execute(&asked, within(5_000)));
            (answer.unwrap().0.session, peers.owed().connections)
        }
    };
    assert_eq!(tokio::task::spawn_blocking(there).await.unwrap(), (3, 2));
    client.execute(&ask(ECHO, 4, 0), within(5_000)).await.unwrap();
    peers.stop();
    refused(client.execute(&ask(ECHO, 5, 0), within(5_000)).await, Code::ShuttingDown);
    net.stop().await;
}
