//! Which of two states is active. An install fills the other one, flips them, and empties the one that was
//! active; readers on other threads go on meanwhile.

use crate::word::Word;

/// How often they were flipped, by the group's thread; modulo 2 the place of the active one.
#[derive(Debug)]
pub(super) struct Flips<W>(W);

impl<W: Word> Flips<W> {
    pub(super) fn new(active: usize) -> Self {
        Self(W::new(active as u64))
    }

    pub(super) fn active(&self) -> usize {
        place(self.0.load())
    }

    /// After the other state was filled, before the active one is emptied.
    pub(super) fn flip(&self) {
        self.0.add(1);
    }

    /// What `look` takes of the active state, as of a moment at which that was active all the while: no flip came
    /// in between, so nobody had begun to empty it. Otherwise it is discarded, and looked for again.
    pub(super) fn take<T>(&self, look: impl Fn(usize) -> Option<T>, discard: impl Fn(T)) -> T {
        loop {
            let flips = self.0.load();
            let Some(taken) = look(place(flips)) else { continue };
            if self.0.load() == flips {
                return taken;
            }
            discard(taken);
        }
    }
}

fn place(flips: u64) -> usize {
    usize::from(!flips.is_multiple_of(2))
}

#[cfg(test)]
mod tests {
    use loom::{
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering::SeqCst},
        },
        thread,
    };

    use super::*;

    const EMPTY: u64 = 0;

    #[test]
    fn nobody_sees_a_state_that_is_filled_or_emptied() {
        loom::model(|| {
            let flips = Arc::new(Flips::<AtomicU64>::new(0));
            let states = Arc::new([AtomicU64::new(1), AtomicU64::new(EMPTY)]);
            let installing = {
                let (flips, states) = (flips.clone(), states.clone());
                thread::spawn(move || {
                    states[1].store(2, SeqCst);
                    flips.flip();
                    states[0].store(EMPTY, SeqCst);
                })
            };
            let seen = flips.take(|state| Some(states[state].load(SeqCst)), drop);
            assert_ne!(seen, EMPTY);
            let later = flips.take(|state| Some(states[state].load(SeqCst)), drop);
            assert!(later >= seen, "it goes back in time");
            installing.join().unwrap();
            assert_eq!(flips.active(), 1);
        });
    }
}
