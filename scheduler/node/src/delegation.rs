//! Whether this process may make control groups, and where.
//!
//! Only version 2 is used: it alone ends all processes of a group at once, and kills a run as a whole when its
//! memory is over. A process may divide the group that it was given (is *delegated*, in the words of the kernel's
//! cgroup-v2 document and of systemd): as root at the top of the tree, in a container with a tree of its own, or
//! as a service with `Delegate=yes`. Below that group, `BASE`, there is then
//!
//! - `BASE/ff2-agent`: this process and those that it found beside itself, because a group that is divided may
//!   hold no processes of its own (the topmost one is an exception);
//! - `BASE/ff2-runs/NAME`: the processes of a run ([`Confinement`](crate::Confinement)).
//!
//! They stay when this process ends; the next one finds them. A systemd service that is to start again beside
//! them says `DelegateSubgroup=ff2-agent`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    cgroup::{Folders, Place, Tree},
    limits,
};

const AGENT: &str = "ff2-agent";
const RUNS: &str = "ff2-runs";
/// What a run is confined by.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Why runs are not confined on this node, in words for the people who run it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("there is cgroup v1 only here: boot with systemd.unified_cgroup_hierarchy=1")]
    Version1Only,
    #[error("no cgroup v2 hierarchy is mounted here")]
    NotMounted,
    #[error("cgroup v2 has no controllers for {missing} here{hint}")]
    Controllers { missing: String, hint: &'static str },
    #[error("systemd owns {}: run this as a service with Delegate=yes", .0.display())]
    NotDelegated(PathBuf),
    #[error("{} may not be changed by this user", .0.display())]
    NotWritable(PathBuf),
    #[error("{} is a group for threads", .0.display())]
    Threaded(PathBuf),
    #[error("this kernel cannot kill a control group at once: Linux 5.14 can")]
    OldKernel,
    #[error("cannot {0}: {1}")]
    Failed(String, io::Error),
}

/// The right to make control groups for runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    runs: PathBuf,
}

impl Delegation {
    /// Takes the delegated group over: moves this process out of the way, and lets limits be set below. May be
    /// called again, also by another process later.
    ///
    /// # Errors
    /// Why runs cannot be confined here. Nothing was changed then, unless it is [`Refusal::Failed`] or
    /// [`Refusal::OldKernel`].
    pub fn claim() -> Result<Self, Refusal> {
        let place = Place::look().map_err(failed("read /proc/self/cgroup"))?;
        let folders = unified(&place)?;
        let base = base(&folders.own);
        check(&base, place.has_version1())?;
        let runs = base.join(RUNS);
        if !is_top(&base) {
            clear(&base)?;
        }
        enable(&base)?;
        make(&runs)?;
        enable(&runs)?;
        if !runs.join("cgroup.kill").exists() {
            return Err(Refusal::OldKernel);
        }
        Ok(Self { runs })
    }

    /// The folder in which each run has one.
    pub fn folder(&self) -> &Path {
        &self.runs
    }

    /// The names of all confinements that are there, also from before this process was.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.runs)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort();
        Ok(names)
    }
}

fn unified(place: &Place) -> Result<Folders, Refusal> {
    let missing = if place.has_version1() { Refusal::Version1Only } else { Refusal::NotMounted };
    place.folders(Tree::Unified).ok_or(missing)
}

/// A process that claimed the group before, or was started by who knew, is below it.
fn base(own: &Path) -> PathBuf {
    match own.parent() {
        Some(parent) if own.file_name().is_some_and(|name| name == AGENT) => parent.into(),
        _ => own.into(),
    }
}

/// The whole machine's topmost group alone has no type.
fn is_top(base: &Path) -> bool {
    !base.join("cgroup.type").exists()
}

fn check(base: &Path, has_version1: bool) -> Result<(), Refusal> {
    let file = base.join("cgroup.controllers");
    let there = fs::read_to_string(&file).map_err(failed("read the group's controllers"))?;
    let is_missing = |name: &&str| !there.split_whitespace().any(|one| one == *name);
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(is_missing).collect();
    if !missing.is_empty() {
        let hint = if has_version1 {
            ", cgroup v1 has them: boot with systemd.unified_cgroup_hierarchy=1"
        } else {
            ": whoever made this group keeps them"
        };
        return Err(Refusal::Controllers { missing: missing.join(", "), hint });
    }
    let kind = fs::read_to_string(base.join("cgroup.type"));
    if kind.is_ok_and(|kind| kind.contains("threaded") && kind.trim() != "domain threaded") {
        return Err(Refusal::Threaded(base.into()));
    }
    for name in ["", "cgroup.procs", "cgroup.subtree_control"] {
        let access = rustix::fs::access(base.join(name), rustix::fs::Access::WRITE_OK);
        access.map_err(|_| Refusal::NotWritable(base.into()))?;
    }
    let is_systemd = Path::new("/run/systemd/system").exists();
    if is_systemd && !["trusted.delegate", "user.delegate"].iter().any(|name| has(base, name)) {
        return Err(Refusal::NotDelegated(base.into()));
    }
    Ok(())
}

/// The mark by which systemd says that it will let a group alone.
fn has(base: &Path, attribute: &str) -> bool {
    let mut value = [0u8; 8];
    rustix::fs::getxattr(base, attribute, &mut value[..])
        .is_ok_and(|length| value[..length] == *b"1")
}

/// Moves all processes of the group one below.
fn clear(base: &Path) -> Result<(), Refusal> {
    let below = base.join(AGENT);
    make(&below)?;
    for _ in 0..limits::MOVE_ROUNDS {
        let inside = fs::read_to_string(base.join("cgroup.procs"));
        let inside = inside.map_err(failed("list the processes beside this one"))?;
        if inside.is_empty() {
            return Ok(());
        }
        for pid in inside.lines() {
            match fs::write(below.join("cgroup.procs"), pid) {
                // It ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other.map_err(failed("move the processes beside this one"))?,
            }
        }
    }
    let busy = io::Error::new(io::ErrorKind::ResourceBusy, "new ones come all the time");
    Err(Refusal::Failed(format!("empty {}", base.display()), busy))
}

/// Lets groups directly below this one have limits.
fn enable(folder: &Path) -> Result<(), Refusal> {
    let wanted: Vec<String> = CONTROLLERS.iter().map(|name| format!("+{name}")).collect();
    fs::write(folder.join("cgroup.subtree_control"), wanted.join(" "))
        .map_err(failed(&format!("divide {}", folder.display())))
}

fn make(folder: &Path) -> Result<(), Refusal> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(failed(&format!("make {}", folder.display()))),
    }
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> Refusal + use<> {
    let what = what.to_owned();
    |error| Refusal::Failed(what, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::tests::{HYBRID, place};

    /// A folder that looks like a control group.
    fn group(controllers: &str, kind: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cgroup.controllers", controllers),
            ("cgroup.type", kind),
            ("cgroup.procs", ""),
            ("cgroup.subtree_control", ""),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn what_is_missing_is_said() {
        let old = place(("32 31 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", "1:cpu:/\n"));
        assert!(unified(&old).unwrap_err().to_string().contains("cgroup v1 only"));
        assert!(unified(&place(("", "0::/\n"))).unwrap_err().to_string().contains("no cgroup v2"));
        assert!(unified(&place(HYBRID)).is_ok());

        let hybrid = group("hugetlb\n", "domain\n");
        let said = check(hybrid.path(), true).unwrap_err().to_string();
        assert!(
            said.contains("cpu, memory, pids") && said.contains("cgroup v1 has them"),
            "{said}"
        );
        let kept = group("cpu memory\n", "domain\n");
        let said = check(kept.path(), false).unwrap_err().to_string();
        assert!(said.contains("for pids here: whoever made this group"), "{said}");
        let threads = group("cpu memory pids\n", "threaded\n");
        assert!(matches!(check(threads.path(), false), Err(Refusal::Threaded(_))));
    }

    #[test]
    fn who_is_below_already_stays_there() {
        assert_eq!(base(Path::new("/a/service/ff2-agent")), Path::new("/a/service"));
        assert_eq!(base(Path::new("/a/service")), Path::new("/a/service"));
        assert_eq!(base(Path::new("/")), Path::new("/"));
    }
}
