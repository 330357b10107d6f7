//! The state of a volume as it comes from a backup, made fit to go on from: pair by pair, since it may be large.
//!
//! The chunks are newer than the backup, so what the backup says of them is taken back: the length of each file that
//! has chunks is asked from its chains (it may have grown since), and an inline file may have chunks by now, of a
//! content that is lost. Sessions are over, as after a long outage. Numbers that may have been given out since are
//! never given again: a new inode must not find the chunks of a lost one.

use bytes::Bytes;
use ff2_proto::{
    Status,
    pb::{self, FileKind},
};
use prost::Message;

use super::{
    inode::decode,
    keys::{self, Tag},
};

/// Numbers begin at the second of the restore, times this: more than a volume gives out in a second.
const NUMBERS_PER_SECOND: u64 = 1 << 24;

/// What is to be stored instead of a pair of the backup. `at_s` is the time of the restore in seconds since 1970.
pub fn restored(key: &Bytes, value: &Bytes, at_s: u64) -> Result<Vec<(Bytes, Bytes)>, Status> {
    let number = at_s * NUMBERS_PER_SECOND;
    let same = || vec![(key.clone(), value.clone())];
    if key[..] == keys::VOLUME {
        let mut volume: pb::VolumeRecord = decode(value)?;
        volume.restored_below = volume.next_inode;
        for next in [&mut volume.next_inode, &mut volume.next_session, &mut volume.next_orphan_seq]
        {
            *next = number.max(*next);
        }
        // Chunks may know of snapshots that are lost: what they kept for those must not look like another's.
        volume.next_snapshot = volume.next_snapshot.max(u32::try_from(at_s).unwrap_or(u32::MAX));
        volume.next_doubt = volume.next_doubt.max(number);
        return Ok(vec![(key.clone(), encoded(&volume))]);
    }
    let Some(tag) = key.first() else { return Ok(same()) };
    if *tag == Tag::Session as u8 {
        let record: pb::SessionRecord = decode(value)?;
        return Ok(vec![(key.clone(), encoded(&pb::SessionRecord { ending: true, ..record }))]);
    }
    if *tag == Tag::Nonce as u8 {
        // As at the end of a session.
        return Ok(Vec::new());
    }
    if *tag == Tag::Doubt as u8 {
        decode::<pb::LengthDoubtRecord>(value)?;
        return Ok(vec![(key.clone(), doubt(number))]);
    }
    if *tag != Tag::Inode as u8 {
        return Ok(same());
    }
    let record: pb::InodeRecord = decode(value)?;
    let attr = record.attr.unwrap_or_default();
    let mut pairs = same();
    if attr.kind() == FileKind::Regular && !attr.inline && attr.layout.is_some() {
        let key = keys::one(Tag::Doubt, attr.inode);
        pairs.push((Bytes::copy_from_slice(&key), doubt(number)));
    }
    Ok(pairs)
}

fn doubt(number: u64) -> Bytes {
    encoded(&pb::LengthDoubtRecord { doubt: number })
}

fn encoded(message: &impl Message) -> Bytes {
    Bytes::from(message.encode_to_vec())
}

#[cfg(test)]
mod tests;
