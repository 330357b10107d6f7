//! Members that others of their chains do not reach: see [`crate::cluster::lease`].

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::{ChainId, TargetId, pb};

use super::Answer;
use crate::cluster::{edit::Edit, judge::judge};

/// One that serves leaves its chain when it may, see [`crate::cluster::leave`]; another at once.
pub(super) fn changed(fact: &pb::WaysChanged, edit: &mut Edit<'_>) -> Answer {
    let mut chains = BTreeSet::new();
    for (targets, gives_way) in [(&fact.cut, true), (&fact.mended, false)] {
        for id in targets {
            let known = edit.routing().targets.get(&TargetId(*id)).cloned();
            let Some(target) = known.filter(|t| t.chain != 0 && t.gives_way != gives_way) else {
                continue;
            };
            chains.insert(ChainId(target.chain));
            edit.put_target(pb::Target { gives_way, ..target });
        }
    }
    judge(edit, &chains, &BTreeMap::new());
    Ok(pb::ClusterReply::default())
}
