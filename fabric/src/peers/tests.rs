//! A server with an address in each of two zones.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use ff2_proto::pb;
use tokio::net::TcpListener;

use crate::{
    Identity, NamespaceClient, Peers, PeersConfig, Router, RoutingCache, Server, ServerConfig,
    Tuning,
    echo::{CLUSTER, ECHO, Net, ask, until, within},
    stubs::method::NAMESPACE_EXECUTE,
};

const TUNING: Tuning = Tuning {
    keepalive: Duration::from_secs(1),
    silence_max: Duration::from_secs(5),
    stall_max: Duration::from_secs(5),
    connect_timeout: Duration::from_secs(2),
    first_frame_max: Duration::from_secs(1),
    far_pause: Duration::from_millis(50),
    // All would go by that.
    shared_memory: false,
};

/// Of a process in the zone `near`. The server is known by `far`.
fn peers(net: &Net, near: &str, far: &str) -> Arc<Peers> {
    let at =
        |zone: &str, address: &str| pb::ZoneAddress { zone: zone.into(), address: address.into() };
    let node = pb::Node {
        id: 101,
        role: pb::NodeRole::Storaged.into(),
        address: far.into(),
        addresses: vec![at("far", far), at("near", near)],
        ..Default::default()
    };
    let config =
        PeersConfig { zone: "near".into(), ..net.config(Identity::Daemon(net.key.clone())) };
    let delta = pb::RoutingDelta { version: 1, nodes: vec![node], ..Default::default() };
    assert!(config.routing.apply(delta));
    Peers::with_tuning(config, TUNING)
}

fn served(net: &Net) -> u64 {
    net.counters.method(NAMESPACE_EXECUTE).calls.load(Relaxed)
}

#[tokio::test]
async fn the_near_address_is_taken_while_it_answers_and_again_when_it_does() {
    let far = Net::tuned("127.0.0.1:0", 8 << 20, TUNING).await;
    let near = far.beside("127.0.0.1:0").await;
    let address = near.address.clone();
    let peers = peers(&far, &address, &far.address);
    let client = far.client(&peers);
    client.execute(&ask(ECHO, 1, 0), within(5_000)).await.unwrap();
    assert_eq!((served(&near), served(&far)), (1, 0));

    near.stop().await;
    while client.execute(&ask(ECHO, 1, 0), within(5_000)).await.is_err() {
        // The connection was found broken; the next call makes another one.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(served(&far), 1);

    let near = far.beside(&address).await;
    let end = crate::clock::now() + Duration::from_secs(10);
    while served(&near) == 0 {
        assert!(crate::clock::now() < end, "there is no way back");
        // No call fails for it.
        client.execute(&ask(ECHO, 1, 0), within(5_000)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until(|| far.counters.connections.load(Relaxed) == 0).await;
    near.stop().await;
    far.stop().await;
}

#[tokio::test]
async fn a_near_address_that_is_silent_leaves_time_for_the_far_one() {
    let far = Net::tuned("127.0.0.1:0", 8 << 20, TUNING).await;
    // The kernel takes the connection, and nobody says anything.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = silent.local_addr().unwrap().to_string();
    let peers = peers(&far, &near, &far.address);
    far.client(&peers).execute(&ask(ECHO, 1, 0), within(5_000)).await.unwrap();
    assert_eq!(served(&far), 1);
    far.stop().await;
}

#[tokio::test]
async fn a_server_listens_at_all_of_its_addresses() {
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let config = ServerConfig::new(CLUSTER, net.key.clone(), net.pool.clone(), RoutingCache::new());
    let mut server = Server::bind("127.0.0.1:0", config).await.unwrap();
    let first = server.local_addr();
    let second = server.also_at("127.0.0.1:0").await.unwrap();
    assert_ne!(first, second);
    let router = Router::new().add(crate::NamespaceServer::new(net.echo.clone()));
    let serving = tokio::spawn(server.serve(router, net.stop.clone()));
    let peers = net.peers();
    for address in [first, second] {
        let client = NamespaceClient::new(peers.channel(&address.to_string()));
        client.execute(&ask(ECHO, 1, 0), within(5_000)).await.unwrap();
    }
    net.stop().await;
    serving.await.unwrap();
}
