//! The export rules of a volume.

use ff2_proto::{exports, pb};

use super::{Answer, invalid, not_found};
use crate::cluster::edit::Edit;

/// All rules anew. Grants that were written under the former ones are void from this version on.
pub(super) fn set(fact: pb::SetExports, edit: &mut Edit<'_>) -> Answer {
    exports::check(&fact.rules).map_err(invalid)?;
    let volumes = &edit.routing().volumes;
    let Some(volume) = volumes.values().find(|volume| volume.name == fact.volume) else {
        return Err(not_found(format!("there is no volume named {}", fact.volume)));
    };
    if volume.exports == fact.rules {
        return Ok(pb::ClusterReply::default());
    }
    let volume = pb::Volume { exports: fact.rules, ruled_at: edit.version(), ..volume.clone() };
    edit.put_volume(volume);
    Ok(pb::ClusterReply::default())
}
