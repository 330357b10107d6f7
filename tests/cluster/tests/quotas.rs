//! Quotas on a real cluster with two mounts.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::{Cluster, is_root};
use rustix::{fs::statvfs, process::Signal};

/// What each mount may have told its programs when the limit is reached by another (docs/SEMANTICS.md).
const FORESEEN: u64 = 256;
const MIB: u64 = 1 << 20;

#[test]
fn limits_hold_on_two_mounts() {
    let cluster = Cluster::start().unwrap();
    let mounts = [cluster.mount(), cluster.mount_beside("other").unwrap()];
    for (what, check) in [
        ("inodes", inodes as fn(&Cluster, &Path, &Path)),
        ("bytes", bytes),
        ("small files", small_files),
        ("borders", borders),
        ("users", users),
        ("a leader dies while folders are counted", leader_dies),
    ] {
        eprintln!("-- {what}");
        let [here, there] = mounts.each_ref().map(|mount| mount.join(what));
        fs::create_dir(&here).unwrap();
        check(&cluster, &here, &there);
    }
}

fn name_of(path: &Path) -> String {
    format!("/{}", path.file_name().unwrap().to_str().unwrap())
}

fn set(cluster: &Cluster, path: &Path, limits: &[&str]) {
    cluster.ctl(&[&["quota", "set", &name_of(path)], limits].concat()).unwrap();
}

/// Inodes and bytes, as the nearest quota counts them, once the namespace has all.
fn used(cluster: &Cluster, path: &Path) -> (u64, u64) {
    let quotas = cluster.json(&["quota", "get", &name_of(path)]).unwrap();
    (quotas[0]["inodes"].as_u64().unwrap(), quotas[0]["bytes"].as_u64().unwrap())
}

/// The same by looking at all.
fn recount(path: &Path) -> (u64, u64) {
    let attr = fs::symlink_metadata(path).unwrap();
    if !attr.is_dir() {
        return (1, if attr.is_file() { attr.size() } else { 0 });
    }
    let inside = fs::read_dir(path).unwrap().map(|entry| recount(&entry.unwrap().path()));
    inside.fold((1, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn assert_counted(cluster: &Cluster, path: &Path) {
    let begun = Instant::now();
    let there = recount(path);
    // What was removed while it was written counts until it is closed.
    while used(cluster, path) != there {
        let now = used(cluster, path);
        assert!(begun.elapsed() < Duration::from_secs(20), "{now:?} counted, {there:?} there");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Makes files until it is refused.
fn fill(folder: &Path) -> u64 {
    for number in 0.. {
        match File::create_new(folder.join(format!("file-{number}"))) {
            Ok(_) => {}
            Err(failure) => {
                assert_eq!(failure.kind(), ErrorKind::QuotaExceeded, "{failure}");
                return number;
            }
        }
    }
    unreachable!("no quota is endless")
}

fn inodes(cluster: &Cluster, here: &Path, there: &Path) {
    for folder in ["a", "b", "c"] {
        fs::create_dir(here.join(folder)).unwrap();
    }
    for number in 0..300 {
        fs::write(here.join(format!("c/old-{number}")), "x").unwrap();
    }
    set(cluster, here, &["--inodes", "3000"]);
    assert_counted(cluster, here);
    assert_eq!(used(cluster, here), (304, 300));
    let made = thread::scope(|scope| {
        let (a, b) = (here.join("a"), there.join("b"));
        let two = [scope.spawn(move || fill(&a)), scope.spawn(move || fill(&b))];
        two.map(|one| one.join().unwrap())
    });
    let sum = made[0] + made[1] + 304;
    assert_eq!(recount(here).0, sum, "all that was told is there");
    assert!((3_000..=3_000 + FORESEEN).contains(&sum), "{sum} of 3000");
    assert_counted(cluster, here);
    for mount in [here, there] {
        let refused = fs::create_dir(mount.join("d")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::QuotaExceeded);
        assert_eq!(statvfs(mount).unwrap().f_ffree, 0);
    }
    fs::remove_dir_all(here.join("a")).unwrap();
    fs::create_dir(there.join("d")).unwrap();
    cluster.ctl(&["quota", "set", &name_of(here), "--inodes", "none"]).unwrap();
    assert_eq!(statvfs(here).unwrap().f_blocks, statvfs(here.parent().unwrap()).unwrap().f_blocks);
}

/// Writes until it is refused.
fn write_up(path: &Path) -> u64 {
    let mut file = File::create(path).unwrap();
    let piece = vec![3; 300_000];
    let mut written = 0;
    loop {
        match file.write(&piece) {
            Ok(count) => written += count as u64,
            Err(failure) => {
                assert_eq!(failure.kind(), ErrorKind::QuotaExceeded, "{failure}");
                file.sync_all().unwrap();
                return written;
            }
        }
    }
}

fn bytes(cluster: &Cluster, here: &Path, there: &Path) {
    set(cluster, here, &["--bytes", "40M"]);
    assert_eq!(write_up(&here.join("alone")), 40 * MIB, "to the last byte");
    assert_eq!(used(cluster, here).1, 40 * MIB);
    let space = statvfs(there).unwrap();
    assert_eq!((space.f_blocks * space.f_frsize, space.f_bavail), (40 * MIB, 0));
    let opened = File::options().write(true).open(there.join("alone")).unwrap();
    assert_eq!(opened.set_len(41 * MIB).unwrap_err().kind(), ErrorKind::QuotaExceeded);
    drop(opened);
    fs::remove_file(there.join("alone")).unwrap();
    assert_counted(cluster, here);
    let both = thread::scope(|scope| {
        let writers = [here.join("one"), there.join("two")];
        writers.map(|path| scope.spawn(move || write_up(&path))).map(|one| one.join().unwrap())
    });
    let sum = both[0] + both[1];
    assert_eq!(recount(here).1, sum);
    // Each may have a window of an eighth of what was left when it asked.
    assert!((40 * MIB..=50 * MIB).contains(&sum), "{sum} of 40 MiB");
    assert_counted(cluster, here);
}

/// Their bytes lie in the namespace, and they are told behind.
fn small_files(cluster: &Cluster, here: &Path, there: &Path) {
    set(cluster, here, &["--bytes", "10M"]);
    let fill = |folder: &Path, name: &str| {
        for number in 0.. {
            let mut file = File::create(folder.join(format!("{name}-{number}"))).unwrap();
            if let Err(failure) = file.write_all(&[1; 4_000]) {
                let is_refused =
                    matches!(failure.kind(), ErrorKind::QuotaExceeded | ErrorKind::WriteZero);
                assert!(is_refused, "{failure}");
                return;
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| fill(here, "here"));
        scope.spawn(|| fill(there, "there"));
    });
    let sum = recount(there).1;
    assert!((10 * MIB..=10 * MIB + 2 * FORESEEN * 8_192).contains(&sum), "{sum} of 10 MiB");
    assert_counted(cluster, here);
}

fn borders(cluster: &Cluster, here: &Path, there: &Path) {
    let root = here.parent().unwrap();
    set(cluster, here, &["--inodes", "100"]);
    fs::create_dir(root.join("tree")).unwrap();
    fs::write(root.join("tree/file"), "bytes").unwrap();
    let refused = fs::rename(root.join("tree"), here.join("tree")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::CrossesDevices);
    // Programs know what to do.
    let moved = Command::new("mv").arg(root.join("tree")).arg(here).status().unwrap();
    assert!(moved.success());
    assert_eq!(fs::read(there.join("tree/file")).unwrap(), b"bytes");
    assert_eq!(used(cluster, here), (3, 5));
    fs::rename(here.join("tree/file"), root.join("file")).unwrap();
    assert_eq!(used(cluster, here), (2, 0));
    fs::remove_file(root.join("file")).unwrap();
    cluster.ctl(&["quota", "remove", &name_of(here)]).unwrap();
    let begun = Instant::now();
    while cluster.ctl(&["quota", "list"]).unwrap().contains("borders") {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is not gone");
        thread::sleep(Duration::from_millis(50));
    }
    fs::rename(here.join("tree"), root.join("tree")).unwrap();
    fs::remove_dir(root.join("tree")).unwrap();
}

fn users(cluster: &Cluster, here: &Path, _: &Path) {
    if !is_root() {
        return;
    }
    const UID: u32 = 12_345;
    std::os::unix::fs::chown(here, Some(UID), Some(UID)).unwrap();
    cluster.ctl(&["user", "add", "ute", "--uid", "12345"]).unwrap();
    cluster.ctl(&["quota", "set", "--user", "ute", "--inodes", "600"]).unwrap();
    let script = "i=0; while true > f$i; do i=$((i+1)); done 2>/dev/null; echo $i";
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(here).uid(UID).gid(UID);
        let output = command.output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(shell(script), "599", "the folder is one");
    let quotas = cluster.json(&["quota", "get", "--user", "12345"]).unwrap();
    assert_eq!((&quotas[0]["inodes"], &quotas[0]["uid"]), (&600.into(), &12_345.into()));
    assert!(cluster.ctl(&["quota", "list"]).unwrap().contains("full"));
    fs::write(here.join("of root"), "x").unwrap();
    let given = std::os::unix::fs::chown(here.join("of root"), Some(UID), None);
    assert_eq!(given.unwrap_err().kind(), ErrorKind::QuotaExceeded);
    cluster.ctl(&["quota", "remove", "--user", "ute"]).unwrap();
    assert_eq!(shell("true > more && echo made"), "made");
}

fn leader_dies(cluster: &Cluster, here: &Path, there: &Path) {
    for folder in 0..20 {
        let folder = here.join(format!("d{folder}"));
        fs::create_dir(&folder).unwrap();
        for number in 0..100 {
            fs::write(folder.join(format!("f{number}")), vec![0; number]).unwrap();
        }
    }
    let name = name_of(here);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..600 {
                let folder = there.join(format!("d{}", number % 20));
                fs::write(folder.join(format!("new-{number}")), "new").unwrap();
                fs::rename(folder.join(format!("f{}", number % 100)), folder.join("moved")).ok();
                fs::remove_file(folder.join("moved")).ok();
            }
        });
        cluster.ctl(&["quota", "set", &name, "--inodes", "100K", "--no-wait"]).unwrap();
        let leader = cluster.leader(1).unwrap();
        cluster.signal(&leader, Signal::KILL).unwrap();
        cluster.up().unwrap();
    });
    cluster.wait_healthy(Duration::from_secs(60)).unwrap();
    cluster.ctl(&["quota", "set", &name, "--inodes", "200K"]).unwrap();
    assert_counted(cluster, here);
    let quotas = cluster.json(&["quota", "get", &name]).unwrap();
    assert_eq!(quotas[0]["counting"], false);
}
