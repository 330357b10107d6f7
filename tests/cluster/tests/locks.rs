//! Locks between mounts while servers die.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs::{self, File},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::Cluster;

/// Until a dead mount's session is over (30 s), with room for a busy machine.
const SESSION_MAX: Duration = Duration::from_secs(60);
/// From the death of a metad to the next answer.
const PAUSE_MAX: Duration = Duration::from_secs(20);

fn is_free(path: &Path) -> bool {
    File::open(path).unwrap().try_lock().is_ok()
}

#[test]
fn locks_outlive_leaders_and_end_with_their_mount() {
    let cluster = Cluster::start().unwrap();
    let (here, there) =
        (cluster.mount().join("f"), cluster.mount_beside("other").unwrap().join("f"));
    fs::write(&here, b"").unwrap();
    let held = File::open(&there).unwrap();
    held.lock().unwrap();
    assert!(!is_free(&here));
    let waiter = {
        let file = File::open(&here).unwrap();
        thread::spawn(move || {
            file.lock().unwrap();
            (file, Instant::now())
        })
    };
    thread::sleep(Duration::from_millis(500));
    // The leader dies: who holds it holds it, who waits is in line.
    cluster.ctl(&["kill", &cluster.leader(1).unwrap()]).unwrap();
    assert!(!is_free(&here));
    assert!(!waiter.is_finished());
    let freed = Instant::now();
    held.unlock().unwrap();
    let (file, came) = waiter.join().unwrap();
    assert!(came > freed && came - freed < PAUSE_MAX, "{:?}", came - freed);
    assert!(!is_free(&there));
    drop(file);
    cluster.up().unwrap();

    // A mount dies with all that it held, and not before its session is over.
    let other = there.parent().unwrap();
    held.lock().unwrap();
    cluster.ctl(&["kill", &cluster.process_of_mount(other).unwrap()]).unwrap();
    assert!(!is_free(&here), "its session lives yet");
    let killed = Instant::now();
    let file = File::open(&here).unwrap();
    file.lock().unwrap();
    assert!(killed.elapsed() < SESSION_MAX, "{:?}", killed.elapsed());
    assert!(killed.elapsed() > Duration::from_secs(20), "too early: {:?}", killed.elapsed());
    cluster.wait_healthy(Duration::from_secs(90)).unwrap();
}
