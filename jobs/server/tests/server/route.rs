//! A router and its replicas as real processes: what clients notice when replicas come, go and die.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::common::{Answer, write_model};

const PATIENCE: Duration = Duration::from_secs(60);

/// A process that prints where it serves; it is killed when this is dropped.
struct Process {
    child: Child,
    address: String,
    /// The first API key, if it made one.
    key: String,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut key, mut told) = (String::new(), String::new());
        let address = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {told}")).unwrap();
            if line.starts_with("ff2-") {
                key.clone_from(&line);
            }
            if let Some((_, url)) = line.split_once("is served at ") {
                break url.split_once("://").unwrap().1.to_owned();
            }
            told += &line;
        };
        // What it prints has somewhere to go.
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        Self { child, address, key }
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Told to stop, it ends well.
    fn stop(mut self) {
        self.signal("-TERM");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A router with what its replicas need.
struct Fixture {
    scratch: tempfile::TempDir,
    router: Process,
}

impl Fixture {
    fn start(words: &[&str]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        write_model(&scratch.path().join("model"));
        let mut command = program();
        command.arg("route").arg(scratch.path().join("service"));
        let router = Process::start(command.args(["--listen", "127.0.0.1:0"]).args(words));
        Self { scratch, router }
    }

    fn folder(&self) -> PathBuf {
        self.scratch.path().join("service")
    }

    /// One of a job, and waits until it takes requests.
    fn replica(&self, job: u64, index: u32) -> Process {
        let before = self.ready();
        let mut command = program();
        command
            .arg("run")
            .arg(self.scratch.path().join("model"))
            .args(["--name", "tiny", "--kv-mib", "16", "--block-tokens", "16", "--threads", "1"])
            .arg("--replica-of")
            .arg(self.folder())
            .env("FF2_SERVICE", job.to_string())
            .env("FF2_REPLICA", index.to_string());
        let replica = Process::start(&mut command);
        self.wait("a replica takes requests", || self.ready() > before);
        replica
    }

    /// Another router of the service.
    fn router(&self, listen: &str) -> Command {
        let mut command = program();
        command.arg("route").arg(self.folder()).args(["--listen", listen]);
        command
    }

    fn ready(&self) -> u64 {
        let answer = exchange(&self.router, "GET", "/health", "");
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        body["replicas"].as_u64().unwrap()
    }

    fn wait(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn metric(&self, name: &str) -> u64 {
        metric(&self.router, name)
    }

    /// Requests in twos, whole and streamed, from so many clients, until `stop`.
    fn load(&self, clients: usize, stop: &Arc<AtomicBool>) -> Load {
        self.load_at(&self.router.address, clients, stop)
    }

    fn load_at(&self, address: &str, clients: usize, stop: &Arc<AtomicBool>) -> Load {
        let done = Arc::new(AtomicUsize::new(0));
        let threads = (0..clients).map(|client| {
            let (address, key) = (address.to_owned(), self.router.key.clone());
            let (stop, done) = (stop.clone(), done.clone());
            thread::spawn(move || {
                let mut answers = Vec::new();
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let body = ask(&format!("client {client} asks"), 24, turn % 2 == 1);
                    answers.push(send(&address, &key, "POST", "/v1/completions", &body));
                    done.fetch_add(1, Ordering::Relaxed);
                }
                answers
            })
        });
        Load { threads: threads.collect(), done }
    }
}

struct Load {
    threads: Vec<thread::JoinHandle<Vec<Answer>>>,
    done: Arc<AtomicUsize>,
}

impl Load {
    /// Waits for so many further answers.
    fn go_on(&self, answers: usize) {
        let (begun, until) = (Instant::now(), self.done.load(Ordering::Relaxed) + answers);
        while self.done.load(Ordering::Relaxed) < until {
            assert!(begun.elapsed() < PATIENCE, "answers come");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Fails if any request failed that had not begun to answer. Returns how many streams broke off.
    fn end(self, stop: &AtomicBool) -> usize {
        stop.store(true, Ordering::Relaxed);
        let answers: Vec<Answer> =
            self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let mut broken = 0;
        for answer in answers {
            assert_eq!(answer.status, 200, "{}", answer.body);
            let is_stream = answer.head.contains("text/event-stream");
            if is_stream && !answer.body.ends_with("data: [DONE]\n\n") {
                assert!(answer.body.contains("\"replica_lost\""), "{}", answer.body);
                broken += 1;
            }
            if !is_stream {
                assert!(answer.body.contains("\"completion_tokens\":24"), "{}", answer.body);
            }
        }
        broken
    }
}

fn metric(router: &Process, name: &str) -> u64 {
    let text = exchange(router, "GET", "/metrics", "").body;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse::<f64>().unwrap() as u64
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ff2-serve"));
    command.env("FF2_LOG", "info");
    command
}

fn ask(prompt: &str, tokens: usize, stream: bool) -> String {
    json!({"model": "tiny", "prompt": prompt, "max_tokens": tokens, "ignore_eos": true, "stream": stream}).to_string()
}

fn exchange(process: &Process, method: &str, path: &str, body: &str) -> Answer {
    send(&process.address, &process.key, method, path, body)
}

fn send(address: &str, key: &str, method: &str, path: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let len = body.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: \
         {len}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    Answer::parse(&String::from_utf8_lossy(&bytes))
}

#[test]
fn replicas_come_go_and_die_under_load_and_nothing_is_lost() {
    let fixture = Fixture::start(&[]);
    assert_eq!(exchange(&fixture.router, "GET", "/health", "").status, 503);
    let mut first = fixture.replica(0, 0);
    let second = fixture.replica(0, 1);
    let stop = Arc::new(AtomicBool::new(false));
    let load = fixture.load(4, &stop);
    load.go_on(12);
    // Killed: what had not begun goes to the other.
    first.signal("-KILL");
    first.child.wait().unwrap();
    load.go_on(12);
    // Another comes, and one leaves as it should.
    let third = fixture.replica(0, 2);
    load.go_on(4);
    second.stop();
    load.go_on(8);
    let broken = load.end(&stop);
    assert!(broken <= 4, "only what streamed from the killed one breaks off");
    assert_eq!(fixture.ready(), 1);
    assert!(fixture.metric("ff2_route_retries_total") >= 1);
    fixture.wait("nothing is under way", || fixture.metric("ff2_route_requests_in_flight") == 0);
    drop(third);
}

#[test]
fn keys_are_the_routers_and_conversations_stay_where_their_cache_is() {
    let fixture = Fixture::start(&[]);
    let replicas = [fixture.replica(0, 0), fixture.replica(0, 1)];
    let nobody = send(&fixture.router.address, "ff2-none", "GET", "/v1/models", "");
    assert_eq!(nobody.status, 401);
    assert!(exchange(&fixture.router, "GET", "/v1/models", "").body.contains("\"tiny\""));
    assert_eq!(exchange(&fixture.router, "GET", "/nowhere", "").status, 404);
    assert!(exchange(&fixture.router, "GET", "/", "").body.contains("<title>"));
    // A replica speaks to its router alone.
    let mut stream = TcpStream::connect(&replicas[0].address).unwrap();
    stream.write_all(b"GET /v1/models HTTP/1.0\r\n\r\n").unwrap();
    let mut told = Vec::new();
    let _ = stream.read_to_end(&mut told);
    assert!(!told.starts_with(b"HTTP/"), "{told:?}");
    // What is wrong is told in the replica's words.
    let wrong = exchange(&fixture.router, "POST", "/v1/completions", "{\"prompt\": 1.5}");
    assert!(wrong.status == 400 && wrong.body.contains("\"param\":\"prompt"), "{}", wrong.body);

    // Two conversations in turn, each longer than before: all but the first turns find their beginnings.
    let mut texts = [format!("one {}", "a b ".repeat(150)), format!("two {}", "c d ".repeat(150))];
    let mut used = 0;
    for turn in 0..3 {
        for text in &mut texts {
            let answer = exchange(&fixture.router, "POST", "/v1/completions", &ask(text, 4, false));
            let answer: Value = serde_json::from_str(&answer.body).unwrap();
            let usage = &answer["usage"];
            let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
            let tokens = usage["prompt_tokens"].as_u64().unwrap();
            assert!(turn == 0 || cached + 100 > tokens, "{usage}");
            used += tokens + 4;
            *text += &"e f ".repeat(10);
        }
    }
    // Of a stream its tokens count, however many events they made: a stop string holds back most of them.
    let hides = json!({
        "model": "tiny", "prompt": "x", "max_tokens": 20, "ignore_eos": true, "stream": true,
        "stream_options": {"include_usage": true}, "logit_bias": {"120": 100}, "stop": "xxxxxxxxxx",
    });
    let stream = exchange(&fixture.router, "POST", "/v1/completions", &hides.to_string()).body;
    let events: Vec<&str> = stream.split_terminator("\n\n").collect();
    assert!(events.last() == Some(&"data: [DONE]") && !stream.contains("ff2-tokens"), "{stream}");
    let usage: Value = serde_json::from_str(&events[events.len() - 2]["data: ".len()..]).unwrap();
    let completion = usage["usage"]["completion_tokens"].as_u64().unwrap();
    assert!(completion >= 10 && events.len() <= 4, "{stream}");
    used += 1 + completion;
    let kept = fixture.folder().join("keys.used.json");
    let counted = || fs::read(&kept).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    fixture.wait("all use is counted", || counted() == Some(json!({"first": used})));
    for replica in replicas {
        replica.stop();
    }
    let (folder, Fixture { router, scratch: _scratch }) = (fixture.folder(), fixture);
    router.stop();
    let left = fs::read_dir(folder.join("replicas")).unwrap().count();
    assert_eq!(left, 0, "who leaves is announced no more");
}

/// Scheduler and replicas are played by the test; what the router orders is written to a file.
#[test]
fn an_update_replaces_replicas_under_load_and_no_request_fails() {
    let fixture = Fixture::start(&["--scale-up-seconds", "1"]);
    let orders = fixture.scratch.path().join("orders");
    let script = format!("echo \"$@\" >> {}", orders.display());
    let plan = |jobs: &[u64]| {
        let plan =
            json!({"min": 1, "max": 1, "jobs": jobs, "scheduler": ["sh", "-c", script, "ff2ctl"]});
        let new = fixture.folder().join("service.new");
        fs::write(&new, plan.to_string()).unwrap();
        fs::rename(new, fixture.folder().join("service.json")).unwrap();
    };
    let ordered = || fs::read_to_string(&orders).unwrap_or_default();
    plan(&[1]);
    let old = fixture.replica(1, 0);
    fixture.wait("the first order", || ordered() == "job scale 1 1 1\n");
    let stop = Arc::new(AtomicBool::new(false));
    let load = fixture.load(3, &stop);
    load.go_on(6);
    plan(&[1, 2]);
    load.go_on(6);
    assert!(!ordered().contains("cancel"), "the old one serves until the new one does");
    let _new = fixture.replica(2, 0);
    fixture.wait("the old one is ended", || ordered().contains("job cancel 1\n"));
    // Nothing runs there any more, so it may be ended in whatever way.
    drop(old);
    load.go_on(6);
    assert_eq!(load.end(&stop), 0, "no stream broke off");
    assert!(ordered().contains("job scale 2 1 1\n"), "{}", ordered());
    let report = fs::read_to_string(fixture.folder().join("router.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert!(report["requests"].as_u64().unwrap() >= 18, "{report}");
}

/// How the service does, as `ff2-serve report` prints it.
fn report(fixture: &Fixture) -> Value {
    let ran = program().arg("report").arg(fixture.folder()).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    serde_json::from_slice(&ran.stdout).unwrap()
}

/// Tokens that the first key used, as the file beside the keys says.
fn used(fixture: &Fixture) -> u64 {
    let bytes = fs::read(fixture.folder().join("keys.used.json")).unwrap_or_default();
    let used: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    used["first"].as_u64().unwrap_or(0)
}

#[test]
fn the_next_router_leads_when_one_dies_and_no_whole_answer_is_lost() {
    let mut fixture = Fixture::start(&[]);
    let _replica = fixture.replica(0, 0);
    let second = Process::start(&mut fixture.router("127.0.0.1:0"));
    let urls = [&fixture.router, &second].map(|router| format!("http://{}", router.address));
    let wait = |what: &str, is_so: &mut dyn FnMut() -> bool| fixture.wait(what, is_so);
    wait("both are told", &mut || report(&fixture)["urls"] == json!(urls));

    // Strangers get as little from the one as from the other, and nobody gets in by the way of routers.
    assert_eq!(send(&second.address, "ff2-none", "GET", "/v1/models", "").status, 401);
    // What one is asked the other counts, as soon as it is answered.
    for turn in 1..=3 {
        let answer = send(
            &second.address,
            &fixture.router.key,
            "POST",
            "/v1/completions",
            &ask("x", 5, false),
        );
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(report(&fixture)["requests"], turn);
    }
    assert_eq!(metric(&second, "ff2_route_handed_on_total"), 3);
    assert_eq!(metric(&second, "ff2_route_requests_total"), 0);
    wait("use is written", &mut || used(&fixture) == 3 * 6);

    let stop = Arc::new(AtomicBool::new(false));
    let load = fixture.load_at(&second.address, 3, &stop);
    load.go_on(6);
    fixture.router.signal("-KILL");
    fixture.router.child.wait().unwrap();
    let killed = Instant::now();
    load.go_on(6);
    let away = killed.elapsed();
    assert!(away < Duration::from_secs(15), "the service was away for {away:?}");
    let broken = load.end(&stop);
    assert!(broken <= 3, "only what streamed through the killed one breaks off");
    assert_eq!(report(&fixture)["urls"], json!([urls[1]]));
    // What was counted before counts on.
    fixture.wait("use goes on", || used(&fixture) > 3 * 6 + 6 * 24);

    // One that is told to wait for an address has it as soon as it is free, and leads at once.
    let mut third = fixture.router(&second.address);
    let third = thread::spawn(move || Process::start(&mut third));
    thread::sleep(Duration::from_millis(500));
    assert!(!third.is_finished(), "the address is another one's");
    let (address, key) = (second.address.clone(), fixture.router.key.clone());
    drop(second);
    let third = third.join().unwrap();
    assert_eq!(third.address, address);
    fixture.wait("it knows the replica", || exchange(&third, "GET", "/health", "").status == 200);
    let answer = send(&address, &key, "POST", "/v1/completions", &ask("x", 5, false));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(metric(&third, "ff2_route_handed_on_total"), 0);
}
