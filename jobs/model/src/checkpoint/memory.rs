//! Memory that is about to be written for the first time.

use rustix::mm::{Advice, madvise};

use super::reader::PAGE;

/// Has the system give all pages of `memory` at once. Otherwise it gives each at its first write, with an exception
/// for each. Where it cannot, that is what happens.
pub(super) fn populate<T>(memory: &mut [T]) {
    let begin = memory.as_mut_ptr();
    let skipped = begin.align_offset(PAGE);
    let Some(whole) = memory.len().checked_sub(skipped) else { return };
    let pages = begin.wrapping_add(skipped);
    // SAFETY: the range lies within `memory`, which is borrowed mutably, and its content does not change: this is the
    // system's work at a first write, without the write.
    let given = unsafe {
        madvise(pages.cast(), whole * size_of::<T>() / PAGE * PAGE, Advice::LinuxPopulateWrite)
    };
    // Older systems do not know it.
    let _ = given;
}
