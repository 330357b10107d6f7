//! What programs expect of a mount.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ff2_cluster_tests::{
    Cluster, is_root, may_skip,
    suite::{inodes, wait_collected},
};
use rustix::{
    fs::{
        AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, StatVfs, StatxFlags,
        fallocate, linkat, makedev, mknodat, renameat_with, statvfs, statx,
    },
    io::Errno,
};

#[test]
fn files_and_names() {
    let cluster = Cluster::start().unwrap();
    let root = cluster.mount();
    eprintln!("-- space");
    space(&cluster);
    for (what, check) in [
        ("names", names as fn(&Path)),
        ("names are bytes", names_are_bytes),
        ("renames with flags", renames_with_flags),
        ("special nodes", special_nodes),
        ("not served", not_served),
        ("links", links),
        ("unlinked while open", unlinked_while_open),
        ("without a name", without_a_name),
        ("sparse and truncate", sparse_and_truncate),
        ("allocate", allocate),
        ("append", append),
        ("many entries", many_entries),
        ("mapped", mapped),
        ("permissions", permissions),
        ("set-group-id and sticky", setgid_and_sticky),
        ("times", times),
        ("access times", access_times),
        ("locks", locks),
    ] {
        eprintln!("-- {what}");
        let folder = root.join(what);
        fs::create_dir(&folder).unwrap();
        check(&folder);
    }
}

fn names(dir: &Path) {
    let long = "n".repeat(255);
    fs::write(dir.join(&long), b"x").unwrap();
    let too_long = fs::write(dir.join("n".repeat(256)), b"x").unwrap_err();
    assert_eq!(too_long.raw_os_error(), Some(36), "ENAMETOOLONG");
    fs::create_dir(dir.join("a")).unwrap();
    fs::create_dir(dir.join("a/b")).unwrap();
    assert_eq!(fs::remove_dir(dir.join("a")).unwrap_err().raw_os_error(), Some(39), "ENOTEMPTY");
    assert_eq!(fs::create_dir(dir.join("a")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    // A directory cannot be moved below itself.
    assert_eq!(fs::rename(dir.join("a"), dir.join("a/b/c")).unwrap_err().raw_os_error(), Some(22));
    fs::write(dir.join("one"), b"1").unwrap();
    fs::write(dir.join("two"), b"2").unwrap();
    fs::rename(dir.join("one"), dir.join("two")).unwrap();
    assert_eq!(fs::read(dir.join("two")).unwrap(), b"1");
    assert!(!dir.join("one").exists());
    OpenOptions::new().write(true).create_new(true).open(dir.join("two")).unwrap_err();
}

/// No encoding is assumed; all bytes but `/` and 0 may be in a name.
fn names_are_bytes(dir: &Path) {
    let all: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    for name in [&all[..], b"caf\xe9", b"\xff\xfe", b"line\nbreak", b"\x80"] {
        let name = OsStr::from_bytes(name);
        fs::write(dir.join(name), name.as_bytes()).unwrap();
        let listed = fs::read_dir(dir).unwrap().any(|entry| entry.unwrap().file_name() == name);
        assert!(listed, "{name:?} is not listed");
        assert_eq!(fs::read(dir.join(name)).unwrap(), name.as_bytes());
        let renamed = [name.as_bytes().split_at(1).1, b"\xc3"].concat();
        fs::rename(dir.join(name), dir.join(OsStr::from_bytes(&renamed))).unwrap();
        fs::remove_file(dir.join(OsStr::from_bytes(&renamed))).unwrap();
    }
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
    // A target is bytes as well, up to 4095.
    let target: Vec<u8> = (0..4095_u32).map(|n| (n * 7 % 255) as u8 + 1).collect();
    symlink(OsStr::from_bytes(&target), dir.join("long")).unwrap();
    assert_eq!(fs::read_link(dir.join("long")).unwrap().as_os_str().as_bytes(), target);
    assert_eq!(fs::symlink_metadata(dir.join("long")).unwrap().len(), 4095);
    let too_long = symlink("t".repeat(4096), dir.join("longer")).unwrap_err();
    assert_eq!(too_long.raw_os_error(), Some(36), "ENAMETOOLONG");
}

/// `renameat2`: what must not replace does not, and what exchanges does both at once.
fn renames_with_flags(dir: &Path) {
    let rename =
        |from: &str, to: &str, flags| renameat_with(CWD, dir.join(from), CWD, dir.join(to), flags);
    fs::write(dir.join("a"), b"a").unwrap();
    fs::write(dir.join("b"), b"b").unwrap();
    assert_eq!(rename("a", "b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!(fs::read(dir.join("b")).unwrap(), b"b");
    rename("a", "c", RenameFlags::NOREPLACE).unwrap();
    assert!(!dir.join("a").exists());
    assert_eq!(fs::read(dir.join("c")).unwrap(), b"a");

    let inode = |name: &str| fs::metadata(dir.join(name)).unwrap().ino();
    let before = (inode("b"), inode("c"));
    rename("b", "c", RenameFlags::EXCHANGE).unwrap();
    assert_eq!((inode("c"), inode("b")), before);
    assert_eq!(
        (&fs::read(dir.join("b")).unwrap()[..], &fs::read(dir.join("c")).unwrap()[..]),
        (&b"a"[..], &b"b"[..])
    );
    assert_eq!(rename("b", "missing", RenameFlags::EXCHANGE), Err(Errno::NOENT));
    // Of different kinds, with something inside: `rename` could not do that.
    fs::create_dir(dir.join("d")).unwrap();
    fs::write(dir.join("d/inner"), b"i").unwrap();
    rename("d", "b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(dir.join("b/inner")).unwrap(), b"i");
    assert_eq!(fs::read(dir.join("d")).unwrap(), b"a");
    assert_eq!(fs::metadata(dir).unwrap().nlink(), 3, "one folder, as before");
    let both = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
    assert_eq!(rename("b", "c", both), Err(Errno::INVAL));
    // A directory is not exchanged with what lies in it.
    assert_eq!(rename("b", "b/inner", RenameFlags::EXCHANGE), Err(Errno::INVAL));
}

/// Pipes, sockets and devices are names with a type; what they do is the kernel's.
fn special_nodes(dir: &Path) {
    let mode = Mode::from_raw_mode(0o640);
    let make = |name: &str, kind, device| mknodat(CWD, dir.join(name), kind, mode, device);
    make("fifo", FileType::Fifo, 0).unwrap();
    assert_eq!(make("fifo", FileType::Fifo, 0), Err(Errno::EXIST));
    let kind = |name: &str| fs::symlink_metadata(dir.join(name)).unwrap().file_type();
    assert!(kind("fifo").is_fifo());
    assert_eq!(fs::metadata(dir.join("fifo")).unwrap().mode() & 0o7777, 0o640);
    // Both ends, through the mount.
    let reader = std::thread::spawn({
        let path = dir.join("fifo");
        move || fs::read(path).unwrap()
    });
    fs::write(dir.join("fifo"), b"through").unwrap();
    assert_eq!(reader.join().unwrap(), b"through");
    let socket = UnixListener::bind(dir.join("socket")).unwrap();
    assert!(kind("socket").is_socket());
    drop(socket);
    make("file", FileType::RegularFile, 0).unwrap();
    assert!(kind("file").is_file());
    let listed = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let fifos = listed.filter(|entry| entry.file_type().unwrap().is_fifo()).count();
    assert_eq!(fifos, 1, "a listing tells types");
    for name in ["fifo", "socket", "file"] {
        fs::remove_file(dir.join(name)).unwrap();
    }
}

/// `O_TMPFILE`: a file that nobody sees until it is linked, and that goes with its last close.
fn without_a_name(dir: &Path) {
    let make = |flags| {
        let how = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC | flags;
        File::from(rustix::fs::open(dir, how, Mode::from_raw_mode(0o640)).unwrap())
    };
    let give_name = |file: &File, name: &str| {
        let number = std::os::fd::AsRawFd::as_raw_fd(file);
        let known_as = format!("/proc/self/fd/{number}");
        linkat(CWD, &known_as, CWD, dir.join(name), AtFlags::SYMLINK_FOLLOW)
    };
    let body = vec![9; 3 << 20];
    let mut file = make(OFlags::empty());
    file.write_all(&body).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
    // Longer than the collector's rounds: what may get a name does not go.
    std::thread::sleep(Duration::from_secs(3));
    give_name(&file, "named").unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 1);
    drop(file);
    std::thread::sleep(Duration::from_secs(3));
    assert!(fs::read(dir.join("named")).unwrap() == body);
    assert_eq!(fs::metadata(dir.join("named")).unwrap().mode() & 0o7777, 0o640);
    fs::remove_file(dir.join("named")).unwrap();

    assert_eq!(give_name(&make(OFlags::EXCL), "exclusive"), Err(Errno::NOENT));
    let before = inodes(dir).unwrap();
    let mut small = make(OFlags::empty());
    small.write_all(b"small").unwrap();
    let mut text = String::new();
    small.rewind().unwrap();
    small.read_to_string(&mut text).unwrap();
    assert_eq!(text, "small");
    drop(small);
    wait_collected(dir, before).unwrap();
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
}

/// What Linux has and a mount has not, by the errors that programs are prepared for.
fn not_served(dir: &Path) {
    fs::write(dir.join("a"), b"a").unwrap();
    let mode = Mode::from_raw_mode(0o600);
    let whiteout = renameat_with(CWD, dir.join("a"), CWD, dir.join("b"), RenameFlags::WHITEOUT);
    assert_eq!(whiteout, Err(Errno::INVAL));
    assert!(dir.join("a").exists() && !dir.join("b").exists());
    // As /dev/null.
    mknodat(CWD, dir.join("null"), FileType::CharacterDevice, mode, makedev(1, 3)).unwrap();
    assert_eq!(fs::symlink_metadata(dir.join("null")).unwrap().rdev(), makedev(1, 3));
    assert_eq!(File::open(dir.join("null")).unwrap_err().raw_os_error(), Some(13), "EACCES");
}

/// `df`: what files can use, that is the disks divided by the replicas.
fn space(cluster: &Cluster) {
    const BODY: u64 = 32 << 20;
    let root = cluster.mount();
    let nodes = cluster.json(&["node", "list"]).unwrap();
    let disks = nodes.as_array().unwrap().iter().flat_map(|node| node["disks"].as_array().unwrap());
    let capacity: u64 = disks.map(|disk| disk["capacity_bytes"].as_u64().unwrap()).sum();
    assert!(capacity > 4 << 30, "four disks: {nodes}");
    let before = statvfs(&root).unwrap();
    assert_eq!(before.f_blocks, capacity / 3 / before.f_frsize);
    assert_eq!(before.f_namemax, 255);
    assert!(before.f_bavail <= before.f_blocks && before.f_bavail > before.f_blocks * 9 / 10);

    let mut file = File::create(root.join("space")).unwrap();
    file.write_all(&vec![1; BODY as usize]).unwrap();
    file.sync_all().unwrap();
    let used =
        |now: &StatVfs| (before.f_bavail - now.f_bavail.min(before.f_bavail)) * before.f_frsize;
    // The metad's figures are up to two seconds old, and the disks' are of their last sync.
    let now = until_space(&root, |now| used(now) >= BODY);
    assert!(used(&now) < BODY * 5 / 4, "{BODY} bytes took {}", used(&now));
    assert_eq!(now.f_files - now.f_ffree, before.f_files - before.f_ffree + 1, "one more file");
    drop(file);
    fs::remove_file(root.join("space")).unwrap();
    until_space(&root, |now| used(now) < BODY / 8);
}

fn until_space(root: &Path, is_so: impl Fn(&StatVfs) -> bool) -> StatVfs {
    let begun = Instant::now();
    loop {
        let now = statvfs(root).unwrap();
        if is_so(&now) {
            return now;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the space stays: {} free",
            now.f_bavail
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn links(dir: &Path) {
    fs::write(dir.join("file"), b"body").unwrap();
    fs::hard_link(dir.join("file"), dir.join("hard")).unwrap();
    assert_eq!(fs::metadata(dir.join("file")).unwrap().nlink(), 2);
    fs::remove_file(dir.join("file")).unwrap();
    assert_eq!(fs::read(dir.join("hard")).unwrap(), b"body");
    assert_eq!(fs::metadata(dir.join("hard")).unwrap().nlink(), 1);
    symlink("hard", dir.join("soft")).unwrap();
    assert_eq!(fs::read_link(dir.join("soft")).unwrap(), Path::new("hard"));
    assert_eq!(fs::read(dir.join("soft")).unwrap(), b"body");
}

fn unlinked_while_open(dir: &Path) {
    let path = dir.join("file");
    fs::write(&path, vec![7; 3 << 20]).unwrap();
    let mut open = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(!path.exists());
    // Longer than the collector's rounds: it must see that the file is held.
    std::thread::sleep(Duration::from_secs(4));
    let mut body = Vec::new();
    open.read_to_end(&mut body).unwrap();
    assert!(body == vec![7; 3 << 20], "the data went away under an open file");
    open.write_all(b"more").unwrap();
    open.seek(SeekFrom::Start(3 << 20)).unwrap();
    body.clear();
    open.read_to_end(&mut body).unwrap();
    assert_eq!(body, b"more");
}

fn sparse_and_truncate(dir: &Path) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(dir.join("file"))
        .unwrap();
    file.write_all_at(b"end", 20 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), (20 << 20) + 3);
    let mut middle = vec![1; 100_000];
    file.read_exact_at(&mut middle, 9_999_999).unwrap();
    assert!(middle.iter().all(|b| *b == 0), "holes read as zeros");
    file.write_all_at(&[9; 200_000], 4_000_000).unwrap();
    file.set_len(4_100_000).unwrap();
    file.set_len(8_000_000).unwrap();
    let mut after = vec![1; 200_000];
    file.read_exact_at(&mut after, 4_050_000).unwrap();
    assert!(after[..50_000].iter().all(|b| *b == 9), "what was kept is kept");
    assert!(after[50_000..].iter().all(|b| *b == 0), "what was cut does not come back");
    // Where holes are is not told.
    assert_eq!(file.metadata().unwrap().blocks(), 8_000_000_u64.div_ceil(512));
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)), Ok(8_000_000));
}

fn allocate(dir: &Path) {
    for (name, bytes) in [("small", 3_000_u64), ("large", 5 << 20)] {
        let path = dir.join(name);
        fs::write(&path, vec![7; bytes as usize]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let size = || fs::metadata(&path).unwrap().len();
        fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 9 << 20).unwrap();
        assert_eq!(size(), bytes);
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, punch, 1_000, 1_500).unwrap();
        fallocate(&file, punch, bytes - 10, 1 << 30).unwrap();
        assert_eq!(size(), bytes);
        fallocate(&file, FallocateFlags::ZERO_RANGE, bytes, 100).unwrap();
        assert_eq!(size(), bytes + 100);
        fallocate(&file, FallocateFlags::empty(), bytes, 20_000).unwrap();
        assert_eq!(size(), bytes + 20_000);
        let collapse = fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4096);
        assert_eq!(collapse, Err(Errno::OPNOTSUPP));
        let whole = fs::read(&path).unwrap();
        let is_hole = |at: u64| (1_000..2_500).contains(&at) || at >= bytes - 10;
        assert_eq!(whole.len() as u64, bytes + 20_000);
        let differs = |(at, byte): (usize, &u8)| (*byte == 0) != is_hole(at as u64);
        assert_eq!(whole.iter().enumerate().position(differs), None, "{name}");
        let read_only = File::open(&path).unwrap();
        assert_eq!(fallocate(&read_only, punch, 0, 1), Err(Errno::BADF));
    }
}

fn append(dir: &Path) {
    for round in 0..50_u8 {
        let mut file = OpenOptions::new().append(true).create(true).open(dir.join("log")).unwrap();
        file.write_all(&[round; 777]).unwrap();
    }
    let body = fs::read(dir.join("log")).unwrap();
    assert_eq!(body.len(), 50 * 777);
    for (round, part) in body.chunks(777).enumerate() {
        assert!(part.iter().all(|b| usize::from(*b) == round), "append {round}");
    }
}

fn many_entries(dir: &Path) {
    for number in 0..1_500 {
        File::create(dir.join(format!("entry-{number:04}"))).unwrap();
    }
    // Names that come and go all the while a listing runs do not disturb the others.
    let mut seen = Vec::new();
    let (mut go, mut come) = ((0..1_500).step_by(3), 0..500);
    for entry in fs::read_dir(dir).unwrap() {
        seen.push(entry.unwrap().file_name().into_string().unwrap());
        if let (Some(gone), Some(new)) = (go.next(), come.next()) {
            fs::remove_file(dir.join(format!("entry-{gone:04}"))).unwrap();
            File::create(dir.join(format!("new-{new:04}"))).unwrap();
        }
    }
    assert_eq!((go.next(), come.next()), (None, None), "the listing was long enough");
    seen.sort();
    let total = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), total, "an entry was listed twice");
    for number in (0..1_500).filter(|n| n % 3 != 0) {
        let name = format!("entry-{number:04}");
        assert!(seen.binary_search(&name).is_ok(), "{name} is missing");
    }
    assert_eq!(fs::read_dir(dir).unwrap().count(), 1_500);
}

/// Programs run from the mount: the kernel maps their pages.
fn mapped(dir: &Path) {
    fs::copy("/bin/cat", dir.join("cat")).unwrap();
    fs::write(dir.join("input"), b"through a mapped program\n").unwrap();
    let output = Command::new(dir.join("cat")).arg(dir.join("input")).output().unwrap();
    assert_eq!(output.stdout, b"through a mapped program\n");
}

/// Runs a shell line as another user; returns whether it succeeded.
fn as_user(uid: u32, gid: u32, line: &str, dir: &Path) -> bool {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(dir).uid(uid).gid(gid);
    shell.output().unwrap().status.success()
}

fn permissions(dir: &Path) {
    if !is_root() {
        return;
    }
    fs::write(dir.join("secret"), b"s").unwrap();
    fs::set_permissions(dir.join("secret"), PermissionsExt::from_mode(0o600)).unwrap();
    assert!(!as_user(1234, 1234, "cat secret", dir), "others read a 0600 file");
    fs::set_permissions(dir.join("secret"), PermissionsExt::from_mode(0o644)).unwrap();
    assert!(as_user(1234, 1234, "cat secret", dir));
    assert!(!as_user(1234, 1234, "echo x >> secret", dir), "others wrote a 0644 file");
    assert!(!as_user(1234, 1234, "touch new", dir), "others created in a 0755 folder");
    assert!(!as_user(1234, 1234, "chmod 666 secret", dir), "others changed the mode");
    fs::set_permissions(dir, PermissionsExt::from_mode(0o777)).unwrap();
    assert!(as_user(1234, 1234, "echo mine > own && chmod 600 own", dir));
    assert_eq!(fs::metadata(dir.join("own")).unwrap().uid(), 1234);
    assert!(!as_user(4321, 4321, "cat own", dir));
}

fn setgid_and_sticky(dir: &Path) {
    if !is_root() {
        return;
    }
    std::os::unix::fs::chown(dir, Some(0), Some(777)).unwrap();
    fs::set_permissions(dir, PermissionsExt::from_mode(0o3777)).unwrap();
    assert!(as_user(1234, 1234, "touch file && mkdir sub", dir));
    assert_eq!(fs::metadata(dir.join("file")).unwrap().gid(), 777, "the group is inherited");
    assert_eq!(fs::metadata(dir.join("sub")).unwrap().mode() & 0o2000, 0o2000, "set-group-id too");
    assert!(!as_user(4321, 4321, "rm -f file", dir), "sticky: only the owner removes");
    assert!(as_user(1234, 1234, "rm file", dir));
}

fn times(dir: &Path) {
    let file = File::create(dir.join("file")).unwrap();
    let stamp = UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    file.set_modified(stamp).unwrap();
    drop(file);
    assert_eq!(
        fs::metadata(dir.join("file")).unwrap().modified().unwrap(),
        stamp,
        "nanoseconds are kept"
    );
    let told = statx(CWD, dir.join("file"), AtFlags::empty(), StatxFlags::ALL).unwrap();
    assert_ne!(told.stx_mask & StatxFlags::BTIME.bits(), 0, "the time of birth is known");
    let birth = UNIX_EPOCH + Duration::from_secs(told.stx_btime.tv_sec as u64);
    let age = SystemTime::now().duration_since(birth).unwrap();
    assert!(birth > stamp && age < Duration::from_secs(60), "and stays: {age:?}");
}

/// Access times are those of relatime, and can be set.
fn access_times(dir: &Path) {
    let path = dir.join("file");
    fs::write(&path, b"body").unwrap();
    let created = fs::metadata(&path).unwrap();
    let age = SystemTime::now().duration_since(created.accessed().unwrap()).unwrap();
    assert!(age < Duration::from_secs(10), "it is set at creation, not {age:?} before");
    let read = || {
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(fs::read(&path).unwrap(), b"body");
        fs::metadata(&path).unwrap()
    };
    let first = read();
    assert!(first.accessed().unwrap() > created.accessed().unwrap(), "a read changes it");
    assert_eq!(first.modified().unwrap(), created.modified().unwrap());
    let again = read();
    assert_eq!(again.accessed().unwrap(), first.accessed().unwrap(), "once");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let read = read();
    assert!(read.accessed().unwrap() > first.accessed().unwrap(), "and after each change");
    let stamp = UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321);
    let times = fs::FileTimes::new().set_accessed(stamp);
    File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
    let set = fs::metadata(&path).unwrap();
    assert_eq!((set.atime(), set.atime_nsec()), (1_234_567_890, 987_654_321));
    assert_eq!((set.mtime(), set.mtime_nsec()), (read.mtime(), read.mtime_nsec()));
}

fn until_free(file: &File) {
    let begun = Instant::now();
    while file.try_lock().is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5), "the lock outlives its file");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// `flock` and POSIX locks hold between the programs of one mount.
fn locks(dir: &Path) {
    let path = dir.join("file");
    let (one, two) = (File::create(&path).unwrap(), File::open(&path).unwrap());
    one.lock().unwrap();
    assert!(matches!(two.try_lock_shared(), Err(fs::TryLockError::WouldBlock)));
    one.unlock().unwrap();
    two.lock_shared().unwrap();
    assert!(matches!(one.try_lock(), Err(fs::TryLockError::WouldBlock)));
    drop(two);
    // The kernel tells of the last close a moment after `close` returned.
    until_free(&one);
    drop(one);
    // Another program's byte ranges: only the kernel knows whom they belong to.
    let script = "import fcntl, sys; f = open('file', 'r+')\n\
                  fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)\n\
                  print('locked', flush=True); sys.stdin.read()";
    let python = |script: &str| {
        let mut python = Command::new("python3");
        python.args(["-c", script]).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        python
    };
    let mut holder = match python(script).spawn() {
        Ok(holder) => holder,
        Err(error) => {
            let missing = format!("python3 does not start: {error}");
            assert!(may_skip(&missing), "{missing}; FF2_TEST_ALLOW_SKIP=1 leaves this out");
            return;
        }
    };
    let mut told = [0; 6];
    holder.stdout.as_mut().unwrap().read_exact(&mut told).unwrap();
    let attempt = |length: u32, start: u32| {
        let line = format!(
            "import fcntl; f = open('file', 'r+')\n\
             fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, {length}, {start})"
        );
        python(&line).stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(!attempt(1, 14), "the last byte of the range is locked");
    assert!(attempt(5, 0) && attempt(1, 15), "its neighbours are free");
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    assert!(attempt(10, 5), "the lock ends with its program");
}
