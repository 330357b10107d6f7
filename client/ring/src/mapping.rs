//! Memory that two processes share: made by the program, sealed so that it keeps its size, and mapped by
//! both. The only unsafe code of the ring's data path.
//!
//! No reference into it is ever made but to atomics: the other process may change any byte at any time.
//! Bytes are copied in and out.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::AtomicU32,
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs, ftruncate},
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap},
};

use crate::{
    layout::{
        self, COMPLETION_WORDS, ENTRIES_AT, Line, MAGIC, SUBMISSION_WORDS, SUBMISSIONS_AT,
        completions_at, ring_bytes,
    },
    queue::Memory,
};

/// What `fstatfs` says of a memfd without huge pages.
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// From this size on huge pages are asked for.
const HUGE_BYTES: usize = 2 << 20;

/// Mapped memory of a memfd.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to no thread, and is only reached by copies and atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above: racing copies give torn bytes, as they do with the other process.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// New zeroed memory, and the descriptor by which another process can map it.
    pub fn create(name: &str, len: usize) -> rustix::io::Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create(name, flags)?;
        ftruncate(&memory, len as u64)?;
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok((Self::map(memory.as_fd(), len)?, memory))
    }

    /// Maps what another process made, if its size is this and stays so: else an access to it could end
    /// this process.
    pub fn of_peer(memory: BorrowedFd<'_>, len: u64) -> io::Result<Self> {
        let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
        let kept = SealFlags::SHRINK | SealFlags::GROW;
        let seals = fcntl_get_seals(memory).unwrap_or(SealFlags::empty());
        if !seals.contains(kept) {
            return Err(wrong("the memory must be a memfd with F_SEAL_SHRINK and F_SEAL_GROW"));
        }
        #[allow(clippy::unnecessary_cast, reason = "the type differs between machines")]
        if fstatfs(memory)?.f_type as i64 != TMPFS_MAGIC {
            // A huge page that its owner takes out of the file may not come back.
            return Err(wrong("the memory must be a memfd without MFD_HUGETLB"));
        }
        let size = fstat(memory)?.st_size;
        if u64::try_from(size) != Ok(len) || len == 0 {
            return Err(wrong("the memory has another size than was said"));
        }
        let len = usize::try_from(len).map_err(|_| wrong("the memory is too large"))?;
        Ok(Self::map(memory, len)?)
    }

    fn map(memory: BorrowedFd<'_>, len: usize) -> rustix::io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let base = unsafe { mmap(ptr::null_mut(), len, access, MapFlags::SHARED, memory, 0) }?;
        if len >= HUGE_BYTES {
            // SAFETY: all of it is our mapping; the advice changes no content. It may be refused.
            let _ = unsafe { madvise(base, len, Advice::LinuxHugepage) };
        }
        let base = NonNull::new(base.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { base, len })
    }

    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Whether these bytes lie inside.
    pub fn has(&self, offset: u64, length: u64) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.len as u64)
    }

    /// Copies bytes out. Panics if they do not lie inside.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        assert!(self.has(offset as u64, bytes.len() as u64), "read behind the end of a mapping");
        // SAFETY: the range is mapped for as long as `self` lives, and nobody else has `bytes`.
        unsafe {
            ptr::copy_nonoverlapping(self.as_ptr().add(offset), bytes.as_mut_ptr(), bytes.len());
        }
    }

    /// Copies bytes in. Panics if they do not lie inside.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(self.has(offset as u64, bytes.len() as u64), "write behind the end of a mapping");
        // SAFETY: as above.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.as_ptr().add(offset), bytes.len()) }
    }

    /// A part of the mapping as words that the other process may change.
    fn words<const N: usize>(&self, at: usize) -> *mut [u64; N] {
        assert!(at.is_multiple_of(8) && self.has(at as u64, 8 * N as u64), "no words at {at}");
        // SAFETY: within the mapping, as was just looked at; a page begins it, so words are aligned.
        unsafe { self.as_ptr().add(at).cast() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// A mapping that has the layout of a ring.
#[derive(Debug)]
pub struct RingMemory {
    mapping: Mapping,
    entries: u32,
}

impl RingMemory {
    /// The program's: a new ring, to be shown to the mount.
    pub fn create(entries: u32) -> rustix::io::Result<(Self, OwnedFd)> {
        let (mapping, memory) = Mapping::create("ff2-ring", ring_bytes(entries))?;
        mapping.write(0, &MAGIC.to_ne_bytes());
        mapping.write(ENTRIES_AT, &entries.to_ne_bytes());
        Ok((Self { mapping, entries }, memory))
    }

    /// The mount's: of a ring with so many entries, which must be a power of two.
    pub fn of_peer(memory: BorrowedFd<'_>, entries: u32) -> io::Result<Self> {
        assert!(entries.is_power_of_two(), "checked by the caller");
        let mapping = Mapping::of_peer(memory, ring_bytes(entries) as u64)?;
        Ok(Self { mapping, entries })
    }
}

impl Memory for RingMemory {
    type Word = AtomicU32;

    fn entries(&self) -> u32 {
        self.entries
    }

    fn line(&self, line: Line) -> &AtomicU32 {
        assert!(line.at() + 4 <= SUBMISSIONS_AT);
        // SAFETY: the header is mapped for as long as `self` lives, the place is aligned to a cache line,
        // and all of this process reaches it as an atomic.
        unsafe { AtomicU32::from_ptr(self.mapping.as_ptr().add(line.at()).cast()) }
    }

    fn submission(&self, slot: u32) -> [u64; SUBMISSION_WORDS] {
        let at = SUBMISSIONS_AT + slot as usize * SUBMISSION_WORDS * 8;
        // SAFETY: mapped and aligned; volatile, so that it is read once whatever the other side does.
        unsafe { self.mapping.words(at).read_volatile() }
    }

    fn put_submission(&self, slot: u32, words: [u64; SUBMISSION_WORDS]) {
        let at = SUBMISSIONS_AT + slot as usize * SUBMISSION_WORDS * 8;
        // SAFETY: as above.
        unsafe { self.mapping.words(at).write_volatile(words) }
    }

    fn completion(&self, slot: u32) -> [u64; COMPLETION_WORDS] {
        let at = completions_at(self.entries) + slot as usize * COMPLETION_WORDS * 8;
        // SAFETY: as above.
        unsafe { self.mapping.words(at).read_volatile() }
    }

    fn put_completion(&self, slot: u32, words: [u64; COMPLETION_WORDS]) {
        let at = completions_at(self.entries) + slot as usize * COMPLETION_WORDS * 8;
        // SAFETY: as above.
        unsafe { self.mapping.words(at).write_volatile(words) }
    }
}

const _: () = assert!(layout::MAGIC != 0);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn both_sides_see_the_same_bytes() {
        let (ours, memory) = Mapping::create("test", 8192).unwrap();
        let theirs = Mapping::of_peer(memory.as_fd(), 8192).unwrap();
        ours.write(8000, &[7; 192]);
        let mut bytes = [0; 192];
        theirs.read(8000, &mut bytes);
        assert_eq!(bytes, [7; 192]);
        assert!(ours.has(8000, 192) && !ours.has(8000, 193) && !ours.has(u64::MAX, 2));
    }

    /// Each of these could end the process that reads it.
    #[test]
    fn memory_that_can_go_away_is_refused() {
        let plain = rustix::fs::memfd_create("plain", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&plain, 4096).unwrap();
        assert!(Mapping::of_peer(plain.as_fd(), 4096).is_err(), "not sealed");
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let growing = rustix::fs::memfd_create("growing", flags).unwrap();
        ftruncate(&growing, 4096).unwrap();
        fcntl_add_seals(&growing, SealFlags::SHRINK).unwrap();
        assert!(Mapping::of_peer(growing.as_fd(), 4096).is_err(), "may grow");
        let (_mapping, memory) = Mapping::create("test", 4096).unwrap();
        for wrong in [0, 4095, 8192, u64::MAX] {
            assert!(Mapping::of_peer(memory.as_fd(), wrong).is_err(), "{wrong} bytes");
        }
        let huge = flags | MemfdFlags::HUGETLB;
        if let Ok(huge) = rustix::fs::memfd_create("huge", huge) {
            ftruncate(&huge, 2 << 20).unwrap();
            fcntl_add_seals(&huge, SealFlags::SHRINK | SealFlags::GROW).unwrap();
            assert!(Mapping::of_peer(huge.as_fd(), 2 << 20).is_err(), "huge pages");
        }
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(Mapping::of_peer(file.as_fd(), 4096).is_err(), "an ordinary file");
        let sealed = rustix::fs::memfd_create("readonly", flags).unwrap();
        ftruncate(&sealed, 4096).unwrap();
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&sealed, seals).unwrap();
        assert!(Mapping::of_peer(sealed.as_fd(), 4096).is_err(), "cannot be written");
    }

    #[test]
    fn a_ring_is_the_same_for_both() {
        let (ours, memory) = RingMemory::create(4).unwrap();
        let theirs = RingMemory::of_peer(memory.as_fd(), 4).unwrap();
        assert!(RingMemory::of_peer(memory.as_fd(), 8).is_err(), "another size");
        for slot in 0..4 {
            let words = [u64::from(slot) + 1; SUBMISSION_WORDS];
            ours.put_submission(slot, words);
            theirs.put_completion(slot, [u64::from(slot) + 9; COMPLETION_WORDS]);
            assert_eq!(theirs.submission(slot), words);
        }
        for slot in 0..4 {
            assert_eq!(ours.completion(slot), [u64::from(slot) + 9; COMPLETION_WORDS]);
            assert_eq!(ours.submission(slot), [u64::from(slot) + 1; SUBMISSION_WORDS]);
        }
        use std::sync::atomic::Ordering::Relaxed;
        ours.line(Line::ClosedBy).store(71, Relaxed);
        assert_eq!(theirs.line(Line::ClosedBy).load(Relaxed), 71);
    }

    fn ranges() -> Vec<Vec<u8>> {
        let range = |at: u64, len: u64| [at, len].map(u64::to_le_bytes).concat();
        vec![range(0, 4096), range(4096, 0), range(4095, 2), range(u64::MAX, 2)]
    }

    #[test]
    fn damaged_ranges() {
        let (memory, _) = Mapping::create("test", 4096).unwrap();
        assert!(memory.has(0, 4096) && !memory.has(0, 4097));
        ff2_fuzz::target!(2_000, ranges(), |bytes| {
            let (numbers, _) = bytes.as_chunks::<8>();
            let [at, len, ..] = numbers else { return };
            let (at, len) = (u64::from_le_bytes(*at), u64::from_le_bytes(*len));
            let (memory, _) = Mapping::create("test", 4096).unwrap();
            let is_inside = u128::from(at) + u128::from(len) <= 4096;
            assert_eq!(memory.has(at, len), is_inside, "{len} bytes at {at}");
        });
    }
}
