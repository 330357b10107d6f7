//! Faults are planted in the keys and mended: by what `ff2ctl fsck --repair` does, looks and commands in turns.

use bytes::Bytes;
use ff2_meta_core::{
    Kv, KvRead, MemKv,
    namespace::{Mend, Problem, fsck, mends, stamp, touched},
};
use ff2_proto::{
    LEVEL,
    pb::{self, Code, ns_request::Op},
};
use prost::Message;

use crate::{
    fsck::eventful,
    ops::*,
    volume::{LAYOUT, Volume, Who},
};

const ROOT: u64 = 1;

fn key(tag: u8, number: u64, rest: &[u8]) -> Vec<u8> {
    [&[tag], &number.to_be_bytes()[..], rest].concat()
}

fn dentry(parent: u64, name: &str) -> Vec<u8> {
    key(b'D', parent, name.as_bytes())
}

fn record<M: Message + Default>(v: &Volume, key: &[u8]) -> M {
    M::decode(v.kv.get(key).expect("a planted key")).unwrap()
}

/// Changes what is stored of an inode, behind the machine's back.
fn plant_inode(v: &mut Volume, inode: u64, change: impl Fn(&mut pb::InodeRecord)) {
    let key = key(b'I', inode, b"");
    let mut stored: pb::InodeRecord = record(v, &key);
    change(&mut stored);
    v.kv.put(&key, stored.encode_to_vec().into());
}

fn plant_attr(v: &mut Volume, inode: u64, change: impl Fn(&mut pb::Attr)) {
    plant_inode(v, inode, |stored| change(stored.attr.as_mut().unwrap()));
}

fn plant_name(v: &mut Volume, parent: u64, name: &str, entry: pb::DentryRecord) {
    v.kv.put(&dentry(parent, name), entry.encode_to_vec().into());
    let cookie = key(b'C', parent, &entry.cookie.to_be_bytes());
    v.kv.put(&cookie, Bytes::copy_from_slice(name.as_bytes()));
}

/// A name and its cookie are gone, and nothing else.
fn lose_name(v: &mut Volume, parent: u64, name: &str) -> pb::DentryRecord {
    let entry: pb::DentryRecord = record(v, &dentry(parent, name));
    v.kv.delete(&dentry(parent, name));
    v.kv.delete(&key(b'C', parent, &entry.cookie.to_be_bytes()));
    entry
}

fn apply(v: &mut Volume, op: pb::MendOp) -> Result<String, pb::Status> {
    let request = pb::NsRequest { volume: 1, op: Some(Op::Mend(op)), ..Default::default() };
    let touched = touched(&v.kv, &request);
    v.now_ns += 10;
    let command = stamp(request, v.now_ns, 7, Some(LAYOUT));
    let command = pb::NsCommand { level: LEVEL, touched, told: true, ..command };
    let answer = v.apply(&command.encode_to_vec());
    let reply = pb::NsReply::decode(answer.as_slice()).unwrap();
    match reply.status {
        None => Ok(reply.mended),
        Some(status) => Err(status),
    }
}

fn plan(kv: &MemKv) -> Vec<Mend> {
    mends(kv, &fsck(kv))
}

/// Looks and mends until there is nothing to do; returns what was done. The first look tells what its mends do,
/// and a mend that comes twice does nothing the second time.
fn repair(v: &mut Volume) -> Vec<String> {
    let mut done = Vec::new();
    for round in 0.. {
        let plan = plan(&v.kv);
        let before = done.len();
        for (place, Mend { op, does }) in plan.into_iter().enumerate() {
            let Ok(mended) = apply(v, op.clone()) else { continue };
            assert!(round > 0 || place > 0 || mended == does, "{mended} instead of {does}");
            if mended.is_empty() {
                continue;
            }
            let hash = v.kv.hash();
            assert_eq!(apply(v, op).unwrap_or_default(), "", "again, after {mended}");
            assert_eq!(v.kv.hash(), hash, "the second time changes something");
            done.push(mended);
        }
        assert!(round < 9, "it does not end: {done:#?}");
        if done.len() == before {
            break;
        }
    }
    done
}

/// All is well afterwards; what was done, in one text.
fn repaired(v: &mut Volume) -> String {
    assert_ne!(fsck(&v.kv), [], "a fault is planted");
    let done = repair(v).join("\n");
    assert_eq!(fsck(&v.kv), [], "after\n{done}");
    done
}

fn at(v: &Volume, path: &str) -> Option<pb::Attr> {
    v.look(resolve(path, false)).ok().map(|reply| reply.attr.unwrap())
}

/// `/d/f`, which is `/g` as well, `/d/e/h` and the small file `/d/s`.
struct Tree {
    v: Volume,
    root: Who,
    d: u64,
    e: u64,
    f: u64,
    h: u64,
}

fn tree() -> Tree {
    let (mut v, root) = Volume::with_root();
    let mut made = |op| v.ask(&root, op).unwrap().attr.unwrap().inode;
    let d = made(mkdir(ROOT, "d", 0o750));
    let e = made(mkdir(d, "e", 0o755));
    let f = made(create(d, "f", 0o640));
    made(link(f, ROOT, "g"));
    let h = made(touch(e, "h", 0o600));
    v.ask(&root, set_xattr(h, "user.a", b"value")).unwrap();
    v.ask(&root, close(f, 100)).unwrap();
    Tree { v, root, d, e, f, h }
}

#[test]
fn what_lost_its_name_comes_to_lost_and_found() {
    let Tree { mut v, root, d, e, h, .. } = tree();
    lose_name(&mut v, e, "h");
    let done = repaired(&mut v);
    assert!(
        done.contains(&format!("inode {h} had no name, and is /lost+found/#{h} now")),
        "{done}"
    );
    assert!(done.contains(&format!("inode {e} counted 1 entries, there are 0")), "{done}");
    assert_eq!(at(&v, &format!("/lost+found/#{h}")).unwrap().inode, h);
    let folder = at(&v, "/lost+found").unwrap();
    assert_eq!((folder.mode, folder.uid), (0o700, 0));
    assert_eq!(v.look(get_xattr(h, "user.a")).unwrap().xattr_value, "value");

    // A whole folder, when somebody has made such a name there.
    let lost = folder.inode;
    v.ask(&root, touch(lost, &format!("#{d}"), 0o600)).unwrap();
    lose_name(&mut v, ROOT, "d");
    let done = repaired(&mut v);
    assert!(done.contains(&format!("/lost+found/#{d}.1")), "{done}");
    assert_eq!(at(&v, &format!("/lost+found/#{d}.1/e")).unwrap().inode, e);
    v.ask(&root, mv(lost, &format!("#{d}.1"), ROOT, "d")).unwrap();
    assert_eq!(at(&v, "/d/e").unwrap().inode, e);
}

#[test]
fn an_inode_that_says_it_has_no_name_and_is_no_orphan_is_found() {
    let Tree { mut v, e, h, .. } = tree();
    lose_name(&mut v, e, "h");
    plant_attr(&mut v, h, |attr| attr.nlink = 0);
    repaired(&mut v);
    assert_eq!(at(&v, &format!("/lost+found/#{h}")).unwrap().nlink, 1);
    // One that lost its name as it should is no fault.
    let (mut v, root) = Volume::with_root();
    let open = v.ask(&root, create(ROOT, "open", 0o600)).unwrap().attr.unwrap().inode;
    v.ask(&root, unlink(ROOT, "open")).unwrap();
    assert_eq!(plan(&v.kv), []);
    assert_eq!(v.orphans()[0].inode, open);
}

#[test]
fn a_name_that_leads_nowhere_goes_with_what_is_left_of_its_inode() {
    let Tree { mut v, e, h, .. } = tree();
    v.kv.delete(&key(b'I', h, b""));
    v.kv.put(&key(b'B', h, b""), Bytes::from_static(b"bytes"));
    let done = repaired(&mut v);
    assert!(done.contains(&format!("name \"h\" in directory {e} leads to no inode: removed")));
    assert!(
        done.contains(&format!("inode {h} is gone, and 1 extended attributes, 5 bytes")),
        "{done}"
    );
    assert!(done.contains("sums missed -1 inodes and 0 bytes"), "{done}");
    assert_eq!(at(&v, "/d/e/h"), None);
    assert_eq!(at(&v, "/lost+found"), None, "nothing is there to be found");
}

#[test]
fn wrong_counts_are_set() {
    let Tree { mut v, root, d, f, .. } = tree();
    for nlink in [1, 7] {
        plant_attr(&mut v, f, |attr| attr.nlink = nlink);
        let done = repaired(&mut v);
        assert!(done.contains(&format!("inode {f} counted {nlink} names, there are 2")), "{done}");
        assert_eq!(v.attr(f).nlink, 2);
    }
    for entries in [0, 9] {
        plant_inode(&mut v, d, |stored| stored.entries = entries);
        plant_attr(&mut v, d, |attr| attr.nlink = 2);
        let done = repaired(&mut v);
        assert!(done.contains(&format!("counted {entries} entries, there are 2; counted 2 links")));
        assert_eq!(v.attr(d).nlink, 3);
    }
    plant_attr(&mut v, ROOT, |attr| attr.nlink = 1);
    repaired(&mut v);
    assert_eq!(v.attr(ROOT).nlink, 3);
    // It is as good as any now.
    v.ask(&root, unlink(d, "f")).unwrap();
    v.ask(&root, unlink(ROOT, "g")).unwrap();
    assert_eq!(v.orphans()[0].inode, f);
}

#[test]
fn a_directory_says_where_it_is() {
    let Tree { mut v, d, e, .. } = tree();
    for parent in [ROOT, 4_711] {
        plant_inode(&mut v, e, |stored| stored.parent = parent);
        let done = repaired(&mut v);
        assert!(
            done.contains(&format!("said {parent} for the directory above, it is {d}")),
            "{done}"
        );
    }
    // Two names: the one stays that it says.
    let entry: pb::DentryRecord = record(&v, &dentry(d, "e"));
    plant_name(&mut v, ROOT, "again", pb::DentryRecord { cookie: 900, ..entry });
    let done = repaired(&mut v);
    assert!(
        done.contains("name \"again\" in directory 1 is the second one of a directory: removed")
    );
    assert_eq!((at(&v, "/d/e").unwrap().inode, at(&v, "/again")), (e, None));
}

#[test]
fn a_directory_that_is_gone_is_made_anew_for_the_names_in_it() {
    let Tree { mut v, root, d, e, f, .. } = tree();
    v.kv.delete(&key(b'I', d, b""));
    let done = repaired(&mut v);
    assert!(done.contains(&format!("directory {d} was gone with 2 names in it")), "{done}");
    let found = at(&v, &format!("/lost+found/#{d}")).unwrap();
    assert_eq!((found.inode, found.mode, found.nlink), (d, 0o700, 3));
    assert_eq!(at(&v, &format!("/lost+found/#{d}/e/h")).unwrap().mode, 0o600);
    assert_eq!(at(&v, &format!("/lost+found/#{d}/f")).unwrap().inode, f);
    v.ask(&root, touch(d, "new", 0o600)).unwrap();
    assert_eq!(v.attr(e).nlink, 2);
}

#[test]
fn directories_that_hang_in_each_other_are_found() {
    let Tree { mut v, d, e, f, .. } = tree();
    let entry = lose_name(&mut v, ROOT, "d");
    plant_name(&mut v, e, "d", entry);
    plant_inode(&mut v, d, |stored| stored.parent = e);
    let done = repaired(&mut v);
    assert!(done.contains("hung in itself"), "{done}");
    let lost = v.look(read_dir(at(&v, "/lost+found").unwrap().inode, 0, 9)).unwrap().entries;
    assert_eq!(lost.len(), 1, "the other one is in it: {lost:?}");
    assert_eq!(v.attr(f).nlink, 2);
    // In itself alone.
    let Tree { mut v, d, e, .. } = tree();
    let entry = lose_name(&mut v, d, "e");
    plant_name(&mut v, e, "e", entry);
    plant_inode(&mut v, e, |stored| stored.parent = e);
    repaired(&mut v);
    assert_eq!(at(&v, &format!("/lost+found/#{e}/h")).unwrap().mode, 0o600);
}

#[test]
fn listings_are_in_order_again() {
    let listed = |v: &Volume, dir| -> Vec<String> {
        let entries = v.look(read_dir(dir, 0, 9)).unwrap().entries;
        entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into()).collect()
    };
    // Not listed; listed twice; under a number that was not given out.
    let Tree { mut v, d, .. } = tree();
    let entry: pb::DentryRecord = record(&v, &dentry(d, "e"));
    v.kv.delete(&key(b'C', d, &entry.cookie.to_be_bytes()));
    assert!(repaired(&mut v).contains("was in no listing of it: listed"));
    assert_eq!(listed(&v, d), ["f", "e"]);
    v.kv.put(&key(b'C', d, &3_u64.to_be_bytes()), Bytes::from_static(b"f"));
    assert!(repaired(&mut v).contains("had \"f\", which is not there: removed"));
    let entry = lose_name(&mut v, d, "f");
    plant_name(&mut v, d, "f", pb::DentryRecord { cookie: u64::MAX, ..entry });
    assert!(repaired(&mut v).contains("was in no listing of it: listed"));
    assert_eq!(listed(&v, d), ["e", "f"]);
    // Of another kind.
    let mut entry: pb::DentryRecord = record(&v, &dentry(d, "e"));
    entry.kind = pb::FileKind::Regular.into();
    plant_name(&mut v, d, "e", entry);
    assert!(repaired(&mut v).contains("said another kind than its inode: set"));
}

#[test]
fn what_changed_since_it_was_found_is_left_alone() {
    let Tree { mut v, root, d, e, f, .. } = tree();
    let h = lose_name(&mut v, e, "h").inode;
    plant_attr(&mut v, f, |attr| attr.nlink = 5);
    let mends = plan(&v.kv);
    // Meanwhile somebody makes a name in one folder, and takes one of the file away.
    let request = |op| pb::NsRequest {
        volume: 1,
        session: root.session,
        cred: Some(root.cred.clone()),
        seq: 900,
        op: Some(op),
        ..Default::default()
    };
    for (seq, op) in [(901, mkdir(e, "new", 0o755)), (902, unlink(ROOT, "g"))] {
        let request = pb::NsRequest { seq, ..request(op) };
        let command = pb::NsCommand { level: LEVEL, ..stamp(request, 5_000, 7, Some(LAYOUT)) };
        let answer = v.apply(&command.encode_to_vec());
        assert_eq!(pb::NsReply::decode(answer.as_slice()).unwrap().status, None);
    }
    let done: Vec<String> = mends.into_iter().map(|mend| apply(&mut v, mend.op).unwrap()).collect();
    let made = done.iter().filter(|done| !done.is_empty()).count();
    assert_eq!(made, 1, "the lost file alone is as it was found: {done:?}");
    let done = repaired(&mut v);
    assert!(done.contains("counted 4 names, there are 1"), "{done}");
    assert_eq!((v.attr(f).nlink, v.attr(e).nlink, v.attr(d).nlink), (1, 3, 3));
    assert!(at(&v, &format!("/lost+found/#{h}")).is_some() && at(&v, "/d/e/new").is_some());
}

#[test]
fn sums_are_mended_once() {
    let Tree { mut v, root, .. } = tree();
    let mut volume: pb::VolumeRecord = record(&v, b"V");
    (volume.inodes, volume.bytes) = (volume.inodes + 3, volume.bytes - 7);
    v.kv.put(b"V", volume.encode_to_vec().into());
    let [Mend { op, .. }] = &plan(&v.kv)[..] else { panic!("one mend") };
    // They change on, and the difference does not.
    let request = pb::NsRequest {
        session: root.session,
        cred: Some(root.cred),
        seq: 900,
        op: Some(mkdir(ROOT, "new", 0o755)),
        ..Default::default()
    };
    v.apply(&stamp(request, 5_000, 7, Some(LAYOUT)).encode_to_vec());
    assert!(apply(&mut v, op.clone()).unwrap().contains("missed -3 inodes and 7 bytes"));
    assert_eq!(fsck(&v.kv), []);
    assert_eq!(apply(&mut v, op.clone()).unwrap(), "");
    assert_eq!(fsck(&v.kv), []);
}

#[test]
fn nothing_is_mended_that_cannot_be_read_or_has_no_place() {
    let Tree { mut v, root, e, .. } = tree();
    lose_name(&mut v, e, "h");
    let mut unreadable = v.kv.clone();
    unreadable.put(&key(b'D', 2, b"x"), Bytes::from_static(b"\xff"));
    assert_eq!(plan(&unreadable), []);
    assert_eq!(plan(&MemKv::new()), []);

    let request = pb::NsRequest {
        session: root.session,
        cred: Some(root.cred),
        seq: 900,
        op: Some(touch(ROOT, "lost+found", 0o600)),
        ..Default::default()
    };
    let command = stamp(request, 5_000, 7, Some(LAYOUT));
    v.apply(&command.encode_to_vec());
    let last = plan(&v.kv).pop().unwrap();
    assert!(last.does.contains("cannot be mended"), "{last:?}");
    let refused = apply(&mut v, last.op.clone()).unwrap_err();
    assert!(refused.detail.contains("rename it"), "{refused:?}");
    let (level, op) = (LEVEL - 1, Op::Mend(last.op));
    assert!(v.at_level(level, op).unwrap_err().detail.contains("upgrade finish"));
    let nothing = Op::Mend(pb::MendOp::default());
    assert_eq!(v.at_level(LEVEL, nothing).unwrap_err().code(), Code::InvalidArgument);
}

/// Any one key of the tree is lost: what is left is whole again, and all inodes but that one are there.
#[test]
fn a_lost_key_costs_nothing_else() {
    let v = eventful();
    let of_tree =
        |key: &&Bytes| b"IDC".contains(&key[0]) && key[..] != crate::mend::key(b'I', ROOT, b"");
    for lost in v.kv.pairs().map(|(key, _)| key).filter(of_tree) {
        let mut damaged = v.again();
        damaged.kv.delete(lost);
        repair(&mut damaged);
        let left = fsck(&damaged.kv);
        // Locks, writers and quotas are not mended.
        let is_of_names = |problem: &&Problem| matches!(problem, Problem::Name { .. });
        assert_eq!(left.iter().find(is_of_names), None, "without {lost:?}: {left:?}");
        if lost[0] != b'I' {
            assert_eq!(left, [], "without {lost:?}");
        }
        for (key, _) in v.kv.pairs().filter(|(key, _)| key[0] == b'I' && *key != lost) {
            assert!(damaged.kv.get(key).is_some(), "{key:?} is gone with {lost:?}");
        }
    }
}
