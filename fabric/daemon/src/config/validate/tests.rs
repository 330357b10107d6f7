use super::*;
use crate::config::{
    AgentConfig, DiskConfig, NetworkConfig, OverIoUring, PeerConfig, RanksConfig, ZoneListen,
};

fn security() -> SecurityConfig {
    SecurityConfig {
        cluster_key_file: "/etc/ff2/cluster.key".into(),
        tls_cert_file: None,
        tls_key_file: None,
        tls_ca_file: None,
        encrypt: Encrypt::Metadata,
    }
}

fn metad() -> MetadConfig {
    let peer = |node| PeerConfig { node, address: format!("10.0.0.{node}:7000") };
    MetadConfig {
        node: 2,
        cluster_id: "c".into(),
        listen: "10.0.0.2:7000".into(),
        admin_listen: "10.0.0.2:7001".into(),
        http_listen: "0.0.0.0:7002".into(),
        data_dir: "/var/lib/ff2".into(),
        security: security(),
        peers: vec![peer(1), peer(2), peer(3)],
        raft: RaftConfig::default(),
        lease: LeaseConfig::default(),
        replace_after_s: 600,
        shared_memory: true,
        threads: 0,
        network: NetworkConfig::default(),
        log: LogConfig::default(),
    }
}

fn storaged() -> StoragedConfig {
    StoragedConfig {
        cluster_id: "c".into(),
        listen: "10.0.0.2:7100".into(),
        http_listen: "127.0.0.1:0".into(),
        data_dir: "/var/lib/ff2".into(),
        security: security(),
        metads: vec!["10.0.0.1:7000".into()],
        disks: vec![DiskConfig { path: "/data/0".into(), size_bytes: Some(8 << 30) }],
        zones: Vec::new(),
        leaf: String::new(),
        storage: StorageTuning::default(),
        shared_memory: true,
        threads: 0,
        network: NetworkConfig::default(),
        log: LogConfig::default(),
    }
}

fn agent() -> AgentConfig {
    AgentConfig {
        cluster_id: "c".into(),
        name: "n1".into(),
        host: "10.0.2.1".into(),
        zone: "z".into(),
        pod: String::new(),
        leaf: "l".into(),
        jobs_dir: "/mnt/ff2/jobs".into(),
        ports_only: false,
        data_dir: "/var/lib/ff2-agent".into(),
        http_listen: None,
        security: security(),
        schedds: vec!["10.0.0.1:7100".into()],
        fake_gpus: None,
        cpus: None,
        memory_mib: None,
        gpu_kind: None,
        links: Vec::new(),
        threads: 0,
        ranks: RanksConfig::default(),
        log: LogConfig::default(),
    }
}

fn mount() -> MountConfig {
    MountConfig {
        cluster_id: "c".into(),
        metads: vec!["metad-1.example:7000".into()],
        token_file: "/root/.ff2/token".into(),
        tls_ca_file: None,
        encrypt: Encrypt::Metadata,
        volume: "default".into(),
        mount_point: "/mnt/ff2".into(),
        data_dir: "/run/ff2".into(),
        http_listen: None,
        allow_other: false,
        dirsync: false,
        noatime: false,
        read_only: false,
        subdir: None,
        cache_ms: 60_000,
        io_uring: OverIoUring::Auto,
        threads: 0,
        network: NetworkConfig::default(),
        log: LogConfig::default(),
    }
}

fn problems(config: &impl Validate) -> String {
    let mut problems = Problems::default();
    config.validate(&mut problems);
    problems.to_string()
}

type Spoil<C> = fn(&mut C);

/// One change to a good configuration, and the key that must be named.
fn refused<C: Validate>(good: fn() -> C, cases: &[(&str, Spoil<C>)]) {
    assert_eq!(problems(&good()), "");
    for (key, spoil) in cases {
        let mut config = good();
        spoil(&mut config);
        let found = problems(&config);
        assert!(found.contains(key), "expected a problem with {key}, found: {found:?}");
    }
}

#[test]
fn metad_problems() {
    refused(
        metad,
        &[
            ("node: ", |c| c.node = 0),
            ("list this node (9) too", |c| c.node = 9),
            ("cluster_id", |c| c.cluster_id.clear()),
            ("cluster_id", |c| c.cluster_id = "a b".into()),
            ("listen", |c| c.listen = "10.0.0.2".into()),
            ("peers says that node 2", |c| c.listen = "10.0.0.2:7009".into()),
            ("listen: 0.0.0.0:7000 cannot be reached", |c| c.listen = "0.0.0.0:7000".into()),
            ("admin_listen: choose a port", |c| c.admin_listen = "10.0.0.2:0".into()),
            ("http_listen", |c| c.http_listen = "x:99999".into()),
            ("given twice", |c| c.admin_listen = c.listen.clone()),
            ("data_dir", |c| c.data_dir = "relative".into()),
            ("peers[].node", |c| c.peers[0].node = 3),
            ("give both or neither", |c| c.security.tls_key_file = Some("/k".into())),
            ("security.encrypt", |c| c.security.encrypt = Encrypt::All),
            ("network.rdma_subnets: `eth0`", |c| c.network.rdma_subnets.push("eth0".into())),
            ("network.rdma_metadata.service_level", |c| {
                c.network.rdma_metadata.service_level = 16;
            }),
            ("network.rdma_messages", |c| c.network.rdma_messages = 3),
            ("network.rdma_messages", |c| c.network.rdma_messages = 1025),
            ("network.rdma_checkpoint.service_level", |c| {
                c.network.rdma_checkpoint.service_level = 16;
            }),
            ("network.rdma_collective.service_level", |c| {
                c.network.rdma_collective.service_level = 16;
            }),
            ("network.rdma_storage.service_level", |c| {
                c.network.rdma_storage.service_level = 255;
            }),
            ("raft.tick_ms", |c| c.raft.tick_ms = 0),
            ("raft.election_ticks", |c| c.raft.election_ticks = 4),
            ("lease.lease_ms", |c| c.lease.lease_ms = 1_000),
            ("lease.session_ms", |c| c.lease.session_ms = 1_000),
            ("log.filter", |c| c.log.filter = "loud=very".into()),
        ],
    );
}

fn in_zone(zone: &str, listen: &str) -> ZoneListen {
    ZoneListen { zone: zone.into(), listen: listen.into() }
}

#[test]
fn storaged_problems() {
    refused(
        storaged,
        &[
            ("network.zone", |c| c.network.zone = "a\nb".into()),
            ("zones[0].zone: name", |c| c.zones.push(in_zone("", "10.1.0.1:7010"))),
            ("zones[0].listen", |c| c.zones.push(in_zone("b", "10.1.0.1"))),
            ("zones[].listen: the same", |c| c.zones.push(in_zone("b", &c.listen))),
            ("zones: at most 7", |c| {
                c.zones = (0..8).map(|at| in_zone("b", &format!("10.1.0.{at}:7010"))).collect();
            }),
            ("metads: list", |c| c.metads.clear()),
            ("metads[1]", |c| c.metads.push("nonsense".into())),
            ("disks: list", |c| c.disks.clear()),
            ("disks[0].path", |c| c.disks[0].path = "disk".into()),
            ("disks[0].size_bytes", |c| c.disks[0].size_bytes = Some(1 << 20)),
            ("disks[].path", |c| c.disks.push(c.disks[0].clone())),
            ("storage.buffer_bytes", |c| c.storage.buffer_bytes = 1 << 20),
            ("storage.resync_bytes_per_s", |c| c.storage.resync_bytes_per_s = 0),
            ("storage.scrub_bytes_per_s", |c| c.storage.scrub_bytes_per_s = 0),
            ("storage.disk_depth", |c| c.storage.disk_depth = 0),
        ],
    );
}

#[test]
fn agent_problems() {
    refused(
        agent,
        &[
            ("host", |c| c.host.clear()),
            ("ranks.rdma_subnets: `ib0`", |c| c.ranks.rdma_subnets.push("ib0".into())),
            ("ranks.rdma_class.service_level", |c| c.ranks.rdma_class.service_level = 16),
        ],
    );
}

#[test]
fn mount_problems() {
    refused(
        mount,
        &[
            ("token_file", |c| c.token_file = "".into()),
            ("volume", |c| c.volume.clear()),
            ("mount_point", |c| c.mount_point = "mnt".into()),
            ("data_dir: must lie outside", |c| c.data_dir = "/mnt/ff2/run".into()),
            ("http_listen", |c| c.http_listen = Some("7000".into())),
            ("cache_ms", |c| c.cache_ms = 1 << 40),
        ],
    );
}
