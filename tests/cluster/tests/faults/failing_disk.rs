//! A disk whose every access fails, under load; then it comes back as it was.

use std::{thread, time::Duration};

use ff2_cluster_tests::{Cluster, image::Image, is_root, load::Load};

#[test]
fn the_chains_go_on_without_a_disk_that_fails() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let disk = Image::under(&cluster, 1).unwrap();
    let load = Load::start(&cluster.mount().join("load"), 4).unwrap();
    thread::sleep(Duration::from_secs(2));

    disk.lose_power().unwrap();
    thread::sleep(Duration::from_secs(6));
    let status = cluster.json(&["status"]).unwrap();
    assert_eq!(status["healthy"], false, "nobody says that a disk fails: {status}");

    // An operator looks at the disk and finds it good.
    cluster.ctl(&["kill", "storaged/1"]).unwrap();
    disk.come_back().unwrap();
    cluster.up().unwrap();
    cluster.wait_healthy(Duration::from_secs(90)).unwrap();
    let writers = cluster.end(load).unwrap();
    cluster.remount().unwrap();
    for writer in &writers {
        writer.check().unwrap();
    }
}
