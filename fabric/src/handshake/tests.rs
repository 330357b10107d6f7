use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use ff2_proto::{Code, PROTOCOL_VERSIONS, pb};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    Call, Peers, Tuning,
    auth::UserToken,
    counters::Counters,
    echo::{CLUSTER, ECHO, GATED, Net, ask, refused, until, within},
    frame::{HEADER_BYTES, seal},
    pulse::Pulse,
    tcp,
};

fn claims(expires_s: u64) -> pb::UserClaims {
    pb::UserClaims { uid: 7, name: "ada".into(), token_id: 3, expires_s, ..Default::default() }
}

async fn call_as(net: &Net, identity: Identity) -> Result<(pb::NsReply, crate::Buf), Status> {
    let peers = Peers::new(net.config(identity));
    net.client(&peers).execute(&ask(ECHO, u64::MAX, 0), within(5_000)).await
}

/// A connection whose frames the test writes by hand.
async fn raw(net: &Net, identity: &Identity, cluster: &str) -> Result<(Sender, Receiver), Status> {
    let stream = TcpStream::connect(&net.address).await.unwrap();
    let pulse = Pulse::new(Tuning::default(), Counters::new());
    let (mut sender, mut receiver) = tcp::split(stream, &pulse).unwrap();
    match join(
        &mut sender,
        &mut receiver,
        identity,
        cluster,
        Approach::by_network(Lane::Small),
        None,
    )
    .await
    {
        Ok(_) => Ok((sender, receiver)),
        Err(LinkError::Refused(status)) => Err(status),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn daemons_and_users_are_told_apart() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    call_as(&net, Identity::Daemon(net.key.clone())).await.unwrap();
    let token = net.key.issue(claims(0));
    let detail = refused(call_as(&net, Identity::User(token)).await, Code::Forbidden);
    assert!(detail.contains("ada"), "{detail}");
    net.stop().await;
}

#[tokio::test]
async fn strangers_are_refused_with_advice() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let other = ClusterKey::generate().unwrap();
    let detail =
        refused(call_as(&net, Identity::Daemon(other.clone())).await, Code::Unauthenticated);
    assert!(detail.contains("check the cluster key file"), "{detail}");
    let forged = other.issue(claims(0));
    let detail = refused(call_as(&net, Identity::User(forged)).await, Code::Unauthenticated);
    assert!(detail.contains("check the token file"), "{detail}");

    let expired = net.key.issue(claims(1_000_000_000));
    let detail = refused(call_as(&net, Identity::User(expired)).await, Code::Unauthenticated);
    assert!(detail.contains("expired on 2001-09-09"), "{detail}");
    assert!(detail.contains("ff2ctl user token"), "{detail}");

    let identity = Identity::Daemon(net.key.clone());
    let wrong = raw(&net, &identity, "other").await.unwrap_err();
    assert_eq!(wrong.code, Code::WrongCluster);
    let both = wrong.detail.contains(CLUSTER) && wrong.detail.contains("`other`");
    assert!(both, "{wrong}");
    net.stop().await;
}

#[tokio::test]
async fn a_revoked_token_ends_its_connection() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let peers = Peers::new(net.config(Identity::User(net.key.issue(claims(0)))));
    let client = net.client(&peers);
    client.execute(&ask(ECHO, 1, 0), Call::default()).await.unwrap();
    assert!(net.routing.apply(pb::RoutingDelta {
        version: 5,
        revoked_tokens: vec![2, 3],
        revoked_changed: true,
        ..Default::default()
    }));
    let first = client.execute(&ask(ECHO, 1, 0), Call::default()).await.unwrap_err();
    assert!(matches!(first.code, Code::UnknownOutcome | Code::Unauthenticated), "{first}");
    let detail =
        refused(client.execute(&ask(ECHO, 1, 0), Call::default()).await, Code::Unauthenticated);
    assert!(detail.contains("revoked"), "{detail}");
    net.stop().await;
}

/// Knows the claims of a token but not its MAC: gets past the hello, not past the proof.
#[tokio::test]
async fn claims_alone_are_worth_nothing() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let stream = TcpStream::connect(&net.address).await.unwrap();
    let pulse = Pulse::new(Tuning::default(), Counters::new());
    let (mut sender, mut receiver) = tcp::split(stream, &pulse).unwrap();
    let hello = Hello {
        protocol: PROTOCOL_VERSIONS[0],
        cluster_id: CLUSTER.into(),
        nonce: vec![1; 32].into(),
        daemon: true,
        claims: Bytes::new(),
        ..Default::default()
    };
    send(&mut sender, Kind::Hello, &hello).await.unwrap();
    let challenge: Challenge = expect(&mut receiver, Kind::Challenge).await.unwrap();
    // The server's own proof, sent back: it was made for another purpose.
    send(&mut sender, Kind::Proof, &Proof { proof: challenge.proof }).await.unwrap();
    let error = expect::<Welcome>(&mut receiver, Kind::Welcome).await.unwrap_err();
    assert!(matches!(error, LinkError::Refused(s) if s.code == Code::Unauthenticated));

    let (mut sender, mut receiver) =
        tcp::split(TcpStream::connect(&net.address).await.unwrap(), &pulse).unwrap();
    send(&mut sender, Kind::Hello, &Hello { protocol: 99, ..hello }).await.unwrap();
    let error = expect::<Challenge>(&mut receiver, Kind::Challenge).await.unwrap_err();
    let LinkError::Refused(status) = error else { panic!("{error}") };
    assert_eq!(status.code, Code::BadProtocolVersion);
    let told = "the server speaks versions 1 to 2 of the protocol, the client version 99: install a newer release \
                on the server's host";
    assert_eq!(status.detail, told);
    net.stop().await;
}

#[tokio::test]
async fn whatever_strangers_send_the_server_lives() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let mut oversized = vec![0; HEADER_BYTES + 8 * 1024];
    seal(&mut oversized, Header::new(Kind::Hello, 0, 0), &[], 0);
    let mut early = vec![0; HEADER_BYTES];
    seal(&mut early, Header::new(Kind::Request, 0, 0), &[], 0);
    let mut cut = oversized[..HEADER_BYTES - 1].to_vec();
    let garbage =
        b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: something long enough\r\n\r\n".to_vec();
    cut.truncate(20);
    for bytes in [oversized, early, garbage, cut, Vec::new()] {
        let mut stream = TcpStream::connect(&net.address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // Closed or reset: in any case it ends.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "a stranger learns nothing");
    }
    until(|| net.counters.connection_errors.load(Relaxed) == 5).await;
    call_as(&net, Identity::Daemon(net.key.clone())).await.unwrap();
    net.stop().await;
}

#[tokio::test]
async fn bad_frames_end_an_authenticated_connection_only() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let identity = Identity::Daemon(net.key.clone());
    let mut damaged = encode_message(&ask(ECHO, 1, 0));
    seal(&mut damaged, Header::new(Kind::Request, 1, 0), &[], 0);
    *damaged.last_mut().unwrap() ^= 1;
    let mut misplaced = vec![0; HEADER_BYTES];
    seal(&mut misplaced, Header::new(Kind::Reply, 1, 0), &[], 0);
    for head in [damaged, misplaced, vec![0; HEADER_BYTES]] {
        let (mut sender, mut receiver) = raw(&net, &identity, CLUSTER).await.unwrap();
        sender.send_raw(&head).await;
        let ended = loop {
            // Signs of life may come first.
            if let Err(why) = receiver.head().await {
                break why;
            }
        };
        assert!(matches!(ended, LinkError::Closed | LinkError::Io(_)), "{ended}");
    }
    until(|| net.counters.connection_errors.load(Relaxed) == 3).await;

    // A message that is no protobuf is the call's failure, not the connection's.
    let (mut sender, mut receiver) = raw(&net, &identity, CLUSTER).await.unwrap();
    let mut head = vec![0; HEADER_BYTES];
    head.extend([0xff; 9]);
    let header = Header { method: 0x0200, timeout_ms: 1000, ..Header::new(Kind::Request, 8, 0) };
    seal(&mut head, header, &[], 0);
    sender.send_raw(&head).await;
    let reply = loop {
        let head = receiver.head().await.unwrap();
        if head.header.kind != Kind::Alive {
            break head;
        }
    };
    assert_eq!((reply.header.kind, reply.header.id), (Kind::Failure, 8));
    let status = pb::Status::decode(reply.message).unwrap();
    assert_eq!(status.code(), Code::BadFrame);
    net.stop().await;
}

/// A server that admits one connection and then does what the test wants.
async fn admit_one(listener: &TcpListener, key: &ClusterKey) -> (Sender, Receiver) {
    let (stream, _) = listener.accept().await.unwrap();
    let pulse = Pulse::new(Tuning::default(), Counters::new());
    let (mut sender, mut receiver) = tcp::split(stream, &pulse).unwrap();
    let routing = RoutingCache::new();
    let welcome = Welcome { credit_bytes: 1 << 20, requests: 8, ..Default::default() };
    let gate = Gate {
        cluster_id: CLUSTER,
        key,
        routing: &routing,
        came_by: "",
        binding: None,
        must_encrypt: None,
        rdma: crate::rdma::Answering::new(None, false),
        welcome: &welcome,
        grant_slabs: &|_| 0,
    };
    admit(&mut sender, &mut receiver, &gate).await.unwrap();
    (sender, receiver)
}

fn peers_of(key: &ClusterKey, tuning: Tuning) -> Arc<Peers> {
    let config = crate::PeersConfig {
        cluster_id: CLUSTER.into(),
        identity: Identity::Daemon(key.clone()),
        pool: crate::BufPool::new(1 << 20),
        routing: RoutingCache::new(),
        tls: None,
        rdma: None,
        zone: String::new(),
    };
    Peers::with_tuning(config, tuning)
}

#[tokio::test]
async fn a_server_that_dies_leaves_the_outcome_unknown() {
    let key = ClusterKey::generate().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peers = peers_of(&key, Tuning::default());
    let channel = peers.channel(&listener.local_addr().unwrap().to_string());
    let client = crate::NamespaceClient::new(channel);
    let (request, call) = (ask(ECHO, 1, 0), within(10_000));
    let dying = async {
        let (sender, mut receiver) = admit_one(&listener, &key).await;
        receiver.head().await.unwrap();
        drop((sender, receiver, listener));
    };
    let (result, ()) = tokio::join!(client.execute(&request, call), dying);
    refused(result, Code::UnknownOutcome);
    let detail = refused(client.execute(&request, within(1_000)).await, Code::Unreachable);
    assert!(detail.contains("cannot connect"), "{detail}");
}

#[tokio::test]
async fn half_open_connections_are_found_out() {
    let tuning = Tuning {
        keepalive: Duration::from_millis(50),
        silence_max: Duration::from_millis(400),
        ..Tuning::default()
    };
    let key = ClusterKey::generate().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peers = peers_of(&key, tuning);
    let client =
        crate::NamespaceClient::new(peers.channel(&listener.local_addr().unwrap().to_string()));
    let request = ask(ECHO, 1, 0);
    // The server's host is gone: the connection stands, nothing comes.
    let silent = async {
        let kept = admit_one(&listener, &key).await;
        std::future::pending::<()>().await;
        drop(kept);
    };
    let result = tokio::select! {
        result = client.execute(&request, within(20_000)) => result,
        () = silent => unreachable!("it never ends"),
    };
    let detail = refused(result, Code::UnknownOutcome);
    assert!(detail.contains("nothing was heard"), "{detail}");

    // And a client that vanished is dropped by the server.
    let net = Net::tuned("127.0.0.1:0", 8 << 20, tuning).await;
    let kept = raw(&net, &Identity::Daemon(net.key.clone()), CLUSTER).await.unwrap();
    until(|| net.counters.connections.load(Relaxed) == 1).await;
    until(|| net.counters.connections.load(Relaxed) == 0).await;
    drop(kept);

    // While a slow call alone says nothing against its server.
    let live = Peers::with_tuning(net.config(Identity::Daemon(net.key.clone())), tuning);
    let client = net.client(&live);
    let gated = ask(GATED, 4, 0);
    let (result, ()) = tokio::join!(client.execute(&gated, within(20_000)), async {
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        net.echo.gate.add_permits(1);
    });
    assert_eq!(result.unwrap().0.session, 4);
    net.stop().await;
}

#[tokio::test]
async fn peers_find_a_server_that_came_back() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let (peers, address, key) = (net.peers(), net.address.clone(), net.key.clone());
    let client = net.client(&peers);
    client.execute(&ask(ECHO, 1, 0), Call::default()).await.unwrap();
    net.stop().await;
    refused(client.execute(&ask(ECHO, 1, 0), Call::default()).await, Code::Unreachable);
    let again = TcpListener::bind(&address).await.unwrap();
    let mut tries = 0;
    let (result, _kept) = tokio::join!(
        async {
            loop {
                tries += 1;
                let result = client.execute(&ask(ECHO, 1, 0), within(2_000)).await;
                if !matches!(&result, Err(status) if status.code == Code::Unreachable) {
                    break result;
                }
                assert!(tries < 1000);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        },
        async {
            let (sender, mut receiver) = admit_one(&again, &key).await;
            receiver.head().await.unwrap();
            drop(sender);
        }
    );
    refused(result, Code::UnknownOutcome);
}

#[test]
fn tokens_parse_before_they_travel() {
    let key = ClusterKey::generate().unwrap();
    let token = key.issue(claims(0));
    let parsed: UserToken = token.to_string().parse().unwrap();
    assert_eq!(parsed.secret(), &key.token_mac(parsed.encoded_claims()));
}

fn greetings() -> Vec<Vec<u8>> {
    let nonce = || Bytes::from_static(&[7; 32]);
    let hello = Hello {
        protocol: PROTOCOL_VERSIONS[0],
        cluster_id: "c".into(),
        nonce: nonce(),
        claims: Bytes::from_static(b"claims"),
        bulk: true,
        ..Default::default()
    };
    let welcome = Welcome { credit_bytes: 1 << 20, requests: 64, ..Default::default() };
    vec![
        hello.encode_to_vec(),
        Challenge { nonce: nonce(), proof: nonce() }.encode_to_vec(),
        Proof { proof: nonce() }.encode_to_vec(),
        welcome.encode_to_vec(),
    ]
}

fn survives<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = ff2_fuzz::bounded(bytes, || M::decode(bytes)) {
        assert_eq!(M::decode(message.encode_to_vec().as_slice()), Ok(message));
    }
}

#[test]
fn damaged_greetings() {
    ff2_fuzz::target!(greetings(), |bytes| {
        survives::<Hello>(bytes);
        survives::<Challenge>(bytes);
        survives::<Proof>(bytes);
        survives::<Welcome>(bytes);
        assert_eq!(nonce_of(bytes).is_ok(), bytes.len() == 32);
    });
}

#[test]
fn the_highest_version_that_both_speak_is_used() {
    let agreed = |server, client| common(server, client).ok();
    assert_eq!(agreed([1, 2], [1, 2]), Some(2));
    assert_eq!(agreed([1, 2], [1, 1]), Some(1), "a client of the release before");
    assert_eq!(agreed([1, 1], [1, 2]), Some(1), "a server of the release before");
    assert_eq!(agreed([2, 3], [1, 2]), Some(2));
    assert_eq!((agreed([2, 3], [1, 1]), agreed([1, 1], [2, 3])), (None, None));
    let LinkError::Refused(status) = common([2, 3], [1, 1]).unwrap_err() else { panic!("refused") };
    assert!(status.detail.contains("on the client's host"), "{}", status.detail);
}

/// Who knows nothing of ranges says one version, and is understood; nor does its welcome say any.
#[tokio::test]
async fn a_client_from_before_ranges_is_admitted() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let stream = TcpStream::connect(&net.address).await.unwrap();
    let pulse = Pulse::new(Tuning::default(), Counters::new());
    let (mut sender, mut receiver) = tcp::split(stream, &pulse).unwrap();
    let hello = Hello {
        protocol: 1,
        cluster_id: CLUSTER.into(),
        nonce: vec![1; 32].into(),
        daemon: true,
        ..Default::default()
    };
    send(&mut sender, Kind::Hello, &hello).await.unwrap();
    let challenge: Challenge = expect(&mut receiver, Kind::Challenge).await.unwrap();
    let nonce = nonce_of(&challenge.nonce).unwrap();
    let [_, proof] = proofs(net.key.secret(), &nonce, &hello.encode_to_vec(), None);
    send(&mut sender, Kind::Proof, &Proof { proof: Bytes::copy_from_slice(&proof) }).await.unwrap();
    let welcome: Welcome = expect(&mut receiver, Kind::Welcome).await.unwrap();
    assert_eq!(welcome.protocol, 1);
    net.stop().await;
}
