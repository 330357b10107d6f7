//! Who may make which call, and what is recorded of it: one table, in front of all that the calls do.

use ff2_fabric::{Role, admin::admin_server::Admin};
use ff2_proto::pb;
use pb::TokenRole;
use serde_json::{Value, json};
use tonic::{Code, Request};

use super::{AdminService, Reply, token};
use crate::audit::{Outcome, Who};

/// The service, with each call checked and recorded.
pub(super) struct Guarded {
    pub(super) service: AdminService,
}

/// `name(Request) -> Reply: role`, and what is recorded of the request: no secrets. Not recorded is what shows
/// nothing of itself, which is a further page of a call that was, and what needs no more than a viewer, since
/// that only looks.
macro_rules! guarded {
    ($($name:ident($request:ident) -> $reply:ident: $needs:expr, $shown:expr;)*) => {
        #[tonic::async_trait]
        impl Admin for Guarded {
            $(async fn $name(&self, request: Request<pb::$request>) -> Reply<pb::$reply> {
                let needs: fn(&pb::$request) -> Role = $needs;
                let shown: fn(&pb::$request) -> Value = $shown;
                let (needs, args) = (needs(request.get_ref()), shown(request.get_ref()));
                let call = stringify!($name);
                self.guard(&request.extensions().clone(), needs, call, args, self.service.$name(request)).await
            })*
        }

        /// What each call needs at the least, for a test.
        #[cfg(test)]
        fn needs() -> Vec<(&'static str, Role)> {
            vec![$((stringify!($name), {
                let needs: fn(&pb::$request) -> Role = $needs;
                needs(&pb::$request::default())
            }),)*]
        }
    };
}

guarded! {
    cluster_status(ClusterStatusRequest) -> ClusterStatusReply: |_| Role::Viewer, |_| Value::Null;
    list_users(ListUsersRequest) -> ListUsersReply: |_| Role::Viewer, |_| Value::Null;
    list_sessions(ListSessionsRequest) -> ListSessionsReply: |_| Role::Viewer, |_| Value::Null;
    why(WhyRequest) -> WhyReply: |_| Role::Viewer, |_| Value::Null;
    read_audit(ReadAuditRequest) -> ReadAuditReply: |_| Role::Viewer, |_| Value::Null;
    check_namespace(CheckNamespaceRequest) -> CheckNamespaceReply:
        |r| if r.repair { Role::Admin } else { Role::Viewer },
        |r| if r.check == 0 { json!({ "repair": r.repair }) } else { Value::Null };
    check_chunks(CheckChunksRequest) -> CheckChunksReply:
        |r| if r.repair { Role::Admin } else { Role::Viewer },
        |r| if r.from.is_none() { json!({ "chain": r.chain, "repair": r.repair }) } else { Value::Null };
    read_backup(ReadBackupRequest) -> ReadBackupReply: |_| Role::Admin,
        |r| if r.snapshot == 0 { json!({ "group": r.group }) } else { Value::Null };
    set_draining(SetDrainingRequest) -> SetDrainingReply: |_| Role::Operator,
        |r| json!({ "node": r.node, "draining": r.draining });
    replace_target(ReplaceTargetRequest) -> ReplaceTargetReply: |_| Role::Operator,
        |r| json!({ "target": r.target, "node": r.node, "disk": r.disk });
    start_scrub(StartScrubRequest) -> StartScrubReply: |_| Role::Operator, |_| json!({});
    rebalance(RebalanceRequest) -> RebalanceReply:
        |r| if r.dry_run { Role::Viewer } else { Role::Operator },
        |r| json!({ "stop": r.stop });
    extend_table(ExtendTableRequest) -> ExtendTableReply: |_| Role::Operator,
        |r| json!({ "table": r.table_id, "chains": r.chains });
    add_member(AddMemberRequest) -> AddMemberReply: |_| Role::Operator,
        |r| json!({ "node": r.node, "address": r.address });
    create_table(CreateTableRequest) -> CreateTableReply: |_| Role::Admin,
        |r| json!({ "replicas": r.replicas, "chains": r.chains, "description": r.description });
    create_volume(CreateVolumeRequest) -> CreateVolumeReply: |_| Role::Admin,
        |r| json!({ "name": r.name });
    put_user(PutUserRequest) -> PutUserReply: |_| Role::Admin,
        |r| {
            let user = r.user.clone().unwrap_or_default();
            json!({ "name": user.name, "uid": user.uid, "gid": user.gid, "groups": user.groups,
                    "root": user.root })
        };
    issue_token(IssueTokenRequest) -> IssueTokenReply: |_| Role::Admin,
        |r| json!({ "uid": r.uid, "role": role_word(r.role()), "lifetime_s": r.lifetime_s,
                    "subtree": String::from_utf8_lossy(&r.subtree), "volume": r.volume });
    revoke_token(RevokeTokenRequest) -> RevokeTokenReply: |_| Role::Admin,
        |r| json!({ "token": r.token_id });
    remove_member(RemoveMemberRequest) -> RemoveMemberReply: |_| Role::Admin,
        |r| json!({ "node": r.node });
    remove_node(RemoveNodeRequest) -> RemoveNodeReply: |_| Role::Admin,
        |r| json!({ "node": r.node, "shrink": r.shrink });
    revive_chain(ReviveChainRequest) -> ReviveChainReply: |_| Role::Admin,
        |r| json!({ "chain": r.chain, "target": r.target, "force": r.force,
                    "accept_data_loss": r.accept_data_loss });
    set_replicas(SetReplicasRequest) -> SetReplicasReply: |_| Role::Admin,
        |r| json!({ "table": r.table_id, "replicas": r.replicas, "force": r.force });
    list_quotas(ListQuotasRequest) -> ListQuotasReply: |_| Role::Viewer, |_| Value::Null;
    set_quota(SetQuotaRequest) -> SetQuotaReply: |_| Role::Admin,
        |r| json!({ "subject": subject(r.subject.as_ref()), "bytes": limit(r.bytes), "inodes": limit(r.inodes) });
    remove_quota(RemoveQuotaRequest) -> RemoveQuotaReply: |_| Role::Admin,
        |r| subject(r.subject.as_ref());
    set_trash(SetTrashRequest) -> SetTrashReply: |_| Role::Admin,
        |r| json!({ "volume": r.volume, "keep_s": r.keep_s });
    // Names of all users' files are more than a viewer sees.
    list_trash(ListTrashRequest) -> ListTrashReply:
        |r| if r.sums { Role::Viewer } else { Role::Operator }, |_| Value::Null;
    restore_trash(RestoreTrashRequest) -> RestoreTrashReply: |_| Role::Operator,
        |r| json!({ "volume": r.volume, "entry": r.entry, "path": String::from_utf8_lossy(&r.path) });
    empty_trash(EmptyTrashRequest) -> EmptyTrashReply: |_| Role::Admin,
        |r| json!({ "volume": r.volume, "older_than_s": r.older_than_s });
    finish_upgrade(FinishUpgradeRequest) -> FinishUpgradeReply: |_| Role::Operator, |_| json!({});
    list_snapshots(ListSnapshotsRequest) -> ListSnapshotsReply: |_| Role::Viewer, |_| Value::Null;
    create_snapshot(CreateSnapshotRequest) -> CreateSnapshotReply: |_| Role::Admin,
        |r| if r.id == 0 { named(&r.volume, &r.name) } else { Value::Null };
    remove_snapshot(RemoveSnapshotRequest) -> RemoveSnapshotReply: |_| Role::Admin,
        |r| named(&r.volume, &r.name);
    set_exports(SetExportsRequest) -> SetExportsReply: |_| Role::Admin,
        |r| json!({ "volume": r.volume, "rules": r.rules.iter().map(rule).collect::<Vec<_>>() });
}

fn subject(subject: Option<&pb::QuotaSubject>) -> Value {
    use pb::quota_subject::Of;
    let subject = subject.cloned().unwrap_or_default();
    let mut shown = json!({ "volume": subject.volume });
    match subject.of {
        Some(Of::Path(path)) => shown["path"] = String::from_utf8_lossy(&path).into(),
        Some(Of::Uid(uid)) => shown["uid"] = uid.into(),
        Some(Of::Gid(gid)) => shown["gid"] = gid.into(),
        None => {}
    }
    shown
}

fn named(volume: &str, name: &[u8]) -> Value {
    json!({ "volume": volume, "name": String::from_utf8_lossy(name) })
}

/// Null: it stays as it is.
fn limit(limit: Option<pb::QuotaLimit>) -> Value {
    limit.map_or(Value::Null, |limit| limit.max.map_or_else(|| "none".into(), Value::from))
}

fn role_word(role: TokenRole) -> &'static str {
    match role {
        TokenRole::ByRoot => "",
        TokenRole::Admin => "admin",
        TokenRole::Operator => "operator",
        TokenRole::Viewer => "viewer",
        TokenRole::Files => "user",
    }
}

fn rule(rule: &pb::ExportRule) -> Value {
    json!({
        "clients": rule.clients, "access": rule.access().as_str_name(),
        "squash": rule.squash().as_str_name(),
        "anon_uid": rule.anon_uid, "anon_gid": rule.anon_gid,
    })
}

impl Guarded {
    async fn guard<T>(
        &self,
        extensions: &tonic::Extensions,
        needs: Role,
        call: &'static str,
        args: Value,
        work: impl Future<Output = Reply<T>> + Send,
    ) -> Reply<T> {
        let state = &self.service.state;
        let Some(bearer) = extensions.get::<token::Bearer>() else {
            return Err(tonic::Status::internal("nobody asks"));
        };
        let who = &bearer.who;
        if bearer.role < needs {
            let why = format!(
                "{call} needs a token of role {needs}; that of {} (token {}) is of role {}",
                who.user, who.token, bearer.role
            );
            state.audit.refused(who, call, &why);
            return Err(tonic::Status::permission_denied(why));
        }
        if needs <= Role::Viewer || args.is_null() {
            return work.await;
        }
        // Where it would be done, it is recorded.
        match call {
            "set_quota" | "remove_quota" | "set_trash" | "restore_trash" | "empty_trash"
            | "create_snapshot" | "remove_snapshot" | "check_namespace" => {
                state.leading_namespace()?
            }
            _ => drop(state.leading()?),
        }
        let unwritten = |error: std::io::Error| {
            tracing::error!(%error, call, "the audit log cannot be written");
            format!("the audit log of this metad cannot be written ({error})")
        };
        let id = state.audit.begin(who, call, args).await.map_err(|error| {
            tonic::Status::internal(format!("nothing was done: {}", unwritten(error)))
        })?;
        let audited = Audited { audit: state.audit.clone(), id: Some(id) };
        let answer = work.await;
        audited.end(answer.as_ref().err()).await.map_err(|error| {
            let done = if answer.is_ok() { "it was done, but " } else { "it failed, and " };
            tonic::Status::internal(format!("{done}{}", unwritten(error)))
        })?;
        answer
    }
}

/// An action that was begun. If whoever asked goes away its outcome is told all the same: nobody knows.
struct Audited {
    audit: crate::audit::Audit,
    id: Option<String>,
}

impl Audited {
    async fn end(mut self, refusal: Option<&tonic::Status>) -> std::io::Result<()> {
        let Some(id) = self.id.take() else { return Ok(()) };
        let outcome = match refusal {
            None => Outcome::Done,
            Some(status) if is_unknown(status.code()) => Outcome::Unknown(status.message()),
            Some(status) => Outcome::Failed(status.message()),
        };
        self.audit.end(&id, outcome).await
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let audit = self.audit.clone();
        tokio::spawn(async move {
            let why = "whoever asked did not wait for the answer";
            if let Err(error) = audit.end(&id, Outcome::Unknown(why)).await {
                tracing::error!(%error, "the end of an action is not in the audit log");
            }
        });
    }
}

fn is_unknown(code: Code) -> bool {
    matches!(code, Code::DeadlineExceeded | Code::Unknown | Code::Unavailable | Code::Cancelled)
}

/// Of a request that shows no good token.
pub(super) fn unknown_asker(address: String) -> Who {
    Who { user: "?".into(), role: "?".into(), address, ..Who::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each role may do, in full: a new call finds its place here on purpose.
    #[test]
    fn roles_have_their_calls() {
        let of = |role| -> Vec<&str> {
            needs().into_iter().filter(|(_, needs)| *needs == role).map(|(name, _)| name).collect()
        };
        assert_eq!(
            of(Role::Viewer),
            [
                "cluster_status",
                "list_users",
                "list_sessions",
                "why",
                "read_audit",
                "check_namespace",
                "check_chunks",
                "list_quotas",
                "list_snapshots"
            ]
        );
        assert_eq!(
            of(Role::Operator),
            [
                "set_draining",
                "replace_target",
                "start_scrub",
                "rebalance",
                "extend_table",
                "add_member",
                "list_trash",
                "restore_trash",
                "finish_upgrade"
            ]
        );
        assert!(of(Role::Files).is_empty());
        let admin = of(Role::Admin);
        for call in ["put_user", "issue_token", "revoke_token", "remove_node", "set_exports"] {
            assert!(admin.contains(&call), "{call}");
        }
    }
}
