//! The trash on a real cluster with a mount.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::ErrorKind,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::{Cluster, is_root};
use rustix::{fs::statvfs, process::Signal};
use serde_json::Value;

const MIB: usize = 1 << 20;

#[test]
fn removed_files_come_back_until_their_time_is_over() {
    let cluster = Cluster::start().unwrap();
    let mount = cluster.mount();
    assert_eq!(show(&cluster)["keep_s"], 0, "it is off by default");
    fs::write(mount.join("before"), "x").unwrap();
    fs::remove_file(mount.join("before")).unwrap();
    assert_eq!(show(&cluster)["entries"], 0);
    assert!(!mount.join(".trash").exists());
    cluster.ctl(&["trash", "set", "--keep", "7d"]).unwrap();
    for (what, check) in [
        ("files come back", come_back as fn(&Cluster, &Path)),
        ("users", users),
        ("a leader dies", leader_dies),
        ("space", space),
        ("expiry", expiry),
    ] {
        eprintln!("-- {what}");
        let folder = mount.join(what);
        fs::create_dir(&folder).unwrap();
        check(&cluster, &folder);
        cluster.ctl(&["trash", "empty"]).unwrap();
    }
    cluster.fsck().unwrap();
}

fn show(cluster: &Cluster) -> Value {
    cluster.json(&["trash", "show"]).unwrap()
}

fn list(cluster: &Cluster, folder: &Path) -> Vec<Value> {
    // The namespace hears of removals a little later than the program that asked for them.
    fs::File::open(folder).unwrap().sync_all().unwrap();
    let folder = format!("/{}", folder.file_name().unwrap().to_str().unwrap());
    cluster.json(&["trash", "list", &folder]).unwrap().as_array().unwrap().clone()
}

fn content(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at * 31) ^ (at >> 9) ^ (seed * 101)) as u8).collect()
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

fn come_back(cluster: &Cluster, folder: &Path) {
    // Inline ones and large ones, in a tree that goes as a whole.
    let tree = folder.join("tree");
    let mut files = Vec::new();
    for number in 0..40 {
        let place = tree.join(format!("{}/{}", number % 3, number % 2));
        fs::create_dir_all(&place).unwrap();
        let path = place.join(format!("f{number}"));
        let bytes = content(number, if number % 4 == 0 { 3 * MIB + number } else { 100 * number });
        fs::write(&path, &bytes).unwrap();
        files.push((path, digest(&bytes)));
    }
    fs::set_permissions(tree.join("1"), std::os::unix::fs::PermissionsExt::from_mode(0o2750))
        .unwrap();
    fs::remove_dir_all(&tree).unwrap();
    let removed = list(cluster, folder);
    assert_eq!(removed.len(), files.len());
    let first =
        removed.iter().find(|entry| entry["path"].as_str().unwrap().ends_with("/f7")).unwrap();
    assert_eq!(first["path"], "/files come back/tree/1/1/f7");
    cluster.ctl(&["trash", "restore", &first["entry"].to_string()]).unwrap();
    assert_eq!(fs::read(tree.join("1/1/f7")).unwrap(), content(7, 700));
    assert_eq!(fs::metadata(tree.join("1")).unwrap().mode() & 0o7777, 0o2750, "as it was");
    let all = cluster.json(&["trash", "restore", "--under", "/files come back/tree"]).unwrap();
    assert_eq!((&all["restored"], &all["left"]), (&39.into(), &Value::Array(vec![])));
    for (path, expected) in &files {
        assert_eq!(digest(&fs::read(path).unwrap()), *expected, "{}", path.display());
    }
    // What another file is renamed over.
    let (old, new) = (folder.join("model"), folder.join("model.new"));
    fs::write(&old, content(1, 2 * MIB)).unwrap();
    fs::write(&new, content(2, 2 * MIB)).unwrap();
    fs::rename(&new, &old).unwrap();
    let replaced = list(cluster, folder).pop().unwrap();
    assert_eq!(replaced["path"], "/files come back/model");
    let entry = replaced["entry"].to_string();
    let refused = cluster.ctl(&["trash", "restore", &entry]).unwrap_err().to_string();
    assert!(refused.contains("--to PATH"), "{refused}");
    cluster.ctl(&["trash", "restore", &entry, "--to", "/files come back/model.old"]).unwrap();
    assert_eq!(digest(&fs::read(folder.join("model.old")).unwrap()), digest(&content(1, 2 * MIB)));
    assert_eq!(digest(&fs::read(&old).unwrap()), digest(&content(2, 2 * MIB)));
    assert!(list(cluster, folder).is_empty());
}

/// Runs a command of a shell as a user, and returns what it prints.
fn shell(uid: u32, at: &Path, script: &str) -> Result<String, String> {
    let mut shell = Command::new("sh");
    let output = shell.arg("-ec").arg(script).current_dir(at).uid(uid).gid(uid).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn users(cluster: &Cluster, folder: &Path) {
    if !is_root() {
        return;
    }
    fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let trash = cluster.mount().join(".trash");
    shell(1001, folder, "echo mine > a; echo too > b; rm a b").unwrap();
    shell(1002, folder, "echo other > c; rm c").unwrap();
    fs::write(folder.join("d"), "root's").unwrap();
    fs::remove_file(folder.join("d")).unwrap();
    let root = cluster.mount();
    let shown: Vec<_> = fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!shown.contains(&".trash".into()), "it is hidden");
    assert_eq!(shell(0, &trash, "ls").unwrap(), "0\n1001\n1002\n");
    assert_eq!(shell(1001, &trash, "ls").unwrap(), "1001\n");
    let mine = trash.join("1001");
    let names = shell(1001, &mine, "ls").unwrap();
    let names: Vec<&str> = names.lines().collect();
    assert!(names.len() == 2 && names[0].ends_with("-a") && names[1].ends_with("-b"), "{names:?}");
    assert_eq!(shell(1001, &mine, &format!("cat {}", names[0])).unwrap(), "mine\n");
    for script in
        ["ls 1001", &format!("cat 1001/{}", names[0]), &format!("mv 1001/{0} /tmp", names[0])]
    {
        let refused = shell(1002, &trash, script).unwrap_err();
        assert!(refused.contains("ermission denied"), "{script}: {refused}");
    }
    for script in ["touch x", "mkdir x", "chmod 777 .", "cp /etc/hostname x"] {
        let refused = shell(1001, &mine, script).unwrap_err();
        assert!(refused.contains("ead-only"), "{script}: {refused}");
    }
    let home = folder.display();
    shell(1001, &mine, &format!("mv {} '{home}/back'", names[0])).unwrap();
    assert_eq!(fs::read_to_string(folder.join("back")).unwrap(), "mine\n");
    assert_eq!(fs::metadata(folder.join("back")).unwrap().nlink(), 1);
    shell(1001, &mine, &format!("rm {}", names[1])).unwrap();
    assert_eq!(shell(1001, &mine, "ls").unwrap(), "");
    let left: Vec<String> =
        list(cluster, folder).iter().map(|e| e["path"].as_str().unwrap().to_owned()).collect();
    assert_eq!(left, ["/users/c", "/users/d"]);
    assert!(shell(0, &trash, "mkdir ../.trash").unwrap_err().contains("exists"));
}

/// The leader of the namespace dies while files are removed, and while they come back.
fn leader_dies(cluster: &Cluster, folder: &Path) {
    let count = 300;
    for number in 0..count {
        fs::write(folder.join(format!("f{number}")), content(number, 50 + number)).unwrap();
    }
    thread::scope(|scope| {
        let removing = scope.spawn(|| {
            for number in 0..count {
                fs::remove_file(folder.join(format!("f{number}"))).unwrap();
                thread::sleep(Duration::from_millis(5));
            }
        });
        thread::sleep(Duration::from_millis(700));
        let leader = cluster.leader(1).unwrap();
        cluster.signal(&leader, Signal::KILL).unwrap();
        removing.join().unwrap();
    });
    cluster.up().unwrap();
    cluster.wait_healthy(Duration::from_secs(60)).unwrap();
    assert_eq!(list(cluster, folder).len(), count, "each once");
    let back = thread::scope(|scope| {
        let restoring = scope
            .spawn(|| cluster.json(&["trash", "restore", "--under", "/a leader dies"]).unwrap());
        thread::sleep(Duration::from_millis(300));
        let leader = cluster.leader(1).unwrap();
        cluster.signal(&leader, Signal::KILL).unwrap();
        restoring.join().unwrap()
    });
    cluster.up().unwrap();
    cluster.wait_healthy(Duration::from_secs(60)).unwrap();
    // What was restored just when the leader died may be told as not there any more.
    assert!(back["left"].as_array().unwrap().len() <= 1, "{back}");
    for number in 0..count {
        let bytes = fs::read(folder.join(format!("f{number}"))).unwrap();
        assert_eq!(bytes, content(number, 50 + number), "f{number}");
    }
    assert!(list(cluster, folder).is_empty());
}

fn free(folder: &Path) -> u64 {
    let space = statvfs(folder).unwrap();
    space.f_bavail * space.f_frsize
}

fn until(what: &str, check: impl Fn() -> bool) {
    let begun = Instant::now();
    while !check() {
        assert!(begun.elapsed() < Duration::from_secs(40), "{what} after {:?}", begun.elapsed());
        thread::sleep(Duration::from_millis(200));
    }
}

fn space(cluster: &Cluster, folder: &Path) {
    let size = 64 * MIB;
    let before = free(folder);
    fs::write(folder.join("large"), content(5, size)).unwrap();
    until("the file takes space", || free(folder) + size as u64 / 2 < before);
    fs::remove_file(folder.join("large")).unwrap();
    fs::File::open(folder).unwrap().sync_all().unwrap();
    thread::sleep(Duration::from_secs(3));
    assert!(free(folder) + size as u64 / 2 < before, "it takes space in the trash");
    assert_eq!(show(cluster)["bytes"], size);
    cluster.ctl(&["trash", "empty", "--older-than", "1h"]).unwrap();
    assert_eq!(show(cluster)["entries"], 1);
    cluster.ctl(&["trash", "empty"]).unwrap();
    assert_eq!(show(cluster)["entries"], 0);
    until("emptying gives the space back", || free(folder) + size as u64 / 2 > before);
}

fn expiry(cluster: &Cluster, folder: &Path) {
    fs::write(folder.join("open"), "kept").unwrap();
    fs::write(folder.join("short"), "gone").unwrap();
    let mut open = fs::File::open(folder.join("open")).unwrap();
    for name in ["open", "short"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    assert_eq!(list(cluster, folder).len(), 2);
    cluster.ctl(&["trash", "set", "--keep", "3s"]).unwrap();
    until("they go when their time is over", || list(cluster, folder).is_empty());
    assert_eq!(fs::metadata(folder.join("short")).unwrap_err().kind(), ErrorKind::NotFound);
    // As any that is open when it goes.
    thread::sleep(Duration::from_secs(3));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut open, &mut text).unwrap();
    assert_eq!(text, "kept");
    cluster.ctl(&["trash", "set", "--keep", "0"]).unwrap();
    until("it is hidden when it is off and empty", || !cluster.mount().join(".trash").exists());
}
