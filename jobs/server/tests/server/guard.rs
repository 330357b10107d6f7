//! What protects a server, over the network: keys, limits, bounds of size and time, clients that go away.

use std::{
    io::{BufReader, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use ff2_server::{guard::keys::KeyLimits, net::serve::ServeOptions};
use serde_json::{Value, json};

use crate::common::{Answer, Options, Server, next_event};

fn ask(tokens: usize) -> Value {
    json!({"model": "tiny", "prompt": "Once", "max_tokens": tokens, "ignore_eos": true})
}

/// Sends bytes as they are and reads until the server closes.
fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn without_a_key_nothing_is_told() {
    let mut server =
        Server::with(Options { keys: Some(KeyLimits::default()), ..Options::default() });
    assert_eq!(server.post("/v1/completions", &ask(2)).0, 200);
    let right = server.key.take();
    for path in ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"] {
        let (status, answer) = server.post(path, &json!({"prompt": "x"}));
        assert_eq!(
            (status, answer["error"]["code"].as_str()),
            (401, Some("missing_api_key")),
            "{path}"
        );
    }
    assert_eq!(server.get("/v1/models").0, 401);
    for open in ["/", "/health", "/version", "/metrics"] {
        assert_eq!(server.get(open).0, 200, "{open}");
    }
    // Who tries many keys is not heard for a while, with the right key either.
    server.key = Some("ff2-wrong".to_owned());
    let tries: Vec<u16> = (0..30).map(|_| server.post("/v1/completions", &ask(1)).0).collect();
    assert_eq!((tries[0], tries[29]), (401, 429));
    server.key = right;
    let refused = server.exchange("POST", "/v1/completions", ask(1).to_string().as_bytes());
    assert!(refused.status == 429 && refused.head.contains("retry-after: "), "{}", refused.head);
}

#[test]
fn a_key_at_its_limit_is_told_when_to_come_back() {
    let limits = KeyLimits { requests_per_minute: Some(2), ..KeyLimits::default() };
    let server = Server::with(Options { keys: Some(limits), ..Options::default() });
    assert_eq!(server.post("/v1/completions", &ask(1)).0, 200);
    assert_eq!(server.post("/v1/completions", &ask(1)).0, 200);
    let refused = server.exchange("POST", "/v1/completions", ask(1).to_string().as_bytes());
    assert_eq!(refused.status, 429);
    assert!(refused.body.contains("requests_per_minute"), "{}", refused.body);
    let after = refused.head.split("retry-after: ").nth(1).unwrap().split("\r\n").next().unwrap();
    assert!((1..=30).contains(&after.parse::<u64>().unwrap()), "{after}");

    // An answer under way holds its place until its end.
    let limits = KeyLimits { concurrent: Some(1), ..KeyLimits::default() };
    let server = Server::with(Options { keys: Some(limits), ..Options::default() });
    let mut long = ask(900);
    long["stream"] = json!(true);
    let mut reader =
        BufReader::new(server.send("POST", "/v1/completions", long.to_string().as_bytes()));
    assert!(next_event(&mut reader).is_some());
    let (status, answer) = server.post("/v1/completions", &ask(1));
    assert_eq!((status, answer["error"]["code"].as_str()), (429, Some("concurrent_requests")));
    drop(reader);
    server.idle();
    for _ in 0..100 {
        if server.post("/v1/completions", &ask(1)).0 == 200 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the place of an answer that was given up is not free");
}

#[test]
fn who_goes_away_frees_what_he_held() {
    let server = Server::start();
    for stream in [true, false] {
        let mut long = ask(1000);
        long["stream"] = json!(stream);
        long["n"] = json!(4);
        let connection = server.send("POST", "/v1/completions", long.to_string().as_bytes());
        let begun = Instant::now();
        while server.engine.figures().running == 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "it never ran");
            std::thread::sleep(Duration::from_millis(2));
        }
        let before = server.engine.figures().tokens_generated;
        drop(connection);
        let figures = server.idle();
        let generated = figures.tokens_generated - before;
        assert!(generated < 3900, "it was generated to its end for nobody: {generated}");
    }
}

#[test]
fn sizes_and_times_are_bounded() {
    let server = Server::with(Options {
        body_bytes_max: Some(2000),
        body_timeout: Some(Duration::from_millis(300)),
        serve: ServeOptions {
            head: Duration::from_millis(300),
            per_address: 5,
            ..ServeOptions::default()
        },
        ..Options::default()
    });
    let large = format!("{{\"prompt\": \"{}\"}}", "x".repeat(3000));
    let (status, answer) = server.post_bytes("/v1/completions", large.as_bytes());
    assert_eq!((status, answer["error"]["code"].as_str()), (413, Some("body_too_large")));
    // A body that never comes, a head that never ends, a head that is too long.
    let slow = [server.head("POST", "/v1/completions", 100), b"{".to_vec()].concat();
    let answer = Answer::parse(&raw(&server, &slow));
    assert!(answer.status == 408 && answer.body.contains("body_timeout"), "{}", answer.body);
    let begun = Instant::now();
    raw(&server, b"GET / HTTP/1.1\r\nHost: x\r\n");
    assert!(begun.elapsed() < Duration::from_secs(10), "a slow head was waited for");
    let begun = Instant::now();
    raw(&server, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(begun.elapsed() < Duration::from_secs(10), "an idle connection was kept");
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "x".repeat(64 << 10));
    assert!(!raw(&server, long.as_bytes()).contains("200 OK"));
    // More than so many from one address are refused at once.
    let idle: Vec<TcpStream> =
        (0..5).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    let mut sixth = TcpStream::connect(server.address).unwrap();
    sixth.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut told = String::new();
    sixth.read_to_string(&mut told).unwrap();
    let told = Answer::parse(&told);
    assert!(told.status == 429 && told.head.contains("retry-after: 1"), "{}", told.head);
    drop(idle);
}

#[test]
fn a_server_that_is_full_says_so_and_takes_others_once_it_is_not() {
    let serve = ServeOptions { connections: 3, ..ServeOptions::default() };
    let server = Server::with(Options { serve, ..Options::default() });
    let mut open: Vec<TcpStream> =
        (0..3).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    let answer = Answer::parse(&raw(&server, b""));
    assert!(answer.status == 503 && answer.head.contains("retry-after: 1"), "{}", answer.head);
    assert!(answer.body.contains("\"connections\""), "{}", answer.body);
    open.clear();
    let begun = Instant::now();
    while !raw(&server, b"GET /health HTTP/1.0\r\n\r\n").contains("200 OK") {
        assert!(begun.elapsed() < Duration::from_secs(10), "places were not given back");
    }
}

#[test]
fn a_full_queue_says_come_back() {
    let server = Server::with(Options { max_waiting: Some(1), ..Options::default() });
    let long = json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 900, "n": 8,
                      "ignore_eos": true, "stream": true});
    let body = long.to_string();
    // Each fills all places; those that are taken begin to answer and are held.
    let mut held = Vec::new();
    let refused = loop {
        assert!(held.len() < 20, "nothing was refused");
        let mut stream = server.send("POST", "/v1/chat/completions", body.as_bytes());
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        if status.ends_with(b" 429") {
            let mut rest = String::new();
            stream.read_to_string(&mut rest).unwrap();
            break rest;
        }
        held.push(stream);
    };
    assert!(refused.contains("queue_full") && refused.contains("retry-after: "), "{refused}");
    drop(held);
    server.idle();
}

#[test]
fn who_takes_nothing_is_cut() {
    let serve = ServeOptions { write_stall: Duration::from_millis(500), ..ServeOptions::default() };
    let server = Server::with(Options { serve, ..Options::default() });
    // Logprobs make each token thousands of bytes, more than the kernel takes for a peer that reads nothing.
    let mut long = json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 900, "n": 8,
                          "ignore_eos": true, "logprobs": true, "top_logprobs": 20, "stream": true});
    long["temperature"] = json!(1);
    let connection = server.send("POST", "/v1/chat/completions", long.to_string().as_bytes());
    let begun = Instant::now();
    let opened =
        || server.app.metrics.encode().contains("ff2_serve_connections{model_name=\"tiny\"} 1.0");
    while opened() {
        assert!(begun.elapsed() < Duration::from_secs(40), "it is still connected");
        std::thread::sleep(Duration::from_millis(50));
    }
    server.idle();
    drop(connection);
}
