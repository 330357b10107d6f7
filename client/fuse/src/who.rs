//! Who asks: uid, gid and supplementary groups of the process behind a request.
//!
//! The kernel tells uid, gid and pid; the groups are read from `/proc` and trusted for a second.

use std::{collections::BTreeMap, fs, future::Future, time::Instant};

use ff2_client::pb;
use ff2_fuse_kernel::Asker;
use parking_lot::Mutex;

use crate::limits;

#[derive(Debug)]
pub(crate) struct Groups {
    known: Mutex<BTreeMap<Asker, (Instant, Vec<u32>)>>,
}

impl Groups {
    pub(crate) fn new() -> Self {
        Self { known: Mutex::default() }
    }

    pub(crate) fn credentials(&self, who: Asker) -> pb::Credentials {
        pb::Credentials { uid: who.uid, gid: who.gid, groups: self.groups(who) }
    }

    fn groups(&self, who: Asker) -> Vec<u32> {
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

/// Returns when the process (or thread) is being killed, that is, a fatal signal waits for it to come
/// back from the kernel, or has ended it and it lets its files go. `signal`: the kernel told of one, which
/// it does once, and not of those that ended the process before it asked. 0, the kernel's own requests:
/// never.
pub(crate) async fn is_killed(pid: u32, signal: impl Future<Output = ()>) {
    if pid == 0 {
        return std::future::pending().await;
    }
    // A signal in time is looked at now; any other, and a later one, is found by looking.
    let _ = tokio::time::timeout(limits::KILL_CHECK_AFTER, signal).await;
    // A request of a process that is gone is nobody's: its end harms nobody.
    let status = format!("/proc/{pid}/status");
    while !has_kill_pending(&fs::read_to_string(&status).unwrap_or_default())
        && !is_dying(pid).await
    {
        tokio::time::sleep(limits::KILL_CHECK_EVERY).await;
    }
}

/// Looks at `/proc/PID/stat`, on a thread that nobody else needs: the kernel has that file wait for an
/// exec of the process, which closes files on the way and so waits for the answers of this mount.
async fn is_dying(pid: u32) -> bool {
    let stat = tokio::task::spawn_blocking(move || fs::read_to_string(format!("/proc/{pid}/stat")));
    // No answer, as the runtime ends, or no process: nobody is known to die.
    let Ok(Ok(stat)) = stat.await else { return false };
    is_dying_of_a_signal(&stat)
}

/// The kernel turns each signal that ends a process into a pending SIGKILL of all its threads.
fn has_kill_pending(status: &str) -> bool {
    let pending = |line: &str| {
        let mask = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    status.lines().filter_map(pending).any(|mask| mask & (1 << (libc::SIGKILL - 1)) != 0)
}

/// A process that took its fatal signal closes its files, and has nothing pending then. One that ends
/// by itself closes them in the same way, but somebody may wait for its end to see what it wrote.
fn is_dying_of_a_signal(stat: &str) -> bool {
    const PF_EXITING: u64 = 0x4;
    // Behind the name, which may contain anything: state (field 3), ..., flags (9), ..., the status
    // that its parent will get (52).
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
    let is_exiting = field(9).is_some_and(|flags| flags & PF_EXITING != 0);
    is_exiting && field(52).is_some_and(|status| status & 0x7f != 0)
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
    fn a_pending_kill_is_seen() {
        let status =
            |own: &str, shared: &str| format!("Name:\tsh\nSigPnd:\t{own}\nShdPnd:\t{shared}\n");
        let none = "0000000000000000";
        assert!(has_kill_pending(&status("0000000000000100", none)));
        assert!(has_kill_pending(&status(none, "0000000000000100")));
        assert!(!has_kill_pending(&status(none, "0000000000004000")), "SIGTERM with a handler");
        assert!(!has_kill_pending(""));
    }

    #[test]
    fn who_dies_of_a_signal_is_told_from_who_ends() {
        let stat = |flags: u64, status: u64| {
            let between = "0 ".repeat(42);
            format!("7 (a ) name) D 1 7 7 0 -1 {flags} {between}{status}\n")
        };
        assert!(is_dying_of_a_signal(&stat(0x0040_0004, 9)));
        assert!(!is_dying_of_a_signal(&stat(0x0040_0004, 0)), "exit(0)");
        assert!(!is_dying_of_a_signal(&stat(0x0040_0004, 1 << 8)), "exit(1)");
        assert!(!is_dying_of_a_signal(&stat(0x0040_0000, 9)), "it runs");
        assert!(!is_dying_of_a_signal(""));
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(!is_dying_of_a_signal(&own));
    }

    #[test]
    fn the_own_process_is_found() {
        let groups = Groups::new();
        let who = Asker { uid: 7, gid: 8, pid: std::process::id() };
        let credentials = groups.credentials(who);
        assert_eq!((credentials.uid, credentials.gid), (7, 8));
        assert_eq!(groups.credentials(who), credentials, "the second answer is remembered");
    }

    #[test]
    fn damaged_status_files() {
        let status = b"Name:\tsh\nGroups:\t4 24 1000 \nSigPnd:\t0000000000000100\n".to_vec();
        let stat = format!("7 (a) b) R 1 2 3 4 5 {} 9", "4 ".repeat(45)).into_bytes();
        ff2_fuzz::target!(vec![status, stat], |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let groups = ff2_fuzz::bounded(bytes, || parse_groups(&text));
            assert!(groups.iter().all(|group| text.contains(&group.to_string())));
            assert!(!has_kill_pending(&text) || text.contains("Pnd:"));
            assert!(!is_dying_of_a_signal(&text) || text.contains(')'));
        });
    }
}
