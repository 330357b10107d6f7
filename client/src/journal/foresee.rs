//! Whether a change is foreseen, and its answer.

use std::sync::Arc;

use bytes::Bytes;
use ff2_client_core::{
    Name, foresee,
    rooms::{Need, Place, Verdict},
};
use ff2_proto::{
    Code, InodeId, is_unlisted, limits as wire,
    pb::{self, FileKind, ns_request::Op},
};

use super::{Entry, Pending, State};
use crate::{client::Shared, inodes::now_ns, limits};

/// What is known of a change before it is made.
#[derive(Debug)]
pub(crate) enum Foresight {
    /// The namespace will answer this in this session, and was not asked yet.
    Answer(Box<pb::NsReply>, u64),
    /// It will be known in a moment.
    Soon,
    No,
}

/// A change on its way into the journal.
struct Foreseen {
    op: Op,
    reply: pb::NsReply,
    made: Option<InodeId>,
    concerns: Vec<(InodeId, Option<pb::Attr>)>,
    takes: (Place, Need),
}

/// What there is under such a name is not known from listings.
fn names_unlisted(op: &Op) -> bool {
    let (parent, name) = match op {
        Op::Create(op) => (op.parent, &op.name),
        Op::MakeNode(op) => (op.parent, &op.name),
        Op::Unlink(op) => (op.parent, &op.name),
        _ => return false,
    };
    is_unlisted(InodeId(parent), name)
}

impl Shared {
    pub(crate) fn foresee(self: &Arc<Self>, cred: &pb::Credentials, op: &Op) -> Foresight {
        if !self.options.behind || !self.has_callbacks() || names_unlisted(op) {
            return Foresight::No;
        }
        let mut state = self.journal.state.lock();
        let makes = matches!(op, Op::Create(_) | Op::MakeNode(_));
        if makes && self.may_foresee(&state) && state.numbers.free.is_empty() {
            // To ask the namespace for the change itself would wait for all that is in the journal.
            self.want_numbers(&mut state);
            return Foresight::Soon;
        }
        let at_ns = now_ns();
        let foreseen = match op {
            Op::Create(op) => self.foresee_create(&mut state, cred, op, at_ns),
            Op::MakeNode(op) => self.foresee_node(&mut state, cred, op, at_ns),
            Op::Unlink(op) => self.foresee_unlink(&state, cred, op, at_ns),
            Op::SetAttr(asked) => self.foresee_inode(&state, asked.inode, op, |attr| {
                foresee::set(cred, attr, asked, at_ns)
            }),
            Op::Close(close) if close.attempted_end == 0 => {
                self.foresee_inode(&state, close.inode, op, |attr| {
                    if !close.wrote && close.inline_writes.is_empty() {
                        return (close.length_at_least <= attr.size).then_some(*attr);
                    }
                    foresee::written(cred, attr, end(&close.inline_writes), close.mtime_ns, at_ns)
                })
            }
            Op::ReportLength(report) if report.attempted_end == 0 => {
                self.foresee_inode(&state, report.inode, op, |attr| {
                    let end = end(&report.inline_writes);
                    foresee::written(cred, attr, end, report.mtime_ns, at_ns)
                })
            }
            _ => None,
        };
        let Some(foreseen) = foreseen else { return Foresight::No };
        let is_moving = |(inode, _): &(InodeId, _)| state.unforeseen.contains_key(inode);
        let is_busy =
            foreseen.concerns.iter().any(is_moving) || state.queue.len() >= limits::JOURNAL_MAX;
        let (place, need) = foreseen.takes;
        let verdict = state.rooms.verdict(place, need);
        if is_busy || verdict != Verdict::Yes {
            if let Some(number) = foreseen.made {
                state.numbers.free.push_front(number.0);
            }
            let is_for_nobody = verdict == Verdict::No;
            return if is_for_nobody { Foresight::No } else { Foresight::Soon };
        }
        self.push(&mut state, cred, foreseen, at_ns)
    }

    fn push(
        self: &Arc<Self>,
        state: &mut State,
        cred: &pb::Credentials,
        foreseen: Foreseen,
        at_ns: i64,
    ) -> Foresight {
        let Foreseen { op, mut reply, made, concerns, takes } = foreseen;
        state.rooms.foreseen(takes.0, takes.1);
        state.pushed += 1;
        let last = state.pushed;
        for (inode, attr) in &concerns {
            if let Some(attr) = attr {
                self.coherence.foresee(*inode, attr.version);
                let version = attr.version;
                reply.callbacks.push(pb::Callback { inode: inode.0, version, sole: true });
            }
            state.pending.insert(*inode, Pending { last, attr: *attr });
        }
        let parent = reply.parent_attr;
        let child = reply.attr.map(|attr| (InodeId(attr.inode), attr.kind()));
        match (&op, parent, child) {
            (Op::Create(pb::CreateOp { name, .. }), Some(parent), Some((inode, kind)))
            | (Op::MakeNode(pb::MakeNodeOp { name, .. }), Some(parent), Some((inode, kind))) => {
                state.folders.changed(&parent, &[(name, Name::Is { inode, kind })]);
            }
            (Op::Unlink(op), Some(parent), _) => {
                state.folders.changed(&parent, &[(&op.name, Name::Absent)]);
                concerns.iter().for_each(|(inode, attr)| {
                    if attr.is_none() {
                        state.folders.forget(*inode);
                    }
                });
            }
            (Op::SetAttr(_), ..) => {
                reply.attr.iter().for_each(|attr| state.folders.changed(attr, &[]));
            }
            _ => {}
        }
        match &reply.attr {
            Some(attr) if attr.kind() != FileKind::Directory => state.folders.learn(attr),
            Some(attr) if made.is_some() => state.folders.made(attr),
            Some(_) | None => {}
        }
        let concerns = concerns.into_iter().map(|(inode, _)| inode).collect();
        let (session, cred) = (state.numbers.session, cred.clone());
        let foreseen = reply.clone();
        let entry =
            Entry { number: last, session, cred, op, at_ns, foreseen, made, concerns, takes };
        state.queue.push_back(entry);
        self.journal.wake.notify_one();
        Foresight::Answer(Box::new(reply), session)
    }

    fn foresee_create(
        self: &Arc<Self>,
        state: &mut State,
        cred: &pb::Credentials,
        op: &pb::CreateOp,
        at_ns: i64,
    ) -> Option<Foreseen> {
        if op.unnamed || !op.inline || op.layout.is_some() {
            return None;
        }
        let parent = self.free_name(state, op.parent, &op.name)?;
        let layout = self.layout_of_new(&parent)?;
        let inode = self.new_number(state)?;
        let new = foresee::New {
            inode: inode.0,
            kind: FileKind::Regular,
            mode: op.mode,
            umask: op.umask,
            rdev: 0,
            size: 0,
            layout: Some(layout),
            inline: true,
        };
        let op = pb::CreateOp { inode: inode.0, layout: Some(layout), ..op.clone() };
        self.foresee_new(state, cred, &parent, &new, Op::Create(op), at_ns)
    }

    fn foresee_node(
        self: &Arc<Self>,
        state: &mut State,
        cred: &pb::Credentials,
        op: &pb::MakeNodeOp,
        at_ns: i64,
    ) -> Option<Foreseen> {
        let is_symlink = op.kind() == FileKind::Symlink;
        let target = &op.symlink_target;
        let is_fine = match op.kind() {
            FileKind::Directory | FileKind::Fifo | FileKind::Socket => true,
            FileKind::Symlink => {
                !target.is_empty() && target.len() <= wire::PATH_BYTES_MAX && !target.contains(&0)
            }
            _ => false,
        };
        if !is_fine {
            return None;
        }
        let parent = self.free_name(state, op.parent, &op.name)?;
        let inode = self.new_number(state)?;
        let new = foresee::New {
            inode: inode.0,
            kind: op.kind(),
            mode: op.mode,
            umask: op.umask,
            rdev: 0,
            size: if is_symlink { target.len() as u64 } else { 0 },
            layout: None,
            inline: false,
        };
        let op = Op::MakeNode(pb::MakeNodeOp { inode: inode.0, ..op.clone() });
        self.foresee_new(state, cred, &parent, &new, op, at_ns)
    }

    fn foresee_new(
        &self,
        state: &mut State,
        cred: &pb::Credentials,
        parent: &pb::Attr,
        new: &foresee::New,
        op: Op,
        at_ns: i64,
    ) -> Option<Foreseen> {
        let Some((child, parent)) = foresee::made(cred, parent, new, at_ns) else {
            state.numbers.free.push_front(new.inode);
            return None;
        };
        let place = Place::of(&child);
        let reply = pb::NsReply {
            attr: Some(child),
            parent_attr: Some(parent),
            created: true,
            quota_room: state.rooms.of_new(place),
            ..Default::default()
        };
        let inode = InodeId(child.inode);
        let concerns = vec![(inode, Some(child)), (InodeId(parent.inode), Some(parent))];
        let takes = (place, Need { inodes: 1, bytes: 0 });
        Some(Foreseen { op, reply, made: Some(inode), concerns, takes })
    }

    fn foresee_unlink(
        &self,
        state: &State,
        cred: &pb::Credentials,
        op: &pb::UnlinkOp,
        at_ns: i64,
    ) -> Option<Foreseen> {
        let parent = self.sole_folder(state, op.parent)?;
        let name = state.folders.name(InodeId(op.parent), &op.name)?;
        let Name::Is { inode, kind } = name else { return None };
        let may = match kind {
            FileKind::KindUnknown => false,
            FileKind::Directory => {
                op.directory
                    && self.sole_folder(state, inode.0).is_some()
                    && state.folders.is_empty(inode)
            }
            // Else another client may be alone with it, and wait for this one in the same way.
            _ => !op.directory && self.coherence.holds(inode),
        };
        if !may {
            return None;
        }
        let parent = foresee::removed(cred, &parent, op.directory, at_ns)?;
        let reply = pb::NsReply { parent_attr: Some(parent), ..Default::default() };
        let concerns = vec![(InodeId(op.parent), Some(parent)), (inode, None)];
        let takes = (Place::of(&parent), Need::default());
        Some(Foreseen { op: Op::Unlink(op.clone()), reply, made: None, concerns, takes })
    }

    /// A change of an inode alone, of which nobody else knows.
    fn foresee_inode(
        &self,
        state: &State,
        inode: u64,
        op: &Op,
        change: impl FnOnce(&pb::Attr) -> Option<pb::Attr>,
    ) -> Option<Foreseen> {
        let inode = InodeId(inode);
        let before = self.certain(state, inode)?;
        let attr = change(&before)?;
        let quota_room = self.inodes.get(inode).and_then(|open| open.room_at(attr.size));
        let reply = pb::NsReply { attr: Some(attr), quota_room, ..Default::default() };
        let concerns = vec![(inode, Some(attr))];
        let need = match Place::of(&before) == Place::of(&attr) {
            true => Need { inodes: 0, bytes: attr.size.saturating_sub(before.size) },
            false => Need { inodes: 1, bytes: attr.size },
        };
        let takes = (Place::of(&attr), need);
        Some(Foreseen { op: op.clone(), reply, made: None, concerns, takes })
    }

    /// Attributes of an inode that nobody else knows of.
    fn certain(&self, state: &State, inode: InodeId) -> Option<pb::Attr> {
        if !self.may_foresee(state) {
            return None;
        }
        let attr = self.current(state, inode)?;
        self.coherence.is_sole(inode, attr.version).then_some(attr)
    }

    fn sole_folder(&self, state: &State, folder: u64) -> Option<pb::Attr> {
        self.certain(state, InodeId(folder)).filter(|attr| attr.kind() == FileKind::Directory)
    }

    /// The folder, if nobody else knows of it and the name is free.
    fn free_name(&self, state: &State, folder: u64, name: &Bytes) -> Option<pb::Attr> {
        let parent = self.sole_folder(state, folder)?;
        let is_name = !name.is_empty()
            && name.len() <= wire::NAME_BYTES_MAX
            && !name.iter().any(|byte| matches!(byte, b'/' | 0))
            && !matches!(&name[..], b"." | b"..");
        let is_free = state.folders.name(InodeId(folder), name) == Some(Name::Absent);
        (is_name && is_free).then_some(parent)
    }

    /// As the namespace chooses it.
    fn layout_of_new(&self, parent: &pb::Attr) -> Option<pb::Layout> {
        let routing = self.routing.get();
        let (_, newest) = routing.tables.last_key_value()?;
        let base = parent.layout.unwrap_or(pb::Layout {
            table: newest.id,
            table_version: newest.version,
            chunk_size: wire::CHUNK_SIZE_DEFAULT,
            stripe: wire::STRIPE_DEFAULT.min(u32::try_from(newest.chains.len()).ok()?),
            seed: 0,
        });
        let table_version = routing.tables.get(&ff2_proto::TableId(base.table))?.version;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).ok()?;
        Some(pb::Layout { seed: u64::from_le_bytes(seed), table_version, ..base })
    }

    fn new_number(self: &Arc<Self>, state: &mut State) -> Option<InodeId> {
        if state.numbers.free.len() < limits::NUMBERS_LOW {
            self.want_numbers(state);
        }
        state.numbers.free.pop_front().map(InodeId)
    }

    /// Whether this session was allotted numbers under the export rules as they are: a leader gives none to who
    /// acts as somebody else or only reads.
    pub(super) fn may_foresee(&self, state: &State) -> bool {
        let numbers = &state.numbers;
        numbers.session == self.session.id() && numbers.ruled_at == self.ruled_at()
    }

    fn ruled_at(&self) -> u64 {
        let volume = self.routing.get().volumes.get(&self.session.volume()).map(|v| v.ruled_at);
        volume.unwrap_or_default()
    }

    /// Asks for numbers, unless they are on their way.
    pub(super) fn want_numbers(self: &Arc<Self>, state: &mut State) {
        if std::mem::replace(&mut state.numbers.are_coming, true) {
            return;
        }
        let (shared, ruled_at) = (self.clone(), self.ruled_at());
        tokio::spawn(async move {
            let op = Op::AllotInodes(pb::AllotInodesOp { count: limits::NUMBERS });
            let answer = shared.session.mutate_once(&shared.own, op, shared.deadline()).await;
            let mut state = shared.journal.state.lock();
            state.numbers.are_coming = false;
            match answer {
                Ok((reply, session)) => {
                    if state.numbers.session != session {
                        state.numbers.free.clear();
                        state.numbers.session = session;
                    }
                    state.numbers.ruled_at = ruled_at;
                    state.numbers.free.extend(reply.inodes);
                    shared.journal.progress.notify_waiters();
                }
                Err(failure) if failure.code == Code::InvalidArgument => {
                    tracing::info!(%failure, "this namespace allots no numbers: nothing goes behind");
                    // For good: it is an earlier release.
                    state.numbers.are_coming = true;
                }
                Err(failure) => tracing::debug!(%failure, "no numbers for new inodes"),
            }
        });
    }
}

fn end(writes: &[pb::InlineWrite]) -> u64 {
    let end = |write: &pb::InlineWrite| u64::from(write.offset) + write.bytes.len() as u64;
    writes.iter().map(end).max().unwrap_or(0)
}
