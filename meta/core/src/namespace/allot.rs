//! Inode numbers that a session was allotted: it can name what it makes before the namespace hears of it.
//!
//! A number is good for one inode, for ever: so the numbers of an allotment are used in their order, and
//! those that were skipped are lost. What a session did not use goes with it.

use ff2_proto::{Status, pb, status::Code};

use super::{limits, number, tx::Tx};

pub(super) fn allot(tx: &mut Tx<'_>, op: &pb::AllotInodesOp) -> Result<pb::NsReply, Status> {
    if op.count == 0 || op.count > limits::ALLOTMENT_MAX {
        let why = format!("from 1 to {} inode numbers are allotted", limits::ALLOTMENT_MAX);
        return Err(Status::new(Code::InvalidArgument, why));
    }
    let (next, end) = (tx.volume.next_inode, tx.volume.next_inode + u64::from(op.count));
    tx.volume.next_inode = end;
    let mut usage = tx.session_use(tx.session)?.unwrap_or_default();
    usage.allotments.push(pb::Allotment { next, end });
    if usage.allotments.len() > limits::ALLOTMENTS_MAX {
        usage.allotments.remove(0);
    }
    tx.put_session_use(tx.session, &usage);
    let inodes = (next..end).filter_map(|count| number::number_of(tx.volume.number_key, count));
    Ok(pb::NsReply { inodes: inodes.collect(), ..Default::default() })
}

/// The number of a new inode: the one that its maker chose among those allotted to it, or (0) the
/// volume's next.
pub(super) fn number(tx: &mut Tx<'_>, chosen: u64) -> Result<u64, Status> {
    if chosen == 0 {
        return Ok(number::next(tx));
    }
    let count = number::count_of(tx.volume.number_key, chosen);
    let mut usage = tx.session_use(tx.session)?.unwrap_or_default();
    let holds = |allotment: &&mut pb::Allotment| (allotment.next..allotment.end).contains(&count);
    let is_number = number::number_of(tx.volume.number_key, count) == Some(chosen);
    let Some(allotment) = usage.allotments.iter_mut().find(holds).filter(|_| is_number) else {
        let why = format!("inode number {chosen} is not this session's to give");
        return Err(Status::new(Code::InvalidArgument, why));
    };
    allotment.next = count + 1;
    usage.allotments.retain(|allotment| allotment.next < allotment.end);
    tx.put_session_use(tx.session, &usage);
    Ok(chosen)
}
