//! A throw-away virtual machine with a Debian kernel, for tests of what the host's kernel may lack: RDMA devices
//! (soft-RoCE), and a cgroup v2 hierarchy that is all theirs.
//!
//! Owns the machine from its packages ([`kernel`]) over its file system ([`image`]) to its end ([`machine`]). It never
//! installs anything and needs neither root nor KVM: the kernel's package is unpacked, and QEMU emulates the
//! processor, so a program takes about ten times as long in it. Integration tests call [`rerun_tests`]; people start
//! `ff2-vm PROGRAM`.
//!
//! The story of a run: [`Kernel::get`] has the kernel unpacked in a cache that any run can make anew. The image is an
//! initramfs of that kernel's modules, busybox, and programs with their libraries. `init.sh` makes the devices, runs
//! the program, and writes its exit status to a serial port of its own; the run is over when QEMU ended or its time is.
//!
//! In the machine are `zebra0` on `reed0` (10.77.0.1 to .4) and `zebra1` on `reed1` (10.77.1.1 to .4): two rails that
//! do not reach each other, on each of which a device reaches itself. Tests may take links down, nobody else is there.

mod image;
mod kernel;
mod machine;
mod rerun;

use std::path::PathBuf;

use anyhow::Result;

pub use kernel::Kernel;
pub use machine::{Disk, Ended, Job};
pub use rerun::{rerun_tests, rerun_tests_in, rerun_tests_named};

/// Runs a program in a machine of its own, after the machines of all others on this host.
pub fn run(job: &Job<'_>) -> Result<Ended> {
    let cache = cache()?;
    let _alone = kernel::lock(&cache)?;
    let kernel = Kernel::get(&cache)?;
    machine::run(job, &kernel)
}

/// Programs of the host that a machine is made of, and that are not there.
pub fn missing() -> Vec<&'static str> {
    let needed = ["qemu-system-x86_64", "busybox", "cpio", "depmod", "rdma", "apt-get", "dpkg-deb"];
    needed.into_iter().filter(|name| image::find(name).is_none()).collect()
}

/// `FF2_VM_CACHE`, or where programs keep what they can make again.
fn cache() -> Result<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let caches = || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    let folder = std::env::var_os("FF2_VM_CACHE").map(PathBuf::from);
    let folder = folder.or_else(|| Some(caches()?.join("ff2-vm")));
    let folder = folder.unwrap_or_else(|| std::env::temp_dir().join("ff2-vm"));
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
