//! Two of three replicas are lost at once, disks and all: the third serves what all had acknowledged, and the
//! others are made anew from it.

use std::{thread, time::Duration};

use ff2_cluster_tests::{Cluster, load::Load};

const WHOLE: Duration = Duration::from_secs(120);
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[test]
fn the_last_replica_has_everything() {
    let cluster = Cluster::start().unwrap();
    let load = Load::start(&cluster.mount().join("load"), 4).unwrap();
    thread::sleep(Duration::from_secs(3));
    let lost = [1, 2];
    let targets: Vec<u64> = lost
        .iter()
        .flat_map(|storaged| {
            let disk = cluster.dir().join(format!("storaged-{storaged}/disk-0"));
            cluster.targets_on(&disk).unwrap()
        })
        .collect();
    assert!(!targets.is_empty());
    for storaged in lost {
        cluster.ctl(&["kill", &format!("storaged/{storaged}")]).unwrap();
    }
    for storaged in lost {
        cluster.renew_disk(storaged).unwrap();
    }
    // Each chain has lost one or two of its three.
    thread::sleep(Duration::from_secs(8));
    let status = cluster.json(&["status"]).unwrap();
    let alone = status["chains"].as_array().unwrap().iter().filter(|chain| {
        let members = chain["members"].as_array().unwrap().iter();
        members.filter(|member| member["state"] == "serving").count() == 1
    });
    assert!(alone.count() > 0, "no chain has lost two: {status}");
    cluster.up().unwrap();
    for target in &targets {
        cluster.ctl(&["target", "replace", &target.to_string(), "--disk", "0"]).unwrap();
    }
    cluster.wait_healthy(WHOLE).unwrap();
    let writers = cluster.end(load).unwrap();
    // Of many chains only the new copies are left.
    cluster.ctl(&["kill", "storaged/0"]).unwrap();
    cluster.ctl(&["kill", "storaged/3"]).unwrap();
    cluster.remount().unwrap();
    for writer in &writers {
        writer.check().unwrap();
        assert!(writer.pause_max < PAUSE_MAX, "{writer:?} waited too long");
    }
}
