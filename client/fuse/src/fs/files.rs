//! Requests whose replies are more than a success or an entry.

use ff2_client::InodeId;
use ff2_fuse_kernel::{Errno, Listing, Read, Reply, SetAttr, Write};

use crate::{
    listing::{list, list_plus},
    ops::{data, entry, open, xattr},
    requests::Work,
};

pub(super) fn lookup(work: Work, name: Vec<u8>) {
    work.spawn(|work| async move {
        let caller = work.caller();
        let found = work.run(entry::lookup(&caller, work.inode, &name)).await;
        let ttl = work.at.ttl;
        let outcome = found.and_then(|found| match found {
            Some(attr) => Ok(Reply::entry(&work.at.tell_entry(&attr))),
            None if ttl.is_zero() => Err(Errno::ENOENT),
            // The kernel remembers for the same time that there is no such name.
            None => Ok(Reply::no_entry(ttl)),
        });
        work.reply(outcome);
    });
}

pub(super) fn get_attr(work: Work) {
    work.spawn(|work| async move {
        let attr = work.run(entry::getattr(&work.at, &work.caller(), work.inode)).await;
        let ttl = work.at.ttl;
        work.reply(attr.map(|attr| Reply::attr(&attr, ttl)));
    });
}

pub(super) fn statx(work: Work) {
    work.spawn(|work| async move {
        let attr = work.run(entry::getattr(&work.at, &work.caller(), work.inode)).await;
        let ttl = work.at.ttl;
        work.reply(attr.map(|attr| Reply::statx(&attr, ttl)));
    });
}

pub(super) fn set_attr(work: Work, asked: SetAttr) {
    let (at, caller, inode) = (work.at.clone(), work.caller(), work.inode);
    work.spawn(|work| async move {
        let change = async move { entry::setattr(&at, &caller, inode, asked).await };
        let attr = work.run_to_the_end(change).await;
        let ttl = work.at.ttl;
        work.reply(attr.map(|attr| Reply::attr(&attr, ttl)));
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
        let space = work.run(entry::statfs(&work.at, &work.caller())).await;
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
    let (caller, inode) = (work.caller().umask(umask), work.inode);
    work.spawn(move |work| async move {
        let creating = async move { open::create(&caller, inode, &name, mode, flags).await };
        let made = work.run_to_the_end(creating).await;
        let outcome = made.map(|made| {
            let entry = work.at.tell_entry(&made.attr);
            work.at.known.written(made.attr.inode);
            Reply::created(&entry, work.at.files.insert(made.file), made.flags)
        });
        work.reply(outcome);
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
            let listed = list_plus(&work, work.inode, handle, offset, &mut listing);
            work.run(listed).await.map(|listed| {
                for attr in listed {
                    work.at.known.looked_up(attr.inode);
                    work.at.known.told(attr.inode, attr.version, attr.extras);
                }
            })
        } else {
            work.run(list(&work, work.inode, handle, offset, &mut listing)).await
        };
        work.reply(outcome.map(|()| Reply::listing(listing)));
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
