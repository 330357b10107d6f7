//! Inode numbers that a session was allotted.

use std::collections::BTreeSet;

use ff2_proto::pb::{self, Code, ns_request::Op};

use crate::{
    ops::*,
    volume::{Volume, Who},
};

const ROOT: u64 = 1;

fn allot(v: &mut Volume, who: &Who, count: u32) -> Vec<u64> {
    v.ask(who, Op::AllotInodes(pb::AllotInodesOp { count })).unwrap().inodes
}

fn numbered(name: &str, inode: u64) -> Op {
    Op::Create(pb::CreateOp { inode, write: true, ..open_or_create(ROOT, name, 0o644) })
}

fn made(v: &mut Volume, who: &Who, op: Op) -> Result<u64, Code> {
    v.ask(who, op).map(|reply| reply.attr.unwrap().inode)
}

#[test]
fn numbers_are_used_once_and_in_order() {
    let (mut v, root) = Volume::with_root();
    let numbers = allot(&mut v, &root, 100);
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 100);
    assert_eq!(made(&mut v, &root, numbered("a", numbers[0])), Ok(numbers[0]));
    assert_eq!(made(&mut v, &root, numbered("b", numbers[0])), Err(Code::InvalidArgument));
    assert_eq!(made(&mut v, &root, numbered("c", numbers[5])), Ok(numbers[5]));
    assert_eq!(made(&mut v, &root, numbered("d", numbers[3])), Err(Code::InvalidArgument));
    // One that was used is used, whatever became of its inode.
    v.ask(&root, close(numbers[5], 0)).unwrap();
    v.ask(&root, unlink(ROOT, "c")).unwrap();
    v.lead(collect(&[numbers[5]])).unwrap();
    assert_eq!(made(&mut v, &root, numbered("c", numbers[5])), Err(Code::InvalidArgument));
    // A change that fails uses none up.
    assert_eq!(made(&mut v, &root, numbered("", numbers[6])), Err(Code::InvalidArgument));
    let folder = pb::MakeNodeOp {
        parent: ROOT,
        name: "folder".into(),
        kind: pb::FileKind::Directory.into(),
        mode: 0o755,
        inode: numbers[6],
        ..Default::default()
    };
    assert_eq!(made(&mut v, &root, Op::MakeNode(folder)), Ok(numbers[6]));
    // What nobody was allotted is given to others.
    let other = made(&mut v, &root, numbered("e", 0)).unwrap();
    assert!(!numbers.contains(&other));
    // Numbers from before stay good, of a few allotments.
    let more: Vec<Vec<u64>> = (0..4).map(|_| allot(&mut v, &root, 2)).collect();
    assert_eq!(made(&mut v, &root, numbered("f", numbers[9])), Err(Code::InvalidArgument));
    assert_eq!(made(&mut v, &root, numbered("g", more[3][0])), Ok(more[3][0]));
    assert_eq!(made(&mut v, &root, numbered("h", more[0][1])), Ok(more[0][1]));
    for count in [0, 1 << 20] {
        let refused = v.ask(&root, Op::AllotInodes(pb::AllotInodesOp { count }));
        assert_eq!(refused.map(|_| ()), Err(Code::InvalidArgument));
    }
}

#[test]
fn nobody_takes_the_number_of_another() {
    let (mut v, root) = Volume::with_root();
    let other = v.user(0, 0, &[]);
    let numbers = allot(&mut v, &root, 2);
    for number in [numbers[0], numbers[1], u64::MAX, 1, 2, 12_345] {
        assert_eq!(made(&mut v, &other, numbered("a", number)), Err(Code::InvalidArgument));
    }
    v.lead(expire(&[root.session])).unwrap();
    let next = v.user(0, 0, &[]);
    assert_eq!(made(&mut v, &next, numbered("a", numbers[0])), Err(Code::InvalidArgument));
}
