//! Lists and times each gRPC call of the admin interface, in one place for all of them.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::http::{Request, Response};
use ff2_daemon::Operations;
use tonic::{Code, body::Body, codegen::Service, server::NamedService};

/// gRPC's method names, and the same in the words of metrics.
const CALLS: [(&str, &str); 35] = [
    ("ClusterStatus", "admin_cluster_status"),
    ("CreateTable", "admin_create_table"),
    ("ExtendTable", "admin_extend_table"),
    ("CreateVolume", "admin_create_volume"),
    ("PutUser", "admin_put_user"),
    ("ListUsers", "admin_list_users"),
    ("IssueToken", "admin_issue_token"),
    ("RevokeToken", "admin_revoke_token"),
    ("Why", "admin_why"),
    ("ListSessions", "admin_list_sessions"),
    ("AddMember", "admin_add_member"),
    ("RemoveMember", "admin_remove_member"),
    ("RemoveNode", "admin_remove_node"),
    ("SetDraining", "admin_set_draining"),
    ("ReplaceTarget", "admin_replace_target"),
    ("ReviveChain", "admin_revive_chain"),
    ("StartScrub", "admin_start_scrub"),
    ("Rebalance", "admin_rebalance"),
    ("SetReplicas", "admin_set_replicas"),
    ("CheckNamespace", "admin_check_namespace"),
    ("CheckChunks", "admin_check_chunks"),
    ("SetExports", "admin_set_exports"),
    ("ReadAudit", "admin_read_audit"),
    ("SetQuota", "admin_set_quota"),
    ("RemoveQuota", "admin_remove_quota"),
    ("ListQuotas", "admin_list_quotas"),
    ("ReadBackup", "admin_read_backup"),
    ("SetTrash", "admin_set_trash"),
    ("ListTrash", "admin_list_trash"),
    ("RestoreTrash", "admin_restore_trash"),
    ("EmptyTrash", "admin_empty_trash"),
    ("FinishUpgrade", "admin_finish_upgrade"),
    ("CreateSnapshot", "admin_create_snapshot"),
    ("ListSnapshots", "admin_list_snapshots"),
    ("RemoveSnapshot", "admin_remove_snapshot"),
];

/// The service `S` with its calls timed.
#[derive(Clone, Debug)]
pub(super) struct Timed<S> {
    pub(super) inner: S,
    pub(super) operations: Operations,
}

impl<S: NamedService> NamedService for Timed<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, R> Service<Request<Body>> for Timed<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let operation = self.operations.begin(operation(request.uri().path()), "");
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            // Our calls answer once, so a failure is in the headers already.
            let status = answer.headers().get("grpc-status");
            if status.is_some_and(|status| Code::from_bytes(status.as_bytes()) != Code::Ok) {
                operation.failed();
            }
            Ok(answer)
        })
    }
}

/// `/package.Service/Method` as an operation's name.
fn operation(path: &str) -> &'static str {
    let method = path.rsplit('/').next().unwrap_or_default();
    let known = CALLS.iter().find(|(call, _)| *call == method);
    known.map_or("admin_unknown", |(_, operation)| operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_its_name() {
        let service = include_str!("../../../fabric/proto/proto/ff2/v1/admin.proto");
        let calls: Vec<&str> = service
            .lines()
            .filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next())
            .collect();
        assert_eq!(calls.len(), CALLS.len());
        for call in calls {
            assert_ne!(operation(&format!("/ff2.v1.Admin/{call}")), "admin_unknown", "{call}");
        }
        assert_eq!(operation("/x/Y"), "admin_unknown");
    }
}
