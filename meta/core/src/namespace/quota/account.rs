//! Counting, and refusing what is too much.

use ff2_proto::{Status, pb, status::Code};

use super::{Inode, Key, Tx, chain, find, limits, put};
use crate::kv::KvRead;

/// What is counted of one inode, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::namespace) struct Amount {
    pub(in crate::namespace) inodes: u64,
    pub(in crate::namespace) bytes: u64,
}

impl Amount {
    pub(in crate::namespace) fn of(inode: &Inode) -> Self {
        Self { inodes: 1, bytes: if inode.is_regular() { inode.attr.size } else { 0 } }
    }

    pub(super) fn of_record(record: &pb::QuotaRecord) -> Self {
        Self { inodes: record.inodes, bytes: record.bytes }
    }
}

/// An orphan that is still written can still grow.
pub(in crate::namespace) fn is_counted(inode: &Inode) -> bool {
    inode.attr.nlink > 0 || inode.writers > 0
}

/// Whether a new inode, of no bytes yet, may be made.
pub(in crate::namespace) fn check_new(tx: &Tx<'_>, inode: &Inode) -> Result<(), Status> {
    check(tx, &counting(tx, inode)?, Amount { inodes: 1, bytes: 0 })
}

/// Whether a file may become longer by so many bytes.
pub(in crate::namespace) fn check_growth(
    tx: &Tx<'_>,
    inode: &Inode,
    bytes: u64,
) -> Result<(), Status> {
    check(tx, &counting(tx, inode)?, Amount { inodes: 0, bytes })
}

/// Counts an inode.
pub(in crate::namespace) fn add(tx: &mut Tx<'_>, inode: &Inode) -> Result<(), Status> {
    let records = counting(tx, inode)?;
    change(tx, records, Amount::default(), Amount::of(inode));
    Ok(())
}

/// Counts it no more.
pub(in crate::namespace) fn remove(tx: &mut Tx<'_>, inode: &Inode) -> Result<(), Status> {
    let records = counting(tx, inode)?;
    change(tx, records, Amount::of(inode), Amount::default());
    Ok(())
}

/// A regular file gets another length. It still has the old one.
pub(in crate::namespace) fn resized(
    tx: &mut Tx<'_>,
    inode: &Inode,
    size: u64,
) -> Result<(), Status> {
    if !is_counted(inode) {
        return Ok(());
    }
    let records = counting(tx, inode)?;
    change(tx, records, Amount::of(inode), Amount { inodes: 1, bytes: size });
    Ok(())
}

/// An orphan that nobody wrote is about to be written. The root that counted it may be gone. The caller
/// stores it.
pub(in crate::namespace) fn written_again(
    tx: &mut Tx<'_>,
    inode: &mut Inode,
) -> Result<(), Status> {
    if inode.attr.quota != 0 && find(&tx.kv, Key::Folder(inode.attr.quota))?.is_none() {
        inode.attr.quota = 0;
    }
    add(tx, inode)
}

/// An inode is given to somebody else, who must have room for it. It still has the old owners.
pub(in crate::namespace) fn change_owner(
    tx: &mut Tx<'_>,
    inode: &Inode,
    uid: u32,
    gid: u32,
) -> Result<(), Status> {
    if !is_counted(inode) {
        return Ok(());
    }
    for (before, after) in Key::owners(inode).into_iter().zip([Key::User(uid), Key::Group(gid)]) {
        if before == after {
            continue;
        }
        let taken = owner_record(tx, before, inode)?;
        let given = owner_record(tx, after, inode)?;
        check(tx, &given, Amount::of(inode))?;
        change(tx, taken, Amount::of(inode), Amount::default());
        change(tx, given, Amount::default(), Amount::of(inode));
    }
    Ok(())
}

pub(super) type Records = Vec<(Key, pb::QuotaRecord)>;

/// All records in which an inode counts. Where there is no quota this asks for nothing.
pub(super) fn counting(tx: &Tx<'_>, inode: &Inode) -> Result<Records, Status> {
    let mut records = folder_records(&tx.kv, inode.attr.quota)?;
    for owner in Key::owners(inode) {
        records.extend(owner_record(tx, owner, inode)?);
    }
    Ok(records)
}

pub(super) fn folder_records(kv: &dyn KvRead, root: u64) -> Result<Records, Status> {
    let chain = chain(kv, root)?;
    Ok(chain.into_iter().map(|(root, record)| (Key::Folder(root), record)).collect())
}

/// Of an owner, if the count has come to this inode.
fn owner_record(tx: &Tx<'_>, owner: Key, inode: &Inode) -> Result<Records, Status> {
    if tx.volume.owner_quotas == 0 {
        return Ok(Records::new());
    }
    let record = find(&tx.kv, owner)?.filter(|record| inode.id() <= record.counted_to);
    Ok(record.map(|record| (owner, record)).into_iter().collect())
}

/// Whether all of these have room for more.
pub(super) fn check(tx: &Tx<'_>, records: &Records, more: Amount) -> Result<(), Status> {
    // What a client's programs were told of already is taken in, as far as that can come of itself.
    let (inodes_over, bytes_over) = match tx.foreseen {
        true => (limits::QUOTA_FORESEEN_INODES, limits::QUOTA_FORESEEN_BYTES),
        false => (0, 0),
    };
    for (key, record) in records {
        let is_over = |max: Option<u64>, used: u64, more: u64, over: u64| {
            let max = max.map(|max| max.saturating_add(over));
            more > 0 && max.is_some_and(|max| used.checked_add(more).is_none_or(|sum| sum > max))
        };
        if is_over(record.inodes_max, record.inodes, more.inodes, inodes_over) {
            let max = record.inodes_max.unwrap_or_default();
            return Err(refused(*key, format!("{} of {max} inodes are used", record.inodes)));
        }
        if is_over(record.bytes_max, record.bytes, more.bytes, bytes_over) {
            let max = record.bytes_max.unwrap_or_default();
            return Err(refused(*key, format!("{} of {max} bytes are used", record.bytes)));
        }
    }
    Ok(())
}

fn refused(key: Key, why: String) -> Status {
    let whose = match key {
        Key::Folder(root) => format!("folder {root}"),
        Key::User(uid) => format!("user {uid}"),
        Key::Group(gid) => format!("group {gid}"),
    };
    Status::new(Code::QuotaExceeded, format!("the quota of {whose}: {why}"))
}

/// Takes `less` from these and adds `more`. Sparse files can promise more than 2^64 bytes together: sums are
/// modulo that.
pub(super) fn change(tx: &mut Tx<'_>, records: Records, less: Amount, more: Amount) {
    for (key, mut record) in records {
        assert!(record.inodes + more.inodes >= less.inodes, "a quota counts its inodes");
        record.inodes = record.inodes + more.inodes - less.inodes;
        record.bytes = record.bytes.wrapping_add(more.bytes).wrapping_sub(less.bytes);
        put(tx, key, &record);
    }
}
