//! Mends faults between names and inodes that a look at all keys found (`ff2ctl fsck --repair`).
//!
//! A fault is a defect of ff2, or of what its disks kept: no operation leaves one. Each command mends one, and looks
//! whether it is still there: what can be seen in a few keys is looked at again, and what only a look at all names
//! tells (how many lead to an inode) is believed as long as the inode has the version that it had then, since each
//! change of an inode's names makes another. So a volume may be used meanwhile, and a command that comes twice does
//! nothing the second time.
//!
//! Nothing that somebody could want goes: an inode that lost its names gets one in `/lost+found`, as users of ext4 know
//! it. Names that lead nowhere go, and what is left of an inode that is gone.
//!
//! - `plan`: what could be mended, from what [`super::fsck`] found.
//! - `names`, `inodes`, `lost`, `rest`: how it is done.

mod inodes;
mod lost;
mod names;
mod plan;
mod rest;

use ff2_proto::{
    ROOT_INODE, Status,
    pb::{self, mend_op::What},
    status::Code,
};

use super::{keys, tx::Tx};
use crate::kv::KvRead;

pub use plan::{Mend, plan};

/// The level of a cluster whose programs all know mends.
const LEVEL: u32 = 3;

/// What was done, in words; `None`: there is no such fault (any more).
type Outcome = Result<Option<String>, Status>;

pub(super) fn apply(tx: &mut Tx<'_>, op: &pb::MendOp) -> Result<pb::NsReply, Status> {
    tx.require_level(LEVEL, "to mend the namespace")?;
    let mended = mend(tx, op)?.unwrap_or_default();
    Ok(pb::NsReply { mended, ..Default::default() })
}

fn mend(tx: &mut Tx<'_>, op: &pb::MendOp) -> Outcome {
    match &op.what {
        Some(What::Name(op)) => names::name(tx, op),
        Some(What::Cookie(op)) => names::cookie(tx, op),
        Some(What::Inode(op)) => inodes::counts(tx, op),
        Some(What::Circle(op)) => inodes::circle(tx, op),
        Some(What::Folder(op)) => lost::folder(tx, op),
        Some(What::Remains(op)) => rest::remains(tx, op),
        Some(What::Sums(op)) => rest::sums(tx, op),
        None => Err(Status::new(Code::InvalidArgument, "a mend that names nothing")),
    }
}

/// The inodes that a mend changes.
pub(super) fn touched(kv: &dyn KvRead, op: &pb::MendOp) -> Vec<u64> {
    let place = |place: &Option<pb::Place>| {
        let meant =
            place.iter().filter_map(|place| super::dir::meant(kv, place.parent, &place.name));
        place.iter().map(|place| place.parent).chain(meant).collect::<Vec<_>>()
    };
    let lost_and_found = || [Some(ROOT_INODE.0), lost::meant(kv)].into_iter().flatten();
    match &op.what {
        Some(What::Name(op)) => place(&op.place),
        Some(What::Cookie(op)) => vec![op.parent],
        Some(What::Inode(op)) => lost_and_found().chain([op.inode]).collect(),
        Some(What::Circle(op)) => {
            lost_and_found().chain([op.inode]).chain(place(&op.place)).collect()
        }
        Some(What::Folder(op)) => lost_and_found().chain([op.inode]).collect(),
        Some(What::Remains(_) | What::Sums(_)) | None => Vec::new(),
    }
}

/// Of an operation whose parts were left out.
fn given<T>(part: Option<&T>) -> Result<&T, Status> {
    part.ok_or_else(|| Status::new(Code::InvalidArgument, "a mend without what it is about"))
}

/// As people write it.
fn shown(name: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(name))
}

fn is_listed_orphan(kv: &dyn KvRead, inode: u64) -> bool {
    kv.get(&keys::one(keys::Tag::Orphan, inode)).is_some()
}
