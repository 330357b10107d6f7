//! Questions that are answered from what is known here, and what is learnt from answers.

use std::{collections::BTreeSet, sync::Arc};

use ff2_client_core::{Name, Page, foresee};
use ff2_proto::{
    InodeId, is_unlisted,
    limits::{DIR_PAGE_ENTRIES_MAX, NAME_BYTES_MAX},
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
        let mut state = self.journal.state.lock();
        match op {
            Op::GetAttr(op) => {
                let attr = self.current(&state, InodeId(op.inode))?;
                let callbacks = vec![callback(&attr)];
                Some(pb::NsReply { attr: Some(attr), callbacks, ..Default::default() })
            }
            Op::Lookup(op) if is_unlisted(InodeId(op.parent), &op.name) => None,
            Op::Lookup(op) if op.absent_is_answer => {
                let parent = self.current(&state, InodeId(op.parent))?;
                if !foresee::may_search(cred, &parent) || op.name.len() > NAME_BYTES_MAX {
                    return None;
                }
                let attr = match state.folders.name(InodeId(op.parent), &op.name)? {
                    Name::Absent => None,
                    Name::Is { inode, .. } => Some(self.current(&state, inode)?),
                };
                if attr.is_some() {
                    state.folders.used(InodeId(op.parent));
                }
                let callbacks = attr.iter().chain([&parent]).map(callback).collect();
                let parent_attr = Some(parent);
                Some(pb::NsReply { attr, parent_attr, callbacks, ..Default::default() })
            }
            _ => None,
        }
    }

    /// What a name means, if all that is missing for the answer to its lookup, or to foresee its removal, are
    /// the attributes of that.
    pub(crate) fn lacks_only(&self, op: &Op) -> Option<InodeId> {
        let (folder, name) = match op {
            Op::Lookup(op) if op.absent_is_answer => (InodeId(op.parent), &op.name),
            Op::Unlink(op) if !op.directory => (InodeId(op.parent), &op.name),
            _ => return None,
        };
        if is_unlisted(folder, name) || !self.options.behind {
            return None;
        }
        let state = self.journal.state.lock();
        let of = self.current(&state, folder)?;
        let Name::Is { inode, .. } = state.folders.name(folder, name)? else { return None };
        let is_it = match op {
            Op::Unlink(_) => {
                self.coherence.is_sole(folder, of.version) && !self.coherence.holds(inode)
            }
            _ => true,
        };
        (is_it && !state.pending.contains_key(&inode)).then_some(inode)
    }

    /// Attributes that are those of the namespace, or will be.
    pub(super) fn current(&self, state: &State, inode: InodeId) -> Option<pb::Attr> {
        if let Some(pending) = state.pending.get(&inode) {
            return pending.attr.filter(|attr| self.coherence.is_current(inode, attr.version));
        }
        let open = self.inodes.get(inode).map(|open| open.attr().0);
        let known = open.into_iter().chain(state.folders.attr(inode).copied());
        known.into_iter().find(|attr| self.coherence.is_current(inode, attr.version))
    }

    /// Takes in an answer whose callbacks count.
    pub(crate) fn learn(self: &Arc<Self>, cred: &pb::Credentials, op: &Op, reply: &pb::NsReply) {
        if !self.options.behind || reply.callbacks.is_empty() {
            return;
        }
        let held: BTreeSet<u64> = reply.callbacks.iter().map(|callback| callback.inode).collect();
        let is_held = |attr: &&pb::Attr| held.contains(&attr.inode);
        let attr = reply.attr.as_ref().filter(is_held);
        let parent = reply.parent_attr.as_ref().filter(is_held);
        let mut state = self.journal.state.lock();
        match (op, parent) {
            (Op::Lookup(op), Some(parent)) if !is_unlisted(InodeId(op.parent), &op.name) => {
                state.folders.learn(parent);
                let is = reply.attr.as_ref().map_or(Name::Absent, name_of);
                state.folders.learn_name(InodeId(op.parent), parent.version, &op.name, is);
                let ahead = reply.attr.and_then(|_| state.folders.looked_up(InodeId(op.parent)));
                if let Some(after) = ahead {
                    tokio::spawn(look_ahead(self.clone(), cred.clone(), op.parent, after));
                }
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
            (Op::SetAttr(_), Some(attr)) if attr.kind() == FileKind::Directory => {
                state.folders.changed(attr, &[]);
            }
            (_, Some(attr)) => state.folders.learn(attr),
            (_, None) => {}
        }
        for entry in &reply.entries {
            let Some(named) = &entry.attr else { continue };
            if let (Op::ReadDir(_), Some(folder)) = (op, attr) {
                let folder_id = InodeId(folder.inode);
                state.folders.learn_name(folder_id, folder.version, &entry.name, name_of(named));
            }
            if is_held(&named) {
                state.folders.learn(named);
            }
        }
        if let (Op::ReadDir(op), Some(folder)) = (op, attr) {
            let last = reply.entries.last().map_or(op.after_cookie, |entry| entry.cookie);
            let page = Page {
                version: folder.version,
                after: op.after_cookie,
                names: reply.entries.len(),
                last,
                is_end: reply.end,
            };
            state.folders.page(InodeId(folder.inode), page);
        }
        let is_alone = reply.callbacks.iter().any(|callback| callback.sole);
        if is_alone && !self.may_foresee(&state) {
            self.want_numbers(&mut state);
        }
    }
}

/// Asks for a page of a folder whose names are looked up one after the other.
async fn look_ahead(shared: Arc<Shared>, cred: pb::Credentials, inode: u64, after_cookie: u64) {
    let op = pb::ReadDirOp { inode, after_cookie, limit: DIR_PAGE_ENTRIES_MAX, plus: true };
    let failed = shared.read(&cred, Op::ReadDir(op)).await.is_err();
    shared.journal.state.lock().folders.looked_ahead(InodeId(inode), failed);
}

fn callback(attr: &pb::Attr) -> pb::Callback {
    pb::Callback { inode: attr.inode, version: attr.version, sole: false }
}

fn name_of(attr: &pb::Attr) -> Name {
    Name::Is { inode: InodeId(attr.inode), kind: attr.kind() }
}
