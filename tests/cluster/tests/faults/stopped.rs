//! Servers, and mounts, that stop for longer than their leases and then go on as if nothing had been: they must not
//! serve what others have changed since.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::{Cluster, load::Load};
use rustix::process::{Pid, Signal, kill_process};

/// Longer than leases, elections and the judgement of deaths take together.
const STOPPED: Duration = Duration::from_secs(8);
const PAUSE_MAX: Duration = Duration::from_secs(20);

#[test]
fn servers_that_stop_and_go_on_do_no_harm() {
    let cluster = Cluster::start().unwrap();
    let load = Load::start(&cluster.mount().join("load"), 4).unwrap();
    thread::sleep(Duration::from_secs(2));
    let mut victims = vec!["storaged/2".to_owned()];
    victims.push(cluster.leader(1).unwrap());
    victims.push(cluster.leader(0).unwrap());
    for victim in victims {
        cluster.signal(&victim, Signal::STOP).unwrap();
        thread::sleep(STOPPED);
        cluster.signal(&victim, Signal::CONT).unwrap();
        cluster.wait_healthy(Duration::from_secs(90)).unwrap();
    }
    cluster.ensure_kept(load, PAUSE_MAX).unwrap();
}

/// So that a test need not wait for half a minute.
const SESSION_MS: u64 = 6_000;
/// For others that meet what a silent mount has cached: its cache lease, and some more on a busy machine.
const OTHERS_WAIT: Duration = Duration::from_secs(20);
const BACK: Duration = Duration::from_secs(60);
const RECORD: usize = 1_000;

fn shorten_sessions(cluster: &Cluster) {
    for index in 0..3 {
        let config = cluster.dir().join(format!("metad-{index}/metad.toml"));
        let text = fs::read_to_string(&config).unwrap();
        assert!(text.contains("session_ms = 30000"), "{text}");
        let text = text.replace("session_ms = 30000", &format!("session_ms = {SESSION_MS}"));
        fs::write(config, text).unwrap();
        cluster.ctl(&["kill", &format!("metad/{index}")]).unwrap();
    }
    cluster.up().unwrap();
    cluster.wait_healthy(BACK).unwrap();
}

fn record(number: u64) -> Vec<u8> {
    (0..RECORD).map(|at| (number as usize * 31 + at * 7) as u8).collect()
}

/// Records, each synced before the next, until it is told to end or one fails.
fn append(path: &Path, acknowledged: &AtomicU64, is_over: &AtomicBool) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    while !is_over.load(SeqCst) {
        file.write_all(&record(acknowledged.load(SeqCst)))?;
        file.sync_all()?;
        acknowledged.fetch_add(1, SeqCst);
    }
    Ok(())
}

fn assert_holds(path: &Path, acknowledged: u64) {
    let bytes = fs::read(path).unwrap();
    let records = bytes.chunks_exact(RECORD);
    assert!(records.len() as u64 >= acknowledged, "{} of {acknowledged}", records.len());
    for (number, found) in (0..).zip(records) {
        assert!(found == record(number), "record {number} is another");
    }
}

fn until(mut is: impl FnMut() -> bool, at_most: Duration, what: &str) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < at_most, "not within {at_most:?}: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Writers end when this goes, by a panic too; and the mount goes on, so that they can.
struct EndOf<'a>(&'a AtomicBool, Pid);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
        let _ = kill_process(self.1, Signal::CONT);
    }
}

/// While the mount is stopped nothing here may start a program: the kernel closes files at the start of one, asks the
/// mount about each that lies in it, and until it answers keeps even `ps` from looking at the process.

#[test]
fn a_mount_that_stops_and_goes_on_loses_nothing_silently() {
    let cluster = Cluster::start().unwrap();
    shorten_sessions(&cluster);
    let [here, there] = [cluster.mount(), cluster.mount_beside("other").unwrap()];
    fs::create_dir(here.join("shared")).unwrap();
    let body: Vec<u8> = (0..2_000_000_u32).map(|at| (at * 3 + at / 4096) as u8).collect();
    let mut kept = File::create(here.join("shared/kept")).unwrap();
    kept.write_all(&body).unwrap();
    kept.sync_all().unwrap();
    // Written, and not synced.
    let pending = File::create(here.join("shared/pending")).unwrap();
    pending.write_all_at(&record(7), 0).unwrap();
    let (acknowledged, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let log = here.join("log");
    let locked = File::create(here.join("locked")).unwrap();
    locked.lock().unwrap();
    let wanted = File::open(there.join("locked")).unwrap();
    assert!(wanted.try_lock().is_err(), "the lock is held by the other mount");
    let mount = cluster.pid(&cluster.process_of_mount(&here).unwrap()).unwrap();
    let outcome = thread::scope(|scope| {
        let writer = scope.spawn(|| append(&log, &acknowledged, &is_over));
        until(|| acknowledged.load(SeqCst) > 20, BACK, "records");
        kill_process(mount, Signal::STOP).unwrap();
        let guard = EndOf(&is_over, mount);
        let stopped = Instant::now();
        // The last one that was under way may still be acknowledged by the kernel.
        thread::sleep(Duration::from_millis(200));
        let before = acknowledged.load(SeqCst);
        // Others go on where it has something cached, once its lease is over.
        fs::write(there.join("shared/new"), "by others").unwrap();
        fs::rename(there.join("shared/kept"), there.join("shared/moved")).unwrap();
        assert!(fs::read(there.join("shared/moved")).unwrap() == body);
        assert!(stopped.elapsed() < OTHERS_WAIT, "others waited for {:?}", stopped.elapsed());
        until(
            || wanted.try_lock().is_ok(),
            BACK,
            "the session of who stopped is over, and its lock",
        );
        assert_holds(&there.join("log"), before);

        kill_process(mount, Signal::CONT).unwrap();
        let goes_on = || acknowledged.load(SeqCst) > before || writer.is_finished();
        until(goes_on, BACK, "its programs go on, or are told");
        drop(guard);
        writer.join().unwrap()
    });
    println!("{} records, then {outcome:?}", acknowledged.load(SeqCst));
    assert_holds(&there.join("log"), acknowledged.load(SeqCst));
    // What was not synced is there, or its loss is told.
    match pending.sync_all() {
        Ok(()) => assert!(fs::read(there.join("shared/pending")).unwrap() == record(7)),
        Err(told) => println!("what was not synced: {told}"),
    }
    // It sees what others did, and serves.
    until(|| fs::write(here.join("after"), "x").is_ok(), BACK, "it comes back");
    assert_eq!(fs::read(here.join("shared/new")).unwrap(), b"by others");
    assert!(fs::read(here.join("shared/moved")).unwrap() == body);
    assert_eq!(fs::read(there.join("after")).unwrap(), b"x");
    drop((kept, pending));
    cluster.fsck().unwrap();
}
