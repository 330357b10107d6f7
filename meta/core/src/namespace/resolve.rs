//! Walks a whole path on the server, with symlinks, in one request. A connection that is confined to a
//! folder has that one for its root.

use bytes::Bytes;
use ff2_proto::{
    ROOT_INODE, Status, limits as wire,
    pb::{self, FileKind},
    status::Code,
};

use super::{
    dir,
    inode::{self, Inode},
    perm,
};
use crate::kv::KvRead;

const ROOT: u64 = ROOT_INODE.0;

pub(super) fn resolve(
    kv: &dyn KvRead,
    cred: &pb::Credentials,
    op: &pb::ResolveOp,
    root: u64,
) -> Result<pb::NsReply, Status> {
    check_path(&op.path)?;
    let from_root = matches!(op.base, 0 | ROOT) || op.path.starts_with(b"/");
    let at = inode::load(kv, if from_root { root } else { op.base })?;
    let walked = vec![at.id()];
    let mut walk = Walk { kv, cred, root, at, parent: None, rest: Vec::new(), walked };
    walk.push(&op.path);
    let mut links = 0;
    while let Some(name) = walk.rest.pop() {
        let follow = op.follow_last || !walk.rest.is_empty();
        if let Some(target) = walk.step(&name, follow)? {
            links += 1;
            if links > wire::SYMLINKS_MAX {
                return Err(Code::SymlinkLoop.into());
            }
            if target.starts_with(b"/") {
                walk.at = inode::load(kv, root)?;
            }
            walk.push(&target);
        }
    }
    walk.at.settled()?;
    Ok(pb::NsReply {
        attr: Some(walk.at.attr),
        walked: walk.walked,
        parent_attr: walk.parent.map(|parent| parent.attr),
        ..Default::default()
    })
}

fn check_path(path: &[u8]) -> Result<(), Status> {
    if path.is_empty() {
        return Err(Status::new(Code::NotFound, "an empty path"));
    }
    if path.len() > wire::PATH_BYTES_MAX {
        return Err(Code::NameTooLong.into());
    }
    if path.contains(&0) {
        return Err(Status::new(Code::InvalidArgument, "a path with NUL"));
    }
    Ok(())
}

struct Walk<'a> {
    kv: &'a dyn KvRead,
    cred: &'a pb::Credentials,
    /// Above it leads no way.
    root: u64,
    at: Inode,
    /// The directory that named `at`, if the last step was a name.
    parent: Option<Inode>,
    /// What is still to be walked, the next one last.
    rest: Vec<Bytes>,
    /// Every inode on the way.
    walked: Vec<u64>,
}

impl Walk<'_> {
    /// At most `SYMLINKS_MAX + 1` paths of bounded length come here, so `rest` is bounded.
    fn push(&mut self, path: &[u8]) {
        // A slash at the end leaves an empty step, which is taken as `.`: it needs a directory.
        let steps = path.split(|byte| *byte == b'/').rev();
        self.rest.extend(steps.map(Bytes::copy_from_slice));
    }

    /// One step from `at`; the target, if it is a symlink to be followed.
    fn step(&mut self, name: &[u8], follow: bool) -> Result<Option<Bytes>, Status> {
        perm::search(self.cred, &self.at)?;
        if matches!(name, b"" | b".") {
            return Ok(None);
        }
        if name == b".." {
            if self.at.id() != self.root {
                self.at = inode::load(self.kv, self.at.parent)?;
            }
            self.parent = None;
            return Ok(None);
        }
        dir::check_name(name)?;
        let Some(entry) = dir::lookup(self.kv, &self.at, name)? else {
            return Err(Code::NotFound.into());
        };
        let child = inode::load_named(self.kv, &entry)?;
        self.walked.push(child.id());
        if child.kind() == FileKind::Symlink && follow {
            return Ok(Some(child.symlink_target));
        }
        self.parent = Some(std::mem::replace(&mut self.at, child));
        Ok(None)
    }
}
