//! What it means that an inode comes to another folder.

use ff2_proto::{Status, status::Code};

use super::{
    Inode, Key, Tx,
    account::{Amount, Records, add, change, check, counting, folder_records},
    chain, find, is_counted, is_root, limits, put,
};

/// How an inode comes into a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::namespace) enum Arrival {
    /// It was in this folder before.
    SameFolder,
    OtherFolder,
}

/// An inode gets a name in `folder`: from now on it counts there, if there is room. A folder with something
/// in it does not move across a border of quotas, as all that is in it would have to; one with a quota of
/// its own does. Returns whether a count has not come to it yet, so that it must not get a place
/// that the count has passed. The caller stores it.
pub(in crate::namespace) fn arrive(
    tx: &mut Tx<'_>,
    inode: &mut Inode,
    folder: &Inode,
    arrival: Arrival,
) -> Result<bool, Status> {
    let root = folder.attr.quota;
    if is_root(inode) {
        move_root(tx, inode.id(), root, true)?;
        return Ok(false);
    }
    if inode.attr.quota == root {
        return Ok(false);
    }
    if inode.is_dir() && inode.entries > 0 {
        let is_stranger = arrival == Arrival::OtherFolder;
        let why = "a folder does not move across the border of a quota";
        return if is_stranger { Err(Status::new(Code::CrossVolume, why)) } else { Ok(true) };
    }
    if inode.is_dir() || inode.attr.nlink <= 1 {
        transfer(tx, inode, root, true)?;
    }
    // A file with other names counts where it did.
    Ok(false)
}

/// An inode comes to be counted by another root. The caller stores it.
pub(super) fn transfer(
    tx: &mut Tx<'_>,
    inode: &mut Inode,
    root: u64,
    checked: bool,
) -> Result<(), Status> {
    if is_counted(inode) {
        let (left, entered) = difference(tx, inode.attr.quota, root)?;
        if checked {
            check(tx, &entered, Amount::of(inode))?;
        }
        change(tx, left, Amount::of(inode), Amount::default());
        change(tx, entered, Amount::default(), Amount::of(inode));
    }
    inode.attr.quota = root;
    Ok(())
}

/// A root, with all that it counts, comes to lie under another one.
pub(super) fn move_root(
    tx: &mut Tx<'_>,
    root: u64,
    above: u64,
    checked: bool,
) -> Result<(), Status> {
    let Some(record) = find(&tx.kv, Key::Folder(root))? else {
        return Err(Status::new(Code::Corrupt, "a folder without the quota that it says"));
    };
    if record.above == above {
        return Ok(());
    }
    let amount = Amount::of_record(&record);
    let (left, entered) = difference(tx, record.above, above)?;
    if checked {
        if chain(&tx.kv, above)?.len() + super::set::depth_below(&tx.kv, root)?
            > limits::QUOTA_DEPTH_MAX
        {
            return Err(Status::new(Code::CrossVolume, "quotas would be nested too deep"));
        }
        check(tx, &entered, amount)?;
    }
    change(tx, left, amount, Amount::default());
    change(tx, entered, Amount::default(), amount);
    put(tx, Key::Folder(root), &ff2_proto::pb::QuotaRecord { above, ..record });
    Ok(())
}

/// Records of the chain of `from` alone, and of the chain of `to` alone.
fn difference(tx: &Tx<'_>, from: u64, to: u64) -> Result<(Records, Records), Status> {
    let (mut left, mut entered) = (folder_records(&tx.kv, from)?, folder_records(&tx.kv, to)?);
    // What contains both.
    while let (Some(one), Some(other)) = (left.last(), entered.last())
        && one.0 == other.0
    {
        left.pop();
        entered.pop();
    }
    Ok((left, entered))
}

/// An inode that has no name is about to get one in `folder`: it counts there from then on, if there is room. The
/// caller stores it.
pub(in crate::namespace) fn returns(
    tx: &mut Tx<'_>,
    inode: &mut Inode,
    folder: &Inode,
) -> Result<(), Status> {
    let was_counted = is_counted(inode);
    // The root that it counted in may be gone.
    if inode.attr.quota != 0 && find(&tx.kv, Key::Folder(inode.attr.quota))?.is_none() {
        inode.attr.quota = 0;
    }
    transfer(tx, inode, folder.attr.quota, true)?;
    if !was_counted {
        check(tx, &counting(tx, inode)?, Amount::of(inode))?;
        add(tx, inode)?;
    }
    Ok(())
}

/// A folder lost its name: its quota ends with it. It still counts what has no name and is written.
pub(in crate::namespace) fn folder_removed(tx: &mut Tx<'_>, folder: &Inode) -> Result<(), Status> {
    if is_root(folder)
        && let Some(mut record) = find(&tx.kv, Key::Folder(folder.id()))?
    {
        record.ending = true;
        (record.bytes_max, record.inodes_max) = (None, None);
        put(tx, Key::Folder(folder.id()), &record);
    }
    Ok(())
}
