//! A model from text files to an answer, on a cluster: trained as a job that makes room for another one and loses a
//! storage server, exported, and served.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "models/address.rs"]
mod address;
#[path = "models/remote.rs"]
mod remote;
#[path = "models/service.rs"]
mod service;

use std::{
    fs,
    io::{BufRead, BufReader, Lines, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    time::{Duration, Instant},
};

use ff2_cluster_tests::{Cluster, SMALLEST, is_root};
use serde_json::{Value, json};

/// All steps on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(180);

const RUN: &str = r#"
steps = 500
[data]
sequence = 64
batch = 4
[model]
hidden_size = 64
intermediate_size = 128
moe_intermediate_size = 32
num_hidden_layers = 2
first_k_dense_replace = 1
num_attention_heads = 4
q_lora_rank = 32
kv_lora_rank = 16
qk_nope_head_dim = 16
qk_rope_head_dim = 8
v_head_dim = 16
n_shared_experts = 1
n_routed_experts = 4
num_experts_per_tok = 2
n_group = 1
topk_group = 1
num_nextn_predict_layers = 0
[optimizer]
learning_rate = 3e-3
[schedule]
warmup = 5
[evaluate]
every = 0
sequences = 8
[show]
every = 1
"#;

fn program(name: &str) -> PathBuf {
    ff2_cluster_tests::target_folder().unwrap().join("debug").join(name)
}

fn train(words: &[&str]) {
    let ran = Command::new(program("ff2-train")).args(words).output().unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "ff2-train {}: {told}", words.join(" "));
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn wait_state(cluster: &Cluster, job: &str, state: &str) -> Value {
    let mut last = Value::Null;
    wait_for(&format!("job {job} {state}"), || {
        last = cluster.json(&["job", "show", job]).unwrap();
        let is = last["state"].as_str().unwrap();
        let log =
            || fs::read_to_string(cluster.mount().join(format!("jobs/{job}/logs/rank-0.log")));
        assert!(
            !last["ended_ms"].is_u64() || is == state,
            "job {job} is {is}: {last}\n{:?}",
            log()
        );
        is == state
    });
    last
}

/// What the leader of the scheduler shows; it may be another one in a moment.
fn page(cluster: &Cluster) -> Option<Value> {
    let processes = cluster.processes().ok()?;
    let schedds = processes.iter().filter(|process| process["role"] == "schedd");
    let mut addresses = schedds.filter_map(|process| process["addresses"]["http"].as_str());
    addresses.find_map(|address| {
        let mut stream = TcpStream::connect(address).ok()?;
        write!(stream, "GET /api/sched.json HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let page: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        (page["leads"] == true).then_some(page)
    })
}

/// What each step told, of all attempts.
fn steps(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn a_model_is_trained_as_a_job_and_served() {
    if !is_root() {
        return;
    }
    let shape = [&SMALLEST[..], &["--agents", "1", "--fake-gpus", "8"]].concat();
    let cluster = Cluster::start_with(&shape).unwrap();
    let at = |name: &str| cluster.mount().join(name);
    let shown = |name: &str| at(name).display().to_string();
    // On every Debian machine; each may be copied.
    train(&[
        "tokenize",
        "--vocab",
        "384",
        "--out",
        &shown("tokens"),
        "/usr/share/common-licenses/GPL-3",
    ]);
    let config = at("tiny.toml");
    fs::write(&config, RUN).unwrap();
    let (config, out) = (config.display().to_string(), shown("out"));
    let set = [format!("data.folder={}", shown("tokens")), format!("out={out}")];
    let line = ["train", "--config", &config, "--set", &set[0], "--set", &set[1], "--", "-G", "8"];
    let told = cluster.ctl(&line).unwrap();
    let job = told.strip_prefix("job ").unwrap().split(':').next().unwrap().to_owned();

    // It makes room, and goes on where it was. Meanwhile a storage server dies.
    wait_for("the first steps", || steps(Path::new(&out)).len() >= 3);
    cluster.ctl(&["kill", "storaged/1"]).unwrap();
    let urgent = ["job", "submit", "--priority=high", "-J", "urgent", "-G", "8", "--", "true"];
    let urgent = cluster.ctl(&urgent).unwrap().trim().strip_prefix("job ").unwrap().to_owned();
    wait_state(&cluster, &urgent, "succeeded");
    wait_for("its curve on the scheduler's page", || {
        page(&cluster).is_some_and(|page| {
            let chart = &page["charts"][&job];
            chart["x"] == "step" && chart["until"] == 500.0 && chart["lines"][0]["name"] == "loss"
        })
    });
    let shown_job = wait_state(&cluster, &job, "succeeded");
    assert!(shown_job["attempt"].as_u64().unwrap() >= 2, "it did not make room: {shown_job}");
    let steps = steps(Path::new(&out));
    let numbers: Vec<u64> = steps.iter().filter_map(|step| step["step"].as_u64()).collect();
    assert_eq!(numbers, (1..=500).collect::<Vec<_>>(), "each step was made once");
    let loss = |at: usize| steps[at]["loss"].as_f64().unwrap();
    assert!(loss(499) < 0.8 * loss(0), "from {} to {}", loss(0), loss(499));

    let checkpoints = shown(&format!("jobs/{job}/checkpoint"));
    train(&["export", "--checkpoint", &checkpoints, "--out", &shown("model")]);
    let server = Server::start(&at("model"));
    let asked =
        json!({ "model": "model", "prompt": "The GNU General", "max_tokens": 8, "temperature": 0 });
    let answer = server.post("/v1/completions", &asked);
    assert_eq!(answer["usage"]["completion_tokens"], 8, "{answer}");
    assert!(!answer["choices"][0]["text"].as_str().unwrap().is_empty(), "{answer}");
}

/// The same text through the mount and through the client library: the same losses, to the bit.
#[test]
fn a_model_is_trained_on_text_that_is_read_without_a_mount() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::start_with(&SMALLEST).unwrap();
    let shown = |name: &str| cluster.mount().join(name).display().to_string();
    let text = "/usr/share/common-licenses/GPL-3";
    train(&["tokenize", "--vocab", "384", "--out", &shown("tokens"), text]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("tiny.toml"), RUN).unwrap();
    let mount = cluster.dir().join("fuse-0/mount.toml");
    let run = |out: &str, data: &str| {
        let mut words = vec!["run".to_owned(), "--config".to_owned(), path("tiny.toml")];
        for set in [
            format!("out={}", path(out)),
            format!("data.folder={data}"),
            format!("data.mount_config={}", mount.display()),
            "steps=12".to_owned(),
            "threads=1".to_owned(),
        ] {
            words.extend(["--set".to_owned(), set]);
        }
        let program = program("ff2-train");
        Command::new(program).args(words).output().unwrap()
    };
    for (out, data) in [("mounted", shown("tokens")), ("read", "ff2://default/tokens".to_owned())] {
        let ran = run(out, &data);
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    let losses = |out: &str| {
        let steps = steps(&folder.path().join(out));
        steps.iter().map(|step| step["loss"].as_f64().unwrap().to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(losses("read").len(), 12);
    assert_eq!(losses("read"), losses("mounted"));
    assert!(folder.path().join("read/checkpoints/step-00000012/tokenizer.json").exists());
    for (data, expected) in [
        ("ff2://default/nothing", "ff2://default/nothing/dataset.json"),
        ("ff2://nowhere/tokens", "ff2://nowhere: cannot read this volume"),
    ] {
        let ran = run("refused", data);
        let told = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success() && told.contains(expected), "{told}");
    }
}

/// A server of one model. It ends when this is dropped.
struct Server {
    process: Child,
    address: String,
    /// What it prints has somewhere to go.
    _lines: Lines<BufReader<ChildStderr>>,
}

impl Server {
    fn start(model: &Path) -> Self {
        let mut process = Command::new(program("ff2-serve"))
            .arg("run")
            .arg(model)
            .args(["--listen", "127.0.0.1:0", "--open", "--kv-mib", "16"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("served at http://")?.1.trim().to_owned()));
        let address = address.expect("it says where it serves");
        Self { process, address, _lines: lines }
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
