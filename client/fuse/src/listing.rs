//! Directory listings, written into the kernel's buffer.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, time::Duration};

use ff2_client::{Result, pb};
use fuser::{Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use crate::{
    attr::{file_attr, file_type},
    ops::directory,
    requests::{Place, Work, shortest},
};

/// Fills a reply with names until it is full or the directory ends.
pub(crate) async fn list(
    work: &Work,
    inode: INodeNo,
    handle: u64,
    offset: u64,
    reply: &mut ReplyDirectory,
) -> Result<()> {
    let directory = directory::directory(&work.at, handle)?;
    let dots = [(directory::DOT, "."), (directory::DOT_DOT, "..")];
    for (place, name) in dots.into_iter().filter(|(place, _)| *place > offset) {
        if reply.add(work.at.for_kernel(inode.0), place, fuser::FileType::Directory, name) {
            return Ok(());
        }
    }
    let mut offset = offset.max(directory::DOT_DOT);
    loop {
        let mut page = directory::page(work, &directory, offset, false).await?;
        while let Some(entry) = page.entries.front() {
            let Some(attr) = &entry.attr else {
                directory::take(&mut page);
                continue;
            };
            offset = directory::offset_of(entry.cookie);
            let name = OsStr::from_bytes(&entry.name);
            if reply.add(INodeNo(attr.inode), offset, file_type(attr.kind()), name) {
                return Ok(());
            }
            directory::take(&mut page);
        }
        if page.end {
            return Ok(());
        }
    }
}

/// As [`list`], with attributes. The kernel takes a reference to each entry but the dots when it has the
/// reply.
pub(crate) async fn list_plus(
    work: &Work,
    inode: INodeNo,
    handle: u64,
    offset: u64,
    reply: &mut ReplyDirectoryPlus,
) -> Result<()> {
    let directory = directory::directory(&work.at, handle)?;
    let dots = [(directory::DOT, "."), (directory::DOT_DOT, "..")];
    // The kernel takes no attributes from the dots.
    let dot =
        pb::Attr { inode: inode.0, kind: pb::FileKind::Directory.into(), ..pb::Attr::default() };
    for (place, name) in dots.into_iter().filter(|(place, _)| *place > offset) {
        if reply.add(inode, place, name, &Duration::ZERO, &file_attr(&dot), Generation(0)) {
            return Ok(());
        }
    }
    let mut offset = offset.max(directory::DOT_DOT);
    loop {
        let mut page = directory::page(work, &directory, offset, true).await?;
        while let Some(entry) = page.entries.front() {
            let Some(attr) = &entry.attr else {
                directory::take(&mut page);
                continue;
            };
            offset = directory::offset_of(entry.cookie);
            let name = OsStr::from_bytes(&entry.name);
            let (ino, generation) = (INodeNo(attr.inode), Generation(attr.generation));
            let place = Place { parent: inode.0, name: entry.name.to_vec() };
            // What the answer that it came with may be trusted for: it may have lain here for a while.
            let (told, ttls) = work.at.entry(&page.trust, &place, attr);
            if reply.add(ino, offset, name, &shortest(ttls), &told, generation) {
                work.at.known.forget(attr.inode, 1);
                return Ok(());
            }
            directory::take(&mut page);
        }
        if page.end {
            return Ok(());
        }
    }
}
