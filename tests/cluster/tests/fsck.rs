//! Faults of the namespace, planted in a backup from which the metads begin, are told and mended by `ff2ctl fsck`
//! beside programs that write.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use ff2_cluster_tests::{Cluster, load::Load};
use ff2_group::archive::{GroupBegin, Piece, Reader, Writer};
use ff2_proto::{ROOT_INODE, pb};
use prost::Message;

const WHOLE: Duration = Duration::from_secs(120);
const NAMESPACE_GROUP: u32 = 1;
/// Of the pairs of a backup, in a frame: small enough with the largest small files.
const PAGE: usize = 64;

type Pairs = BTreeMap<Bytes, Bytes>;

/// Writes a backup anew with other keys of the namespace.
fn edit(from: &Path, to: &Path, change: impl FnOnce(&mut Pairs)) {
    let mut reader = Reader::new(File::open(from).unwrap()).unwrap();
    let mut groups: Vec<(GroupBegin, Pairs)> = Vec::new();
    loop {
        match reader.next_piece().unwrap() {
            Piece::Group(begin) => groups.push((begin, Pairs::new())),
            Piece::Pairs(pairs) => {
                let (_, kept) = groups.last_mut().unwrap();
                kept.extend(pairs.into_iter().map(|pair| (pair.key, pair.value)));
            }
            Piece::GroupEnd(_) => {}
            Piece::End(_) => break,
        }
    }
    let (_, namespace) =
        groups.iter_mut().find(|(begin, _)| begin.group == NAMESPACE_GROUP).unwrap();
    change(namespace);
    let header = reader.header();
    let out = File::create(to).unwrap();
    let mut writer =
        Writer::new(out, &header.cluster_id, header.taken_at_s, &header.release).unwrap();
    for (begin, pairs) in groups {
        writer.group(begin).unwrap();
        let pairs: Vec<pb::KeyValue> =
            pairs.into_iter().map(|(key, value)| pb::KeyValue { key, value }).collect();
        for page in pairs.chunks(PAGE) {
            writer.pairs(page.to_vec()).unwrap();
        }
        writer.end_group().unwrap();
    }
    writer.finish().unwrap();
}

fn key(tag: u8, number: u64, rest: &[u8]) -> Vec<u8> {
    [&[tag], &number.to_be_bytes()[..], rest].concat()
}

fn change_inode(pairs: &mut Pairs, inode: u64, change: impl FnOnce(&mut pb::InodeRecord)) {
    let value = pairs.get_mut(&key(b'I', inode, b"")[..]).unwrap();
    let mut stored = pb::InodeRecord::decode(value.clone()).unwrap();
    change(&mut stored);
    *value = stored.encode_to_vec().into();
}

fn lose_name(pairs: &mut Pairs, parent: u64, name: &str) {
    let stored = pairs.remove(&key(b'D', parent, name.as_bytes())[..]).unwrap();
    let cookie = pb::DentryRecord::decode(stored).unwrap().cookie;
    pairs.remove(&key(b'C', parent, &cookie.to_be_bytes())[..]).unwrap();
}

fn write(path: &Path, bytes: &[u8]) -> u64 {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
    file.metadata().unwrap().ino()
}

/// The cluster begins anew from this backup.
fn begin_from(cluster: &Cluster, backup: &Path) {
    for index in 0..3 {
        cluster.ctl(&["kill", &format!("metad/{index}")]).unwrap();
    }
    for index in 0..3 {
        fs::remove_dir_all(cluster.dir().join(format!("metad-{index}/data"))).unwrap();
    }
    cluster.ctl(&["restore", backup.to_str().unwrap()]).unwrap();
    cluster.ctl(&["up", "--mount", cluster.mount().to_str().unwrap()]).unwrap();
    cluster.wait_healthy(WHOLE).unwrap();
}

#[test]
fn what_is_wrong_between_names_and_inodes_is_told_and_mended() {
    let cluster = Cluster::start().unwrap();
    let root = cluster.mount();
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at * 7 + at / 4096) as u8).collect();
    let nameless = write(&root.join("nameless"), &body);
    let gone = write(&root.join("gone"), b"");
    let linked = write(&root.join("linked"), b"small");
    fs::hard_link(root.join("linked"), root.join("link")).unwrap();
    fs::create_dir_all(root.join("one/two")).unwrap();
    write(&root.join("one/two/file"), b"in a folder");
    let [one, two] = ["one", "one/two"].map(|path| fs::metadata(root.join(path)).unwrap().ino());
    File::open(&root).unwrap().sync_all().unwrap();
    cluster.ctl(&["umount", root.to_str().unwrap()]).unwrap();
    let [sound, faulty] = ["sound", "faulty"].map(|name| cluster.dir().join(name));
    cluster.ctl(&["backup", "create", sound.to_str().unwrap()]).unwrap();
    edit(&sound, &faulty, |pairs| {
        lose_name(pairs, ROOT_INODE.0, "nameless");
        pairs.remove(&key(b'I', gone, b"")[..]).unwrap();
        change_inode(pairs, linked, |inode| inode.attr.as_mut().unwrap().nlink = 7);
        change_inode(pairs, one, |inode| inode.entries = 5);
        change_inode(pairs, two, |inode| inode.parent = ROOT_INODE.0);
    });
    begin_from(&cluster, &faulty);

    // It only tells.
    for _ in 0..2 {
        let told = cluster.ctl_output(&["fsck"]).unwrap();
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(!told.status.success(), "{text}");
        for what in [
            format!(
                "would be mended: inode {nameless} had no name, and is /lost+found/#{nameless}"
            ),
            "would be mended: name \"gone\" in directory 1 leads to no inode: removed".to_owned(),
            format!("would be mended: inode {linked} counted 7 names, there are 2"),
            format!("would be mended: inode {one} counted 5 entries, there are 1"),
            format!("inode {two} said 1 for the directory above, it is {one}"),
        ] {
            assert!(text.contains(&what), "{what:?} is not in {text}");
        }
    }
    assert!(!root.join("lost+found").exists());

    let load = Load::start(&root.join("load"), 2).unwrap();
    let text = cluster.ctl(&["fsck", "--repair"]).unwrap();
    assert!(text.contains("mended: "), "{text}");
    cluster.end(load).unwrap();
    assert!(fs::read(root.join(format!("lost+found/#{nameless}"))).unwrap() == body);
    assert!(fs::symlink_metadata(root.join("gone")).is_err());
    assert_eq!(fs::metadata(root.join("link")).unwrap().nlink(), 2);
    assert_eq!(fs::read(root.join("one/two/file")).unwrap(), b"in a folder");
    fs::remove_dir_all(root.join("one")).unwrap();
    cluster.fsck().unwrap();
    let audit = cluster.ctl(&["audit"]).unwrap();
    assert!(audit.contains("check_namespace"), "{audit}");
}
