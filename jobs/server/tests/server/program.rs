//! `ff2-serve` itself: keys at the first start, what it refuses to begin, and an end that loses nothing.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
};

use crate::common::{Answer, write_model};

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ff2-serve"));
    command.env("FF2_SERVE_KEYS", folder.join("keys.json")).env("FF2_LOG", "warn");
    command
}

fn run(folder: &Path, words: &[&str]) -> Output {
    program(folder).args(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server that runs, what it prints, the key that it made, its address.
pub(crate) type Started = (Child, BufReader<ChildStderr>, String, String);

pub(crate) fn started(folder: &Path, words: &[&str]) -> Started {
    started_with(folder, words, &[])
}

#[expect(
    clippy::zombie_processes,
    reason = "the caller waits for it; a failed test takes it along"
)]
fn started_with(folder: &Path, words: &[&str], variables: &[(&str, &PathBuf)]) -> Started {
    let model = folder.join("model");
    let mut command = program(folder);
    command
        .arg("run")
        .arg(&model)
        .args(["--listen", "127.0.0.1:0", "--kv-mib", "16", "--threads", "1"])
        .args(words)
        .envs(variables.iter().map(|(name, path)| (*name, path.as_os_str())));
    let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap());
    let (mut key, mut told) = (String::new(), String::new());
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it ended: {told}");
        told.push_str(&line);
        if line.starts_with("ff2-") {
            key = line.trim().to_owned();
        }
        if let Some(address) = line.split("is served at http://").nth(1) {
            return (process, lines, key, address.trim().to_owned());
        }
    }
}

pub(crate) fn ask(address: &str, key: &str, tokens: usize) -> TcpStream {
    let body = format!("{{\"prompt\": \"x\", \"max_tokens\": {tokens}, \"ignore_eos\": true}}");
    let len = body.len();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v1/completions HTTP/1.0\r\nAuthorization: Bearer {key}\r\nContent-Length: {len}\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    stream
}

pub(crate) fn answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    Answer::parse(&text(&bytes))
}

#[test]
fn from_a_first_start_to_an_end_that_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write_model(&folder.path().join("model"));
    let (mut process, mut lines, key, address) = started(folder.path(), &[]);
    assert_eq!(answer(ask(&address, &key, 3)).status, 200);
    assert_eq!(answer(ask(&address, "ff2-none", 3)).status, 401);
    let kept = fs::read_to_string(folder.path().join("keys.json")).unwrap();
    assert!(!kept.contains(&key), "keys are kept hashed");
    // One is in work when it is told to stop.
    let long = ask(&address, &key, 400);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let terminated = Command::new("kill").arg(process.id().to_string()).status().unwrap();
    assert!(terminated.success());
    let last = answer(long);
    assert!(last.status == 200 && last.body.contains("\"completion_tokens\":400"), "{}", last.body);
    assert!(process.wait().unwrap().success());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("ERROR") && !rest.contains("panic"), "{rest}");
    let used = fs::read_to_string(folder.path().join("keys.used.json")).unwrap();
    assert!(used.contains("\"first\": 405"), "two prompts of 1, answers of 3 and 400: {used}");
}

#[test]
fn asked_to_make_room_it_finishes_what_runs_and_then_says_so() {
    let folder = tempfile::tempdir().unwrap();
    write_model(&folder.path().join("model"));
    let (suspend, ack) = (folder.path().join("suspend-1"), folder.path().join("ack-1"));
    let contract = [("FF2_SUSPEND", &suspend), ("FF2_ACK", &ack)];
    let (mut process, _lines, key, address) = started_with(folder.path(), &[], &contract);
    let long = ask(&address, &key, 400);
    std::thread::sleep(std::time::Duration::from_millis(100));
    fs::write(&suspend, "0").unwrap();
    // As the scheduler does: all is ended as soon as it says so.
    while !ack.exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    let last = answer(long);
    assert!(last.status == 200 && last.body.contains("\"completion_tokens\":400"), "{}", last.body);
}

#[test]
fn keys_are_made_listed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let added =
        run(folder.path(), &["key", "add", "ann", "--concurrent", "2", "--quota-tokens", "100"]);
    assert!(added.status.success() && text(&added.stdout).starts_with("ff2-"), "{added:?}");
    assert!(!run(folder.path(), &["key", "add", "ann"]).status.success());
    let listed = text(&run(folder.path(), &["key", "list"]).stdout);
    assert_eq!(listed, "ann\t2 at once, 100 tokens in all\n");
    assert!(run(folder.path(), &["key", "remove", "ann"]).status.success());
    assert!(run(folder.path(), &["key", "list"]).stdout.is_empty());
    assert!(!run(folder.path(), &["key", "remove", "ann"]).status.success());
}

#[test]
fn what_cannot_be_served_safely_or_at_all_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    write_model(&model);
    let model = model.to_str().unwrap();
    let refused = |words: &[&str]| {
        let output = run(folder.path(), words);
        assert!(!output.status.success(), "{words:?}");
        text(&output.stderr)
    };
    for words in [
        &["--listen", "0.0.0.0:0"][..],
        &["--listen", "0.0.0.0:0", "--open"],
        &["--listen", "[::]:0"],
    ] {
        let why = refused(&[&["run", model], words].concat());
        assert!(why.contains("beyond this host") && why.contains("--unprotected"), "{why}");
    }
    fs::write(folder.path().join("model/tokenizer.json"), "{}").unwrap();
    assert!(refused(&["run", model]).contains("tokenizer.json"));
    fs::remove_file(folder.path().join("model/model.safetensors")).unwrap();
    let why = refused(&["run", model]);
    assert!(why.contains("model.safetensors") && !why.contains("panicked at"), "{why}");
    assert!(refused(&["run", "/nowhere"]).contains("/nowhere"));
}
