//! One file, written and read again.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Advice, OFlags, fadvise, statvfs},
    io::Errno,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{limits, pattern, random::random};

const PAGE: usize = 4 << 10;
const PAGES: usize = limits::DISK_BLOCK as usize / PAGE;

/// O_DIRECT wants buffers that begin where pages do.
#[derive(Clone, Debug, PartialEq, FromBytes, Immutable, IntoBytes)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Found {
    pub(super) bytes: u64,
    pub(super) write_mib_s: f64,
    pub(super) read_mib_s: f64,
    pub(super) wrong_pages: u64,
    pub(super) is_direct: bool,
}

/// Writes so many bytes, but at most for this time and what is free allows, and reads them again for at most as
/// long; both may take a little longer.
///
/// # Errors
/// The folder cannot be written, has no room for a single block, or the disk reports an error.
pub(super) fn measure(folder: &Path, bytes: u64, time: Duration) -> io::Result<Found> {
    measure_with(folder, bytes, time, |_| Ok(()))
}

/// `between` sees the file when it is written.
fn measure_with(
    folder: &Path,
    bytes: u64,
    time: Duration,
    between: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<Found> {
    let space = statvfs(folder)?;
    let room = space.f_bavail * space.f_frsize / limits::DISK_SPACE;
    let blocks = bytes.min(room) / limits::DISK_BLOCK;
    if blocks == 0 {
        return Err(io::Error::new(io::ErrorKind::StorageFull, "too little space is free"));
    }
    let (file, is_direct) = open(folder)?;
    let content = Content::new(u64::from_le_bytes(random()?));

    let begun = Instant::now();
    let written = each_block(blocks, Some(begun + time), |block, pages| {
        content.fill(block, pages);
        file.write_all_at(pages.as_bytes(), block * limits::DISK_BLOCK)
    })?;
    file.sync_data()?;
    let write_time = begun.elapsed();

    between(&file)?;
    // Nothing to drop where the page cache was passed by; a file system may ignore it, and be too fast.
    fadvise(&file, 0, None, Advice::DontNeed)?;
    let wrong_pages = AtomicU64::new(0);
    let begun = Instant::now();
    let read = each_block(written, Some(begun + time), |block, pages| {
        file.read_exact_at(pages.as_mut_bytes(), block * limits::DISK_BLOCK)?;
        wrong_pages.fetch_add(content.wrong(block, pages), Ordering::Relaxed);
        Ok(())
    })?;
    let rate = |blocks: u64, time: Duration| {
        (blocks * limits::DISK_BLOCK) as f64 / (1u64 << 20) as f64 / time.as_secs_f64()
    };
    Ok(Found {
        bytes: read * limits::DISK_BLOCK,
        write_mib_s: rate(written, write_time),
        read_mib_s: rate(read, begun.elapsed()),
        wrong_pages: wrong_pages.into_inner(),
        is_direct,
    })
}

/// A new file that no longer has a name, and whether it passes the page cache by.
fn open(folder: &Path) -> io::Result<(File, bool)> {
    let path = folder.join(format!(".ff2-validate-{:016x}", u64::from_le_bytes(random()?)));
    let create = |flags: OFlags| {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        options.custom_flags(flags.bits() as i32).open(&path)
    };
    let opened = match create(OFlags::DIRECT) {
        Ok(file) => (file, true),
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
            // Some file systems make the file before they refuse.
            let _ = fs::remove_file(&path);
            (create(OFlags::empty())?, false)
        }
        Err(error) => return Err(error),
    };
    fs::remove_file(&path)?;
    Ok(opened)
}

/// Does something with the blocks from the first on, a few at once, until all are done or the time is over, but at
/// least one. Returns how many were done: there is no gap. Stops at the first error.
fn each_block(
    blocks: u64,
    until: Option<Instant>,
    act: impl Fn(u64, &mut [Page]) -> io::Result<()> + Sync,
) -> io::Result<u64> {
    let (next, has_failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let stream = || -> io::Result<u64> {
        let mut pages = vec![Page([0; PAGE]); PAGES];
        let mut done = 0;
        loop {
            let is_late = until.is_some_and(|until| Instant::now() >= until);
            if has_failed.load(Ordering::Relaxed) || (is_late && next.load(Ordering::Relaxed) > 0) {
                return Ok(done);
            }
            let block = next.fetch_add(1, Ordering::Relaxed);
            if block >= blocks {
                return Ok(done);
            }
            act(block, &mut pages).inspect_err(|_| has_failed.store(true, Ordering::Relaxed))?;
            done += 1;
        }
    };
    thread::scope(|scope| {
        let streams: Vec<_> = (0..limits::DISK_STREAMS).map(|_| scope.spawn(stream)).collect();
        let mut done = 0;
        for one in streams {
            done += one.join().expect("a stream does not panic")?;
        }
        Ok(done)
    })
}

/// What is written: the same random bytes in each block, so that making them costs no time, with the number of
/// block and page at the begin of each page.
struct Content {
    seed: u64,
    template: Vec<u8>,
}

/// Seed, block and page.
const STAMP: usize = 24;

impl Content {
    fn new(seed: u64) -> Self {
        Self { seed, template: pattern::bytes(seed, limits::DISK_BLOCK as usize) }
    }

    fn stamp(&self, block: u64, page: usize) -> [u8; STAMP] {
        let mut stamp = [0; STAMP];
        for (place, number) in stamp.chunks_exact_mut(8).zip([self.seed, block, page as u64]) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        stamp
    }

    fn fill(&self, block: u64, pages: &mut [Page]) {
        for (number, (page, bytes)) in pages.iter_mut().zip(self.template.chunks(PAGE)).enumerate()
        {
            page.0.copy_from_slice(bytes);
            page.0[..STAMP].copy_from_slice(&self.stamp(block, number));
        }
    }

    /// How many pages are not as [`Content::fill`] makes them.
    fn wrong(&self, block: u64, pages: &[Page]) -> u64 {
        let numbered = pages.iter().zip(self.template.chunks(PAGE)).enumerate();
        let is_wrong = |(number, (page, bytes)): &(usize, (&Page, &[u8]))| {
            page.0[..STAMP] != self.stamp(block, *number) || page.0[STAMP..] != bytes[STAMP..]
        };
        numbered.filter(is_wrong).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: u64 = 5;
    const BYTES: u64 = BLOCKS * limits::DISK_BLOCK;
    const TIME: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_written_is_read_again_and_nothing_stays() {
        let folder = tempfile::tempdir().unwrap();
        let found = measure(folder.path(), BYTES, TIME).unwrap();
        assert_eq!((found.bytes, found.wrong_pages), (BYTES, 0));
        assert!(found.write_mib_s > 0.0 && found.read_mib_s > 0.0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// A page that is another one's, in whole blocks as O_DIRECT wants it.
    #[test]
    fn damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let damage = |file: &File| {
            let mut pages = vec![Page([0; PAGE]); 2];
            file.read_exact_at(pages.as_mut_bytes(), 0)?;
            // One bit of the first, and the second where the third belongs.
            pages[0].0[4_000] ^= 4;
            file.write_all_at(pages[0].as_bytes(), 0)?;
            file.write_all_at(pages[1].as_bytes(), 2 * PAGE as u64)
        };
        let found = measure_with(folder.path(), BYTES, TIME, damage).unwrap();
        assert_eq!(found.wrong_pages, 2);
    }

    #[test]
    fn a_block_of_another_place_is_wrong_as_a_whole() {
        let content = Content::new(7);
        let mut pages = vec![Page([0; PAGE]); PAGES];
        content.fill(3, &mut pages);
        assert_eq!(content.wrong(3, &pages), 0);
        assert_eq!(content.wrong(4, &pages), PAGES as u64);
    }

    #[test]
    fn time_is_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let found = measure(folder.path(), 1 << 30, Duration::ZERO).unwrap();
        assert!(found.bytes <= limits::DISK_STREAMS as u64 * limits::DISK_BLOCK, "{found:?}");
    }

    #[test]
    fn an_error_ends_all_streams() {
        let fail = |block, _: &mut [Page]| {
            if block == 2 { Err(io::Error::other("broken")) } else { Ok(()) }
        };
        assert_eq!(each_block(1_000_000, None, fail).unwrap_err().to_string(), "broken");
    }
}
