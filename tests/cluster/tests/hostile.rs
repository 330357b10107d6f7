//! Bytes that nobody should send, to every port; and tokens that open nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod frames;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    process::Command,
    time::Duration,
};

use ff2_cluster_tests::Cluster;
use frames::{CHALLENGE, HELLO, PROOF, REFUSED, REQUEST, frame, hello, noise, sealed};

/// A server ends a handshake that does not go on after 5 s.
const ENDED: Duration = Duration::from_secs(10);

/// Shapes of garbage: short, long, HTTP, a TLS hello, all ones, almost a frame.
fn garbage() -> Vec<Vec<u8>> {
    vec![
        vec![0],
        vec![0xff; 4096],
        noise(1 << 20),
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
        vec![0x16, 3, 1, 0xff, 0xff, 1, 0, 0xff, 0xff],
        [&b"ff2\x02"[..], &[0xff; 60]].concat(),
        [&b"ff2\x02"[..], &frame(HELLO, b"")[4..]].concat(),
    ]
}

/// Frames whose checksums hold, and which are wrong all the same.
fn bad_frames(cluster: &str) -> Vec<(&'static str, Vec<u8>)> {
    let good = hello(1, cluster, &[7; 32]);
    let mut damaged = frame(HELLO, &good);
    *damaged.last_mut().unwrap() ^= 1;
    vec![
        ("a vast message", sealed(HELLO, &noise(4096), u32::MAX, 0)),
        ("vast bulk bytes", sealed(HELLO, &good, good.len() as u32, u32::MAX)),
        ("a long hello", frame(HELLO, &noise(1 << 20))),
        ("half a header", frame(HELLO, &good)[..30].to_vec()),
        ("half a message", frame(HELLO, &good)[..60].to_vec()),
        ("a damaged message", damaged),
        ("a hello of noise", frame(HELLO, &noise(100))),
        ("an empty hello", frame(HELLO, b"")),
        ("another protocol", frame(HELLO, &hello(99, cluster, &[7; 32]))),
        ("another cluster", frame(HELLO, &hello(1, "other", &[7; 32]))),
        ("a short nonce", frame(HELLO, &hello(1, cluster, &[7; 3]))),
        ("a request first", frame(REQUEST, &noise(100))),
        ("a proof first", frame(PROOF, &good)),
        ("an unknown kind", frame(77, &good)),
    ]
}

/// What may follow a hello that was fine, and its challenge.
fn bad_proofs() -> Vec<(&'static str, Vec<u8>)> {
    // Field 1, 32 bytes.
    let proof = [&[0x0a, 32][..], &[0; 32]].concat();
    vec![
        ("noise", noise(1 << 20)),
        ("a wrong proof", frame(PROOF, &proof)),
        ("a proof of noise", frame(PROOF, &noise(64))),
        ("a vast proof", sealed(PROOF, &proof, u32::MAX, 0)),
        ("half a proof", frame(PROOF, &proof)[..50].to_vec()),
        ("a request", frame(REQUEST, &noise(100))),
        ("a second hello", frame(HELLO, &proof)),
        ("nothing", Vec::new()),
    ]
}

fn connect(address: &str, patience: Duration) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    stream
}

/// Sends the last bytes and returns the kinds of the frames that come before the server hangs up.
fn rest(mut stream: TcpStream, what: &str, bytes: &[u8]) -> Vec<u8> {
    // A server that hangs up early is right.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(kinds.contains(&error.kind()), "{what}: the connection stays: {error}");
    }
    frames::kinds(&answer)
}

/// `in_clear`: the server goes on with who does not encrypt.
fn strangers_learn_nothing(address: &str, cluster: &str, in_clear: bool) {
    for (what, bytes) in bad_frames(cluster) {
        let kinds = rest(connect(address, ENDED), what, &bytes);
        assert!(kinds.is_empty() || kinds == [REFUSED], "{what} is answered with {kinds:?}");
    }
    for (what, bytes) in bad_proofs() {
        let mut stream = connect(address, ENDED);
        stream.write_all(&frame(HELLO, &hello(1, cluster, &[7; 32]))).unwrap();
        let answer = if in_clear { CHALLENGE } else { REFUSED };
        assert_eq!(frames::read_one(&mut stream), answer, "a hello that is fine is answered");
        let kinds = rest(stream, what, &bytes);
        assert!(kinds.is_empty() || kinds == [REFUSED], "{what} is answered with {kinds:?}");
    }
}

#[test]
fn garbage_harms_nobody() {
    let cluster = Cluster::start().unwrap();
    fs::write(cluster.mount().join("file"), b"before").unwrap();
    let before = cluster.processes().unwrap();
    let id = cluster.json(&["status"]).unwrap()["cluster_id"].as_str().unwrap().to_owned();
    let mut ports = 0;
    for process in &before {
        for (purpose, address) in process["addresses"].as_object().into_iter().flatten() {
            let address = address.as_str().unwrap();
            ports += 1;
            if purpose == "data" {
                strangers_learn_nothing(address, &id, process["role"] == "storaged");
            }
            for bytes in garbage() {
                let mut stream = connect(address, Duration::from_millis(200));
                // A server that hangs up early is right; what counts is that it lives.
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.take(1 << 16).read_to_end(&mut Vec::new());
            }
        }
    }
    assert!(ports >= 3 * 3 + 4 * 2, "only {ports} ports known");
    fs::write(cluster.mount().join("file"), b"after").unwrap();
    assert_eq!(fs::read(cluster.mount().join("file")).unwrap(), b"after");
    let pids =
        |list: &[serde_json::Value]| -> Vec<_> { list.iter().map(|p| p["pid"].clone()).collect() };
    assert_eq!(pids(&before), pids(&cluster.processes().unwrap()), "a process died");
}

#[test]
fn a_wrong_token_opens_nothing() {
    let cluster = Cluster::start().unwrap();
    let config = fs::read_dir(cluster.dir())
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.join("mount.toml").exists())
        .expect("the mount's folder has mount.toml")
        .join("mount.toml");
    let text = fs::read_to_string(&config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("mnt");
    fs::create_dir(&mount).unwrap();
    let token_line = text.lines().find(|line| line.starts_with("token_file")).unwrap();
    let token_path = token_line.split('"').nth(1).unwrap();
    // One character of the secret half changed.
    let mut token = fs::read_to_string(token_path).unwrap().trim().to_owned();
    let last = token.pop().unwrap();
    let second_last = token.pop().unwrap();
    token.push(if second_last == 'A' { 'B' } else { 'A' });
    token.push(last);
    let forged = folder.path().join("token");
    fs::write(&forged, token).unwrap();
    fs::set_permissions(&forged, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let text = text
        .replace(token_path, forged.to_str().unwrap())
        .replace(cluster.mount().to_str().unwrap(), mount.to_str().unwrap());
    let text: String = text
        .lines()
        .map(|line| match line.starts_with("data_dir") {
            true => format!("data_dir = \"{}\"\n", folder.path().display()),
            false => format!("{line}\n"),
        })
        .collect();
    let forged_config = folder.path().join("mount.toml");
    fs::write(&forged_config, text).unwrap();
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("ff2-fuse");
    let output = Command::new("timeout")
        .arg("20")
        .arg(program)
        .arg("--config")
        .arg(&forged_config)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "mounted with a forged token: {said}");
    assert_ne!(output.status.code(), Some(124), "kept trying with a forged token: {said}");
    let refusal = "this process's token and the server's cluster key do not belong together: check the \
                   token file";
    assert!(said.contains(refusal), "another refusal: {said}");
}
