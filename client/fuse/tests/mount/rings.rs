//! User rings on real mounts: what they read and write, what they may, and what hostile ones reach.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileExt, OpenOptionsExt, PermissionsExt},
    },
    path::Path,
    sync::atomic::Ordering::{Relaxed, SeqCst},
    thread,
    time::Duration,
};

use ff2_ring::{
    Class, Completion, Error, Op, Options, Region, Ring, RingFile,
    control::{ATTRIBUTE, Question, ask, ring_bell},
    layout::{Line, Submission},
    limits::OPERATION_BYTES_MAX,
    mapping::{Mapping, RingMemory},
    queue::{Memory, ProgramSide},
};
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::{Mount, fake::CHUNK_SIZE, pattern, until, world};

/// Nothing here takes that long: who waits so long waits for ever.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

fn ring(mount: &Mount) -> Ring {
    Ring::connect(&mount.path, &Options::default()).unwrap()
}

fn both(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// Carries one operation out.
fn one(ring: &mut Ring, op: Op) -> std::io::Result<usize> {
    ring.push(op.user_data(77)).unwrap();
    let found = ring.reap(1, PATIENCE).unwrap();
    assert_eq!(found.iter().map(Completion::user_data).collect::<Vec<_>>(), [77]);
    found[0].result()
}

fn bytes(region: &Region, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    region.read(0, &mut bytes);
    bytes
}

fn errno(outcome: std::io::Result<usize>) -> Option<i32> {
    outcome.unwrap_err().raw_os_error()
}

/// What its status says of rings: how many, and the bytes of their regions.
fn shown(mount: &Mount) -> (u64, u64) {
    let status = mount.status().unwrap();
    let rings = &status["mount"]["user_rings"];
    (rings["rings"].as_u64().unwrap(), rings["region_bytes"].as_u64().unwrap())
}

#[test]
fn a_ring_and_the_mount_see_the_same_bytes() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let whole = pattern(3_000_000, 1);
    fs::write(mount.at("f"), &whole).unwrap();
    let file = both(&mount.at("f"));
    let mut ring = ring(&mount);
    let region = ring.region(4 << 20).unwrap();
    let registered = ring.file(&file).unwrap();
    // In pieces that begin and end anywhere, in one batch.
    let piece = 123_457;
    for (number, at) in (0..whole.len()).step_by(piece).enumerate() {
        let range = at..at + piece;
        let class = if number % 2 == 0 { Class::High } else { Class::Low };
        let op = Op::read(registered, at as u64, &region, range).unwrap();
        ring.push(op.class(class).user_data(number as u64)).unwrap();
    }
    let count = ring.outstanding() as usize;
    let mut found = ring.reap(count, PATIENCE).unwrap();
    found.sort_by_key(Completion::user_data);
    for (number, completion) in found.iter().enumerate() {
        let rest = whole.len() - number * piece;
        assert_eq!(completion.user_data(), number as u64);
        assert_eq!(completion.result().unwrap(), piece.min(rest), "fewer only at the end");
    }
    assert!(bytes(&region, whole.len()) == whole);
    // Now the kernel has pages of it, which a write by the ring changes.
    assert!(fs::read(mount.at("f")).unwrap() == whole);
    let changed = pattern(300_000, 2);
    region.write(100, &changed);
    let write = Op::write(registered, 1_000_001, &region, 100..100 + changed.len()).unwrap();
    assert_eq!(one(&mut ring, write).unwrap(), changed.len());
    let mut expected = whole;
    expected[1_000_001..1_300_001].copy_from_slice(&changed);
    assert!(fs::read(mount.at("f")).unwrap() == expected, "the kernel's pages were dropped");
    // And what the kernel writes the ring reads.
    file.write_all_at(b"by the kernel", 2_000_000).unwrap();
    let read = Op::read(registered, 2_000_000, &region, 0..13).unwrap();
    assert_eq!(one(&mut ring, read).unwrap(), 13);
    assert_eq!(bytes(&region, 13), b"by the kernel");
    // Beyond the end there is nothing, until somebody writes there.
    let beyond = Op::read(registered, 3_000_000, &region, 0..10).unwrap();
    assert_eq!(one(&mut ring, beyond).unwrap(), 0);
    region.write(0, b"end");
    assert_eq!(
        one(&mut ring, Op::write(registered, 3_000_000, &region, 0..3).unwrap()).unwrap(),
        3
    );
    assert_eq!(fs::metadata(mount.at("f")).unwrap().len(), 3_000_003);
    assert_eq!(one(&mut ring, Op::fsync(registered)).unwrap(), 0);
    // Its number does not need the descriptor any more.
    drop(file);
    assert_eq!(one(&mut ring, beyond).unwrap(), 3);
    ring.remove_file(registered).unwrap();
    assert_eq!(errno(one(&mut ring, beyond)), Some(libc::EBADF));
    assert!(matches!(
        ring.remove_file(registered),
        Err(Error::Refused { errno: libc::ENOENT, .. })
    ));
    mount.stop();
}

#[test]
fn small_files_and_appends_are_written_as_by_the_kernel() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let mut ring = ring(&mount);
    let region = ring.region(4096).unwrap();
    region.write(0, b"0123456789");
    let path = mount.at("small");
    let small = ring.file(both(&path)).unwrap();
    assert_eq!(one(&mut ring, Op::write(small, 2, &region, 0..5).unwrap()).unwrap(), 5);
    assert_eq!(fs::read(&path).unwrap(), b"\0\x0001234");
    let log = OpenOptions::new().append(true).create(true).open(mount.at("log")).unwrap();
    let registered = ring.file(&log).unwrap();
    (&log).write_all(b"one ").unwrap();
    assert_eq!(one(&mut ring, Op::write(registered, 0, &region, 0..4).unwrap()).unwrap(), 4);
    (&log).write_all(b" two").unwrap();
    assert_eq!(fs::read(mount.at("log")).unwrap(), b"one 0123 two", "the offset is not looked at");
    mount.stop();
}

#[test]
fn a_write_takes_setuid_away() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let file = both(&mount.at("program"));
    fs::set_permissions(mount.at("program"), fs::Permissions::from_mode(0o4755)).unwrap();
    let mut ring = ring(&mount);
    let region = ring.region(4096).unwrap();
    let registered = ring.file(&file).unwrap();
    assert_eq!(one(&mut ring, Op::write(registered, 0, &region, 0..9).unwrap()).unwrap(), 9);
    let mode = fs::metadata(mount.at("program")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    mount.stop();
}

#[test]
fn two_mounts_see_what_rings_wrote_and_synced() {
    let Some(world) = world() else { return };
    let (here, there) = (world.mount("here"), world.mount("there"));
    fs::write(here.at("f"), pattern(1 << 20, 1)).unwrap();
    let files = [both(&here.at("f")), both(&there.at("f"))];
    let mut rings = [ring(&here), ring(&there)];
    let regions = rings.each_mut().map(|ring| ring.region(1 << 20).unwrap());
    let mut registered = Vec::new();
    for (ring, file) in rings.iter_mut().zip(&files) {
        registered.push(ring.file(file).unwrap());
    }
    for round in 0..20_usize {
        let (from, to) = (round % 2, (round + 1) % 2);
        let length = 1000 + 40_000 * round;
        let written = pattern(length, round as u64);
        regions[from].write(0, &written);
        let write = Op::write(registered[from], 17, &regions[from], 0..length).unwrap();
        assert_eq!(one(&mut rings[from], write).unwrap(), length);
        assert_eq!(one(&mut rings[from], Op::fsync(registered[from])).unwrap(), 0);
        let read = Op::read(registered[to], 17, &regions[to], 0..length).unwrap();
        assert_eq!(one(&mut rings[to], read).unwrap(), length);
        assert!(bytes(&regions[to], length) == written, "by the ring, round {round}");
        let mut found = vec![0; length];
        files[to].read_exact_at(&mut found, 17).unwrap();
        assert!(found == written, "by the kernel, round {round}");
    }
    here.stop();
    there.stop();
}

/// As the kernel does for `write(2)`: else a small file would be with the namespace after an fsync only.
#[test]
fn writes_of_a_synced_file_are_seen_by_others_at_once() {
    let Some(world) = world() else { return };
    let (here, there) = (world.mount("here"), world.mount("there"));
    let mut synced = OpenOptions::new();
    let file = synced.write(true).create(true).truncate(false).custom_flags(libc::O_DSYNC);
    let file = file.open(here.at("f")).unwrap();
    let mut ring = ring(&here);
    let region = ring.region(4096).unwrap();
    let registered = ring.file(&file).unwrap();
    for length in (100..4000).step_by(100) {
        let op = Op::write(registered, 0, &region, 0..length).unwrap();
        assert_eq!(one(&mut ring, op).unwrap(), length);
        assert_eq!(fs::metadata(there.at("f")).unwrap().len(), length as u64);
    }
    here.stop();
    there.stop();
}

/// Runs something on a thread that has the rights of user 4242 only.
fn as_stranger<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let run = move || {
        let id: libc::c_long = 4242;
        // SAFETY: the system calls themselves change this thread only, and touch no memory.
        let groups = unsafe { libc::syscall(libc::SYS_setgroups, 0, 0) };
        // SAFETY: as above.
        let group = unsafe { libc::syscall(libc::SYS_setresgid, id, id, id) };
        // SAFETY: as above.
        let user = unsafe { libc::syscall(libc::SYS_setresuid, id, id, id) };
        assert_eq!((groups, group, user), (0, 0, 0));
        work()
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap())
}

#[test]
fn a_descriptor_is_the_right_and_nothing_else_is() {
    let Some(world) = world() else { return };
    let mount = world.mount_with("m", "allow_other = true");
    let other = world.mount("other");
    fs::set_permissions(&mount.path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(mount.at("secret"), b"secret").unwrap();
    fs::set_permissions(mount.at("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let reads = File::open(mount.at("secret")).unwrap();
    let writes = OpenOptions::new().write(true).open(mount.at("secret")).unwrap();
    let elsewhere = both(&other.at("secret"));
    let folder = File::open(&mount.path).unwrap();
    let path_only =
        OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(mount.at("secret")).unwrap();
    let mut changing = None;
    as_stranger(|| {
        assert!(File::open(mount.at("secret")).is_err(), "this user may not open it");
        let mut ring = ring(&mount);
        let region = ring.region(4096).unwrap();
        let [reads, writes] = [&reads, &writes].map(|file| ring.file(file).unwrap());
        assert_eq!(one(&mut ring, Op::read(reads, 0, &region, 0..100).unwrap()).unwrap(), 6);
        assert_eq!(bytes(&region, 6), b"secret");
        let refused = Op::write(reads, 0, &region, 0..6).unwrap();
        assert_eq!(errno(one(&mut ring, refused)), Some(libc::EBADF));
        let refused = Op::read(writes, 0, &region, 0..6).unwrap();
        assert_eq!(errno(one(&mut ring, refused)), Some(libc::EBADF));
        assert_eq!(one(&mut ring, Op::write(writes, 1, &region, 0..2).unwrap()).unwrap(), 2);
        for (file, wrong, says) in [
            (elsewhere.as_fd(), libc::EXDEV, "its own mount"),
            (folder.as_fd(), libc::EINVAL, "regular files"),
            (path_only.as_fd(), libc::EBADF, "O_PATH"),
            (std::io::stdin().as_fd(), libc::EXDEV, "its own mount"),
        ] {
            let refused = ring.file(file).unwrap_err();
            assert_eq!(
                (refused.errno(), refused.to_string().contains(says)),
                (wrong, true),
                "{says}"
            );
        }
        // A number that was not given to this ring is nothing.
        let unknown = Submission { op: 1, file: 99, region: 1, length: 6, ..Submission::default() };
        let mut side = raw(&mount).0;
        assert!(side.side.push(unknown));
        assert_eq!(side.results(1), [-i64::from(libc::EBADF)]);
        changing = Some(ring);
    });
    assert_eq!(fs::read(mount.at("secret")).unwrap(), b"sseret");
    // The right stays what it was, whatever becomes of the file's mode and name.
    fs::remove_file(mount.at("secret")).unwrap();
    let mut ring = changing.unwrap();
    let region = ring.region(4096).unwrap();
    let again = ring.file(&reads).unwrap();
    assert_eq!(one(&mut ring, Op::read(again, 0, &region, 0..100).unwrap()).unwrap(), 6);
    mount.stop();
    other.stop();
}

#[test]
fn misuse_is_told_with_advice() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let none = Ring::connect(world.folder.path(), &Options::default()).unwrap_err();
    assert!(none.to_string().contains("use a path on the mount"), "{none}");
    for entries in [0, 4097, u32::MAX] {
        let refused = Ring::connect(&mount.path, &Options { entries }).unwrap_err();
        assert!(refused.to_string().contains("1 to 4096 entries"), "{refused}");
    }
    let mut ring = Ring::connect(&mount.path, &Options { entries: 3 }).unwrap();
    assert_eq!(ring.region(0).unwrap_err().errno(), libc::EINVAL);
    assert!(ring.region(usize::MAX).is_err());
    let region = ring.region(64 << 20).unwrap();
    let file = ring.file(both(&mount.at("f"))).unwrap();
    assert!(Op::read(file, 0, &region, 0..(64 << 20) + 1).is_err());
    let long = Op::read(file, 0, &region, 0..OPERATION_BYTES_MAX as usize + 1).unwrap_err();
    assert!(long.to_string().contains("push several"), "{long}");
    for _ in 0..4 {
        ring.push(Op::fsync(file)).unwrap();
    }
    let full = ring.push(Op::fsync(file)).unwrap_err();
    assert!(matches!(full, Error::Full { entries: 4 }) && full.to_string().contains("reap"));
    assert_eq!(ring.reap(4, PATIENCE).unwrap().len(), 4);
    // Nothing is outstanding: nothing is waited for.
    assert!(ring.reap(1, None).unwrap().is_empty());
    ring.remove_region(&region).unwrap();
    assert_eq!(
        errno(one(&mut ring, Op::read(file, 0, &region, 0..1).unwrap())),
        Some(libc::EFAULT)
    );
    region.write(0, b"the memory is still ours");
    // The attribute is the mount's own: nobody can lead others elsewhere, and no listing shows it.
    let set = rustix::fs::setxattr(
        mount.at("f"),
        ATTRIBUTE,
        b"elsewhere",
        rustix::fs::XattrFlags::empty(),
    );
    assert_eq!(set, Err(rustix::io::Errno::PERM));
    let mut names = [0_u8; 256];
    assert_eq!(rustix::fs::listxattr(mount.at("f"), &mut names[..]), Ok(0));
    mount.stop();
}

/// A program that does as it likes with its ring.
struct Raw {
    socket: OwnedFd,
    bell: OwnedFd,
    side: ProgramSide<RingMemory>,
}

impl Raw {
    /// Submits what was pushed, and returns the results of so many operations.
    fn results(&mut self, count: usize) -> Vec<i64> {
        let _ = self.side.publish();
        ring_bell(&self.bell);
        let mut results = Vec::new();
        until("completions", || {
            while let Some(completed) = self.side.reap().unwrap() {
                results.push(completed.result);
            }
            results.len() >= count
        });
        results
    }

    /// Waits until the mount leaves the ring, and returns why it did.
    fn closed_by(&self) -> u32 {
        let mut rings = [0_u8; 64];
        let mut hear = || rustix::net::recv(&self.bell, &mut rings, RecvFlags::empty());
        // Reset: the mount left with our own ring of the bell unheard.
        while hear().is_ok_and(|(_, count)| count > 0) {}
        self.side.memory().line(Line::ClosedBy).load(Relaxed)
    }
}

fn dial(mount: &Mount) -> OwnedFd {
    let mut name = [0_u8; 100];
    let length = rustix::fs::getxattr(&mount.path, ATTRIBUTE, &mut name[..]).unwrap();
    let address = SocketAddrUnix::new_abstract_name(&name[..length]).unwrap();
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    socket
}

/// With a region of a page, which is number 1.
fn raw(mount: &Mount) -> (Raw, Mapping) {
    let socket = dial(mount);
    let (memory, descriptor) = RingMemory::create(8).unwrap();
    let question = Question::Serve { entries: 8 };
    let (answer, bell) = ask(socket.as_fd(), question, Some(descriptor.as_fd())).unwrap();
    assert_eq!(answer.errno, 0, "{}", answer.text);
    let (region, descriptor) = Mapping::create("page", 4096).unwrap();
    let question = Question::AddRegion { bytes: 4096 };
    let (answer, _) = ask(socket.as_fd(), question, Some(descriptor.as_fd())).unwrap();
    assert_eq!((answer.errno, answer.number), (0, 1), "{}", answer.text);
    (Raw { socket, bell: bell.unwrap(), side: ProgramSide::new(memory) }, region)
}

#[test]
fn hostile_rings_harm_nobody() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    fs::write(mount.at("f"), pattern(100_000, 1)).unwrap();
    let file = both(&mount.at("f"));
    let mut honest = ring(&mount);
    let region = honest.region(100_000).unwrap();
    let registered = honest.file(&file).unwrap();

    let (mut hostile, _region) = raw(&mount);
    let (answer, _) = ask(hostile.socket.as_fd(), Question::AddFile, Some(file.as_fd())).unwrap();
    assert_eq!(answer.number, 1);
    // Numbers that are of nothing, or lead out of the region or the file.
    let good = Submission { op: 1, file: 1, region: 1, length: 4096, ..Submission::default() };
    let wild = [
        Submission { op: 0, ..good },
        Submission { op: 4, ..good },
        Submission { op: 255, ..good },
        Submission { class: 2, ..good },
        Submission { file: 0, ..good },
        Submission { file: u32::MAX, ..good },
        Submission { region: 0, ..good },
        Submission { region: 2, ..good },
        Submission { length: 4097, ..good },
        Submission { length: u64::MAX, ..good },
        Submission { region_offset: 1, ..good },
        Submission { region_offset: u64::MAX, ..good },
        Submission { region_offset: u64::MAX - 4095, ..good },
        Submission { file_offset: u64::MAX, ..good },
        Submission { op: 2, file_offset: i64::MAX as u64, ..good },
    ];
    for submission in wild {
        assert!(hostile.side.push(submission));
        let results = hostile.results(1);
        assert!(results.len() == 1 && results[0] < 0, "{submission:?}: {results:?}");
    }
    // The same, of random bytes.
    let noise = pattern(64 * 400, 9);
    for entry in noise.chunks_exact(64) {
        let word = |at: usize| u64::from_ne_bytes(entry[8 * at..8 * at + 8].try_into().unwrap());
        let submission = Submission {
            op: entry[0] % 5,
            class: entry[1] % 3,
            file: u32::from(entry[2] % 3),
            region: u32::from(entry[3] % 3),
            region_offset: word(1) >> (entry[4] % 64),
            file_offset: word(2) >> (entry[5] % 64),
            length: word(3) >> (entry[6] % 64),
            user_data: word(4),
        };
        if submission.op != 2 {
            assert!(hostile.side.push(submission));
            assert_eq!(hostile.results(1).len(), 1);
        }
    }
    assert!(hostile.side.push(good));
    assert_eq!(hostile.results(1), [4096], "the ring itself goes on");

    // Counters that cannot be end the ring, and tell why.
    for (line, value) in [
        (Line::SubmissionTail, u32::MAX),
        (Line::SubmissionTail, 9),
        (Line::CompletionHead, 1),
        (Line::CompletionHead, 1 << 31),
    ] {
        let (hostile, _region) = raw(&mount);
        hostile.side.memory().line(line).store(value, Relaxed);
        ring_bell(&hostile.bell);
        assert_eq!(hostile.closed_by(), libc::EPROTO as u32, "{line:?} {value}");
    }

    // Memory that could end the process, questions that are none, and descriptors of anything.
    let socket = dial(&mount);
    let refused = |question, descriptor: Option<&OwnedFd>| {
        let descriptor = descriptor.map(AsFd::as_fd);
        let (answer, bell) = ask(socket.as_fd(), question, descriptor).unwrap();
        assert!(answer.errno != 0 && !answer.text.is_empty() && bell.is_none(), "{question:?}");
        answer.text
    };
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let unsealed = rustix::fs::memfd_create("unsealed", flags).unwrap();
    rustix::fs::ftruncate(&unsealed, 1 << 20).unwrap();
    let any: OwnedFd = File::open("/dev/zero").unwrap().into();
    assert!(refused(Question::AddFile, Some(&any)).contains("comes first"));
    assert!(refused(Question::Serve { entries: 8 }, Some(&unsealed)).contains("F_SEAL_SHRINK"));
    refused(Question::Serve { entries: 8 }, Some(&any));
    refused(Question::Serve { entries: 8 }, None);
    refused(Question::Serve { entries: 7 }, Some(&unsealed));
    refused(Question::Serve { entries: 0 }, Some(&unsealed));
    refused(Question::Serve { entries: 8192 }, Some(&unsealed));
    rustix::net::send(&socket, b"garbage", rustix::net::SendFlags::empty()).unwrap();
    drop(socket);
    let (hostile, _region) = raw(&mount);
    let ask_more =
        |question| ask(hostile.socket.as_fd(), question, Some(unsealed.as_fd())).unwrap().0;
    for question in [
        Question::Serve { entries: 8 },
        Question::AddRegion { bytes: 1 << 20 },
        Question::AddRegion { bytes: u64::MAX },
        Question::RemoveRegion { region: 9 },
        Question::AddFile,
        Question::RemoveFile { file: 9 },
    ] {
        assert!(ask_more(question).errno != 0, "{question:?}");
    }
    drop(hostile);

    // All that while the mount and its other rings serve.
    let read = Op::read(registered, 0, &region, 0..100_000).unwrap();
    assert_eq!(one(&mut honest, read).unwrap(), 100_000);
    assert!(bytes(&region, 100_000) == pattern(100_000, 1));
    assert_eq!(fs::read(mount.at("f")).unwrap().len(), 100_000);
    mount.stop();
}

#[test]
fn one_user_has_a_bounded_number_of_rings() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let mut rings = Vec::new();
    let refusal = loop {
        match Ring::connect(&mount.path, &Options { entries: 1 }) {
            Ok(ring) => rings.push(ring),
            Err(refusal) => break refusal,
        }
        assert!(rings.len() < 2000, "there is no bound");
    };
    assert!(refusal.to_string().contains("close some"), "{refusal}");
    assert_eq!(shown(&mount).0, rings.len() as u64);
    drop(rings);
    until("the rings are gone", || shown(&mount) == (0, 0));
    drop(ring(&mount));
    mount.stop();
}

/// Reads and writes by a ring until it is killed.
fn keep_busy(mount: &Mount) -> ! {
    let file = both(&mount.at("f"));
    let mut ring = ring(mount);
    let region = ring.region(8 << 20).unwrap();
    let registered: RingFile = ring.file(&file).unwrap();
    loop {
        for slot in 0..8_usize {
            let range = slot << 20..(slot + 1) << 20;
            let op = match slot % 4 {
                0 => Op::write(registered, range.start as u64, &region, range).unwrap(),
                _ => Op::read(registered, range.start as u64, &region, range).unwrap(),
            };
            ring.push(op).unwrap();
        }
        ring.reap(8, PATIENCE).unwrap();
    }
}

#[test]
fn who_is_killed_leaves_nothing_behind() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    fs::write(mount.at("f"), pattern(8 << 20, 1)).unwrap();
    for _ in 0..3 {
        // SAFETY: the child uses nothing that a thread which it does not have may hold but the allocator,
        // which the C library keeps usable, and ends by a signal.
        let child = unsafe { libc::fork() };
        if child == 0 {
            keep_busy(&mount);
        }
        until("the ring works", || shown(&mount) == (1, 8 << 20));
        thread::sleep(Duration::from_millis(50));
        // SAFETY: no memory is touched, and the child was not waited for.
        assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
        let mut status = 0;
        // SAFETY: the status lives on this stack.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(libc::WTERMSIG(status), libc::SIGKILL, "it did not end by itself");
        until("nothing is left", || {
            let status = mount.status().unwrap();
            shown(&mount) == (0, 0) && status["mount"]["open_files"] == 0
        });
    }
    fs::remove_file(mount.at("f")).unwrap();
    mount.stop();
}

#[test]
fn a_mount_ends_with_rings_on_it() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let mut ring = ring(&mount);
    let region = ring.region(4096).unwrap();
    let file = ring.file(both(&mount.at("f"))).unwrap();
    assert_eq!(one(&mut ring, Op::write(file, 0, &region, 0..4096).unwrap()).unwrap(), 4096);
    mount.stop();
    ring.push(Op::fsync(file)).unwrap();
    let closed = ring.reap(1, PATIENCE).unwrap_err();
    assert!(matches!(closed, Error::Closed { .. }), "{closed}");
    assert!(closed.to_string().contains("connect again"), "{closed}");
    assert!(ring.region(4096).is_err());
    region.write(0, b"still ours");
}

#[test]
fn a_bell_can_be_polled() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let mut ring = ring(&mount);
    let file = ring.file(both(&mount.at("f"))).unwrap();
    for _ in 0..100 {
        ring.push(Op::fsync(file)).unwrap();
        ring.submit();
        if ring.arm() {
            let mut waiting = libc::pollfd {
                fd: std::os::fd::AsRawFd::as_raw_fd(&ring.bell()),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one entry, which lives on this stack.
            assert_eq!(unsafe { libc::poll(&raw mut waiting, 1, 60_000) }, 1, "a bell was lost");
        }
        let found = ring.reap(1, Some(Duration::ZERO)).unwrap();
        assert_eq!(found.len(), 1);
    }
    mount.stop();
}

/// Many at once, of which some go together: in and out of the file, of small and large files.
#[test]
fn small_reads_in_one_batch_have_each_their_bytes() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let mut ring = ring(&mount);
    let region = ring.region(256 * 1000).unwrap();
    for (name, length) in [("large", 700_000), ("small", 2500)] {
        let body = pattern(length, 5);
        fs::write(mount.at(name), &body).unwrap();
        let files = [0, 1].map(|_| ring.file(File::open(mount.at(name)).unwrap()).unwrap());
        let offset = |slot: usize| (slot * 7919) % (length + length / 4);
        for slot in 0..256 {
            let file = files[usize::from(slot % 50 == 0)];
            let range = slot * 1000..slot * 1000 + slot * 3 + 1;
            let op = Op::read(file, offset(slot) as u64, &region, range).unwrap();
            let class = if slot % 3 == 0 { Class::Low } else { Class::High };
            ring.push(op.class(class).user_data(slot as u64)).unwrap();
        }
        let mut found = ring.reap(256, PATIENCE).unwrap();
        found.sort_by_key(Completion::user_data);
        for (slot, completion) in found.iter().enumerate() {
            let start = offset(slot).min(length);
            let end = (start + slot * 3 + 1).min(length);
            assert_eq!(completion.user_data(), slot as u64);
            assert_eq!(completion.result().unwrap(), end - start, "{name}, slot {slot}");
            let mut bytes = vec![0; end - start];
            region.read(slot * 1000, &mut bytes);
            assert!(bytes == body[start..end], "{name}, slot {slot}");
        }
    }
    mount.stop();
}

/// Reads that went together do not wait for one of a chain that is down.
#[test]
fn reads_of_other_chains_go_on() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let chunk = CHUNK_SIZE as usize;
    let body = pattern(9 * chunk, 6);
    fs::write(mount.at("f"), &body).unwrap();
    let mut ring = ring(&mount);
    let region = ring.region(9 * 100).unwrap();
    let file = ring.file(File::open(mount.at("f")).unwrap()).unwrap();
    let mut waited = 0;
    for chain in 1..=4 {
        world.fake.state.stuck_chain.store(chain, SeqCst);
        for place in 0..9 {
            let range = place * 100..(place + 1) * 100;
            ring.push(Op::read(file, (place * chunk) as u64, &region, range).unwrap()).unwrap();
        }
        // The file lies on three of the four chains in turn, so at most three of them wait.
        let found = ring.reap(6, PATIENCE).unwrap().len();
        assert!(found >= 6, "only {found} of 9 went on");
        if waited == 0 && found < 9 {
            // Those that wait are no reason to keep back what there is when the time is over.
            ring.push(Op::fsync(file)).unwrap();
            let some = ring.reap(10 - found, Some(Duration::from_secs(2))).unwrap();
            assert_eq!(some.len(), 1, "the fsync");
        }
        waited += 9 - found;
        world.fake.state.stuck_chain.store(0, SeqCst);
        assert_eq!(found + ring.reap(9 - found, PATIENCE).unwrap().len(), 9);
        for place in 0..9 {
            let mut bytes = [0; 100];
            region.read(place * 100, &mut bytes);
            assert!(bytes == body[place * chunk..][..100], "chain {chain}, chunk {place}");
        }
    }
    assert!(waited > 0, "no chain of the file was ever down");
    mount.stop();
}

#[test]
fn a_killed_mount_is_told_to_its_rings() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let mut ring = ring(&mount);
    let file = ring.file(both(&mount.at("f"))).unwrap();
    world.fake.state.silent.store(true, SeqCst);
    let region = ring.region(100).unwrap();
    ring.push(Op::write(file, 0, &region, 0..100).unwrap()).unwrap();
    ring.push(Op::fsync(file)).unwrap();
    ring.submit();
    mount.signal(libc::SIGKILL);
    // The outcome of neither is known, unless it came before the end.
    let closed = loop {
        match ring.reap(2, PATIENCE) {
            Ok(found) => assert!(!found.is_empty(), "a ring waits for a mount that is gone"),
            Err(closed) => break closed,
        }
    };
    assert!(matches!(closed, Error::Closed { .. }), "{closed}");
    world.fake.state.silent.store(false, SeqCst);
}
