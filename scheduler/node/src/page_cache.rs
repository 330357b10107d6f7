//! How much of a file is in the page cache.

use std::{fs::File, io, os::fd::AsRawFd};

/// The same on all architectures since Linux 6.5.
const SYS_CACHESTAT: libc::c_long = 451;

#[repr(C)]
struct Range {
    from: u64,
    /// 0: to the end.
    length: u64,
}

#[repr(C)]
#[derive(Default)]
struct Stat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Bytes of a file that are in memory here: a multiple of the page size, which may be more than the file has.
///
/// # Errors
/// The kernel is older than 6.5, or the file's system does not tell.
pub fn cached_bytes(file: &File) -> io::Result<u64> {
    let range = Range { from: 0, length: 0 };
    let mut stat = Stat::default();
    // SAFETY: both live beyond the call and are laid out as the kernel has them; it writes only the second.
    let outcome = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut stat, 0)
    };
    match outcome {
        0 => Ok(stat.cached * rustix::param::page_size() as u64),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustix::fs::Advice;

    use super::*;

    #[test]
    fn what_was_read_is_cached_until_it_is_dropped() {
        let mut file = tempfile::tempfile().unwrap();
        let size = 1 << 20;
        file.write_all(&vec![7; size]).unwrap();
        file.sync_all().unwrap();
        match cached_bytes(&file) {
            Ok(cached) => assert_eq!(cached, size as u64),
            // An older kernel.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => return,
            Err(error) => panic!("{error}"),
        }
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let left = cached_bytes(&file).unwrap();
        assert!(left < size as u64, "{left} bytes");
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_exact(&mut vec![0; size]).unwrap();
        assert_eq!(cached_bytes(&file).unwrap(), size as u64);
    }
}
