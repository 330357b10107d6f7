//! All that descends from this process: whatever a rank leaves behind becomes its child.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io, thread,
    time::Instant,
};

use rustix::process::{Pid, Signal, getpid, kill_process};

use crate::limits;

/// Orphans below this process become its children, so that none is lost from sight.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(getpid()))?)
}

/// Children, their children, and so on; those that ended and wait to be reaped are not counted.
pub(crate) fn descendants() -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let mut ended = BTreeSet::new();
    for pid in all() {
        // It may have gone meanwhile.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((state, parent)) = state_and_parent(&stat) else { continue };
        children.entry(parent).or_default().push(pid);
        if matches!(state, 'Z' | 'X') {
            ended.insert(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut next = vec![getpid().as_raw_nonzero().get()];
    while let Some(parent) = next.pop() {
        for child in children.remove(&parent).into_iter().flatten() {
            if found.insert(child) {
                next.push(child);
            }
        }
    }
    &found - &ended
}

/// Of `/proc/PID/stat`. The name before them may hold anything, parentheses too.
fn state_and_parent(stat: &str) -> Option<(char, i32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

pub(crate) fn signal_all(signal: Signal) {
    for pid in descendants() {
        send(pid, signal);
    }
}

/// One that went meanwhile needs none.
fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Ends all descendants. Returns those that hang in the kernel.
pub(crate) fn end_all() -> Vec<i32> {
    end(descendants).1.into_iter().collect()
}

/// Ends all whose environment has this variable, with this value. Returns how many that were.
pub(crate) fn end_marked(variable: &[u8]) -> usize {
    let marked = || {
        let is_marked = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|other| other == variable)
        };
        all().filter(is_marked).collect()
    };
    end(marked).0
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
}

/// Ends all of a kind, those too that make others all the time: whoever is stopped cannot. Returns how many there
/// were, and those that hang in the kernel.
fn end(kind: impl Fn() -> BTreeSet<i32>) -> (usize, BTreeSet<i32>) {
    let until = Instant::now() + limits::END_MAX;
    let mut seen = BTreeSet::new();
    loop {
        let mut stopped = BTreeSet::new();
        loop {
            let fresh = &kind() - &stopped;
            if fresh.is_empty() {
                break;
            }
            for pid in fresh {
                send(pid, Signal::STOP);
                stopped.insert(pid);
            }
        }
        for pid in &stopped {
            send(*pid, Signal::KILL);
        }
        seen.append(&mut stopped);
        let left = kind();
        if left.is_empty() || Instant::now() >= until {
            return (seen.len(), left);
        }
        thread::sleep(limits::END_LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_the_fields_behind_it() {
        assert_eq!(state_and_parent("12 (a) S 1) R 34 12 12 0"), Some(('R', 34)));
        assert_eq!(state_and_parent("12 (sh) Z 1 1"), Some(('Z', 1)));
        assert_eq!(state_and_parent("nothing"), None);
    }
}
