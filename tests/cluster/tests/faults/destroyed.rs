//! Databases that are destroyed where they were synced: whoever owns one refuses to serve from it, says
//! so, and gets its data back from the others.

use std::{fs, path::Path, thread, time::Duration};

use ff2_cluster_tests::{Cluster, load::Load};

const WHOLE: Duration = Duration::from_secs(120);

/// Overwrites all tables and logs of a RocksDB.
fn destroy(database: &Path) {
    let mut destroyed = 0;
    for entry in fs::read_dir(database).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".sst") || name.ends_with(".log") || name.starts_with("MANIFEST") {
            let length = fs::metadata(&path).unwrap().len() as usize;
            fs::write(&path, vec![0x5a; length.max(64)]).unwrap();
            destroyed += 1;
        }
    }
    assert!(destroyed > 0, "{} is no database", database.display());
}

fn last_lines(cluster: &Cluster, process: &str) -> String {
    let log = fs::read_to_string(cluster.dir().join(process).join("log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

#[test]
fn a_destroyed_index_is_refused_and_its_targets_are_made_anew() {
    let cluster = Cluster::start().unwrap();
    let load = Load::start(&cluster.mount().join("load"), 4).unwrap();
    thread::sleep(Duration::from_secs(2));
    let disk = cluster.dir().join("storaged-3/disk-0");
    cluster.ctl(&["kill", "storaged/3"]).unwrap();
    destroy(&disk.join("index"));
    let refused = cluster.up().unwrap_err();
    let said = format!("{refused:#}\n{}", last_lines(&cluster, "storaged-3"));
    assert!(said.contains("disk-0"), "it does not say which disk: {said}");

    let lost = cluster.targets_on(&disk).unwrap();
    assert!(!lost.is_empty(), "no target lies on {}", disk.display());
    cluster.renew_disk(3).unwrap();
    cluster.up().unwrap();
    for target in &lost {
        cluster.ctl(&["target", "replace", &target.to_string(), "--disk", "0"]).unwrap();
    }
    cluster.wait_healthy(WHOLE).unwrap();
    let writers = cluster.end(load).unwrap();
    // Of some chains only the new copies are left.
    cluster.ctl(&["kill", "storaged/0"]).unwrap();
    cluster.ctl(&["kill", "storaged/1"]).unwrap();
    cluster.remount().unwrap();
    for writer in &writers {
        writer.check().unwrap();
    }
}

#[test]
fn a_destroyed_metad_is_refused_and_comes_back_from_the_others() {
    let cluster = Cluster::start().unwrap();
    let load = Load::start(&cluster.mount().join("load"), 4).unwrap();
    thread::sleep(Duration::from_secs(2));
    let victim = cluster.leader(1).unwrap();
    let folder = victim.replace('/', "-");
    let data = cluster.dir().join(&folder);
    cluster.ctl(&["kill", &victim]).unwrap();
    let groups = ["group-0", "group-1"].map(|group| data.join("data").join(group));
    groups.iter().for_each(|group| destroy(group));
    let refused = cluster.up().unwrap_err();
    let said = format!("{refused:#}\n{}", last_lines(&cluster, &folder));
    assert!(said.contains("group-"), "it does not say what is destroyed: {said}");

    fs::remove_dir_all(data.join("data")).unwrap();
    cluster.up().unwrap();
    cluster.wait_healthy(WHOLE).unwrap();
    let writers = cluster.end(load).unwrap();
    // One of the others is dead: what it has is needed for every name.
    let other = cluster.leader(1).unwrap();
    assert_ne!(other, victim);
    cluster.ctl(&["kill", &other]).unwrap();
    cluster.remount().unwrap();
    for writer in &writers {
        writer.check().unwrap();
    }
}
