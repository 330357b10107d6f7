//! A disk whose every access fails, under load; then it comes back as it was.

use std::{fs, process::Command, thread, time::Duration};

use ff2_cluster_tests::{Cluster, image::Image, is_root, load::Load};

/// Moves the disk of storaged/1 to a file system of its own.
fn onto_an_image(cluster: &Cluster) -> Image {
    cluster.ctl(&["kill", "storaged/1"]).unwrap();
    let disk = cluster.dir().join("storaged-1/disk-0");
    let before = cluster.dir().join("storaged-1/before");
    fs::rename(&disk, &before).unwrap();
    let image = Image::make_at(&disk).unwrap();
    let mut copy = Command::new("cp");
    copy.args(["-a", "--sparse=always"]).arg(before.join(".")).arg(&disk);
    assert!(copy.status().unwrap().success());
    assert!(Command::new("sync").arg("-f").arg(&disk).status().unwrap().success());
    fs::remove_dir_all(&before).unwrap();
    cluster.up().unwrap();
    cluster.wait_healthy(Duration::from_secs(90)).unwrap();
    image
}

#[test]
fn the_chains_go_on_without_a_disk_that_fails() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let disk = onto_an_image(&cluster);
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
    let writers = load.stop().unwrap();
    cluster.remount().unwrap();
    for writer in &writers {
        writer.check().unwrap();
    }
}
