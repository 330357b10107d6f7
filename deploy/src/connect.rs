//! gRPC to metad: TLS with the cluster's authority, a bearer token, and whichever metad leads.
//!
//! A refusal because another one leads, and silence, lead to the next metad until the patience of the
//! command ends. Any other refusal is the answer.

use std::{
    cell::Cell,
    fs,
    future::Future,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use ff2_fabric::{
    UserToken,
    admin::{admin_client::AdminClient, scheduler_client::SchedulerClient},
};
use ff2_proto::pb;
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::cluster::{ClusterFile, Folder};

/// Commands of a person; long enough for an election.
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(2);
const REQUEST: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
/// The whole routing of a large cluster in one message.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// Metadata of a NOT_LEADER refusal: the leader's gRPC address.
const LEADER: &str = "ff2-leader";

pub(crate) const SEE_STATUS: &str = "`ff2ctl status` says what is wrong";

type Client = AdminClient<InterceptedService<Channel, Bearer>>;
type SchedClient = SchedulerClient<InterceptedService<Channel, Bearer>>;

/// Where and as whom to ask.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    folder: Folder,
    admins: Vec<String>,
    scheds: Vec<String>,
    ca: Option<PathBuf>,
    token: Option<PathBuf>,
}

impl Access {
    pub(crate) fn new(
        folder: Folder,
        admins: Vec<String>,
        ca: Option<PathBuf>,
        token: Option<PathBuf>,
    ) -> Self {
        Self { folder, admins, scheds: Vec::new(), ca, token }
    }

    /// With the scheduler of a cluster that `up` did not make.
    pub(crate) fn with_scheds(self, scheds: Vec<String>) -> Self {
        Self { scheds, ..self }
    }

    /// Prepares the connections; nothing is sent yet.
    pub(crate) fn connect(&self) -> Result<Admin> {
        let admins = self.local()?.map_or_else(|| self.admins.clone(), |file| file.admins());
        ensure!(!admins.is_empty(), "no metad is known: give --admin HOST:PORT");
        let of = self.servers(admins, |channel| {
            AdminClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
        })?;
        Ok(Admin { servers: Servers::new("metad", of) })
    }

    /// As [`Self::connect`], to the scheduler.
    pub(crate) fn connect_sched(&self) -> Result<Sched> {
        let scheds = match self.scheds.is_empty() && self.admins.is_empty() {
            true => self.folder.load()?.scheds(),
            false => self.scheds.clone(),
        };
        ensure!(
            !scheds.is_empty(),
            "no scheduler is known: start one with `ff2ctl up --agents 2 --fake-gpus 8`, or give --sched HOST:PORT"
        );
        let of = self.servers(scheds, |channel| {
            SchedulerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
        })?;
        Ok(Sched { servers: Servers::new("schedd", of) })
    }

    /// Whether a scheduler is known that could be asked.
    pub(crate) fn knows_sched(&self) -> bool {
        !self.scheds.is_empty()
            || (self.admins.is_empty()
                && self.folder.read().ok().flatten().is_some_and(|file| !file.scheds().is_empty()))
    }

    fn servers<C>(
        &self,
        addresses: Vec<String>,
        client: impl Fn(InterceptedService<Channel, Bearer>) -> C,
    ) -> Result<Vec<(String, C)>> {
        let ca = self.authority();
        let ca = fs::read(&ca).with_context(|| {
            format!("read the certificate authority {}; --ca names another", ca.display())
        })?;
        let token = self.token()?;
        let bearer = format!("Bearer {token}").parse().context("a token is plain ASCII")?;
        let bearer = Bearer(bearer);
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        let connect = |address: String| {
            let endpoint = Endpoint::from_shared(format!("https://{address}"))
                .with_context(|| format!("{address} is no address"))?
                .tls_config(tls.clone())
                .context("use the certificate authority")?
                .connect_timeout(CONNECT)
                .timeout(REQUEST);
            let channel = InterceptedService::new(endpoint.connect_lazy(), bearer.clone());
            Ok((address, client(channel)))
        };
        addresses.into_iter().map(connect).collect()
    }

    /// The folder of the local cluster, unless the command line names servers of another.
    pub(crate) fn local_dir(&self) -> Option<&Path> {
        (self.scheds.is_empty() && self.admins.is_empty()).then(|| self.folder.path())
    }

    /// The scheduler's replicas that the command line names.
    pub(crate) fn scheds(&self) -> &[String] {
        &self.scheds
    }

    /// The servers' authority.
    pub(crate) fn authority(&self) -> PathBuf {
        self.ca.clone().unwrap_or_else(|| self.folder.ca())
    }

    /// The token that the command line names, else root's of the local cluster.
    pub(crate) fn token(&self) -> Result<UserToken> {
        let path = self.token.clone().unwrap_or_else(|| self.folder.root_token());
        UserToken::load(&path).with_context(|| {
            format!("read the user token {}; --token names another", path.display())
        })
    }

    pub(crate) fn given_token(&self) -> Option<&Path> {
        self.token.as_deref()
    }

    /// The local cluster, unless the command line names metads of another.
    pub(crate) fn local(&self) -> Result<Option<ClusterFile>> {
        self.admins.is_empty().then(|| self.folder.load()).transpose()
    }
}

#[derive(Clone, Debug)]
struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Servers of one kind, of which one leads.
#[derive(Debug)]
struct Servers<C> {
    kind: &'static str,
    of: Vec<(String, C)>,
    /// Who answered last.
    at: Cell<usize>,
    patience: Duration,
}

/// The metads' admin interface.
#[derive(Debug)]
pub(crate) struct Admin {
    servers: Servers<Client>,
}

/// The scheduler's interface.
#[derive(Debug)]
pub(crate) struct Sched {
    servers: Servers<SchedClient>,
}

macro_rules! calls {
    ($client:ident: $($name:ident($request:ident) -> $reply:ident;)*) => {$(
        pub(crate) async fn $name(&self, request: pb::$request) -> Result<pb::$reply> {
            let ask = |mut client: $client| {
                let request = request.clone();
                async move { client.$name(request).await }
            };
            self.servers.call(ask).await
        }
    )*};
}

impl Sched {
    calls! {
        SchedClient:
        submit_job(SubmitJobRequest) -> SubmitJobReply;
        list_jobs(ListJobsRequest) -> ListJobsReply;
        show_job(ShowJobRequest) -> ShowJobReply;
        change_job(ChangeJobRequest) -> ChangeJobReply;
        list_compute_nodes(ListComputeNodesRequest) -> ListComputeNodesReply;
        set_compute_node(SetComputeNodeRequest) -> SetComputeNodeReply;
        tag_compute_node(TagComputeNodeRequest) -> TagComputeNodeReply;
        validate_compute_node(ValidateComputeNodeRequest) -> ValidateComputeNodeReply;
        list_links(ListLinksRequest) -> ListLinksReply;
        list_job_quotas(ListJobQuotasRequest) -> ListJobQuotasReply;
        set_job_quota(SetJobQuotaRequest) -> SetJobQuotaReply;
        list_job_groups(ListJobGroupsRequest) -> ListJobGroupsReply;
        set_job_group(SetJobGroupRequest) -> SetJobGroupReply;
    }
}

impl Admin {
    calls! {
        Client:
        cluster_status(ClusterStatusRequest) -> ClusterStatusReply;
        create_table(CreateTableRequest) -> CreateTableReply;
        extend_table(ExtendTableRequest) -> ExtendTableReply;
        create_volume(CreateVolumeRequest) -> CreateVolumeReply;
        put_user(PutUserRequest) -> PutUserReply;
        list_users(ListUsersRequest) -> ListUsersReply;
        issue_token(IssueTokenRequest) -> IssueTokenReply;
        revoke_token(RevokeTokenRequest) -> RevokeTokenReply;
        why(WhyRequest) -> WhyReply;
        list_sessions(ListSessionsRequest) -> ListSessionsReply;
        add_member(AddMemberRequest) -> AddMemberReply;
        remove_member(RemoveMemberRequest) -> RemoveMemberReply;
        remove_node(RemoveNodeRequest) -> RemoveNodeReply;
        set_draining(SetDrainingRequest) -> SetDrainingReply;
        replace_target(ReplaceTargetRequest) -> ReplaceTargetReply;
        revive_chain(ReviveChainRequest) -> ReviveChainReply;
        start_scrub(StartScrubRequest) -> StartScrubReply;
        rebalance(RebalanceRequest) -> RebalanceReply;
        set_replicas(SetReplicasRequest) -> SetReplicasReply;
        check_namespace(CheckNamespaceRequest) -> CheckNamespaceReply;
        check_chunks(CheckChunksRequest) -> CheckChunksReply;
        set_exports(SetExportsRequest) -> SetExportsReply;
        set_quota(SetQuotaRequest) -> SetQuotaReply;
        remove_quota(RemoveQuotaRequest) -> RemoveQuotaReply;
        list_quotas(ListQuotasRequest) -> ListQuotasReply;
        read_backup(ReadBackupRequest) -> ReadBackupReply;
        set_trash(SetTrashRequest) -> SetTrashReply;
        list_trash(ListTrashRequest) -> ListTrashReply;
        restore_trash(RestoreTrashRequest) -> RestoreTrashReply;
        empty_trash(EmptyTrashRequest) -> EmptyTrashReply;
        finish_upgrade(FinishUpgradeRequest) -> FinishUpgradeReply;
        create_snapshot(CreateSnapshotRequest) -> CreateSnapshotReply;
        list_snapshots(ListSnapshotsRequest) -> ListSnapshotsReply;
        remove_snapshot(RemoveSnapshotRequest) -> RemoveSnapshotReply;
    }

    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.servers.patience = patience;
        self
    }

    pub(crate) async fn status(&self) -> Result<pb::ClusterStatusReply> {
        self.cluster_status(pb::ClusterStatusRequest {}).await
    }

    /// All of the routing.
    pub(crate) async fn routing(&self) -> Result<pb::RoutingDelta> {
        Ok(self.status().await?.routing.unwrap_or_default())
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.servers.of.iter().map(|(address, _)| address.clone()).collect()
    }

    /// What this metad has on record itself; a refusal is [`Final`].
    pub(crate) async fn read_audit_of(
        &self,
        address: &str,
        request: pb::ReadAuditRequest,
    ) -> Result<pb::ReadAuditReply> {
        let metad = self.servers.of.iter().find(|(known, _)| known == address);
        let (_, client) = metad.with_context(|| format!("{address} is no metad"))?;
        match client.clone().read_audit(request).await {
            Ok(reply) => Ok(reply.into_inner()),
            Err(refusal) if is_elsewhere_or_later(&refusal) => {
                Err(anyhow!("{}", refusal.message()))
            }
            Err(refusal) => Err(explain("metad", &refusal).context(Final)),
        }
    }
}

impl<C: Clone> Servers<C> {
    fn new(kind: &'static str, of: Vec<(String, C)>) -> Self {
        Self { kind, of, at: Cell::new(0), patience: PATIENCE }
    }

    async fn call<T, F, Fut>(&self, ask: F) -> Result<T>
    where
        F: Fn(C) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.patience;
        let mut failed = 0;
        loop {
            let (address, client) = &self.of[self.at.get()];
            let refusal = match ask(client.clone()).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(refusal) => refusal,
            };
            if !is_elsewhere_or_later(&refusal) {
                return Err(explain(self.kind, &refusal));
            }
            if Instant::now() >= deadline {
                return Err(match refusal.code() {
                    // The leader answered, and time did not change what it says.
                    Code::FailedPrecondition => explain(self.kind, &refusal),
                    _ => self.nobody(address, &refusal),
                });
            }
            failed += 1;
            let hinted = self.hinted(&refusal);
            self.at.set(hinted.unwrap_or_else(|| (self.at.get() + 1) % self.of.len()));
            let all_asked = hinted.is_none() && failed % self.of.len() == 0;
            if all_asked || failed > 3 * self.of.len() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn hinted(&self, refusal: &Status) -> Option<usize> {
        let leader = refusal.metadata().get(LEADER)?.to_str().ok()?;
        self.of.iter().position(|(address, _)| address == leader)
    }

    fn nobody(&self, address: &str, refusal: &Status) -> anyhow::Error {
        let all: Vec<&str> = self.of.iter().map(|(address, _)| address.as_str()).collect();
        anyhow!(
            "no {} of {} gave an answer within {} s ({address}: {}). Does the cluster run? \
             `ff2ctl ps` shows its processes, `ff2ctl up` starts what is missing",
            self.kind,
            all.join(", "),
            self.patience.as_secs(),
            refusal.message()
        )
    }
}

/// A refusal that every metad would repeat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Final;

impl std::fmt::Display for Final {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("read the audit log")
    }
}

/// Refusals that another metad, or a later attempt, may not repeat.
fn is_elsewhere_or_later(refusal: &Status) -> bool {
    match refusal.code() {
        Code::Unavailable
        | Code::Aborted
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::ResourceExhausted
        | Code::Unknown => true,
        Code::FailedPrecondition => {
            ["NOT_LEADER", "BUSY"].iter().any(|code| refusal.message().starts_with(code))
        }
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

fn explain(kind: &str, refusal: &Status) -> anyhow::Error {
    let message = match refusal.message() {
        "" => refusal.code().description(),
        message => message,
    };
    match refusal.code() {
        Code::Unauthenticated => anyhow!(
            "the {kind} does not accept the token ({message}): was it revoked, or is it of another \
             cluster? --token FILE names another"
        ),
        Code::PermissionDenied => {
            anyhow!("{message}; --token FILE names another token")
        }
        _ => anyhow!("{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_final_refusals_are_final() {
        assert!(is_elsewhere_or_later(&Status::unavailable("x")));
        assert!(is_elsewhere_or_later(&Status::failed_precondition("NOT_LEADER: ask metad 2")));
        assert!(!is_elsewhere_or_later(&Status::failed_precondition("too few disks")));
        assert!(!is_elsewhere_or_later(&Status::unauthenticated("revoked")));
        assert!(
            explain("metad", &Status::unauthenticated("revoked")).to_string().contains("--token")
        );
        assert!(!explain("metad", &Status::not_found("")).to_string().is_empty());
    }

    #[tokio::test]
    async fn a_missing_cluster_and_a_silent_one_say_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned());
        let access = Access::new(folder.clone(), Vec::new(), None, None);
        assert!(access.connect().unwrap_err().to_string().contains("ff2ctl up"));

        let (ca, token) = (folder.path().join("ca"), folder.path().join("token"));
        let key = ff2_fabric::ClusterKey::generate().unwrap();
        key.issue(pb::UserClaims::default()).save(&token).unwrap();
        let authority = rcgen::generate_simple_self_signed(vec!["x".into()]).unwrap();
        fs::write(&ca, authority.cert.pem()).unwrap();
        let nobody = vec!["127.0.0.1:1".to_owned()];
        let access = Access::new(folder, nobody, Some(ca), Some(token));
        let admin = access.connect().unwrap().patience(Duration::from_millis(50));
        let error = admin.status().await.unwrap_err().to_string();
        assert!(error.contains("ff2ctl ps"), "{error}");
    }
}
