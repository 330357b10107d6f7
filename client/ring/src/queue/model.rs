//! Both sides in every order that two processors may see (loom), and a mount that meets wild counters.

use loom::{
    cell::UnsafeCell,
    sync::{Arc, Notify, atomic},
    thread,
};

use super::*;
use crate::layout::READ;

impl Word for atomic::AtomicU32 {
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }

    fn store(&self, value: u32, order: Ordering) {
        self.store(value, order);
    }

    fn fence() {
        atomic::fence(Ordering::SeqCst);
    }
}

/// Slots in which a write beside another access is an error of the model.
struct Modelled {
    entries: u32,
    lines: Vec<atomic::AtomicU32>,
    submissions: Vec<UnsafeCell<[u64; SUBMISSION_WORDS]>>,
    completions: Vec<UnsafeCell<[u64; COMPLETION_WORDS]>>,
}

// SAFETY: the model reports an access to a slot that has no order with another one.
unsafe impl Sync for Modelled {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Modelled {}

impl Modelled {
    fn new(entries: u32) -> Arc<Self> {
        Arc::new(Self {
            entries,
            lines: (0..8).map(|_| atomic::AtomicU32::new(0)).collect(),
            submissions: (0..entries).map(|_| UnsafeCell::new([0; SUBMISSION_WORDS])).collect(),
            completions: (0..entries).map(|_| UnsafeCell::new([0; COMPLETION_WORDS])).collect(),
        })
    }
}

impl Memory for Arc<Modelled> {
    type Word = atomic::AtomicU32;

    fn entries(&self) -> u32 {
        self.entries
    }

    fn line(&self, line: Line) -> &Self::Word {
        &self.lines[line as usize]
    }

    fn submission(&self, slot: u32) -> [u64; SUBMISSION_WORDS] {
        // SAFETY: `with` fails the model if somebody writes it at the same time.
        self.submissions[slot as usize].with(|words| unsafe { *words })
    }

    fn put_submission(&self, slot: u32, words: [u64; SUBMISSION_WORDS]) {
        // SAFETY: as above.
        self.submissions[slot as usize].with_mut(|place| unsafe { *place = words });
    }

    fn completion(&self, slot: u32) -> [u64; COMPLETION_WORDS] {
        // SAFETY: as above.
        self.completions[slot as usize].with(|words| unsafe { *words })
    }

    fn put_completion(&self, slot: u32, words: [u64; COMPLETION_WORDS]) {
        // SAFETY: as above.
        self.completions[slot as usize].with_mut(|place| unsafe { *place = words });
    }
}

fn numbered(user_data: u64) -> Submission {
    Submission { op: READ, user_data, ..Submission::default() }
}

/// Carries out `count` operations and sleeps whenever it may; a lost bell stops the model for ever,
/// which it reports.
fn mount(memory: Arc<Modelled>, count: u64, bells: &[Arc<Notify>; 2]) {
    let mut side = MountSide::new(memory);
    let mut done = 0;
    while done < count {
        match side.take().unwrap() {
            Some(submission) => {
                let result = submission.user_data.cast_signed() * 10;
                side.post(Completed { user_data: submission.user_data, result });
                done += 1;
                if side.publish() {
                    bells[1].notify();
                }
            }
            None if side.sleeps() => {
                bells[0].wait();
                side.wakes();
            }
            None => {}
        }
    }
}

fn every_order(entries: u32, count: u64) {
    let mut model = loom::model::Builder::new();
    // All orders with this many preemptions: those that find anything in practice need two.
    model.preemption_bound = Some(3);
    model.check(move || {
        let memory = Modelled::new(entries);
        let bells = [Arc::new(Notify::new()), Arc::new(Notify::new())];
        let serving = {
            let (memory, bells) = (memory.clone(), bells.clone());
            thread::spawn(move || mount(memory, count, &bells))
        };
        let mut side = ProgramSide::new(memory);
        let (mut pushed, mut reaped) = (0, 0);
        while reaped < count {
            while pushed < count && side.push(numbered(pushed + 1)) {
                pushed += 1;
            }
            if side.publish() {
                bells[0].notify();
            }
            match side.reap().unwrap() {
                Some(completed) => {
                    reaped += 1;
                    let result = reaped.cast_signed() * 10;
                    assert_eq!(completed, Completed { user_data: reaped, result });
                }
                None if side.waits(side.submitted()) => {
                    bells[1].wait();
                    side.wakes();
                }
                None => {}
            }
        }
        serving.join().unwrap();
    });
}

#[test]
fn a_full_ring_goes_on_in_every_order() {
    every_order(1, 2);
}

#[test]
fn batches_arrive_in_every_order() {
    every_order(2, 2);
}

/// Counters as a hostile program may set them: refused, or carried out, and never more than there is room
/// for.
#[test]
fn wild_counters_are_refused() {
    loom::model(|| {
        let wild = [0, 1, 2, 3, 4, 5, 1 << 31, u32::MAX - 1, u32::MAX];
        for tail in wild {
            for head in wild {
                let memory = Modelled::new(4);
                memory.line(Line::SubmissionTail).store(tail, Relaxed);
                memory.line(Line::CompletionHead).store(head, Relaxed);
                let mut side = MountSide::new(memory);
                let mut taken = 0;
                let outcome = loop {
                    match side.take() {
                        Ok(Some(_)) => taken += 1,
                        Ok(None) => break Ok(()),
                        Err(broken) => break Err(broken),
                    }
                };
                // Nothing was posted yet, so nothing can have been reaped. A head that lags leaves the
                // program less room, and harms nobody.
                let lag = head.wrapping_neg();
                let is_sound = tail <= 4 && lag <= 4 && tail + lag <= 4;
                assert_eq!(outcome.is_ok(), is_sound, "tail {tail}, head {head}");
                assert_eq!(taken, if is_sound { tail } else { 0 });
            }
        }
    });
}

#[test]
fn a_mount_that_posts_too_much_is_seen() {
    loom::model(|| {
        let memory = Modelled::new(2);
        let mut side = ProgramSide::new(memory.clone());
        assert!(side.push(numbered(1)) && side.push(numbered(2)) && !side.push(numbered(3)));
        assert!(!side.publish(), "nobody sleeps");
        memory.line(Line::CompletionTail).store(3, Relaxed);
        assert_eq!(side.reap(), Err(Broken));
    });
}
