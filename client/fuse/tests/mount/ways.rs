//! The two ways that requests come: over `/dev/fuse` and over io_uring.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use ff2_fabric::Buf;

use crate::{Mount, pattern, world};

#[test]
fn over_the_device() {
    let Some(world) = world() else { return };
    let mount = world.mount_with("m", "io_uring = \"no\"");
    assert_eq!(mount.status().unwrap()["mount"]["requests_over"], "/dev/fuse");
    serves(&mount);
    mount.stop();
}

#[test]
fn over_io_uring() {
    let Some(world) = world() else { return };
    // Of Linux 6.14, and for root to set.
    let setting = "/sys/module/fuse/parameters/enable_uring";
    let is_ours = OpenOptions::new().write(true).open(setting).is_ok();
    for threads in [1, 2] {
        let more = format!("io_uring = \"yes\"\nthreads = {threads}");
        let mount = world.mount_with(&format!("m{threads}"), &more);
        let way = mount.status().unwrap()["mount"]["requests_over"].clone();
        assert_eq!(way, if is_ours { "io_uring" } else { "/dev/fuse" });
        serves(&mount);
        mount.stop();
    }
}

/// Bytes of all sizes, through the page cache and around it, and many callers at once.
fn serves(mount: &Mount) {
    for length in [0, 1, 4095, 4096, 100_000, 1 << 20, (5 << 20) + 3] {
        let (path, bytes) = (mount.at("file"), pattern(length, length as u64));
        let mut file = File::create(&path).unwrap();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        assert!(fs::read(&path).unwrap() == bytes, "{length}");
        let mut direct = OpenOptions::new();
        direct.read(true).write(true).custom_flags(libc::O_DIRECT);
        let direct = direct.open(&path).unwrap();
        let mut buffer = Buf::unpooled(8 << 20);
        assert_eq!(direct.read_at(&mut buffer, 0).unwrap(), length);
        assert!(buffer[..length] == bytes, "{length}, direct");
        for size in [4096, 64 << 10, 1 << 20] {
            buffer[..size].copy_from_slice(&pattern(size, 7));
            direct.write_all_at(&buffer[..size], 8192).unwrap();
            assert!(fs::read(&path).unwrap()[8192..8192 + size] == buffer[..size]);
        }
        let mut appended = OpenOptions::new().append(true).open(&path).unwrap();
        appended.write_all(&bytes).unwrap();
        let length = fs::metadata(&path).unwrap().len() as usize;
        assert!(fs::read(&path).unwrap()[length - bytes.len()..] == bytes);
    }
    let names: Vec<String> = (0..400).map(|number| format!("{:0200}", number)).collect();
    thread::scope(|scope| {
        for part in names.chunks(50) {
            scope.spawn(move || {
                for name in part {
                    fs::write(mount.at(name), name).unwrap();
                    let mut text = String::new();
                    File::open(mount.at(name)).unwrap().read_to_string(&mut text).unwrap();
                    assert_eq!(text, *name);
                }
            });
        }
    });
    assert_eq!(fs::read_dir(&mount.path).unwrap().count(), names.len() + 1);
}

/// Whoever waits for a lock holds a place at the kernel: others must get theirs, above all the one who
/// is to let the lock go. All wait on one CPU, more than a ring gives places to.
#[test]
fn many_that_wait_leave_room_for_others() {
    const WAITING: usize = 300;
    let Some(world) = world() else { return };
    let mount = world.mount_with("m", "io_uring = \"yes\"\nthreads = 1");
    let by_ring = mount.status().unwrap()["mount"]["requests_over"] == "io_uring";
    let path = mount.at("lock");
    let holder = File::create(&path).unwrap();
    holder.lock().unwrap();
    let (refused, locked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..WAITING {
            scope.spawn(|| {
                stay_on_the_first_cpu();
                match File::open(&path).unwrap().lock() {
                    Ok(()) => locked.fetch_add(1, Ordering::Relaxed),
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(libc::ENOLCK));
                        refused.fetch_add(1, Ordering::Relaxed)
                    }
                }
            });
        }
        let waits = || {
            let asked = ff2_daemon::admin_get(&mount.data_dir, "/inflight");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let told = runtime.unwrap().block_on(asked).unwrap();
            let waiting = told["count"].as_u64().unwrap();
            waiting + refused.load(Ordering::Relaxed) as u64 >= WAITING as u64
        };
        crate::until("all wait", waits);
        // Where all wait, the requests of whoever lets the lock go arrive too.
        stay_on_the_first_cpu();
        fs::write(mount.at("other"), "x").unwrap();
        holder.unlock().unwrap();
    });
    let (refused, locked) = (refused.into_inner(), locked.into_inner());
    assert_eq!(refused > 0, by_ring, "{refused} were refused");
    assert!(locked + refused == WAITING && locked >= WAITING / 2, "{locked}, {refused}");
    mount.stop();
}

fn stay_on_the_first_cpu() {
    // SAFETY: a set of bits, as large as said, for which zeros are valid.
    let outcome = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}
