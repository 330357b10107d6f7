//! kill -9 of every role under load: the load sees a pause and no error, and nothing acknowledged is lost.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use ff2_cluster_tests::{Cluster, load::Load};

/// From a death to the load going on: lease, window and election, with room for a busy machine.
const PAUSE_MAX: Duration = Duration::from_secs(20);

#[test]
fn no_role_is_missed() {
    let cluster = Cluster::start().unwrap();
    let load = Load::start(&cluster.mount().join("load"), 4).unwrap();
    std::thread::sleep(Duration::from_secs(2));

    let mut victims = vec!["storaged/0".to_owned()];
    victims.push(cluster.leader(1).unwrap());
    victims.push("storaged/1".to_owned());
    victims.push(cluster.leader(0).unwrap());
    for victim in victims {
        cluster.ctl(&["kill", &victim]).unwrap();
        std::thread::sleep(Duration::from_secs(6));
        cluster.up().unwrap();
        // The next victim must not be the last copy: wait until this one has caught up.
        cluster.wait_healthy(Duration::from_secs(90)).unwrap();
    }

    let writers = load.stop().unwrap();
    cluster.remount().unwrap();
    for writer in &writers {
        writer.check().unwrap();
        assert!(writer.pause_max < PAUSE_MAX, "{writer:?} waited too long");
    }
}

#[test]
fn all_servers_at_once() {
    let cluster = Cluster::start().unwrap();
    let load = Load::start(&cluster.mount().join("load"), 4).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    for process in cluster.processes().unwrap() {
        let role = process["role"].as_str().unwrap();
        if role == "metad" || role == "storaged" {
            cluster.ctl(&["kill", &format!("{role}/{}", process["index"])]).unwrap();
        }
    }
    std::thread::sleep(Duration::from_secs(2));
    cluster.up().unwrap();
    cluster.wait_healthy(Duration::from_secs(90)).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let writers = load.stop().unwrap();
    cluster.remount().unwrap();
    for writer in &writers {
        writer.check().unwrap();
    }
}
