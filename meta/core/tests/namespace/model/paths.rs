//! The model's walk along a path, by path_resolution(7).

use std::collections::VecDeque;

use ff2_proto::{
    ROOT_INODE, limits,
    pb::{self, Code, FileKind},
};

use super::tree::{Tree, ensure};
use crate::volume::Who;

impl Tree {
    /// Where a path leads.
    pub(super) fn resolve(&self, who: &Who, op: &pb::ResolveOp) -> Result<u64, Code> {
        let mut at = if op.path.starts_with(b"/") { ROOT_INODE.0 } else { op.base };
        self.node(at)?;
        let split = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect()
        };
        let mut left: VecDeque<Vec<u8>> = split(&op.path).into();
        let mut followed = 0;
        while let Some(name) = left.pop_front() {
            let child = self.child(who, at, &name)?;
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    at = self.nodes[&at].parent;
                    self.node(at)?;
                    continue;
                }
                _ => {}
            }
            let child = child.ok_or(Code::NotFound)?;
            let is_last = left.is_empty();
            if self.nodes[&child].kind != FileKind::Symlink || (is_last && !op.follow_last) {
                at = child;
                continue;
            }
            followed += 1;
            ensure(followed <= limits::SYMLINKS_MAX, Code::SymlinkLoop)?;
            for step in split(&self.nodes[&child].target).into_iter().rev() {
                left.push_front(step);
            }
        }
        ensure(!self.nodes[&at].cutting, Code::Busy)?;
        Ok(at)
    }
}
