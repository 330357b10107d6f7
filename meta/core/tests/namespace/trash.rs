//! The trash.

use ff2_meta_core::Kv;
use ff2_proto::pb::{self, Code, ns_request::Op};
use proptest::prelude::*;

use crate::{
    ops::*,
    volume::{Volume, Who},
};

const ROOT: u64 = 1;
const DAY_S: u64 = 86_400;

fn keep(seconds: u64) -> Op {
    Op::SetTrash(pb::SetTrashOp { keep_s: seconds })
}

fn empty(removed_by_ns: i64) -> Op {
    Op::EmptyTrash(pb::EmptyTrashOp { removed_by_ns, limit: 256 })
}

fn restore(entry: u64, path: &'static str) -> Op {
    Op::RestoreTrash(pb::RestoreTrashOp { entry, path: path.into() })
}

fn list(v: &Volume, under: &'static str) -> pb::NsReply {
    let op = pb::ListTrashOp { limit: 100, under: under.into(), ..Default::default() };
    v.look(Op::ListTrash(op)).unwrap()
}

/// Entries and paths.
fn paths(v: &Volume) -> Vec<(u64, String)> {
    let shown =
        |entry: &pb::TrashEntry| (entry.entry, String::from_utf8(entry.path.to_vec()).unwrap());
    list(v, "").trash.iter().map(shown).collect()
}

fn sums(v: &Volume) -> (u64, u64) {
    let sums = list(v, "").trash_sums.unwrap();
    (sums.entries, sums.bytes)
}

fn make(v: &mut Volume, who: &Who, op: Op) -> u64 {
    v.ask(who, op).unwrap().attr.unwrap().inode
}

fn with_trash() -> (Volume, Who) {
    let (mut v, root) = Volume::with_root();
    v.ask(&root, chmod(ROOT, 0o777)).unwrap();
    v.lead(keep(DAY_S)).unwrap();
    (v, root)
}

/// A file of so many bytes, closed.
fn file(v: &mut Volume, who: &Who, parent: u64, name: &str, size: u64) -> u64 {
    let inode = make(v, who, create(parent, name, 0o640));
    v.ask(who, close(inode, size)).unwrap();
    inode
}

#[test]
fn a_removed_file_is_kept_until_its_time_and_then_an_orphan() {
    let (mut v, root) = with_trash();
    let a = file(&mut v, &root, ROOT, "a", 100);
    let removed = v.ask(&root, unlink(ROOT, "a")).unwrap();
    assert_eq!(removed.replaced_attr.unwrap().nlink, 0, "as without a trash");
    assert_eq!(v.ask(&root, lookup(ROOT, "a")), Err(Code::NotFound));
    assert_eq!((paths(&v), sums(&v)), (vec![(1, "/a".into())], (1, 100)));
    assert!(v.orphans().is_empty());
    let removed_ns = list(&v, "").trash[0].removed_ns;
    assert_eq!(list(&v, "").trash[0].goes_ns, removed_ns + DAY_S as i64 * 1_000_000_000);
    assert_eq!(v.lead(empty(removed_ns - 1)).unwrap().trash_emptied, 0);
    let reply = v.lead(empty(removed_ns)).unwrap();
    assert_eq!((reply.trash_emptied, reply.end), (1, true));
    assert_eq!(sums(&v), (0, 0));
    assert_eq!(v.orphans().iter().map(|orphan| orphan.inode).collect::<Vec<_>>(), [a]);
    v.lead(collect(&[a])).unwrap();
}

#[test]
fn what_another_name_is_renamed_over_is_kept_and_what_has_names_left_is_not() {
    let (mut v, root) = with_trash();
    file(&mut v, &root, ROOT, "old", 5);
    file(&mut v, &root, ROOT, "new", 6);
    v.ask(&root, mv(ROOT, "new", ROOT, "old")).unwrap();
    assert_eq!(paths(&v), [(1, "/old".into())]);
    let twice = file(&mut v, &root, ROOT, "twice", 7);
    v.ask(&root, link(twice, ROOT, "again")).unwrap();
    v.ask(&root, unlink(ROOT, "twice")).unwrap();
    assert_eq!(sums(&v).0, 1, "it has another name");
    v.ask(&root, unlink(ROOT, "again")).unwrap();
    assert_eq!(paths(&v)[1], (2, "/again".into()));
    v.ask(&root, symlink(ROOT, "link", "x")).unwrap();
    v.ask(&root, unlink(ROOT, "link")).unwrap();
    assert_eq!(sums(&v).0, 2, "symlinks are not kept");
    let unnamed = pb::CreateOp { unnamed: true, write: true, ..open_or_create(ROOT, "", 0o600) };
    let unnamed = make(&mut v, &root, Op::Create(unnamed));
    v.ask(&root, close(unnamed, 3)).unwrap();
    assert_eq!(sums(&v).0, 2, "nor is what never had a name");
}

#[test]
fn off_is_as_before_and_what_was_in_the_trash_stays_for_its_time() {
    let (mut v, root) = with_trash();
    file(&mut v, &root, ROOT, "a", 1);
    file(&mut v, &root, ROOT, "b", 2);
    v.ask(&root, unlink(ROOT, "a")).unwrap();
    let sums = v.lead(keep(0)).unwrap().trash_sums.unwrap();
    assert_eq!((sums.keep_s, sums.kept_s, sums.entries), (0, DAY_S, 1));
    v.ask(&root, unlink(ROOT, "b")).unwrap();
    assert_eq!((paths(&v).len(), v.orphans().len()), (1, 1));
    v.lead(restore(1, "")).unwrap();
    assert_eq!(v.lead(keep(u64::MAX)), Err(Code::InvalidArgument));
}

#[test]
fn a_file_comes_back_with_the_folders_that_are_missing() {
    let (mut v, _) = with_trash();
    let user = v.user(10, 100, &[]);
    let a = make(&mut v, &user, mkdir(ROOT, "a", 0o750));
    let b = make(&mut v, &user, mkdir(a, "b", 0o700));
    let f = file(&mut v, &user, b, "f", 9);
    let g = file(&mut v, &user, b, "g", 1);
    for op in [unlink(b, "f"), unlink(b, "g"), rmdir(a, "b"), rmdir(ROOT, "a")] {
        v.ask(&user, op).unwrap();
    }
    assert_eq!(paths(&v), [(1, "/a/b/f".into()), (2, "/a/b/g".into())]);
    assert_eq!(list(&v, "/a/b").trash.len(), 2);
    assert_eq!(list(&v, "/b").trash.len(), 0);
    let back = v.lead(restore(1, "")).unwrap();
    assert_eq!(back.trash[0].path, "/a/b/f");
    let found = v.ask(&user, lookup(b, "f")).unwrap().attr.unwrap();
    assert_eq!((found.inode, found.size, found.mode, found.nlink), (f, 9, 0o640, 1));
    let folder = v.ask(&user, lookup(a, "b")).unwrap().attr.unwrap();
    assert_eq!((folder.inode, folder.mode, folder.uid, folder.nlink), (b, 0o700, 10, 2));
    assert_eq!(v.ask(&user, lookup(ROOT, "a")).unwrap().attr.unwrap().inode, a);
    // Another one has the name of the next by now.
    file(&mut v, &user, b, "g", 1);
    assert_eq!(v.lead(restore(2, "")), Err(Code::Exists));
    assert_eq!(v.lead(restore(2, "/no/h")), Err(Code::NotFound));
    v.lead(restore(2, "/a/h")).unwrap();
    assert_eq!(v.ask(&user, lookup(a, "h")).unwrap().attr.unwrap().inode, g);
    assert_eq!(v.lead(restore(2, "")), Err(Code::NotFound), "it is back already");
    assert_eq!(sums(&v), (0, 0));
}

#[test]
fn a_folder_that_was_made_anew_is_taken_for_the_removed_one() {
    let (mut v, root) = with_trash();
    let a = make(&mut v, &root, mkdir(ROOT, "a", 0o755));
    file(&mut v, &root, a, "f", 9);
    v.ask(&root, unlink(a, "f")).unwrap();
    v.ask(&root, rmdir(ROOT, "a")).unwrap();
    let anew = make(&mut v, &root, mkdir(ROOT, "a", 0o755));
    v.lead(restore(1, "")).unwrap();
    v.ask(&root, lookup(anew, "f")).unwrap();
    v.ask(&root, unlink(anew, "f")).unwrap();
    v.ask(&root, rmdir(ROOT, "a")).unwrap();
    file(&mut v, &root, ROOT, "a", 0);
    let entry = paths(&v)[0].0;
    assert_eq!(v.lead(restore(entry, "")), Err(Code::Exists), "a file is in the way");
    // Its folder goes with the rest of the trash; what was removed from it earlier does so before.
    let now = v.now_ns;
    v.lead(empty(now)).unwrap();
    assert!(paths(&v).is_empty());
}

#[test]
fn who_has_it_open_goes_on_and_what_is_written_counts() {
    let (mut v, root) = with_trash();
    let a = make(&mut v, &root, create(ROOT, "a", 0o644));
    v.ask(&root, unlink(ROOT, "a")).unwrap();
    v.ask(&root, report(a, 50)).unwrap();
    assert_eq!(sums(&v), (1, 50));
    assert_eq!(v.ask(&root, link(a, ROOT, "b")), Err(Code::NotFound), "as without a trash");
    v.ask(&root, close(a, 70)).unwrap();
    let read = Op::Open(pb::OpenOp { inode: a, read: true, ..Default::default() });
    assert_eq!(v.ask(&root, read).unwrap().attr.unwrap().nlink, 1, "it is none that goes");
    v.lead(restore(1, "")).unwrap();
    assert_eq!(v.ask(&root, lookup(ROOT, "a")).unwrap().attr.unwrap().size, 70);
}

#[test]
fn quotas_count_it_no_more_and_it_comes_back_only_where_there_is_room() {
    let (mut v, root) = with_trash();
    let q = make(&mut v, &root, mkdir(ROOT, "q", 0o777));
    let key = Some(pb::QuotaKey { of: Some(pb::quota_key::Of::Inode(q)) });
    let bytes = Some(pb::QuotaLimit { max: Some(100) });
    v.lead(Op::SetQuota(pb::SetQuotaOp { key, bytes, inodes: None, path: "/q".into() })).unwrap();
    let used = |v: &Volume| {
        let quotas = v.look(Op::ListQuotas(pb::ListQuotasOp::default())).unwrap().quotas;
        quotas.first().map(|quota| (quota.inodes, quota.bytes))
    };
    file(&mut v, &root, q, "a", 80);
    v.ask(&root, unlink(q, "a")).unwrap();
    assert_eq!(used(&v), Some((1, 0)));
    file(&mut v, &root, q, "b", 60);
    assert_eq!(v.lead(restore(1, "")), Err(Code::QuotaExceeded));
    v.lead(restore(1, "/a")).unwrap();
    assert_eq!(used(&v), Some((2, 60)));
    // One that is written still counts, and is counted once when it is back.
    let c = make(&mut v, &root, create(q, "c", 0o644));
    v.ask(&root, unlink(q, "c")).unwrap();
    assert_eq!(used(&v), Some((3, 60)));
    let entry = paths(&v)[0].0;
    v.lead(restore(entry, "")).unwrap();
    assert_eq!(used(&v), Some((3, 60)));
    v.ask(&root, close(c, 1)).unwrap();
    // The folder goes with its quota, and comes back without.
    for op in [unlink(q, "b"), unlink(q, "c"), rmdir(ROOT, "q")] {
        v.ask(&root, op).unwrap();
    }
    assert_eq!(used(&v), None);
    let entry = paths(&v)[0].0;
    v.lead(restore(entry, "")).unwrap();
    assert_eq!(v.ask(&root, lookup(ROOT, "q")).unwrap().attr.unwrap().quota, 0);
}

#[test]
fn users_see_their_own_and_take_them_back() {
    let (mut v, root) = with_trash();
    let [one, two] = [10, 11].map(|uid| v.user(uid, 100, &[]));
    let a = file(&mut v, &one, ROOT, "a", 5);
    file(&mut v, &two, ROOT, "b", 6);
    v.ask(&one, unlink(ROOT, "a")).unwrap();
    v.ask(&two, unlink(ROOT, "b")).unwrap();
    let names = |v: &mut Volume, who: &Who, inode| -> Result<Vec<String>, Code> {
        let read = Op::ReadDir(pb::ReadDirOp { inode, limit: 1, ..Default::default() });
        let mut names = vec![];
        let mut reply = v.ask(who, read)?;
        loop {
            let last = reply.entries.last().map_or(0, |entry| entry.cookie);
            names.extend(reply.entries.iter().map(|e| String::from_utf8(e.name.to_vec()).unwrap()));
            if reply.end {
                return Ok(names);
            }
            let next = pb::ReadDirOp { inode, limit: 1, after_cookie: last, plus: false };
            reply = v.ask(who, Op::ReadDir(next))?;
        }
    };
    assert_eq!(names(&mut v, &root, ROOT), Ok(vec![]), "it is not listed");
    let trash = v.ask(&one, lookup(ROOT, ".trash")).unwrap().attr.unwrap().inode;
    assert_eq!(names(&mut v, &root, trash).unwrap(), ["10", "11"]);
    assert_eq!(names(&mut v, &one, trash).unwrap(), ["10"]);
    let mine = v.ask(&one, lookup(trash, "10")).unwrap().attr.unwrap();
    assert_eq!((mine.mode, mine.uid), (0o700, 10));
    assert_eq!(names(&mut v, &one, mine.inode).unwrap(), ["1-a"]);
    assert_eq!(names(&mut v, &root, mine.inode).unwrap(), ["1-a"]);
    for op in
        [unlink(mine.inode, "1-a"), mv(mine.inode, "1-a", ROOT, "x"), lookup(mine.inode, "1-a")]
    {
        assert_eq!(v.ask(&two, op), Err(Code::AccessDenied));
    }
    // Nothing else is done there.
    for op in [
        touch(mine.inode, "new", 0o644),
        mkdir(trash, "12", 0o755),
        link(a, mine.inode, "l"),
        chmod(mine.inode, 0o777),
        set_xattr(trash, "user.a", b"v"),
        exchange(mine.inode, "1-a", ROOT, "a"),
        mv(ROOT, "c", mine.inode, "c"),
    ] {
        assert_eq!(v.ask(&root, op.clone()), Err(Code::ReadOnly), "{op:?}");
    }
    for (op, code) in [
        (mkdir(ROOT, ".trash", 0o755), Code::Exists),
        (touch(ROOT, ".trash", 0o644), Code::IsDirectory),
        (rmdir(ROOT, ".trash"), Code::NotEmpty),
        (mv(ROOT, ".trash", ROOT, "t"), Code::NotPermitted),
        (rmdir(trash, "10"), Code::NotFound),
        (unlink(mine.inode, "1-b"), Code::NotFound),
        (unlink(mine.inode, "01-a"), Code::NotFound),
    ] {
        assert!(
            v.ask(&root, op.clone()).is_err_and(|found| found == code || code == Code::NotFound),
            "{op:?}"
        );
    }
    let path = pb::ResolveOp { base: ROOT, path: "/.trash/10/1-a".into(), follow_last: false };
    assert_eq!(v.ask(&one, Op::Resolve(path)).unwrap().attr.unwrap().inode, a);
    // Back, over another file, which is in the trash then.
    file(&mut v, &one, ROOT, "c", 7);
    let no = pb::RenameOp { no_replace: true, ..rename(mine.inode, "1-a", ROOT, "c") };
    assert_eq!(v.ask(&one, Op::Rename(no)), Err(Code::Exists));
    v.ask(&one, mv(mine.inode, "1-a", ROOT, "c")).unwrap();
    assert_eq!(v.ask(&one, lookup(ROOT, "c")).unwrap().attr.unwrap().inode, a);
    assert_eq!(names(&mut v, &one, mine.inode).unwrap(), ["3-c"]);
    // Removed for good.
    v.ask(&one, unlink(mine.inode, "3-c")).unwrap();
    assert_eq!((names(&mut v, &one, mine.inode).unwrap().len(), v.orphans().len()), (0, 1));
    v.lead(keep(0)).unwrap();
    let rest = v.now_ns;
    v.lead(empty(rest)).unwrap();
    assert_eq!(v.ask(&one, lookup(ROOT, ".trash")), Err(Code::NotFound), "there is none any more");
}

#[test]
fn a_confined_connection_does_not_come_there() {
    let (mut v, root) = with_trash();
    let home = make(&mut v, &root, mkdir(ROOT, "home", 0o777));
    let trash = v.ask(&root, lookup(ROOT, ".trash")).unwrap().attr.unwrap().inode;
    let request = pb::NsRequest {
        cred: Some(root.cred.clone()),
        op: Some(lookup(trash, "0")),
        ..Default::default()
    };
    let reply = ff2_meta_core::namespace::query_within(&v.kv, &request, Some(0), home);
    assert_eq!(reply.status.unwrap().code(), Code::StaleInode);
}

#[test]
fn it_needs_a_cluster_that_knows_it() {
    let (mut v, _) = Volume::with_root();
    let status = v.at_level(1, keep(5)).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.detail.contains("ff2ctl upgrade finish"), "{}", status.detail);
}

#[test]
fn fsck_misses_every_entry() {
    let (mut v, root) = with_trash();
    let d = make(&mut v, &root, mkdir(ROOT, "d", 0o755));
    file(&mut v, &root, d, "f", 3);
    v.ask(&root, unlink(d, "f")).unwrap();
    v.ask(&root, rmdir(ROOT, "d")).unwrap();
    for key in [
        &b"Y\0\0\0\0\0\0\0\x01"[..],
        b"Y\0\0\0\0\0\0\0\x02",
        b"y\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01",
    ] {
        let mut broken = v.kv.clone();
        broken.delete(key);
        assert!(!ff2_meta_core::namespace::fsck(&broken).is_empty(), "{key:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever is removed, emptied and restored, in any order: the keys stay sound (the volume looks after every
    /// command), and no file is lost before its time.
    #[test]
    fn no_file_is_lost(steps in prop::collection::vec((0..6_u8, 0..3_usize, 0..3_usize), 1..80)) {
        let (mut v, root) = with_trash();
        let folders = [ROOT, make(&mut v, &root, mkdir(ROOT, "d", 0o755))];
        let names = ["a", "b", "c"];
        let mut made = 0_usize;
        let mut gone = 0_usize;
        for (action, name, other) in steps {
            let folder = folders[other % 2];
            match action {
                0 | 1 => {
                    if v.ask(&root, create(folder, names[name], 0o644)).is_ok() {
                        made += 1;
                    }
                }
                2 => drop(v.ask(&root, unlink(folder, names[name]))),
                3 => drop(v.ask(&root, mv(folder, names[name], folders[name % 2], names[other]))),
                4 => {
                    if let Some((entry, _)) = paths(&v).get(name).cloned() {
                        drop(v.lead(restore(entry, "")));
                    }
                }
                _ => {
                    // The oldest ones: none of them was removed at the time of another.
                    let now = v.now_ns;
                    let step = ff2_meta_core::namespace::next_to_go_from_trash(&v.kv, now, name + 1);
                    let Some(removed_by_ns) = step.unwrap() else { continue };
                    let op = pb::EmptyTrashOp { removed_by_ns, limit: 256 };
                    gone += v.lead(Op::EmptyTrash(op)).unwrap().trash_emptied as usize;
                }
            }
        }
        let inodes = v.look(Op::StatFs(pb::StatFsOp { inode: 0 })).unwrap().statfs.unwrap().inodes_used;
        prop_assert_eq!(inodes as usize, made + 2, "none was collected");
        prop_assert_eq!(v.orphans().len(), gone);
    }
}
