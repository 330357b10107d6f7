//! Directories: pages of entries by cookie, for readdir and readdirplus.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use ff2_client::{Caller, Code, InodeId, Result, Status, pb};
use tokio::sync::MutexGuard;

use crate::{
    files::{Directory, Page},
    limits,
    mounted::Mounted,
    requests::Work,
};

/// Offsets of "." and "..": they come first.
pub(crate) const DOT: u64 = 1;
pub(crate) const DOT_DOT: u64 = 2;

/// The offset that the kernel names to go on after an entry.
pub(crate) fn offset_of(cookie: u64) -> u64 {
    cookie.saturating_add(DOT_DOT)
}

pub(crate) fn directory(at: &Mounted, handle: u64) -> Result<Arc<Directory>> {
    at.directories
        .get(handle)
        .ok_or_else(|| Status::new(Code::BadHandle, format!("there is no directory {handle}")))
}

/// The entries behind an offset, those left from the last page first. What is not taken stays for
/// the next request; see [`take`].
pub(crate) async fn page<'d>(
    work: &Work,
    directory: &'d Directory,
    offset: u64,
    plus: bool,
) -> Result<MutexGuard<'d, Page>> {
    let after = offset.saturating_sub(DOT_DOT);
    let mut page = directory.page.lock().await;
    let goes_on = page.after == after
        && (page.plus || !plus)
        && page.fetched.elapsed() < limits::DIR_PAGE_AGE;
    // At the start a program wants to see the directory as it is now.
    if goes_on && after > 0 && (!page.entries.is_empty() || page.end) {
        return Ok(page);
    }
    let (inode, caller) = (InodeId(directory.inode), work.caller());
    let fetched = Instant::now();
    let (entries, end) = caller.read_dir_page(inode, after, limits::DIR_PAGE, plus).await?;
    let mut entries = VecDeque::from(entries);
    if plus {
        fill_in(&caller, &mut entries).await;
    }
    *page = Page { after, plus, entries, end, fetched, trust: work.trust.clone() };
    Ok(page)
}

/// The entry was taken by the kernel: the page begins after it.
pub(crate) fn take(page: &mut Page) {
    if let Some(entry) = page.entries.pop_front() {
        page.after = entry.cookie;
    }
}

/// Attributes that the namespace left out; who vanished meanwhile is left out too.
async fn fill_in(caller: &Caller, entries: &mut VecDeque<pb::Entry>) {
    for entry in entries.iter_mut() {
        let bare = entry.attr.as_ref().is_none_or(|attr| attr.version == 0);
        if bare && let Some(inode) = entry.attr.as_ref().map(|attr| attr.inode) {
            entry.attr = caller.get_attr(InodeId(inode)).await.ok();
        }
    }
    entries.retain(|entry| entry.attr.is_some());
}
