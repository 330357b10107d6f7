//! Creating, opening, writing and closing files.

use ff2_proto::{
    limits,
    pb::{self, Code, FileKind, ns_request::Op},
};

use crate::{ops::*, volume::Volume};

const ROOT: u64 = 1;

#[test]
fn create_opens_what_is_there_unless_exclusive() {
    let (mut v, root) = Volume::with_root();
    let new = v.ask(&root, create(ROOT, "f", 0o444)).unwrap();
    let attr = new.attr.unwrap();
    assert!(new.created && attr.layout.is_some());
    assert_eq!((attr.mode, attr.size, attr.nlink), (0o444, 0, 1));
    assert_eq!(v.ask(&root, create(ROOT, "f", 0o644)), Err(Code::Exists));
    let again = v.ask(&root, touch(ROOT, "f", 0o600)).unwrap();
    assert!(!again.created);
    assert_eq!(again.attr.unwrap(), attr, "an open changes nothing that shows");
    v.ask(&root, mkdir(ROOT, "d", 0o755)).unwrap();
    v.ask(&root, symlink(ROOT, "l", "f")).unwrap();
    v.ask(&root, mknod(ROOT, "p", FileKind::Fifo, 0o644)).unwrap();
    assert_eq!(v.ask(&root, touch(ROOT, "d", 0o644)), Err(Code::IsDirectory));
    assert_eq!(v.ask(&root, touch(ROOT, "l", 0o644)), Err(Code::SymlinkLoop));
    v.ask(&root, touch(ROOT, "p", 0o644)).unwrap();
}

#[test]
fn without_a_chain_table_creation_waits() {
    let (mut v, root) = Volume::with_root();
    let request = pb::NsRequest {
        session: root.session,
        seq: 50,
        cred: Some(root.cred.clone()),
        op: Some(create(ROOT, "f", 0o644)),
        ..Default::default()
    };
    use prost::Message;
    let command = ff2_meta_core::namespace::stamp(request, 9, 9, None).encode_to_vec();
    let reply = pb::NsReply::decode(v.apply(&command).as_slice()).unwrap();
    assert_eq!(reply.status.unwrap().code(), Code::Busy);
    let bad = pb::Layout { chunk_size: 3, table: 1, stripe: 1, ..Default::default() };
    let asked = pb::CreateOp { layout: Some(bad), ..open_or_create(ROOT, "f", 0o644) };
    assert_eq!(v.ask(&root, Op::Create(asked)), Err(Code::InvalidArgument));
}

#[test]
fn opens_check_permissions_and_kinds() {
    let (mut v, root) = Volume::with_root();
    let user = v.user(7, 7, &[]);
    let file = v.ask(&root, touch(ROOT, "f", 0o711)).unwrap().attr.unwrap().inode;
    assert_eq!(v.ask(&user, open_read(file)), Err(Code::AccessDenied));
    assert_eq!(v.ask(&user, open_write(file)), Err(Code::AccessDenied));
    let run = Op::Open(pb::OpenOp { inode: file, execute: true, ..Default::default() });
    v.ask(&user, run).unwrap();
    v.ask(&root, chmod(file, 0o744)).unwrap();
    v.ask(&user, open_read(file)).unwrap();
    let cut =
        Op::Open(pb::OpenOp { inode: file, read: true, truncate: true, ..pb::OpenOp::default() });
    assert_eq!(v.ask(&user, cut), Err(Code::AccessDenied), "truncation needs write permission");
    assert_eq!(v.ask(&root, open_write(ROOT)), Err(Code::IsDirectory));
    v.ask(&user, open_read(ROOT)).unwrap();
    assert_eq!(v.ask(&root, open_read(99)), Err(Code::StaleInode));
}

#[test]
fn lengths_grow_by_reports_and_closes() {
    let (mut v, root) = Volume::with_root();
    let other = v.user(0, 0, &[]);
    let file = v.ask(&root, create(ROOT, "f", 0o644)).unwrap().attr.unwrap().inode;
    v.ask(&other, open_write(file)).unwrap();
    assert_eq!(v.ask(&root, report(file, 100)).unwrap().attr.unwrap().size, 100);
    let reply = v.ask(&other, report(file, 50)).unwrap();
    assert_eq!((reply.attr.unwrap().size, reply.length_in_doubt), (100, false));
    assert_eq!(v.ask(&other, close(file, 300)).unwrap().attr.unwrap().size, 300);
    assert_eq!(v.ask(&other, close(file, 400)), Err(Code::BadHandle));
    assert_eq!(v.ask(&other, report(file, 400)), Err(Code::BadHandle));
    let huge = report(file, limits::FILE_SIZE_MAX + 1);
    assert_eq!(v.ask(&root, huge), Err(Code::FileTooBig));
    let timed = pb::CloseOp { inode: file, wrote: true, mtime_ns: 777, ..Default::default() };
    let attr = v.ask(&root, Op::Close(timed)).unwrap().attr.unwrap();
    assert_eq!((attr.size, attr.mtime_ns, attr.ctime_ns), (300, 777, v.now_ns));
}

#[test]
fn a_close_without_writes_changes_no_times() {
    let (mut v, root) = Volume::with_root();
    let attr = v.ask(&root, create(ROOT, "f", 0o644)).unwrap().attr.unwrap();
    let idle = pb::CloseOp { inode: attr.inode, ..Default::default() };
    assert_eq!(v.ask(&root, Op::Close(idle)).unwrap().attr.unwrap(), attr);
}

#[test]
fn a_close_leaves_opens_that_were_on_their_way() {
    let (mut v, root) = Volume::with_root();
    let file = v.ask(&root, create(ROOT, "f", 0o644)).unwrap().attr.unwrap().inode;
    v.ask(&root, open_write(file)).unwrap();
    v.ask(&root, open_write(file)).unwrap();
    let close_of = |opens| Op::Close(pb::CloseOp { inode: file, opens, ..Default::default() });
    v.ask(&root, close_of(2)).unwrap();
    v.ask(&root, report(file, 10)).unwrap();
    v.ask(&root, close_of(5)).unwrap();
    assert_eq!(v.ask(&root, report(file, 20)), Err(Code::BadHandle));
}

#[test]
fn writing_takes_privileges_away() {
    let (mut v, root) = Volume::with_root();
    let user = v.user(7, 7, &[]);
    v.ask(&root, chmod(ROOT, 0o777)).unwrap();
    let file = v.ask(&user, create(ROOT, "f", 0o6777)).unwrap().attr.unwrap().inode;
    assert_eq!(v.ask(&user, report(file, 1)).unwrap().attr.unwrap().mode, 0o777);
    v.ask(&user, chmod(file, 0o6777)).unwrap();
    assert_eq!(v.ask(&user, ftruncate(file, 0)).unwrap().attr.unwrap().mode, 0o777);
    let by_root = v.ask(&root, create(ROOT, "g", 0o6777)).unwrap().attr.unwrap().inode;
    assert_eq!(v.ask(&root, close(by_root, 1)).unwrap().attr.unwrap().mode, 0o6777);
}
