//! The two sides of a ring: who writes which counter, in which order, and when a bell must ring.
//!
//! The program pushes operations and publishes them at once; the mount takes them, and posts one
//! completion for each. Who has nothing to do says so, looks once more, and waits for its bell; the
//! other side looks at that word after it published. One of both always sees the other: between the
//! store and the load on either side stands a sequentially consistent fence. So nobody sleeps over
//! work, and who is busy makes no system call.
//!
//! The mount believes nothing: a counter that breaks the rules is [`Broken`], and every entry is copied
//! out once before it is looked at. The words of each side are only ever written by that side, except
//! the two flags, whose loss costs a bell too many at worst.

#[cfg(test)]
mod model;

use std::sync::atomic::{
    AtomicU32,
    Ordering::{self, Acquire, Relaxed, Release},
};

use crate::layout::{COMPLETION_WORDS, Completed, Line, SUBMISSION_WORDS, Submission};

/// A word that both sides see.
pub trait Word {
    fn load(&self, order: Ordering) -> u32;
    fn store(&self, value: u32, order: Ordering);
    /// Sequentially consistent.
    fn fence();
}

impl Word for AtomicU32 {
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }

    fn store(&self, value: u32, order: Ordering) {
        self.store(value, order);
    }

    fn fence() {
        std::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// The shared memory of a ring: mapped, or a model of it that tries all orders.
pub trait Memory {
    type Word: Word;

    /// A power of two.
    fn entries(&self) -> u32;
    fn line(&self, line: Line) -> &Self::Word;
    fn submission(&self, slot: u32) -> [u64; SUBMISSION_WORDS];
    fn put_submission(&self, slot: u32, words: [u64; SUBMISSION_WORDS]);
    fn completion(&self, slot: u32) -> [u64; COMPLETION_WORDS];
    fn put_completion(&self, slot: u32, words: [u64; COMPLETION_WORDS]);
}

/// The other side broke the rules of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// What the program does.
#[derive(Debug)]
pub struct ProgramSide<M> {
    memory: M,
    pushed: u32,
    published: u32,
    reaped: u32,
}

impl<M: Memory> ProgramSide<M> {
    pub fn new(memory: M) -> Self {
        Self { memory, pushed: 0, published: 0, reaped: 0 }
    }

    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Operations that were pushed and not reaped.
    pub fn outstanding(&self) -> u32 {
        self.pushed.wrapping_sub(self.reaped)
    }

    /// Those of them that the mount knows of.
    pub fn submitted(&self) -> u32 {
        self.published.wrapping_sub(self.reaped)
    }

    /// False: the ring is full, reap first.
    #[must_use]
    pub fn push(&mut self, submission: Submission) -> bool {
        if self.outstanding() == self.memory.entries() {
            return false;
        }
        let slot = self.pushed & (self.memory.entries() - 1);
        self.memory.put_submission(slot, submission.to_words());
        self.pushed = self.pushed.wrapping_add(1);
        true
    }

    /// Shows the mount what was pushed. True: its bell must ring.
    #[must_use]
    pub fn publish(&mut self) -> bool {
        if self.published == self.pushed {
            return false;
        }
        self.published = self.pushed;
        self.memory.line(Line::SubmissionTail).store(self.pushed, Release);
        M::Word::fence();
        let sleeps = self.memory.line(Line::MountSleeps);
        let must_ring = sleeps.load(Relaxed) != 0;
        if must_ring {
            sleeps.store(0, Relaxed);
        }
        must_ring
    }

    pub fn reap(&mut self) -> Result<Option<Completed>, Broken> {
        let posted = self.memory.line(Line::CompletionTail).load(Acquire);
        let unread = posted.wrapping_sub(self.reaped);
        if unread > self.submitted() {
            return Err(Broken);
        }
        if unread == 0 {
            return Ok(None);
        }
        let words = self.memory.completion(self.reaped & (self.memory.entries() - 1));
        self.reaped = self.reaped.wrapping_add(1);
        self.memory.line(Line::CompletionHead).store(self.reaped, Release);
        Ok(Some(Completed::from_words(words)))
    }

    /// Asks for the bell when so many completions (at least one, at most all that were submitted) can be
    /// reaped. False: they can already. Call [`Self::wakes`] after the wait.
    #[must_use]
    pub fn waits(&mut self, wanted: u32) -> bool {
        let wanted = wanted.min(self.submitted()).max(1);
        let waits_for = self.memory.line(Line::ProgramWaitsFor);
        waits_for.store(wanted, Relaxed);
        M::Word::fence();
        let posted = self.memory.line(Line::CompletionTail).load(Acquire);
        let must_wait = posted.wrapping_sub(self.reaped) < wanted;
        if !must_wait {
            self.wakes();
        }
        must_wait
    }

    pub fn wakes(&mut self) {
        self.memory.line(Line::ProgramWaitsFor).store(0, Relaxed);
    }
}

/// What the mount does.
#[derive(Debug)]
pub struct MountSide<M> {
    memory: M,
    taken: u32,
    posted: u32,
}

impl<M: Memory> MountSide<M> {
    pub fn new(memory: M) -> Self {
        Self { memory, taken: 0, posted: 0 }
    }

    /// Operations that were taken and have no completion yet.
    pub fn in_work(&self) -> u32 {
        self.taken.wrapping_sub(self.posted)
    }

    /// The next operation, if there is one.
    pub fn take(&mut self) -> Result<Option<Submission>, Broken> {
        // In this order: the program advances the head before the tail that follows from it.
        let pushed = self.memory.line(Line::SubmissionTail).load(Acquire);
        let reaped = self.memory.line(Line::CompletionHead).load(Acquire);
        let outstanding = pushed.wrapping_sub(reaped);
        let is_sound = outstanding <= self.memory.entries()
            && self.taken.wrapping_sub(reaped) <= outstanding
            && self.posted.wrapping_sub(reaped) <= self.taken.wrapping_sub(reaped);
        if !is_sound {
            return Err(Broken);
        }
        if pushed == self.taken {
            return Ok(None);
        }
        let words = self.memory.submission(self.taken & (self.memory.entries() - 1));
        self.taken = self.taken.wrapping_add(1);
        Ok(Some(Submission::from_words(words)))
    }

    /// Posts the outcome of an operation that was taken.
    pub fn post(&mut self, completed: Completed) {
        assert!(self.posted != self.taken, "each completion has its operation");
        let slot = self.posted & (self.memory.entries() - 1);
        self.memory.put_completion(slot, completed.to_words());
        self.posted = self.posted.wrapping_add(1);
    }

    /// Shows the program what was posted. True: its bell must ring.
    #[must_use]
    pub fn publish(&mut self) -> bool {
        self.memory.line(Line::CompletionTail).store(self.posted, Release);
        M::Word::fence();
        let waits_for = self.memory.line(Line::ProgramWaitsFor);
        let wanted = waits_for.load(Relaxed);
        let reaped = self.memory.line(Line::CompletionHead).load(Relaxed);
        let must_ring = wanted != 0 && self.posted.wrapping_sub(reaped) >= wanted;
        if must_ring {
            waits_for.store(0, Relaxed);
        }
        must_ring
    }

    /// Asks for the bell at the next push. False: there is one already. Call [`Self::wakes`] after the
    /// wait.
    #[must_use]
    pub fn sleeps(&mut self) -> bool {
        self.memory.line(Line::MountSleeps).store(1, Relaxed);
        M::Word::fence();
        let may_sleep = self.memory.line(Line::SubmissionTail).load(Acquire) == self.taken;
        if !may_sleep {
            self.wakes();
        }
        may_sleep
    }

    pub fn wakes(&mut self) {
        self.memory.line(Line::MountSleeps).store(0, Relaxed);
    }

    /// Says why the ring is served no more; the program sees it once its bell is gone.
    pub fn close(&mut self, errno: i32) {
        self.memory.line(Line::ClosedBy).store(errno.unsigned_abs(), Release);
    }
}
