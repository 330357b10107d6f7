//! What two mounts of one volume see of each other.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::Cluster;

/// For the kernel to do what it does after a call returned.
const PATIENCE: Duration = Duration::from_secs(5);
/// Appends of each of two programs on a mount.
const APPENDS: usize = 60;

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
        ("links have one winner", links_have_one_winner),
        ("crossing renames make no loop", crossing_renames_make_no_loop),
        ("changes are seen at once", changes_are_seen_at_once),
        ("appends lose nothing", appends_lose_nothing),
        ("locks reach the other mount", locks_reach_the_other_mount),
    ] {
        eprintln!("-- {what}");
        let [here, there] = mounts.each_ref().map(|mount| mount.join(what));
        fs::create_dir(&here).unwrap();
        assert!(there.exists(), "the folder is seen");
        check(&here, &there);
    }
}

fn until(mut is: impl FnMut() -> bool, what: &str) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "not after {PATIENCE:?}: {what}");
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
    assert!(!there.join("file").exists() && there.join("moved").exists(), "the rename is seen");
}

/// Each change is cached there before, as it was, and seen there as it is when its call returned.
fn changes_are_seen_at_once(here: &Path, there: &Path) {
    for round in 0..60_usize {
        let (from, to) = if round % 2 == 0 { (here, there) } else { (there, here) };
        let name = format!("file-{round}");
        assert!(!to.join(&name).exists());
        fs::write(from.join(&name), "one").unwrap();
        assert_eq!(fs::metadata(to.join(&name)).unwrap().len(), 3);
        let held = File::open(to.join(&name)).unwrap();
        let mut bytes = [0; 5];
        assert_eq!(held.read_at(&mut bytes, 0).unwrap(), 3);
        fs::write(from.join(&name), "three").unwrap();
        assert_eq!(held.metadata().unwrap().len(), 5);
        assert_eq!(held.read_at(&mut bytes, 0).unwrap(), 5);
        assert_eq!(&bytes, b"three", "round {round}: who has it open reads on in what was closed");
        fs::set_permissions(from.join(&name), Permissions::from_mode(0o604)).unwrap();
        assert_eq!(fs::metadata(to.join(&name)).unwrap().mode() & 0o777, 0o604);
        fs::hard_link(from.join(&name), from.join("link")).unwrap();
        assert_eq!(fs::metadata(to.join(&name)).unwrap().nlink(), 2);
        fs::remove_file(from.join("link")).unwrap();
        assert!(!to.join("link").exists());
        fs::create_dir(from.join("folder")).unwrap();
        fs::write(to.join("folder/inside"), "").unwrap();
        assert_eq!(fs::read_dir(from.join("folder")).unwrap().count(), 1);
        fs::rename(from.join("folder"), from.join("moved")).unwrap();
        assert!(!to.join("folder").exists() && to.join("moved/inside").exists());
        fs::remove_file(to.join("moved/inside")).unwrap();
        fs::remove_dir(from.join("moved")).unwrap();
        assert!(!to.join("moved").exists());
    }
}

/// Programs on both mounts append to one file, which outgrows the namespace on the way.
fn appends_lose_nothing(here: &Path, there: &Path) {
    let record = |writer: usize, number: usize| {
        format!("{writer}-{number:04}-{}\n", "x".repeat(20 + (writer * 31 + number * 7) % 200))
    };
    thread::scope(|scope| {
        for (writer, dir) in [here, here, there, there].into_iter().enumerate() {
            scope.spawn(move || {
                let path = dir.join("log");
                let open = || OpenOptions::new().append(true).create(true).open(&path).unwrap();
                let mut log = open();
                for number in 0..APPENDS {
                    log.write_all(record(writer, number).as_bytes()).unwrap();
                    if number % 20 == 0 {
                        log = open();
                    }
                }
            });
        }
    });
    for dir in [here, there] {
        let text = fs::read_to_string(dir.join("log")).unwrap();
        let mut found: Vec<&str> = text.split_inclusive('\n').collect();
        assert_eq!(found.len(), 4 * APPENDS, "records are whole, and none is lost");
        for writer in 0..4 {
            let prefix = format!("{writer}-");
            let own: Vec<&str> =
                found.iter().copied().filter(|line| line.starts_with(&prefix)).collect();
            let expected: Vec<String> = (0..APPENDS).map(|number| record(writer, number)).collect();
            assert!(own == expected, "those of writer {writer} are in their order");
        }
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 4 * APPENDS);
    }
}

/// The data stays for who has it open, on whichever mount it was unlinked.
fn unlinked_while_open_there(here: &Path, there: &Path) {
    let body = vec![7; 3 << 20];
    fs::write(here.join("file"), &body).unwrap();
    let mut open = OpenOptions::new().read(true).write(true).open(there.join("file")).unwrap();
    fs::remove_file(here.join("file")).unwrap();
    assert!(!there.join("file").exists(), "the name is gone");
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

/// Two files, one new name for both.
fn links_have_one_winner(here: &Path, there: &Path) {
    fs::write(here.join("here"), "here").unwrap();
    fs::write(here.join("there"), "there").unwrap();
    for round in 0..100 {
        let outcomes = both([here, there], |dir| {
            let side = if dir == here { "here" } else { "there" };
            fs::hard_link(dir.join(side), dir.join(format!("link-{round}")))
        });
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(won, 1, "round {round}: {outcomes:?}");
        let winner = if outcomes[0].is_ok() { "here" } else { "there" };
        assert_eq!(fs::read_to_string(there.join(format!("link-{round}"))).unwrap(), winner);
    }
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
