//! One function for each fact that group 0 logs: check first, then change.

mod chains;
mod exports;
mod moves;
mod nodes;
mod snapshots;
mod tables;
mod targets;
mod users;
mod ways;

use ff2_proto::{Status, pb, status::Code};
use pb::cluster_command::Fact;

use super::{edit::Edit, limits};
use crate::kv::Kv;
pub(super) use targets::give_up;

type Answer = Result<pb::ClusterReply, Status>;

pub(super) fn apply(fact: Fact, edit: &mut Edit<'_>, kv: &mut dyn Kv) -> Answer {
    match fact {
        Fact::Bootstrap(fact) => bootstrap(fact, edit),
        _ if edit.record.bootstrap.is_none() => {
            Err(Status::new(Code::Busy, "the cluster is not formed yet: retry"))
        }
        Fact::Join(fact) => nodes::join(fact, edit),
        Fact::NodesChanged(fact) => nodes::changed(&fact, edit),
        Fact::TargetsReported(fact) => nodes::targets_reported(&fact, edit),
        Fact::SetDraining(fact) => nodes::set_draining(&fact, edit),
        Fact::RemoveNode(fact) => nodes::remove(&fact, edit),
        Fact::ReadmitNode(fact) => nodes::readmit(&fact, edit),
        Fact::CreateTable(fact) => tables::create_table(fact, edit),
        Fact::ExtendTable(fact) => tables::extend_table(fact, edit),
        Fact::ReplaceTarget(fact) => targets::replace(fact, edit),
        Fact::ReviveChain(fact) => chains::revive(&fact, edit),
        Fact::StartScrub(pb::StartScrub {}) => {
            Ok(pb::ClusterReply { scrub_round: edit.start_scrub(), ..Default::default() })
        }
        Fact::MoveTarget(fact) => moves::move_target(fact, edit),
        Fact::AddTarget(fact) => moves::add_target(fact, edit),
        Fact::AbandonTarget(fact) => moves::abandon(&fact, edit),
        Fact::RetireTarget(fact) => moves::retire(&fact, edit),
        Fact::TakeOutTarget(fact) => moves::take_out_heard(&fact, edit),
        Fact::SetReplicas(fact) => moves::set_replicas(&fact, edit),
        Fact::SetRebalancing(fact) => moves::set_rebalancing(&fact, edit),
        Fact::SetExports(fact) => exports::set(fact, edit),
        Fact::RaiseLevel(fact) => raise_level(fact, edit),
        Fact::WaysChanged(fact) => ways::changed(&fact, edit),
        Fact::PublishSnapshots(fact) => snapshots::publish(fact, edit),
        Fact::CreateVolume(fact) => tables::create_volume(fact, edit),
        Fact::PutUser(fact) => users::put(fact, edit, kv),
        Fact::IssueToken(fact) => users::issue_token(&fact, edit, kv),
        Fact::RevokeToken(fact) => users::revoke_token(&fact, edit, kv),
    }
}

/// Each new leader proposes it until it finds the cluster formed, so a second one is no fault.
fn bootstrap(fact: pb::Bootstrap, edit: &mut Edit<'_>) -> Answer {
    if fact.cluster_id.is_empty() || fact.cluster_id.len() > limits::TEXT_BYTES_MAX {
        return Err(invalid("a cluster id has 1 to 255 bytes"));
    }
    if edit.record.bootstrap.is_none() {
        edit.record.next_node = limits::STORAGED_ID_FIRST;
        edit.record.next_target = 1;
        edit.record.next_chain = 1;
        edit.record.next_table = 1;
        edit.record.next_volume = 1;
        edit.record.next_token = 1;
        edit.bootstrap(fact);
    }
    Ok(pb::ClusterReply::default())
}

/// A level never falls: what it allows is in the logs by then.
fn raise_level(fact: pb::RaiseLevel, edit: &mut Edit<'_>) -> Answer {
    if fact.level > edit.routing().level {
        edit.raise_level(fact.level);
    }
    Ok(pb::ClusterReply::default())
}

fn invalid(detail: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument, detail)
}

fn not_found(detail: impl Into<String>) -> Status {
    Status::new(Code::NotFound, detail)
}

/// Texts are shown to people and kept for ever.
fn check_text(what: &str, text: &str) -> Result<(), Status> {
    if text.len() > limits::TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(invalid(format!("{what}: at most 255 bytes, without control characters")));
    }
    Ok(())
}
