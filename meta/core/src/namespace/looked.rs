//! Which inodes an answer depends on: what a session alone may know of them must be told first (see
//! [`crate::callbacks`]).

use ff2_proto::pb::{self, ns_request::Op};

use super::{confine, dir};
use crate::kv::KvRead;

/// The inodes that a request names, and those that its names mean as the keys are now. What its answer
/// shows beyond that ([`super::Shown`], `walked`) the answer says.
pub fn looked(kv: &dyn KvRead, request: &pb::NsRequest) -> Vec<u64> {
    let Some(op) = &request.op else { return Vec::new() };
    let by_name = |parent: u64, name: &[u8]| dir::meant(kv, parent, name);
    let meant = match op {
        Op::Lookup(op) => [by_name(op.parent, &op.name), None],
        Op::Create(op) => [by_name(op.parent, &op.name), None],
        Op::Unlink(op) => [by_name(op.parent, &op.name), None],
        Op::Rename(op) => [by_name(op.parent, &op.name), by_name(op.new_parent, &op.new_name)],
        _ => [None, None],
    };
    let mut inodes: Vec<u64> = confine::inodes(op).into_iter().chain(meant).flatten().collect();
    inodes.sort_unstable();
    inodes.dedup();
    inodes
}
