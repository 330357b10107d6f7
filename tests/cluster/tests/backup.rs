//! All metads are lost, and the metadata comes from a backup that was made earlier, under load.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::{Cluster, load::Load};

const WHOLE: Duration = Duration::from_secs(120);
const LARGE: usize = 12 << 20;

fn body(seed: usize) -> Vec<u8> {
    (0..LARGE).map(|at| (at / 4096 * 31 + at * 7 + seed) as u8).collect()
}

fn write(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

/// Over what is there.
fn overwrite(path: &Path, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync_all().unwrap();
}

fn refused(cluster: &Cluster, args: &[&str], because: &str) {
    let output = cluster.ctl_output(args).unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains(because), "{args:?}: {told}");
}

/// Kills all metads and removes all that they had.
fn lose_metads(cluster: &Cluster) {
    for index in 0..3 {
        cluster.ctl(&["kill", &format!("metad/{index}")]).unwrap();
    }
    for index in 0..3 {
        fs::remove_dir_all(cluster.dir().join(format!("metad-{index}/data"))).unwrap();
    }
}

#[test]
fn metadata_comes_from_a_backup_and_bytes_are_the_newest() {
    let cluster = Cluster::start().unwrap();
    let root = cluster.mount();
    for seed in 0..4 {
        write(&root.join(format!("large-{seed}")), &body(seed));
    }
    fs::create_dir(root.join("small")).unwrap();
    for index in 0..100 {
        fs::write(root.join(format!("small/{index}")), format!("content {index}")).unwrap();
    }
    cluster.ctl(&["snapshot", "create", "before"]).unwrap();
    let backup = cluster.dir().join("backup");
    let name = backup.to_str().unwrap();
    let load = Load::start(&root.join("load"), 4).unwrap();
    thread::sleep(Duration::from_secs(1));
    cluster.ctl(&["backup", "create", name]).unwrap();
    thread::sleep(Duration::from_secs(1));
    cluster.end(load).unwrap();
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    let verified = cluster.json(&["backup", "verify", name]).unwrap();
    assert_eq!(verified["restorable"], true, "{verified}");
    assert!(cluster.ctl(&["backup", "show", name]).unwrap().contains("it is whole"));
    refused(&cluster, &["backup", "create", name], "replaces no file");
    refused(&cluster, &["restore", name], "metad/0 runs");

    // After the backup: bytes change, chains too, and one server misses some of it.
    overwrite(&root.join("large-1"), &body(11));
    cluster.ctl(&["kill", "storaged/2"]).unwrap();
    overwrite(&root.join("large-2"), &body(12));
    cluster.up().unwrap();
    cluster.wait_healthy(WHOLE).unwrap();
    cluster.ctl(&["kill", "storaged/1"]).unwrap();
    overwrite(&root.join("large-3"), &body(13));
    write(&root.join("later"), &body(5));
    cluster.ctl(&["snapshot", "create", "after"]).unwrap();
    // A file that grew.
    let grown = [body(0), body(6)].concat();
    overwrite(&root.join("large-0"), &grown);
    cluster.ctl(&["umount", root.to_str().unwrap()]).unwrap();
    lose_metads(&cluster);

    let damaged = cluster.dir().join("damaged");
    let mut bytes = fs::read(&backup).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    refused(&cluster, &["restore", damaged.to_str().unwrap()], "checksum");
    fs::write(&damaged, &bytes[..middle]).unwrap();
    refused(&cluster, &["backup", "verify", damaged.to_str().unwrap()], "cut off");

    refuse_strangers(&cluster, name);
    // The server that missed the last writes comes up again, too.
    cluster.ctl(&["restore", name]).unwrap();
    cluster.up().unwrap();
    cluster.wait_healthy(WHOLE).unwrap();
    wait_length(&root.join("large-0"), 2 * LARGE);
    check(&root);
    assert!(!root.join("later").exists(), "it was made after the backup");
    // The backup's snapshot shows what changed since, and the one that was made since is gone.
    for seed in 0..4 {
        let kept = root.join(format!(".snapshots/before/large-{seed}"));
        assert!(fs::read(kept).unwrap() == body(seed), "{seed}");
    }
    assert!(!root.join(".snapshots/after").exists());
    cluster.ctl(&["fsck", "--repair"]).unwrap();
    cluster.fsck().unwrap();
    write(&root.join("new"), &body(7));
    fs::write(root.join("small/1"), "changed").unwrap();

    // Any of the servers has everything.
    cluster.wait_healthy(WHOLE).unwrap();
    for (dead, other) in [("storaged/0", "storaged/3"), ("storaged/1", "storaged/2")] {
        cluster.ctl(&["kill", dead]).unwrap();
        cluster.ctl(&["kill", other]).unwrap();
        cluster.remount().unwrap();
        check_large(&root);
        assert!(fs::read(root.join("new")).unwrap() == body(7));
        cluster.up().unwrap();
        cluster.wait_healthy(WHOLE).unwrap();
    }
    assert_eq!(fs::read_to_string(root.join("small/1")).unwrap(), "changed");
}

/// A backup is of one cluster, and of a time before its restore.
fn refuse_strangers(cluster: &Cluster, backup: &str) {
    let text = fs::read_to_string(cluster.dir().join("metad-0/metad.toml")).unwrap();
    let config = cluster.dir().join("stranger.toml");
    let data = cluster.dir().join("stranger");
    let line = |line: &str| match line.split('=').next().map(str::trim) {
        Some("data_dir") => format!("data_dir = {data:?}\n"),
        _ => format!("{line}\n"),
    };
    let own: String = text.lines().map(line).collect();
    let id = own.lines().find(|line| line.starts_with("cluster_id")).unwrap();
    let other = own.replacen(id, "cluster_id = \"another\"", 1);
    for (text, at, because) in [
        (&other, "4102444800", "is of cluster"),
        (&own, "5", "before the backup"),
        (&own, "4102444800", "in the future"),
    ] {
        fs::write(&config, text).unwrap();
        let mut format = Command::new(cluster.program("ff2-metad"));
        format.arg("--config").arg(&config).args(["format", "--restore", backup]);
        let output = format.args(["--restored-at", at]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(because), "{because}: {told}");
        let left: Vec<_> = fs::read_dir(&data).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
    fs::remove_dir_all(&data).unwrap();
}

/// How long files are is asked from the chains after a restore, one after the other.
fn wait_length(path: &Path, length: usize) {
    let begun = Instant::now();
    while fs::metadata(path).unwrap().len() != length as u64 {
        assert!(begun.elapsed() < WHOLE, "{} has not its length", path.display());
        thread::sleep(Duration::from_millis(200));
    }
}

fn check(root: &Path) {
    for index in 0..100 {
        let found = fs::read_to_string(root.join(format!("small/{index}"))).unwrap();
        assert_eq!(found, format!("content {index}"));
    }
    check_large(root);
}

fn check_large(root: &Path) {
    let grown = [body(0), body(6)].concat();
    for (name, seed) in [("large-1", 11), ("large-2", 12), ("large-3", 13)] {
        assert!(fs::read(root.join(name)).unwrap() == body(seed), "{name} changed");
    }
    assert!(fs::read(root.join("large-0")).unwrap() == grown, "large-0 changed");
}

/// After the backup a server joins, and another is emptied: the backup knows none of the targets that were made.
#[test]
fn what_moved_after_the_backup_is_found_where_it_is() {
    let cluster = Cluster::start().unwrap();
    let root = cluster.mount();
    write(&root.join("large-0"), &body(1));
    let backup = cluster.dir().join("backup");
    let name = backup.to_str().unwrap();
    cluster.ctl(&["backup", "create", name]).unwrap();

    cluster.ctl(&["up", "--storaged", "5"]).unwrap();
    let emptied = cluster.node_of("storaged-0").unwrap().to_string();
    cluster.ctl(&["node", "drain", &emptied, "--wait"]).unwrap();
    cluster.wait_healthy(WHOLE).unwrap();
    let moved = cluster.targets_on(&cluster.dir().join("storaged-4/disk-0")).unwrap();
    assert!(!moved.is_empty(), "nothing moved to the new server");
    overwrite(&root.join("large-0"), &body(2));
    cluster.ctl(&["umount", root.to_str().unwrap()]).unwrap();
    // It comes up after the restore, under a number that the backup does not know.
    cluster.ctl(&["kill", "storaged/4"]).unwrap();
    lose_metads(&cluster);
    cluster.ctl(&["restore", name]).unwrap();
    cluster.ctl(&["up", "--mount", root.to_str().unwrap()]).unwrap();
    cluster.wait_healthy(WHOLE).unwrap();
    assert!(fs::read(root.join("large-0")).unwrap() == body(2));
    let here = cluster.targets_on(&cluster.dir().join("storaged-4/disk-0")).unwrap();
    // Those that the backup knows count too, so that some chains had one member too many for a while.
    assert!(moved.iter().any(|target| here.contains(target)), "{moved:?}, now {here:?}");
    cluster.ctl(&["fsck", "--repair"]).unwrap();
    cluster.fsck().unwrap();
}
