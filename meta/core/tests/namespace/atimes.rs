//! Access times: what readers tell changes as much as relatime asks for, and nothing else.

use ff2_meta_core::namespace::stamp;
use ff2_proto::pb::{self, Code, SnapshotStep, ns_request::Op};
use prost::Message;

use crate::{
    ops::*,
    volume::{Volume, Who},
};

const ROOT: u64 = 1;
const DAY_NS: i64 = 24 * 3600 * 1_000_000_000;

fn read_at(atimes: &[(u64, i64)]) -> Op {
    let atime = |(inode, atime_ns): &(u64, i64)| pb::Atime { inode: *inode, atime_ns: *atime_ns };
    Op::TouchAtime(pb::TouchAtimeOp { atimes: atimes.iter().map(atime).collect() })
}

fn file(v: &mut Volume, who: &Who, name: &str, mode: u32) -> u64 {
    v.ask(who, touch(ROOT, name, mode)).unwrap().attr.unwrap().inode
}

#[test]
fn a_read_changes_the_time_once_after_a_change_and_once_a_day() {
    let (mut v, root) = Volume::with_root();
    let file = file(&mut v, &root, "f", 0o644);
    v.now_ns += 100;
    let (made, at) = (v.attr(file), v.now_ns);
    v.ask(&root, read_at(&[(file, at)])).unwrap();
    let read = v.attr(file);
    assert_eq!(read, pb::Attr { atime_ns: at, ..made }, "and nothing else, not even its version");
    v.now_ns += 100;
    v.ask(&root, read_at(&[(file, v.now_ns)])).unwrap();
    assert_eq!(v.attr(file), read, "that it was read since its last change is known");
    v.ask(&root, chmod(file, 0o600)).unwrap();
    let mut read_later = |later_ns| {
        v.now_ns += later_ns;
        let at = v.now_ns;
        v.ask(&root, read_at(&[(file, at)])).unwrap();
        v.attr(file).atime_ns == at
    };
    assert!(read_later(100), "the first read after a change");
    assert!(!read_later(DAY_NS - 100));
    assert!(read_later(100), "a day later");
}

#[test]
fn clocks_that_are_ahead_or_behind_do_no_harm() {
    let (mut v, root) = Volume::with_root();
    let file = file(&mut v, &root, "f", 0o644);
    let made = v.attr(file);
    v.ask(&root, read_at(&[(file, made.atime_ns - 10)])).unwrap();
    assert_eq!(v.attr(file), made, "time never goes back");
    v.ask(&root, read_at(&[(file, i64::MAX)])).unwrap();
    assert_eq!(v.attr(file).atime_ns, v.now_ns);
}

#[test]
fn who_may_not_read_changes_nothing() {
    let (mut v, root) = Volume::with_root();
    v.ask(&root, chmod(ROOT, 0o777)).unwrap();
    let (owner, stranger) = (v.user(10, 10, &[]), v.user(11, 11, &[]));
    let own = file(&mut v, &owner, "own", 0o600);
    let all = file(&mut v, &owner, "all", 0o644);
    let program = file(&mut v, &owner, "program", 0o711);
    let link = v.ask(&owner, symlink(ROOT, "link", "own")).unwrap().attr.unwrap().inode;
    let gone = 12_345;
    v.now_ns += 100;
    let (before, at) = (v.attr(own), v.now_ns);
    let told = [(own, at), (gone, at), (all, at), (program, at), (link, at), (ROOT, at)];
    v.ask(&stranger, read_at(&told)).unwrap();
    assert_eq!(v.attr(own), before);
    for read in [all, program, link, ROOT] {
        assert_eq!(v.attr(read).atime_ns, at, "inode {read}");
    }
    v.ask(&owner, read_at(&[(own, at)])).unwrap();
    assert_eq!(v.attr(own).atime_ns, at);
}

#[test]
fn a_snapshot_shows_the_time_that_it_was_cut_with() {
    let (mut v, root) = Volume::with_root();
    let file = file(&mut v, &root, "f", 0o644);
    let before = v.attr(file).atime_ns;
    let step = |step: SnapshotStep, id| {
        let name = if id == 0 { "one".into() } else { Default::default() };
        Op::StepSnapshot(pb::StepSnapshotOp { step: step.into(), name, id })
    };
    let id = v.lead(step(SnapshotStep::Begin, 0)).unwrap().snapshots[0].id;
    v.lead(step(SnapshotStep::Cut, id)).unwrap();
    v.now_ns += 100;
    v.ask(&root, read_at(&[(file, v.now_ns)])).unwrap();
    assert!(v.attr(file).atime_ns > before);
    let past = v.ask(&root, resolve(".snapshots/one/f", true)).unwrap().attr.unwrap();
    assert_eq!(past.atime_ns, before);
    v.now_ns += 100;
    v.ask(&root, read_at(&[(past.inode, v.now_ns)])).unwrap();
    let past = v.ask(&root, resolve(".snapshots/one/f", true)).unwrap().attr.unwrap();
    assert_eq!(past.atime_ns, before, "the past does not change");
}

#[test]
fn folders_that_are_made_up_are_not_stored() {
    let (mut v, root) = Volume::with_root();
    v.lead(Op::SetTrash(pb::SetTrashOp { keep_s: 60 })).unwrap();
    let trash = v.ask(&root, resolve(".trash", true)).unwrap().attr.unwrap();
    v.now_ns += 100;
    let at = v.now_ns;
    // Whatever is stored is looked at by fsck after each command.
    v.ask(&root, read_at(&[(trash.inode, at)])).unwrap();
    assert_eq!(v.ask(&root, resolve(".trash", true)).unwrap().attr.unwrap(), trash);
}

#[test]
fn too_many_and_too_early_are_refused() {
    let (mut v, root) = Volume::with_root();
    let many: Vec<_> = (0..2_000).map(|inode| (inode, 5)).collect();
    assert_eq!(v.ask(&root, read_at(&many)), Err(Code::InvalidArgument));
    let (session, cred) = (root.session, Some(root.cred.clone()));
    let op = Some(read_at(&[(ROOT, 5)]));
    let request = pb::NsRequest { volume: 1, session, seq: 90, cred, op, ..Default::default() };
    let command = pb::NsCommand { level: 2, ..stamp(request, 1, 1, None) };
    let reply = pb::NsReply::decode(&v.apply(&command.encode_to_vec())[..]).unwrap();
    assert!(reply.status.unwrap().detail.contains("ff2ctl upgrade finish"));
}
