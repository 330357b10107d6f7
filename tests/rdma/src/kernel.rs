//! The machine's kernel: Debian's package, unpacked beside all others that were, never installed.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::image::{find, output};

/// What the tests need of it; each brings what it depends on.
const MODULES: [&str; 4] = ["crc32_generic", "rdma_rxe", "rdma_ucm", "dummy"];
/// And where there is a disk: a file system on it, and one that a program serves.
const DISK_MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "ext4", "fuse"];
/// Changes with what is kept of a package, so that older caches are left alone.
const FORM: &str = "2";

/// A kernel that QEMU can start, and its modules in the order in which they are loaded.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) image: PathBuf,
    pub(crate) modules: Vec<PathBuf>,
    /// To be loaded after those, where there is a disk.
    pub(crate) disk_modules: Vec<PathBuf>,
}

/// Waits until nobody else builds or runs a machine: they would take the processors from each other.
pub(crate) fn lock(cache: &Path) -> Result<File> {
    let file = File::create(cache.join("lock")).context("open the lock of the machines")?;
    file.lock().context("wait for other machines")?;
    Ok(file)
}

impl Kernel {
    /// What is in the cache, else what Debian has now.
    pub(crate) fn get(cache: &Path) -> Result<Self> {
        let folder = cache.join(format!("kernel-{FORM}"));
        if !folder.join("done").exists() {
            let work = tempfile::tempdir_in(cache)?;
            unpack(work.path()).context("make the kernel of the test machine")?;
            fs::write(work.path().join("kept/done"), "")?;
            let _ = fs::remove_dir_all(&folder);
            fs::rename(work.path().join("kept"), &folder)?;
        }
        let [modules, disk_modules] =
            ["modules", "disk-modules"].map(|name| sorted(&folder.join(name)));
        Ok(Self { image: folder.join("vmlinux"), modules: modules?, disk_modules: disk_modules? })
    }
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files: Vec<_> = files.collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}

fn unpack(work: &Path) -> Result<()> {
    let package = download(work)?;
    let tree = work.join("tree");
    output(Command::new("dpkg-deb").arg("-x").arg(package).arg(&tree))?;
    if !tree.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", tree.join("lib"))?;
    }
    let kept = work.join("kept");
    fs::create_dir_all(&kept)?;
    let release = only(&tree.join("lib/modules"), "")?;
    let release =
        release.file_name().context("a release has a name")?.to_string_lossy().into_owned();
    let compressed = fs::read(only(&tree.join("boot"), "vmlinuz-")?)?;
    fs::write(kept.join("vmlinux"), decompressed(&compressed)?)?;
    output(tool("depmod").arg("-b").arg(&tree).arg(&release))?;
    let base = with_dependencies(&tree, &release, &MODULES)?;
    let more = with_dependencies(&tree, &release, &DISK_MODULES)?;
    let more: Vec<_> = more.into_iter().filter(|path| !base.contains(path)).collect();
    keep(&base, &kept.join("modules"))?;
    keep(&more, &kept.join("disk-modules"))
}

/// The files of modules and of what they depend on, in the order in which they are loaded. What is built into the
/// kernel has none.
fn with_dependencies(tree: &Path, release: &str, modules: &[&str]) -> Result<Vec<PathBuf>> {
    let mut order = Vec::new();
    for module in modules {
        let mut show = tool("modprobe");
        show.arg("-d").arg(tree).args(["-S", release, "--show-depends", module]);
        for line in output(&mut show)?.lines() {
            let Some(path) = line.strip_prefix("insmod ") else { continue };
            let path = PathBuf::from(path.split(' ').next().unwrap_or_default());
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    Ok(order)
}

fn keep(modules: &[PathBuf], folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for (place, path) in modules.iter().enumerate() {
        let name = path.file_name().context("a module has a name")?.to_string_lossy();
        let name = name.split(".ko").next().unwrap_or_default();
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let bytes = if bytes.starts_with(b"\x7fELF") { bytes } else { decompress(&bytes)? };
        fs::write(folder.join(format!("{place:02}-{name}.ko")), bytes)?;
    }
    Ok(())
}

/// The package that Debian's meta-package stands for.
fn download(work: &Path) -> Result<PathBuf> {
    let meta = "linux-image-amd64";
    let depends = output(Command::new("apt-cache").args(["depends", "--important", meta]))?;
    let name = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let name = name.with_context(|| format!("{meta} is in no package list: `apt-get update`"))?;
    let fetch = || output(Command::new("apt-get").args(["download", "-q", name]).current_dir(work));
    // Lists that are a while old name packages that are gone. Only root may have newer ones.
    fetch().or_else(|_| {
        output(Command::new("apt-get").args(["update", "-q"]))?;
        fetch()
    })?;
    only(work, "linux-image-")
}

/// The one file of a folder whose name begins so.
fn only(folder: &Path, begin: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(folder).with_context(|| format!("look into {}", folder.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(begin) {
            return Ok(entry.path());
        }
    }
    bail!("{} has no {begin}*", folder.display())
}

/// The kernel itself out of a bzImage, which QEMU starts by its PVH entry: to have the emulated processor
/// decompress it takes longer than all the rest of the boot.
///
/// Offsets of the setup header: Linux's `Documentation/arch/x86/boot.rst`.
fn decompressed(image: &[u8]) -> Result<Vec<u8>> {
    let word = |at: usize| -> Result<usize> {
        let bytes = image.get(at..at + 4).context("the kernel is shorter than its header")?;
        Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    let sectors = usize::from(*image.get(0x1f1).context("no setup header")?);
    let begin = (sectors + 1) * 512 + word(0x248)?;
    // The compressed length is followed by the uncompressed one, in four bytes.
    let end = (begin + word(0x24c)?).saturating_sub(4);
    decompress(image.get(begin..end).context("the kernel is shorter than its header says")?)
}

fn decompress(bytes: &[u8]) -> Result<Vec<u8>> {
    let program = match bytes {
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0x1f, 0x8b, ..] => "gzip",
        _ => bail!("compressed by a program that is not known here"),
    };
    let mut command = Command::new(program);
    command.args(["-d", "-c", "-q"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {program}"))?;
    let mut stdin = child.stdin.take().context("was asked for")?;
    let out = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(bytes));
        child.wait_with_output()
    })?;
    ensure!(out.status.success(), "{program} cannot decompress it");
    Ok(out.stdout)
}

/// A program of an administrator's, which is in no user's PATH.
fn tool(name: &str) -> Command {
    Command::new(find(name).unwrap_or_else(|| name.into()))
}
