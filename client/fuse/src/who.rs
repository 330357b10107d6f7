//! Who asks: uid, gid and supplementary groups of the process behind a request.
//!
//! The kernel tells uid, gid and pid; the groups are read from `/proc` and trusted for a second.

use std::{collections::BTreeMap, fs, time::Instant};

use ff2_client::pb;
use parking_lot::Mutex;

use crate::limits;

/// The process behind a request, as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) pid: u32,
}

#[derive(Debug)]
pub(crate) struct Groups {
    known: Mutex<BTreeMap<Who, (Instant, Vec<u32>)>>,
}

impl Groups {
    pub(crate) fn new() -> Self {
        Self { known: Mutex::default() }
    }

    pub(crate) fn credentials(&self, who: Who) -> pb::Credentials {
        pb::Credentials { uid: who.uid, gid: who.gid, groups: self.groups(who) }
    }

    fn groups(&self, who: Who) -> Vec<u32> {
        let fresh = |since: &Instant| since.elapsed() < limits::GROUPS_AGE;
        if let Some((since, groups)) = self.known.lock().get(&who)
            && fresh(since)
        {
            return groups.clone();
        }
        let status = fs::read_to_string(format!("/proc/{}/status", who.pid));
        // A process that is gone, or of another pid namespace, has the groups that it named: none.
        let groups = status.map(|text| parse_groups(&text)).unwrap_or_default();
        let mut known = self.known.lock();
        if known.len() >= limits::GROUPS_CACHED_MAX {
            known.retain(|_, (since, _)| fresh(since));
        }
        if known.len() >= limits::GROUPS_CACHED_MAX {
            known.clear();
        }
        known.insert(who, (Instant::now(), groups.clone()));
        groups
    }
}

fn parse_groups(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    line.map(|line| line.split_whitespace().filter_map(|id| id.parse().ok()).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_from_the_status() {
        let text = "Name:\tsh\nUid:\t1\t1\t1\t1\nGroups:\t4 24 1000 \nNStgid:\t7\n";
        assert_eq!(parse_groups(text), [4, 24, 1000]);
        assert!(parse_groups("Groups:\t \n").is_empty());
        assert!(parse_groups("").is_empty());
    }

    #[test]
    fn the_own_process_is_found() {
        let groups = Groups::new();
        let who = Who { uid: 7, gid: 8, pid: std::process::id() };
        let credentials = groups.credentials(who);
        assert_eq!((credentials.uid, credentials.gid), (7, 8));
        assert_eq!(groups.credentials(who), credentials, "the second answer is remembered");
    }
}
