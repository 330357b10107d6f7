//! Where this process is in the control groups of the machine. Only looks.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Which tree of control groups: the one of version 2, or that of a controller of version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    Unified,
    Version1(&'static str),
}

/// `/proc/self/mountinfo` and `/proc/self/cgroup`.
#[derive(Debug)]
pub(crate) struct Place {
    mounts: String,
    own: String,
}

/// The folder of this process's own group, and of the topmost one that is to be seen here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folders {
    pub(crate) own: PathBuf,
    pub(crate) top: PathBuf,
}

impl Place {
    pub(crate) fn look() -> io::Result<Self> {
        Ok(Self {
            mounts: fs::read_to_string("/proc/self/mountinfo")?,
            own: fs::read_to_string("/proc/self/cgroup")?,
        })
    }

    /// `None` where the tree is not mounted, or shows a part only that this process is not in.
    pub(crate) fn folders(&self, tree: Tree) -> Option<Folders> {
        let own = self.own.lines().find_map(|line| path_in(tree, line))?;
        let (root, at) = self.mounts.lines().find_map(|line| mount_of(tree, line))?;
        // A container may have a part of the tree mounted; paths count from the whole one's top.
        let below = own.strip_prefix(root).ok()?;
        Some(Folders { own: at.join(below), top: at.into() })
    }

    pub(crate) fn has_version1(&self) -> bool {
        self.mounts.lines().any(|line| file_system(line).is_some_and(|(kind, _)| kind == "cgroup"))
    }
}

/// A line is `ID:CONTROLLERS:PATH`, without controllers for version 2.
fn path_in(tree: Tree, line: &str) -> Option<&Path> {
    let mut fields = line.splitn(3, ':').skip(1);
    let controllers = fields.next()?;
    let is_it = match tree {
        Tree::Unified => controllers.is_empty(),
        Tree::Version1(controller) => controllers.split(',').any(|one| one == controller),
    };
    is_it.then(|| fields.next()).flatten().map(Path::new)
}

/// Root and place of the mount, if the line (proc_pid_mountinfo(5)) is one of this tree.
fn mount_of(tree: Tree, line: &str) -> Option<(&Path, &Path)> {
    let (kind, options) = file_system(line)?;
    let is_it = match tree {
        Tree::Unified => kind == "cgroup2",
        Tree::Version1(controller) => {
            kind == "cgroup" && options.split(',').any(|option| option == controller)
        }
    };
    let mut fields = line.split(' ').skip(3);
    is_it.then(|| Some((Path::new(fields.next()?), Path::new(fields.next()?))))?
}

/// Type and options.
fn file_system(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.split_once(" - ")?.1.split(' ');
    let kind = fields.next()?;
    Some((kind, fields.nth(1)?))
}

/// What a group's file holds under a key, in lines of `KEY VALUE`.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const HYBRID: (&str, &str) = (
        "31 24 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
         32 31 0:28 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
         36 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
         42 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
        "9:name=systemd:/\n4:memory:/api/5\n1:cpu:/\n0::/\n",
    );

    pub(crate) fn place((mounts, own): (&str, &str)) -> Place {
        Place { mounts: mounts.into(), own: own.into() }
    }

    #[test]
    fn each_tree_has_its_own_mount_and_path() {
        let hybrid = place(HYBRID);
        let unified = hybrid.folders(Tree::Unified).unwrap();
        assert_eq!(unified.own, Path::new("/sys/fs/cgroup/unified"));
        let memory = hybrid.folders(Tree::Version1("memory")).unwrap();
        assert_eq!(memory.own, Path::new("/sys/fs/cgroup/memory/api/5"));
        assert_eq!(memory.top, Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(hybrid.folders(Tree::Version1("pids")), None);
        assert!(hybrid.has_version1());
    }

    #[test]
    fn a_container_may_see_a_part_of_the_tree() {
        let mounts = "50 40 0:30 /pods/a /sys/fs/cgroup ro - cgroup2 cgroup2 rw";
        let inside = place((mounts, "0::/pods/a/task\n")).folders(Tree::Unified).unwrap();
        assert_eq!(inside.own, Path::new("/sys/fs/cgroup/task"));
        assert_eq!(place((mounts, "0::/pods/b\n")).folders(Tree::Unified), None);
        assert!(!place((mounts, "0::/pods/b\n")).has_version1());
    }

    #[test]
    fn a_key_is_not_the_beginning_of_another_one() {
        let events = "low 0\noom 4\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(keyed(events, "oom_kill"), Some(2));
        assert_eq!(keyed(events, "oom"), Some(4));
        assert_eq!(keyed(events, "high"), None);
    }
}
