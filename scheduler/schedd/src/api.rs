//! The gRPC service `Scheduler`: what `ff2ctl job`, `queue`, `quota` and `node` ask. TLS, and a token of the file
//! system: whoever may open files may run jobs and change their own; who runs the servers, everybody's.

mod change;
mod list;
mod submit;
mod token;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use ff2_daemon::{
    Operations,
    bounded::BoundedListener,
    config::SchedConfig,
    grpc::{Timed, ask, incoming},
};
use ff2_fabric::{
    ClusterKey, RoutingCache,
    admin::scheduler_server::{Scheduler, SchedulerServer},
    tls::{Certificate, grpc_acceptor},
};
use ff2_proto::{Code, FILE_DESCRIPTOR_SET, Status, pb};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, transport::Server};

use crate::{
    leader::{Lead, SchedGroup},
    limits,
};

/// gRPC's method names, and the same in the words of metrics; the last is that of any other.
const CALLS: [(&str, &str); 14] = [
    ("SubmitJob", "sched_submit_job"),
    ("ListJobs", "sched_list_jobs"),
    ("ShowJob", "sched_show_job"),
    ("ChangeJob", "sched_change_job"),
    ("ListComputeNodes", "sched_list_compute_nodes"),
    ("SetComputeNode", "sched_set_compute_node"),
    ("ValidateComputeNode", "sched_validate_compute_node"),
    ("TagComputeNode", "sched_tag_compute_node"),
    ("ListLinks", "sched_list_links"),
    ("ListJobQuotas", "sched_list_job_quotas"),
    ("SetJobQuota", "sched_set_job_quota"),
    ("ListJobGroups", "sched_list_job_groups"),
    ("SetJobGroup", "sched_set_job_group"),
    ("", "sched_unknown"),
];

/// What the interfaces for people work on.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) sched: SchedGroup,
    pub(crate) config: Arc<SchedConfig>,
    pub(crate) key: ClusterKey,
    pub(crate) routing: Arc<RoutingCache>,
}

/// The bound gRPC server.
pub(crate) struct ApiServer {
    api: Api,
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
}

pub(crate) async fn bind(api: Api, certificate: Option<Arc<Certificate>>) -> Result<ApiServer> {
    let address = &api.config.admin_listen;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on admin_listen {address}"))?;
    ensure!(
        certificate.is_some() || listener.local_addr()?.ip().is_loopback(),
        "admin_listen {address} is not on the loopback: give tls_cert_file and tls_key_file, since tokens would travel \
         in clear text"
    );
    Ok(ApiServer { api, listener, certificate })
}

impl ApiServer {
    pub(crate) async fn serve(self, operations: Operations, stop: CancellationToken) {
        if let Err(error) = self.try_serve(operations, stop).await {
            tracing::error!(%error, "the gRPC server ended");
        }
    }

    async fn try_serve(self, operations: Operations, stop: CancellationToken) -> Result<()> {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<SchedulerServer<Api>>().await;
        let checks = self.api.clone();
        let inner =
            SchedulerServer::new(self.api).max_decoding_message_size(2 * limits::REQUEST_BYTES_MAX);
        let inner = tonic::service::interceptor::InterceptedService::new(inner, move |request| {
            token::check(&checks, request)
        });
        let timed = Timed { inner, operations, calls: &CALLS };
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .build_v1()
            .context("describe the services")?;
        let mut server = Server::builder().timeout(std::time::Duration::from_secs(30));
        let server = server.add_service(health_service).add_service(reflection).add_service(timed);
        let tls = self.certificate.map(grpc_acceptor).transpose();
        let tls = tls.context("use the TLS certificate and key")?;
        let incoming = incoming(BoundedListener::new(self.listener), tls);
        server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await?;
        Ok(())
    }
}

type Reply<T> = Result<Response<T>, tonic::Status>;

impl Api {
    /// The leader's memory, or where to ask instead.
    fn leading(&self) -> Result<Arc<Lead>, tonic::Status> {
        self.sched.leading().map_err(|_| self.ask_leader())
    }

    fn ask_leader(&self) -> tonic::Status {
        let leader = self.sched.group.leadership().borrow().leader.as_ref().map(|l| l.node);
        let peer = self.config.peers.iter().find(|peer| Some(peer.node) == leader);
        ask(peer.map(|peer| peer.admin_address.as_str()))
    }

    /// A failure in gRPC's words.
    fn refuse(&self, status: Status) -> tonic::Status {
        let text = status.to_string();
        match status.code {
            Code::NotLeader => self.ask_leader(),
            Code::NotFound => tonic::Status::not_found(text),
            Code::InvalidArgument => tonic::Status::invalid_argument(text),
            Code::UnknownOutcome | Code::Timeout => tonic::Status::deadline_exceeded(text),
            Code::Busy | Code::ShuttingDown => tonic::Status::unavailable(text),
            _ => tonic::Status::unknown(text),
        }
    }
}

#[tonic::async_trait]
impl Scheduler for Api {
    async fn submit_job(
        &self,
        request: Request<pb::SubmitJobRequest>,
    ) -> Reply<pb::SubmitJobReply> {
        let bearer = token::bearer(&request)?;
        self.submit(&bearer, request.into_inner()).await.map(Response::new)
    }

    async fn list_jobs(&self, request: Request<pb::ListJobsRequest>) -> Reply<pb::ListJobsReply> {
        self.leading()?;
        Ok(Response::new(self.list(&request.into_inner())))
    }

    async fn show_job(&self, request: Request<pb::ShowJobRequest>) -> Reply<pb::ShowJobReply> {
        self.leading()?;
        self.show(request.into_inner().job).map(Response::new)
    }

    async fn change_job(
        &self,
        request: Request<pb::ChangeJobRequest>,
    ) -> Reply<pb::ChangeJobReply> {
        let bearer = token::bearer(&request)?;
        self.change(&bearer, &request.into_inner()).await?;
        Ok(Response::new(pb::ChangeJobReply {}))
    }

    async fn list_compute_nodes(
        &self,
        request: Request<pb::ListComputeNodesRequest>,
    ) -> Reply<pb::ListComputeNodesReply> {
        let lead = self.leading()?;
        Ok(Response::new(self.nodes(Some(&lead), request.into_inner().runs)))
    }

    async fn set_compute_node(
        &self,
        request: Request<pb::SetComputeNodeRequest>,
    ) -> Reply<pb::SetComputeNodeReply> {
        token::bearer(&request)?.must_operate()?;
        self.set_node(request.into_inner()).await?;
        Ok(Response::new(pb::SetComputeNodeReply {}))
    }

    async fn validate_compute_node(
        &self,
        request: Request<pb::ValidateComputeNodeRequest>,
    ) -> Reply<pb::ValidateComputeNodeReply> {
        token::bearer(&request)?.must_operate()?;
        let number = self.validate(&request.into_inner().name)?;
        Ok(Response::new(pb::ValidateComputeNodeReply { number }))
    }

    async fn tag_compute_node(
        &self,
        request: Request<pb::TagComputeNodeRequest>,
    ) -> Reply<pb::TagComputeNodeReply> {
        token::bearer(&request)?.must_operate()?;
        let tags = self.tag(request.get_ref()).await?;
        Ok(Response::new(pb::TagComputeNodeReply { tags }))
    }

    async fn list_links(
        &self,
        _request: Request<pb::ListLinksRequest>,
    ) -> Reply<pb::ListLinksReply> {
        let lead = self.leading()?;
        Ok(Response::new(self.links(&lead)))
    }

    async fn list_job_quotas(
        &self,
        _request: Request<pb::ListJobQuotasRequest>,
    ) -> Reply<pb::ListJobQuotasReply> {
        self.leading()?;
        Ok(Response::new(self.quotas()))
    }

    async fn set_job_quota(
        &self,
        request: Request<pb::SetJobQuotaRequest>,
    ) -> Reply<pb::SetJobQuotaReply> {
        token::bearer(&request)?.must_operate()?;
        self.set_quota(request.into_inner()).await?;
        Ok(Response::new(pb::SetJobQuotaReply {}))
    }

    async fn list_job_groups(
        &self,
        _request: Request<pb::ListJobGroupsRequest>,
    ) -> Reply<pb::ListJobGroupsReply> {
        self.leading()?;
        Ok(Response::new(self.groups()))
    }

    async fn set_job_group(
        &self,
        request: Request<pb::SetJobGroupRequest>,
    ) -> Reply<pb::SetJobGroupReply> {
        token::bearer(&request)?.must_operate()?;
        self.set_group(request.into_inner()).await?;
        Ok(Response::new(pb::SetJobGroupReply {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_its_name() {
        let service = include_str!("../../../fabric/proto/proto/ff2/v1/sched.proto");
        let calls =
            service.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
        assert_eq!(calls.clone().count() + 1, CALLS.len());
        for call in calls {
            assert!(CALLS.iter().any(|(known, _)| *known == call), "{call}");
        }
    }
}
