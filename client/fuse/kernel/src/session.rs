//! One mounted file system, from the mount to its end.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::Arc,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    abi::InHeader,
    answer::Answer,
    device::{Device, Reader},
    executor::Executors,
    init::{Agreed, Offer, Wanted},
    interrupts::Interrupts,
    limits::{READERS_MAX, entries_of_cpu},
    memory::WriteMemory,
    mount::{self, MountOptions, Unmounter},
    notify::Notifier,
    request::{Asker, Decoded, Notice, Request},
    ring::Ring,
};

/// What answers the requests of a mount.
///
/// Both functions run on a thread of [`Executors`], in the context of its runtime, and must not wait:
/// what takes longer is spawned there. A task that is spawned with [`tokio::spawn`] stays on the thread.
pub trait Filesystem: Send + Sync + 'static {
    fn request(&self, request: Request);

    /// The kernel gave up so many of the references to an inode that it got by entries.
    fn forget(&self, inode: u64, lookups: u64);
}

/// Whether requests shall come over io_uring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoUring {
    /// Where the kernel offers it (Linux 6.14, `/sys/module/fuse/parameters/enable_uring`).
    Auto,
    /// As `Auto`, and asks the kernel to offer it for a moment, which root may.
    Yes,
    No,
}

/// The way that requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Device,
    Ring,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub mount: MountOptions,
    pub wanted: Wanted,
    pub io_uring: IoUring,
    /// For writes that come over `/dev/fuse`.
    pub memory: WriteMemory,
}

/// A mount that is served.
#[derive(Debug)]
pub struct Mounted {
    pub notifier: Notifier,
    pub unmounter: Unmounter,
    pub agreed: Agreed,
    pub way: Way,
    ended: CancellationToken,
}

impl Mounted {
    /// Returns when the mount is gone and nobody has files open there, or when the connection broke.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// What the sources of requests share.
#[derive(Debug)]
pub(crate) struct Session<F> {
    filesystem: Arc<F>,
    interrupts: Arc<Interrupts>,
    ended: CancellationToken,
}

/// Mounts, agrees with the kernel, and begins to serve. Waits for the kernel: not for a thread that
/// serves others.
pub fn mount<F: Filesystem>(
    executors: &Executors,
    options: Options,
    filesystem: Arc<F>,
) -> io::Result<Mounted> {
    // Until the kernel has agreed.
    let _offered = (options.io_uring == IoUring::Yes).then(Offered::ask);
    let device = Arc::new(Device::new(mount::mount(&options.mount)?));
    let unmounter = Unmounter::new(options.mount.mount_point.clone(), device.clone());
    let served = serve(executors, &options, filesystem, &device);
    match served {
        Ok((agreed, way, ended)) => {
            let notifier = Notifier::new(device);
            Ok(Mounted { notifier, unmounter, agreed, way, ended })
        }
        Err(error) => {
            // Else every access would wait for an answer to the first message.
            let _ = unmounter.unmount();
            Err(error)
        }
    }
}

fn serve<F: Filesystem>(
    executors: &Executors,
    options: &Options,
    filesystem: Arc<F>,
    device: &Arc<Device>,
) -> io::Result<(Agreed, Way, CancellationToken)> {
    let offer = Offer::read(device)?;
    let ended = CancellationToken::new();
    let session =
        Arc::new(Session { filesystem, interrupts: Arc::default(), ended: ended.clone() });
    let payload_bytes = offer.agree(&options.wanted, false).write_bytes_max as usize;
    let rings = rings(executors, options, &offer, &session, device, payload_bytes);
    let (rings, way) = match rings {
        Ok(rings) if !rings.is_empty() => (rings, Way::Ring),
        Ok(_) => (Vec::new(), Way::Device),
        Err(why) => {
            tracing::warn!(%why, "requests come over /dev/fuse, not over io_uring");
            (Vec::new(), Way::Device)
        }
    };
    // Openings first: what fails must fail before the kernel begins to count on us.
    let readers = if way == Way::Ring { 1 } else { executors.handles().len().min(READERS_MAX) };
    let mut devices = vec![device.clone()];
    while devices.len() < readers {
        devices.push(Arc::new(device.another()?));
    }
    let agreed = offer.agree(&options.wanted, way == Way::Ring);
    offer.accept(device, &options.wanted, &agreed);
    let bytes_max = agreed.write_bytes_max as usize;
    for (executor, device) in executors.handles().iter().zip(devices) {
        let reader = Reader::new(device, options.memory.clone(), bytes_max);
        let session = session.clone();
        executor.spawn(async move { session.end_with(reader.run(&session).await) });
    }
    for start in rings {
        // The task waits for nothing else.
        let _ = start.send(());
    }
    Ok((agreed, way, ended))
}

/// A ring on each executor, for its part of the CPUs; each waits for the kernel to have agreed. None, if
/// they are not wanted or not offered.
fn rings<F: Filesystem>(
    executors: &Executors,
    options: &Options,
    offer: &Offer,
    session: &Arc<Session<F>>,
    device: &Arc<Device>,
    payload_bytes: usize,
) -> io::Result<Vec<oneshot::Sender<()>>> {
    if options.io_uring == IoUring::No {
        return Ok(Vec::new());
    }
    if !offer.has_io_uring() {
        tracing::info!(
            "requests come over /dev/fuse: the kernel does not offer io_uring (Linux 6.14 does, \
             with /sys/module/fuse/parameters/enable_uring set to Y)"
        );
        return Ok(Vec::new());
    }
    let queues = possible_cpus()?;
    let entries = entries_of_cpu(queues.into());
    let count = executors.handles().len();
    let mut starts = Vec::new();
    for (number, executor) in executors.handles().iter().enumerate() {
        let own: Vec<u16> =
            (0..queues).filter(|queue| usize::from(*queue) % count == number).collect();
        if own.is_empty() {
            continue;
        }
        let (made, is_made) = std::sync::mpsc::sync_channel(1);
        let (start, begin) = oneshot::channel();
        let (session, device) = (session.clone(), device.clone());
        executor.spawn(async move {
            let mut ring = match Ring::new(device, &own, entries, payload_bytes) {
                Ok(ring) => ring,
                // Who asked waits below.
                Err(error) => return made.send(Err(error)).unwrap_or(()),
            };
            let _ = made.send(Ok(()));
            if begin.await.is_err() {
                return;
            }
            let outcome = match ring.register() {
                Ok(()) => ring.run(&session).await,
                Err(error) => Err(error),
            };
            session.end_with(outcome);
        });
        is_made.recv().map_err(|_| io::Error::other("an executor has stopped"))??;
        starts.push(start);
    }
    Ok(starts)
}

/// The kernel has a queue for each, and wants entries for all of them.
fn possible_cpus() -> io::Result<u16> {
    let list = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = list.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<u16>().ok());
    let odd = || io::Error::other(format!("the list of CPUs is {list:?}"));
    last.and_then(|last| last.checked_add(1)).ok_or_else(odd)
}

/// The machine's kernel offers io_uring, if that is ours to say; when this is dropped it is set as it was before.
struct Offered(Option<(fs::File, String)>);

impl Offered {
    const SETTING: &str = "/sys/module/fuse/parameters/enable_uring";

    fn ask() -> Self {
        let set = || -> io::Result<_> {
            let mut file = fs::File::options().read(true).write(true).open(Self::SETTING)?;
            // One after the other, so that none takes for the machine's what another asked for.
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
            let mut before = String::new();
            file.read_to_string(&mut before)?;
            file.write_all_at(b"Y", 0)?;
            Ok((file, before))
        };
        let set = set();
        if let Err(error) = &set {
            tracing::debug!(%error, "{} stays as it is", Self::SETTING);
        }
        Self(set.ok())
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        if let Some((file, before)) = &self.0
            && let Err(error) = file.write_all_at(before.trim().as_bytes(), 0)
        {
            tracing::warn!(%error, "{} is not set as it was", Self::SETTING);
        }
    }
}

impl<F: Filesystem> Session<F> {
    pub(crate) fn hand_on(&self, header: &InHeader, decoded: Decoded, answer: Answer) {
        match decoded {
            Decoded::Operation(operation) => {
                let asker = Asker { uid: header.uid, gid: header.gid, pid: header.pid };
                let interrupted = self.interrupts.of(header.unique);
                let inode = header.inode;
                self.filesystem.request(Request { asker, inode, operation, interrupted, answer });
            }
            Decoded::Notice(notice) => {
                answer.waive();
                self.take_notice(notice);
            }
        }
    }

    fn take_notice(&self, notice: Notice) {
        match notice {
            Notice::Forget(list) => {
                list.iter().for_each(|(inode, lookups)| self.filesystem.forget(*inode, *lookups));
            }
            Notice::Interrupt { unique } => self.interrupts.interrupt(unique),
            Notice::Destroy => {}
        }
    }

    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// A source of requests ended; without it the rest is of no use.
    fn end_with(&self, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            tracing::error!(%error, "the kernel's connection broke");
        }
        self.ended.cancel();
    }
}
