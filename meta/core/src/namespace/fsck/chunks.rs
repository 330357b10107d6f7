//! Where the chunks of a file may lie: for whoever looks at chunks and asks whose they are.

use ff2_proto::{Status, pb};

use crate::{
    kv::KvRead,
    namespace::{inode, length},
};

/// The chunks that the namespace answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunks {
    /// There is no such inode: nobody will ever read or remove them.
    Nobodys,
    /// Those with an index below this; empty ones may lie further, where a cut left them.
    Below(u64),
    /// Any: it is being written or cut.
    Unsettled,
}

/// Which chunks an inode may have.
pub fn chunks_of(kv: &dyn KvRead, id: u64) -> Result<Chunks, Status> {
    let Some(inode) = inode::find(kv, id)? else { return Ok(Chunks::Nobodys) };
    if inode.truncating_to.is_some() || length::uncertain(kv, &inode) {
        return Ok(Chunks::Unsettled);
    }
    let end = |layout: pb::Layout| inode.chunks_end().div_ceil(u64::from(layout.chunk_size.max(1)));
    Ok(Chunks::Below(inode.attr.layout.map_or(0, end)))
}
