//! Connections that are confined to a folder: nothing outside exists for them.

use ff2_meta_core::namespace::{Class, class, query_within};
use ff2_proto::{
    pb::{self, Code, ns_request::Op},
    status,
};

use crate::{
    ops::*,
    volume::{Volume, Who},
};

const ROOT: u64 = 1;

struct World {
    v: Volume,
    root: Who,
    /// Whose connection is confined.
    guest: Who,
    shared: u64,
    inside: u64,
    outside: u64,
    seq: u64,
}

/// `/shared` with `in` and `file`, beside `/other` with `secret`.
fn world() -> World {
    let (mut v, root) = Volume::with_root();
    let mut dir =
        |parent, name: &str| v.ask(&root, mkdir(parent, name, 0o777)).unwrap().attr.unwrap().inode;
    let shared = dir(ROOT, "shared");
    let (inside, outside) = (dir(shared, "in"), dir(ROOT, "other"));
    v.ask(&root, touch(shared, "file", 0o666)).unwrap();
    v.ask(&root, touch(outside, "secret", 0o666)).unwrap();
    v.ask(&root, symlink(shared, "up", "../other/secret")).unwrap();
    v.ask(&root, symlink(shared, "absolute", "/in")).unwrap();
    let guest = v.user(0, 0, &[]);
    World { v, root, guest, shared, inside, outside, seq: 1_000 }
}

impl World {
    fn ask(&mut self, op: Op) -> Result<pb::NsReply, Code> {
        let request = pb::NsRequest {
            session: self.guest.session,
            cred: Some(self.guest.cred.clone()),
            op: Some(op),
            ..Default::default()
        };
        if class(&request) == Some(Class::Read) {
            let reply = query_within(&self.v.kv, &request, None, self.shared);
            return status::check(reply.status.clone()).map(|()| reply).map_err(|s| s.code);
        }
        self.seq += 1;
        let seq = self.seq;
        self.v.log_within(pb::NsRequest { seq, ack_below: seq, ..request }, self.shared)
    }
}

#[test]
fn paths_begin_and_end_at_the_folder() {
    let mut w = world();
    let (shared, inside) = (w.shared, w.inside);
    let mut inode = |path: &str| w.ask(resolve(path, true)).map(|r| r.attr.unwrap().inode);
    assert_eq!(inode("/"), Ok(shared));
    assert_eq!(inode("in"), Ok(inside));
    assert_eq!(inode("/in/../.."), Ok(shared), "above it leads no way");
    assert_eq!(inode("absolute"), Ok(inside), "a link counts from its root");
    assert_eq!(inode("up"), Err(Code::NotFound));
    assert_eq!(inode("other"), Err(Code::NotFound));
}

#[test]
fn folders_outside_are_not_read() {
    let mut w = world();
    w.v.now_ns += 100;
    let at = w.v.now_ns;
    let before = w.v.attr(w.outside);
    let read = [w.outside, w.inside].map(|inode| pb::Atime { inode, atime_ns: at });
    w.ask(Op::TouchAtime(pb::TouchAtimeOp { atimes: read.to_vec() })).unwrap();
    assert_eq!(w.v.attr(w.outside), before);
    assert_eq!(w.v.attr(w.inside).atime_ns, at);
}

#[test]
fn folders_outside_do_not_exist() {
    let mut w = world();
    let (shared, inside, outside) = (w.shared, w.inside, w.outside);
    for folder in [ROOT, outside] {
        for op in [
            lookup(folder, "secret"),
            Op::GetAttr(pb::GetAttrOp { inode: folder }),
            read_dir(folder, 0, 9),
            access(folder, 4),
            list_xattrs(folder),
            get_xattr(folder, "user.a"),
            open_read(folder),
            Op::Resolve(pb::ResolveOp { base: folder, path: "secret".into(), follow_last: true }),
        ] {
            // The root as the base of a path is the folder's own.
            let expected = match &op {
                Op::Resolve(op) if op.base == ROOT => Code::NotFound,
                _ => Code::StaleInode,
            };
            assert_eq!(w.ask(op.clone()), Err(expected), "{op:?}");
        }
        for op in [
            touch(folder, "new", 0o644),
            mkdir(folder, "new", 0o755),
            unlink(folder, "secret"),
            mv(shared, "file", folder, "moved"),
            mv(folder, "secret", shared, "stolen"),
            exchange(folder, "secret", shared, "file"),
            chmod(folder, 0o700),
            set_xattr(folder, "user.a", b"x"),
        ] {
            assert_eq!(w.ask(op.clone()), Err(Code::StaleInode), "{op:?}");
        }
    }
    for op in [
        touch(inside, "new", 0o644),
        mv(inside, "new", shared, "moved"),
        chmod(shared, 0o770),
        unlink(shared, "moved"),
    ] {
        w.ask(op).unwrap();
    }
    // A folder that is moved out is out, with all below it.
    let root = w.root.clone();
    w.v.ask(&root, mkdir(inside, "deep", 0o755)).unwrap();
    let deep = w.ask(resolve("in/deep", true)).unwrap().attr.unwrap().inode;
    w.v.ask(&root, mv(shared, "in", outside, "in")).unwrap();
    assert_eq!(w.ask(read_dir(deep, 0, 9)), Err(Code::StaleInode));
}
