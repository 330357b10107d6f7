//! Puts a metad together: groups, data plane, membership, leaders' work, admin interfaces.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use ff2_daemon::{Expiry, Runtime, Traffic, config::MetadConfig, encryption, rdma};
use ff2_fabric::{
    BufPool, ClusterKey, ClusterServer, Identity, NamespaceServer, Peers, PeersConfig, RaftServer,
    Router, RoutingCache, Server, ServerConfig,
    chain::ChainClient,
    level,
    membership::{Membership, MembershipConfig, Report},
    tls::{Certificate, ServerTls},
};
use ff2_group::{Group, GroupConfig, Link, Pending, RaftMetrics, RaftService, lead_each_term};
use ff2_meta_core::{cluster::ClusterMachine, namespace::Namespace};
use ff2_proto::{CLUSTER_GROUP, GroupId, pb};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    NAMESPACE_GROUP,
    admin::AdminServer,
    cluster::{ClusterGroup, ClusterService, leader::Lead},
    http, limits,
    metrics::{CallbackMetrics, Figures, Gauges},
    namespace::{Chunks, NamespaceGroup, NamespaceService},
};

/// The daemon's life, for `ff2_daemon::run`.
pub async fn serve(config: Arc<MetadConfig>, runtime: Runtime) -> Result<()> {
    let stop = runtime.stop.clone();
    let metad = Metad::start(config, runtime).await?;
    stop.cancelled().await;
    metad.stop().await;
    Ok(())
}

/// A metad that runs.
#[derive(Debug)]
pub struct Metad {
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    cluster: ClusterGroup,
    namespace: Arc<NamespaceGroup>,
    runtime: Runtime,
    /// Ends the data plane, after the groups handed over.
    unplug: CancellationToken,
}

impl Metad {
    /// Returns when the data plane is served. Joining the cluster goes on in the background; the
    /// admin socket says `ready` after it.
    pub async fn start(config: Arc<MetadConfig>, runtime: Runtime) -> Result<Self> {
        let key =
            ClusterKey::load(&config.security.cluster_key_file).context("load the cluster key")?;
        let pool = BufPool::new(limits::BUFFER_BYTES);
        let routing = RoutingCache::new();
        let cluster_id = config.cluster_id.clone();
        let mut server =
            ServerConfig::new(cluster_id.clone(), key.clone(), pool.clone(), routing.clone());
        server.tuning.shared_memory = config.shared_memory;
        let rdma = rdma(&config.network)?;
        server.rdma = rdma.clone();
        let (tls, certificate) = encryption(&config.security)?;
        let demands = tls.is_some();
        server.tls = certificate.clone().map(|own| ServerTls::new(own, demands)).transpose()?;
        if let Some(own) = certificate.clone() {
            runtime.metrics.collector(Expiry::new(move || own.expires_s()));
        }
        let server = Server::bind(&config.listen, server)
            .await
            .with_context(|| format!("listen on {}", config.listen))?;
        let address = server.local_addr();
        let identity = Identity::Daemon(key.clone());
        let peers = Peers::new(PeersConfig {
            cluster_id: cluster_id.clone(),
            identity,
            pool,
            routing: routing.clone(),
            tls,
            rdma,
            zone: config.network.zone.clone(),
        });
        runtime.metrics.collector(Traffic::new(server.counters(), peers.counters()));
        let link = Link::new(peers.clone());
        let raft = RaftMetrics::new(&runtime.metrics);
        let cluster = ClusterGroup {
            group: Group::<ClusterMachine>::open(
                group_config(&config, CLUSTER_GROUP, &raft),
                ClusterMachine::new(),
                link.clone(),
            )
            .context("open the cluster group")?,
            lead: Lead::default(),
            lease: config.lease.clone(),
            replace_after: Duration::from_secs(config.replace_after_s),
            cluster_id,
        };
        let level = cluster.routing().level;
        ensure!(
            level <= level::known(),
            "the cluster of this folder is at level {level}, and this program knows no more than {}: \
             install a newer release",
            level::known()
        );
        let group = group_config(&config, NAMESPACE_GROUP, &raft);
        let election_timeout = group.election_timeout();
        let group = Group::<Namespace>::open(group, Namespace::new(), link)
            .context("open the namespace group")?;
        let client = ChainClient::new(peers.clone(), routing.clone())?;
        let chunks = Chunks { client, peers: peers.clone(), routing: routing.clone() };
        let namespace = NamespaceGroup::new(
            group,
            cluster.clone(),
            key.clone(),
            chunks,
            election_timeout,
            CallbackMetrics::new(&runtime.metrics),
        );

        let mut metad = Self {
            address,
            admin_address: None,
            cluster,
            namespace,
            runtime,
            unplug: CancellationToken::new(),
        };
        metad.serve_data_plane(server);
        metad.follow_routing(routing.clone());
        metad.lead();
        metad
            .runtime
            .metrics
            .collector(Figures::new(metad.cluster.group.clone(), metad.namespace.group.clone()));
        metad.serve_people(&config, key, certificate.clone()).await?;
        metad.join(&config, peers, routing, certificate);
        Ok(metad)
    }

    /// Where its data plane listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its gRPC server listens.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// The cluster group, for tests and tools in the same process.
    pub fn cluster_group(&self) -> &Group<ClusterMachine> {
        &self.cluster.group
    }

    /// The namespace group, for tests and tools in the same process.
    pub fn namespace_group(&self) -> &Group<Namespace> {
        &self.namespace.group
    }

    /// A clean stop: hands leadership over, then closes the connections.
    pub async fn stop(self) {
        self.runtime.admin.set_ready(false);
        self.runtime.stop.cancel();
        tokio::join!(self.cluster.group.shutdown(), self.namespace.group.shutdown());
        self.unplug.cancel();
    }

    /// As if the process were killed: nobody is told anything.
    pub async fn kill(self) {
        self.runtime.stop.cancel();
        self.unplug.cancel();
        tokio::join!(self.cluster.group.shutdown_now(), self.namespace.group.shutdown_now());
    }

    fn serve_data_plane(&self, server: Server) {
        let services = Router::new()
            .add(ClusterServer::new(Arc::new(ClusterService {
                cluster: self.cluster.clone(),
                namespace: self.namespace.group.clone(),
                operations: self.runtime.operations.clone(),
                stop: self.runtime.stop.clone(),
            })))
            .add(NamespaceServer::new(Arc::new(NamespaceService {
                namespace: self.namespace.clone(),
                operations: self.runtime.operations.clone(),
            })))
            .add(RaftServer::new(Arc::new(self.raft_service())));
        let unplug = self.unplug.clone();
        self.runtime.tasks.spawn(async move { server.serve(services, unplug).await });
    }

    fn raft_service(&self) -> RaftService {
        let cluster = self.cluster.clone();
        let admit = move |node| {
            let cluster = cluster.clone();
            Box::pin(async move { cluster.refuse_removed(node).await }) as Pending<()>
        };
        RaftService::new(self.runtime.operations.clone(), Box::new(admit))
            .host(&self.cluster.group)
            .host(&self.namespace.group)
    }

    /// What this metad's own calls go by is what its replica applied.
    fn follow_routing(&self, routing: Arc<RoutingCache>) {
        let mut views = self.cluster.group.watch_view();
        let gauges = Gauges::new(&self.runtime.metrics);
        let groups = (self.cluster.group.clone(), self.namespace.group.clone());
        let mut marked = 0;
        let stop = self.runtime.stop.clone();
        self.runtime.tasks.spawn(async move {
            loop {
                let view = views.borrow_and_update().clone();
                gauges.show(&view);
                if view.level > marked {
                    marked = view.level;
                    mark(&groups, marked);
                }
                routing.replace(view);
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = views.changed() => if changed.is_err() { return },
                }
            }
        });
    }

    fn lead(&self) {
        let (cluster, stop) = (self.cluster.clone(), self.runtime.stop.clone());
        let leadership = cluster.group.leadership();
        self.runtime.tasks.spawn(lead_each_term(leadership, stop.clone(), move |term| {
            let cluster = cluster.clone();
            async move { cluster.lead_term(term).await }
        }));
        let namespace = self.namespace.clone();
        let leadership = namespace.group.leadership();
        self.runtime
            .tasks
            .spawn(lead_each_term(leadership, stop, move |term| namespace.clone().lead_term(term)));
    }

    async fn serve_people(
        &mut self,
        config: &MetadConfig,
        key: ClusterKey,
        certificate: Option<Arc<Certificate>>,
    ) -> Result<()> {
        let (cluster, namespace) = (self.cluster.clone(), self.namespace.clone());
        let admin = AdminServer::bind(config, key, cluster, namespace, certificate).await?;
        self.admin_address = Some(admin.local_addr());
        self.runtime.admin.pages(http::pages(admin.state()));
        let operations = self.runtime.operations.clone();
        self.runtime.tasks.spawn(admin.serve(operations, self.runtime.stop.clone()));
        let (cluster, namespace) = (self.cluster.clone(), self.namespace.clone());
        self.runtime.admin.status("groups", move || {
            let groups = [cluster.group.status(), namespace.group.status()];
            async move { json!(groups.each_ref().map(http::show_group)) }
        });
        let cluster = self.cluster.clone();
        self.runtime.admin.dump("routing", move || {
            let routing = cluster.routing();
            async move { http::show_routing(&routing) }
        });
        Ok(())
    }

    /// Belongs to the cluster as a node, so that everybody learns its addresses.
    fn join(
        &self,
        config: &MetadConfig,
        peers: Arc<Peers>,
        routing: Arc<RoutingCache>,
        certificate: Option<Arc<Certificate>>,
    ) {
        let request = pb::JoinRequest {
            node_id: config.node,
            role: pb::NodeRole::Metad.into(),
            address: config.listen.clone(),
            admin_address: config.admin_listen.clone(),
            hostname: hostname(),
            cluster_id: config.cluster_id.clone(),
            ..Default::default()
        };
        let metads = config.peers.iter().map(|peer| peer.address.clone()).collect();
        let admin = self.runtime.admin.clone();
        let stop = self.runtime.stop.clone();
        let (cluster, namespace) = (self.cluster.group.clone(), self.namespace.group.clone());
        let own = config.node;
        self.runtime.tasks.spawn(async move {
            let config = MembershipConfig { metads, request };
            let report = move || Report {
                certificate_expires_s: certificate
                    .as_ref()
                    .and_then(|own| own.expires_s())
                    .unwrap_or(0),
                ..Report::default()
            };
            let membership = tokio::select! {
                () = stop.cancelled() => return,
                joined = Membership::join(config, peers, routing, report) => joined,
            };
            let membership = match membership {
                Ok(membership) => membership,
                Err(status) => {
                    tracing::error!(%status, "the cluster refuses this metad");
                    stop.cancel();
                    return;
                }
            };
            let ready = async {
                while !(votes(&cluster.status(), own) && votes(&namespace.status(), own)) {
                    tokio::time::sleep(limits::VOTES_LOOK).await;
                }
                admin.set_ready(true);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = ready => {}
                status = membership.refused() => {
                    tracing::error!(%status, "another process runs under this node id");
                    stop.cancel();
                }
            }
            // No goodbye: the data of a group is its own, and its members notice by themselves.
        });
    }
}

/// Releases that do not know the cluster's level refuse the folders from now on.
fn mark(groups: &(Group<ClusterMachine>, Group<Namespace>), level: u32) {
    for marked in [groups.0.mark_level(level), groups.1.mark_level(level)] {
        if let Err(status) = marked {
            tracing::error!(%status, level, "a group's folder does not tell the cluster's level");
        }
    }
}

/// Whether a group counts on this node, and on no earlier replica of it: with an empty folder it is let in again
/// first, and until then nobody else should be stopped.
fn votes(group: &pb::GroupStatus, node: u32) -> bool {
    let mut own = group.members.iter().filter(|member| member.node == node);
    own.next().is_some_and(|member| member.voter) && own.next().is_none()
}

fn group_config(config: &MetadConfig, group: GroupId, metrics: &RaftMetrics) -> GroupConfig {
    let raft = &config.raft;
    GroupConfig {
        peers: config.peers.iter().map(|peer| peer.address.clone()).collect(),
        tick: Duration::from_millis(raft.tick_ms),
        election_ticks: raft.election_ticks,
        heartbeat_ticks: raft.heartbeat_ticks,
        log_keep_entries: raft.log_keep_entries,
        // Routing is pushed from every metad; names are read from the leader, or after a round.
        broadcast_commits: group == CLUSTER_GROUP,
        metrics: metrics.of(group.0),
        ..GroupConfig::new(group, config.node, &config.listen, &config.data_dir)
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
