//! mmap: pages of the kernel's cache, written back through the mount.

use std::{fs, fs::OpenOptions, os::fd::AsRawFd, ptr};

use crate::{pattern, world};

struct Map {
    at: *mut libc::c_void,
    length: usize,
}

impl Map {
    fn new(file: &fs::File, length: usize, protection: i32) -> Self {
        // SAFETY: a fresh mapping at an address that the kernel chooses; `file` is open.
        let at = unsafe {
            libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Self { at, length }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `length` bytes long and lives as long as `self`, which is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.at.cast(), self.length) }
    }

    fn sync(&self) {
        // SAFETY: the range is the mapping's own.
        assert_eq!(unsafe { libc::msync(self.at, self.length, libc::MS_SYNC) }, 0);
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the range is the mapping's own, and nobody borrows from it any more.
        unsafe { libc::munmap(self.at, self.length) };
    }
}

#[test]
fn mapped_files_are_read_and_written() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let bytes = pattern(1_000_000, 7);
    fs::write(mount.at("f"), &bytes).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(mount.at("f")).unwrap();
    let mut map = Map::new(&file, bytes.len(), libc::PROT_READ | libc::PROT_WRITE);
    assert!(map.bytes() == &bytes[..]);
    map.bytes()[500_000..500_010].copy_from_slice(b"0123456789");
    map.sync();
    drop(map);
    drop(file);
    let other = world.mount("other");
    let back = fs::read(other.at("f")).unwrap();
    assert_eq!(&back[500_000..500_010], b"0123456789");
    assert!(back[500_010..] == bytes[500_010..]);
    mount.stop();
    other.stop();
}
