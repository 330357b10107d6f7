//! The folder of a local cluster, and `cluster.json` in it: which processes belong to it, on which
//! ports. Written by `up` and `mount`, read by everybody.
//!
//! ```text
//! D/cluster.json              this file
//! D/lock                      held while a command changes processes
//! D/security/                 cluster key, certificate authority, certificates, root token
//! D/metad-0/ storaged-0/ fuse-0/ ...    configuration, log, data/ (pid, admin.sock), disk-N/
//! ```

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail, ensure};
use ff2_daemon::config::Transport;
use serde::{Deserialize, Serialize};

use crate::{bytes::ByteSize, security};

/// Version of `cluster.json`. History: 1 = first.
const FORMAT: u32 = 1;
/// Everything of a local cluster talks on loopback.
pub(crate) const HOST: &str = "127.0.0.1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Metad,
    Storaged,
    Fuse,
    Schedd,
    Agentd,
}

impl Role {
    const ALL: [Self; 5] = [Self::Metad, Self::Storaged, Self::Fuse, Self::Schedd, Self::Agentd];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Metad => "metad",
            Self::Storaged => "storaged",
            Self::Fuse => "fuse",
            Self::Schedd => "schedd",
            Self::Agentd => "agentd",
        }
    }

    /// Whether it must be made before it is started first.
    pub(crate) fn is_formatted(self) -> bool {
        matches!(self, Self::Metad | Self::Storaged | Self::Schedd)
    }

    /// The file name of its program.
    pub(crate) fn program(self) -> String {
        format!("ff2-{}", self.as_str())
    }

    /// The file name of its configuration.
    pub(crate) fn config_name(self) -> &'static str {
        match self {
            Self::Metad => "metad.toml",
            Self::Storaged => "storaged.toml",
            Self::Fuse => "mount.toml",
            Self::Schedd => "schedd.toml",
            Self::Agentd => "agent.toml",
        }
    }
}

/// One process of the cluster: `metad/0`. Index 0 of metad has node id 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) role: Role,
    pub(crate) index: u32,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.role.as_str(), self.index))
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!("{text:?} names no process; write for example metad/0, storaged/2 or fuse/0")
        };
        let (role, index) = text.split_once('/').ok_or_else(wrong)?;
        let role = Role::ALL.into_iter().find(|known| known.as_str() == role).ok_or_else(wrong)?;
        Ok(Self { role, index: index.parse().map_err(|_| wrong())? })
    }
}

/// A process and what is fixed about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) role: Role,
    pub(crate) index: u32,
    /// Data plane of a server; 0 for a mount.
    #[serde(default)]
    pub(crate) port: u16,
    /// gRPC of a metad or schedd; else 0.
    #[serde(default)]
    pub(crate) admin_port: u16,
    pub(crate) http_port: u16,
    /// Of a storaged.
    #[serde(default)]
    pub(crate) disks: u32,
    /// Of a mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mount_point: Option<PathBuf>,
    /// The mount point did not exist before: it goes with the mount.
    #[serde(default)]
    pub(crate) made_mount_point: bool,
}

impl Process {
    /// Without ports, disks or mount point.
    pub(crate) fn new(role: Role, index: u32) -> Self {
        Self {
            role,
            index,
            port: 0,
            admin_port: 0,
            http_port: 0,
            disks: 0,
            mount_point: None,
            made_mount_point: false,
        }
    }

    pub(crate) fn name(&self) -> Name {
        Name { role: self.role, index: self.index }
    }

    /// Addresses by use: `data`, `admin`, `http`.
    pub(crate) fn addresses(&self) -> Vec<(&'static str, String)> {
        let ports = [("data", self.port), ("admin", self.admin_port), ("http", self.http_port)];
        let used = ports.into_iter().filter(|(_, port)| *port != 0);
        used.map(|(purpose, port)| (purpose, format!("{HOST}:{port}"))).collect()
    }

    #[cfg(test)]
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> {
        [self.port, self.admin_port, self.http_port].into_iter().filter(|port| *port != 0)
    }
}

/// `cluster.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterFile {
    pub(crate) format: u32,
    pub(crate) cluster_id: String,
    pub(crate) replicas: u32,
    pub(crate) disk_size: ByteSize,
    /// Its servers share no memory with peers on this host.
    #[serde(default)]
    pub(crate) tcp: bool,
    /// By what its processes reach each other, where they share no memory.
    #[serde(default)]
    pub(crate) transport: Transport,
    /// Bytes of files are encrypted where they go by TCP, as names are.
    #[serde(default)]
    pub(crate) encrypt_all: bool,
    /// Where jobs have their folders, once there are agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) jobs_dir: Option<PathBuf>,
    /// GPUs that each agent says that it has; none: those that it finds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fake_gpus: Option<u32>,
    pub(crate) processes: Vec<Process>,
}

impl ClusterFile {
    pub(crate) fn new(cluster_id: String, replicas: u32, disk_size: ByteSize) -> Self {
        Self {
            format: FORMAT,
            cluster_id,
            replicas,
            disk_size,
            tcp: false,
            transport: Transport::default(),
            encrypt_all: false,
            jobs_dir: None,
            fake_gpus: None,
            processes: Vec::new(),
        }
    }

    pub(crate) fn of(&self, role: Role) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(move |process| process.role == role)
    }

    pub(crate) fn find(&self, name: Name) -> Result<&Process> {
        let found = self.processes.iter().find(|process| process.name() == name);
        found.with_context(|| {
            let known: Vec<String> = self.processes.iter().map(|p| p.name().to_string()).collect();
            format!("this cluster has no {name}; it has {}", known.join(", "))
        })
    }

    /// Data-plane addresses of the metads.
    pub(crate) fn metads(&self) -> Vec<String> {
        self.of(Role::Metad).map(|metad| format!("{HOST}:{}", metad.port)).collect()
    }

    /// Data-plane addresses of the scheduler's replicas.
    pub(crate) fn schedds(&self) -> Vec<String> {
        self.of(Role::Schedd).map(|schedd| format!("{HOST}:{}", schedd.port)).collect()
    }

    /// gRPC addresses of the scheduler's replicas.
    pub(crate) fn scheds(&self) -> Vec<String> {
        self.of(Role::Schedd).map(|schedd| format!("{HOST}:{}", schedd.admin_port)).collect()
    }

    /// gRPC addresses of the metads.
    pub(crate) fn admins(&self) -> Vec<String> {
        self.of(Role::Metad).map(|metad| format!("{HOST}:{}", metad.admin_port)).collect()
    }
}

/// A local cluster's folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn of(&self, name: Name) -> PathBuf {
        self.0.join(format!("{}-{}", name.role.as_str(), name.index))
    }

    pub(crate) fn config(&self, name: Name) -> PathBuf {
        self.of(name).join(name.role.config_name())
    }

    pub(crate) fn data(&self, name: Name) -> PathBuf {
        self.of(name).join("data")
    }

    pub(crate) fn disk(&self, name: Name, disk: u32) -> PathBuf {
        self.of(name).join(format!("disk-{disk}"))
    }

    pub(crate) fn log(&self, name: Name) -> PathBuf {
        self.of(name).join("log")
    }

    /// Written when `format` succeeded: without it, what lies in the folders never served.
    pub(crate) fn formatted(&self, name: Name) -> PathBuf {
        self.of(name).join("formatted")
    }

    pub(crate) fn security(&self) -> PathBuf {
        self.0.join("security")
    }

    pub(crate) fn cluster_key(&self) -> PathBuf {
        self.security().join(security::CLUSTER_KEY)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.security().join(security::CA)
    }

    pub(crate) fn certificate(&self, name: Name) -> PathBuf {
        self.security().join(format!("{}-{}.pem", name.role.as_str(), name.index))
    }

    pub(crate) fn certificate_key(&self, name: Name) -> PathBuf {
        self.security().join(format!("{}-{}.key", name.role.as_str(), name.index))
    }

    pub(crate) fn root_token(&self) -> PathBuf {
        self.security().join(security::ROOT_TOKEN)
    }

    fn file(&self) -> PathBuf {
        self.0.join("cluster.json")
    }

    /// The cluster, if this folder holds one.
    pub(crate) fn read(&self) -> Result<Option<ClusterFile>> {
        let path = self.file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let file: ClusterFile =
            serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
        ensure!(
            file.format == FORMAT,
            "{} has format {}, this ff2ctl knows {FORMAT}: use the ff2ctl that made it",
            path.display(),
            file.format
        );
        Ok(Some(file))
    }

    /// As [`Self::read`], where there must be one.
    pub(crate) fn load(&self) -> Result<ClusterFile> {
        self.read()?.with_context(|| {
            format!(
                "there is no cluster in {}: start one with `ff2ctl up`, or name its folder with \
                 --dir or FF2_DIR",
                self.0.display()
            )
        })
    }

    /// As [`Self::load`], and nobody else changes it before the lock is dropped.
    pub(crate) fn load_locked(&self) -> Result<(ClusterFile, FolderLock)> {
        // Where there is no cluster, no folder is made for the lock.
        self.load()?;
        let lock = self.lock()?;
        Ok((self.load()?, lock))
    }

    /// Replaces `cluster.json` in one step.
    pub(crate) fn save(&self, file: &ClusterFile) -> Result<()> {
        let text = serde_json::to_string_pretty(file).context("print cluster.json")?;
        write_file(&self.file(), text.as_bytes(), 0o600)
    }

    /// Makes the folder if needed and keeps other ff2ctl commands from changing its processes.
    pub(crate) fn lock(&self) -> Result<FolderLock> {
        make_folder(&self.0)?;
        let path = self.0.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(FolderLock { _file: file }),
            Err(TryLockError::WouldBlock) => {
                bail!("another ff2ctl is changing the cluster in {}: wait for it", self.0.display())
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("lock {}", path.display()))
            }
        }
    }
}

/// Held by the command that changes processes.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

/// Makes a folder, and those above it, for this user only.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make the folder {}", path.display()))
}

/// Writes a whole file beside and moves it into place.
pub(crate) fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let beside = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests;
