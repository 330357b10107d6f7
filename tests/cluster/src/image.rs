//! A file system in a file, so that a test can take its power, or make it fail, as nobody else's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{Cluster, scratch_folder, suite::run};

/// An ext4 file system of its own, mounted until it is dropped.
#[derive(Debug)]
pub struct Image {
    file: PathBuf,
    mount: PathBuf,
    _folder: Option<TempDir>,
}

/// Sparse: it takes what is written to it.
const SIZE: u64 = 12 << 30;
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
const MOVED_WITHIN: Duration = Duration::from_secs(90);

impl Image {
    /// Mounted on a folder of its own.
    pub fn make() -> Result<Self> {
        let folder = scratch_folder("image-")?;
        let mut image = Self::make_at(&folder.path().join("mnt"))?;
        image._folder = Some(folder);
        Ok(image)
    }

    /// Mounted on `mount`, which is made; its file lies beside it.
    pub fn make_at(mount: &Path) -> Result<Self> {
        fs::create_dir_all(mount).context("create the mount point")?;
        let image =
            Self { file: mount.with_extension("img"), mount: mount.to_path_buf(), _folder: None };
        let file = fs::File::create(&image.file).context("create the image")?;
        file.set_len(SIZE).context("size the image")?;
        run(Command::new("mkfs.ext4").arg("-q").arg(&image.file))?;
        image.attach()?;
        fs::remove_dir(mount.join("lost+found")).context("empty the file system")?;
        Ok(image)
    }

    /// Moves the disk of a storage server of this cluster to a file system of its own.
    pub fn under(cluster: &Cluster, storaged: u32) -> Result<Self> {
        cluster.ctl(&["kill", &format!("storaged/{storaged}")])?;
        let own = cluster.dir().join(format!("storaged-{storaged}"));
        let (disk, before) = (own.join("disk-0"), own.join("before"));
        fs::rename(&disk, &before).context("take the disk away")?;
        let image = Self::make_at(&disk)?;
        let from = before.join(".");
        run(Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(&disk))?;
        run(Command::new("sync").arg("-f").arg(&disk))?;
        fs::remove_dir_all(&before).context("remove the old disk")?;
        cluster.up()?;
        cluster.wait_healthy(MOVED_WITHIN)?;
        Ok(image)
    }

    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// From now on every access fails, and what was not synced will not be there after
    /// [`Image::come_back`].
    pub fn lose_power(&self) -> Result<()> {
        // EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, by python because an ioctl is unsafe.
        let script = "import fcntl, os, struct, sys\n\
            fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        run(Command::new("python3").args(["-c", script]).arg(&self.mount)).map(drop)
    }

    /// Mounted anew, as after a start of the machine. Whoever had files in it open is dead: the kernel may
    /// still be closing them.
    pub fn come_back(&self) -> Result<()> {
        let started = Instant::now();
        while let Err(problem) = run(Command::new("umount").arg(&self.mount)) {
            if started.elapsed() > CLOSED_WITHIN {
                return Err(problem);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.attach()
    }

    fn attach(&self) -> Result<()> {
        let mut command = Command::new("mount");
        command.args(["-o", "loop"]).arg(&self.file).arg(&self.mount);
        run(&mut command).map(drop)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Lazily: a test that failed may have left a process in it.
        if let Err(problem) = run(Command::new("umount").arg("-l").arg(&self.mount)) {
            eprintln!("{problem:#}");
        }
        let _ = fs::remove_file(&self.file);
    }
}
