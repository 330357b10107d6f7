//! Configuration of the daemons: one TOML file each, parsed into a typed struct that refuses unknown
//! keys. `ff2ctl` writes the same structs, so that no key is spelled in two places.

mod load;
mod network;
mod sched;
mod suggest;
mod validate;

use std::path::{Path, PathBuf};

pub use load::{ConfigError, load, parse, to_toml};
pub use network::{ClassConfig, NetworkConfig, RanksConfig, Transport, WorkloadName, ZoneListen};
pub use sched::{
    AgentConfig, ComputeConfig, PartitionConfig, PolicyConfig, SchedConfig, SchedPeer,
};
use serde::{Deserialize, Serialize};
pub use validate::{Problems, Validate};

/// What [`crate::run`] needs of every daemon's configuration.
pub trait DaemonConfig: Serialize + Validate + Send + Sync + 'static {
    fn data_dir(&self) -> &Path;
    /// Where metrics and status are served over TCP, if anywhere.
    fn http_listen(&self) -> Option<&str>;
    fn log(&self) -> &LogConfig;
    /// Threads that run the daemon's tasks; 0: as many as the machine has cores.
    fn threads(&self) -> usize;
}

/// Configurations that have all of it as fields: those that serve HTTP always, and those that do where it is said.
macro_rules! daemon_configs {
    ($($config:ty: $http_listen:expr;)*) => {$(
        impl DaemonConfig for $config {
            fn data_dir(&self) -> &Path {
                &self.data_dir
            }
            fn http_listen(&self) -> Option<&str> {
                let http_listen: fn(&Self) -> Option<&str> = $http_listen;
                http_listen(self)
            }
            fn log(&self) -> &LogConfig {
                &self.log
            }
            fn threads(&self) -> usize {
                self.threads
            }
        }
    )*};
}

daemon_configs! {
    MetadConfig: |config| Some(&config.http_listen);
    StoragedConfig: |config| Some(&config.http_listen);
    MountConfig: |config| config.http_listen.as_deref();
    SchedConfig: |config| Some(&config.http_listen);
    AgentConfig: |config| config.http_listen.as_deref();
}

/// `metad.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetadConfig {
    /// This metad's node id, from 1. Never give a node id to another machine.
    pub node: u32,
    /// Name that other nodes must agree on; written at format and checked on every connection.
    pub cluster_id: String,
    /// Data-plane address, `host:port`.
    pub listen: String,
    /// gRPC (TLS) address for `ff2ctl`.
    pub admin_listen: String,
    /// HTTP address of metrics and the status page.
    pub http_listen: String,
    /// RocksDB of each group, and the admin socket `admin.sock`.
    pub data_dir: PathBuf,
    pub security: SecurityConfig,
    /// Every metad, this one included, as first formed. A metad with an empty folder asks these.
    pub peers: Vec<PeerConfig>,
    #[serde(default)]
    pub raft: RaftConfig,
    #[serde(default)]
    pub lease: LeaseConfig,
    /// A target that is away for so many seconds is made anew on another disk; 0: only `ff2ctl` does that.
    #[serde(default = "replace_after_s")]
    pub replace_after_s: u64,
    /// Peers on this host may come by a local socket, and bulk bytes then go through shared memory; false:
    /// all by the network.
    #[serde(default = "yes")]
    pub shared_memory: bool,
    /// Threads that run its tasks; 0: as many as the machine has cores. Where many daemons share few
    /// cores, fewer threads each spare the wake-ups between them.
    #[serde(default)]
    pub threads: usize,
    #[serde(default)]
    pub network: NetworkConfig,
    #[serde(default)]
    pub log: LogConfig,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    pub node: u32,
    /// Data-plane address.
    pub address: String,
}

/// Files that must be readable by this user only.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityConfig {
    /// The cluster key, base64, mode 0600. Daemons prove to each other that they hold it.
    pub cluster_key_file: PathBuf,
    /// PEM certificate and key of this server, for its gRPC (metad) and its data plane; new files are used
    /// without a restart.
    #[serde(default)]
    pub tls_cert_file: Option<PathBuf>,
    #[serde(default)]
    pub tls_key_file: Option<PathBuf>,
    /// The authority that signed those of the others. Without it nothing is encrypted that this process begins.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
    #[serde(default)]
    pub encrypt: Encrypt,
}

/// What of the data plane is encrypted between hosts (TLS 1.3), and must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encrypt {
    /// Nothing; a server takes both kinds. For the way from a release without encryption.
    None,
    /// What goes to and comes from metads.
    #[default]
    Metadata,
    /// Bytes of files too.
    All,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftConfig {
    /// Length of a raft tick: the grain of all other times. Each costs a wake-up.
    pub tick_ms: u64,
    /// Ticks without a leader before an election: 10 x 100 ms = 1 s, above the pauses of a busy host.
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
    /// Entries kept behind the slowest live follower's need, so that a short absence costs no snapshot.
    pub log_keep_entries: u64,
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self { tick_ms: 100, election_ticks: 10, heartbeat_ticks: 2, log_keep_entries: 10_000 }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseConfig {
    /// A storage node that was silent this long is dead; it fences itself at half of it.
    pub lease_ms: u32,
    /// Also the window in which deaths are judged as one event.
    pub heartbeat_ms: u32,
    /// A mount that was silent this long loses its session.
    pub session_ms: u32,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self { lease_ms: 3_000, heartbeat_ms: 500, session_ms: 30_000 }
    }
}

/// `storaged.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoragedConfig {
    /// Checked on every connection.
    pub cluster_id: String,
    pub listen: String,
    /// HTTP address of metrics and status.
    pub http_listen: String,
    /// Node id (given at the first join) and the admin socket `admin.sock`.
    pub data_dir: PathBuf,
    pub security: SecurityConfig,
    /// Data-plane addresses of the metads.
    pub metads: Vec<String>,
    pub disks: Vec<DiskConfig>,
    /// Further data-plane addresses, of cards in other zones than that of `listen` (`network.zone`).
    #[serde(default)]
    pub zones: Vec<ZoneListen>,
    /// The leaf switch that the node hangs at: replicas of a chain go to different ones. Empty: not told.
    #[serde(default)]
    pub leaf: String,
    #[serde(default)]
    pub storage: StorageTuning,
    /// Peers on this host may come by a local socket, and bulk bytes then go through shared memory; false:
    /// all by the network.
    #[serde(default = "yes")]
    pub shared_memory: bool,
    /// Threads that run its tasks; 0: as many as the machine has cores. Where many daemons share few
    /// cores, fewer threads each spare the wake-ups between them.
    #[serde(default)]
    pub threads: usize,
    #[serde(default)]
    pub network: NetworkConfig,
    #[serde(default)]
    pub log: LogConfig,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// A folder on the disk: holds the data file (or a link to a raw device) and the index.
    pub path: PathBuf,
    /// Size of the data file; a raw device says its own.
    #[serde(default)]
    pub size_bytes: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageTuning {
    /// Registered buffers of the process.
    pub buffer_bytes: u64,
    /// Resync traffic that this node sends, bytes a second; hot.
    pub resync_bytes_per_s: u64,
    /// What a scrub reads of each disk in a second.
    pub scrub_bytes_per_s: u64,
    /// Time from the end of a target's scrub to its next, seconds. 0: only when somebody asks for it.
    pub scrub_every_s: u64,
    /// Requests in progress on one disk.
    pub disk_depth: u32,
    /// A thread for each disk's io_uring. False where a daemon has one thread for everything: it then
    /// turns the rings itself, and wakes no other.
    pub disk_threads: bool,
    /// False only for disks whose cache survives a power cut: data is then not synced before the index.
    pub sync_data: bool,
}

impl Default for StorageTuning {
    fn default() -> Self {
        Self {
            buffer_bytes: 256 << 20,
            resync_bytes_per_s: 256 << 20,
            scrub_bytes_per_s: 32 << 20,
            scrub_every_s: 7 * 24 * 3_600,
            disk_depth: 128,
            disk_threads: true,
            sync_data: true,
        }
    }
}

/// What a mount needs; `ff2-fuse` takes it from a file or from its command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountConfig {
    pub cluster_id: String,
    pub metads: Vec<String>,
    /// A user token (`ff2ctl user token`), mode 0600.
    pub token_file: PathBuf,
    /// The authority that signed the servers' certificates (`ca.pem`). Without it nothing is encrypted.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
    #[serde(default)]
    pub encrypt: Encrypt,
    #[serde(default = "default_volume")]
    pub volume: String,
    pub mount_point: PathBuf,
    /// Admin socket and logs of the mount.
    pub data_dir: PathBuf,
    /// HTTP address of metrics; none by default.
    #[serde(default)]
    pub http_listen: Option<String>,
    /// Let users other than the mounting one in (needs `user_allow_other` unless root mounts).
    #[serde(default)]
    pub allow_other: bool,
    /// Changes of names and attributes return when they are durable, as `fsync` has it, also those of which
    /// no other mount knows.
    #[serde(default)]
    pub dirsync: bool,
    /// Reads do not change access times. By default they do as with the option `relatime` of other file systems.
    #[serde(default)]
    pub noatime: bool,
    #[serde(default)]
    pub read_only: bool,
    /// The folder of the volume that is mounted; its root by default. It keeps nobody with the token
    /// from the rest: for that, make the token for the folder.
    #[serde(default)]
    pub subdir: Option<String>,
    /// How long the kernel may keep attributes and names without asking again, at most. It drops them
    /// before another mount changes them; 0: it keeps none.
    #[serde(default = "default_cache_ms")]
    pub cache_ms: u64,
    /// Threads that serve requests; 0: one for each core, at most 8. Where many daemons share few cores,
    /// fewer threads each spare the wake-ups between them.
    #[serde(default)]
    pub threads: usize,
    /// Whether the kernel's requests come over io_uring: `auto`, where the kernel offers it; `yes` also
    /// asks it to (`/sys/module/fuse/parameters/enable_uring`), which root may; `no`, over `/dev/fuse`.
    #[serde(default)]
    pub io_uring: OverIoUring,
    #[serde(default)]
    pub network: NetworkConfig,
    #[serde(default)]
    pub log: LogConfig,
}

/// See [`MountConfig::io_uring`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverIoUring {
    #[default]
    Auto,
    Yes,
    No,
}

impl std::fmt::Display for OverIoUring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Yes => "yes",
            Self::No => "no",
        })
    }
}

impl std::str::FromStr for OverIoUring {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "yes" => Ok(Self::Yes),
            "no" => Ok(Self::No),
            other => Err(format!("{other}: neither auto, yes nor no")),
        }
    }
}

fn replace_after_s() -> u64 {
    600
}

fn yes() -> bool {
    true
}

fn default_volume() -> String {
    "default".into()
}

fn default_cache_ms() -> u64 {
    60_000
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `tracing` filter, for example `info,ff2_storaged=debug`.
    pub filter: String,
    pub json: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), json: false }
    }
}
