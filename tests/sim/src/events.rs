//! What is to happen, in order of time; at one time in the order in which it was scheduled.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

/// A queue whose bodies stay where they are while the heap sorts their times.
#[derive(Debug)]
pub(crate) struct Events<T> {
    /// Nanoseconds, number, slot.
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    numbers: u64,
}

impl<T> Default for Events<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), numbers: 0 }
    }
}

impl<T> Events<T> {
    pub(crate) fn push(&mut self, at: Duration, event: T) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = Some(event);
        self.numbers += 1;
        let nanos = u64::try_from(at.as_nanos()).expect("a run lasts minutes");
        self.heap.push(Reverse((nanos, self.numbers, slot)));
    }

    pub(crate) fn pop(&mut self) -> Option<(Duration, T)> {
        let Reverse((nanos, _, slot)) = self.heap.pop()?;
        let event = self.slots[slot as usize].take().expect("what is in the heap has a body");
        self.free.push(slot);
        Some((Duration::from_nanos(nanos), event))
    }
}
