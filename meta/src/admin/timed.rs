//! The calls of the admin interface by the names that they are timed under.

/// gRPC's method names, and the same in the words of metrics; the last is that of any other.
pub(super) const CALLS: [(&str, &str); 36] = [
    ("ClusterStatus", "admin_cluster_status"),
    ("CreateTable", "admin_create_table"),
    ("ExtendTable", "admin_extend_table"),
    ("CreateVolume", "admin_create_volume"),
    ("PutUser", "admin_put_user"),
    ("ListUsers", "admin_list_users"),
    ("IssueToken", "admin_issue_token"),
    ("RevokeToken", "admin_revoke_token"),
    ("Why", "admin_why"),
    ("ListSessions", "admin_list_sessions"),
    ("AddMember", "admin_add_member"),
    ("RemoveMember", "admin_remove_member"),
    ("RemoveNode", "admin_remove_node"),
    ("SetDraining", "admin_set_draining"),
    ("ReplaceTarget", "admin_replace_target"),
    ("ReviveChain", "admin_revive_chain"),
    ("StartScrub", "admin_start_scrub"),
    ("Rebalance", "admin_rebalance"),
    ("SetReplicas", "admin_set_replicas"),
    ("CheckNamespace", "admin_check_namespace"),
    ("CheckChunks", "admin_check_chunks"),
    ("SetExports", "admin_set_exports"),
    ("ReadAudit", "admin_read_audit"),
    ("SetQuota", "admin_set_quota"),
    ("RemoveQuota", "admin_remove_quota"),
    ("ListQuotas", "admin_list_quotas"),
    ("ReadBackup", "admin_read_backup"),
    ("SetTrash", "admin_set_trash"),
    ("ListTrash", "admin_list_trash"),
    ("RestoreTrash", "admin_restore_trash"),
    ("EmptyTrash", "admin_empty_trash"),
    ("FinishUpgrade", "admin_finish_upgrade"),
    ("CreateSnapshot", "admin_create_snapshot"),
    ("ListSnapshots", "admin_list_snapshots"),
    ("RemoveSnapshot", "admin_remove_snapshot"),
    ("", "admin_unknown"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_its_name() {
        let service = include_str!("../../../fabric/proto/proto/ff2/v1/admin.proto");
        let calls =
            service.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
        let named: Vec<&str> = CALLS.iter().map(|(call, _)| *call).collect();
        assert_eq!(calls.clone().count() + 1, named.len());
        for call in calls {
            assert!(named.contains(&call), "{call}");
        }
    }
}
