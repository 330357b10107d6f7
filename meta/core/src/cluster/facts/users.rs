//! Users and their tokens. The token's text is made by the leader from the claims and the cluster
//! key; only its number is kept.

use ff2_proto::{Status, pb, status::Code};

use super::{Answer, check_text, invalid, not_found};
use crate::{
    cluster::{edit::Edit, limits, records},
    kv::Kv,
};

/// Creates or changes a user. The tokens on record stay.
pub(super) fn put(fact: pb::PutUser, edit: &mut Edit<'_>, kv: &mut dyn Kv) -> Answer {
    let Some(mut user) = fact.user else { return Err(invalid("no user is given")) };
    check_text("user name", &user.name)?;
    if user.name.is_empty() || user.groups.len() > limits::USER_GROUPS_MAX {
        return Err(invalid(format!(
            "a user has a name and at most {} groups",
            limits::USER_GROUPS_MAX
        )));
    }
    let known = records::user(kv, user.uid);
    if known.is_none() && records::users_are_full(kv) {
        return Err(Status::new(Code::QuotaExceeded, "there are too many users"));
    }
    user.token_ids = known.map(|known| known.token_ids).unwrap_or_default();
    records::put_user(kv, &user);
    edit.touch_record();
    Ok(pb::ClusterReply::default())
}

pub(super) fn issue_token(fact: &pb::IssueToken, edit: &mut Edit<'_>, kv: &mut dyn Kv) -> Answer {
    let Some(mut user) = records::user(kv, fact.uid) else {
        return Err(not_found(format!("there is no user {}: create it first", fact.uid)));
    };
    if user.token_ids.len() >= limits::TOKENS_PER_USER_MAX {
        let detail = format!("user {} has too many tokens: revoke some", fact.uid);
        return Err(Status::new(Code::QuotaExceeded, detail));
    }
    let token_id = edit.record.next_token;
    edit.record.next_token += 1;
    edit.touch_record();
    user.token_ids.push(token_id);
    records::put_user(kv, &user);
    Ok(pb::ClusterReply { token_id, ..Default::default() })
}

pub(super) fn revoke_token(fact: &pb::RevokeToken, edit: &mut Edit<'_>, kv: &mut dyn Kv) -> Answer {
    let token = fact.token_id;
    if token == 0 || token >= edit.record.next_token {
        return Err(not_found(format!("token {token} was never issued")));
    }
    if edit.record.revoked_tokens.contains(&token) {
        return Ok(pb::ClusterReply::default());
    }
    if edit.record.revoked_tokens.len() >= limits::REVOKED_TOKENS_MAX {
        return Err(Status::new(Code::QuotaExceeded, "too many tokens were revoked"));
    }
    edit.revoke(token);
    for mut user in records::users(kv) {
        if user.token_ids.contains(&token) {
            user.token_ids.retain(|&id| id != token);
            records::put_user(kv, &user);
        }
    }
    Ok(pb::ClusterReply::default())
}
