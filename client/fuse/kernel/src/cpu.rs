//! On which CPU the calling thread runs.

use std::io;

/// Where that is refused (another set of CPUs is prescribed) the thread goes where the kernel likes.
pub(crate) fn stay_on(cpu: usize) {
    // SAFETY: a set of bits, for which zeros are valid and which is as large as said; `CPU_SET` keeps
    // within it.
    let outcome = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if cpu < libc::CPU_SETSIZE as usize {
            libc::CPU_SET(cpu, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if outcome != 0 {
        let error = io::Error::last_os_error();
        tracing::debug!(cpu, %error, "the thread is not pinned");
    }
}
