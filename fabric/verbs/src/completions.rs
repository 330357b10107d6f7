//! What a device reports as done, asked for or told by a descriptor that becomes readable.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
    sync::Arc,
};

use rdma_sys::{
    ibv_comp_channel, ibv_cq, ibv_poll_cq, ibv_req_notify_cq, ibv_wc, ibv_wc_flags, ibv_wc_status,
};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use thiserror::Error;

use crate::{Device, Error};

/// Why some work was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    #[error("the peer does not answer: it is gone, or the way to it is")]
    Unreachable,
    #[error("the peer has no such memory, or does not let us reach it")]
    RemoteAccess,
    #[error("the peer had no room for a message: it broke its word on credits")]
    NoRoom,
    #[error("the peer refused a request as invalid or could not do it")]
    Remote,
    #[error(
        "a message is longer than the room that it was given, or memory of ours is not reachable"
    )]
    Local,
    #[error("other work on the connection failed before")]
    Flushed,
    #[error("the peer grants more messages than there can be")]
    Credits,
    #[error("the device takes no more work (error {0})")]
    Post(i32),
    #[error("the device failed (status {0})")]
    Device(u32),
}

impl Failure {
    fn of(status: ibv_wc_status::Type) -> Option<Self> {
        Some(match status {
            ibv_wc_status::IBV_WC_SUCCESS => return None,
            ibv_wc_status::IBV_WC_RETRY_EXC_ERR | ibv_wc_status::IBV_WC_RESP_TIMEOUT_ERR => {
                Self::Unreachable
            }
            ibv_wc_status::IBV_WC_REM_ACCESS_ERR => Self::RemoteAccess,
            ibv_wc_status::IBV_WC_RNR_RETRY_EXC_ERR => Self::NoRoom,
            ibv_wc_status::IBV_WC_REM_INV_REQ_ERR | ibv_wc_status::IBV_WC_REM_OP_ERR => {
                Self::Remote
            }
            ibv_wc_status::IBV_WC_LOC_LEN_ERR
            | ibv_wc_status::IBV_WC_LOC_PROT_ERR
            | ibv_wc_status::IBV_WC_LOC_ACCESS_ERR => Self::Local,
            ibv_wc_status::IBV_WC_WR_FLUSH_ERR => Self::Flushed,
            other => Self::Device(other),
        })
    }
}

/// One piece of work that is done or was given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    /// As it was posted.
    pub(crate) id: u64,
    pub(crate) failure: Option<Failure>,
    /// Of a message that came; not set on a failure.
    pub(crate) bytes: u32,
    /// Of a message that came, if it has one.
    pub(crate) immediate: Option<u32>,
}

/// A completion queue with an event channel of its own.
pub(crate) struct Completions {
    cq: NonNull<ibv_cq>,
    channel: Channel,
}

struct Channel {
    channel: NonNull<ibv_comp_channel>,
    device: Arc<Device>,
}

// SAFETY: libibverbs may be called by all threads, on the same objects too.
unsafe impl Send for Completions {}
// SAFETY: as above.
unsafe impl Send for Channel {}

impl Completions {
    /// For at most so many that were not polled yet.
    pub(crate) fn new(device: &Arc<Device>, entries: u32) -> Result<Self, Error> {
        // SAFETY: an open device, which the channel keeps open.
        let channel =
            NonNull::new(unsafe { (device.library.create_comp_channel)(device.context()) });
        let channel =
            channel.ok_or_else(|| Error::last("ibv_create_comp_channel", device.name()))?;
        let channel = Channel { channel, device: device.clone() };
        let watched =
            fcntl_getfl(&channel).and_then(|old| fcntl_setfl(&channel, old | OFlags::NONBLOCK));
        watched.map_err(|error| Error::Call {
            call: "watch for completions",
            device: device.name().into(),
            source: error.into(),
        })?;
        let entries = i32::try_from(entries).unwrap_or(i32::MAX);
        // SAFETY: an open device and its channel, which outlives the queue: see `drop`.
        let cq = NonNull::new(unsafe {
            let (context, channel) = (device.context(), channel.channel.as_ptr());
            (device.library.create_cq)(context, entries, std::ptr::null_mut(), channel, 0)
        });
        let cq = cq.ok_or_else(|| Error::last("ibv_create_cq", device.name()))?;
        Ok(Self { cq, channel })
    }

    /// Those that are there, in their order: as many as fit at once, so ask again until there are none.
    pub(crate) fn poll(&self) -> Result<Vec<Completion>, Error> {
        // SAFETY: structures of integers.
        let mut found: [ibv_wc; POLLED_AT_ONCE] = unsafe { std::mem::zeroed() };
        // SAFETY: our queue; it writes at most so many.
        let count = unsafe { ibv_poll_cq(self.cq(), POLLED_AT_ONCE as i32, found.as_mut_ptr()) };
        let Ok(count) = usize::try_from(count) else {
            return Err(Error::last("ibv_poll_cq", self.channel.device.name()));
        };
        Ok(found[..count].iter().map(completion).collect())
    }

    /// The descriptor becomes readable with the next completion. Those that came before are not told, so poll once
    /// more after this.
    pub(crate) fn arm(&self) -> Result<(), Error> {
        // SAFETY: our queue.
        match unsafe { ibv_req_notify_cq(self.cq(), 0) } {
            0 => Ok(()),
            code => Err(Error::returned("ibv_req_notify_cq", self.channel.device.name(), code)),
        }
    }

    /// Makes the descriptor unreadable again. Whether it was readable.
    pub(crate) fn acknowledge(&self) -> Result<bool, Error> {
        let library = self.channel.device.library;
        let mut told = false;
        loop {
            let (mut cq, mut context) = (std::ptr::null_mut(), std::ptr::null_mut());
            // SAFETY: our channel; it writes these two.
            let code = unsafe {
                (library.get_cq_event)(self.channel.channel.as_ptr(), &mut cq, &mut context)
            };
            if code != 0 {
                return match io::Error::last_os_error().kind() {
                    io::ErrorKind::WouldBlock => Ok(told),
                    io::ErrorKind::Interrupted => continue,
                    _ => Err(Error::last("ibv_get_cq_event", self.channel.device.name())),
                };
            }
            // SAFETY: the channel's only queue, of which one event was taken just now.
            unsafe { (library.ack_cq_events)(self.cq(), 1) };
            told = true;
        }
    }

    pub(crate) fn cq(&self) -> *mut ibv_cq {
        self.cq.as_ptr()
    }
}

/// As many as fit a page of the processor's cache.
const POLLED_AT_ONCE: usize = 32;

fn completion(wc: &ibv_wc) -> Completion {
    let failure = Failure::of(wc.status);
    let has_immediate = wc.wc_flags & ibv_wc_flags::IBV_WC_WITH_IMM.0 != 0;
    // SAFETY: either member is an integer, and the flag tells which was written.
    let immediate = unsafe { wc.imm_data_invalidated_rkey_union.imm_data };
    let immediate = (failure.is_none() && has_immediate).then(|| u32::from_be(immediate));
    Completion { id: wc.wr_id, failure, bytes: wc.byte_len, immediate }
}

impl AsFd for Completions {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open as long as the channel is.
        unsafe { BorrowedFd::borrow_raw(self.channel.as_ref().fd) }
    }
}

impl Drop for Completions {
    fn drop(&mut self) {
        // SAFETY: created by us; the connection that used it is gone, all events were acknowledged, and the channel
        // follows when this has returned.
        unsafe { (self.channel.device.library.destroy_cq)(self.cq()) };
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: created by us; its queue is gone.
        unsafe { (self.device.library.destroy_comp_channel)(self.channel.as_ptr()) };
    }
}

impl fmt::Debug for Completions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Completions({})", self.channel.device.name())
    }
}
