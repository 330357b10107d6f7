//! The model's rename, with the checks in the order of Linux.

use ff2_proto::pb::{self, Code};

use super::tree::{Tree, ensure};
use crate::volume::Who;

type Outcome = Result<(), Code>;

impl Tree {
    /// Whether `inode` is reached from `top` downwards.
    fn contains(&self, top: u64, inode: u64) -> bool {
        top == inode || self.nodes[&top].names.values().any(|child| self.contains(*child, inode))
    }

    pub(super) fn rename(&mut self, who: &Who, op: &pb::RenameOp) -> Outcome {
        ensure(self.node(op.parent)?.is_dir(), Code::NotDirectory)?;
        ensure(self.node(op.new_parent)?.is_dir(), Code::NotDirectory)?;
        ensure(!(op.no_replace && op.exchange), Code::InvalidArgument)?;
        let source = self.child(who, op.parent, &op.name)?;
        let target = self.child(who, op.new_parent, &op.new_name)?;
        let source = source.ok_or(Code::NotFound)?;
        ensure(self.nodes[&op.new_parent].nlink > 0, Code::NotFound)?;
        ensure(!op.no_replace || target.is_none(), Code::Exists)?;
        ensure(!op.exchange || target.is_some(), Code::NotFound)?;
        let moves = op.parent != op.new_parent;
        ensure(!moves || !self.contains(source, op.new_parent), Code::InvalidArgument)?;
        if let Some(target) = target {
            let code = if op.exchange { Code::InvalidArgument } else { Code::NotEmpty };
            ensure(!moves || !self.contains(target, op.parent), code)?;
            if target == source {
                return Ok(());
            }
        }
        self.may_remove(who, op.parent, source)?;
        match target {
            Some(target) => self.may_remove(who, op.new_parent, target)?,
            None => self.may_add(who, op.new_parent)?,
        }
        if let (Some(target), false) = (target, op.exchange) {
            self.may_replace(target, self.nodes[&source].is_dir())?;
        }
        let exchanged = target.filter(|_| op.exchange);
        for moved in [Some(source), exchanged].into_iter().flatten() {
            if moves && self.nodes[&moved].is_dir() {
                self.nodes[&moved].may(who, 2)?;
            }
        }
        if let (Some(target), false) = (target, op.exchange) {
            ensure(self.nodes[&target].names.is_empty(), Code::NotEmpty)?;
        }
        self.take(op.parent, &op.name);
        if let Some(target) = target {
            self.take(op.new_parent, &op.new_name);
            if !op.exchange {
                self.lose_name(who, target, op.new_parent, &op.new_name);
            }
        }
        self.arrive(source, op.new_parent, moves)?;
        self.put(op.new_parent, &op.new_name, source);
        if let Some(target) = exchanged {
            self.arrive(target, op.parent, moves)?;
            self.put(op.parent, &op.name, target);
        }
        Ok(())
    }
}
