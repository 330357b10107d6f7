//! Truncation in two steps, and lengths that only the chains know.

use ff2_proto::{
    limits,
    pb::{self, Code, ns_request::Op},
};

use crate::{
    ops::*,
    volume::{Volume, Who},
};

const ROOT: u64 = 1;

/// A file of `length` written bytes, closed.
fn written(length: u64) -> (Volume, Who, u64) {
    let (mut v, root) = Volume::with_root();
    let file = v.ask(&root, create(ROOT, "f", 0o644)).unwrap().attr.unwrap().inode;
    v.ask(&root, close(file, length)).unwrap();
    (v, root, file)
}

#[test]
fn a_cut_file_waits_until_its_chunks_are_cut() {
    let (mut v, root, file) = written(1_000);
    let reply = v.ask(&root, truncate(file, 400)).unwrap();
    assert_eq!(reply.attr.unwrap().size, 400);
    let cut = reply.truncation.unwrap();
    assert_eq!((cut.inode, cut.size, cut.length_bound, cut.uncertain), (file, 400, 1_000, false));
    assert_eq!(v.truncations(), std::slice::from_ref(&cut));
    for op in [
        lookup(ROOT, "f"),
        Op::GetAttr(pb::GetAttrOp { inode: file }),
        open_read(file),
        open_write(file),
        truncate(file, 0),
        chmod(file, 0o600),
        resolve("f", true),
        touch(ROOT, "f", 0o644),
    ] {
        assert_eq!(v.ask(&root, op.clone()), Err(Code::Busy), "{op:?}");
    }
    let named = v.ask(&root, read_dir(ROOT, 0, 0)).unwrap().entries[0].attr.unwrap();
    assert_eq!((named.inode, named.version), (file, 0));
    v.ask(&root, mv(ROOT, "f", ROOT, "g")).expect("names do not wait");
    v.lead(finish_truncate(file, cut.truncate_version + 1)).unwrap();
    assert_eq!(v.truncations().len(), 1, "of another truncation");
    v.lead(finish_truncate(file, cut.truncate_version)).unwrap();
    assert_eq!(v.ask(&root, lookup(ROOT, "g")).unwrap().attr.unwrap().size, 400);
    assert!(v.truncations().is_empty());
    // Nothing lies above 400 now: growing and cutting back needs no chunk.
    assert!(v.ask(&root, truncate(file, 9_000)).unwrap().truncation.is_none());
    assert!(v.ask(&root, truncate(file, 400)).unwrap().truncation.is_none());
    assert!(v.ask(&root, truncate(file, 399)).unwrap().truncation.is_some());
}

#[test]
fn an_orphan_can_be_collected_while_it_is_cut() {
    let (mut v, root, file) = written(1_000);
    let cut = v.ask(&root, truncate(file, 1)).unwrap().truncation.unwrap();
    v.ask(&root, unlink(ROOT, "f")).unwrap();
    v.lead(collect(&[file])).unwrap();
    assert!(v.truncations().is_empty());
    v.lead(finish_truncate(file, cut.truncate_version)).unwrap();
}

#[test]
fn files_without_data_are_cut_at_once() {
    let (mut v, root) = Volume::with_root();
    let file = v.ask(&root, touch(ROOT, "f", 0o644)).unwrap().attr.unwrap().inode;
    let grown = v.ask(&root, truncate(file, 1 << 40)).unwrap();
    assert_eq!((grown.attr.unwrap().size, grown.truncation), (1 << 40, None));
    assert_eq!(v.ask(&root, truncate(file, 0)).unwrap().truncation, None);
    let huge = truncate(file, limits::FILE_SIZE_MAX + 1);
    assert_eq!(v.ask(&root, huge), Err(Code::FileTooBig));
    assert_eq!(v.ask(&root, truncate(ROOT, 0)), Err(Code::IsDirectory));
}

#[test]
fn creating_and_opening_truncate() {
    let (mut v, root, file) = written(1_000);
    let create = pb::CreateOp { truncate: true, write: true, ..open_or_create(ROOT, "f", 0o644) };
    let cut = v.ask(&root, Op::Create(create)).unwrap().truncation.unwrap();
    assert_eq!(cut.size, 0);
    v.lead(finish_truncate(file, cut.truncate_version)).unwrap();
    v.ask(&root, close(file, 500)).unwrap();
    let open = pb::OpenOp { inode: file, write: true, truncate: true, ..Default::default() };
    let cut = v.ask(&root, Op::Open(open)).unwrap().truncation.unwrap();
    assert_eq!((cut.size, cut.length_bound, cut.truncate_version), (0, 500, 2));
}

#[test]
fn a_handle_truncates_whatever_the_mode() {
    let (mut v, root) = Volume::with_root();
    let user = v.user(7, 7, &[]);
    v.ask(&root, chmod(ROOT, 0o777)).unwrap();
    let file = v.ask(&user, create(ROOT, "f", 0o444)).unwrap().attr.unwrap().inode;
    assert_eq!(v.ask(&user, truncate(file, 10)), Err(Code::AccessDenied));
    v.ask(&user, ftruncate(file, 10)).unwrap();
    assert_eq!(v.ask(&root, ftruncate(file, 20)), Err(Code::BadHandle));
}

#[test]
fn a_writer_under_a_truncation_of_another_session_is_not_believed() {
    let (mut v, root) = Volume::with_root();
    let other = v.user(0, 0, &[]);
    let file = v.ask(&root, create(ROOT, "f", 0o644)).unwrap().attr.unwrap().inode;
    // Written up to 900, not reported. An unwritten-looking file with a writer must be cut.
    let cut = v.ask(&other, truncate(file, 0)).unwrap().truncation.unwrap();
    assert!(cut.uncertain);
    assert_eq!(v.ask(&root, close(file, 900)), Err(Code::Busy));
    v.lead(finish_truncate(file, cut.truncate_version)).unwrap();
    let reply = v.ask(&root, close(file, 900)).unwrap();
    assert_eq!((reply.attr.unwrap().size, reply.length_in_doubt), (0, true));
    let doubt = v.doubts()[0];
    assert_eq!((doubt.inode, doubt.size), (file, 0));
    v.lead(recover(file, doubt.doubt, 30)).unwrap();
    assert_eq!(v.attr(file).size, 30, "what the chains have");
    assert!(v.doubts().is_empty());
}

#[test]
fn lengths_of_lost_writers_are_asked_from_the_chains() {
    let (mut v, root) = Volume::with_root();
    let writer = v.user(0, 0, &[]);
    let file = v.ask(&writer, create(ROOT, "f", 0o644)).unwrap().attr.unwrap().inode;
    v.ask(&writer, report(file, 10)).unwrap();
    v.lead(expire(&[writer.session, 12_345])).unwrap();
    assert_eq!(v.ask(&writer, close(file, 500)), Err(Code::SessionExpired));
    let doubt = v.doubts()[0];
    // A truncation makes answers that are on their way void.
    let cut = v.ask(&root, truncate(file, 0)).unwrap().truncation.unwrap();
    let unfinished = |v: &Volume| ff2_meta_core::namespace::unfinished(&v.kv).unwrap();
    assert_eq!(unfinished(&v).into_iter().collect::<Vec<_>>(), [(file, cut.truncate_version)]);
    assert_eq!(v.lead(recover(file, doubt.doubt, 500)), Err(Code::Busy));
    v.lead(finish_truncate(file, cut.truncate_version)).unwrap();
    assert!(unfinished(&v).is_empty());
    v.lead(recover(file, doubt.doubt, 500)).unwrap();
    assert_eq!(v.attr(file).size, 0, "an answer from before the truncation");
    let renewed = v.doubts()[0];
    assert_ne!(renewed.doubt, doubt.doubt);
    v.lead(recover(file, renewed.doubt, 70)).unwrap();
    assert_eq!(v.attr(file).size, 70);
    assert!(v.doubts().is_empty());
    // The lost writer is over, but a cut leaves empty chunks, of which only the chains know.
    v.ask(&root, unlink(ROOT, "f")).unwrap();
    assert!(v.orphans()[0].uncertain);
    v.lead(recover(99, 1, 1)).unwrap();
    v.lead(collect(&[file])).unwrap();
    v.lead(finish_truncate(file, 1)).unwrap();
}

#[test]
fn what_a_lost_writer_may_have_overwritten_is_a_new_version() {
    let (mut v, root) = Volume::with_root();
    let writer = v.user(0, 0, &[]);
    let file = v.ask(&writer, create(ROOT, "f", 0o644)).unwrap().attr.unwrap().inode;
    v.ask(&writer, report(file, 10)).unwrap();
    let before = v.attr(file);
    v.lead(expire(&[writer.session])).unwrap();
    let doubt = v.doubts()[0];
    v.lead(recover(file, doubt.doubt, 10)).unwrap();
    let after = v.attr(file);
    assert_eq!(after.size, 10);
    assert!(after.version > before.version && after.mtime_ns > before.mtime_ns);
    assert_eq!(v.ask(&root, close(file, 20)), Err(Code::BadHandle));
    // The lost writer is over: the length is certain again.
    v.ask(&root, unlink(ROOT, "f")).unwrap();
    assert!(!v.orphans()[0].uncertain);
}

#[test]
fn the_chains_are_asked_about_a_write_without_an_answer() {
    let (mut v, root, file) = written(100);
    v.ask(&root, open_write(file)).unwrap();
    let reply = v.ask(&root, report_attempt(file, 120, 2_000)).unwrap();
    assert_eq!((reply.attr.unwrap().size, reply.length_in_doubt), (120, false), "nobody waits");
    let doubt = v.doubts()[0];
    assert_eq!((doubt.inode, doubt.size), (file, 120));
    v.lead(recover(file, doubt.doubt, 1_500)).unwrap();
    v.ask(&root, close(file, 0)).unwrap();
    assert!(v.doubts().is_empty());
    let reply = v.ask(&root, truncate(file, 1_600)).unwrap();
    assert_eq!(reply.truncation, None);
    let cut = v.ask(&root, truncate(file, 1_600)).unwrap().truncation;
    let cut = cut.expect("it may have come since");
    assert_eq!(cut.length_bound, 2_000);
    v.lead(finish_truncate(file, cut.truncate_version)).unwrap();
    assert!(v.ask(&root, truncate(file, 1_600)).unwrap().truncation.is_some(), "or come yet");
    v.ask(&root, unlink(ROOT, "f")).unwrap();
    assert_eq!(v.orphans()[0].size, 2_000);
    let beyond = report_attempt(file, 0, limits::FILE_SIZE_MAX + 1);
    assert_eq!(v.ask(&root, beyond), Err(Code::BadHandle));
}
