//! Snapshots on a real cluster, beside programs that write.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::Cluster;
use rustix::{io::Errno, process::Signal};

/// Straddles all borders.
const RECORD: usize = 5_003;
const MIB: usize = 1 << 20;

fn record(writer: u64, number: u64) -> Vec<u8> {
    let mut state = writer << 40 ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..RECORD).map(next).collect()
}

/// How many records a file holds: whole ones from the first on, and nothing else.
fn records_in(path: &Path, writer: u64) -> u64 {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() % RECORD, 0, "{} ends within a record", path.display());
    for (number, found) in (0..).zip(bytes.chunks_exact(RECORD)) {
        assert!(found == record(writer, number), "{}: record {number} is wrong", path.display());
    }
    (bytes.len() / RECORD) as u64
}

fn in_snapshot(mount: &Path, name: &str) -> PathBuf {
    mount.join(".snapshots").join(name)
}

/// Records that two files on two mounts get in turns, each when the one before is durable: so there is no
/// moment at which the second has more than the first, or two less.
struct Turns {
    files: [PathBuf; 2],
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

impl Turns {
    fn run(&self, writer: u64, is_over: &AtomicBool) {
        let open =
            |path: &PathBuf| OpenOptions::new().create(true).append(true).open(path).unwrap();
        let mut files = self.files.each_ref().map(open);
        while !is_over.load(SeqCst) {
            let number = self.begun.fetch_add(1, SeqCst);
            for file in &mut files {
                file.write_all(&record(writer, number)).unwrap();
                file.sync_all().unwrap();
            }
            self.acknowledged.store(number + 1, SeqCst);
        }
    }
}

fn writers(mounts: &[PathBuf; 2]) -> Vec<Turns> {
    (0..3)
        .map(|writer| {
            let file = |side: usize| mounts[side].join(format!("w{writer}-{side}"));
            Turns {
                files: [file(writer % 2), file(1 - writer % 2)],
                begun: AtomicU64::new(0),
                acknowledged: AtomicU64::new(0),
            }
        })
        .collect()
}

/// What a snapshot must show of each writer: at least and at most.
type Window = (Vec<u64>, Vec<u64>);

fn assert_one_moment(snapshot: &Path, writers: &[Turns], (before, after): &Window) {
    for (number, writer) in (0..).zip(writers) {
        let counts = writer
            .files
            .each_ref()
            .map(|path| records_in(&snapshot.join(path.file_name().unwrap()), number));
        let [first, second] = counts;
        let (least, most) = (before[number as usize], after[number as usize]);
        assert!(second >= least && first <= most, "{counts:?} of {least} to {most}");
        assert!(first == second || first == second + 1, "{counts:?}: no one moment");
    }
}

#[test]
fn a_snapshot_is_one_moment_of_all_mounts_under_load() {
    let cluster = Cluster::start().unwrap();
    let mounts = [cluster.mount(), cluster.mount_beside("other").unwrap()];
    let writers = writers(&mounts);
    let is_over = AtomicBool::new(false);
    let mut windows = Vec::new();
    thread::scope(|scope| {
        for (number, writer) in (0..).zip(&writers) {
            let is_over = &is_over;
            scope.spawn(move || writer.run(number, is_over));
        }
        for round in 0..4 {
            thread::sleep(Duration::from_millis(1_500));
            let before: Vec<u64> = writers.iter().map(|w| w.acknowledged.load(SeqCst)).collect();
            let begun = Instant::now();
            let made = cluster.ctl(&["snapshot", "create", &format!("round-{round}")]);
            let took = begun.elapsed();
            let after: Vec<u64> = writers.iter().map(|w| w.begun.load(SeqCst)).collect();
            println!("made within {took:?}: {before:?} to {after:?}");
            if made.is_err() || took > Duration::from_secs(20) {
                is_over.store(true, SeqCst);
            }
            made.unwrap();
            windows.push((before, after));
        }
        is_over.store(true, SeqCst);
    });
    for mount in &mounts {
        for (round, window) in windows.iter().enumerate() {
            let snapshot = in_snapshot(mount, &format!("round-{round}"));
            assert_one_moment(&snapshot, &writers, window);
        }
    }
    assert_eq!(cluster.json(&["snapshot", "list"]).unwrap().as_array().unwrap().len(), 4);
    for round in 0..4 {
        cluster.ctl(&["snapshot", "remove", &format!("round-{round}")]).unwrap();
    }
    cluster.fsck().unwrap();
}

/// A command that the death of a leader may interrupt is given again, as a user would, until it says that it is
/// done already.
fn insist(cluster: &Cluster, args: &[&str], done: &str) {
    let begun = Instant::now();
    while let Err(failure) = cluster.ctl(args) {
        if failure.to_string().contains(done) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{args:?}: {failure:#}");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn leaders_die_while_snapshots_are_made_and_removed() {
    let cluster = Cluster::start().unwrap();
    let mounts = [cluster.mount(), cluster.mount_beside("other").unwrap()];
    let writers = writers(&mounts);
    let is_over = AtomicBool::new(false);
    // The namespace's leader makes the steps, the cluster's tells the storage servers.
    let kill_leader = |group: u64, after: Duration| {
        let leader = cluster.leader(group).unwrap();
        thread::sleep(after);
        cluster.signal(&leader, Signal::KILL).unwrap();
    };
    let mut windows = Vec::new();
    thread::scope(|scope| {
        for (number, writer) in (0..).zip(&writers) {
            let is_over = &is_over;
            scope.spawn(move || writer.run(number, is_over));
        }
        let guard = EndOf(&is_over);
        for round in 0..5_u64 {
            thread::sleep(Duration::from_millis(700));
            let (cluster, name) = (&cluster, &format!("round-{round}"));
            let before: Vec<u64> = writers.iter().map(|w| w.acknowledged.load(SeqCst)).collect();
            thread::scope(|scope| {
                let is_made = "there is a snapshot of this name";
                scope.spawn(move || insist(cluster, &["snapshot", "create", name], is_made));
                kill_leader(round.is_multiple_of(2).into(), Duration::from_millis(60 * round));
            });
            let after: Vec<u64> = writers.iter().map(|w| w.begun.load(SeqCst)).collect();
            windows.push((before, after));
            cluster.up().unwrap();
        }
        // Nothing is left frozen.
        let before: Vec<u64> = writers.iter().map(|w| w.acknowledged.load(SeqCst)).collect();
        thread::sleep(Duration::from_secs(3));
        let after = writers.iter().map(|w| w.acknowledged.load(SeqCst));
        assert!(after.zip(before).all(|(after, before)| after > before), "all go on");
        drop(guard);
    });
    for (round, window) in windows.iter().enumerate() {
        let snapshot = in_snapshot(&mounts[round % 2], &format!("round-{round}"));
        assert_one_moment(&snapshot, &writers, window);
    }
    for round in 0..5_u64 {
        let (cluster, name) = (&cluster, &format!("round-{round}"));
        thread::scope(|scope| {
            let is_gone = "there is no snapshot of this name";
            scope.spawn(move || insist(cluster, &["snapshot", "remove", name], is_gone));
            kill_leader(round.is_multiple_of(2).into(), Duration::from_millis(50 * round));
        });
        cluster.up().unwrap();
        for (left, window) in windows.iter().enumerate().skip(round as usize + 1) {
            let snapshot = in_snapshot(&mounts[left % 2], &format!("round-{left}"));
            assert_one_moment(&snapshot, &writers, window);
        }
    }
    let begun = Instant::now();
    while !cluster.json(&["snapshot", "list"]).unwrap().as_array().unwrap().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "a removal was left");
        thread::sleep(Duration::from_millis(200));
    }
    cluster.wait_healthy(Duration::from_secs(60)).unwrap();
    cluster.fsck().unwrap();
}

/// Writers end when this goes, by a panic too.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn body(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 4096 * 31 + at * 7 + seed * 131 + at / 255) as u8).collect()
}

fn write(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}

fn fill(root: &Path) {
    fs::create_dir_all(root.join("tree/deep")).unwrap();
    for (number, length) in [100, 8_000, 70_000, 9 * MIB, 13 * MIB + 77].into_iter().enumerate() {
        write(&root.join(format!("tree/file-{number}")), &body(number, length));
    }
    write(&root.join("tree/deep/large"), &body(9, 6 * MIB));
    symlink("file-3", root.join("tree/link")).unwrap();
    fs::hard_link(root.join("tree/file-2"), root.join("tree/deep/name")).unwrap();
    let sparse = File::create(root.join("tree/sparse")).unwrap();
    sparse.write_all_at(b"end", 20 * MIB as u64).unwrap();
    sparse.sync_all().unwrap();
}

/// All that is below a folder: what it is, whose and when, and its bytes.
fn all_of(root: &Path) -> BTreeMap<PathBuf, (u32, u64, i64, u64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(path) = left.pop() {
        let attr = fs::symlink_metadata(&path).unwrap();
        let bytes = if attr.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if attr.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            fs::read(&path).unwrap()
        };
        let place = path.strip_prefix(root).unwrap().to_path_buf();
        let mode = attr.permissions().mode();
        found.insert(place, (mode, attr.nlink(), attr.mtime(), attr.size(), bytes));
    }
    found
}

#[track_caller]
fn assert_same(root: &Path, was: &BTreeMap<PathBuf, (u32, u64, i64, u64, Vec<u8>)>, when: &str) {
    let now = all_of(root);
    let names: Vec<_> = now.keys().collect();
    assert_eq!(names, was.keys().collect::<Vec<_>>(), "{when}");
    for (path, (mode, nlink, mtime, size, bytes)) in &now {
        let old = &was[path];
        let attr = (mode, nlink, mtime, size);
        assert_eq!(attr, (&old.0, &old.1, &old.2, &old.3), "{when}: {}", path.display());
        let differs = bytes.iter().zip(&old.4).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{when}: a byte of {}", path.display());
    }
}

fn refused(outcome: std::io::Result<()>) -> bool {
    outcome.is_err_and(|failure| failure.raw_os_error() == Some(Errno::ROFS.raw_os_error()))
}

#[test]
fn a_snapshot_stays_as_it_was_whatever_happens() {
    let cluster = Cluster::start().unwrap();
    let root = cluster.mount();
    fill(&root);
    let was = all_of(&root.join("tree"));
    let chunks = cluster.fsck().unwrap();
    cluster.ctl(&["snapshot", "create", "one"]).unwrap();
    assert_eq!(cluster.fsck().unwrap(), chunks, "nothing is copied");
    let one = in_snapshot(&root, "one").join("tree");
    assert_same(&one, &was, "at once");

    // Nobody changes it, and nobody finds it who does not ask.
    assert!(refused(fs::write(one.join("file-0"), "x")));
    assert!(refused(fs::write(one.join("new"), "x")));
    assert!(refused(fs::remove_file(one.join("file-1"))));
    assert!(refused(fs::remove_dir(root.join(".snapshots/one"))));
    assert!(refused(fs::create_dir(root.join(".snapshots/two"))));
    assert!(fs::create_dir(root.join(".snapshots")).is_err());
    assert!(refused(fs::rename(one.join("file-0"), one.join("file-9"))));
    assert!(refused(fs::set_permissions(&one, fs::Permissions::from_mode(0o700))));
    let listed = |path: &Path| {
        let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&root), ["tree"]);
    assert_eq!(listed(&root.join(".snapshots")), ["one"]);

    overwrite(&root.join("tree/file-3"), 3_000_000, &body(50, 3 * MIB));
    overwrite(&root.join("tree/file-4"), 77, b"small");
    overwrite(&root.join("tree/sparse"), 5 * MIB as u64, &body(51, 9_000));
    overwrite(&root.join("tree/file-1"), 100, b"inline");
    // Where no kernel has cached any of it.
    let beside = cluster.mount_beside("beside").unwrap();
    let there = in_snapshot(&beside, "one").join("tree");
    assert_same(&there, &was, "after overwrites");
    let cut = OpenOptions::new().write(true).open(root.join("tree/file-4")).unwrap();
    cut.set_len(5 * MIB as u64 + 9).unwrap();
    drop(cut);
    fs::rename(root.join("tree/file-0"), root.join("tree/moved")).unwrap();
    fs::set_permissions(root.join("tree/file-2"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_same(&one, &was, "after a cut");

    let second = all_of(&root.join("tree"));
    cluster.ctl(&["snapshot", "create", "two"]).unwrap();
    cluster.signal("storaged/1", Signal::KILL).unwrap();
    overwrite(&root.join("tree/file-3"), 1_000, &body(60, 8 * MIB));
    let leader = cluster.leader(1).unwrap();
    cluster.signal(&leader, Signal::KILL).unwrap();
    fs::remove_dir_all(root.join("tree")).unwrap();
    let two = in_snapshot(&root, "two").join("tree");
    assert_same(&one, &was, "with two servers dead");
    assert_same(&two, &second, "with two servers dead");
    cluster.up().unwrap();
    cluster.wait_healthy(Duration::from_secs(60)).unwrap();
    cluster.fsck().unwrap();
    // The one that was away has the clones too: it alone is asked where the other is dead.
    cluster.signal("storaged/2", Signal::KILL).unwrap();
    cluster.remount().unwrap();
    assert_same(&one, &was, "on a new mount, from other replicas");
    assert_same(&two, &second, "on a new mount, from other replicas");
    cluster.up().unwrap();
    cluster.wait_healthy(Duration::from_secs(60)).unwrap();

    cluster.ctl(&["snapshot", "remove", "one"]).unwrap();
    assert!(!one.exists());
    assert_same(&two, &second, "when another is removed");
    cluster.fsck().unwrap();
    cluster.ctl(&["snapshot", "remove", "two"]).unwrap();
    let begun = Instant::now();
    while cluster.fsck().unwrap() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "chunks are left of what is gone");
        thread::sleep(Duration::from_millis(500));
    }
}
