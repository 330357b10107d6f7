//! Who may administer: bearers of a user token whose role allows the call. Whoever holds the cluster key can seal
//! one.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use ff2_fabric::{ClusterKey, Role, UserToken};
use ff2_proto::{Code, ROOT_INODE, Status, VolumeId, pb, pb::ns_request::Op};
use pb::TokenRole;
use tonic::Request;

use super::{AdminState, calls};
use crate::audit::Who;

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
    (token_id, role): (u64, TokenRole),
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
        // Who opens no files speaks for nobody, also with a release that knows no roles.
        root: user.root && !matches!(role, TokenRole::Operator | TokenRole::Viewer),
        role: role.into(),
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

/// The role that a token is asked for, if there can be such a token.
pub(super) fn check_role(request: &pb::IssueTokenRequest) -> Result<TokenRole, Status> {
    let refuse = |detail: &str| Err(Status::new(Code::InvalidArgument, detail));
    match TokenRole::try_from(request.role) {
        Err(_) => refuse("the role is of a later release"),
        Ok(role @ (TokenRole::ByRoot | TokenRole::Files)) => Ok(role),
        Ok(_) if !request.subtree.is_empty() => refuse(
            "a token for a folder administers nothing: leave out --subtree, or say --role user",
        ),
        Ok(role) => Ok(role),
    }
}

/// Who makes a call, with which rights.
#[derive(Clone, Debug)]
pub(super) struct Bearer {
    pub(super) who: Who,
    pub(super) role: Role,
}

/// Lets in who shows a good token that administers anything, or says what it lacks. What the role allows,
/// each call knows.
pub(super) fn check(
    state: &AdminState,
    mut request: Request<()>,
) -> Result<Request<()>, tonic::Status> {
    let address = address(&request);
    let refuse = |text: &str| {
        state.audit.refused(&calls::unknown_asker(address.clone()), "", text);
        tonic::Status::unauthenticated(text)
    };
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
    let role = Role::of(&claims);
    let who = Who {
        user: claims.name.clone(),
        uid: claims.uid,
        token: claims.token_id,
        role: role.to_string(),
        address,
    };
    if role < Role::Viewer {
        let why = format!(
            "the token of {} is for files, or for one folder: one of role viewer, operator or admin is needed",
            claims.name
        );
        state.audit.refused(&who, "", &why);
        return Err(tonic::Status::permission_denied(why));
    }
    request.extensions_mut().insert(Bearer { who, role });
    Ok(request)
}

/// Where the request comes from, as far as the connection says.
fn address(request: &Request<()>) -> String {
    let address = request.extensions().get::<Option<SocketAddr>>().copied().flatten();
    address.map(|address| address.to_string()).unwrap_or_default()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
