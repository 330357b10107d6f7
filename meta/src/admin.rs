//! The gRPC service `Admin`: what `ff2ctl` asks. TLS, a bearer token with root, reflection, health.
//!
//! All questions go to the leader of the cluster group, which knows the loads; any other metad answers
//! UNAVAILABLE and names it in the metadata `ff2-leader` (host:port of its gRPC server).

mod backup;
mod calls;
mod check;
mod nodes;
mod quotas;
mod snapshots;
mod status;
mod timed;
mod token;
mod trash;
mod upgrade;
mod why;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use ff2_daemon::{
    Operations,
    bounded::BoundedListener,
    config::MetadConfig,
    grpc::{Timed, ask, incoming},
};
use ff2_fabric::{
    ClusterKey,
    admin::admin_server::{Admin, AdminServer as GrpcAdmin},
    tls::{Certificate, grpc_acceptor},
};
use ff2_meta_core::cluster::{
    Leaves, default_chains, evenness, place, placeable_disks, plan_rebalance, user, users,
};
use ff2_proto::{Code, FILE_DESCRIPTOR_SET, NodeId, Status, TableId, TargetId, pb};
use pb::{cluster_command::Fact, ns_request::Op};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, transport::Server};

use crate::{
    NAMESPACE_GROUP,
    audit::{self, Audit, Page},
    cluster::{ClusterGroup, leader::ClusterLead},
    limits,
    namespace::NamespaceGroup,
};
use check::Checks;
pub use token::admin_token;

/// What the admin interfaces work on.
#[derive(Clone, Debug)]
pub(crate) struct AdminState {
    pub(crate) cluster: ClusterGroup,
    pub(crate) namespace: Arc<NamespaceGroup>,
    pub(crate) key: ClusterKey,
    pub(crate) audit: Audit,
    /// The file of the authorities that signed the metads' certificates, in PEM.
    pub(crate) authority: Option<PathBuf>,
}

/// The bound gRPC server.
#[derive(Debug)]
pub(crate) struct AdminServer {
    state: AdminState,
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
}

impl AdminServer {
    pub(crate) async fn bind(
        config: &MetadConfig,
        key: ClusterKey,
        cluster: ClusterGroup,
        namespace: Arc<NamespaceGroup>,
        certificate: Option<Arc<Certificate>>,
    ) -> Result<Self> {
        let audit = Audit::open(&config.data_dir, config.node)
            .with_context(|| format!("open the audit log in {}", config.data_dir.display()))?;
        let listener = TcpListener::bind(&config.admin_listen)
            .await
            .with_context(|| format!("listen on admin_listen {}", config.admin_listen))?;
        let security = &config.security;
        let is_local = listener.local_addr()?.ip().is_loopback();
        ensure!(
            certificate.is_some() || is_local,
            "admin_listen {} is not on the loopback: give tls_cert_file and tls_key_file, since \
             tokens would travel in clear text",
            config.admin_listen
        );
        let authority = security.tls_ca_file.clone();
        let state = AdminState { cluster, namespace, key, audit, authority };
        Ok(Self { state, listener, certificate })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound socket has an address")
    }

    pub(crate) fn state(&self) -> AdminState {
        self.state.clone()
    }

    pub(crate) async fn serve(self, operations: Operations, stop: CancellationToken) {
        if let Err(error) = self.try_serve(operations, stop).await {
            tracing::error!(%error, "the gRPC server ended");
        }
    }

    async fn try_serve(self, operations: Operations, stop: CancellationToken) -> Result<()> {
        let (health, health_service) = tonic_health::server::health_reporter();
        let checks = self.state.clone();
        let check = move |request| token::check(&checks, request);
        let service = AdminService { state: self.state, checks: Checks::default() };
        let service = calls::Guarded { service };
        let inner = GrpcAdmin::with_interceptor(service, check);
        let admin = Timed { inner, operations, calls: &timed::CALLS };
        health.set_serving::<GrpcAdmin<calls::Guarded>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .build_v1()
            .context("describe the services")?;
        let mut server = Server::builder().timeout(Duration::from_secs(30));
        let server = server.add_service(health_service).add_service(reflection).add_service(admin);
        let tls = self.certificate.map(grpc_acceptor).transpose();
        let tls = tls.context("use the TLS certificate and key")?;
        let incoming = incoming(BoundedListener::new(self.listener), tls);
        server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await?;
        Ok(())
    }
}

struct AdminService {
    state: AdminState,
    checks: Checks,
}

type Reply<T> = Result<Response<T>, tonic::Status>;

impl AdminState {
    /// The leader's memory, or where to ask instead.
    fn leading(&self) -> Result<Arc<ClusterLead>, tonic::Status> {
        self.cluster.lead.get().ok_or_else(|| self.ask_leader())
    }

    /// The leaf switch of each node that tells it.
    fn leaves(&self, lead: &ClusterLead) -> Leaves {
        let routing = self.cluster.routing();
        let told = routing.nodes.keys().map(|id| (*id, lead.vitals(*id).load.leaf));
        told.filter(|(_, leaf)| !leaf.is_empty()).collect()
    }

    /// gRPC address of the metad that leads the cluster group, if this one knows.
    pub(crate) fn leader_address(&self) -> Option<String> {
        self.admin_address(self.cluster.group.leadership().borrow().leader.as_ref()?.node)
    }

    fn admin_address(&self, node: u32) -> Option<String> {
        let node = self.cluster.routing().nodes.get(&NodeId(node)).cloned()?;
        Some(node.admin_address).filter(|address| !address.is_empty())
    }

    fn ask_leader(&self) -> tonic::Status {
        ask(self.leader_address().as_deref())
    }

    async fn propose(&self, fact: Fact) -> Result<pb::ClusterReply, tonic::Status> {
        self.leading()?;
        let logged = self.cluster.propose_within(fact, limits::OWN_COMMAND).await;
        logged.map_err(|status| self.refuse(status))
    }

    /// A failure in gRPC's words.
    pub(crate) fn refuse(&self, status: Status) -> tonic::Status {
        let text = status.to_string();
        match status.code {
            Code::NotLeader => self.ask_leader(),
            Code::NotFound | Code::NoSuchTarget => tonic::Status::not_found(text),
            Code::Exists => tonic::Status::already_exists(text),
            Code::InvalidArgument => tonic::Status::invalid_argument(text),
            Code::QuotaExceeded => tonic::Status::resource_exhausted(text),
            Code::Forbidden | Code::NotPermitted => tonic::Status::permission_denied(text),
            Code::Busy | Code::Unsupported => tonic::Status::failed_precondition(text),
            Code::UnknownOutcome | Code::Timeout => tonic::Status::deadline_exceeded(text),
            _ => tonic::Status::unknown(text),
        }
    }

    /// As [`Self::refuse`], of what only the leader of the namespace group can do.
    fn refuse_change(&self, status: Status) -> tonic::Status {
        let leadership = self.namespace.group.leadership();
        let leader = leadership.borrow().leader.as_ref().map(|leader| leader.node);
        match status.code {
            Code::NotLeader => ask(leader.and_then(|node| self.admin_address(node)).as_deref()),
            _ => self.refuse(status),
        }
    }

    /// Whether this metad leads the namespace group, or where to ask instead.
    fn leading_namespace(&self) -> Result<(), tonic::Status> {
        match self.namespace.lead.get() {
            Some(_) => Ok(()),
            None => Err(self.refuse_change(Status::not_leader(None))),
        }
    }

    /// The sessions of all volumes.
    async fn sessions(&self) -> Result<Vec<pb::SessionRecord>, Status> {
        let mut sessions = Vec::new();
        for volume in self.namespace.volumes() {
            let reply = self.namespace.ask(volume, Op::ListSessions(pb::ListSessionsOp {})).await?;
            sessions.extend(reply.sessions);
        }
        Ok(sessions)
    }

    /// How many inodes each session caches. What a leader does not tell now is left out.
    async fn callbacks(&self) -> BTreeMap<u64, u64> {
        let mut callbacks = BTreeMap::new();
        for volume in self.namespace.volumes() {
            callbacks.extend(self.namespace.held_callbacks(volume).await.unwrap_or_default());
        }
        callbacks
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn cluster_status(
        &self,
        _request: Request<pb::ClusterStatusRequest>,
    ) -> Reply<pb::ClusterStatusReply> {
        let lead = self.state.leading()?;
        Ok(Response::new(self.state.status(&lead).await))
    }

    async fn create_table(
        &self,
        request: Request<pb::CreateTableRequest>,
    ) -> Reply<pb::CreateTableReply> {
        let request = request.into_inner();
        let disks = placeable_disks(&self.state.cluster.routing());
        let chains = match request.chains {
            0 => default_chains(disks.len(), request.replicas),
            chains => chains,
        };
        let lead = self.state.leading()?;
        let leaves = self.state.leaves(&lead);
        let placed = place(&disks, &leaves, request.replicas, chains)
            .map_err(|error| tonic::Status::failed_precondition(error.to_string()))?;
        let even = evenness(&disks, &leaves, &placed);
        let fact = Fact::CreateTable(pb::CreateTable {
            replicas: request.replicas,
            description: request.description,
            chains: placed,
        });
        let table_id = self.state.propose(fact).await?.table_id;
        tracing::info!(table = table_id, chains, replicas = request.replicas, "a table was made");
        Ok(Response::new(pb::CreateTableReply {
            table_id,
            chains,
            worst_pair: even.worst_pair,
            least_pair: even.least_pair,
            ideal_pair: even.ideal_pair,
            chains_at_one_leaf: even.chains_at_one_leaf,
        }))
    }

    async fn extend_table(
        &self,
        request: Request<pb::ExtendTableRequest>,
    ) -> Reply<pb::ExtendTableReply> {
        let request = request.into_inner();
        let lead = self.state.leading()?;
        let routing = self.state.cluster.routing();
        let Some(table) = routing.tables.get(&TableId(request.table_id)) else {
            let text = format!("there is no chain table {}", request.table_id);
            return Err(tonic::Status::not_found(text));
        };
        let disks = placeable_disks(&routing);
        let chains = match request.chains {
            0 => default_chains(disks.len(), table.replicas)
                .saturating_sub(u32::try_from(table.chains.len()).unwrap_or(u32::MAX)),
            chains => chains,
        };
        if chains == 0 {
            let text = "the table has as many chains as the working disks ask for: add disks or \
                        nodes first, or say how many with --chains";
            return Err(tonic::Status::failed_precondition(text));
        }
        let placed = place(&disks, &self.state.leaves(&lead), table.replicas, chains)
            .map_err(|error| tonic::Status::failed_precondition(error.to_string()))?;
        let (table_id, before) = (table.id, table.version);
        let fact = pb::ExtendTable { table: table_id, chains: placed, version: before };
        self.state.propose(Fact::ExtendTable(fact)).await?;
        tracing::info!(table = table_id, chains, "a table was extended");
        Ok(Response::new(pb::ExtendTableReply { version: before + 1, chains }))
    }

    async fn create_volume(
        &self,
        request: Request<pb::CreateVolumeRequest>,
    ) -> Reply<pb::CreateVolumeReply> {
        let name = request.into_inner().name;
        self.state.leading()?;
        let routing = self.state.cluster.routing();
        let taken = routing.volumes.values().find(|volume| volume.group == NAMESPACE_GROUP.0);
        if let Some(taken) = taken.filter(|taken| taken.name != name) {
            let text = format!(
                "each namespace group holds one volume, and volume {} is in the only one",
                taken.name
            );
            return Err(tonic::Status::failed_precondition(text));
        }
        let fact = Fact::CreateVolume(pb::CreateVolume { name, group: NAMESPACE_GROUP.0 });
        let volume_id = self.state.propose(fact).await?.volume_id;
        Ok(Response::new(pb::CreateVolumeReply { volume_id }))
    }

    async fn put_user(&self, request: Request<pb::PutUserRequest>) -> Reply<pb::PutUserReply> {
        let user = request.into_inner().user;
        self.state.propose(Fact::PutUser(pb::PutUser { user })).await?;
        Ok(Response::new(pb::PutUserReply {}))
    }

    async fn list_users(
        &self,
        _request: Request<pb::ListUsersRequest>,
    ) -> Reply<pb::ListUsersReply> {
        self.state.leading()?;
        let users = self.state.cluster.group.query(users).await;
        let users = users.map_err(|status| self.state.refuse(status))?;
        Ok(Response::new(pb::ListUsersReply { users }))
    }

    async fn issue_token(
        &self,
        request: Request<pb::IssueTokenRequest>,
    ) -> Reply<pb::IssueTokenReply> {
        let request = request.into_inner();
        let subtree = self.state.subtree(&request).await;
        let subtree = subtree.map_err(|status| self.state.refuse(status))?;
        let role = token::check_role(&request).map_err(|status| self.state.refuse(status))?;
        let fact = Fact::IssueToken(pb::IssueToken { uid: request.uid });
        let token_id = self.state.propose(fact).await?.token_id;
        let found = self.state.cluster.group.query(|kv| user(kv, request.uid)).await;
        let found = found.map_err(|status| self.state.refuse(status))?;
        let user = found.ok_or_else(|| tonic::Status::not_found("the user is gone"))?;
        let token =
            token::issue(&self.state.key, user, (token_id, role), request.lifetime_s, subtree);
        Ok(Response::new(pb::IssueTokenReply { token: token.to_string(), token_id }))
    }

    async fn revoke_token(
        &self,
        request: Request<pb::RevokeTokenRequest>,
    ) -> Reply<pb::RevokeTokenReply> {
        let token_id = request.into_inner().token_id;
        self.state.propose(Fact::RevokeToken(pb::RevokeToken { token_id })).await?;
        Ok(Response::new(pb::RevokeTokenReply {}))
    }

    async fn why(&self, request: Request<pb::WhyRequest>) -> Reply<pb::WhyReply> {
        let lead = self.state.leading()?;
        let reasons = self.state.why(&lead, request.into_inner()).await;
        let reasons = reasons.map_err(|status| self.state.refuse(status))?;
        Ok(Response::new(pb::WhyReply { reasons }))
    }

    async fn list_sessions(
        &self,
        _request: Request<pb::ListSessionsRequest>,
    ) -> Reply<pb::ListSessionsReply> {
        let refuse = |status| self.state.refuse(status);
        let sessions = self.state.sessions().await.map_err(refuse)?;
        let callbacks = self.state.callbacks().await;
        Ok(Response::new(pb::ListSessionsReply { sessions, callbacks }))
    }

    /// A new metad joins its groups by itself; this tells whether it has, and lets one that was
    /// removed do so again.
    async fn add_member(
        &self,
        request: Request<pb::AddMemberRequest>,
    ) -> Reply<pb::AddMemberReply> {
        let request = request.into_inner();
        self.state.leading()?;
        self.state.readmit(request.node).await?;
        for status in [self.state.cluster.group.status(), self.state.namespace.group.status()] {
            let member = status.members.iter().find(|member| member.node == request.node);
            let what_to_do = match member {
                Some(member) if member.voter => continue,
                Some(_) => "it is catching up: ask again in a moment".to_owned(),
                None => format!(
                    "start ff2-metad there with node = {}, an empty data folder and all metads as \
                     peers: it joins by itself",
                    request.node
                ),
            };
            let text = format!("group {}: {what_to_do}", status.group);
            return Err(tonic::Status::failed_precondition(text));
        }
        Ok(Response::new(pb::AddMemberReply {}))
    }

    async fn remove_member(
        &self,
        request: Request<pb::RemoveMemberRequest>,
    ) -> Reply<pb::RemoveMemberReply> {
        let node = request.into_inner().node;
        self.state.leading()?;
        self.state.remove_member(node).await.map_err(|status| self.state.refuse(status))?;
        Ok(Response::new(pb::RemoveMemberReply {}))
    }

    async fn remove_node(
        &self,
        request: Request<pb::RemoveNodeRequest>,
    ) -> Reply<pb::RemoveNodeReply> {
        let pb::RemoveNodeRequest { node, shrink } = request.into_inner();
        self.state.leading()?;
        self.state.check_removal(node, shrink).map_err(|status| self.state.refuse(status))?;
        self.state.propose(Fact::RemoveNode(pb::RemoveNode { node })).await?;
        tracing::info!(node, "a storage node was removed");
        Ok(Response::new(pb::RemoveNodeReply {}))
    }

    async fn set_draining(
        &self,
        request: Request<pb::SetDrainingRequest>,
    ) -> Reply<pb::SetDrainingReply> {
        let pb::SetDrainingRequest { node, draining } = request.into_inner();
        self.state.check_storage_node(node).map_err(|status| self.state.refuse(status))?;
        self.state.propose(Fact::SetDraining(pb::SetDraining { node, draining })).await?;
        tracing::info!(node, draining, "whether a node is emptied");
        let routing = self.state.cluster.routing();
        let comes_for =
            |target: &pb::Target| routing.targets.values().any(|t| t.replaces == target.id);
        let here = routing.targets.values().filter(|target| target.node == node);
        let targets = here.filter(|target| draining || !comes_for(target)).count();
        let targets = u32::try_from(targets).unwrap_or(u32::MAX);
        Ok(Response::new(pb::SetDrainingReply { targets }))
    }

    async fn replace_target(
        &self,
        request: Request<pb::ReplaceTargetRequest>,
    ) -> Reply<pb::ReplaceTargetReply> {
        let pb::ReplaceTargetRequest { target, node, disk } = request.into_inner();
        self.state.leading()?;
        let old = self.state.cluster.routing().targets.get(&TargetId(target)).cloned();
        let node = match (node, old) {
            (0, Some(old)) => old.node,
            (0, None) => {
                return Err(tonic::Status::not_found(format!("there is no target {target}")));
            }
            (node, _) => node,
        };
        let found = self.state.disk_uuid(node, &disk);
        let disk_uuid = found.map_err(|status| self.state.refuse(status))?;
        let fact = Fact::ReplaceTarget(pb::ReplaceTarget { target, node, disk_uuid });
        let new = self.state.propose(fact).await?.target;
        tracing::info!(target_id = target, new, node, "a target is replaced");
        Ok(Response::new(pb::ReplaceTargetReply { target: new }))
    }

    async fn rebalance(&self, request: Request<pb::RebalanceRequest>) -> Reply<pb::RebalanceReply> {
        let pb::RebalanceRequest { dry_run, stop } = request.into_inner();
        let lead = self.state.leading()?;
        let routing = self.state.cluster.routing();
        let plan = plan_rebalance(&routing, &lead.space(&routing));
        if !dry_run {
            let on = !stop && !plan.moves.is_empty();
            self.state.propose(Fact::SetRebalancing(pb::SetRebalancing { on })).await?;
            tracing::info!(
                on,
                moves = plan.moves.len(),
                "whether targets are moved to even the disks"
            );
        }
        Ok(Response::new(plan))
    }

    async fn set_replicas(
        &self,
        request: Request<pb::SetReplicasRequest>,
    ) -> Reply<pb::SetReplicasReply> {
        let request = request.into_inner();
        self.state.leading()?;
        let checked = self.state.check_replicas(&request);
        let reply = checked.map_err(|status| self.state.refuse(status))?;
        let pb::SetReplicasRequest { table_id: table, replicas, .. } = request;
        self.state.propose(Fact::SetReplicas(pb::SetReplicas { table, replicas })).await?;
        tracing::info!(table, replicas, "how many replicas the chains of a table have");
        Ok(Response::new(reply))
    }

    async fn set_exports(
        &self,
        request: Request<pb::SetExportsRequest>,
    ) -> Reply<pb::SetExportsReply> {
        let pb::SetExportsRequest { volume, rules } = request.into_inner();
        let count = rules.len();
        let fact = pb::SetExports { volume: volume.clone(), rules };
        self.state.propose(Fact::SetExports(fact)).await?;
        tracing::info!(volume, count, "the export rules of a volume were set");
        Ok(Response::new(pb::SetExportsReply {}))
    }

    /// Each metad has what was done by it.
    async fn read_audit(
        &self,
        request: Request<pb::ReadAuditRequest>,
    ) -> Reply<pb::ReadAuditReply> {
        let pb::ReadAuditRequest { file, offset, since_ms } = request.into_inner();
        let page = self.state.audit.read(file, offset).await;
        let mut page = page.map_err(|error| {
            tonic::Status::internal(format!("the audit log cannot be read: {error}"))
        })?;
        page.lines.retain(|line| audit::is_since(line, since_ms));
        let node = self.state.audit.node();
        let Page { lines, file, offset, more } = page;
        Ok(Response::new(pb::ReadAuditReply { node, lines, file, offset, more }))
    }

    async fn set_quota(&self, request: Request<pb::SetQuotaRequest>) -> Reply<pb::SetQuotaReply> {
        let reply = self.state.set_quota(request.into_inner()).await;
        Ok(Response::new(reply.map_err(|status| self.state.refuse_change(status))?))
    }

    async fn remove_quota(
        &self,
        request: Request<pb::RemoveQuotaRequest>,
    ) -> Reply<pb::RemoveQuotaReply> {
        let reply = self.state.remove_quota(request.into_inner()).await;
        Ok(Response::new(reply.map_err(|status| self.state.refuse_change(status))?))
    }

    async fn list_quotas(
        &self,
        request: Request<pb::ListQuotasRequest>,
    ) -> Reply<pb::ListQuotasReply> {
        let reply = self.state.list_quotas(request.into_inner()).await;
        Ok(Response::new(reply.map_err(|status| self.state.refuse(status))?))
    }

    async fn set_trash(&self, request: Request<pb::SetTrashRequest>) -> Reply<pb::SetTrashReply> {
        let reply = self.state.set_trash(request.into_inner()).await;
        Ok(Response::new(reply.map_err(|status| self.state.refuse_change(status))?))
    }

    async fn list_trash(
        &self,
        request: Request<pb::ListTrashRequest>,
    ) -> Reply<pb::ListTrashReply> {
        let reply = self.state.list_trash(request.into_inner()).await;
        Ok(Response::new(reply.map_err(|status| self.state.refuse(status))?))
    }

    async fn restore_trash(
        &self,
        request: Request<pb::RestoreTrashRequest>,
    ) -> Reply<pb::RestoreTrashReply> {
        let reply = self.state.restore_trash(request.into_inner()).await;
        Ok(Response::new(reply.map_err(|status| self.state.refuse_change(status))?))
    }

    async fn empty_trash(
        &self,
        request: Request<pb::EmptyTrashRequest>,
    ) -> Reply<pb::EmptyTrashReply> {
        let reply = self.state.empty_trash(request.into_inner()).await;
        Ok(Response::new(reply.map_err(|status| self.state.refuse_change(status))?))
    }

    async fn finish_upgrade(
        &self,
        _request: Request<pb::FinishUpgradeRequest>,
    ) -> Reply<pb::FinishUpgradeReply> {
        Ok(Response::new(self.state.finish_upgrade().await?))
    }

    async fn create_snapshot(
        &self,
        request: Request<pb::CreateSnapshotRequest>,
    ) -> Reply<pb::CreateSnapshotReply> {
        let reply = self.state.create_snapshot(request.into_inner()).await;
        Ok(Response::new(reply.map_err(|status| self.state.refuse_change(status))?))
    }

    async fn remove_snapshot(
        &self,
        request: Request<pb::RemoveSnapshotRequest>,
    ) -> Reply<pb::RemoveSnapshotReply> {
        let reply = self.state.remove_snapshot(request.into_inner()).await;
        Ok(Response::new(reply.map_err(|status| self.state.refuse_change(status))?))
    }

    async fn list_snapshots(
        &self,
        request: Request<pb::ListSnapshotsRequest>,
    ) -> Reply<pb::ListSnapshotsReply> {
        let reply = self.state.list_snapshots(&request.into_inner()).await;
        Ok(Response::new(reply.map_err(|status| self.state.refuse(status))?))
    }

    async fn start_scrub(
        &self,
        _request: Request<pb::StartScrubRequest>,
    ) -> Reply<pb::StartScrubReply> {
        let round = self.state.propose(Fact::StartScrub(pb::StartScrub {})).await?.scrub_round;
        tracing::info!(round, "a scrub is asked for");
        Ok(Response::new(pb::StartScrubReply { round }))
    }

    async fn check_namespace(
        &self,
        request: Request<pb::CheckNamespaceRequest>,
    ) -> Reply<pb::CheckNamespaceReply> {
        let request = request.into_inner();
        match request.repair {
            true => self.state.leading_namespace()?,
            false => drop(self.state.leading()?),
        }
        let checked = self.checks.ask(&self.state.namespace, request).await;
        Ok(Response::new(checked.map_err(|status| self.state.refuse(status))?))
    }

    async fn check_chunks(
        &self,
        request: Request<pb::CheckChunksRequest>,
    ) -> Reply<pb::CheckChunksReply> {
        self.state.leading()?;
        let page = self.state.namespace.check_chunks(request.get_ref()).await;
        Ok(Response::new(page.map_err(|status| self.state.refuse(status))?))
    }

    async fn read_backup(
        &self,
        request: Request<pb::ReadBackupRequest>,
    ) -> Reply<pb::ReadBackupReply> {
        let page = self.state.backup_page(request.into_inner()).await;
        Ok(Response::new(page.map_err(|status| self.state.refuse(status))?))
    }

    async fn revive_chain(
        &self,
        request: Request<pb::ReviveChainRequest>,
    ) -> Reply<pb::ReviveChainReply> {
        let lead = self.state.leading()?;
        let fact = self.state.revival(&lead, request.into_inner());
        let fact = fact.map_err(|status| self.state.refuse(status))?;
        let pb::ReviveChain { chain, target, force, .. } = fact;
        self.state.propose(Fact::ReviveChain(fact)).await?;
        tracing::warn!(chain, target_id = target, force, "a chain is revived from an old replica");
        Ok(Response::new(pb::ReviveChainReply {}))
    }
}
