//! What changed in the routing after a version.

use ff2_proto::{Routing, RoutingVersion, pb};

/// Everything that changed after `since`; everything there is with `since` 0, or if `since` is of
/// another history (greater than the present version, or from before a restore).
pub fn delta(routing: &Routing, since: RoutingVersion) -> pb::RoutingDelta {
    let version = routing.version.0;
    let begins_at = routing.restored.map_or(0, |restored| restored.routing_version);
    let since = if (begins_at..=version).contains(&since.0) { since.0 } else { 0 };
    let mut delta = pb::RoutingDelta {
        since,
        version,
        cluster_id: routing.cluster_id.clone(),
        scrub_round: routing.scrub_round,
        rebalancing: routing.rebalancing,
        level: routing.level,
        ..Default::default()
    };
    if since == version {
        return delta;
    }
    delta.nodes = newer(routing.nodes.values(), |n| n.changed_at, since);
    delta.targets = newer(routing.targets.values(), |t| t.changed_at, since);
    delta.chains = newer(routing.chains.values(), |c| c.changed_at, since);
    delta.tables = newer(routing.tables.values(), |t| t.changed_at, since);
    delta.volumes = newer(routing.volumes.values(), |v| v.changed_at, since);
    // The list is short, and knowing when it changed last would cost a field in every copy.
    delta.revoked_tokens.clone_from(&routing.revoked_tokens);
    delta.revoked_changed = true;
    delta
}

fn newer<'a, T: Clone + 'a>(
    objects: impl Iterator<Item = &'a T>,
    changed_at: impl Fn(&T) -> u64,
    since: u64,
) -> Vec<T> {
    objects.filter(|object| changed_at(object) > since).cloned().collect()
}
