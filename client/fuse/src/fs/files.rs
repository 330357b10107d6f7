//! Requests whose replies are more than a success or an entry.

use std::time::Duration;

use ff2_client::InodeId;
use ff2_fuse_kernel::{Errno, Listing, Read, Reply, SetAttr, Write};

use crate::{
    listing::{list, list_plus},
    ops::{data, entry, open, xattr},
    requests::{Place, Work},
};

pub(super) fn lookup(work: Work, name: Vec<u8>) {
    let place = Place { parent: work.inode, name };
    work.spawn(|work| async move {
        let caller = work.caller();
        let found = work.run(caller.find(InodeId(place.parent), &place.name)).await;
        let outcome = found.and_then(|found| match found {
            Some(attr) => {
                let entry = work.at.tell_entry(&work.trust, &place, &attr);
                Ok((Reply::entry(&entry), entry.kept()))
            }
            None => {
                work.at.coherence.told.note(place.parent, &place.name, false);
                let ttl = work.at.entry_ttl(&work.trust, place.parent);
                // The kernel remembers for so long that there is no such name.
                if ttl.is_zero() { Err(Errno::ENOENT) } else { Ok((Reply::no_entry(ttl), ttl)) }
            }
        });
        work.reply_kept(outcome);
    });
}

pub(super) fn get_attr(work: Work) {
    work.spawn(|work| async move {
        let attr = work.run(entry::getattr(&work.at, &work.caller(), work.inode)).await;
        work.reply_attr(attr, Reply::attr);
    });
}

pub(super) fn statx(work: Work) {
    work.spawn(|work| async move {
        let attr = work.run(entry::getattr(&work.at, &work.caller(), work.inode)).await;
        work.reply_attr(attr, Reply::statx);
    });
}

pub(super) fn set_attr(work: Work, asked: SetAttr) {
    let (at, caller, inode) = (work.at.clone(), work.caller(), work.inode);
    work.spawn(|work| async move {
        let change = async move { entry::setattr(&at, &caller, inode, asked).await };
        let attr = work.run_to_the_end(change).await;
        work.reply_attr(attr, Reply::attr);
    });
}

pub(super) fn read_link(work: Work) {
    work.spawn(|work| async move {
        let target = work.run(work.caller().read_link(InodeId(work.inode))).await;
        work.reply(target.map(Reply::bytes));
    });
}

pub(super) fn stat_fs(work: Work) {
    work.spawn(|work| async move {
        let space = work.run(entry::statfs(&work.at, &work.caller(), InodeId(work.inode))).await;
        work.reply(space.map(|space| Reply::space(&space)));
    });
}

pub(super) fn open(work: Work, flags: i32) {
    let (at, caller, inode) = (work.at.clone(), work.caller(), work.inode);
    work.spawn(|work| async move {
        let opening = {
            let at = at.clone();
            async move { open::open(&at, &caller, inode, flags).await }
        };
        match work.run_to_the_end(opening).await {
            Ok(opened) => {
                let handle = at.files.insert(opened.file);
                work.reply(Ok(Reply::opened(handle, opened.flags)));
                at.known.has_pages(inode, opened.pages);
            }
            Err(errno) => work.reply(Err(errno)),
        }
    });
}

pub(super) fn create(work: Work, name: Vec<u8>, flags: i32, (mode, umask): (u32, u32)) {
    let caller = work.caller().umask(umask);
    let place = Place { parent: work.inode, name };
    work.spawn(move |work| async move {
        let at = place.clone();
        let creating = async move { open::create(&caller, &at, mode, flags).await };
        let made = work.run_to_the_end(creating).await;
        let outcome = made.map(|made| {
            let entry = work.at.tell_entry(&work.trust, &place, &made.attr);
            work.at.known.written(made.attr.inode);
            let handle = work.at.files.insert(made.file);
            (Reply::created(&entry, handle, made.flags), entry.kept())
        });
        work.reply_kept(outcome);
    });
}

pub(super) fn create_unnamed(work: Work, flags: i32, (mode, umask): (u32, u32)) {
    let (caller, parent) = (work.caller().umask(umask), work.inode);
    work.spawn(move |work| async move {
        let creating = async move { open::create_unnamed(&caller, parent, mode, flags).await };
        let made = work.run_to_the_end(creating).await;
        let outcome = made.map(|made| {
            let entry = work.at.tell_unnamed(&work.trust, &made.attr);
            work.at.known.written(made.attr.inode);
            let handle = work.at.files.insert(made.file);
            (Reply::created(&entry, handle, made.flags), entry.kept())
        });
        work.reply_kept(outcome);
    });
}

pub(super) fn read(work: Work, asked: Read) {
    work.spawn(move |work| async move {
        let pieces = work.run(data::read(&work.at, asked, work.room())).await;
        work.reply(pieces.map(Reply::data));
    });
}

pub(super) fn write(work: Work, asked: Write) {
    let (at, caller) = (work.at.clone(), work.caller());
    work.spawn(|work| async move {
        let write = async move { data::write(at, &caller, asked).await };
        let count = work.run_to_the_end(write).await;
        work.reply(count.map(Reply::written));
    });
}

pub(super) fn read_dir(work: Work, (handle, offset): (u64, u64), size: u32, with_attributes: bool) {
    work.spawn(move |work| async move {
        let mut listing = Listing::new(size);
        let outcome = if with_attributes {
            work.run(list_plus(&work, work.inode, handle, offset, &mut listing)).await
        } else {
            work.run(list(&work, work.inode, handle, offset, &mut listing)).await
        };
        let kept = if with_attributes { work.at.ttl } else { Duration::ZERO };
        work.reply_kept(outcome.map(|()| (Reply::listing(listing), kept)));
    });
}

pub(super) fn get_xattr(work: Work, name: Vec<u8>, size: u32) {
    work.spawn(move |work| async move {
        let value = work.run(xattr::get(&work.at, &work.caller(), work.inode, &name)).await;
        work.reply(value.map(|value| Reply::xattr(value, size)));
    });
}

pub(super) fn list_xattrs(work: Work, size: u32) {
    work.spawn(move |work| async move {
        let names = work.run(xattr::list(&work.at, &work.caller(), work.inode)).await;
        work.reply(names.map(|names| Reply::xattr(names, size)));
    });
}
