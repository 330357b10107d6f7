//! Who may administer: bearers of a user token with root. Whoever holds the cluster key can seal one.

use std::time::{SystemTime, UNIX_EPOCH};

use ff2_fabric::{ClusterKey, UserToken};
use ff2_proto::{Code, ROOT_INODE, Status, VolumeId, pb, pb::ns_request::Op};
use tonic::Request;

use super::AdminState;

/// A command of `ff2ctl` takes seconds; a token that leaks from it is soon worth nothing.
const ADMIN_TOKEN_S: u64 = 600;

/// A token for one administrative command, sealed by a holder of the cluster key.
pub fn admin_token(key: &ClusterKey) -> UserToken {
    let now = now_s();
    key.issue(pb::UserClaims {
        name: "cluster key".into(),
        issued_s: now,
        expires_s: now + ADMIN_TOKEN_S,
        root: true,
        ..Default::default()
    })
}

/// The folder that a token is confined to, and its volume.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Subtree {
    pub(super) inode: u64,
    pub(super) volume: u32,
}

/// The token of a user on record.
pub(super) fn issue(
    key: &ClusterKey,
    user: pb::User,
    token_id: u64,
    lifetime_s: u64,
    subtree: Subtree,
) -> UserToken {
    let now = now_s();
    key.issue(pb::UserClaims {
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        name: user.name,
        token_id,
        issued_s: now,
        expires_s: if lifetime_s == 0 { 0 } else { now.saturating_add(lifetime_s) },
        root: user.root,
        subtree: subtree.inode,
        subtree_volume: subtree.volume,
    })
}

impl AdminState {
    /// The folder that a token is asked for: as its path is now.
    pub(super) async fn subtree(&self, request: &pb::IssueTokenRequest) -> Result<Subtree, Status> {
        if request.subtree.is_empty() {
            return Ok(Subtree::default());
        }
        let routing = self.cluster.routing();
        let name = if request.volume.is_empty() { "default" } else { &request.volume };
        let volume = routing.volumes.values().find(|volume| volume.name == name);
        let missing = || Status::new(Code::NotFound, format!("there is no volume {name:?}"));
        let volume = volume.ok_or_else(missing)?.id;
        let path = request.subtree.clone();
        let resolve = pb::ResolveOp { base: ROOT_INODE.0, path, follow_last: true };
        let found = self.namespace.ask(VolumeId(volume), Op::Resolve(resolve)).await?.attr;
        match found {
            Some(attr) if attr.kind() == pb::FileKind::Directory => {
                Ok(Subtree { inode: attr.inode, volume })
            }
            _ => Err(Status::new(Code::NotDirectory, "a token is confined to a folder")),
        }
    }
}

/// Lets a request in, or says what it lacks.
pub(super) fn check(
    state: &AdminState,
    request: Request<()>,
) -> Result<Request<()>, tonic::Status> {
    let refuse = |text: &str| tonic::Status::unauthenticated(text);
    let bearer = request.metadata().get("authorization");
    let bearer = bearer.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let text = bearer.ok_or_else(|| refuse("send `authorization: Bearer TOKEN`"))?;
    let token: UserToken =
        text.trim().parse().map_err(|_| refuse("the token cannot be read: ff2-..."))?;
    let routing = state.cluster.routing();
    let claims = state
        .key
        .check_token(&token, now_s(), &routing.revoked_tokens)
        .map_err(|status| refuse(&status.to_string()))?;
    if !claims.root || claims.subtree != 0 {
        return Err(tonic::Status::permission_denied(format!(
            "the token of {} has no root, or is for one folder: an administrator's is needed",
            claims.name
        )));
    }
    Ok(request)
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
