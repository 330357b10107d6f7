//! Ten thousand connections at once that are slow on purpose, and garbage of all kinds beside them: the server holds
//! them all, loses no request that it accepted, and leaks no KV block.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use ff2_server::net::descriptors;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::{
    common::write_model,
    program::{answer, ask, started},
};

const CROWD: usize = 10_000;
/// At once on their way in, below the listener's backlog.
const COMING: usize = 256;
/// From one address, less than the server's bound.
const OF_ADDRESS: usize = 50;
/// Connections of garbage that are open at once, and in all at least.
const GARBAGE: usize = 400;
const GARBAGE_MIN: usize = 1_000;
const ASKED: usize = 24;
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_crowd_and_garbage_lose_no_accepted_request_and_leak_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write_model(&folder.path().join("model"));
    let (mut process, _lines, key, address) = started(folder.path(), &[]);
    // Both ends have a process, and with that a limit of files, of their own.
    let all = descriptors::room(CROWD + GARBAGE, 1);
    assert_eq!(
        all,
        CROWD + GARBAGE,
        "the limit of open files is too low for this test (ulimit -Hn)"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let at: SocketAddr = address.parse().unwrap();
    let held = runtime.block_on(hold(at, &key, CROWD));
    until(&address, "ff2_serve_connections", |open| open >= CROWD as f64);
    let (stop, thrown) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let garbage = scope.spawn(|| runtime.block_on(throw(at, &key, &thrown, &stop)));
        let honest = [(); 4]
            .map(|()| scope.spawn(|| [(); ASKED / 4].map(|()| answer(ask(&address, &key, 12)))));
        for answer in honest.into_iter().flat_map(|thread| thread.join().unwrap()) {
            let is_whole = answer.body.contains("\"completion_tokens\":12");
            assert!(answer.status == 200 && is_whole, "a request was lost: {}", answer.body);
        }
        until_thrown(&thrown);
        stop.store(true, Ordering::Relaxed);
        garbage.join().unwrap();
    });
    drop(held);
    // The one that asks is open itself.
    until(&address, "ff2_serve_connections", |open| open <= 1.0);
    until(&address, "ff2_serve_kv_blocks_used", |blocks| blocks == 0.0);
    process.kill().unwrap();
    process.wait().unwrap();
}

fn until_thrown(thrown: &AtomicUsize) {
    let begun = Instant::now();
    while thrown.load(Ordering::Relaxed) < GARBAGE_MIN {
        assert!(begun.elapsed() < PATIENCE, "{thrown:?} connections of garbage are too few");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Connections that begin a body and do not go on. The server has patience for 30 s.
async fn hold(address: SocketAddr, key: &str, count: usize) -> Vec<TcpStream> {
    let (mut held, mut coming) = (Vec::new(), JoinSet::new());
    for number in 0..count {
        coming.spawn(slow(number / OF_ADDRESS, address, key.to_owned()));
        if coming.len() >= COMING {
            held.extend(coming.join_next().await.map(Result::unwrap));
        }
    }
    while let Some(stream) = coming.join_next().await {
        held.push(stream.unwrap());
    }
    held
}

async fn slow(source: usize, address: SocketAddr, key: String) -> TcpStream {
    let mut stream = connect(2, source, address).await;
    let head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer";
    let begun = format!("{head} {key}\r\nContent-Length: 100\r\n\r\n{{");
    stream.write_all(begun.as_bytes()).await.unwrap();
    stream
}

/// From one of many addresses, so that the bound for each does not end it at once.
async fn connect(net: u8, source: usize, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let [high, low] = u16::try_from(source).unwrap().to_be_bytes();
    socket.bind((Ipv4Addr::new(127, net, high, low), 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Garbage of all kinds in turn, until `stop`.
async fn throw(to: SocketAddr, key: &str, thrown: &AtomicUsize, stop: &AtomicBool) {
    let mut open = JoinSet::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        open.spawn(one(number, to, key.to_owned()));
        if open.len() >= GARBAGE {
            open.join_next().await.unwrap().unwrap();
            thrown.fetch_add(1, Ordering::Relaxed);
        }
    }
    open.shutdown().await;
}

/// One of many kinds of bad company. What becomes of it matters to nobody.
async fn one(number: usize, to: SocketAddr, key: String) {
    let mut stream = connect(1, number / OF_ADDRESS % 200, to).await;
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

/// Waits for a figure of the server to be so.
fn until(address: &str, name: &str, is_so: impl Fn(f64) -> bool) {
    let begun = Instant::now();
    loop {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).unwrap();
        let line = told.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap();
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        if is_so(value) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "it stays so: {line}");
        thread::sleep(Duration::from_millis(50));
    }
}
