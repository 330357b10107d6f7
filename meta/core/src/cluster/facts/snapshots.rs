//! Which snapshots a volume has, for the storage nodes.

use ff2_proto::{VolumeId, pb};

use super::{Answer, invalid, not_found};
use crate::{cluster::edit::Edit, namespace::limits::SNAPSHOTS_MAX};

/// All of them anew, and whether one is being made: then no update of a chunk begins.
pub(super) fn publish(fact: pb::PublishSnapshotsRequest, edit: &mut Edit<'_>) -> Answer {
    let pb::PublishSnapshotsRequest { volume, snapshots, frozen } = fact;
    let grows = snapshots.is_sorted_by(|a, b| a < b) && snapshots.first() != Some(&0);
    if !grows || snapshots.len() > SNAPSHOTS_MAX {
        return Err(invalid("snapshots have numbers that grow, and there are not so many"));
    }
    let Some(known) = edit.routing().volumes.get(&VolumeId(volume)) else {
        return Err(not_found(format!("there is no volume {volume}")));
    };
    if known.snapshots == snapshots && known.frozen == frozen {
        return Ok(pb::ClusterReply::default());
    }
    let volume = pb::Volume { snapshots, frozen, ..known.clone() };
    edit.put_volume(volume);
    Ok(pb::ClusterReply::default())
}
