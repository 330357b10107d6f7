//! Snapshots: what they show, whatever becomes of the volume, and that nobody changes them.

use std::collections::BTreeMap;

use ff2_proto::{
    ROOT_INODE, SNAPSHOTS_FOLDER,
    pb::{self, Code, FileKind, SnapshotState, SnapshotStep, ns_request::Op},
};

use crate::{
    ops::{create, link, lookup, mkdir, rename, rmdir, symlink, touch, unlink},
    volume::{Volume, Who},
};

const ROOT: u64 = ROOT_INODE.0;

fn step(volume: &mut Volume, step: SnapshotStep, name: &str, id: u32) -> Result<u32, Code> {
    let op = pb::StepSnapshotOp { step: step.into(), name: name.to_owned().into(), id };
    let reply = volume.lead(Op::StepSnapshot(op))?;
    Ok(reply.snapshots.first().map_or(0, |record| record.id))
}

fn make(volume: &mut Volume, name: &str) -> u32 {
    let id = step(volume, SnapshotStep::Begin, name, 0).unwrap();
    step(volume, SnapshotStep::Cut, "", id).unwrap()
}

fn remove(volume: &mut Volume, name: &str) {
    let id = step(volume, SnapshotStep::Remove, name, 0).unwrap();
    while list(volume).iter().any(|r| r.id == id && r.state() == SnapshotState::Removing) {
        step(volume, SnapshotStep::PassOn, "", id).unwrap();
    }
    step(volume, SnapshotStep::Forget, "", id).unwrap();
    assert!(list(volume).iter().all(|record| record.id != id));
}

fn list(volume: &Volume) -> Vec<pb::SnapshotRecord> {
    volume.look(Op::ListSnapshots(pb::ListSnapshotsOp {})).unwrap().snapshots
}

fn folder(volume: &Volume) -> u64 {
    let name = std::str::from_utf8(SNAPSHOTS_FOLDER).unwrap();
    volume.look(lookup(ROOT, name)).unwrap().attr.unwrap().inode
}

fn root_of(volume: &Volume, name: &str) -> Result<u64, Code> {
    Ok(volume.look(lookup(folder(volume), name))?.attr.unwrap().inode)
}

fn entries(volume: &Volume, inode: u64) -> Vec<pb::Entry> {
    let (mut found, mut after_cookie) = (Vec::new(), 0);
    loop {
        let op = pb::ReadDirOp { inode, after_cookie, limit: 3, plus: true };
        let page = volume.look(Op::ReadDir(op)).unwrap();
        found.extend(page.entries);
        after_cookie = found.last().map_or(0, |entry: &pb::Entry| entry.cookie);
        if page.end {
            return found;
        }
    }
}

/// All that there is below a folder, as it shows itself: attributes, targets, extended attributes.
fn all_of(volume: &Volume, inode: u64) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![(String::new(), inode)];
    while let Some((path, inode)) = left.pop() {
        let attr = volume.attr(inode);
        if attr.kind() == FileKind::Directory {
            for entry in entries(volume, inode) {
                let name = String::from_utf8(entry.name.to_vec()).unwrap();
                let listed = entry.attr.unwrap();
                let named = volume.look(lookup(inode, &name)).unwrap().attr.unwrap();
                assert_eq!(listed, named, "a listing shows what a lookup does");
                left.push((format!("{path}/{name}"), named.inode));
            }
        }
        let mut shown = format!("{:?}", as_it_was(attr));
        if attr.kind() == FileKind::Symlink {
            let target = volume.look(Op::ReadLink(pb::ReadLinkOp { inode })).unwrap().target;
            shown += &format!("{target:?}");
        }
        for name in volume.look(Op::ListXattrs(pb::ListXattrsOp { inode })).unwrap().xattr_names {
            let get = pb::GetXattrOp { inode, name: name.clone() };
            let value = volume.look(Op::GetXattr(get)).unwrap().xattr_value;
            shown += &format!("{name:?}={value:?}");
        }
        found.insert(path, shown);
    }
    found
}

/// Attributes without what says that they are a snapshot's.
fn as_it_was(attr: pb::Attr) -> pb::Attr {
    match attr.snapshot {
        0 => attr,
        _ => pb::Attr { inode: attr.origin, origin: 0, snapshot: 0, ..attr },
    }
}

/// One change at random, of few names so that they meet.
fn change(volume: &mut Volume, who: &Who, next: &mut impl FnMut(u64) -> u64) {
    let folders: Vec<u64> = [ROOT]
        .into_iter()
        .chain(["d0", "d1"].iter().filter_map(|name| {
            let found = volume.look(lookup(ROOT, name)).ok()?.attr?;
            (found.kind() == FileKind::Directory).then_some(found.inode)
        }))
        .collect();
    let mut folder = || folders[next(folders.len() as u64) as usize];
    let (at, to) = (folder(), folder());
    let (name, other) = (format!("n{}", next(5)), format!("n{}", next(5)));
    let inode = volume.look(lookup(at, &name)).ok().and_then(|reply| reply.attr).map(|a| a.inode);
    let op = match (next(11), inode) {
        (0, _) => mkdir(ROOT, &format!("d{}", next(2)), 0o755),
        (1, _) => symlink(at, &name, &other),
        (2, Some(_)) => unlink(at, &name),
        (3, _) => rmdir(ROOT, &format!("d{}", next(2))),
        (4, Some(_)) => Op::Rename(rename(at, &name, to, &other)),
        (5, Some(inode)) => link(inode, to, &other),
        (6, Some(inode)) => Op::SetAttr(pb::SetAttrOp {
            inode,
            mode: Some(next(0o777) as u32),
            ..Default::default()
        }),
        (7, Some(inode)) => {
            Op::SetAttr(pb::SetAttrOp { inode, size: Some(next(100_000)), ..Default::default() })
        }
        (8, Some(inode)) => Op::SetXattr(pb::SetXattrOp {
            inode,
            name: format!("user.{}", next(2)).into(),
            value: vec![next(200) as u8; 5].into(),
            ..Default::default()
        }),
        _ => touch(at, &name, 0o644),
    };
    let _ = volume.ask(who, op);
    for cut in volume.truncations() {
        let pb::Truncation { inode, truncate_version, .. } = cut;
        let done = pb::FinishTruncateOp { inode, truncate_version };
        volume.lead(Op::FinishTruncate(done)).unwrap();
    }
    let gone: Vec<u64> = volume.orphans().iter().map(|orphan| orphan.inode).collect();
    if next(3) == 0 && !gone.is_empty() {
        volume.lead(Op::Collect(pb::CollectOp { inodes: gone })).unwrap();
    }
}

#[test]
fn a_snapshot_shows_the_volume_as_it_was_whatever_changes() {
    for seed in 1..6_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let (mut volume, who) = Volume::with_root();
        let mut were: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for round in 0..14 {
            for _ in 0..25 {
                change(&mut volume, &who, &mut next);
            }
            let name = format!("s{round}");
            let was = all_of(&volume, ROOT);
            make(&mut volume, &name);
            were.insert(name, was);
            if were.len() > 3 {
                let names: Vec<String> = were.keys().cloned().collect();
                let gone = &names[next(names.len() as u64) as usize];
                remove(&mut volume, gone);
                were.remove(gone);
                assert_eq!(root_of(&volume, gone), Err(Code::NotFound));
            }
            for (name, was) in &were {
                let root = root_of(&volume, name).unwrap();
                assert_eq!(&all_of(&volume, root), was, "seed {seed}, snapshot {name}");
            }
        }
        for name in were.keys() {
            remove(&mut volume, name);
        }
        let left = volume.kv.pairs().filter(|(key, _)| matches!(key[0], b'P' | b'H')).count();
        assert_eq!(left, 0, "nothing is kept for nobody");
        assert!(volume.replayed() == volume.kv, "equal logs make equal states");
    }
}

#[test]
fn what_changes_a_snapshot_is_refused() {
    let (mut volume, who) = Volume::with_root();
    volume.ask(&who, touch(ROOT, "file", 0o666)).unwrap();
    volume.ask(&who, mkdir(ROOT, "folder", 0o777)).unwrap();
    make(&mut volume, "one");
    let root = root_of(&volume, "one").unwrap();
    let file = volume.look(lookup(root, "file")).unwrap().attr.unwrap().inode;
    let size = Some(0);
    let write = |inode| Op::Open(pb::OpenOp { inode, write: true, ..Default::default() });
    let name = std::str::from_utf8(SNAPSHOTS_FOLDER).unwrap();
    let changes = [
        create(root, "new", 0o644),
        touch(root, "file", 0o644),
        mkdir(folder(&volume), "two", 0o755),
        rmdir(folder(&volume), "one"),
        rmdir(root, "folder"),
        unlink(root, "file"),
        link(file, ROOT, "out"),
        Op::Rename(rename(root, "file", ROOT, "out")),
        Op::Rename(rename(ROOT, "file", root, "in")),
        Op::SetAttr(pb::SetAttrOp { inode: file, size, ..Default::default() }),
        Op::SetAttr(pb::SetAttrOp { inode: root, mode: Some(0), ..Default::default() }),
        write(file),
        mkdir(ROOT, name, 0o755),
        rmdir(ROOT, name),
        Op::Rename(rename(ROOT, "folder", ROOT, name)),
    ];
    for op in changes {
        assert_eq!(volume.ask(&who, op.clone()).unwrap_err(), Code::ReadOnly, "{op:?}");
    }
    for inode in [file, root, folder(&volume)] {
        let access = Op::Access(pb::AccessOp { inode, mask: 2 });
        assert_eq!(volume.look(access).unwrap_err(), Code::ReadOnly);
        volume.look(Op::Access(pb::AccessOp { inode, mask: 4 })).unwrap();
    }
}

#[test]
fn the_folder_is_in_no_listing_and_shows_who_is_ready() {
    let (mut volume, who) = Volume::with_root();
    assert_eq!(entries(&volume, ROOT), []);
    let begun = step(&mut volume, SnapshotStep::Begin, "one", 0).unwrap();
    assert_eq!(root_of(&volume, "one"), Err(Code::NotFound), "it is being made");
    assert_eq!(step(&mut volume, SnapshotStep::Begin, "one", 0), Ok(begun), "the same one");
    assert_eq!(step(&mut volume, SnapshotStep::Remove, "one", 0), Err(Code::InvalidArgument));
    step(&mut volume, SnapshotStep::Cut, "", begun).unwrap();
    assert_eq!(step(&mut volume, SnapshotStep::Begin, "one", 0), Err(Code::Exists));
    let other = step(&mut volume, SnapshotStep::Begin, "two", 0).unwrap();
    for id in [begun, other] {
        step(&mut volume, SnapshotStep::GiveUp, "", id).unwrap();
    }
    let left: Vec<u32> = list(&volume).iter().map(|record| record.id).collect();
    assert_eq!(left, [begun], "only one that was not cut is given up");
    assert_eq!(step(&mut volume, SnapshotStep::Begin, "a/b", 0), Err(Code::InvalidArgument));
    assert_eq!(step(&mut volume, SnapshotStep::Remove, "two", 0), Err(Code::NotFound));
    volume.ask(&who, touch(ROOT, "later", 0o600)).unwrap();
    make(&mut volume, "two");
    let names: Vec<_> = entries(&volume, folder(&volume)).into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(entries(&volume, root_of(&volume, "one").unwrap()), []);
    let shown: Vec<_> = list(&volume).iter().map(|record| record.inodes).collect();
    assert_eq!(shown, [1, 2]);
    // Paths lead there as well, and permissions are those of the files.
    let path = |path: &str, uid| {
        let op = pb::ResolveOp { base: 0, path: path.to_owned().into(), follow_last: true };
        let mut volume = volume.again();
        let stranger = volume.user(uid, uid, &[]);
        volume.ask(&stranger, Op::Resolve(op)).map(|reply| reply.attr.unwrap())
    };
    let found = path("/.snapshots/two/later", 0).unwrap();
    assert_eq!(path("/.snapshots/one/later", 0), Err(Code::NotFound));
    let open = Op::Open(pb::OpenOp { inode: found.inode, read: true, ..Default::default() });
    let user = volume.user(7, 7, &[]);
    assert_eq!(volume.ask(&user, open.clone()).unwrap_err(), Code::AccessDenied);
    volume.ask(&who, open).unwrap();
}

#[test]
fn a_root_that_has_an_entry_of_that_name_shows_it() {
    // Made by a release without snapshots: put there as such, under a name of equal length.
    let (mut volume, who) = Volume::with_root();
    let made = volume.ask(&who, mkdir(ROOT, "_snapshots", 0o700)).unwrap().attr.unwrap();
    let renamed: Vec<_> = volume.kv.pairs().map(|(k, v)| (k.clone(), v.clone())).collect();
    for (key, value) in renamed {
        use ff2_meta_core::Kv;
        if key[0] == b'D' && key.ends_with(b"_snapshots") {
            volume.kv.delete(&key);
            let name = [&key[..9], SNAPSHOTS_FOLDER].concat();
            volume.kv.put(&name, value);
        } else if key[0] == b'C' && &value[..] == b"_snapshots" {
            volume.kv.put(&key, SNAPSHOTS_FOLDER.to_vec().into());
        }
    }
    assert_eq!(folder(&volume), made.inode);
    volume.ask(&who, rmdir(ROOT, ".snapshots")).unwrap();
    assert_ne!(folder(&volume), made.inode);
}

#[test]
fn it_has_no_trash_and_shows_what_went_there_later() {
    let (mut volume, who) = Volume::with_root();
    volume.lead(Op::SetTrash(pb::SetTrashOp { keep_s: 60 })).unwrap();
    for name in ["before", "after"] {
        volume.ask(&who, touch(ROOT, name, 0o600)).unwrap();
    }
    volume.ask(&who, unlink(ROOT, "before")).unwrap();
    make(&mut volume, "one");
    volume.ask(&who, unlink(ROOT, "after")).unwrap();
    let past = root_of(&volume, "one").unwrap();
    let names: Vec<_> = entries(&volume, past).into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["after"]);
    let trash = |parent| volume.look(lookup(parent, ".trash")).map(|reply| reply.attr.unwrap());
    assert_eq!(trash(past).unwrap_err(), Code::NotFound);
    let own = volume.look(lookup(trash(ROOT).unwrap().inode, "0")).unwrap().attr.unwrap();
    assert_eq!(entries(&volume, own.inode).len(), 2);
    // Gone for good, but for the snapshot.
    let removed_by_ns = i64::MAX;
    volume.lead(Op::EmptyTrash(pb::EmptyTrashOp { removed_by_ns, limit: 9 })).unwrap();
    assert_eq!(entries(&volume, past).len(), 1);
    assert_eq!(volume.look(lookup(past, "after")).unwrap().attr.unwrap().nlink, 1);
    remove(&mut volume, "one");
    assert!(!volume.kv.pairs().any(|(key, _)| key[0] == b'P'));
}

#[test]
fn it_needs_a_cluster_that_knows_it() {
    let (mut volume, _) = Volume::with_root();
    let begin = SnapshotStep::Begin.into();
    let op = Op::StepSnapshot(pb::StepSnapshotOp { step: begin, name: "one".into(), id: 0 });
    let status = volume.at_level(2, op).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.detail.contains("ff2ctl upgrade finish"), "{}", status.detail);
}
