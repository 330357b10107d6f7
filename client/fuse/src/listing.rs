//! Directory listings, written into the kernel's buffer.

use ff2_client::{Result, pb};
use ff2_fuse_kernel::{Entry, Listing};

use crate::{
    attr::{kernel_attr, kind_mode},
    ops::directory,
    requests::{Place, Work},
};

/// Fills a reply with names until it is full or the directory ends.
pub(crate) async fn list(
    work: &Work,
    inode: u64,
    handle: u64,
    offset: u64,
    reply: &mut Listing,
) -> Result<()> {
    let directory = directory::directory(&work.at, handle)?;
    let dots = [(directory::DOT, &b"."[..]), (directory::DOT_DOT, b"..")];
    for (place, name) in dots.into_iter().filter(|(place, _)| *place > offset) {
        if !reply.add(work.at.for_kernel(inode), place, libc::S_IFDIR, name) {
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
            if !reply.add(attr.inode, offset, kind_mode(attr.kind()), &entry.name) {
                return Ok(());
            }
            directory::take(&mut page);
        }
        if page.end {
            return Ok(());
        }
    }
}

/// As [`list`], with attributes. The kernel takes a reference to each entry that is returned here,
/// that is to all but the dots, when it has the reply.
pub(crate) async fn list_plus(
    work: &Work,
    inode: u64,
    handle: u64,
    offset: u64,
    reply: &mut Listing,
) -> Result<()> {
    let directory = directory::directory(&work.at, handle)?;
    let dots = [(directory::DOT, &b"."[..]), (directory::DOT_DOT, b"..")];
    // The kernel takes no attributes from the dots.
    let dot = pb::Attr { inode, kind: pb::FileKind::Directory.into(), ..pb::Attr::default() };
    let dot = Entry { attr: kernel_attr(&dot), ..Entry::default() };
    for (place, name) in dots.into_iter().filter(|(place, _)| *place > offset) {
        if !reply.add_with_attributes(&dot, place, name) {
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
            let place = Place { parent: inode, name: entry.name.to_vec() };
            // What the answer that it came with may be trusted for: it may have lain here for a while.
            let told = work.at.tell_entry(&page.trust, &place, attr);
            if !reply.add_with_attributes(&told, offset, &entry.name) {
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
