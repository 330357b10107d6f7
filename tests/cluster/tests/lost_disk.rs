//! A disk that is lost for good: an empty one takes its place, by the commands that OPERATIONS names.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::Cluster;

const WHOLE: Duration = Duration::from_secs(120);

fn body(seed: usize) -> Vec<u8> {
    (0..24_usize << 20).map(|at| (at / 4096 * 31 + at * 7 + seed) as u8).collect()
}

fn write(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_lost_disk_is_replaced() {
    let cluster = Cluster::start().unwrap();
    let root = cluster.mount();
    write(&root.join("before"), &body(1));
    let disk = cluster.dir().join("storaged-0/disk-0");
    let lost = cluster.targets_on(&disk).unwrap();
    assert!(!lost.is_empty(), "no target lies on {}", disk.display());

    cluster.ctl(&["kill", "storaged/0"]).unwrap();
    // The others go on.
    write(&root.join("meanwhile"), &body(2));
    cluster.renew_disk(0).unwrap();
    cluster.up().unwrap();
    let first = lost[0].to_string();
    let why = cluster.json(&["why", &first]).unwrap()["reasons"].to_string();
    assert!(why.contains("its disk is not in the node"), "{why}");
    assert!(!cluster.ctl_output(&["status", "--check"]).unwrap().status.success());

    let mut made = Vec::new();
    for target in &lost {
        let answer =
            cluster.json(&["target", "replace", &target.to_string(), "--disk", "0"]).unwrap();
        assert_eq!(answer["replaced"], *target);
        made.push(answer["target"].as_u64().unwrap());
    }
    write(&root.join("after"), &body(3));
    cluster.wait_healthy(WHOLE).unwrap();
    let mut here = cluster.targets_on(&disk).unwrap();
    here.sort_unstable();
    made.sort_unstable();
    assert_eq!(here, made);
    let again = cluster.ctl_output(&["target", "replace", &first, "--disk", "0"]).unwrap();
    assert!(!again.status.success(), "what is replaced has no place in a chain any more");

    // Two of the other three are dead: of some chains only the new copies are left.
    cluster.ctl(&["kill", "storaged/1"]).unwrap();
    cluster.ctl(&["kill", "storaged/2"]).unwrap();
    cluster.remount().unwrap();
    for (seed, name) in [(1, "before"), (2, "meanwhile"), (3, "after")] {
        assert!(fs::read(root.join(name)).unwrap() == body(seed), "{name} changed");
    }
}

#[test]
fn what_a_lost_server_held_is_made_anew_on_the_others() {
    let cluster = Cluster::start().unwrap();
    replace_after(&cluster, 5);
    let root = cluster.mount();
    write(&root.join("before"), &body(4));
    let lost = cluster.node_of("storaged-0").unwrap();
    let number = lost.to_string();
    let early = cluster.ctl_output(&["node", "remove", &number]).unwrap();
    let told = String::from_utf8_lossy(&early.stderr).into_owned();
    assert!(!early.status.success() && told.contains("node drain"), "{told}");

    cluster.ctl(&["kill", "storaged/0"]).unwrap();
    write(&root.join("meanwhile"), &body(5));
    let begun = Instant::now();
    while !all_serve_without(&cluster, lost) {
        assert!(begun.elapsed() < WHOLE, "{:?}", cluster.ctl(&["status"]));
        thread::sleep(Duration::from_millis(300));
    }
    cluster.ctl(&["node", "remove", &number]).unwrap();
    cluster.ctl(&["status", "--check"]).unwrap();
    cluster.remount().unwrap();
    assert!(fs::read(root.join("before")).unwrap() == body(4));
    assert!(fs::read(root.join("meanwhile")).unwrap() == body(5));
}

/// Has the metads wait so many seconds for what is away.
fn replace_after(cluster: &Cluster, seconds: u32) {
    for index in 0..3 {
        let path = cluster.dir().join(format!("metad-{index}/metad.toml"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("replace_after_s = 600"), "{text}");
        let text = text.replace("replace_after_s = 600", &format!("replace_after_s = {seconds}"));
        fs::write(&path, text).unwrap();
        cluster.ctl(&["restart", &format!("metad/{index}")]).unwrap();
    }
}

/// Each chain has its three replicas, none of them there.
fn all_serve_without(cluster: &Cluster, node: u64) -> bool {
    let chains = cluster.json(&["chain", "list"]).unwrap();
    chains.as_array().unwrap().iter().all(|chain| {
        let members = chain["members"].as_array().unwrap();
        members.len() == 3
            && members.iter().all(|member| member["state"] == "serving" && member["node"] != node)
    })
}
