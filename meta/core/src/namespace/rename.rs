//! rename, with NOREPLACE and EXCHANGE: first decided, then done.

use ff2_proto::{ROOT_INODE, Status, pb, status::Code};

use super::{
    dir,
    inode::{self, Inode},
    limits, orphans, perm,
    quota::{self, Arrival},
    trash::{self, Lost},
    tx::Tx,
    unlink,
};
use crate::kv::KvRead;

/// The two directories; one, if the name stays in its directory.
struct Parents {
    old: Inode,
    new: Option<Inode>,
}

impl Parents {
    fn load(kv: &dyn KvRead, op: &pb::RenameOp) -> Result<Self, Status> {
        let old = inode::load_dir(kv, op.parent)?;
        let new = match op.new_parent {
            same if same == op.parent => None,
            other => Some(inode::load_dir(kv, other)?),
        };
        Ok(Self { old, new })
    }

    fn new_dir(&self) -> &Inode {
        self.new.as_ref().unwrap_or(&self.old)
    }

    fn new_mut(&mut self) -> &mut Inode {
        self.new.as_mut().unwrap_or(&mut self.old)
    }
}

/// One of the two names, and what it names.
struct Named {
    entry: pb::DentryRecord,
    inode: Inode,
}

enum Plan {
    /// Both names are of the same inode: POSIX wants nothing done.
    Nothing {
        source: Named,
    },
    Move {
        source: Named,
        replaced: Option<Named>,
    },
    Exchange {
        source: Named,
        target: Named,
    },
}

pub(super) fn apply(tx: &mut Tx<'_>, op: &pb::RenameOp) -> Result<pb::NsReply, Status> {
    if trash::folder::is_folder(op.parent) {
        return trash::folder::take_back(tx, op);
    }
    let mut parents = Parents::load(&tx.kv, op)?;
    let plan = decide(&tx.kv, &tx.cred, &parents, op)?;
    let mut reply = pb::NsReply::default();
    match plan {
        Plan::Nothing { source } => reply.attr = Some(source.inode.attr),
        Plan::Move { mut source, replaced } => {
            dir::remove(tx, &mut parents.old, &op.name, &source.entry);
            let mut place = None;
            if let Some(mut replaced) = replaced {
                place = Some(replaced.entry.cookie);
                dir::remove(tx, parents.new_mut(), &op.new_name, &replaced.entry);
                let lost = Lost { parent: op.new_parent, name: &op.new_name };
                orphans::lose_name(tx, &mut replaced.inode, lost)?;
                tx.put_inode(&replaced.inode);
                reply.replaced_attr = Some(replaced.inode.attr);
            }
            arrive(tx, &mut parents, At::New(&op.new_name), &mut source.inode, place)?;
            tx.put_inode(&source.inode);
            reply.attr = Some(source.inode.attr);
        }
        Plan::Exchange { mut source, mut target } => {
            dir::remove(tx, &mut parents.old, &op.name, &source.entry);
            dir::remove(tx, parents.new_mut(), &op.new_name, &target.entry);
            let places = [target.entry.cookie, source.entry.cookie].map(Some);
            arrive(tx, &mut parents, At::New(&op.new_name), &mut source.inode, places[0])?;
            arrive(tx, &mut parents, At::Old(&op.name), &mut target.inode, places[1])?;
            tx.put_inode(&source.inode);
            tx.put_inode(&target.inode);
            reply.attr = Some(source.inode.attr);
            reply.replaced_attr = Some(target.inode.attr);
        }
    }
    tx.put_inode(&parents.old);
    if let Some(new) = &parents.new {
        tx.put_inode(new);
    }
    reply.parent_attr = Some(parents.new_dir().attr);
    Ok(reply)
}

/// A name in one of the two directories.
enum At<'a> {
    Old(&'a [u8]),
    New(&'a [u8]),
}

/// `place`: the cookie that this name had, if it was there before.
fn arrive(
    tx: &mut Tx<'_>,
    parents: &mut Parents,
    at: At<'_>,
    inode: &mut Inode,
    place: Option<u64>,
) -> Result<(), Status> {
    let arrival = if parents.new.is_some() { Arrival::OtherFolder } else { Arrival::SameFolder };
    let (dir, name) = match at {
        At::Old(name) => (&mut parents.old, name),
        At::New(name) => (parents.new_mut(), name),
    };
    let is_ahead = quota::arrive(tx, inode, dir, arrival)?;
    let place = place.filter(|_| !is_ahead);
    if inode.is_dir() {
        inode.parent = dir.id();
    }
    inode.changed(tx.now_ns);
    match place {
        Some(cookie) => dir::insert_at(tx, dir, name, inode, cookie),
        None => dir::insert(tx, dir, name, inode),
    }
    Ok(())
}

/// The checks, in the order in which Linux makes them.
fn decide(
    kv: &dyn KvRead,
    cred: &pb::Credentials,
    parents: &Parents,
    op: &pb::RenameOp,
) -> Result<Plan, Status> {
    if op.no_replace && op.exchange {
        return Err(Status::new(Code::InvalidArgument, "NOREPLACE with EXCHANGE"));
    }
    perm::search(cred, &parents.old)?;
    perm::search(cred, parents.new_dir())?;
    dir::check_name(&op.name)?;
    dir::check_name(&op.new_name)?;
    let Some(source) = named(kv, &parents.old, &op.name)? else {
        return Err(Code::NotFound.into());
    };
    if trash::folder::is_folder(source.inode.id()) {
        return Err(Status::new(Code::NotPermitted, "the trash has its place"));
    }
    if parents.new_dir().attr.nlink == 0 {
        // Before any look upwards: what was above a removed directory may be gone, too.
        return Err(Status::new(Code::NotFound, "the directory was removed"));
    }
    let target = named(kv, parents.new_dir(), &op.new_name)?;
    if op.no_replace && target.is_some() {
        return Err(Code::Exists.into());
    }
    if target.as_ref().is_some_and(|target| trash::folder::is_folder(target.inode.id())) {
        return Err(Status::new(Code::NotPermitted, "the trash has its place"));
    }
    if op.exchange && target.is_none() {
        return Err(Code::NotFound.into());
    }
    check_loops(kv, parents, &source, target.as_ref(), op.exchange)?;
    if target.as_ref().is_some_and(|target| target.entry.inode == source.entry.inode) {
        return Ok(Plan::Nothing { source });
    }
    perm::remove_name(cred, &parents.old, &source.inode)?;
    match (target, op.exchange) {
        (None, _) => {
            perm::add_name(cred, parents.new_dir())?;
            check_parent_change(cred, parents, &source.inode)?;
            Ok(Plan::Move { source, replaced: None })
        }
        (Some(target), true) => {
            perm::remove_name(cred, parents.new_dir(), &target.inode)?;
            check_parent_change(cred, parents, &source.inode)?;
            check_parent_change(cred, parents, &target.inode)?;
            Ok(Plan::Exchange { source, target })
        }
        (Some(target), false) => {
            perm::remove_name(cred, parents.new_dir(), &target.inode)?;
            unlink::check_kind(&target.inode, source.inode.is_dir())?;
            check_parent_change(cred, parents, &source.inode)?;
            if target.inode.entries > 0 {
                return Err(Code::NotEmpty.into());
            }
            Ok(Plan::Move { source, replaced: Some(target) })
        }
    }
}

fn named(kv: &dyn KvRead, dir: &Inode, name: &[u8]) -> Result<Option<Named>, Status> {
    let Some(entry) = dir::lookup(kv, dir, name)? else { return Ok(None) };
    let inode = inode::load_named(kv, &entry)?;
    Ok(Some(Named { entry, inode }))
}

/// A directory that gets another parent has its `..` changed: that needs write permission on it.
fn check_parent_change(
    cred: &pb::Credentials,
    parents: &Parents,
    inode: &Inode,
) -> Result<(), Status> {
    if parents.new.is_some() && inode.is_dir() {
        perm::check(cred, inode, perm::WRITE)?;
    }
    Ok(())
}

/// No directory may come to lie in itself.
fn check_loops(
    kv: &dyn KvRead,
    parents: &Parents,
    source: &Named,
    target: Option<&Named>,
    exchange: bool,
) -> Result<(), Status> {
    // Within one directory nothing moves up or down.
    let Some(new) = &parents.new else { return Ok(()) };
    if source.inode.is_dir() && is_above(kv, source.inode.id(), new)? {
        return Err(Status::new(Code::InvalidArgument, "a directory cannot move into itself"));
    }
    if let Some(target) = target
        && target.inode.is_dir()
        && is_above(kv, target.inode.id(), &parents.old)?
    {
        // It contains the source, so it is not empty.
        let code = if exchange { Code::InvalidArgument } else { Code::NotEmpty };
        return Err(code.into());
    }
    Ok(())
}

/// Whether `ancestor` is `dir` or above it.
fn is_above(kv: &dyn KvRead, ancestor: u64, dir: &Inode) -> Result<bool, Status> {
    let mut at = dir.id();
    let mut parent = dir.parent;
    for _ in 0..limits::DEPTH_MAX {
        if at == ancestor {
            return Ok(true);
        }
        if at == ROOT_INODE.0 {
            return Ok(false);
        }
        at = parent;
        parent = inode::load(kv, at)?.parent;
    }
    Err(Status::new(Code::InvalidArgument, "directories are nested too deep"))
}
