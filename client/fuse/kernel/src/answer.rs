//! The way back of one request.

use std::sync::Arc;

use ff2_fabric::BufPool;

use crate::{
    device::Device,
    reply::{Errno, Reply},
    ring::Place,
};

/// Owed to the kernel once. Dropped without a reply it says EIO: a program must not hang for good.
#[derive(Debug)]
pub struct Answer {
    unique: u64,
    way: Option<Way>,
}

#[derive(Debug)]
enum Way {
    Device(Arc<Device>),
    Ring(Place),
}

impl Answer {
    pub(crate) fn by_device(device: Arc<Device>, unique: u64) -> Self {
        Self { unique, way: Some(Way::Device(device)) }
    }

    pub(crate) fn by_ring(place: Place, unique: u64) -> Self {
        Self { unique, way: Some(Way::Ring(place)) }
    }

    /// Answers, from any thread and without waiting.
    pub fn send(mut self, reply: Reply) {
        self.give(reply);
    }

    /// Memory from which the kernel takes the bytes of a read as they lie. A read of one piece whose
    /// buffer comes from this pool is not copied; any other piece is, into it. `None`: the kernel takes
    /// pieces from wherever they are.
    pub fn room(&self) -> Option<&Arc<BufPool>> {
        match &self.way {
            Some(Way::Ring(place)) => Some(place.room()),
            Some(Way::Device(_)) | None => None,
        }
    }

    /// For a message that the kernel wants no answer to.
    pub(crate) fn waive(mut self) {
        self.way = None;
    }

    fn give(&mut self, reply: Reply) {
        match self.way.take() {
            Some(Way::Device(device)) => device.answer(self.unique, &reply),
            Some(Way::Ring(place)) => place.answer(reply),
            None => {}
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.way.is_some() {
            tracing::debug!(unique = self.unique, "a request was given up");
            self.give(Reply::error(Errno::EIO));
        }
    }
}
