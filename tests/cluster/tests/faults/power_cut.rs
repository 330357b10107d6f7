//! All power goes at once: every process dies in the same moment, and the disks keep only what was synced.

use std::{fs, thread, time::Duration};

use ff2_cluster_tests::{
    Cluster, SMALLEST, Site, image::Image, is_root, kill_at_once, load::writer::write_until_failure,
};

#[test]
fn what_was_synced_is_there_after_a_power_cut() {
    if !is_root() {
        return;
    }
    let image = Image::make().unwrap();
    let dir = image.path().join("cluster");
    let site = Site { dir: Some(&dir), ..Site::default() };
    let cluster = Cluster::start_at(&site, &SMALLEST).unwrap();
    let mut writers = Vec::new();
    for round in 0..2 {
        let folder = cluster.mount().join(format!("round-{round}"));
        fs::create_dir(&folder).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let folder = folder.clone();
                thread::spawn(move || write_until_failure(&folder, number, || false))
            })
            .collect();
        thread::sleep(Duration::from_secs(4));

        let pids = cluster.pids().unwrap();
        image.lose_power().unwrap();
        kill_at_once(&pids).unwrap();
        writers.extend(threads.into_iter().map(|thread| thread.join().unwrap().0));
        image.come_back().unwrap();

        cluster.up().unwrap();
        cluster.wait_healthy(Duration::from_secs(90)).unwrap();
        for writer in &writers {
            writer.check().unwrap();
        }
        cluster.fsck().unwrap();
    }
}
