//! When the thread of a ring may wait in the kernel, and who wakes it.
//!
//! It says that it sleeps, and then looks once more whether anything came. Who puts something where it looks
//! asks afterwards whether it sleeps. Under the queue's lock one of both comes first, so one of both sees
//! the other: nothing waits behind a thread that sleeps, and who finds it awake makes no system call.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// A flag of the processor, or of a model that tries all orders.
pub(super) trait Flag {
    /// Returns what it was.
    fn swap(&self, value: bool) -> bool;
}

impl Flag for AtomicBool {
    fn swap(&self, value: bool) -> bool {
        self.swap(value, SeqCst)
    }
}

#[derive(Debug)]
pub(super) struct Sleeper<F> {
    sleeps: F,
}

impl<F: Flag> Sleeper<F> {
    /// Awake: the flag is false.
    pub(super) fn new(sleeps: F) -> Self {
        Self { sleeps }
    }

    /// Called by the thread before it waits. False: something came in meanwhile.
    pub(super) fn may_sleep(&self, is_idle: impl FnOnce() -> bool) -> bool {
        // All changes are swaps: each follows one other, whatever order processors see them in.
        self.sleeps.swap(true);
        let is_idle = is_idle();
        if !is_idle {
            self.sleeps.swap(false);
        }
        is_idle
    }

    /// Called after something was put in. True: the thread must be woken.
    #[must_use]
    pub(super) fn must_wake(&self) -> bool {
        self.sleeps.swap(false)
    }
}

#[cfg(test)]
mod tests {
    use loom::{
        sync::{Arc, Mutex, Notify, atomic},
        thread,
    };

    use super::*;

    impl Flag for atomic::AtomicBool {
        fn swap(&self, value: bool) -> bool {
            self.swap(value, SeqCst)
        }
    }

    struct Mailbox {
        queue: Mutex<u32>,
        sleeper: Sleeper<atomic::AtomicBool>,
        bell: Notify,
    }

    impl Mailbox {
        fn put(&self) {
            *self.queue.lock().unwrap() += 1;
            if self.sleeper.must_wake() {
                self.bell.notify();
            }
        }

        /// As the ring's thread; a bell that nobody rings stops the model for ever, which it reports.
        fn take(&self, count: u32) {
            let mut taken = 0;
            while taken < count {
                taken += std::mem::take(&mut *self.queue.lock().unwrap());
                if taken < count && self.sleeper.may_sleep(|| *self.queue.lock().unwrap() == 0) {
                    self.bell.wait();
                }
            }
        }
    }

    fn every_order(putters: usize) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let sleeper = Sleeper::new(atomic::AtomicBool::new(false));
            let mailbox = Arc::new(Mailbox { queue: Mutex::new(0), sleeper, bell: Notify::new() });
            let threads: Vec<_> = (0..putters)
                .map(|_| {
                    let mailbox = mailbox.clone();
                    thread::spawn(move || mailbox.put())
                })
                .collect();
            mailbox.take(putters as u32);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[test]
    fn nothing_waits_behind_a_thread_that_sleeps() {
        every_order(1);
        every_order(2);
    }
}
