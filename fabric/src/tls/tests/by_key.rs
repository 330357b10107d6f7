//! TLS without an authority.

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    task::JoinHandle,
};

use super::*;
use crate::ClusterKey;

const ADVICE: &str = "encrypt here too";

fn by_key() -> Option<ClientTls> {
    Some(ClientTls::by_key().unwrap())
}

async fn keyed() -> Net {
    start(ServerTls::by_key(ADVICE).unwrap()).await
}

#[tokio::test]
async fn who_knows_the_key_needs_no_authority() {
    let net = keyed().await;
    let client = peers(&net, by_key());
    for bytes in [0, 1, 3 << 20] {
        let back = echo(&net, &client, bytes).await.unwrap();
        assert!(back.len() == bytes && back.iter().all(|&byte| byte == 7), "{bytes}");
    }
    net.stop().await;
}

#[tokio::test]
async fn strangers_and_those_in_clear_are_refused_with_advice() {
    let net = keyed().await;
    let identity = Identity::Daemon(ClusterKey::generate().unwrap());
    let stranger = Peers::new(PeersConfig { tls: by_key(), ..net.config(identity) });
    let detail = refused(echo(&net, &stranger, 1).await, Code::Unauthenticated);
    assert!(detail.contains("do not belong together"), "{detail}");
    let detail = refused(echo(&net, &peers(&net, None), 1).await, Code::Unauthenticated);
    assert!(detail.contains(ADVICE), "{detail}");
    net.stop().await;
    let net = Net::start("127.0.0.1:0", 8 << 20).await;
    let detail = refused(echo(&net, &peers(&net, by_key()), 1).await, Code::Unreachable);
    assert!(detail.contains("does the server encrypt"), "{detail}");
    net.stop().await;
}

#[tokio::test]
async fn who_is_in_the_middle_cannot_pass_the_handshake_on() {
    let tls = || ServerTls::by_key(ADVICE).unwrap();
    nobody_passes_on(tls(), (tls(), by_key().unwrap()), by_key().unwrap()).await;
}

/// Puts itself between the server and its clients; tells all that they send.
async fn tap(net: &mut Net) -> (Arc<Mutex<Vec<u8>>>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().to_string();
    let behind = std::mem::replace(&mut net.address, own);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = heard.clone();
    let tapping = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (mut from_client, mut to_client) = stream.into_split();
            let stream = TcpStream::connect(&behind).await.unwrap();
            let (mut from_server, mut to_server) = stream.into_split();
            tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
            let heard = hearing.clone();
            tokio::spawn(async move {
                let mut part = [0; 1 << 12];
                while let Ok(count @ 1..) = from_client.read(&mut part).await {
                    heard.lock().extend_from_slice(&part[..count]);
                    let _gone = to_server.write_all(&part[..count]).await;
                }
            });
        }
    });
    (heard, tapping)
}

#[tokio::test]
async fn who_listens_learns_nothing() {
    let clear = Net::start("127.0.0.1:0", 8 << 20).await;
    for (mut net, tls, readable) in [(clear, None, true), (keyed().await, by_key(), false)] {
        let (heard, tapping) = tap(&mut net).await;
        echo(&net, &peers(&net, tls), 5_000).await.unwrap();
        let found = heard.lock().windows(32).any(|part| part == [7; 32]);
        assert_eq!(found, readable);
        assert!(heard.lock().len() > 5_000);
        tapping.abort();
        net.stop().await;
    }
}
