//! Threads that stay on a core, and a part that may hang.

use std::{
    io,
    sync::{
        Barrier,
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

use rustix::{
    thread::CpuSet,
    time::{ClockId, clock_gettime},
};

use crate::{Check, Verdict};

/// Does the work on each of these cores at once, and returns what came of it, in their order. Before it begins to
/// count, each thread prepares what it needs.
pub(crate) fn on_cores<P, T: Send>(
    cores: &[u32],
    prepare: impl Fn(u32) -> P + Sync,
    work: impl Fn(u32, P) -> T + Sync,
) -> Vec<T> {
    let ready = Barrier::new(cores.len());
    let (prepare, work, ready) = (&prepare, &work, &ready);
    thread::scope(|scope| {
        let started: Vec<_> = cores
            .iter()
            .map(|core| {
                scope.spawn(move || {
                    stay_on(*core);
                    let prepared = prepare(*core);
                    ready.wait();
                    work(*core, prepared)
                })
            })
            .collect();
        started
            .into_iter()
            .map(|one| one.join().expect("a test of a core does not panic"))
            .collect()
    })
}

/// A core may have been taken away since they were listed: the thread runs elsewhere then.
fn stay_on(core: u32) {
    let mut one = CpuSet::new();
    one.set(core as usize);
    let _ = rustix::thread::sched_setaffinity(None, &one);
}

/// Time for which this thread has run: not the time for which others had its core.
pub(crate) fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The checks of a part, unless it takes longer than that: a disk or mount that hangs cannot be interrupted, so its
/// thread is left behind, and the verdict is that of `hanging`.
pub(crate) fn within(
    name: &'static str,
    time: Duration,
    hanging: Verdict,
    part: impl FnOnce() -> Vec<Check> + Send + 'static,
) -> Vec<Check> {
    let (sender, receiver) = sync_channel(1);
    // Nobody may be there any more to hear of it.
    let run = move || drop(sender.send(part()));
    if let Err(error) = thread::Builder::new().name(format!("validate-{name}")).spawn(run) {
        return vec![cannot(name, &error)];
    }
    match receiver.recv_timeout(time) {
        Ok(checks) => checks,
        Err(RecvTimeoutError::Timeout) => {
            let why = format!("{name} did not end within {:.1} s: it hangs", time.as_secs_f64());
            vec![Check::without_figure(name, hanging, why)]
        }
        Err(RecvTimeoutError::Disconnected) => {
            vec![Check::without_figure(
                name,
                Verdict::Failed,
                format!("the test of {name} broke off"),
            )]
        }
    }
}

/// The machine cannot even begin.
fn cannot(name: &str, error: &io::Error) -> Check {
    Check::without_figure(name, Verdict::Failed, format!("{name} cannot be tried: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn what_hangs_is_left_behind() {
        let begun = Instant::now();
        let (release, hold) = sync_channel::<()>(1);
        let hang = move || {
            let _ = hold.recv();
            Vec::new()
        };
        let checks = within("disk", Duration::from_millis(50), Verdict::Failed, hang);
        assert_eq!(checks[0].verdict, Verdict::Failed);
        assert!(checks[0].why.contains("hangs"), "{}", checks[0].why);
        assert!(begun.elapsed() < Duration::from_secs(20));
        drop(release);
    }

    #[test]
    fn each_core_is_asked_once() {
        let cores = ff2_node::Hardware::look().unwrap().cores;
        let seen = on_cores(&cores, |core| core, |core, prepared| (core, prepared));
        assert_eq!(seen, cores.iter().map(|core| (*core, *core)).collect::<Vec<_>>());
    }
}
