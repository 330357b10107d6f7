//! Hard links and orphans.

use ff2_proto::pb::{self, Code, ns_request::Op};

use crate::{ops::*, volume::Volume};

const ROOT: u64 = 1;

#[test]
fn names_share_an_inode() {
    let (mut v, root) = Volume::with_root();
    let file = v.ask(&root, touch(ROOT, "a", 0o644)).unwrap().attr.unwrap();
    let linked = v.ask(&root, link(file.inode, ROOT, "b")).unwrap().attr.unwrap();
    assert_eq!((linked.inode, linked.nlink), (file.inode, 2));
    assert!(linked.ctime_ns > file.ctime_ns && linked.version > file.version);
    assert_eq!(v.ask(&root, link(file.inode, ROOT, "b")), Err(Code::Exists));
    assert_eq!(v.ask(&root, unlink(ROOT, "a")).unwrap().attr.unwrap().nlink, 1);
    assert!(v.orphans().is_empty());
    v.ask(&root, unlink(ROOT, "b")).unwrap();
    assert_eq!(v.orphans().len(), 1);
    assert_eq!(v.ask(&root, link(file.inode, ROOT, "c")), Err(Code::NotFound), "no name left");
}

#[test]
fn directories_have_one_name() {
    let (mut v, root) = Volume::with_root();
    let dir = v.ask(&root, mkdir(ROOT, "d", 0o755)).unwrap().attr.unwrap().inode;
    assert_eq!(v.ask(&root, link(dir, ROOT, "e")), Err(Code::NotPermitted));
    assert_eq!(v.ask(&root, link(99, ROOT, "e")), Err(Code::StaleInode));
}

#[test]
fn an_orphan_is_opened_and_written_by_number_until_it_is_collected() {
    let (mut v, root) = Volume::with_root();
    let file = v.ask(&root, create(ROOT, "f", 0o644)).unwrap().attr.unwrap().inode;
    v.ask(&root, unlink(ROOT, "f")).unwrap();
    v.ask(&root, report(file, 4_000)).unwrap();
    v.ask(&root, open_read(file)).unwrap();
    let orphan = &v.orphans()[0];
    assert_eq!((orphan.size, orphan.uncertain, orphan.layout.is_some()), (4_000, true, true));
    v.ask(&root, close(file, 5_000)).unwrap();
    let orphan = &v.orphans()[0];
    assert_eq!((orphan.size, orphan.uncertain), (5_000, false));
    assert_eq!(
        v.look(Op::StatFs(pb::StatFsOp { inode: 0 })).unwrap().statfs.unwrap().bytes_used,
        5_000
    );
    v.ask(&root, open_write(file)).unwrap();
    v.lead(collect(&[file])).unwrap();
    assert_eq!(v.ask(&root, close(file, 6_000)), Err(Code::StaleInode));
    let statfs = v.look(Op::StatFs(pb::StatFsOp { inode: 0 })).unwrap().statfs.unwrap();
    assert_eq!((statfs.bytes_used, statfs.inodes_used), (0, 1));
}

#[test]
fn only_orphans_are_collected() {
    let (mut v, root) = Volume::with_root();
    let file = v.ask(&root, touch(ROOT, "f", 0o644)).unwrap().attr.unwrap().inode;
    assert_eq!(v.lead(collect(&[file])), Err(Code::InvalidArgument));
    v.lead(collect(&[77, 78])).unwrap();
    assert_eq!(v.lead(collect(&vec![77; 1_025])), Err(Code::InvalidArgument));
}

#[test]
fn an_open_tells_the_number_of_an_orphan() {
    let (mut v, root) = Volume::with_root();
    let mut file = 0;
    for name in ["a", "b"] {
        file = v.ask(&root, touch(ROOT, name, 0o644)).unwrap().attr.unwrap().inode;
        assert_eq!(v.ask(&root, open_read(file)).unwrap().orphan_seq, 0, "it has a name");
        v.ask(&root, unlink(ROOT, name)).unwrap();
    }
    assert_eq!(v.orphans()[1].seq, 2);
    assert_eq!(v.ask(&root, open_read(file)).unwrap().orphan_seq, 2);
    assert_eq!(v.ask(&root, open_write(file)).unwrap().orphan_seq, 2);
    let session = Op::OpenSession(pb::OpenSessionOp { nonce: 77, ..Default::default() });
    assert_eq!(v.lead(session).unwrap().orphan_seq, 2, "both were there before it");
}

#[test]
fn orphans_are_listed_in_pages() {
    let (mut v, root) = Volume::with_root();
    for name in ["a", "b", "c", "d", "e"] {
        v.ask(&root, touch(ROOT, name, 0o644)).unwrap();
        v.ask(&root, unlink(ROOT, name)).unwrap();
    }
    let mut seqs = vec![];
    let mut after = 0;
    loop {
        let page = v.look(Op::ListOrphans(pb::ListOrphansOp { after, limit: 2 })).unwrap();
        seqs.extend(page.orphan_inodes.iter().map(|orphan| orphan.seq));
        after = *seqs.last().unwrap();
        if page.end {
            break;
        }
    }
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
}
