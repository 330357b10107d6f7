//! Who may do what: roles of tokens with the audit log, export rules, and encryption, with real processes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    time::{Duration, Instant},
};

use ff2_cluster_tests::{Cluster, SMALLEST};
use serde_json::Value;

/// In which rules take hold of what is open: the lease of a storage node, and that of a mount's cache.
const RULES_HOLD: Duration = Duration::from_secs(8);

#[test]
fn roles_and_the_audit_log() {
    let cluster = Cluster::start().unwrap();
    let token = |name: &str, role: &str| {
        let path = cluster.dir().join(format!("{name}-{role}.token")).display().to_string();
        cluster.ctl(&["user", "token", name, "--role", role, "--out", &path]).unwrap();
        path
    };
    cluster.ctl(&["user", "add", "ann", "--uid", "4321"]).unwrap();
    let (operator, viewer) = (token("ann", "operator"), token("ann", "viewer"));
    let refused = |args: &[&str], token: &str| {
        let begun = Instant::now();
        let output = cluster.ctl_output(&[args, &["--token", token]].concat()).unwrap();
        assert!(!output.status.success(), "{args:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "a refusal is not asked for again");
        String::from_utf8(output.stderr).unwrap()
    };
    cluster.ctl(&["status", "--token", &viewer]).unwrap();
    let why = refused(&["node", "drain", "101"], &viewer);
    assert!(why.contains("role operator") && why.contains("ann"), "{why}");
    cluster.ctl(&["node", "drain", "101", "--token", &operator]).unwrap();
    cluster.ctl(&["node", "undrain", "101", "--token", &operator]).unwrap();
    let why = refused(&["user", "token", "ann"], &operator);
    assert!(why.contains("role admin"), "{why}");
    let why = refused(&["fs", "ls", "/"], &operator);
    assert!(why.contains("opens no files"), "{why}");

    // The leader dies, and what was done by it is still told.
    cluster.ctl(&["kill", "metad/0"]).unwrap();
    cluster.ctl(&["node", "drain", "102", "--token", &operator]).unwrap();
    cluster.ctl(&["node", "undrain", "102", "--token", &operator]).unwrap();
    cluster.up().unwrap();
    let audit = cluster.json(&["audit"]).unwrap();
    let audit = audit.as_array().unwrap();
    let drains: Vec<&Value> = audit
        .iter()
        .filter(|action| action["call"] == "set_draining" && action["outcome"] == "done")
        .collect();
    assert_eq!(drains.len(), 4, "{audit:#?}");
    assert!(drains.iter().all(|drain| drain["user"] == "ann" && drain["role"] == "operator"));
    assert_eq!(drains[2]["arguments"]["node"], 102);
    assert!(drains[0]["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{:?}", drains[0]);
    let refusals = audit.iter().filter(|action| action["outcome"] == "refused");
    let refusals: Vec<&str> = refusals.map(|action| action["call"].as_str().unwrap()).collect();
    assert!(
        refusals.contains(&"set_draining") && refusals.contains(&"issue_token"),
        "{refusals:?}"
    );
    let secret = fs::read_to_string(&operator).unwrap();
    assert!(!format!("{audit:?}").contains(secret.trim()), "no secrets in the log");
    let shown = cluster.ctl(&["audit", "--since", "1h"]).unwrap();
    assert!(shown.contains("set_draining node=101 draining=true"), "{shown}");
}

#[test]
fn export_rules_hold_for_a_mount() {
    let cluster = Cluster::start().unwrap();
    let mount = cluster.mount();
    let export = |args: &[&str]| {
        cluster.ctl(&[&["volume", "export", "default"], args].concat()).unwrap();
    };
    fs::set_permissions(&mount, fs::Permissions::from_mode(0o777)).unwrap();
    let secret = mount.join("secret");
    fs::write(&secret, vec![1; 1 << 20]).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let mut open = fs::File::options().append(true).open(&secret).unwrap();
    open.write_all(&[2; 1 << 20]).unwrap();
    open.sync_all().unwrap();

    export(&["--rule", "10.9.9.9", "--rule", "*,ro,none"]);
    let begun = Instant::now();
    let refused = loop {
        let wrote = open.write_all(&[3; 1 << 20]).and_then(|()| open.sync_all());
        if let Err(error) = wrote {
            break error;
        }
        assert!(begun.elapsed() < RULES_HOLD, "an open file is still written");
        std::thread::sleep(Duration::from_millis(100));
    };
    eprintln!("refused after {:?}: {refused}", begun.elapsed());
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    drop(open);
    // Once the mount has heard of it, nothing goes behind.
    let begun = Instant::now();
    let refused = loop {
        if let Err(error) = fs::write(mount.join("new"), b"x") {
            break error;
        }
        assert!(begun.elapsed() < RULES_HOLD, "files are still made");
    };
    eprintln!("no more files after {:?}", begun.elapsed());
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::read(&secret).unwrap()[..1 << 20], vec![1; 1 << 20], "reading goes on");

    export(&["--rule", "*,rw,root,4000:4001"]);
    let squashed = mount.join("squashed");
    let begun = Instant::now();
    while let Err(error) = fs::write(&squashed, b"mine") {
        assert!(begun.elapsed() < RULES_HOLD, "{error}");
    }
    let made = fs::metadata(&squashed).unwrap();
    assert_eq!((made.uid(), made.gid()), (4000, 4001));
    let refused = fs::File::open(&secret).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "root is nobody's root");
    assert_eq!(fs::read(&squashed).unwrap(), b"mine");

    export(&["--rule", "10.9.9.9"]);
    let begun = Instant::now();
    while fs::metadata(&squashed).is_ok() {
        assert!(begun.elapsed() < RULES_HOLD, "what was cached is still told");
        std::thread::sleep(Duration::from_millis(100));
    }
    let why = cluster.ctl_output(&["fs", "ls", "/"]).unwrap();
    let why = String::from_utf8(why.stderr).unwrap();
    assert!(why.contains("ff2ctl volume export"), "{why}");
    export(&["--clear"]);
    let begun = Instant::now();
    while fs::read(&secret).is_err() {
        assert!(begun.elapsed() < RULES_HOLD, "the mount recovers");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// All over TCP, all encrypted, and certificates that are exchanged while files are written.
#[test]
fn all_is_encrypted_and_certificates_are_exchanged() {
    let shape = [&SMALLEST[..], &["--tcp", "--encrypt-all"]].concat();
    let cluster = Cluster::start_with(&shape).unwrap();
    let mount = cluster.mount();
    let write = |name: &str, byte: u8| {
        let path = mount.join(name);
        fs::write(&path, vec![byte; 20 << 20]).unwrap();
        fs::File::open(&path).unwrap().sync_all().unwrap();
        assert!(fs::read(&path).unwrap() == vec![byte; 20 << 20], "{name}");
    };
    write("first", 1);
    // Whoever speaks in clear is told why it is not heard, by metads and by storage servers.
    let config = cluster.dir().join("fuse-0/mount.toml");
    let without = |keys: &[&str]| {
        let text = fs::read_to_string(&config).unwrap();
        let is_left = |line: &&str| !keys.iter().any(|key| line.starts_with(key));
        let left: Vec<&str> = text.lines().filter(is_left).collect();
        let path = cluster.dir().join("some.toml");
        fs::write(&path, left.join("\n")).unwrap();
        let (path, copy) = (path.to_str().unwrap(), cluster.dir().join("copy"));
        let get = ["fs", "--mount-config", path, "get", "/first", copy.to_str().unwrap()];
        cluster.ctl_output(&get).unwrap()
    };
    for keys in [&["tls_ca_file", "encrypt"][..], &["encrypt"]] {
        let refused = without(keys);
        let why = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success(), "without {keys:?}");
        assert!(why.contains("encrypted connections only") && why.contains("tls_ca_file"), "{why}");
    }
    assert!(without(&[]).status.success());

    let ends = |cluster: &Cluster| -> Vec<u64> {
        let list = cluster.json(&["security", "list"]).unwrap();
        let servers = list.as_array().unwrap().iter().filter(|one| one["authority"] == false);
        servers.map(|one| one["expires_s"].as_u64().unwrap()).collect()
    };
    let before = ends(&cluster);
    assert_eq!(before.len(), 7);
    cluster.ctl(&["security", "rotate", "--days", "20"]).unwrap();
    let after = ends(&cluster);
    assert!(after.iter().all(|end| *end < before[0]), "{before:?} {after:?}");
    write("second", 2);
    // The servers themselves say it, of the certificates that they use.
    let begun = Instant::now();
    loop {
        let status = cluster.json(&["status"]).unwrap();
        let problems = status["problems"].to_string();
        if problems.matches("security rotate").count() == 7 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{problems}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let metrics = |name: &str| cluster.ctl(&["admin", "metrics", name]).unwrap();
    for name in ["metad/0", "storaged/0"] {
        assert!(metrics(name).contains("certificate_left_seconds 17"), "{}", metrics(name));
    }
    cluster.ctl(&["security", "rotate"]).unwrap();
    // Another authority takes over while files are written and servers go and come.
    for step in ["begin", "switch", "finish"] {
        cluster.ctl(&["security", "authority", step]).unwrap();
        // All processes look at their files once in a second.
        std::thread::sleep(Duration::from_millis(1_500));
        cluster.ctl(&["kill", "storaged/2"]).unwrap();
        cluster.up().unwrap();
        write(step, 7);
    }
    // New connections, and a process that begins anew, go by the newest ones.
    cluster.ctl(&["kill", "storaged/1"]).unwrap();
    cluster.up().unwrap();
    write("third", 3);
    let begun = Instant::now();
    while cluster.ctl(&["status", "--check"]).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", cluster.ctl(&["status"]));
        std::thread::sleep(Duration::from_millis(200));
    }
}
