//! What two mounts of one volume see of each other.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::Cluster;

/// For how long a mount may go by what it knew (`cache_ms`), which SEMANTICS promises.
const PROMISED: Duration = Duration::from_secs(1);
/// For a look at another mount to be scheduled and answered on a busy machine.
const SLACK: Duration = Duration::from_millis(200);
const STALE: Duration = PROMISED.checked_add(SLACK).unwrap();

#[test]
fn two_mounts_of_one_volume() {
    let cluster = Cluster::start().unwrap();
    let mounts = [cluster.mount(), cluster.mount_beside("other").unwrap()];
    for (what, check) in [
        ("close-to-open", close_to_open as fn(&Path, &Path)),
        ("unlinked while open there", unlinked_while_open_there),
        ("replaced while open there", replaced_while_open_there),
        ("creates have one winner", creates_have_one_winner),
        ("renames have one winner", renames_have_one_winner),
        ("crossing renames make no loop", crossing_renames_make_no_loop),
        ("locks reach the other mount", locks_reach_the_other_mount),
    ] {
        eprintln!("-- {what}");
        let [here, there] = mounts.each_ref().map(|mount| mount.join(what));
        fs::create_dir(&here).unwrap();
        until(|| there.exists(), "the folder is seen");
        check(&here, &there);
    }
}

fn until(mut is: impl FnMut() -> bool, what: &str) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < STALE, "not after {STALE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn close_to_open(here: &Path, there: &Path) {
    for round in 0..20_usize {
        fs::write(here.join("file"), vec![round as u8; 1_000 + 100_000 * round]).unwrap();
        let found = fs::read(there.join("file")).unwrap();
        assert!(found == vec![round as u8; 1_000 + 100_000 * round], "round {round}");
    }
    fs::rename(here.join("file"), here.join("moved")).unwrap();
    until(|| !there.join("file").exists() && there.join("moved").exists(), "the rename is seen");
}

/// The data stays for who has it open, on whichever mount it was unlinked.
fn unlinked_while_open_there(here: &Path, there: &Path) {
    let body = vec![7; 3 << 20];
    fs::write(here.join("file"), &body).unwrap();
    let mut open = OpenOptions::new().read(true).write(true).open(there.join("file")).unwrap();
    fs::remove_file(here.join("file")).unwrap();
    until(|| !there.join("file").exists(), "the name is gone");
    // Longer than the collector's rounds: it must see that the file is held.
    thread::sleep(Duration::from_secs(4));
    let mut found = Vec::new();
    open.read_to_end(&mut found).unwrap();
    assert!(found == body, "the data went away under an open file");
    open.write_all(b"more").unwrap();
    let mut more = [0; 4];
    open.read_exact_at(&mut more, 3 << 20).unwrap();
    assert_eq!(&more, b"more");
}

fn replaced_while_open_there(here: &Path, there: &Path) {
    fs::write(here.join("file"), b"old").unwrap();
    let mut open = File::open(there.join("file")).unwrap();
    fs::write(here.join("new"), b"new").unwrap();
    fs::rename(here.join("new"), here.join("file")).unwrap();
    thread::sleep(Duration::from_secs(3));
    let mut found = String::new();
    open.read_to_string(&mut found).unwrap();
    assert_eq!(found, "old", "who has it open reads on");
    assert_eq!(fs::read(there.join("file")).unwrap(), b"new", "who opens it now reads the new one");
}

/// Runs `race` on both mounts at the same time and returns what each came to.
fn both<T: Send>(paths: [&Path; 2], race: impl Fn(&Path) -> T + Sync) -> [T; 2] {
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        let threads = paths.map(|path| {
            let (race, barrier) = (&race, &barrier);
            scope.spawn(move || {
                barrier.wait();
                race(path)
            })
        });
        threads.map(|thread| thread.join().unwrap())
    })
}

fn creates_have_one_winner(here: &Path, there: &Path) {
    for round in 0..100 {
        let outcomes = both([here, there], |dir| {
            let path = dir.join(format!("file-{round}"));
            OpenOptions::new().write(true).create_new(true).open(path).map(drop)
        });
        let folders = both([here, there], |dir| fs::create_dir(dir.join(format!("dir-{round}"))));
        for outcome in [outcomes, folders] {
            let won = outcome.iter().filter(|outcome| outcome.is_ok()).count();
            assert_eq!(won, 1, "round {round}: {outcome:?}");
            let lost = outcome.iter().find_map(|outcome| outcome.as_ref().err()).unwrap();
            assert_eq!(lost.kind(), ErrorKind::AlreadyExists, "round {round}");
        }
    }
}

/// One file, two new names for it: one rename finds it, the other one nothing.
fn renames_have_one_winner(here: &Path, there: &Path) {
    for round in 0..100 {
        fs::write(here.join("from"), round.to_string()).unwrap();
        let to = |dir: &Path| -> PathBuf {
            let side = if dir == here { "here" } else { "there" };
            dir.join(format!("{round}-{side}"))
        };
        let outcomes = both([here, there], |dir| fs::rename(dir.join("from"), to(dir)));
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(won, 1, "round {round}: {outcomes:?}");
        let winner = if outcomes[0].is_ok() { to(here) } else { to(there) };
        assert_eq!(fs::read_to_string(&winner).unwrap(), round.to_string());
        let lost = outcomes.iter().find_map(|outcome| outcome.as_ref().err()).unwrap();
        assert_eq!(lost.kind(), ErrorKind::NotFound, "round {round}");
    }
    assert_eq!(fs::read_dir(here).unwrap().count(), 100, "each file has one name");
}

/// `a` into `b` and `b` into `a`, at once: both would leave a loop that no path reaches.
fn crossing_renames_make_no_loop(here: &Path, there: &Path) {
    for round in 0..50 {
        let (a, b) = (format!("a-{round}"), format!("b-{round}"));
        fs::create_dir(here.join(&a)).unwrap();
        fs::create_dir(here.join(&b)).unwrap();
        let outcomes = both([here, there], |dir| match dir == here {
            true => fs::rename(dir.join(&a), dir.join(&b).join("inner")),
            false => fs::rename(dir.join(&b), dir.join(&a).join("inner")),
        });
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(won, 1, "round {round}: {outcomes:?}");
    }
    assert_eq!(fs::read_dir(here).unwrap().count(), 50, "one of each pair is inside the other");
}

fn locks_reach_the_other_mount(here: &Path, there: &Path) {
    fs::write(here.join("file"), b"").unwrap();
    let (one, two) =
        (File::open(here.join("file")).unwrap(), File::open(there.join("file")).unwrap());
    one.lock().unwrap();
    assert!(matches!(two.try_lock_shared(), Err(fs::TryLockError::WouldBlock)));
    let waiting = thread::spawn(move || {
        two.lock().unwrap();
        two
    });
    thread::sleep(Duration::from_millis(300));
    assert!(!waiting.is_finished());
    one.unlock().unwrap();
    let two = waiting.join().unwrap();
    assert!(matches!(one.try_lock(), Err(fs::TryLockError::WouldBlock)));
    drop(two);
    // The last close ends it, a moment after `close` returned.
    until(|| one.try_lock().is_ok(), "the lock ends with its file");
}
