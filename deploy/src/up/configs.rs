//! The configuration files of a local cluster, written from the types that the daemons read.

use std::path::Path;

use ff2_daemon::config::{
    DiskConfig, Encrypt, LeaseConfig, LogConfig, MetadConfig, MountConfig, OverIoUring, PeerConfig,
    RaftConfig, SecurityConfig, StorageTuning, StoragedConfig, to_toml,
};

use crate::cluster::{ClusterFile, Folder, HOST, Process, Role};

/// The file for this process.
pub(super) fn text(folder: &Folder, file: &ClusterFile, process: &Process) -> String {
    match process.role {
        Role::Metad => to_toml(&metad(folder, file, process)),
        Role::Storaged => to_toml(&storaged(folder, file, process)),
        Role::Fuse => {
            let path = process.mount_point.as_deref().unwrap_or(Path::new("/"));
            to_toml(&mount_config(folder, file, process, path))
        }
    }
}

fn metad(folder: &Folder, file: &ClusterFile, process: &Process) -> MetadConfig {
    let name = process.name();
    let peer = |process: &Process| PeerConfig {
        node: process.index + 1,
        address: format!("{HOST}:{}", process.port),
    };
    MetadConfig {
        node: process.index + 1,
        cluster_id: file.cluster_id.clone(),
        listen: format!("{HOST}:{}", process.port),
        admin_listen: format!("{HOST}:{}", process.admin_port),
        http_listen: format!("{HOST}:{}", process.http_port),
        data_dir: folder.data(name),
        security: SecurityConfig {
            cluster_key_file: folder.cluster_key(),
            tls_cert_file: Some(folder.certificate(name)),
            tls_key_file: Some(folder.certificate_key(name)),
            tls_ca_file: Some(folder.ca()),
            encrypt: encrypt(file),
        },
        peers: file.of(Role::Metad).map(peer).collect(),
        raft: RaftConfig::default(),
        lease: LeaseConfig::default(),
        replace_after_s: 600,
        shared_memory: !file.tcp,
        threads: threads(file),
        log: LogConfig::default(),
    }
}

fn storaged(folder: &Folder, file: &ClusterFile, process: &Process) -> StoragedConfig {
    let name = process.name();
    let disk =
        |index| DiskConfig { path: folder.disk(name, index), size_bytes: Some(file.disk_size.0) };
    StoragedConfig {
        cluster_id: file.cluster_id.clone(),
        listen: format!("{HOST}:{}", process.port),
        http_listen: format!("{HOST}:{}", process.http_port),
        data_dir: folder.data(name),
        security: SecurityConfig {
            cluster_key_file: folder.cluster_key(),
            tls_cert_file: Some(folder.certificate(name)),
            tls_key_file: Some(folder.certificate_key(name)),
            tls_ca_file: Some(folder.ca()),
            encrypt: encrypt(file),
        },
        metads: file.metads(),
        disks: (0..process.disks).map(disk).collect(),
        // What has one thread for everything wakes no other one for its disks.
        storage: StorageTuning { disk_threads: threads(file) > 1, ..StorageTuning::default() },
        shared_memory: !file.tcp,
        threads: threads(file),
        log: LogConfig::default(),
    }
}

/// What `ff2-fuse` needs to mount on `path`.
fn mount_config(
    folder: &Folder,
    file: &ClusterFile,
    process: &Process,
    path: &Path,
) -> MountConfig {
    MountConfig {
        cluster_id: file.cluster_id.clone(),
        metads: file.metads(),
        token_file: folder.root_token(),
        tls_ca_file: Some(folder.ca()),
        encrypt: encrypt(file),
        volume: super::serving::VOLUME.into(),
        mount_point: path.to_owned(),
        data_dir: folder.data(process.name()),
        http_listen: None,
        // Root mounts for the whole machine, as with any local file system; others for themselves.
        allow_other: rustix::process::geteuid().is_root(),
        dirsync: false,
        read_only: false,
        subdir: None,
        cache_ms: 60_000,
        threads: threads(file),
        // As the machine's administrator has it: on few cores neither way is better by much.
        io_uring: OverIoUring::Auto,
        log: LogConfig::default(),
    }
}

fn encrypt(file: &ClusterFile) -> Encrypt {
    if file.encrypt_all { Encrypt::All } else { Encrypt::Metadata }
}

/// The processes of a local cluster share the machine's cores.
fn threads(file: &ClusterFile) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / file.processes.len().max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use ff2_daemon::config::parse;

    use super::*;
    use crate::bytes::ByteSize;

    fn cluster() -> ClusterFile {
        let mut file = ClusterFile::new("c".into(), 2, ByteSize(1 << 30));
        let server = |role, index: u32, port| Process {
            port,
            admin_port: if role == Role::Metad { port + 1 } else { 0 },
            http_port: port + 2,
            disks: if role == Role::Storaged { 2 } else { 0 },
            ..Process::new(role, index)
        };
        file.processes = vec![
            server(Role::Metad, 0, 9_000),
            server(Role::Metad, 1, 9_010),
            server(Role::Storaged, 0, 9_020),
        ];
        let mount = Process { mount_point: Some("/mnt/x".into()), ..Process::new(Role::Fuse, 0) };
        file.processes.push(mount);
        file
    }

    /// What is written is what the daemons accept: unknown keys and bad values are refused there.
    #[test]
    fn the_daemons_accept_what_is_written() {
        let folder = Folder::new("/data/ff2".into());
        let file = cluster();
        for process in &file.processes {
            let text = text(&folder, &file, process);
            let path = folder.config(process.name());
            match process.role {
                Role::Metad => drop(parse::<MetadConfig>(&path, &text).unwrap()),
                Role::Storaged => drop(parse::<StoragedConfig>(&path, &text).unwrap()),
                Role::Fuse => drop(parse::<MountConfig>(&path, &text).unwrap()),
            }
        }
        let second = metad(&folder, &file, &file.processes[1]);
        assert_eq!((second.node, second.peers.len()), (2, 2));
        let storage = storaged(&folder, &file, &file.processes[2]);
        assert_eq!(storage.metads, ["127.0.0.1:9000", "127.0.0.1:9010"]);
        assert_eq!(storage.disks[1].path, Path::new("/data/ff2/storaged-0/disk-1"));
    }
}
