//! Locks through the kernel: between mounts, between processes, and what ends them.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Mount, World, until, world};

const READ: i32 = libc::F_RDLCK;
const WRITE: i32 = libc::F_WRLCK;
const FREE: i32 = libc::F_UNLCK;

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn fcntl(
    file: &File,
    command: i32,
    kind: i32,
    start: i64,
    length: i64,
) -> Result<libc::flock, i32> {
    let mut lock = libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start,
        l_len: length,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open and `lock` outlives the call.
    let outcome = unsafe { libc::fcntl(file.as_raw_fd(), command, &mut lock) };
    if outcome == 0 {
        Ok(lock)
    } else {
        Err(std::io::Error::last_os_error().raw_os_error().unwrap())
    }
}

fn set(file: &File, kind: i32, start: i64, length: i64) -> Result<(), i32> {
    fcntl(file, libc::F_SETLK, kind, start, length).map(drop)
}

fn wait(file: &File, kind: i32, start: i64, length: i64) -> Result<(), i32> {
    fcntl(file, libc::F_SETLKW, kind, start, length).map(drop)
}

/// A process that does what the script says with `f`, opened for reading and writing, and tells when.
fn python(mount: &Mount, script: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let script = format!(
        "import fcntl, os, sys, signal, time\n\
         def say(what): print(what, flush=True)\n\
         f = open('f', 'r+')\n{script}"
    );
    let mut python = Command::new("python3");
    python.args(["-c", &script]).current_dir(&mount.path);
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

fn line(out: &mut impl BufRead) -> String {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn two_mounts() -> Option<(World, Mount, Mount)> {
    let world = world()?;
    let (a, b) = (world.mount("a"), world.mount("b"));
    fs::write(a.at("f"), "content").unwrap();
    Some((world, a, b))
}

#[test]
fn whole_file_locks_reach_the_other_mount() {
    let Some((_world, a, b)) = two_mounts() else { return };
    let (one, two) = (open(&a.at("f")), File::open(b.at("f")).unwrap());
    one.lock().unwrap();
    assert!(matches!(two.try_lock_shared(), Err(fs::TryLockError::WouldBlock)));
    assert!(matches!(open(&a.at("f")).try_lock(), Err(fs::TryLockError::WouldBlock)), "nor here");
    one.unlock().unwrap();
    two.lock_shared().unwrap();
    one.lock_shared().unwrap();
    assert!(matches!(one.try_lock(), Err(fs::TryLockError::WouldBlock)));
    // A copy of the descriptor keeps it; the last close ends it.
    let copy: OwnedFd = two.as_raw_fd_copy();
    drop(two);
    assert!(matches!(one.try_lock(), Err(fs::TryLockError::WouldBlock)));
    drop(copy);
    until("the lock is free", || one.try_lock().is_ok());
    drop(one);
    a.stop();
    b.stop();
}

trait Copied {
    fn as_raw_fd_copy(&self) -> OwnedFd;
}

impl Copied for File {
    fn as_raw_fd_copy(&self) -> OwnedFd {
        self.try_clone().unwrap().into()
    }
}

#[test]
fn ranges_reach_the_other_mount_and_know_no_whole_file_locks() {
    let Some((_world, a, b)) = two_mounts() else { return };
    let (one, two) = (open(&a.at("f")), open(&b.at("f")));
    set(&one, WRITE, 10, 10).unwrap();
    assert_eq!(set(&two, READ, 19, 1), Err(libc::EAGAIN));
    set(&two, WRITE, 20, 0).expect("to the end of all files");
    set(&two, READ, 0, 10).unwrap();
    let found = fcntl(&two, libc::F_GETLK, WRITE, 0, 0).unwrap();
    assert_eq!((i32::from(found.l_type), found.l_start, found.l_len), (WRITE, 10, 10));
    assert_eq!(found.l_pid, 0, "a process behind another mount has no number here");
    let found = fcntl(&one, libc::F_GETLK, READ, 100, 5).unwrap();
    assert_eq!((i32::from(found.l_type), found.l_start, found.l_len), (WRITE, 20, 0));
    let found = fcntl(&one, libc::F_GETLK, WRITE, 12, 2).unwrap();
    assert_eq!(i32::from(found.l_type), FREE, "its own");
    // The same process may have both kinds at once.
    two.try_lock().unwrap();
    assert!(matches!(one.try_lock(), Err(fs::TryLockError::WouldBlock)));
    set(&one, FREE, 0, 0).unwrap();
    set(&two, WRITE, 0, 0).unwrap();
    // Another process of the same mount is told who holds it.
    let script = "try: fcntl.lockf(f, fcntl.LOCK_SH | fcntl.LOCK_NB)\n\
                  except BlockingIOError: say('blocked')\n\
                  import struct\n\
                  lock = struct.pack('hhqqi4x', fcntl.F_RDLCK, 0, 0, 0, 0)\n\
                  say(struct.unpack('hhqqi4x', fcntl.fcntl(f, fcntl.F_GETLK, lock))[4])";
    let (mut child, mut out) = python(&b, script);
    assert_eq!(line(&mut out), "blocked");
    assert_eq!(line(&mut out), std::process::id().to_string());
    assert!(child.wait().unwrap().success());
    drop((one, two));
    a.stop();
    b.stop();
}

#[test]
fn closing_any_descriptor_ends_the_ranges_of_a_process() {
    let Some((_world, a, b)) = two_mounts() else { return };
    let (one, two) = (open(&a.at("f")), open(&b.at("f")));
    set(&one, WRITE, 0, 0).unwrap();
    assert_eq!(set(&two, READ, 0, 1), Err(libc::EAGAIN));
    // POSIX wants it so, even of one that was only read.
    drop(File::open(a.at("f")).unwrap());
    until("the range is free", || set(&two, READ, 0, 1).is_ok());
    set(&two, FREE, 0, 0).unwrap();
    // Ranges of an open file description stay until it is closed.
    let owned = open(&a.at("f"));
    fcntl(&owned, libc::F_OFD_SETLK, WRITE, 0, 5).unwrap();
    drop(File::open(a.at("f")).unwrap());
    thread::sleep(Duration::from_millis(100));
    assert_eq!(set(&two, READ, 0, 1), Err(libc::EAGAIN));
    drop(owned);
    until("the range is free", || set(&two, READ, 0, 1).is_ok());
    drop((one, two));
    a.stop();
    b.stop();
}

#[test]
fn who_waits_gets_it_when_it_is_freed() {
    let Some((_world, a, b)) = two_mounts() else { return };
    let one = open(&a.at("f"));
    set(&one, WRITE, 0, 0).unwrap();
    one.lock().unwrap();
    let waiters: Vec<_> = (0..3)
        .map(|n| {
            let file = open(&b.at("f"));
            thread::spawn(move || {
                if n == 0 {
                    file.lock().unwrap()
                } else {
                    wait(&file, READ, n, 1).unwrap()
                }
                Instant::now()
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
    let freed = Instant::now();
    set(&one, FREE, 0, 0).unwrap();
    one.unlock().unwrap();
    for waiter in waiters {
        let came = waiter.join().unwrap();
        assert!(came > freed && came - freed < Duration::from_secs(5), "{:?}", came - freed);
    }
    drop(one);
    a.stop();
    b.stop();
}

#[test]
fn a_circle_of_waits_is_refused() {
    let Some((_world, a, b)) = two_mounts() else { return };
    let (one, two) = (open(&a.at("f")), open(&b.at("f")));
    set(&one, WRITE, 0, 1).unwrap();
    set(&two, WRITE, 1, 1).unwrap();
    let waiter = thread::spawn(move || {
        let outcome = wait(&two, WRITE, 0, 1);
        (two, outcome)
    });
    // Whoever comes second is told.
    thread::sleep(Duration::from_millis(300));
    assert_eq!(wait(&one, WRITE, 1, 1), Err(libc::EDEADLK));
    set(&one, FREE, 0, 0).unwrap();
    assert_eq!(waiter.join().unwrap().1, Ok(()));
    drop(one);
    a.stop();
    b.stop();
}

#[test]
fn signals_end_a_wait() {
    let Some((_world, a, b)) = two_mounts() else { return };
    let one = open(&a.at("f"));
    one.lock().unwrap();
    set(&one, WRITE, 0, 0).unwrap();
    for call in ["fcntl.flock(f, fcntl.LOCK_EX)", "fcntl.lockf(f, fcntl.LOCK_EX)"] {
        // A handler that raises: the call must come back for it to run.
        let script = format!(
            "def end(*_): raise InterruptedError\n\
             signal.signal(signal.SIGUSR1, end)\nsay('ready')\n\
             try: {call}; say('locked')\nexcept InterruptedError: say('interrupted')"
        );
        let (mut child, mut out) = python(&b, &script);
        assert_eq!(line(&mut out), "ready");
        thread::sleep(Duration::from_millis(500));
        signal(&child, libc::SIGUSR1);
        assert_eq!(line(&mut out), "interrupted", "{call}");
        assert!(child.wait().unwrap().success());
        // Nor does one that is killed leave anything behind.
        let (mut child, mut out) = python(&b, &format!("say('ready')\n{call}"));
        assert_eq!(line(&mut out), "ready");
        thread::sleep(Duration::from_millis(500));
        child.kill().unwrap();
        let killed = Instant::now();
        assert!(!child.wait().unwrap().success());
        assert!(killed.elapsed() < Duration::from_secs(4), "{:?}", killed.elapsed());
    }
    one.unlock().unwrap();
    set(&one, FREE, 0, 0).unwrap();
    let two = open(&b.at("f"));
    two.try_lock().expect("nobody else waits");
    set(&two, WRITE, 0, 0).unwrap();
    drop((one, two));
    a.stop();
    b.stop();
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: kill touches no memory; the process is our own child, not yet waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

#[test]
fn locks_end_with_their_process_and_with_their_mount() {
    let Some((world, a, mut b)) = two_mounts() else { return };
    let one = open(&a.at("f"));
    let script = "fcntl.flock(f, fcntl.LOCK_EX)\nfcntl.lockf(f, fcntl.LOCK_EX)\nsay('locked')\n\
                  sys.stdin.read()";
    let (mut child, mut out) = python(&b, script);
    assert_eq!(line(&mut out), "locked");
    assert!(one.try_lock().is_err() && set(&one, READ, 0, 1).is_err());
    child.kill().unwrap();
    child.wait().unwrap();
    until("both are free", || one.try_lock().is_ok() && set(&one, READ, 0, 1).is_ok());
    one.unlock().unwrap();
    set(&one, FREE, 0, 0).unwrap();

    let (mut child, mut out) = python(&b, script);
    assert_eq!(line(&mut out), "locked");
    let session = b.status().unwrap()["mount"]["session"].as_u64().unwrap();
    b.process.kill().unwrap();
    b.process.wait().unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(one.try_lock().is_err(), "its session lives yet");
    world.fake.expire(session);
    one.try_lock().unwrap();
    set(&one, WRITE, 0, 0).unwrap();
    drop(child.stdin.take());
    let _ = child.wait();
    drop(one);
    a.stop();
}

/// Read, add one, write: under the lock nothing is lost, and each sees what the one before wrote,
/// whatever its kernel has in its page cache.
#[test]
fn counters_under_a_lock_count_on_two_mounts() {
    let Some((_world, a, b)) = two_mounts() else { return };
    const EACH: u64 = 25;
    fs::write(a.at("f"), format!("{:>8}", 0)).unwrap();
    let count = |mount: &Mount, flock: bool| {
        let path = mount.at("f");
        move || {
            let file = open(&path);
            for _ in 0..EACH {
                // Of the open file, as threads of one process share the process's.
                let kind = |kind| fcntl(&file, libc::F_OFD_SETLKW, kind, 0, 0).unwrap();
                if flock {
                    file.lock().unwrap()
                } else {
                    kind(WRITE);
                }
                let mut bytes = [0; 8];
                file.read_exact_at(&mut bytes, 0).unwrap();
                let number: u64 = std::str::from_utf8(&bytes).unwrap().trim().parse().unwrap();
                file.write_all_at(format!("{:>8}", number + 1).as_bytes(), 0).unwrap();
                if flock {
                    file.unlock().unwrap()
                } else {
                    kind(FREE);
                }
            }
        }
    };
    for (round, flock) in [true, false].into_iter().enumerate() {
        let threads: Vec<_> =
            [&a, &b, &a, &b].into_iter().map(|mount| thread::spawn(count(mount, flock))).collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let expected = (round as u64 + 1) * 4 * EACH;
        let found = fs::read_to_string(b.at("f")).unwrap();
        assert_eq!(found.trim().parse(), Ok(expected), "flock: {flock}");
    }
    a.stop();
    b.stop();
}

/// A file that grows under a lock is as long for the next one.
#[test]
fn growth_under_a_lock_is_seen_by_the_next() {
    let Some((_world, a, b)) = two_mounts() else { return };
    let mut files = [open(&a.at("log")), open(&b.at("log"))];
    for round in 0..20_usize {
        let file = &mut files[round % 2];
        file.lock().unwrap();
        assert_eq!(file.metadata().unwrap().len(), round as u64 * 5, "round {round}");
        let mut found = String::new();
        std::io::Seek::seek(file, std::io::SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut found).unwrap();
        assert_eq!(found.len(), round * 5);
        file.write_all(b"line\n").unwrap();
        file.unlock().unwrap();
    }
    drop(files);
    a.stop();
    b.stop();
}

/// Whoever lost a lock with the session must not go on as if others were kept out.
#[test]
fn a_handle_whose_lock_was_lost_fails() {
    let Some((world, a, b)) = two_mounts() else { return };
    let (held, plain) = (open(&a.at("f")), open(&a.at("f")));
    held.lock().unwrap();
    let session = |mount: &Mount| mount.status().unwrap()["mount"]["session"].as_u64().unwrap();
    let before = session(&a);
    world.fake.expire(before);
    let other = open(&b.at("f"));
    other.try_lock().unwrap();
    other.write_all_at(b"theirs", 0).unwrap();
    other.sync_all().unwrap();
    until("the mount noticed", || session(&a) != before);
    let code = |outcome: std::io::Result<()>| outcome.unwrap_err().raw_os_error();
    assert_eq!(code(held.write_all_at(b"mine", 0)), Some(libc::ESTALE));
    assert_eq!(code(held.lock_shared()), Some(libc::ESTALE));
    plain.write_all_at(b"plain", 0).expect("which never had a lock");
    plain.sync_all().unwrap();
    assert_eq!(fs::read(b.at("f")).unwrap(), b"plainst");
    drop(held);
    let again = open(&a.at("f"));
    assert!(matches!(again.try_lock(), Err(fs::TryLockError::WouldBlock)));
    other.unlock().unwrap();
    again.try_lock().unwrap();
    drop((plain, other, again));
    a.stop();
    b.stop();
}
