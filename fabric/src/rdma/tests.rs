//! Without a device: what is offered, refused and said. With one: all that holds of a transport. Where there is none
//! the latter fail, unless `FF2_TEST_ALLOW_SKIP` is 1 or names `rdma`; all of them run in a virtual machine as well.

use std::{
    process::Command,
    sync::atomic::Ordering::{Relaxed, SeqCst},
    time::Duration,
};

use bytes::Bytes;
use ff2_proto::Code;
use ff2_verbs::{Remote, place};
use tokio::net::{TcpListener, TcpStream};

use super::{upgrade::decided, *};
use crate::{
    BufPool, Call, Identity, Tuning,
    counters::{Counters, Transport},
    echo::{CLUSTER, ECHO, Net, SLOW, ask, until, within},
    frame::{FrameError, Header, Kind, Limits, encode_message, seal},
    handshake::{self, Approach, Welcome},
    onesided::tests::{Ends, pattern},
    pulse::Pulse,
    server, tcp,
    transport::{self, Frame, Lane, LinkError},
};

/// Where the machine's first device is, and its second.
const FIRST: &str = "10.77.0.1:0";
const RAILS: [&str; 2] = ["10.77.0.0/24", "10.77.1.0/24"];

fn pulse() -> Arc<Pulse> {
    Pulse::new(Tuning::default(), Counters::new())
}

/// `None`: there are no devices, and the tests may be left out.
fn rdma(config: RdmaConfig) -> Option<Arc<Rdma>> {
    match Rdma::open(config) {
        Ok(rdma) => Some(rdma),
        Err(missing) => {
            let value = std::env::var("FF2_TEST_ALLOW_SKIP").unwrap_or_default();
            let allowed = value.split(',').any(|word| ["1", "rdma"].contains(&word));
            assert!(allowed, "{missing}; FF2_TEST_ALLOW_SKIP=rdma leaves RDMA out");
            eprintln!("SKIPPED: rdma cannot be used: {missing}");
            None
        }
    }
}

fn demanded() -> RdmaConfig {
    RdmaConfig { demanded: true, ..RdmaConfig::default() }
}

/// Without devices.
fn bare(config: RdmaConfig) -> Arc<Rdma> {
    Arc::new(Rdma {
        ways: Ways::blank(config.subnets.clone()),
        config,
        rails: Mutex::default(),
        told: Mutex::default(),
    })
}

fn told(rdma: &Rdma) -> Vec<String> {
    let mut told: Vec<_> = rdma.told.lock().iter().map(|(_, why)| why.clone()).collect();
    told.sort();
    told
}

/// Of an end as the device has it.
fn class_of(end: &End) -> u8 {
    end.pair.class().unwrap().traffic_class
}

async fn offered(rdma: &Arc<Rdma>, address: &str, encrypted: bool) -> Option<Offer> {
    let ip = address.split(':').next().unwrap().parse().unwrap();
    rdma.offer(&address.into(), ip, Lane::Bulk, encrypted).await
}

#[tokio::test]
async fn what_must_be_encrypted_is_not_offered_unless_the_network_is_trusted() {
    let cautious = bare(RdmaConfig::default());
    for _ in 0..3 {
        assert!(offered(&cautious, "127.0.0.1:9", true).await.is_none());
    }
    let told = told(&cautious);
    assert!(told.len() == 1 && told[0].contains("`rdma_trusted = true`"), "{told:?}");
    let answer = Answering::new(Some(&cautious), true)
        .answer(&Bytes::new(), Lane::Small, Workload::Files)
        .await;
    assert!(answer.unwrap_err().contains("`rdma_trusted = true`"));

    let trusting = bare(RdmaConfig { trusted: true, ..RdmaConfig::default() });
    assert!(offered(&trusting, "127.0.0.1:9", true).await.is_none());
    let why = super::tests::told(&trusting).join(" ");
    assert!(why.contains("no active RDMA port has the address 127.0.0.1"), "{why}");
}

#[tokio::test]
async fn endpoints_that_make_no_sense_are_refused_in_words() {
    let rdma = bare(RdmaConfig::default());
    for bytes in [&b"short"[..], &[0; 36], &[0xff; 36], &[1; 4 << 10]] {
        let answering = Answering::new(Some(&rdma), false);
        let bytes = Bytes::from_static(bytes);
        let why = answering.answer(&bytes, Lane::Bulk, Workload::Files).await.unwrap_err();
        assert!(why.contains("makes no sense"), "{why}");
        assert!(answering.made.lock().is_none());
    }
    let why = Answering::new(None, false).answer(&Bytes::new(), Lane::Bulk, Workload::Files).await;
    let why = why.unwrap_err();
    assert!(why.contains("no RDMA device"), "{why}");
}

#[tokio::test]
async fn a_server_without_rdma_says_so_and_serves_by_tcp() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let identity = Identity::Daemon(net.key.clone());
    let tcp = TcpStream::connect(&net.address).await.unwrap();
    let (mut sender, mut receiver) = tcp::split(tcp, &pulse()).unwrap();
    let approach = Approach { rdma: vec![1; 36].into(), ..Approach::by_network(Lane::Small) };
    let welcome =
        handshake::join(&mut sender, &mut receiver, &identity, CLUSTER, approach, None).await;
    let welcome = welcome.unwrap();
    assert!(welcome.rdma.is_empty() && welcome.no_rdma.contains("no RDMA device"), "{welcome:?}");
    let method = crate::stubs::method::NAMESPACE_EXECUTE.number;
    let header = Header { timeout_ms: 9000, method, ..Header::new(Kind::Request, 1, 0) };
    sender.send(&mut [Frame::new(header, encode_message(&ask(ECHO, 1, 0)), vec![])]).await.unwrap();
    assert_eq!(receiver.head().await.unwrap().header.kind, Kind::Reply);
    // A decision without an endpoint before it is one of nothing.
    let decision = Frame::new(Header::new(Kind::Decision, 0, 0), vec![0; 48], vec![]);
    sender.send(&mut [decision]).await.unwrap();
    while receiver.head().await.is_ok() {}
    net.stop().await;
}

#[tokio::test]
async fn releases_that_know_nothing_of_it_are_asked_and_answered_as_ever() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let (sender, _receiver) = net.link(Lane::Small).await;
    assert_eq!(sender.transport(), Transport::Tcp);
    use prost::Message as _;
    let old = Welcome { credit_bytes: 1, requests: 1, protocol: 2, ..Welcome::default() };
    assert_eq!(old.encode_to_vec(), [8, 1, 16, 1, 40, 2], "no field that they do not know");
    net.stop().await;
}

/// Both ends of a connection by the first device.
fn ends(rdma: &Arc<Rdma>) -> Ends {
    let place = rdma.ways.toward("", [10, 77, 0, 1].into()).unwrap().unwrap();
    let mut client = rdma.end(&place, Class::default(), Access::Peers).unwrap();
    let mut server = rdma.end(&place, Class::default(), Access::Local).unwrap();
    let points = (client.endpoint(), server.endpoint());
    client.connect(&points.1).unwrap();
    server.connect(&points.0).unwrap();
    let moved = Counters::new();
    let pulse_of_client = Pulse::new(Tuning::default(), moved.clone());
    let mut client = upgrade::pair_ends(client, &points.1, &pulse_of_client).unwrap();
    let mut server = upgrade::pair_ends(server, &points.0, &pulse()).unwrap();
    client.0.may_share(4);
    client.1.open(Limits::AUTHENTICATED, 0);
    server.1.open(Limits::AUTHENTICATED, 4);
    let ends = |(sender, receiver)| {
        (transport::Sender::Rdma(sender), transport::Receiver::Rdma(Box::new(receiver)))
    };
    Ends { client: ends(client), server: ends(server), moved }
}

#[tokio::test]
async fn payloads_are_pulled_and_replies_land() {
    let Some(rdma) = rdma(demanded()) else { return };
    crate::onesided::tests::payloads_are_pulled_and_replies_land(ends(&rdma)).await;
}

#[tokio::test]
async fn what_has_no_place_comes_in_the_stream() {
    let Some(rdma) = rdma(demanded()) else { return };
    crate::onesided::tests::what_has_no_place_comes_in_the_stream(ends(&rdma)).await;
}

#[tokio::test]
async fn memory_that_nobody_announced_is_refused() {
    let Some(rdma) = rdma(demanded()) else { return };
    crate::onesided::tests::memory_that_nobody_announced_is_refused(|| ends(&rdma)).await;
}

async fn net(pool_bytes: u64) -> Option<Net> {
    Some(Net::by_rdma(FIRST, pool_bytes, rdma(demanded())?).await)
}

/// Connections of a server that are open now.
fn open(net: &Net, transport: Transport) -> u64 {
    net.counters.transport(transport).connections.load(Relaxed)
}

#[tokio::test]
async fn bulk_bytes_travel_both_ways() {
    let Some(net) = net(64 << 20).await else { return };
    let counters = net.counters.clone();
    server::tests::echo_all_sizes(net).await;
    let by = |transport| counters.transport(transport).calls.load(Relaxed);
    assert_eq!((by(Transport::Rdma), by(Transport::Tcp)), (15, 0));
}

#[tokio::test]
async fn failures_arrive_as_they_were_made() {
    let Some(net) = net(8 << 20).await else { return };
    server::tests::failures_arrive(net).await;
}

#[tokio::test]
async fn many_calls_share_few_connections() {
    let Some(net) = net(64 << 20).await else { return };
    server::tests::many_calls(net, 500).await;
}

#[tokio::test]
async fn late_replies_are_thrown_away_and_the_connection_goes_on() {
    let Some(net) = net(64 << 20).await else { return };
    server::tests::late_replies(net, true).await;
}

#[tokio::test]
async fn payloads_wait_for_credit() {
    let Some(net) = net(8 << 20).await else { return };
    server::tests::payloads_wait(net).await;
}

#[tokio::test]
async fn a_stopping_server_answers_what_it_began() {
    let Some(net) = net(8 << 20).await else { return };
    server::tests::a_stopping_server(net).await;
}

#[tokio::test]
async fn buffers_stay_with_a_call_that_nobody_waits_for() {
    let Some(net) = net(8 << 20).await else { return };
    server::tests::buffers_stay_with_a_call_that_nobody_waits_for(net).await;
}

#[tokio::test]
async fn a_network_that_drops_the_packets_is_found_out_and_left() {
    let Some(rdma) = rdma(demanded()) else { return };
    let address = "10.77.0.1:9";
    let offer = offered(&rdma, address, false).await.unwrap();
    // An end of which nobody answers.
    let nobody = rdma.end(&offer.end.place, Class::default(), Access::Local).unwrap();
    let welcome = Welcome { rdma: nobody.endpoint().to_vec().into(), ..Welcome::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let ends = tcp::split(near, &pulse()).unwrap();
    let far = tcp::split(listener.accept().await.unwrap().0, &pulse()).unwrap();
    let begun = std::time::Instant::now();
    let (sender, _) = offer.settle(ends, &welcome, &pulse()).await.unwrap();
    assert_eq!(sender.transport(), Transport::Tcp);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let transport::Receiver::Tcp(mut far) = far.1 else { panic!("it is TCP") };
    assert!(!decided(&mut far).await.unwrap().rdma, "the server is told");
    let told = told(&rdma);
    assert!(told.len() == 1 && told[0].contains("first frame"), "{told:?}");
    assert!(offered(&rdma, address, false).await.is_none(), "not for a minute");
    assert!(offered(&rdma, "10.77.0.1:10", false).await.is_some(), "others are not concerned");
}

/// A daemon's connection by RDMA whose frames the test writes by hand.
async fn link(net: &Net) -> (transport::Sender, transport::Receiver) {
    let rdma = net.rdma.as_ref().unwrap();
    let offer = offered(rdma, &net.address, false).await.unwrap();
    let pulse = pulse();
    let tcp = TcpStream::connect(&net.address).await.unwrap();
    let (mut sender, mut receiver) = tcp::split(tcp, &pulse).unwrap();
    let identity = Identity::Daemon(net.key.clone());
    let approach = Approach { rdma: offer.endpoint(), ..Approach::by_network(Lane::Bulk) };
    let joining = handshake::join(&mut sender, &mut receiver, &identity, CLUSTER, approach, None);
    let welcome = joining.await.unwrap();
    offer.settle((sender, receiver), &welcome, &pulse).await.unwrap()
}

#[tokio::test]
async fn places_outside_of_what_was_shown_are_not_touched() {
    use crate::onesided::annex::{Annex, Span};
    let Some(net) = net(8 << 20).await else { return };
    let slab = BufPool::new(1 << 20).try_get(4096).unwrap().slab().unwrap().clone();
    let shown = |remote: Remote| {
        let mut head = vec![0; 48];
        seal(&mut head, Header::new(Kind::Slab, 0, 0), &remote.encode(), 0);
        head
    };
    let rail = net.rdma.as_ref().unwrap().rail("zebra0").unwrap();
    let real = rail.share(&slab, Access::Peers).unwrap();
    let wrong_key = Remote { key: real.remote().key ^ 0x5a5a, ..real.remote() };
    let outside = Remote { address: real.remote().address.wrapping_add(1 << 40), ..real.remote() };
    let whole = real.remote().len;
    let cases = [
        (real.remote(), Span { slab: 0, offset: whole - 5000, len: 10_000 }),
        (real.remote(), Span { slab: 1, offset: 0, len: 10_000 }),
        (real.remote(), Span { slab: 0, offset: u32::MAX, len: 10_000 }),
        (wrong_key, Span { slab: 0, offset: 0, len: 10_000 }),
        (outside, Span { slab: 0, offset: 0, len: 10_000 }),
    ];
    for (remote, span) in cases {
        let (mut sender, mut receiver) = link(&net).await;
        assert_eq!(sender.transport(), Transport::Rdma);
        sender.send_raw(&shown(remote)).await;
        let annex = Annex { parts: vec![span], ..Annex::default() };
        let mut head = encode_message(&ask(ECHO, 1, 0));
        let method = crate::stubs::method::NAMESPACE_EXECUTE.number;
        let header = Header { timeout_ms: 9000, method, ..Header::new(Kind::Request, 1, 0) };
        seal(&mut head, header, &annex.encode(), 10_000);
        sender.send_raw(&head).await;
        let ended = loop {
            match receiver.head().await {
                Ok(head) => assert_eq!(head.header.kind, Kind::Alive),
                Err(why) => break why,
            }
        };
        assert!(matches!(ended, LinkError::Closed | LinkError::Io(_)), "{ended}");
        assert_eq!(net.echo.done.load(SeqCst), 0, "{span:?}");
    }
    // Nobody else is worse off.
    let peers = net.peers();
    let call = Call { bulk: vec![pattern(peers.pool(), 100_000).freeze()], ..within(60_000) };
    net.client(&peers).execute(&ask(ECHO, 1, 0), call).await.unwrap();
    assert_eq!(open(&net, Transport::Tcp), 0);
    net.stop().await;
}

#[tokio::test]
async fn more_slabs_than_were_granted_end_the_connection() {
    let Some(rdma) = rdma(demanded()) else { return };
    let mut ends = ends(&rdma);
    let annex = Remote { address: 0, key: 0, len: 1 }.encode();
    let mut head = vec![0; 48];
    seal(&mut head, Header::new(Kind::Slab, 0, 0), &annex, 0);
    for _ in 0..5 {
        ends.client.0.send_raw(&head).await;
    }
    let refused = ends.server.1.head().await.unwrap_err();
    assert!(matches!(refused, LinkError::Frame(FrameError::BulkMisplaced)), "{refused}");
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success());
}

/// What a test does to the links ends with it.
struct Links;

impl Drop for Links {
    fn drop(&mut self) {
        ip("link set reed0 up");
        ip("link set reed1 up");
    }
}

/// What a client's hello says of its workload decides about the packets of both sides.
#[tokio::test]
async fn both_ends_have_the_class_of_what_the_client_carries() {
    let class = |traffic_class| Class { service_level: 3, traffic_class };
    let [metadata, storage, checkpoint, collective] = [8, 16, 32, 184].map(class);
    let classes = Classes { metadata, storage, checkpoint, collective };
    let config = || RdmaConfig { classes, ..demanded() };
    let Some(server) = rdma(config()) else { return };
    for (workload, lane, wanted) in [
        (Workload::Files, Lane::Small, metadata),
        (Workload::Files, Lane::Bulk, storage),
        (Workload::Checkpoints, Lane::Small, metadata),
        (Workload::Checkpoints, Lane::Bulk, checkpoint),
        (Workload::Collectives, Lane::Small, collective),
        (Workload::Collectives, Lane::Bulk, collective),
    ] {
        let client = rdma(RdmaConfig { workload, ..config() }).unwrap();
        let address = "10.77.0.1:9".into();
        let peer = [10, 77, 0, 1].into();
        let mut offer = client.offer(&address, peer, lane, false).await.unwrap();
        let answering = Answering::new(Some(&server), false);
        let heard = Workload::of(client.workload().number());
        let theirs = answering.answer(&offer.endpoint(), lane, heard).await.unwrap();
        offer.end.connect(&theirs).unwrap();
        let made = answering.made.into_inner().unwrap();
        let has = (class_of(&offer.end), class_of(&made.end));
        assert_eq!(has, (wanted.traffic_class, wanted.traffic_class), "{workload:?} {lane:?}");
    }
}

#[tokio::test]
async fn a_link_that_fails_is_left_for_another_and_at_last_for_tcp_and_comes_back() {
    let subnets = RAILS.map(|subnet| subnet.parse().unwrap()).to_vec();
    let pause = Duration::from_secs(2);
    let Some(rdma) = rdma(RdmaConfig { subnets, pause, ..demanded() }) else { return };
    let net = Net::by_rdma("127.0.0.1:0", 8 << 20, rdma.clone()).await;
    let peers = net.peers();
    let client = net.client(&peers);
    // As whoever uses the fabric does: what has an unknown outcome is asked again.
    let echoed = async || {
        for _ in 0..20 {
            // Small enough for the one connection of small calls.
            let bytes = pattern(peers.pool(), 60_000).freeze();
            let into = peers.pool().try_get(60_000);
            let call = Call { bulk: vec![bytes.clone()], into, ..within(20_000) };
            match client.execute(&ask(ECHO, 1, 0), call).await {
                Ok((_, echoed)) => return assert!(echoed[..] == bytes[..]),
                Err(status) => {
                    assert!(
                        matches!(status.code, Code::UnknownOutcome | Code::Unreachable),
                        "{status}"
                    );
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
            }
        }
        panic!("no way is found");
    };
    let calls = |transport| net.counters.transport(transport).calls.load(Relaxed);
    let _links = Links;
    echoed().await;
    assert_eq!((calls(Transport::Rdma), calls(Transport::Tcp)), (1, 0));
    ip("link set reed0 down");
    echoed().await;
    assert_eq!(calls(Transport::Tcp), 0, "the other rail serves");
    ip("link set reed1 down");
    echoed().await;
    assert_eq!(calls(Transport::Tcp), 1);
    let told = told(&rdma);
    assert!(told.iter().any(|why| why.contains("10.77.")), "{told:?}");

    ip("link set reed0 up");
    ip("link set reed1 up");
    let (by_rdma, end) = (calls(Transport::Rdma), std::time::Instant::now() + 20 * pause);
    while calls(Transport::Rdma) == by_rdma {
        assert!(
            std::time::Instant::now() < end,
            "there is no way back: {:?}",
            super::tests::told(&rdma)
        );
        // No call fails or is repeated for it.
        let bytes = pattern(peers.pool(), 60_000).freeze();
        let call = Call { bulk: vec![bytes.clone()], ..within(20_000) };
        let (_, echoed) = client.execute(&ask(ECHO, 1, 0), call).await.unwrap();
        assert!(echoed[..] == bytes[..]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until(|| open(&net, Transport::Tcp) == 0).await;
    net.stop().await;
}

/// Takes all devices away, and gives them back at its end at the latest.
struct NoDevices;

impl NoDevices {
    /// Returns when all who had them open have let go of them.
    fn make() -> Self {
        for name in ["zebra0", "zebra1"] {
            rdma_link(&["delete", name]);
        }
        Self
    }
}

impl Drop for NoDevices {
    fn drop(&mut self) {
        for (name, netdev) in [("zebra0", "reed0"), ("zebra1", "reed1")] {
            rdma_link(&["add", name, "type", "rxe", "netdev", netdev]);
        }
        // The addresses become GIDs some time later.
        let there = || place::all().is_ok_and(|all| RAILS.iter().all(|rail| has(&all, rail)));
        while !there() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn has(places: &[Place], rail: &str) -> bool {
    !place::within(places, &[rail.parse().unwrap()]).is_empty()
}

fn rdma_link(arguments: &[&str]) {
    assert!(Command::new("rdma").arg("link").args(arguments).status().unwrap().success());
}

#[tokio::test]
async fn a_device_that_comes_after_the_start_is_used() {
    if rdma(demanded()).is_none() {
        return;
    }
    let devices = NoDevices::make();
    let refused = Rdma::open(demanded()).unwrap_err();
    assert!(matches!(refused, RdmaError::NoDevice), "{refused}");
    let subnets = RAILS.map(|subnet| subnet.parse().unwrap()).to_vec();
    let pause = Duration::from_millis(500);
    let rdma = Rdma::open(RdmaConfig { subnets, pause, ..RdmaConfig::default() }).unwrap();
    let net = Net::by_rdma("127.0.0.1:0", 8 << 20, rdma.clone()).await;
    let peers = net.peers();
    let client = net.client(&peers);
    let echoed = async || {
        let bytes = pattern(peers.pool(), 60_000).freeze();
        let call = Call { bulk: vec![bytes.clone()], ..within(20_000) };
        let (_, echoed) = client.execute(&ask(ECHO, 1, 0), call).await.unwrap();
        assert!(echoed[..] == bytes[..]);
    };
    let calls = |transport| net.counters.transport(transport).calls.load(Relaxed);
    echoed().await;
    assert_eq!((calls(Transport::Rdma), calls(Transport::Tcp)), (0, 1));

    drop(devices);
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while calls(Transport::Rdma) == 0 {
        assert!(std::time::Instant::now() < end, "it is not used: {:?}", told(&rdma));
        echoed().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    net.stop().await;
}

#[tokio::test]
async fn a_device_that_is_taken_away_in_use_is_left_and_used_again_when_it_is_back() {
    let subnets = RAILS.map(|subnet| subnet.parse().unwrap()).to_vec();
    let pause = Duration::from_millis(500);
    let Some(rdma) = rdma(RdmaConfig { subnets, pause, ..demanded() }) else { return };
    let net = Net::by_rdma("127.0.0.1:0", 8 << 20, rdma.clone()).await;
    let peers = net.peers();
    let client = net.client(&peers);
    let calls = |transport| net.counters.transport(transport).calls.load(Relaxed);
    // As whoever uses the fabric does: what has an unknown outcome is asked again.
    let echoed = async || {
        let bytes = pattern(peers.pool(), 60_000).freeze();
        let call = Call { bulk: vec![bytes.clone()], ..within(20_000) };
        match client.execute(&ask(ECHO, 1, 0), call).await {
            Ok((_, echoed)) => assert!(echoed[..] == bytes[..]),
            Err(status) => {
                let again = matches!(status.code, Code::UnknownOutcome | Code::Unreachable);
                assert!(again, "{status}");
            }
        }
    };
    echoed().await;
    assert_eq!((calls(Transport::Rdma), calls(Transport::Tcp)), (1, 0));

    let taking = tokio::task::spawn_blocking(NoDevices::make);
    // Both sides let go of them, whatever the load. Each call is awaited: one that is given up would be counted later.
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !taking.is_finished() {
        assert!(std::time::Instant::now() < end, "they are held");
        echoed().await;
    }
    let devices = taking.await.unwrap();
    let by_tcp = calls(Transport::Tcp);
    echoed().await;
    assert_eq!(calls(Transport::Tcp), by_tcp + 1, "{:?}", told(&rdma));
    assert!(!told(&rdma).is_empty(), "nothing was said");

    drop(devices);
    let (by_rdma, end) =
        (calls(Transport::Rdma), std::time::Instant::now() + Duration::from_secs(60));
    while calls(Transport::Rdma) == by_rdma {
        assert!(std::time::Instant::now() < end, "it is not used: {:?}", told(&rdma));
        echoed().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    net.stop().await;
}

#[tokio::test]
async fn a_peer_that_leaves_is_noticed_by_who_only_listens() {
    let Some(net) = net(8 << 20).await else { return };
    let (sender, receiver) = link(&net).await;
    until(|| open(&net, Transport::Rdma) == 1).await;
    drop((sender, receiver));
    until(|| open(&net, Transport::Rdma) == 0).await;
    assert_eq!(net.counters.connection_errors.load(Relaxed), 0, "that is no error");

    let peers = net.peers();
    let client = net.client(&peers);
    let request = ask(SLOW, 1, 60_000);
    let waiting = client.execute(&request, within(60_000));
    let leaving = async {
        until(|| net.echo.running.load(SeqCst) == 1).await;
        peers.stop();
    };
    let (outcome, ()) = tokio::join!(waiting, leaving);
    assert_eq!(outcome.unwrap_err().code, Code::UnknownOutcome);
    until(|| open(&net, Transport::Rdma) == 0).await;
    net.serving.abort();
}

/// Whatever the host has.
#[test]
fn all_of_this_holds_in_a_virtual_machine() {
    ff2_vm::rerun_tests_named("all_of_this_holds_in_a_virtual_machine", "rdma::");
}
