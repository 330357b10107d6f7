//! What a local cluster asks of the kernel.

use std::fs;

use crate::output::Progress;

/// Which shared memory has huge pages; of the words, the one that holds is in brackets.
const SHARED_HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// Bytes between the processes of a host go through shared memory, which costs a fifth less CPU in huge
/// pages (docs/BENCHMARKS.md). Lets those have them that ask, where nobody does yet; only root may.
pub(super) fn allow_huge_pages(progress: &Progress) {
    let offers = fs::read_to_string(SHARED_HUGE_PAGES);
    if offers.is_ok_and(|words| words.contains("[never]"))
        && fs::write(SHARED_HUGE_PAGES, "advise").is_ok()
    {
        progress.done(&format!(
            "allowed huge pages for shared memory, to programs that ask ({SHARED_HUGE_PAGES}: advise)"
        ));
    }
}
