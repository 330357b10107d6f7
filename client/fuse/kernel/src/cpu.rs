//! On which CPU the calling thread runs.

use std::io;

use libc::cpu_set_t;

const SET_BYTES: usize = size_of::<cpu_set_t>();

/// Where that is refused (another set of CPUs is prescribed) the thread goes where the kernel likes.
pub(crate) fn stay_on(cpu: usize) {
    if let Err(error) = allow(&only(cpu)) {
        tracing::debug!(cpu, %error, "the thread is not pinned");
    }
}

/// Runs `work` on that CPU, and the thread goes back to where it may be.
pub(crate) fn visit<T>(cpu: usize, work: impl FnOnce() -> T) -> io::Result<T> {
    let before = allowed()?;
    allow(&only(cpu))?;
    let outcome = work();
    allow(&before)?;
    Ok(outcome)
}

fn only(cpu: usize) -> cpu_set_t {
    // SAFETY: a set of bits, for which zeros are valid; `CPU_SET` keeps within it.
    unsafe {
        let mut set: cpu_set_t = std::mem::zeroed();
        if cpu < libc::CPU_SETSIZE as usize {
            libc::CPU_SET(cpu, &mut set);
        }
        set
    }
}

fn allowed() -> io::Result<cpu_set_t> {
    // SAFETY: a set of bits, for which zeros are valid and which is as large as said.
    unsafe {
        let mut set: cpu_set_t = std::mem::zeroed();
        match libc::sched_getaffinity(0, SET_BYTES, &raw mut set) {
            0 => Ok(set),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn allow(set: &cpu_set_t) -> io::Result<()> {
    // SAFETY: a set of bits, as large as said.
    match unsafe { libc::sched_setaffinity(0, SET_BYTES, &raw const *set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_ends_where_it_began() {
        let before = allowed().unwrap();
        let last = std::thread::available_parallelism().unwrap().get() - 1;
        // SAFETY: no arguments.
        let seen = visit(last, || unsafe { libc::sched_getcpu() }).unwrap();
        assert_eq!(seen, i32::try_from(last).unwrap());
        // SAFETY: sets of bits.
        assert!(unsafe { libc::CPU_EQUAL(&before, &allowed().unwrap()) });
        visit(libc::CPU_SETSIZE as usize, || ()).unwrap_err();
    }
}
