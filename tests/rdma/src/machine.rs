//! One run: QEMU from its start to its end, and what came out of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    image::{self, find},
    kernel::Kernel,
};

/// What is to be run, with how much.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// On the host; its libraries come along.
    pub program: &'a Path,
    pub arguments: &'a [&'a str],
    pub environment: &'a [(&'a str, &'a str)],
    /// The whole run, boot included.
    pub time_max: Duration,
    pub processors: u32,
    /// The program and the files lie in it too.
    pub memory_mib: u32,
    /// Where the program lies in the machine.
    pub place: &'a str,
    /// Programs and files of the host that come along, with their libraries, and where they lie in the machine.
    pub files: &'a [(PathBuf, String)],
    /// None: there is memory alone.
    pub disk: Option<Disk<'a>>,
}

/// An empty file system on a disk of its own, which takes direct I/O. Where there is one, programs can serve file
/// systems, too (FUSE).
#[derive(Clone, Debug)]
pub struct Disk<'a> {
    pub mib: u32,
    pub mount_point: &'a str,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// Of the program, on both outputs.
    pub output: String,
    /// As a shell has it: 128 and the signal's number for who was killed.
    pub status: i32,
    /// Of the kernel, and what went wrong with the devices.
    pub console: String,
}

impl<'a> Job<'a> {
    pub fn new(program: &'a Path) -> Self {
        Self {
            program,
            arguments: &[],
            environment: &[],
            time_max: Duration::from_secs(150),
            processors: 2,
            memory_mib: 768,
            place: "/work/program",
            files: &[],
            disk: None,
        }
    }
}

pub(crate) fn run(job: &Job<'_>, kernel: &Kernel) -> Result<Ended> {
    let work = tempfile::tempdir()?;
    let image = image::build(job, kernel, work.path()).context("make the machine's image")?;
    let ports = ["console", "output", "status"].map(|name| work.path().join(name));
    let mut command =
        Command::new(find("qemu-system-x86_64").context("qemu-system-x86 is missing")?);
    command.args(["-M", "q35", "-accel", "tcg,thread=multi,tb-size=128", "-cpu", PROCESSOR]);
    command.args(["-smp", &job.processors.to_string(), "-m", &job.memory_mib.to_string()]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(image);
    command.args(["-append", BOOT]);
    if let Some(disk) = &job.disk {
        let drive = blank(disk, work.path()).context("make the machine's disk")?;
        let drive = format!("file={},if=none,id=disk,format=raw,cache=unsafe", drive.display());
        command.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"]);
    }
    for port in &ports {
        fs::write(port, "")?;
        command.arg("-serial").arg(format!("file:{}", port.display()));
    }
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let mut qemu = Qemu(command.spawn().context("start QEMU")?);
    let in_time = qemu.wait(job.time_max)?;
    let [console, output, status] = ports.map(|port| {
        let bytes = fs::read(port).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    });
    let Ok(status) = status.trim().parse() else {
        let seconds = job.time_max.as_secs();
        let how = if in_time {
            "without an exit status".into()
        } else {
            format!("at its limit of {seconds} s")
        };
        bail!("the machine ended {how}; {}\nconsole:\n{console}\noutput:\n{output}", qemu.said());
    };
    ensure!(in_time, "the machine did not turn itself off\nconsole:\n{console}\noutput:\n{output}");
    Ok(Ended { output, status, console })
}

/// A sparse file with an empty ext4 in it.
fn blank(disk: &Disk<'_>, work: &Path) -> Result<PathBuf> {
    let path = work.join("disk");
    fs::File::create(&path)?.set_len(u64::from(disk.mib) << 20)?;
    let mut make = Command::new(find("mke2fs").context("mke2fs is missing: install e2fsprogs")?);
    image::output(make.args(["-q", "-t", "ext4"]).arg(&path))?;
    Ok(path)
}

/// Nothing that costs an emulated processor time for the sake of safety or of real hardware.
const BOOT: &str = "console=ttyS0 quiet loglevel=4 reboot=t panic=-1 mitigations=off nokaslr tsc=reliable \
    no_timer_check random.trust_cpu=on audit=0 cryptomgr.notests";

/// Processors with ERMS and FSRM copy by `rep movsb`, which is emulated byte by byte: all copies take several times as
/// long.
const PROCESSOR: &str = "max,-erms,-fsrm";

/// Does not outlive the run.
struct Qemu(Child);

impl Qemu {
    /// Whether it ended by itself.
    fn wait(&mut self, time_max: Duration) -> Result<bool> {
        let end = Instant::now() + time_max;
        while Instant::now() < end {
            if self.0.try_wait()?.is_some() {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(false)
    }

    /// Its complaints, once it is ended.
    fn said(&mut self) -> String {
        let _ = self.0.kill();
        let mut said = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            let _ = std::io::Read::read_to_string(&mut stderr, &mut said);
        }
        said
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
