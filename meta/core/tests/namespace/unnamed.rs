//! Files that are made without a name (O_TMPFILE).

use ff2_proto::pb::{self, Code, ns_request::Op};

use crate::{ops::*, volume::Volume};

const ROOT: u64 = 1;

fn unnamed(parent: u64) -> pb::CreateOp {
    pb::CreateOp { unnamed: true, write: true, ..open_or_create(parent, "", 0o644) }
}

#[test]
fn one_gets_its_name_while_who_made_it_writes_it() {
    let (mut v, root) = Volume::with_root();
    let other = v.user(0, 0, &[]);
    let before = v.look(Op::GetAttr(pb::GetAttrOp { inode: ROOT })).unwrap().attr;
    let file = v.ask(&root, Op::Create(unnamed(ROOT))).unwrap().attr.unwrap();
    assert_eq!(file.nlink, 0);
    assert_eq!(v.look(Op::GetAttr(pb::GetAttrOp { inode: ROOT })).unwrap().attr, before);
    let orphan = v.orphans().remove(0);
    assert_eq!((orphan.inode, orphan.nameable), (file.inode, true));
    assert_eq!(v.lead(collect(&[file.inode])), Err(Code::InvalidArgument), "it may get a name");
    v.ask(&root, report(file.inode, 100)).unwrap();
    assert_eq!(v.ask(&other, link(file.inode, ROOT, "theirs")), Err(Code::NotFound));
    let named = v.ask(&root, link(file.inode, ROOT, "f")).unwrap().attr.unwrap();
    assert_eq!((named.inode, named.nlink, named.size), (file.inode, 1, 100));
    assert!(v.orphans().is_empty());
    v.ask(&root, link(file.inode, ROOT, "g")).unwrap();
    v.ask(&root, close(file.inode, 100)).unwrap();
    for name in ["f", "g"] {
        assert_eq!(v.ask(&other, lookup(ROOT, name)).unwrap().attr.unwrap().inode, file.inode);
        v.ask(&other, unlink(ROOT, name)).unwrap();
    }
    assert!(!v.orphans().remove(0).nameable, "it had a name");
    assert_eq!(v.ask(&root, link(file.inode, ROOT, "f")), Err(Code::NotFound));
    v.lead(collect(&[file.inode])).unwrap();
}

#[test]
fn after_the_last_close_nothing_brings_it_back() {
    let (mut v, root) = Volume::with_root();
    let file = v.ask(&root, Op::Create(unnamed(ROOT))).unwrap().attr.unwrap().inode;
    v.ask(&root, open_write(file)).unwrap();
    v.ask(&root, Op::Close(pb::CloseOp { inode: file, opens: 1, ..Default::default() })).unwrap();
    assert!(v.orphans()[0].nameable, "it is open once more");
    v.ask(&root, close(file, 10)).unwrap();
    assert!(!v.orphans()[0].nameable);
    v.ask(&root, open_write(file)).unwrap();
    assert_eq!(v.ask(&root, link(file, ROOT, "f")), Err(Code::NotFound));
    v.lead(collect(&[file])).unwrap();
}

#[test]
fn it_ends_with_its_session() {
    let (mut v, root) = Volume::with_root();
    let next = v.user(0, 0, &[]);
    let file = v.ask(&root, Op::Create(unnamed(ROOT))).unwrap().attr.unwrap().inode;
    v.lead(expire(&[root.session])).unwrap();
    v.ask(&next, open_write(file)).unwrap();
    assert_eq!(v.ask(&next, link(file, ROOT, "f")), Err(Code::NotFound));
    assert!(!v.orphans()[0].nameable);
    v.lead(collect(&[file])).unwrap();
}

#[test]
fn who_may_make_it_and_how() {
    let (mut v, root) = Volume::with_root();
    let user = v.user(7, 7, &[]);
    let closed = v.ask(&root, mkdir(ROOT, "closed", 0o755)).unwrap().attr.unwrap().inode;
    assert_eq!(v.ask(&user, Op::Create(unnamed(closed))), Err(Code::AccessDenied));
    let named = pb::CreateOp { name: "f".into(), ..unnamed(ROOT) };
    assert_eq!(v.ask(&root, Op::Create(named)), Err(Code::InvalidArgument));
    let unwritten = pb::CreateOp { write: false, ..unnamed(ROOT) };
    assert_eq!(v.ask(&root, Op::Create(unwritten)), Err(Code::InvalidArgument));
    let exclusive = pb::CreateOp { exclusive: true, ..unnamed(ROOT) };
    let file = v.ask(&root, Op::Create(exclusive)).unwrap().attr.unwrap().inode;
    assert_eq!(v.ask(&root, link(file, ROOT, "f")), Err(Code::NotFound), "never to be named");
}
