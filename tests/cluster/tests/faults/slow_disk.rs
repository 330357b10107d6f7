//! A disk that answers, a thousand times slower than the others: its chains go on at its pace, and nobody
//! takes its server for dead.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::{Cluster, image::Image, is_root, load::Load, may_skip, throttle::Throttle};

/// A tired disk that turns.
const ACCESSES_PER_S: u32 = 50;
const SLOW: Duration = Duration::from_secs(12);
const PAUSE_MAX: Duration = Duration::from_secs(20);

#[test]
fn the_chains_go_on_at_the_pace_of_a_slow_disk() {
    if !is_root() {
        return;
    }
    if !Throttle::is_possible() {
        assert!(may_skip("blkio throttle"), "there is no /sys/fs/cgroup/blkio");
        return;
    }
    let cluster = Cluster::start().unwrap();
    let disk = Image::under(&cluster, 1).unwrap();
    let load = Load::start(&cluster.mount().join("load"), 4).unwrap();
    thread::sleep(Duration::from_secs(2));

    let pid = cluster.pid("storaged/1").unwrap();
    let throttle = Throttle::put(pid, &disk, ACCESSES_PER_S).unwrap();
    let begun = Instant::now();
    let mut written = 0;
    while begun.elapsed() < SLOW {
        let path = cluster.mount().join(format!("slow-{written}"));
        let bytes = vec![written as u8; 256 << 10];
        fs::write(&path, &bytes).unwrap();
        fs::File::open(&path).unwrap().sync_all().unwrap();
        assert!(fs::read(&path).unwrap() == bytes);
        written += 1;
        // Who is slow is not dead: taking it for dead would cost a copy of all it has.
        let nodes = cluster.json(&["node", "list"]).unwrap();
        assert!(nodes.as_array().unwrap().iter().all(|node| node["alive"] == true), "{nodes}");
    }
    println!("{written} files were written to chains of which some have the slow disk");
    assert!(written > 0);
    drop(throttle);

    cluster.wait_healthy(Duration::from_secs(90)).unwrap();
    cluster.ensure_kept(load, PAUSE_MAX).unwrap();
}
