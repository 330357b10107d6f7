//! Memory that is about to be written for the first time.

use rustix::mm::{Advice, madvise};

use super::reader::PAGE;

/// Has the system give all pages of `numbers` at once. Otherwise it gives each at its first write, with an exception
/// for each. Where it cannot, that is what happens.
pub(super) fn populate(numbers: &mut [f32]) {
    let begin = numbers.as_mut_ptr();
    let skipped = begin.align_offset(PAGE);
    let Some(whole) = numbers.len().checked_sub(skipped) else { return };
    let pages = begin.wrapping_add(skipped);
    // SAFETY: the range lies within `numbers`, which is borrowed mutably, and its content does not change: this is the
    // system's work at a first write, without the write.
    let given = unsafe {
        madvise(pages.cast(), whole * size_of::<f32>() / PAGE * PAGE, Advice::LinuxPopulateWrite)
    };
    // Older systems do not know it.
    let _ = given;
}
