//! Bytes that nobody should send, to every port; and tokens that open nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    process::Command,
    time::Duration,
};

use ff2_cluster_tests::Cluster;

/// Shapes of garbage: short, long, HTTP, a TLS hello, all ones, a frame-like header with huge lengths.
fn garbage() -> Vec<Vec<u8>> {
    let mut noise = Vec::with_capacity(1 << 20);
    let mut state = 88_172_645_463_325_252_u64;
    while noise.len() < 1 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    vec![
        vec![0],
        vec![0xff; 4096],
        noise,
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
        vec![0x16, 3, 1, 0xff, 0xff, 1, 0, 0xff, 0xff],
        [&b"FF2\0"[..], &[0xff; 60]].concat(),
    ]
}

#[test]
fn garbage_harms_nobody() {
    let cluster = Cluster::start().unwrap();
    fs::write(cluster.mount().join("file"), b"before").unwrap();
    let before = cluster.processes().unwrap();
    let mut ports = 0;
    for process in &before {
        for (_, address) in process["addresses"].as_object().into_iter().flatten() {
            let address = address.as_str().unwrap();
            ports += 1;
            for bytes in garbage() {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
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
    assert!(said.to_lowercase().contains("token"), "the message does not name the token: {said}");
}
