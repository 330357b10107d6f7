//! A model behind one address on a cluster: replicas that make room, are replaced and grow in number under load, and no
//! request fails.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ff2_cluster_tests::{Cluster, is_root};
use serde_json::{Value, json};

use super::{PATIENCE, RUN, train, wait_for};

/// What fails here are replicas of the model: of all else one is enough.
#[rustfmt::skip]
pub(super) const SHAPE: [&str; 14] = [
    "--metad", "1", "--storaged", "1", "--disks", "1", "--replicas", "1", "--disk-size", "4GiB",
    "--agents", "2", "--fake-gpus", "2",
];

/// A model that knows nothing, where no job is needed to make one.
pub(super) fn write_model(cluster: &Cluster) -> String {
    let at = |name: &str| cluster.mount().join(name).display().to_string();
    let text = "/usr/share/common-licenses/GPL-3";
    train(&["tokenize", "--vocab", "384", "--out", &at("tokens"), text]);
    std::fs::write(at("tiny.toml"), RUN).unwrap();
    let (tokens, out) = (format!("data.folder={}", at("tokens")), format!("out={}", at("out")));
    let set = ["--set", "steps=1", "--set", &tokens, "--set", &out];
    train(&[&["run", "--config", &at("tiny.toml")], &set[..]].concat());
    train(&["export", "--checkpoint", &at("out/checkpoints"), "--out", &at("chat")]);
    at("chat")
}

/// Clients that ask again and again.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(url: &str, key: &str, clients: usize) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..clients).map(|client| {
            let (url, key) = (url.to_owned(), key.to_owned());
            let (stop, done) = (stop.clone(), done.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let body = json!({
                        "model": "chat", "prompt": format!("{client}: The GNU General"), "max_tokens": 24,
                        "ignore_eos": true,
                    });
                    let answer = ask(&url, &key, &body);
                    assert_eq!(answer["usage"]["completion_tokens"], 24, "{answer}");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let clients = clients.collect();
        Self { stop, done, clients }
    }

    fn go_on(&self, answers: usize) {
        let until = self.done.load(Ordering::Relaxed) + answers;
        let begun = Instant::now();
        while self.done.load(Ordering::Relaxed) < until {
            assert!(begun.elapsed() < PATIENCE, "answers come");
            assert!(!self.clients.iter().any(JoinHandle::is_finished), "a client failed");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Fails if any request failed.
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
    }
}

fn ask(url: &str, key: &str, body: &Value) -> Value {
    let (address, body) = (url.strip_prefix("http://").unwrap(), body.to_string());
    let mut stream = TcpStream::connect(address).unwrap();
    let len = body.len();
    let head = format!(
        "POST /v1/completions HTTP/1.0\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {len}\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.0 200"), "{answer}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

fn job(cluster: &Cluster, job: u64) -> Value {
    cluster.json(&["job", "show", &job.to_string()]).unwrap()
}

/// Replicas that take requests, by job.
fn ready(cluster: &Cluster) -> Value {
    cluster.json(&["serve", "list"]).unwrap()["services"][0]["report"]["ready"].clone()
}

#[test]
fn a_service_makes_room_is_updated_and_grows_and_no_request_fails() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::start_with(&SHAPE).unwrap();
    let model = write_model(&cluster);
    let serve = |words: &[&str]| {
        let first = ["serve", &model, "--replicas", "2", "--max-replicas", "3", "--port", "0"];
        let patience = ["--route-options", "--scale-up-seconds 2 --scale-down-seconds 4"];
        let small = ["--run-options", "--kv-mib 16 --threads 1 --max-running 2", "--json"];
        let line = [&first[..], &patience, &small, words, &["--", "-G", "1"]].concat();
        let told = cluster.ctl(&line).unwrap();
        serde_json::from_str::<Value>(&told).unwrap_or_else(|error| panic!("{error}: {told}"))
    };
    let made = serve(&[]);
    let (url, key) = (made["url"].as_str().unwrap(), made["key"].as_str().unwrap());
    let (router, first) = (made["router"].as_u64().unwrap(), made["job"].as_u64().unwrap());
    assert_eq!(ready(&cluster), json!({first.to_string(): 2}));
    let listed = cluster.json(&["serve", "list"]).unwrap()["services"].as_array().unwrap().len();
    assert_eq!(listed, 1, "however many routers it has");

    // One replica makes room, as for somebody else, while it answers.
    let load = Load::start(url, key, 2);
    load.go_on(4);
    let second = (first + 1).to_string();
    cluster.ctl(&["job", "suspend", &second]).unwrap();
    wait_for("it made room", || job(&cluster, first + 1)["state"] != "stopping");
    load.go_on(4);
    cluster.ctl(&["job", "resume", &second]).unwrap();
    wait_for("it is back", || ready(&cluster) == json!({first.to_string(): 2}));

    // Another version takes over, one replica after the other.
    let updated = serve(&["--update"]);
    let next = updated["job"].as_u64().unwrap();
    assert_eq!((updated["url"].as_str(), &updated["key"]), (Some(url), &Value::Null));
    assert_eq!(ready(&cluster), json!({next.to_string(): 2}));
    wait_for("the old one ended", || job(&cluster, first)["state"] == "cancelled");
    load.go_on(4);
    load.end();

    // While requests wait there is one more, and without them one less.
    let load = Load::start(url, key, 8);
    wait_for("a third replica", || ready(&cluster) == json!({next.to_string(): 3}));
    load.go_on(8);
    load.end();
    wait_for("two are enough", || ready(&cluster) == json!({next.to_string(): 2}));

    // Whoever looks at the scheduler sees how the service does.
    wait_for("its line of status", || {
        // Of two routers one leads.
        let lines = [router, router + 1]
            .map(|it| job(&cluster, it)["why"].as_str().unwrap_or("").to_owned());
        lines.iter().any(|line| line.contains("stands by"))
            && lines.iter().any(|line| {
                line.starts_with("2 of 2 replicas")
                    && line.contains(" tokens/s, ")
                    && line.contains("% cached")
            })
    });
    cluster.ctl(&["serve", "stop", "chat"]).unwrap();
    wait_for("all have ended", || job(&cluster, next)["state"] == "cancelled");
    assert_eq!(cluster.json(&["serve", "list"]).unwrap()["services"], json!([]));
}
