//! Devices: found, opened, asked.

use std::{
    ffi::CStr,
    fmt, fs, io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    ptr::NonNull,
    sync::Arc,
};

use rdma_sys::{
    ibv_async_event, ibv_context, ibv_device, ibv_device_attr, ibv_event_type, ibv_mtu,
    ibv_port_attr, ibv_port_state,
};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl, fstat, major, minor};

use crate::{
    Error,
    library::{Library, library},
};

/// An opened device. What is made on it keeps it open.
pub struct Device {
    context: NonNull<ibv_context>,
    pub(crate) library: &'static Library,
    name: String,
    /// What the kernel knows the device by that was opened; `None` where that cannot be seen.
    node: Option<Node>,
}

/// A device's node, and that of its folder below `/sys`: one of the same name that comes later has another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Node {
    number: u64,
    folder: u64,
}

/// A port as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    pub number: u8,
    pub active: bool,
    /// Bytes that a packet carries: 256 to 4096.
    pub mtu_bytes: u32,
    /// 0 on Ethernet.
    pub lid: u16,
}

/// Something happened to a device itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    PortDown(u8),
    PortUp(u8),
    /// Addresses of the port changed: look for places anew.
    AddressesChanged(u8),
    /// The device works no more; everything on it is to be dropped.
    Gone,
    /// Of a connection, which says it by its completions too, or of no interest.
    Other,
}

// SAFETY: libibverbs may be called by all threads, on the same objects too.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// The devices that the kernel has a driver for and libibverbs too.
pub(crate) fn names() -> Result<Vec<String>, Error> {
    let list = List::get()?;
    Ok(list.devices().map(|device| list.name(device)).collect())
}

impl Device {
    pub fn open(name: &str) -> Result<Arc<Self>, Error> {
        let list = List::get()?;
        let device = list.devices().find(|device| list.name(*device) == name);
        let device = device.ok_or_else(|| Error::UnknownDevice(name.to_owned()))?;
        // SAFETY: an entry of a list that was not freed yet.
        let context = NonNull::new(unsafe { (list.library.open_device)(device) });
        let context = context.ok_or_else(|| Error::last("ibv_open_device", name))?;
        let mut device = Self { context, library: list.library, name: name.to_owned(), node: None };
        device.node = device.command_node().and_then(node);
        let watched =
            fcntl_getfl(&device).and_then(|old| fcntl_setfl(&device, old | OFlags::NONBLOCK));
        let call = "watch for the events of a device";
        watched.map_err(|error| Error::Call { call, device: name.into(), source: error.into() })?;
        Ok(Arc::new(device))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it was not taken away. Some drivers then do no work any more, others all of it until the last who has it
    /// open lets go of it. Costs a system call.
    pub fn is_there(&self) -> bool {
        self.node.is_none_or(|opened| node(opened.number) == Some(opened))
    }

    /// Of what commands go through.
    fn command_node(&self) -> Option<u64> {
        // SAFETY: open as long as the device is.
        let commands = unsafe { BorrowedFd::borrow_raw(self.context.as_ref().cmd_fd) };
        Some(fstat(commands).ok()?.st_rdev)
    }

    pub fn port(&self, number: u8) -> Result<Port, Error> {
        // SAFETY: a structure of integers.
        let mut port: ibv_port_attr = unsafe { std::mem::zeroed() };
        // SAFETY: an open device; it writes no more than this structure.
        let code = unsafe { (self.library.query_port)(self.context(), number, &mut port) };
        if code != 0 {
            return Err(Error::returned("ibv_query_port", &self.name, code));
        }
        let active = port.state == ibv_port_state::IBV_PORT_ACTIVE;
        Ok(Port { number, active, mtu_bytes: mtu_bytes(port.active_mtu), lid: port.lid })
    }

    /// The memory that the device is nearest to, where that matters.
    pub fn numa_node(&self) -> Option<u32> {
        let path = format!("/sys/class/infiniband/{}/device/numa_node", self.name);
        // -1 where there is but one.
        fs::read_to_string(path).ok()?.trim().parse().ok()
    }

    /// The next thing that happened, if any: never waits. [`Device::as_fd`] is readable when there is one.
    pub fn event(&self) -> Result<Option<DeviceEvent>, Error> {
        // SAFETY: an enumeration of which 0 is a value, and pointers.
        let mut event: ibv_async_event = unsafe { std::mem::zeroed() };
        // SAFETY: an open device; it writes no more than this structure.
        let code = unsafe { (self.library.get_async_event)(self.context(), &mut event) };
        if code != 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock => Ok(None),
                _ => Err(Error::last("ibv_get_async_event", &self.name)),
            };
        }
        // SAFETY: of all events named below, the element is the port's number.
        let port = unsafe { event.element.port_num } as u8;
        let what = match event.event_type {
            ibv_event_type::IBV_EVENT_PORT_ERR => DeviceEvent::PortDown(port),
            ibv_event_type::IBV_EVENT_PORT_ACTIVE => DeviceEvent::PortUp(port),
            ibv_event_type::IBV_EVENT_GID_CHANGE => DeviceEvent::AddressesChanged(port),
            ibv_event_type::IBV_EVENT_DEVICE_FATAL => DeviceEvent::Gone,
            _ => DeviceEvent::Other,
        };
        // SAFETY: taken above, and acknowledged once.
        unsafe { (self.library.ack_async_event)(&mut event) };
        Ok(Some(what))
    }

    /// How many READs of a peer, and of ours, may be in flight on one connection.
    pub(crate) fn reads_max(&self) -> Result<u8, Error> {
        // SAFETY: a structure of integers.
        let mut device: ibv_device_attr = unsafe { std::mem::zeroed() };
        // SAFETY: an open device; it writes no more than this structure.
        let code = unsafe { (self.library.query_device)(self.context(), &mut device) };
        if code != 0 {
            return Err(Error::returned("ibv_query_device", &self.name, code));
        }
        let most = device.max_qp_rd_atom.min(device.max_qp_init_rd_atom).clamp(1, READS_MAX);
        Ok(most as u8)
    }

    pub(crate) fn context(&self) -> *mut ibv_context {
        self.context.as_ptr()
    }
}

/// As many as any card has; more wait in the card.
const READS_MAX: i32 = 16;

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open as long as the device is.
        unsafe { BorrowedFd::borrow_raw(self.context.as_ref().async_fd) }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: opened by us; all that was made on it held it, and is gone.
        unsafe { (self.library.close_device)(self.context()) };
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.name)
    }
}

/// Of the device that has this number now.
fn node(number: u64) -> Option<Node> {
    let path = format!("/sys/dev/char/{}:{}", major(number), minor(number));
    Some(Node { number, folder: fs::metadata(path).ok()?.ino() })
}

/// `enum ibv_mtu`: 1 is 256 bytes, each further one twice as many.
pub(crate) fn mtu_bytes(mtu: ibv_mtu::Type) -> u32 {
    128 << mtu.clamp(ibv_mtu::IBV_MTU_256, ibv_mtu::IBV_MTU_4096)
}

/// The opposite of [`mtu_bytes`]; `None` for what is no MTU.
pub(crate) fn mtu_code(bytes: u32) -> Option<ibv_mtu::Type> {
    (ibv_mtu::IBV_MTU_256..=ibv_mtu::IBV_MTU_4096).find(|mtu| mtu_bytes(*mtu) == bytes)
}

/// libibverbs's list of devices, freed at the end.
struct List {
    library: &'static Library,
    entries: NonNull<*mut ibv_device>,
    count: usize,
}

impl List {
    fn get() -> Result<Self, Error> {
        let library = library()?;
        let mut count = 0;
        // SAFETY: writes the count, and returns an array of so many.
        let entries = NonNull::new(unsafe { (library.get_device_list)(&mut count) });
        // A kernel without RDMA is no error of the caller's.
        let entries = entries.ok_or(Error::NoDevice)?;
        Ok(Self { library, entries, count: usize::try_from(count).unwrap_or(0) })
    }

    fn devices(&self) -> impl Iterator<Item = *mut ibv_device> {
        // SAFETY: below the count; not freed as long as `self` lives.
        (0..self.count).map(|at| unsafe { *self.entries.as_ptr().add(at) })
    }

    fn name(&self, device: *mut ibv_device) -> String {
        // SAFETY: an entry of this list; its name is a string that lives as long.
        let name = unsafe { CStr::from_ptr((self.library.get_device_name)(device)) };
        name.to_string_lossy().into_owned()
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: got from the library, and not freed before.
        unsafe { (self.library.free_device_list)(self.entries.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtus_are_powers_of_two() {
        let all: Vec<_> = (1..=5).map(mtu_bytes).collect();
        assert_eq!(all, [256, 512, 1024, 2048, 4096]);
        assert_eq!(mtu_code(1024), Some(ibv_mtu::IBV_MTU_1024));
        assert_eq!(mtu_code(1500), None);
    }
}
