//! Quotas of folders and owners.

use ff2_proto::pb::{self, Code, ns_request::Op};
use pb::quota_key::Of;
use proptest::prelude::*;

use crate::{
    ops::*,
    volume::{Volume, Who},
};

const ROOT: u64 = 1;
const MAX: u64 = u64::MAX;

fn key(of: Of) -> Option<pb::QuotaKey> {
    Some(pb::QuotaKey { of: Some(of) })
}

/// `MAX`: no limit.
fn set_quota(of: Of, bytes: u64, inodes: u64) -> Op {
    let limit = |max| Some(pb::QuotaLimit { max: Some(max).filter(|max| *max < MAX) });
    let (bytes, inodes) = (limit(bytes), limit(inodes));
    Op::SetQuota(pb::SetQuotaOp { key: key(of), bytes, inodes, path: "/x".into() })
}

fn remove_quota(of: Of) -> Op {
    Op::RemoveQuota(pb::RemoveQuotaOp { key: key(of) })
}

fn list(counting: bool) -> Op {
    Op::ListQuotas(pb::ListQuotasOp { counting, ..Default::default() })
}

fn next_step(quota: &pb::Quota) -> Op {
    Op::CountQuota(pb::CountQuotaOp { key: quota.key, counted: quota.counted })
}

/// Steps of all counts, one after the other.
fn count_all(v: &mut Volume) -> usize {
    let mut steps = 0;
    loop {
        let quotas = v.look(list(true)).unwrap().quotas;
        let Some(quota) = quotas.first() else { return steps };
        v.lead(next_step(quota)).unwrap();
        steps += 1;
    }
}

fn used(v: &Volume, of: Of) -> (u64, u64) {
    let all = v.look(list(false)).unwrap().quotas;
    let found = all.into_iter().find(|quota| quota.key == key(of)).expect("a quota");
    (found.inodes, found.bytes)
}

fn make(v: &mut Volume, who: &Who, op: Op) -> u64 {
    v.ask(who, op).unwrap().attr.unwrap().inode
}

/// A folder with a quota.
fn limited(bytes: u64, inodes: u64) -> (Volume, Who, u64) {
    let (mut v, root) = Volume::with_root();
    v.ask(&root, chmod(ROOT, 0o777)).unwrap();
    let folder = make(&mut v, &root, mkdir(ROOT, "q", 0o777));
    v.lead(set_quota(Of::Inode(folder), bytes, inodes)).unwrap();
    (v, root, folder)
}

#[test]
fn inodes_are_refused_at_the_limit_and_no_earlier() {
    let (mut v, root, q) = limited(MAX, 3);
    let a = make(&mut v, &root, mkdir(q, "a", 0o755));
    let b = v.ask(&root, touch(a, "b", 0o644)).unwrap();
    assert_eq!(b.quota_room, Some(pb::QuotaRoom { inodes: Some(0), bytes: None }));
    for op in [touch(a, "c", 0o644), mkdir(q, "c", 0o755), symlink(a, "c", "b")] {
        assert_eq!(v.ask(&root, op), Err(Code::QuotaExceeded));
    }
    let unnamed = pb::CreateOp { unnamed: true, write: true, ..open_or_create(q, "", 0o600) };
    assert_eq!(v.ask(&root, Op::Create(unnamed)), Err(Code::QuotaExceeded));
    v.ask(&root, link(b.attr.unwrap().inode, q, "again")).unwrap();
    assert_eq!(used(&v, Of::Inode(q)), (3, 0), "a second name is no second inode");
    v.ask(&root, unlink(q, "again")).unwrap();
    v.ask(&root, unlink(a, "b")).unwrap();
    v.ask(&root, touch(q, "c", 0o644)).unwrap();
    v.ask(&root, touch(ROOT, "outside", 0o644)).unwrap();
}

#[test]
fn bytes_are_lengths_and_what_was_written_is_never_refused() {
    let (mut v, root, q) = limited(1_000, MAX);
    let f = make(&mut v, &root, create(q, "f", 0o644));
    let told = v.ask(&root, report(f, 600)).unwrap();
    assert_eq!(told.quota_room, Some(pb::QuotaRoom { inodes: None, bytes: Some(400) }));
    assert_eq!(v.ask(&root, truncate(f, 1_001)), Err(Code::QuotaExceeded));
    v.ask(&root, truncate(f, 1_000)).unwrap();
    let told = v.ask(&root, report(f, 1_500)).unwrap();
    assert_eq!(told.quota_room.unwrap().bytes, Some(0), "it is on the chains");
    assert_eq!(used(&v, Of::Inode(q)), (2, 1_500));
    assert_eq!(v.ask(&root, truncate(f, 1_600)), Err(Code::QuotaExceeded));
    v.ask(&root, touch(q, "empty", 0o644)).unwrap();
    v.ask(&root, truncate(f, 10)).unwrap();
    assert_eq!(used(&v, Of::Inode(q)), (3, 10));
}

#[test]
fn what_programs_were_told_of_is_taken_in() {
    let (mut v, root, q) = limited(MAX, 1);
    let op = Some(touch(q, "f", 0o644));
    let (session, cred) = (root.session, Some(root.cred.clone()));
    let request = pb::NsRequest { volume: 1, session, seq: 90, cred, op, ..Default::default() };
    assert_eq!(v.log(request.clone()), Err(Code::QuotaExceeded));
    let foreseen = pb::NsRequest { seq: 91, at_ns: 7_000, ..request };
    assert_eq!(v.log(foreseen).unwrap().quota_room.unwrap().inodes, Some(0));
}

#[test]
fn an_orphan_counts_as_long_as_it_is_written() {
    let (mut v, root, q) = limited(MAX, MAX);
    let f = make(&mut v, &root, create(q, "f", 0o644));
    v.ask(&root, unlink(q, "f")).unwrap();
    v.ask(&root, report(f, 500)).unwrap();
    assert_eq!(used(&v, Of::Inode(q)), (2, 500));
    v.ask(&root, close(f, 700)).unwrap();
    assert_eq!(used(&v, Of::Inode(q)), (1, 0), "nobody can let it grow");
    v.ask(&root, open_write(f)).unwrap();
    assert_eq!(used(&v, Of::Inode(q)), (2, 700));
    v.lead(collect(&[f])).unwrap();
    assert_eq!(used(&v, Of::Inode(q)), (1, 0));
}

#[test]
fn a_folder_that_is_full_already_is_counted_in_steps_while_it_changes() {
    let (mut v, root) = Volume::with_root();
    let q = make(&mut v, &root, mkdir(ROOT, "q", 0o755));
    let deep = make(&mut v, &root, mkdir(q, "deep", 0o755));
    for at in 0..300 {
        v.ask(&root, touch(q, &format!("f{at}"), 0o644)).unwrap();
        v.ask(&root, touch(deep, &format!("f{at}"), 0o644)).unwrap();
    }
    let set = v.lead(set_quota(Of::Inode(q), MAX, 10_000)).unwrap().quotas.pop().unwrap();
    assert!(set.counting);
    let first = v.lead(next_step(&set)).unwrap().quotas.pop().unwrap();
    // What was not counted yet goes and comes.
    v.ask(&root, unlink(q, "f299")).unwrap();
    v.ask(&root, touch(deep, "new", 0o644)).unwrap();
    v.ask(&root, mv(q, "f298", q, "g")).unwrap();
    v.ask(&root, mv(q, "deep", q, "deeper")).unwrap();
    let second = v.lead(next_step(&first)).unwrap().quotas.pop().unwrap();
    assert!(second.counting && second.counted > first.counted);
    assert!(count_all(&mut v) > 0);
    assert_eq!(used(&v, Of::Inode(q)), (602, 0));
    v.lead(remove_quota(Of::Inode(q))).unwrap();
    assert_eq!(v.lead(set_quota(Of::Inode(q), 1, 1)), Err(Code::InvalidArgument));
    count_all(&mut v);
    assert!(v.look(list(false)).unwrap().quotas.is_empty());
    v.lead(set_quota(Of::Inode(q), MAX, 1)).unwrap();
    count_all(&mut v);
    assert_eq!(v.ask(&root, touch(deep, "one more", 0o644)), Err(Code::QuotaExceeded));
}

#[test]
fn quotas_lie_in_each_other_and_the_nearest_limit_counts() {
    let (mut v, root, outer) = limited(MAX, 5);
    let inner = make(&mut v, &root, mkdir(outer, "inner", 0o755));
    v.lead(set_quota(Of::Inode(inner), 100, 3)).unwrap();
    v.ask(&root, touch(inner, "a", 0o644)).unwrap();
    let last = v.ask(&root, touch(inner, "b", 0o644)).unwrap();
    assert_eq!(last.quota_room, Some(pb::QuotaRoom { inodes: Some(0), bytes: Some(100) }));
    assert_eq!(v.ask(&root, touch(inner, "c", 0o644)), Err(Code::QuotaExceeded));
    v.ask(&root, touch(outer, "c", 0o644)).unwrap();
    assert_eq!(v.ask(&root, touch(outer, "d", 0o644)), Err(Code::QuotaExceeded));
    let statfs =
        |v: &Volume, inode| v.look(Op::StatFs(pb::StatFsOp { inode })).unwrap().statfs.unwrap();
    let seen = statfs(&v, inner);
    assert_eq!((seen.bytes_max, seen.inodes_max, seen.inodes_used), (Some(100), Some(3), 3));
    assert_eq!(statfs(&v, ROOT).inodes_max, None);
    // One between them.
    v.lead(remove_quota(Of::Inode(inner))).unwrap();
    count_all(&mut v);
    assert_eq!(used(&v, Of::Inode(outer)), (5, 0));
    let applying = Op::ListQuotas(pb::ListQuotasOp {
        applying_to: key(Of::Inode(inner)),
        ..Default::default()
    });
    assert_eq!(v.look(applying).unwrap().quotas.len(), 1);
    // ... and above all.
    v.lead(set_quota(Of::Inode(ROOT), MAX, 6)).unwrap();
    count_all(&mut v);
    assert_eq!(used(&v, Of::Inode(ROOT)), (6, 0));
    assert_eq!(v.ask(&root, touch(ROOT, "e", 0o644)), Err(Code::QuotaExceeded));
}

#[test]
fn quotas_are_nested_so_deep_and_no_deeper() {
    let (mut v, root) = Volume::with_root();
    let mut folders = vec![ROOT];
    for _ in 0..9 {
        let above = *folders.last().unwrap();
        folders.push(make(&mut v, &root, mkdir(above, "d", 0o755)));
    }
    // From within: each one goes above those that there are.
    for folder in folders[2..].iter().rev() {
        v.lead(set_quota(Of::Inode(*folder), MAX, 100)).unwrap();
        count_all(&mut v);
    }
    let beyond = set_quota(Of::Inode(folders[1]), MAX, 100);
    assert_eq!(v.lead(beyond), Err(Code::InvalidArgument));
}

#[test]
fn files_move_with_what_they_count_and_folders_do_not_cross_a_border() {
    let (mut v, root, q) = limited(1_000, 4);
    let f = make(&mut v, &root, create(ROOT, "f", 0o644));
    v.ask(&root, close(f, 800)).unwrap();
    v.ask(&root, mv(ROOT, "f", q, "f")).unwrap();
    assert_eq!(used(&v, Of::Inode(q)), (2, 800));
    let g = make(&mut v, &root, create(ROOT, "g", 0o644));
    v.ask(&root, close(g, 201)).unwrap();
    assert_eq!(v.ask(&root, mv(ROOT, "g", q, "g")), Err(Code::QuotaExceeded));
    v.ask(&root, mv(ROOT, "g", q, "f")).unwrap();
    assert_eq!(used(&v, Of::Inode(q)), (2, 201), "what it replaces makes room");
    v.ask(&root, mv(q, "f", ROOT, "g")).unwrap();
    let full = make(&mut v, &root, mkdir(ROOT, "full", 0o755));
    make(&mut v, &root, mkdir(full, "empty", 0o755));
    assert_eq!(v.ask(&root, mv(ROOT, "full", q, "full")), Err(Code::CrossVolume));
    v.ask(&root, mv(full, "empty", q, "empty")).unwrap();
    v.ask(&root, mv(q, "empty", q, "renamed")).unwrap();
    assert_eq!(used(&v, Of::Inode(q)), (2, 0));
    // A name beside another counts where the inode does.
    v.ask(&root, link(g, q, "name")).unwrap();
    v.ask(&root, mv(q, "name", q, "renamed too")).unwrap();
    assert_eq!(used(&v, Of::Inode(q)), (2, 0));
    // A folder with a quota of its own is carried with it.
    let own = make(&mut v, &root, mkdir(full, "own", 0o755));
    v.lead(set_quota(Of::Inode(own), MAX, 10)).unwrap();
    v.ask(&root, touch(own, "a", 0o644)).unwrap();
    v.ask(&root, mv(full, "own", q, "own")).unwrap();
    assert_eq!(used(&v, Of::Inode(q)), (4, 0));
    assert_eq!(v.ask(&root, touch(own, "b", 0o644)), Err(Code::QuotaExceeded));
    v.ask(&root, mv(q, "own", ROOT, "own")).unwrap();
    v.ask(&root, touch(own, "b", 0o644)).unwrap();
    v.ask(&root, unlink(own, "a")).unwrap();
    v.ask(&root, unlink(own, "b")).unwrap();
    v.ask(&root, rmdir(ROOT, "own")).unwrap();
    assert_eq!(v.look(list(false)).unwrap().quotas.len(), 1, "it went with its folder");
}

#[test]
fn owners_have_quotas_wherever_they_are() {
    let (mut v, root) = Volume::with_root();
    v.ask(&root, chmod(ROOT, 0o777)).unwrap();
    let (anna, otto) = (v.user(10, 100, &[]), v.user(11, 100, &[]));
    for at in 0..700 {
        v.ask(if at % 2 == 0 { &anna } else { &otto }, touch(ROOT, &format!("f{at}"), 0o666))
            .unwrap();
    }
    v.lead(set_quota(Of::Uid(10), 5_000, 352)).unwrap();
    v.lead(set_quota(Of::Gid(100), MAX, 1_000)).unwrap();
    v.lead(Op::CountQuota(pb::CountQuotaOp { key: key(Of::Uid(10)), counted: 0 })).unwrap();
    v.ask(&anna, unlink(ROOT, "f0")).unwrap();
    v.ask(&anna, unlink(ROOT, "f698")).unwrap();
    let new = make(&mut v, &anna, create(ROOT, "new", 0o666));
    assert!(count_all(&mut v) > 2, "in steps");
    assert_eq!((used(&v, Of::Uid(10)), used(&v, Of::Gid(100))), ((349, 0), (699, 0)));
    v.ask(&anna, report(new, 4_000)).unwrap();
    assert_eq!(v.ask(&anna, truncate(new, 5_001)), Err(Code::QuotaExceeded));
    // Whoever does it: it is the owner's.
    v.ask(&root, chown(new, Some(11), None)).unwrap();
    assert_eq!(used(&v, Of::Uid(10)), (348, 0));
    v.ask(&root, chown(new, Some(10), None)).unwrap();
    for at in 0..3 {
        v.ask(&anna, touch(ROOT, &format!("more{at}"), 0o666)).unwrap();
    }
    assert_eq!(v.ask(&anna, touch(ROOT, "too many", 0o666)), Err(Code::QuotaExceeded));
    let given = Of::Uid(10);
    let taken = v.look(lookup(ROOT, "f1")).unwrap().attr.unwrap().inode;
    assert_eq!(v.ask(&root, chown(taken, Some(10), None)), Err(Code::QuotaExceeded));
    v.ask(&otto, touch(ROOT, "of otto", 0o666)).unwrap();
    v.lead(remove_quota(given)).unwrap();
    v.ask(&anna, touch(ROOT, "too many", 0o666)).unwrap();
    for of in [Of::Uid(0), Of::Gid(0)] {
        assert_eq!(v.lead(set_quota(of, 1, 1)), Err(Code::InvalidArgument));
    }
    v.lead(remove_quota(given)).unwrap();
}

#[test]
fn a_limit_that_is_not_given_stays() {
    let (mut v, root, q) = limited(1_000, 2);
    let only_bytes = pb::SetQuotaOp {
        key: key(Of::Inode(q)),
        bytes: Some(pb::QuotaLimit { max: None }),
        ..Default::default()
    };
    let after = v.lead(Op::SetQuota(only_bytes)).unwrap().quotas.pop().unwrap();
    assert_eq!((after.bytes_max, after.inodes_max, &after.path[..]), (None, Some(2), &b"/x"[..]));
    assert_eq!(v.lead(set_quota(Of::Inode(9_999), 1, 1)), Err(Code::StaleInode));
    let f = make(&mut v, &root, touch(q, "f", 0o644));
    assert_eq!(v.lead(set_quota(Of::Inode(f), 1, 1)), Err(Code::NotDirectory));
    v.ask(&root, unlink(q, "f")).unwrap();
}

/// What happens next, chosen when it is known what there is.
#[derive(Clone, Debug)]
struct Step {
    action: u8,
    who: usize,
    inodes: [u8; 3],
    names: [usize; 2],
    length: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (any::<u8>(), 0..3_usize, any::<[u8; 3]>(), [0..5_usize, 0..5_usize], 0..3_000_u64);
    let step = step.prop_map(|(action, who, inodes, names, length)| Step {
        action,
        who,
        inodes,
        names,
        length,
    });
    prop::collection::vec(step, 1..150)
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

impl Step {
    fn op(&self, folders: &[u64], inodes: &[u64]) -> (bool, Op) {
        let pick = |from: &[u64], at: usize| from[usize::from(self.inodes[at]) % from.len()];
        let (from, to, inode) = (pick(folders, 0), pick(folders, 1), pick(inodes, 2));
        let [name, other] = self.names.map(|at| NAMES[at]);
        let owner = [0, 10, 11][usize::from(self.inodes[0]) % 3];
        let led = |op| (true, op);
        let asked = |op| (false, op);
        match self.action % 30 {
            0..=4 => asked(mkdir(from, name, 0o777)),
            5..=8 => asked(create(from, name, 0o666)),
            9 => asked(link(inode, to, name)),
            10 | 11 => asked(unlink(from, name)),
            12 => asked(rmdir(from, name)),
            13..=16 => asked(mv(from, name, to, other)),
            17 => asked(exchange(from, name, to, other)),
            18 => asked(mv(from, name, from, other)),
            19 => asked(truncate(inode, self.length)),
            20 => asked(report(inode, self.length)),
            21 => asked(close(inode, self.length)),
            22 => asked(chown(inode, Some(owner), None)),
            23 => asked(open_write(inode)),
            24 => led(set_quota(Of::Inode(from), MAX, 4 + self.length % 40)),
            25 => led(set_quota(Of::Inode(from), self.length * 4, MAX)),
            26 => led(remove_quota(Of::Inode(from))),
            27 => led(set_quota(Of::Uid(owner), self.length * 4, 5 + self.length % 30)),
            28 => led(remove_quota(Of::Uid(owner))),
            _ => asked(Op::Create(pb::CreateOp {
                unnamed: true,
                write: true,
                ..open_or_create(from, "", 0o600)
            })),
        }
    }
}

/// Folders and all inodes that have names.
fn there(v: &Volume) -> (Vec<u64>, Vec<u64>) {
    let (mut folders, mut inodes) = (vec![ROOT], vec![ROOT]);
    let mut at = 0;
    while at < folders.len() {
        for entry in v.look(read_dir(folders[at], 0, 0)).unwrap().entries {
            let attr = entry.attr.unwrap();
            inodes.push(attr.inode);
            if attr.kind() == pb::FileKind::Directory {
                folders.push(attr.inode);
            }
        }
        at += 1;
    }
    (folders, inodes)
}

proptest! {
    /// After each step the volume's checker recounts all quotas.
    #[test]
    fn usage_is_what_a_recount_finds(steps in steps()) {
        let (mut v, root) = Volume::with_root();
        v.ask(&root, chmod(ROOT, 0o777)).unwrap();
        let users = [root, v.user(10, 100, &[]), v.user(11, 100, &[])];
        for step in &steps {
            let (folders, inodes) = there(&v);
            match step.action {
                // Steps of counts come between the others.
                200..=229 => {
                    let counting = v.look(list(true)).unwrap().quotas;
                    if !counting.is_empty() {
                        let at = usize::from(step.inodes[0]) % counting.len();
                        v.lead(next_step(&counting[at])).unwrap();
                    }
                }
                230..=240 => {
                    for orphan in v.orphans() {
                        // Those that may still get a name are refused.
                        let _ = v.lead(collect(&[orphan.inode]));
                    }
                }
                241..=248 => {
                    for cut in v.truncations() {
                        v.lead(finish_truncate(cut.inode, cut.truncate_version)).unwrap();
                    }
                }
                _ => {
                    let (is_led, op) = step.op(&folders, &inodes);
                    let _ = if is_led { v.lead(op) } else { v.ask(&users[step.who], op) };
                }
            }
        }
        count_all(&mut v);
        prop_assert_eq!(v.replayed().hash(), v.kv.hash());
    }
}
