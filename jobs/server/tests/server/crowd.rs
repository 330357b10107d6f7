//! Ten thousand connections at once that are slow on purpose: the server holds them all and answers others.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use ff2_server::net::descriptors;
use tokio::{
    io::AsyncWriteExt,
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
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn ten_thousand_slow_connections_are_held_and_others_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    write_model(&folder.path().join("model"));
    let (mut process, _lines, key, address) = started(folder.path(), &[]);
    // Both ends have a process, and with that a limit of files, of their own.
    let crowd = descriptors::room(CROWD, 1);
    assert_eq!(crowd, CROWD, "the limit of open files is too low for this test (ulimit -Hn)");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let held = runtime.block_on(hold(address.parse().unwrap(), &key, crowd));
    until(&address, "ff2_serve_connections", |open| open >= crowd as f64);
    let honest: Vec<_> = (0..4)
        .map(|_| {
            let (address, key) = (address.clone(), key.clone());
            thread::spawn(move || [(); 3].map(|()| answer(ask(&address, &key, 12))))
        })
        .collect();
    for answer in honest.into_iter().flat_map(|thread| thread.join().unwrap()) {
        assert!(answer.status == 200 && answer.body.contains("\"completion_tokens\":12"));
    }
    drop(held);
    // The one that asks is open itself.
    until(&address, "ff2_serve_connections", |open| open <= 1.0);
    until(&address, "ff2_serve_kv_blocks_used", |blocks| blocks == 0.0);
    process.kill().unwrap();
    process.wait().unwrap();
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
    let socket = TcpSocket::new_v4().unwrap();
    let [high, low] = u16::try_from(source).unwrap().to_be_bytes();
    socket.bind((Ipv4Addr::new(127, 2, high, low), 0).into()).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer";
    let begun = format!("{head} {key}\r\nContent-Length: 100\r\n\r\n{{");
    stream.write_all(begun.as_bytes()).await.unwrap();
    stream
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
