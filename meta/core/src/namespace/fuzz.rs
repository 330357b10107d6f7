//! Keys and values that a store or a snapshot may bring: each is refused, or read as what encodes to the
//! same again.

use ff2_fuzz::{bounded, target};
use ff2_proto::pb;
use prost::Message;

use super::{
    acl::Acl,
    inode::Inode,
    keys::{self, TAGS, Tag},
};

/// The owner and user 7 may read and write, others nothing.
const ACL: &[u8] = b"\x02\0\0\0\
    \x01\0\x06\0\xff\xff\xff\xff\
    \x02\0\x06\0\x07\0\0\0\
    \x04\0\0\0\xff\xff\xff\xff\
    \x10\0\x06\0\xff\xff\xff\xff\
    \x20\0\0\0\xff\xff\xff\xff";
const PLAIN: &[u8] = b"\x02\0\0\0\
    \x01\0\x07\0\xff\xff\xff\xff\
    \x04\0\x05\0\xff\xff\xff\xff\
    \x20\0\x01\0\xff\xff\xff\xff";

#[test]
fn damaged_acls() {
    assert!(Acl::parse(ACL).is_ok() && Acl::parse(PLAIN).is_ok());
    target!(vec![ACL.to_vec(), PLAIN.to_vec()], |bytes| {
        let Ok(Some(acl)) = bounded(bytes, || Acl::parse(bytes)) else { return };
        assert_eq!(acl.encode().len(), bytes.len());
        assert_eq!(Acl::parse(&acl.encode()), Ok(Some(acl.clone())));
        let (mode, says_no_more) = acl.mode();
        assert_eq!(mode & !0o777, 0);
        let (inherited, access) = acl.inherited(0o7777);
        assert_eq!((inherited, access.is_none()), (0o7000 | mode, says_no_more));
        let mut changed = acl.clone();
        changed.set_mode(0o640);
        assert_eq!(changed.mode(), (0o640, says_no_more));
    });
}

fn inodes() -> Vec<Vec<u8>> {
    let attr = pb::Attr { inode: 5, mode: 0o644, nlink: 1, size: 9, ..Default::default() };
    let record = pb::InodeRecord {
        attr: Some(attr),
        symlink_target: "target".into(),
        parent: 1,
        truncating_to: Some(3),
        access_acl: ACL.into(),
        default_acl: PLAIN.into(),
        ..Default::default()
    };
    let plain = pb::InodeRecord { attr: Some(attr), ..Default::default() };
    vec![record.encode_to_vec(), plain.encode_to_vec()]
}

#[test]
fn damaged_inodes() {
    target!(inodes(), |bytes| {
        let Ok(inode) = bounded(bytes, || Inode::decode(bytes)) else { return };
        let encoded = inode.encode();
        assert_eq!(Inode::decode(&encoded).unwrap().encode(), encoded);
    });
}

fn all_keys() -> Vec<Vec<u8>> {
    let named = [keys::dentry(7, b"name"), keys::named(Tag::Xattr, u64::MAX, b"user.a")];
    let numbered = [keys::one(Tag::Inode, 9).to_vec(), keys::nonce(Some(u32::MAX), 3).to_vec()];
    named.into_iter().chain(numbered).chain([keys::VOLUME.to_vec()]).collect()
}

#[test]
fn damaged_keys() {
    target!(all_keys(), |bytes| {
        assert_eq!(bounded(bytes, || keys::number(bytes)).is_some(), bytes.len() == 8);
        let Some((number, rest)) = bounded(bytes, || keys::split(bytes)) else {
            return assert!(bytes.len() < 9);
        };
        if let Some(tag) = TAGS.into_iter().find(|tag| *tag as u8 == bytes[0]) {
            assert_eq!(keys::named(tag, number, rest), bytes);
        }
    });
}
