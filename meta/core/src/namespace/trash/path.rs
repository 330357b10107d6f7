//! Which path something had. Folders do not know their names: those of removed ones are in the trash, those of
//! others are looked for in the folder above.

use std::collections::BTreeMap;

use bytes::Bytes;
use ff2_proto::{ROOT_INODE, Status, pb};

use super::{decode, find, keys};
use crate::{
    kv::KvRead,
    namespace::{inode, keys::Tag, limits},
};

/// What is shown of a folder whose name is not found.
const UNKNOWN: &[u8] = b"?";

/// Paths of folders that were asked for.
#[derive(Debug, Default)]
pub(super) struct Paths {
    known: BTreeMap<u64, Bytes>,
}

impl Paths {
    /// The path of a name in a folder, which begins with a slash.
    pub(super) fn of(
        &mut self,
        kv: &dyn KvRead,
        folder: u64,
        name: &[u8],
    ) -> Result<Bytes, Status> {
        Ok(Bytes::from([&self.folder(kv, folder)?, b"/".as_slice(), name].concat()))
    }

    /// Of the root: nothing.
    fn folder(&mut self, kv: &dyn KvRead, folder: u64) -> Result<Bytes, Status> {
        let mut way: Vec<(u64, Bytes)> = Vec::new();
        let mut at = folder;
        let mut path = loop {
            if at == ROOT_INODE.0 {
                break Vec::new();
            }
            if let Some(known) = self.known.get(&at) {
                break known.to_vec();
            }
            let Some((name, above)) = place(kv, at)?.filter(|_| way.len() < limits::PATH_DEPTH)
            else {
                break [b"/", UNKNOWN].concat();
            };
            way.push((at, name));
            at = above;
        };
        for (folder, name) in way.into_iter().rev() {
            path.push(b'/');
            path.extend_from_slice(&name);
            self.known.insert(folder, Bytes::copy_from_slice(&path));
        }
        Ok(Bytes::from(path))
    }
}

/// The name of a folder, and the folder above; `None`: it is gone for good.
fn place(kv: &dyn KvRead, folder: u64) -> Result<Option<(Bytes, u64)>, Status> {
    let Some(inode) = inode::find(kv, folder)? else { return Ok(None) };
    if let Some(record) = find(kv, inode.trash)? {
        return Ok(Some((record.name, record.parent)));
    }
    if inode.attr.nlink == 0 {
        return Ok(None);
    }
    let names = keys::all(kv, &keys::one(Tag::Dentry, inode.parent)).take(limits::NAMES_LOOKED_AT);
    for (key, value) in names {
        let entry: pb::DentryRecord = decode(&value)?;
        if entry.inode == folder
            && let Some((_, name)) = keys::split(&key)
        {
            return Ok(Some((Bytes::copy_from_slice(name), inode.parent)));
        }
    }
    Ok(Some((Bytes::from_static(UNKNOWN), inode.parent)))
}
