//! kill -9 of every role under load: the load sees a pause and no error, and nothing acknowledged is lost.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::{
    Cluster, SMALLEST,
    load::{Load, writer::write_until_failure},
};

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

    let writers = cluster.end(load).unwrap();
    cluster.remount().unwrap();
    for writer in &writers {
        writer.check().unwrap();
        assert!(writer.pause_max < PAUSE_MAX, "{writer:?} waited too long");
    }
    cluster.fsck().unwrap();
}

#[test]
fn all_servers_at_once() {
    kill_all_servers(&Cluster::start().unwrap());
}

/// As between machines: the bytes of the load go by TCP.
#[test]
fn all_servers_at_once_on_a_network() {
    let shape = [&SMALLEST[..], &["--tcp"]].concat();
    kill_all_servers(&Cluster::start_with(&shape).unwrap());
}

fn kill_all_servers(cluster: &Cluster) {
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
    let writers = cluster.end(load).unwrap();
    cluster.remount().unwrap();
    for writer in &writers {
        writer.check().unwrap();
    }
    cluster.fsck().unwrap();
}

/// As for an update: each server is down for a moment, and never two of them.
#[test]
fn a_rolling_restart_is_not_missed() {
    let cluster = Cluster::start().unwrap();
    let before = cluster.processes().unwrap();
    let load = Load::start(&cluster.mount().join("load"), 4).unwrap();
    thread::sleep(Duration::from_secs(2));
    let restarted = cluster.json(&["restart", "--rolling"]).unwrap();
    assert_eq!(restarted["restarted"].as_array().unwrap().len(), 7, "{restarted}");
    let writers = cluster.end(load).unwrap();
    for process in cluster.processes().unwrap() {
        let same = before.iter().any(|known| known["pid"] == process["pid"]);
        assert_eq!(same, process["role"] == "fuse", "{process}");
    }
    cluster.remount().unwrap();
    for writer in &writers {
        writer.check().unwrap();
        println!("{} records, the longest pause {:?}", writer.records, writer.pause_max);
        assert!(writer.pause_max < PAUSE_MAX, "{writer:?} waited too long");
    }
    cluster.fsck().unwrap();

    // Whoever is missing might be needed.
    cluster.ctl(&["kill", "storaged/1"]).unwrap();
    thread::sleep(Duration::from_secs(6));
    let refused = format!("{:#}", cluster.ctl(&["restart", "--rolling"]).unwrap_err());
    assert!(refused.contains("no server is stopped"), "{refused}");
}

/// The mount dies under its programs: they get errors, what they had synced is kept, and the same place
/// can be mounted anew.
#[test]
fn a_killed_mount_loses_nothing_that_was_synced() {
    let cluster = Cluster::start().unwrap();
    let mount = cluster.mount_beside("victim").unwrap();
    let folder = mount.join("load");
    fs::create_dir(&folder).unwrap();
    let writers: Vec<_> = (0..4)
        .map(|number| {
            let folder = folder.clone();
            thread::spawn(move || write_until_failure(&folder, number, || false))
        })
        .collect();
    thread::sleep(Duration::from_secs(4));
    let victim = cluster.process_of_mount(&mount).unwrap();
    cluster.ctl(&["kill", &victim]).unwrap();
    let killed = Instant::now();
    while !writers.iter().all(|writer| writer.is_finished()) {
        assert!(killed.elapsed() < PAUSE_MAX, "programs hang on a mount that is dead");
        thread::sleep(Duration::from_millis(50));
    }
    let outcomes: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    for (writer, outcome) in &outcomes {
        let failure = outcome.as_ref().unwrap_err();
        assert!(!format!("{failure:#}").contains("is wrong"), "{writer:?}: {failure:#}");
    }
    cluster.ctl(&["mount", mount.to_str().unwrap()]).unwrap();
    for (writer, _) in &outcomes {
        writer.check().unwrap();
    }
    fs::write(folder.join("after"), b"it serves").unwrap();
    // Another mount has them too: nothing was in the dead one's memory alone.
    let beside = cluster.mount().join("load");
    assert_eq!(fs::read(beside.join("after")).unwrap(), b"it serves");
    cluster.wait_healthy(Duration::from_secs(30)).unwrap();
    cluster.fsck().unwrap();
}
