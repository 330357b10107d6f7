//! The configuration files of a local cluster, written from the types that the daemons read.

use std::path::{Path, PathBuf};

use ff2_daemon::config::{
    AgentConfig, ComputeConfig, DiskConfig, Encrypt, LeaseConfig, LogConfig, MetadConfig,
    MountConfig, NetworkConfig, OverIoUring, PeerConfig, PolicyConfig, RaftConfig, RanksConfig,
    SchedConfig, SchedPeer, SecurityConfig, StorageTuning, StoragedConfig, Transport, to_toml,
};

use crate::cluster::{ClusterFile, Folder, HOST, Name, Process, Role};

/// The file for this process.
pub(super) fn text(folder: &Folder, file: &ClusterFile, process: &Process) -> String {
    match process.role {
        Role::Metad => to_toml(&metad(folder, file, process)),
        Role::Storaged => to_toml(&storaged(folder, file, process)),
        Role::Fuse => {
            let path = process.mount_point.as_deref().unwrap_or(Path::new("/"));
            to_toml(&mount_config(folder, file, process, path))
        }
        Role::Schedd => to_toml(&schedd(folder, file, process)),
        Role::Agentd => to_toml(&agent(folder, file, process)),
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
        security: security(folder, file, name),
        peers: file.of(Role::Metad).map(peer).collect(),
        raft: RaftConfig::default(),
        lease: LeaseConfig::default(),
        replace_after_s: 600,
        shared_memory: !file.tcp,
        threads: threads(file),
        network: network(file),
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
        security: security(folder, file, name),
        metads: file.metads(),
        disks: (0..process.disks).map(disk).collect(),
        zones: Vec::new(),
        leaf: String::new(),
        // What has one thread for everything wakes no other one for its disks.
        storage: StorageTuning { disk_threads: threads(file) > 1, ..StorageTuning::default() },
        shared_memory: !file.tcp,
        threads: threads(file),
        network: network(file),
        log: LogConfig::default(),
    }
}

fn security(folder: &Folder, file: &ClusterFile, name: Name) -> SecurityConfig {
    SecurityConfig {
        cluster_key_file: folder.cluster_key(),
        tls_cert_file: Some(folder.certificate(name)),
        tls_key_file: Some(folder.certificate_key(name)),
        tls_ca_file: Some(folder.ca()),
        encrypt: encrypt(file),
    }
}

/// Where jobs have their folders. It is decided before there are agents.
fn jobs_dir(folder: &Folder, file: &ClusterFile) -> PathBuf {
    file.jobs_dir.clone().unwrap_or_else(|| folder.path().join("jobs"))
}

fn schedd(folder: &Folder, file: &ClusterFile, process: &Process) -> SchedConfig {
    let peer = |process: &Process| SchedPeer {
        node: process.index + 1,
        address: format!("{HOST}:{}", process.port),
        admin_address: format!("{HOST}:{}", process.admin_port),
    };
    let (cpus, memory_mib) = for_jobs();
    SchedConfig {
        node: process.index + 1,
        cluster_id: file.cluster_id.clone(),
        listen: format!("{HOST}:{}", process.port),
        admin_listen: format!("{HOST}:{}", process.admin_port),
        http_listen: format!("{HOST}:{}", process.http_port),
        data_dir: folder.data(process.name()),
        security: security(folder, file, process.name()),
        peers: file.of(Role::Schedd).map(peer).collect(),
        metads: file.metads(),
        jobs_dir: jobs_dir(folder, file),
        compute: ComputeConfig {
            cpus,
            memory_mib,
            lease_ms: 10_000,
            validate_every_s: 0,
            cordon_flapping: true,
        },
        // What people try here does not run for hours.
        policy: PolicyConfig { min_run_s: 5, patience_s: 30, plan_every_s: 1 },
        partitions: Vec::new(),
        raft: RaftConfig::default(),
        threads: threads(file),
        log: LogConfig::default(),
    }
}

/// Cores and MiB that each agent says are its own: as if there were a machine for each, and no small one.
fn for_jobs() -> (u32, u32) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = rustix::system::sysinfo();
    let memory_mib = memory.totalram.saturating_mul(memory.mem_unit.into()) >> 20;
    let cpus = u32::try_from(cores).unwrap_or(u32::MAX).max(8);
    (cpus, u32::try_from(memory_mib).unwrap_or(u32::MAX))
}

/// So many agents of a local cluster are at one leaf switch.
const AGENTS_PER_LEAF: u32 = 4;

fn agent(folder: &Folder, file: &ClusterFile, process: &Process) -> AgentConfig {
    let (cpus, memory_mib) = for_jobs();
    AgentConfig {
        cluster_id: file.cluster_id.clone(),
        name: format!("node-{}", process.index),
        host: HOST.into(),
        zone: "local".into(),
        pod: String::new(),
        leaf: format!("leaf-{}", process.index / AGENTS_PER_LEAF),
        jobs_dir: jobs_dir(folder, file),
        ports_only: false,
        data_dir: folder.data(process.name()),
        http_listen: Some(format!("{HOST}:{}", process.http_port)),
        security: security(folder, file, process.name()),
        schedds: file.schedds(),
        fake_gpus: file.fake_gpus,
        cpus: Some(cpus),
        memory_mib: Some(memory_mib),
        gpu_kind: None,
        // All servers of a local cluster talk over it.
        links: vec!["lo".into()],
        threads: 1,
        ranks: ranks(file),
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
        noatime: false,
        read_only: false,
        subdir: None,
        cache_ms: 60_000,
        threads: threads(file),
        // As the machine's administrator has it: on few cores neither way is better by much.
        io_uring: OverIoUring::Auto,
        network: network(file),
        log: LogConfig::default(),
    }
}

/// All addresses of this host reach each other, and nobody else takes part.
fn network(file: &ClusterFile) -> NetworkConfig {
    NetworkConfig {
        transport: file.transport,
        rdma_subnets: rdma_subnets(file),
        rdma_trusted: file.transport != Transport::Tcp,
        ..NetworkConfig::default()
    }
}

/// As the servers.
fn ranks(file: &ClusterFile) -> RanksConfig {
    RanksConfig {
        transport: file.transport,
        rdma_subnets: rdma_subnets(file),
        ..RanksConfig::default()
    }
}

fn rdma_subnets(file: &ClusterFile) -> Vec<String> {
    let everywhere = ["0.0.0.0/0", "::/0"].map(String::from);
    if file.transport == Transport::Tcp { Vec::new() } else { everywhere.into() }
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
        let schedd = Process { admin_port: 9_041, ..server(Role::Schedd, 0, 9_040) };
        let agent = Process { http_port: 9_050, ..Process::new(Role::Agentd, 0) };
        file.processes.extend([schedd, agent]);
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
                Role::Schedd => drop(parse::<SchedConfig>(&path, &text).unwrap()),
                Role::Agentd => drop(parse::<AgentConfig>(&path, &text).unwrap()),
            }
        }
        let second = metad(&folder, &file, &file.processes[1]);
        assert_eq!((second.node, second.peers.len()), (2, 2));
        let storage = storaged(&folder, &file, &file.processes[2]);
        assert_eq!(storage.metads, ["127.0.0.1:9000", "127.0.0.1:9010"]);
        assert_eq!(storage.disks[1].path, Path::new("/data/ff2/storaged-0/disk-1"));
    }
}
