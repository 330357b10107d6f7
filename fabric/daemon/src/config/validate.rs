//! What no type can say about a configuration: values that fit together. Each problem names the key
//! and what to do, and all are found in one go.

mod sched;

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use ff2_proto::limits::{ADDRESSES_MAX, BULK_BYTES_MAX};

use super::{
    Encrypt, LeaseConfig, LogConfig, MetadConfig, MountConfig, RaftConfig, SecurityConfig,
    StorageTuning, StoragedConfig, network::zone,
};

/// A disk smaller than this holds no useful number of the largest chunks.
const DISK_BYTES_MIN: u64 = 64 << 20;
/// Two requests with the largest payload must fit, else the second waits for the first for ever.
const BUFFER_BYTES_MIN: u64 = 2 * BULK_BYTES_MAX as u64;

/// What is wrong, as `key: what to do`.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn add(&mut self, key: &str, what_to_do: impl fmt::Display) {
        self.0.push(format!("{key}: {what_to_do}"));
    }

    /// Adds the problem unless `good`.
    pub fn require(&mut self, good: bool, key: &str, what_to_do: impl fmt::Display) {
        if !good {
            self.add(key, what_to_do);
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            write!(f, "{}  {problem}", if number == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// A configuration that can tell what is wrong with it.
pub trait Validate {
    fn validate(&self, problems: &mut Problems);
}

impl Validate for MetadConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.require(self.node > 0, "node", "node ids count from 1");
        cluster_id(&self.cluster_id, problems);
        advertised("listen", &self.listen, problems);
        advertised("admin_listen", &self.admin_listen, problems);
        address("http_listen", &self.http_listen, problems);
        let own = [&self.listen, &self.admin_listen, &self.http_listen];
        distinct("listen, admin_listen, http_listen", own, problems);
        folder("data_dir", &self.data_dir, problems);
        self.security.validate(problems);
        let listed = self.peers.iter().map(|peer| (peer.node, peer.address.as_str()));
        peers((self.node, &self.listen), listed, problems);
        self.raft.validate(problems);
        self.lease.validate(problems);
        threads(self.threads, problems);
        self.network.validate(problems);
        self.log.validate(problems);
    }
}

impl Validate for SecurityConfig {
    fn validate(&self, problems: &mut Problems) {
        let key_file = "security.cluster_key_file";
        problems.require(
            !self.cluster_key_file.as_os_str().is_empty(),
            key_file,
            "give the file with the cluster key (mode 0600)",
        );
        problems.require(
            self.tls_cert_file.is_some() == self.tls_key_file.is_some(),
            "security.tls_cert_file, tls_key_file",
            "give both or neither",
        );
        encrypt("security.", self.encrypt, self.tls_ca_file.is_some(), problems);
        problems.require(
            self.encrypt != Encrypt::All || self.tls_cert_file.is_some(),
            "security.encrypt",
            "\"all\" needs tls_cert_file and tls_key_file, with which others reach this server",
        );
    }
}

fn encrypt(table: &str, encrypt: Encrypt, has_authority: bool, problems: &mut Problems) {
    problems.require(
        encrypt != Encrypt::All || has_authority,
        &format!("{table}encrypt"),
        "\"all\" needs tls_ca_file, the cluster's ca.pem",
    );
}

impl Validate for RaftConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.require(
            (1..=1_000).contains(&self.tick_ms),
            "raft.tick_ms",
            "between 1 and 1000 milliseconds",
        );
        problems.require(self.heartbeat_ticks >= 1, "raft.heartbeat_ticks", "at least 1");
        problems.require(
            self.election_ticks > self.heartbeat_ticks.saturating_mul(2),
            "raft.election_ticks",
            "more than twice heartbeat_ticks, else one lost message costs an election",
        );
    }
}

impl Validate for LeaseConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.require(self.heartbeat_ms >= 20, "lease.heartbeat_ms", "at least 20 milliseconds");
        problems.require(
            self.lease_ms / 2 >= self.heartbeat_ms.saturating_mul(2),
            "lease.lease_ms",
            "at least four times heartbeat_ms: a node fences itself at half a lease and must \
             survive one lost heartbeat",
        );
        problems.require(
            self.session_ms >= self.lease_ms,
            "lease.session_ms",
            "at least lease_ms, so that a mount outlives a change of leader",
        );
    }
}

impl Validate for StoragedConfig {
    fn validate(&self, problems: &mut Problems) {
        cluster_id(&self.cluster_id, problems);
        advertised("listen", &self.listen, problems);
        address("http_listen", &self.http_listen, problems);
        for (index, in_zone) in self.zones.iter().enumerate() {
            let key = format!("zones[{index}]");
            problems.require(!in_zone.zone.is_empty(), &format!("{key}.zone"), "name the zone");
            zone(&format!("{key}.zone"), &in_zone.zone, problems);
            advertised(&format!("{key}.listen"), &in_zone.listen, problems);
        }
        problems.require(self.zones.len() < ADDRESSES_MAX, "zones", "at most 7");
        let own = [&self.listen, &self.http_listen];
        let own = own.into_iter().chain(self.zones.iter().map(|in_zone| &in_zone.listen));
        distinct("listen, http_listen, zones[].listen", own, problems);
        folder("data_dir", &self.data_dir, problems);
        self.security.validate(problems);
        metads(&self.metads, problems);
        problems.require(!self.disks.is_empty(), "disks", "list at least one folder");
        for (index, disk) in self.disks.iter().enumerate() {
            let key = format!("disks[{index}]");
            folder(&format!("{key}.path"), &disk.path, problems);
            problems.require(
                disk.size_bytes.is_none_or(|size| size >= DISK_BYTES_MIN),
                &format!("{key}.size_bytes"),
                format!("at least {} MiB", DISK_BYTES_MIN >> 20),
            );
        }
        distinct("disks[].path", self.disks.iter().map(|d| &d.path), problems);
        self.storage.validate(problems);
        threads(self.threads, problems);
        self.network.validate(problems);
        self.log.validate(problems);
    }
}

impl Validate for StorageTuning {
    fn validate(&self, problems: &mut Problems) {
        problems.require(
            self.buffer_bytes >= BUFFER_BYTES_MIN,
            "storage.buffer_bytes",
            format!("at least {} MiB: two chunks of the largest size", BUFFER_BYTES_MIN >> 20),
        );
        problems.require(
            self.resync_bytes_per_s >= 1 << 20,
            "storage.resync_bytes_per_s",
            "at least 1 MiB a second, else a returning target never catches up",
        );
        problems.require(
            self.scrub_bytes_per_s >= 1 << 20,
            "storage.scrub_bytes_per_s",
            "at least 1 MiB a second; `scrub_every_s = 0` scrubs only when asked",
        );
        problems.require(
            (1..=4_096).contains(&self.disk_depth),
            "storage.disk_depth",
            "between 1 and 4096",
        );
    }
}

impl Validate for MountConfig {
    fn validate(&self, problems: &mut Problems) {
        cluster_id(&self.cluster_id, problems);
        metads(&self.metads, problems);
        problems.require(
            !self.token_file.as_os_str().is_empty(),
            "token_file",
            "give a file with a user token; `ff2ctl user token NAME` makes one",
        );
        problems.require(
            !self.volume.is_empty(),
            "volume",
            "name a volume, for example \"default\"",
        );
        encrypt("", self.encrypt, self.tls_ca_file.is_some(), problems);
        folder("mount_point", &self.mount_point, problems);
        folder("data_dir", &self.data_dir, problems);
        problems.require(
            !self.data_dir.starts_with(&self.mount_point),
            "data_dir",
            "must lie outside of mount_point",
        );
        if let Some(listen) = &self.http_listen {
            address("http_listen", listen, problems);
        }
        problems.require(self.cache_ms <= 60_000, "cache_ms", "at most 60000 milliseconds");
        threads(self.threads, problems);
        self.network.validate(problems);
        self.log.validate(problems);
    }
}

impl Validate for LogConfig {
    fn validate(&self, problems: &mut Problems) {
        if let Err(error) = self.filter.parse::<tracing_subscriber::EnvFilter>() {
            problems.add("log.filter", format!("{error}; for example \"info,ff2_storaged=debug\""));
        }
    }
}

fn threads(threads: usize, problems: &mut Problems) {
    problems.require(
        threads <= 1_024,
        "threads",
        "at most 1024; 0 takes as many as there are cores",
    );
}

fn cluster_id(id: &str, problems: &mut Problems) {
    let plain = id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    problems.require(
        (1..=64).contains(&id.len()) && plain,
        "cluster_id",
        "1 to 64 letters, digits, '-', '_' or '.'",
    );
}

/// The members of a group by their numbers and data-plane addresses, with this one among them.
fn peers<'a>(
    (own, listen): (u32, &str),
    listed: impl Iterator<Item = (u32, &'a str)> + Clone,
    problems: &mut Problems,
) {
    for (index, (node, address)) in listed.clone().enumerate() {
        let key = format!("peers[{index}]");
        problems.require(node > 0, &key, "node ids count from 1");
        advertised(&format!("{key}.address"), address, problems);
    }
    distinct("peers[].node", listed.clone().map(|(node, _)| node), problems);
    distinct("peers[].address", listed.clone().map(|(_, address)| address), problems);
    match listed.into_iter().find(|(node, _)| *node == own) {
        None => problems.add("peers", format!("list this node ({own}) too")),
        Some((_, address)) if address != listen => {
            problems.add("listen", format!("peers says that node {own} listens on {address}"));
        }
        Some(_) => {}
    }
}

fn metads(addresses: &[String], problems: &mut Problems) {
    servers("metads", addresses, problems);
}

/// The daemons of this kind, by their addresses.
fn servers(kind: &str, addresses: &[String], problems: &mut Problems) {
    let what_to_do = format!("list the data-plane addresses of the {kind}");
    problems.require(!addresses.is_empty(), kind, what_to_do);
    for (index, server) in addresses.iter().enumerate() {
        advertised(&format!("{kind}[{index}]"), server, problems);
    }
    distinct(kind, addresses, problems);
}

/// `host:port`; port 0 lets the system choose.
fn address(key: &str, text: &str, problems: &mut Problems) -> Option<u16> {
    let port = match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => port.parse::<u16>().ok(),
        _ => None,
    };
    problems.require(port.is_some(), key, format!("\"{text}\" is not host:port"));
    port
}

/// An address that others connect to.
fn advertised(key: &str, text: &str, problems: &mut Problems) {
    let port = address(key, text, problems);
    problems.require(port != Some(0), key, "choose a port: others must know it");
    let anywhere =
        text.parse::<SocketAddr>().is_ok_and(|address| IpAddr::is_unspecified(&address.ip()));
    problems.require(
        !anywhere,
        key,
        format!("{text} cannot be reached by others; give the address of one interface"),
    );
}

fn folder(key: &str, path: &Path, problems: &mut Problems) {
    problems.require(
        path.is_absolute(),
        key,
        format!("\"{}\" must be an absolute path", path.display()),
    );
}

fn distinct<T: Ord>(key: &str, values: impl IntoIterator<Item = T>, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    let unique = values.into_iter().all(|value| seen.insert(value));
    problems.require(unique, key, "the same value is given twice");
}

#[cfg(test)]
mod tests;
