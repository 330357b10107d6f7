//! Data that moves while it is used: a server is emptied and taken out, a new one gets its share, and chains
//! get more replicas and fewer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::{Cluster, SMALLEST, load::Load, suite};
use rustix::process::Signal;
use serde_json::Value;

const WRITERS: u64 = 3;
const WARM_UP: Duration = Duration::from_secs(4);
/// Bytes of the file that lies there before anything moves.
const FILE_BYTES: usize = 96 << 20;

fn body() -> Vec<u8> {
    (0..FILE_BYTES).map(|at| (at / 4096 * 31 + at * 7) as u8).collect()
}

fn write(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

fn start(storageds: &str, replicas: &str) -> Cluster {
    let mut shape = SMALLEST;
    (shape[3], shape[7]) = (storageds, replicas);
    Cluster::start_with(&shape).unwrap()
}

/// Writers, a reader and somebody who looks at the chains, while `work` is done. Every acknowledged byte must
/// be there afterwards, and no chain may have had fewer serving members than `least`.
fn under_load(cluster: &Cluster, least: usize, work: impl FnOnce()) {
    let root = cluster.mount();
    let before = body();
    write(&root.join("before"), &before);
    let beside = cluster.mount_beside("reader").unwrap();
    let load = Load::start(&root.join("load"), WRITERS).unwrap();
    let is_over = AtomicBool::new(false);
    // Until the load runs as it will: its first calls wait for what two new mounts begin with.
    thread::sleep(WARM_UP);
    thread::scope(|scope| {
        let pacer = scope.spawn(|| {
            let mut file = File::create(root.join("pace")).unwrap();
            let mut longest = Duration::ZERO;
            while !is_over.load(SeqCst) {
                let begun = Instant::now();
                file.write_all(&before[..16 << 10]).unwrap();
                file.sync_all().unwrap();
                longest = longest.max(begun.elapsed());
            }
            longest
        });
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !is_over.load(SeqCst) {
                assert!(fs::read(beside.join("before")).unwrap() == before, "read {reads} differs");
                reads += 1;
            }
            reads
        });
        let watcher = scope.spawn(|| {
            let mut looks = 0;
            while !is_over.load(SeqCst) {
                // While no metad leads there is no answer.
                let Ok(status) = cluster.json(&["status"]) else { continue };
                for (chain, serving) in serving(&status) {
                    assert!(serving >= least, "chain {chain} has {serving} members that serve");
                }
                looks += 1;
            }
            looks
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_over.store(true, SeqCst);
        let (reads, looks) = (reader.join().unwrap(), watcher.join().unwrap());
        let pause = pacer.join().unwrap();
        println!(
            "{reads} reads of {} MiB, {looks} looks at the chains, the longest pause of a write {pause:?}",
            FILE_BYTES >> 20
        );
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
        assert!(reads > 0 && looks > 0);
    });
    let acknowledged = cluster.end(load).unwrap();
    cluster.remount().unwrap();
    for writer in &acknowledged {
        println!("{} records, the longest pause {:?}", writer.records, writer.pause_max);
        writer.check().unwrap();
    }
    assert!(fs::read(root.join("before")).unwrap() == before);
    cluster.fsck().unwrap();
}

/// Members that serve, by chain.
fn serving(status: &Value) -> BTreeMap<u64, usize> {
    let chains = status["chains"].as_array().unwrap();
    let count = |chain: &Value| {
        let members = chain["members"].as_array().unwrap();
        let serving = members.iter().filter(|member| member["state"] == "serving").count();
        (chain["id"].as_u64().unwrap(), serving)
    };
    chains.iter().map(count).collect()
}

/// Each chain has exactly so many members, which all serve.
fn all_have(cluster: &Cluster, replicas: usize) {
    let status = cluster.json(&["status"]).unwrap();
    for chain in status["chains"].as_array().unwrap() {
        assert_eq!(chain["members"].as_array().unwrap().len(), replicas, "{chain}");
    }
    assert!(serving(&status).values().all(|&serving| serving == replicas));
}

fn targets_by_node(cluster: &Cluster) -> BTreeMap<u64, usize> {
    let nodes = cluster.json(&["node", "list"]).unwrap();
    let is_storage = |node: &&Value| node["role"] == "storaged";
    let nodes = nodes.as_array().unwrap().iter().filter(is_storage);
    let mut counts: BTreeMap<u64, usize> =
        nodes.map(|node| (node["id"].as_u64().unwrap(), 0)).collect();
    let targets = cluster.json(&["target", "list"]).unwrap();
    for target in targets.as_array().unwrap().iter().filter(|target| target["chain"] != 0) {
        *counts.get_mut(&target["node"].as_u64().unwrap()).unwrap() += 1;
    }
    counts
}

/// What the disk of a storage server says that it uses, in bytes, as its own heartbeats tell.
fn used(cluster: &Cluster, node: u64) -> u64 {
    let shown = cluster.json(&["node", "show", &node.to_string()]).unwrap();
    shown["disks"][0]["used_bytes"].as_u64().unwrap()
}

fn refusal(cluster: &Cluster, args: &[&str]) -> String {
    let output = cluster.ctl_output(args).unwrap();
    assert!(!output.status.success(), "{args:?} is not refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_server_is_emptied_under_load_and_taken_out() {
    let cluster = start("5", "3");
    let node = cluster.node_of("storaged-0").unwrap();
    let number = node.to_string();
    under_load(&cluster, 3, || {
        let held = used(&cluster, node);
        assert!(targets_by_node(&cluster)[&node] > 0);
        let begun = cluster.json(&["node", "drain", &number]).unwrap();
        assert!(begun["targets"].as_u64().unwrap() > 0, "{begun}");
        // The next leader goes on with what is recorded.
        let leader = cluster.leader(0).unwrap();
        cluster.signal(&leader, Signal::KILL).unwrap();
        let done = cluster.json(&["node", "drain", &number, "--wait"]).unwrap();
        assert_eq!(done["targets"], 0);
        cluster.ctl(&["up"]).unwrap();
        // Its stores are removed, and what a crash leaves of them after the next start.
        cluster.ctl(&["kill", "storaged/0"]).unwrap();
        cluster.ctl(&["up"]).unwrap();
        let removed = Instant::now();
        while used(&cluster, node) > held / 4 {
            assert!(removed.elapsed() < Duration::from_secs(60), "{} left", used(&cluster, node));
            thread::sleep(Duration::from_millis(200));
        }
    });
    assert_eq!(targets_by_node(&cluster)[&node], 0);
    all_have(&cluster, 3);
    cluster.ctl(&["kill", "storaged/0"]).unwrap();
    let dead = Instant::now();
    while cluster.ctl_output(&["node", "remove", &number]).is_ok_and(|o| !o.status.success()) {
        assert!(
            dead.elapsed() < Duration::from_secs(30),
            "{}",
            refusal(&cluster, &["node", "remove", &number])
        );
    }
    cluster.wait_healthy(Duration::from_secs(30)).unwrap();
    assert!(fs::read(cluster.mount().join("before")).unwrap() == body());
}

#[test]
fn a_drain_bears_servers_that_die_on_the_way() {
    let cluster = start("5", "3");
    let node = cluster.node_of("storaged-0").unwrap();
    let number = node.to_string();
    under_load(&cluster, 2, || {
        cluster.ctl(&["node", "drain", &number]).unwrap();
        // One that gets targets, then the one that they leave; each comes back after it was missed.
        for name in ["storaged/1", "storaged/0"] {
            cluster.ctl(&["kill", name]).unwrap();
            thread::sleep(Duration::from_secs(5));
            cluster.ctl(&["up"]).unwrap();
        }
        cluster.ctl(&["node", "drain", &number, "--wait"]).unwrap();
    });
    assert_eq!(targets_by_node(&cluster)[&node], 0);
    cluster.wait_healthy(Duration::from_secs(60)).unwrap();
    all_have(&cluster, 3);
}

#[test]
fn a_drain_is_taken_back_and_one_without_a_place_is_told() {
    let cluster = start("3", "3");
    write(&cluster.mount().join("before"), &body());
    let number = cluster.node_of("storaged-0").unwrap().to_string();
    let told = refusal(&cluster, &["node", "drain", &number, "--wait"]);
    assert!(told.contains("no place") && told.contains("add a storage node"), "{told}");
    let status = cluster.json(&["status"]).unwrap();
    assert!(status["problems"].to_string().contains("node undrain"), "{}", status["problems"]);
    cluster.ctl(&["node", "undrain", &number]).unwrap();
    cluster.wait_healthy(Duration::from_secs(30)).unwrap();
    all_have(&cluster, 3);
}

#[test]
fn a_new_server_gets_its_share_under_load() {
    let cluster = start("4", "3");
    let mount = cluster.mount().display().to_string();
    under_load(&cluster, 3, || {
        let none = cluster.json(&["rebalance", "--dry-run"]).unwrap();
        assert_eq!(none["moves"].as_array().unwrap().len(), 0, "{none}");
        cluster.ctl(&["up", "--storaged", "5", "--mount", &mount]).unwrap();
        let plan = cluster.json(&["rebalance", "--dry-run"]).unwrap();
        assert!(!plan["moves"].as_array().unwrap().is_empty(), "{plan}");
        assert_eq!(targets_by_node(&cluster).values().min(), Some(&0), "it is only a plan");
        cluster.ctl(&["rebalance", "--wait"]).unwrap();
        let counts = targets_by_node(&cluster);
        let (most, least) = (counts.values().max().unwrap(), counts.values().min().unwrap());
        assert!(most - least <= 1, "{counts:?}");
    });
    all_have(&cluster, 3);
    let status = cluster.json(&["status"]).unwrap();
    assert_eq!(status["rebalancing"], false, "it ends by itself");
    assert_eq!(status["healthy"], true, "{}", status["problems"]);
}

/// One more disk for each storage server, as OPERATIONS says.
fn add_disks(cluster: &Cluster, storageds: usize) {
    for index in 0..storageds {
        let own = cluster.dir().join(format!("storaged-{index}"));
        let config = own.join("storaged.toml");
        let disk = own.join("disk-1");
        fs::create_dir(&disk).unwrap();
        let entry = format!("\n[[disks]]\npath = {disk:?}\nsize_bytes = {}\n", 4_u64 << 30);
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text + &entry).unwrap();
        let mut format = Command::new(cluster.program("ff2-storaged"));
        format.arg("--config").arg(&config).arg("format");
        suite::run(&mut format).unwrap();
        cluster.ctl(&["restart", &format!("storaged/{index}")]).unwrap();
        cluster.wait_healthy(Duration::from_secs(60)).unwrap();
    }
}

#[test]
fn new_disks_get_their_share() {
    let cluster = start("4", "3");
    let file = cluster.mount().join("before");
    write(&file, &body());
    add_disks(&cluster, 4);
    cluster.ctl(&["rebalance", "--wait"]).unwrap();
    all_have(&cluster, 3);
    let status = cluster.json(&["status"]).unwrap();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for target in status["targets"].as_array().unwrap() {
        *counts.entry(target["disk"].as_str().unwrap()).or_default() += 1;
    }
    assert_eq!(counts.len(), 8, "{counts:?}");
    assert!(counts.values().all(|count| (2..=4).contains(count)), "{counts:?}");
    cluster.remount().unwrap();
    assert!(fs::read(&file).unwrap() == body());
}

#[test]
fn chains_get_more_replicas_and_fewer_under_load() {
    let cluster = start("4", "2");
    let told = refusal(&cluster, &["table", "replicas", "1", "5"]);
    assert!(told.contains("5 storage nodes"), "{told}");
    let told = refusal(&cluster, &["table", "replicas", "1", "1"]);
    assert!(told.contains("--force"), "{told}");
    under_load(&cluster, 2, || {
        cluster.ctl(&["table", "replicas", "1", "3", "--wait"]).unwrap();
        all_have(&cluster, 3);
        cluster.ctl(&["table", "replicas", "1", "2", "--wait"]).unwrap();
        all_have(&cluster, 2);
    });
    assert_eq!(cluster.json(&["table", "show", "1"]).unwrap()["replicas"], 2);
}
