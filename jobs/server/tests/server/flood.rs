//! Thousands of connections of garbage beside requests that were accepted: none of these is lost, no KV block leaks.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ff2_server::{guard::keys::KeyLimits, net::serve::ServeOptions};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::common::{Options, Server};

/// Of the flood in all; at once as many as the file limit leaves room for.
const CONNECTIONS: usize = 10_000;
const AT_ONCE: usize = 400;
/// The flood goes on for so long at most, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(15);
const ASKED: usize = 24;

#[test]
fn a_flood_loses_no_accepted_request_and_leaks_nothing() {
    let serve = ServeOptions {
        head: Duration::from_millis(300),
        per_address: 64,
        ..ServeOptions::default()
    };
    let server = Server::with(Options {
        keys: Some(KeyLimits::default()),
        serve,
        body_timeout: Some(Duration::from_millis(300)),
        ..Options::default()
    });
    let server = Arc::new(server);
    let stop = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicUsize::new(0));
    let flood = {
        let (address, key, stop, made) =
            (server.address, server.key.clone().unwrap(), stop.clone(), made.clone());
        thread::spawn(move || flood(address, &key, &stop, &made))
    };
    // Once it is under way, honest ones ask from an address of their own.
    while made.load(Ordering::Relaxed) < 200 {
        thread::sleep(Duration::from_millis(5));
    }
    let answers: Vec<_> = (0..4)
        .map(|_| {
            let server = server.clone();
            thread::spawn(move || (0..ASKED / 4).map(|_| honest(&server)).collect::<Vec<_>>())
        })
        .collect();
    let answers: Vec<(u16, usize)> =
        answers.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    flood.join().unwrap();
    for (status, tokens) in &answers {
        assert_eq!((*status, *tokens), (200, 12), "a request was lost: {answers:?}");
    }
    assert_eq!(answers.len(), ASKED);
    let figures = server.idle();
    assert_eq!((figures.blocks_used, figures.running, figures.waiting), (0, 0, 0), "{figures:?}");
    eprintln!(
        "{} connections of the flood, {} answers",
        made.load(Ordering::Relaxed),
        answers.len()
    );
    assert!(made.load(Ordering::Relaxed) > 1000, "that was no flood");
}

fn honest(server: &Server) -> (u16, usize) {
    let body =
        json!({"model": "tiny", "prompt": "Once upon", "max_tokens": 12, "ignore_eos": true});
    let (status, answer) = server.post("/v1/completions", &body);
    (status, answer["usage"]["completion_tokens"].as_u64().unwrap_or(0) as usize)
}

fn flood(address: SocketAddr, key: &str, stop: &AtomicBool, made: &AtomicUsize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let begun = Instant::now();
        let mut open = tokio::task::JoinSet::new();
        for number in 0..CONNECTIONS {
            if begun.elapsed() > PATIENCE || stop.load(Ordering::Relaxed) {
                break;
            }
            made.store(number, Ordering::Relaxed);
            open.spawn(one(number, address, key.to_owned()));
            if open.len() >= AT_ONCE {
                open.join_next().await;
            }
        }
        open.abort_all();
        while open.join_next().await.is_some() {}
    });
}

/// One of many kinds of bad company. What becomes of it matters to nobody.
async fn one(number: usize, address: SocketAddr, key: String) {
    let socket = TcpSocket::new_v4().unwrap();
    // From many addresses, so that the bound for each does not end it at once.
    let from = Ipv4Addr::new(127, 1, (number / 200 % 200) as u8, (number % 200) as u8 + 1);
    if socket.bind(SocketAddr::new(IpAddr::V4(from), 0)).is_err() {
        return;
    }
    let Ok(mut stream) = socket.connect(address).await else { return };
    let post = |body: &str, key: &str, len: usize| {
        let head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer";
        format!("{head} {key}\r\nContent-Length: {len}\r\n\r\n{body}")
    };
    let ask = r#"{"model": "tiny", "prompt": "x", "max_tokens": 500, "ignore_eos": true, "stream": true}"#;
    let bytes = match number % 10 {
        0 => Vec::new(),
        1 => vec![0xff; 4000],
        2 => b"GET / HTTP/1.1\r\nHost: ".to_vec(),
        3 => post("{}", "ff2-wrong", 2).into_bytes(),
        4 => post("{", &key, 100_000).into_bytes(),
        5 => post("{\"prompt\": [[", &key, 13).into_bytes(),
        6 => post("\u{0}\u{1}", &key, 2).into_bytes(),
        7 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        8 => format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(40_000)).into_bytes(),
        // Asks in earnest and is gone before the answer.
        _ if number % 100 == 9 => post(ask, &key, ask.len()).into_bytes(),
        _ => b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
    };
    let _ = stream.write_all(&bytes).await;
    let patience = Duration::from_millis((number % 7 * 30) as u64);
    let _ = tokio::time::timeout(patience, drain(&mut stream)).await;
}

async fn drain(stream: &mut TcpStream) {
    let mut bytes = [0; 1024];
    while stream.read(&mut bytes).await.is_ok_and(|n| n > 0) {}
}
