//! Exactly once: a mutation that comes again, because its answer was lost or the leader changed, gets
//! the answer that it was given the first time, and changes nothing.

use bytes::Bytes;
use ff2_proto::{
    Status,
    marks::{Mark, reached},
    pb,
    status::{Code, Retry},
};

use super::{
    keys::{self, Tag},
    limits,
    request::Owner,
    sessions, tx,
};
use crate::kv::Kv;

/// The answer that this mutation was given before; `None`: it is new and may run. Answers that the
/// client acknowledged are forgotten here.
pub(super) fn admit(
    kv: &mut dyn Kv,
    request: &pb::NsRequest,
    owner: Owner,
) -> Result<Option<Bytes>, Status> {
    if request.seq == 0 {
        return Err(Status::new(Code::InvalidArgument, "a mutation needs a number"));
    }
    if request.cred.is_none() {
        return Err(Status::new(Code::InvalidArgument, "a mutation needs credentials"));
    }
    sessions::check(kv, request.session, owner)?;
    if let Some(answer) = kv.get(&keys::two(Tag::Answer, request.session, request.seq)) {
        reached(Mark::AnswerRemembered);
        return Ok(Some(answer));
    }
    let mut usage = tx::session_use(kv, request.session)?.unwrap_or_default();
    if request.seq < usage.answered_below {
        return Err(Status::new(Code::StaleUpdate, "the client had acknowledged this number"));
    }
    forget(kv, request, &mut usage);
    if usage.answers >= limits::ANSWERS_PER_SESSION_MAX {
        return Err(Status::new(Code::Busy, "too many answers are not acknowledged"));
    }
    Ok(None)
}

fn forget(kv: &mut dyn Kv, request: &pb::NsRequest, usage: &mut pb::SessionUseRecord) {
    // A client cannot have the answer of what it is asking now.
    let ack_below = request.ack_below.min(request.seq);
    if ack_below <= usage.answered_below {
        return;
    }
    let from = keys::two(Tag::Answer, request.session, usage.answered_below);
    let to = keys::two(Tag::Answer, request.session, ack_below);
    let limit = limits::ANSWERS_PER_SESSION_MAX as usize;
    let old = kv.scan(&from, &to, limit);
    assert!(old.len() as u64 <= usage.answers, "answers are counted");
    for (key, _) in &old {
        kv.delete(key);
    }
    usage.answers -= old.len() as u64;
    usage.answered_below = ack_below;
    tx::put_session_use(kv, request.session, usage);
}

/// Whether the client will ask no more after this answer. One that asks it to wait is not kept: the
/// same number comes again and must then be tried.
pub(super) fn is_final(result: &Result<pb::NsReply, Status>) -> bool {
    match result {
        Ok(_) => true,
        Err(status) => status.retry() == Retry::Never,
    }
}

pub(super) fn remember(
    kv: &mut dyn Kv,
    request: &pb::NsRequest,
    answer: &Bytes,
) -> Result<(), Status> {
    let mut usage = tx::session_use(kv, request.session)?.unwrap_or_default();
    usage.answers += 1;
    tx::put_session_use(kv, request.session, &usage);
    kv.put(&keys::two(Tag::Answer, request.session, request.seq), answer.clone());
    Ok(())
}
