//! That a queue has entries enough, and that no request waits where one is there.
//!
//! The kernel looks at the requests for which it found no entry only when an answer arrives, not when an
//! entry is added. So whoever adds some asks for messages that say nothing, and answers them, until no
//! request waits.

use std::io;

use super::{Entry, Queue, Ring, uring};
use crate::{
    cpu,
    limits::{AWAY_MAX, ENTRIES_FIRST, ENTRIES_LOW, ENTRIES_MAX},
    reply::Reply,
};

impl Ring {
    /// Adds entries to the queues that run short of them.
    pub(super) fn grow(&mut self) -> io::Result<()> {
        for place in 0..self.queues.len() {
            let Queue { with_kernel, entries, .. } = self.queues[place];
            if with_kernel < ENTRIES_LOW && entries < ENTRIES_MAX {
                tracing::debug!(queue = self.queues[place].number, entries, "more entries");
                self.add_entries(place, ENTRIES_FIRST)?;
                self.turn()?;
                self.look_at_waiting(place);
            }
        }
        Ok(())
    }

    /// Gives the kernel `count` more.
    pub(super) fn add_entries(&mut self, place: usize, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let entry = Entry::new(place, self.payload_bytes);
            let parts = entry.parts();
            let number = self.entries.len();
            self.entries.push(entry);
            self.queues[place].entries += 1;
            self.push(place, number, uring::REGISTER, 0, Some(parts))?;
        }
        Ok(())
    }

    /// The answer lets the kernel give the entry to a request that waits, at once. If it did, there may be
    /// more.
    pub(super) fn answer_asked(&mut self, number: usize, unique: u64) -> io::Result<()> {
        let entry = &mut self.entries[number];
        let queue = entry.queue;
        let commit = entry.prepare(Reply::empty());
        self.commit(number, commit)?;
        self.turn()?;
        if self.entries[number].unique() != unique {
            self.look_at_waiting(queue);
        }
        Ok(())
    }

    /// Has the kernel look whether requests of a queue wait for an entry, when one is there.
    pub(super) fn look_at_waiting(&self, place: usize) {
        let Queue { number, .. } = self.queues[place];
        let asked =
            cpu::visit(number.into(), || self.device.ask_for_a_message(self.locked)).flatten();
        if let Err(error) = asked {
            // Of a CPU that is not there, nothing comes either.
            tracing::debug!(queue = number, %error, "whether requests wait is not known");
        }
    }

    /// Whether so many requests are here that no more should come to stay.
    pub(super) fn is_crowded(&self, place: usize) -> bool {
        let Queue { entries, with_kernel, .. } = self.queues[place];
        entries - with_kernel > AWAY_MAX
    }
}
