//! Questions that are answered from what is known here, and what is learnt from answers.

use std::sync::Arc;

use ff2_client_core::{Name, foresee};
use ff2_proto::{
    InodeId,
    limits::NAME_BYTES_MAX,
    pb::{self, FileKind, ns_request::Op},
};

use super::State;
use crate::client::Shared;

impl Shared {
    /// The answer to a question, if nobody else can have changed it.
    pub(crate) fn known(&self, cred: &pb::Credentials, op: &Op) -> Option<pb::NsReply> {
        if !self.options.behind || !self.has_callbacks() {
            return None;
        }
        let state = self.journal.state.lock();
        match op {
            Op::GetAttr(op) => {
                let attr = self.current(&state, InodeId(op.inode))?;
                let callbacks = vec![callback(&attr)];
                Some(pb::NsReply { attr: Some(attr), callbacks, ..Default::default() })
            }
            Op::Lookup(op) if op.absent_is_answer => {
                let parent = self.current(&state, InodeId(op.parent))?;
                if !foresee::may_search(cred, &parent) || op.name.len() > NAME_BYTES_MAX {
                    return None;
                }
                let attr = match state.folders.name(InodeId(op.parent), &op.name)? {
                    Name::Absent => None,
                    Name::Is { inode, .. } => Some(self.current(&state, inode)?),
                };
                let callbacks = attr.iter().chain([&parent]).map(callback).collect();
                let parent_attr = Some(parent);
                Some(pb::NsReply { attr, parent_attr, callbacks, ..Default::default() })
            }
            _ => None,
        }
    }

    /// Attributes that are those of the namespace, or will be.
    fn current(&self, state: &State, inode: InodeId) -> Option<pb::Attr> {
        let attr = match state.pending.get(&inode) {
            Some(pending) => pending.attr?,
            None => match state.folders.attr(inode) {
                Some(attr) => *attr,
                None => self.inodes.get(inode)?.attr().0,
            },
        };
        self.coherence.is_current(inode, attr.version).then_some(attr)
    }

    /// Takes in an answer whose callbacks count.
    pub(crate) fn learn(self: &Arc<Self>, op: &Op, reply: &pb::NsReply) {
        if !self.options.behind || reply.callbacks.is_empty() {
            return;
        }
        let is_held =
            |attr: &&pb::Attr| reply.callbacks.iter().any(|callback| callback.inode == attr.inode);
        let attr = reply.attr.as_ref().filter(is_held);
        let parent = reply.parent_attr.as_ref().filter(is_held);
        let mut state = self.journal.state.lock();
        match (op, parent) {
            (Op::Lookup(op), Some(parent)) => {
                state.folders.learn(parent);
                let is = reply.attr.as_ref().map_or(Name::Absent, name_of);
                state.folders.learn_name(InodeId(op.parent), parent.version, &op.name, is);
            }
            (Op::Create(pb::CreateOp { name, .. }), Some(parent))
            | (Op::MakeNode(pb::MakeNodeOp { name, .. }), Some(parent)) => {
                let is = reply.attr.as_ref().filter(|_| reply.created).map(name_of);
                let names: Vec<(&[u8], Name)> = is.map(|is| (&name[..], is)).into_iter().collect();
                state.folders.changed(parent, &names);
            }
            (Op::Unlink(op), Some(parent)) => {
                state.folders.changed(parent, &[(&op.name, Name::Absent)]);
            }
            (_, Some(parent)) => state.folders.learn(parent),
            (_, None) => {}
        }
        match (op, attr) {
            (Op::MakeNode(_), Some(attr)) if attr.kind() == FileKind::Directory => {
                state.folders.made(attr);
            }
            (Op::SetAttr(_), Some(attr)) => state.folders.changed(attr, &[]),
            (_, Some(attr)) => state.folders.learn(attr),
            (_, None) => {}
        }
        let entries = reply.entries.iter().filter_map(|entry| entry.attr.as_ref());
        entries.filter(is_held).for_each(|attr| state.folders.learn(attr));
        let is_alone = reply.callbacks.iter().any(|callback| callback.sole);
        if is_alone && state.numbers.session != self.session.id() {
            self.want_numbers(&mut state);
        }
    }
}

fn callback(attr: &pb::Attr) -> pb::Callback {
    pb::Callback { inode: attr.inode, version: attr.version, sole: false }
}

fn name_of(attr: &pb::Attr) -> Name {
    Name::Is { inode: InodeId(attr.inode), kind: attr.kind() }
}
