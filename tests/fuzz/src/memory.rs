//! How much memory a decoder asks for, counted on its thread.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    /// Bytes that this thread asked for so far.
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

/// The allocator of each test program that has fuzz targets: the system's, with a count.
struct Counted;

#[global_allocator]
static COUNTED: Counted = Counted;

fn count(bytes: usize) {
    // Gone when the thread ends: then nobody asks any more.
    let _ = ASKED.try_with(|asked| asked.set(asked.get().wrapping_add(bytes)));
}

// SAFETY: all memory is the system allocator's, by the same calls with the same arguments.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        // SAFETY: as above; `old` came from the system allocator.
        unsafe { System.realloc(old, layout, bytes) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above; `old` came from the system allocator.
        unsafe { System.dealloc(old, layout) }
    }
}

/// Does the work, and panics if it asked for more memory than `input` bytes can excuse: 64 KiB, and 2 KiB
/// for each of them (an empty message inside of another takes two bytes and becomes a structure).
pub fn bounded<T>(input: &[u8], work: impl FnOnce() -> T) -> T {
    let before = ASKED.get();
    let done = work();
    let asked = ASKED.get().wrapping_sub(before);
    let allowed = (64 << 10) + 2048 * input.len();
    assert!(asked <= allowed, "{asked} bytes of memory for an input of {}", input.len());
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_counted() {
        assert_eq!(bounded(&[0; 4], || vec![7_u8; 70_000].len()), 70_000);
        let greedy = || bounded(&[0; 4], || Vec::<u8>::with_capacity(1 << 20).capacity());
        assert!(std::panic::catch_unwind(greedy).is_err(), "a megabyte for four bytes");
        let growing = || bounded(&[], || (0..100_000_u64).collect::<Vec<_>>().len());
        assert!(std::panic::catch_unwind(growing).is_err());
    }
}
