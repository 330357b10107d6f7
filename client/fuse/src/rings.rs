//! The user rings of a mount: programs that read and write open files without a request of the kernel for
//! each.
//!
//! A program finds the socket by an extended attribute that each file of the mount answers, and that none
//! has. Each connection has a thread, for what may block ([`asks`]: descriptors come in, and are looked at
//! and closed), and a task on one of the executors, which carries the operations out ([`serve`], [`work`]).
//! Operations go through the handles that the kernel opened, so that they are the same code as the
//! mount's own reads and writes, with the same coherence, locks and grants.
//!
//! Nothing that a program sends is believed: what it may do is what the descriptor that it had allows;
//! memory must be sealed; each number is looked at once it was copied; all is bounded, for each ring
//! and for each user, and given back when the connection ends, however that happens.

mod asks;
mod file;
mod quota;
mod serve;
mod table;
mod work;

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, OnceLock},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
        listen, shutdown, socket_with, sockopt::socket_peercred,
    },
};
use serde_json::{Value, json};
use tokio::{runtime::Handle, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{limits, mounted::Mounted};
use asks::Connection;
use quota::Quotas;

/// All rings of a mount.
#[derive(Debug)]
pub(crate) struct Rings {
    /// Where programs connect, once it listens.
    name: OnceLock<String>,
    listener: OnceLock<Arc<OwnedFd>>,
    quotas: Arc<Quotas>,
    /// Bytes that writes in progress may hold.
    write_budget: Arc<Semaphore>,
    stop: CancellationToken,
    served: TaskTracker,
}

impl Default for Rings {
    fn default() -> Self {
        Self {
            name: OnceLock::new(),
            listener: OnceLock::new(),
            quotas: Arc::default(),
            write_budget: Arc::new(Semaphore::new(limits::RING_WRITE_PAGES as usize)),
            stop: CancellationToken::new(),
            served: TaskTracker::new(),
        }
    }
}

impl Rings {
    /// The value of the attribute by which programs find the socket.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.get().map(String::as_str)
    }

    /// For the admin socket.
    pub(crate) fn shown(&self) -> Value {
        let (rings, region_bytes) = self.quotas.used();
        json!({ "rings": rings, "region_bytes": region_bytes })
    }

    /// Ends all of them. Writes in progress go on.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        if let Some(listener) = self.listener.get() {
            // Ends the thread that accepts.
            let _ = shutdown(&**listener, Shutdown::Both);
        }
        self.served.close();
        if tokio::time::timeout(limits::DRAIN, self.served.wait()).await.is_err() {
            tracing::warn!("rings are given up");
        }
    }
}

/// Listens. `device`: the number by which the kernel knows files of this mount.
pub(crate) fn start(
    at: &Arc<Mounted>,
    device: (u32, u32),
    executors: Vec<Handle>,
) -> io::Result<()> {
    let kind = SocketType::SEQPACKET;
    let listener = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    // Not a secret: who connects can do nothing without a descriptor. The time keeps programs that remember
    // the name of a mount that is gone from another one.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let name = format!("ff2-ring-{}-{now:x}", std::process::id());
    bind(&listener, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    listen(&listener, limits::RINGS_WAITING_MAX)?;
    let listener = Arc::new(listener);
    let accepting = {
        let (at, listener) = (at.clone(), listener.clone());
        move || accept(&at, &listener, device, &executors)
    };
    thread::Builder::new().name("ff2-fuse-rings".into()).spawn(accepting)?;
    let _ = at.rings.listener.set(listener);
    let _ = at.rings.name.set(name);
    Ok(())
}

fn accept(at: &Arc<Mounted>, listener: &OwnedFd, device: (u32, u32), executors: &[Handle]) {
    let mut next = 0_usize;
    while !at.rings.stop.is_cancelled() {
        match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(socket) => {
                next = (next + 1) % executors.len();
                if let Err(error) = begin(at, socket, device, executors[next].clone()) {
                    tracing::warn!(%error, "a ring was not begun");
                }
            }
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) if at.rings.stop.is_cancelled() => {}
            Err(error) => {
                // Mostly too many open files, which may pass.
                tracing::warn!(%error, "no ring can be begun at the moment");
                thread::sleep(limits::RINGS_PAUSE);
            }
        }
    }
}

/// Gives the connection its thread.
fn begin(
    at: &Arc<Mounted>,
    socket: OwnedFd,
    device: (u32, u32),
    executor: Handle,
) -> io::Result<()> {
    let uid = socket_peercred(&socket)?.uid.as_raw();
    let share = match at.rings.quotas.ring(uid) {
        Ok(share) => share,
        Err(why) => return Ok(asks::refuse(&socket, libc::EMFILE, why)?),
    };
    let connection = Connection { at: at.clone(), socket: Arc::new(socket), uid, device, executor };
    let name = "ff2-fuse-ring".into();
    thread::Builder::new().name(name).spawn(move || asks::serve(connection, share)).map(drop)
}
