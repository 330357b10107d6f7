//! Who asks: bearers of a token of the file system.

use std::time::{SystemTime, UNIX_EPOCH};

use ff2_fabric::{Role, UserToken};
use ff2_submit::Submitter;
use tonic::Request;

use super::Api;

#[derive(Clone, Debug)]
pub(super) struct Bearer {
    pub(super) who: Submitter,
    role: Role,
    is_confined: bool,
}

impl Bearer {
    /// Whoever changes nodes and what others may have.
    pub(super) fn must_operate(&self) -> Result<(), tonic::Status> {
        if self.role >= Role::Operator {
            return Ok(());
        }
        Err(tonic::Status::permission_denied(format!(
            "this needs a token of role operator or admin; that of {} is of role {}",
            self.who.name, self.role
        )))
    }

    pub(super) fn operates(&self) -> bool {
        self.role >= Role::Operator
    }

    /// Whoever runs jobs: they read and write files as this user.
    pub(super) fn must_run(&self) -> Result<(), tonic::Status> {
        if self.is_confined {
            return Err(tonic::Status::permission_denied(
                "a token for one folder runs no jobs: they see the whole mount",
            ));
        }
        // Such a token is on each host, for its mount: it must not open all the others.
        if self.who.uid == 0 && self.role != Role::Admin {
            return Err(tonic::Status::permission_denied(
                "jobs run as their submitter, and as root only for a token of role admin",
            ));
        }
        if !self.role.opens_files() {
            return Err(tonic::Status::permission_denied(format!(
                "a token of role {} opens no files, so it runs no jobs: use that of a user",
                self.role
            )));
        }
        Ok(())
    }
}

/// Lets in who shows a good token, or says what it lacks.
pub(super) fn check(api: &Api, mut request: Request<()>) -> Result<Request<()>, tonic::Status> {
    let refuse = |text: &str| tonic::Status::unauthenticated(text);
    let bearer = request.metadata().get("authorization");
    let bearer = bearer.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let text = bearer.ok_or_else(|| refuse("send `authorization: Bearer TOKEN`"))?;
    let token: UserToken =
        text.trim().parse().map_err(|_| refuse("the token cannot be read: ff2-..."))?;
    let routing = api.routing.get();
    if routing.version.0 == 0 {
        // Which tokens were revoked is not known yet.
        return Err(tonic::Status::unavailable(
            "no metad has answered this schedd yet: retry in a second",
        ));
    }
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let claims = api
        .key
        .check_token(&token, now_s, &routing.revoked_tokens)
        .map_err(|status| refuse(&status.to_string()))?;
    let role = Role::of(&claims);
    let is_confined = claims.subtree != 0;
    let who = Submitter { name: claims.name, uid: claims.uid, gid: claims.gid };
    request.extensions_mut().insert(Bearer { who, role, is_confined });
    Ok(request)
}

/// Of a request that [`check`] let in.
pub(super) fn bearer<T>(request: &Request<T>) -> Result<Bearer, tonic::Status> {
    let bearer = request.extensions().get::<Bearer>().cloned();
    bearer.ok_or_else(|| tonic::Status::unauthenticated("send `authorization: Bearer TOKEN`"))
}
