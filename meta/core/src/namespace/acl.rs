//! POSIX access control lists (POSIX 1003.1e draft 17, as Linux has them): their bytes, whom they let
//! in, and what they make of modes.
//!
//! The stored form is the one that `getxattr` shows: a version, then 8 bytes an entry (tag, permissions
//! and id, little-endian), entries in the order owner, users, group, groups, mask, others.

use bytes::Bytes;
use ff2_proto::{Status, pb, status::Code};

use super::{limits, perm};

const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// The id of entries that have none.
const NO_ID: u32 = u32::MAX;

/// The bits of a mode that an access ACL is about.
const RWX: u32 = 0o777;

/// A valid list of at least three entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u32,
    id: u32,
}

impl Acl {
    /// What a user sets. `None`: no entries, which takes the list away.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Status> {
        let invalid = |why| Status::new(Code::InvalidArgument, why);
        let Some((version, body)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(invalid("an ACL without a header"));
        };
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Status::new(Code::Unsupported, "an ACL of another version"));
        }
        let (entries, rest) = body.as_chunks::<ENTRY>();
        if !rest.is_empty() {
            return Err(invalid("an ACL with half an entry"));
        }
        if entries.len() > limits::ACL_ENTRIES_MAX {
            return Err(Code::ValueTooBig.into());
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let acl = Self { entries: entries.iter().map(Entry::read).collect() };
        acl.check().map_err(invalid)?;
        Ok(Some(acl))
    }

    /// What was stored; `None` for no bytes.
    pub(super) fn stored(bytes: &[u8]) -> Result<Option<Self>, Status> {
        if bytes.is_empty() {
            return Ok(None);
        }
        Self::parse(bytes).map_err(|status| Status::new(Code::Corrupt, status.detail))
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(HEADER + ENTRY * self.entries.len());
        out.extend_from_slice(&VERSION.to_le_bytes());
        for entry in &self.entries {
            out.extend_from_slice(&entry.tag.to_le_bytes());
            out.extend_from_slice(&(entry.perm as u16).to_le_bytes());
            out.extend_from_slice(&entry.id.to_le_bytes());
        }
        Bytes::from(out)
    }

    /// Whether this caller, who is not the owner, has all bits of `want`.
    pub(super) fn allows(&self, cred: &pb::Credentials, gid: u32, want: u32) -> bool {
        let mask = self.entries.iter().find(|entry| entry.tag == MASK).map_or(7, |mask| mask.perm);
        let mut in_some_group = false;
        for entry in &self.entries {
            match entry.tag {
                USER if entry.id == cred.uid => return entry.perm & mask & want == want,
                GROUP_OBJ | GROUP => {
                    let group = if entry.tag == GROUP { entry.id } else { gid };
                    if perm::in_group(cred, group) {
                        in_some_group = true;
                        if entry.perm & mask & want == want {
                            return true;
                        }
                    }
                }
                OTHER => return !in_some_group && entry.perm & want == want,
                _ => {}
            }
        }
        false
    }

    /// The permission bits of the mode that goes with the list, and whether the list says no more.
    pub(super) fn mode(&self) -> (u32, bool) {
        let mut mode = 0;
        let mut has_mask = false;
        for entry in &self.entries {
            match entry.tag {
                USER_OBJ => mode |= entry.perm << 6,
                GROUP_OBJ if !has_mask => mode |= entry.perm << 3,
                MASK => {
                    mode = mode & !0o070 | entry.perm << 3;
                    has_mask = true;
                }
                OTHER => mode |= entry.perm,
                _ => {}
            }
        }
        (mode, self.entries.len() == 3)
    }

    /// The list after chmod: the group bits are the mask's, where there is one.
    pub(super) fn set_mode(&mut self, mode: u32) {
        let has_mask = self.has_mask();
        for entry in &mut self.entries {
            match entry.tag {
                USER_OBJ => entry.perm = mode >> 6 & 7,
                GROUP_OBJ if !has_mask => entry.perm = mode >> 3 & 7,
                MASK => entry.perm = mode >> 3 & 7,
                OTHER => entry.perm = mode & 7,
                _ => {}
            }
        }
    }

    /// Of a directory's default list: the mode of something made in it with `mode`, and its access
    /// list, unless the mode says all.
    pub(super) fn inherited(&self, mode: u32) -> (u32, Option<Self>) {
        let mut access = self.clone();
        let has_mask = self.has_mask();
        for entry in &mut access.entries {
            match entry.tag {
                USER_OBJ => entry.perm &= mode >> 6 & 7,
                GROUP_OBJ if !has_mask => entry.perm &= mode >> 3 & 7,
                MASK => entry.perm &= mode >> 3 & 7,
                OTHER => entry.perm &= mode & 7,
                _ => {}
            }
        }
        let (bits, is_mode) = access.mode();
        (mode & !RWX | bits, (!is_mode).then_some(access))
    }

    fn has_mask(&self) -> bool {
        self.entries.iter().any(|entry| entry.tag == MASK)
    }

    fn check(&self) -> Result<(), &'static str> {
        let mut next = USER_OBJ;
        let mut needs_mask = false;
        for entry in &self.entries {
            if entry.perm > 7 {
                return Err("an ACL entry with unknown permissions");
            }
            let named = matches!(entry.tag, USER | GROUP);
            if named && entry.id == NO_ID {
                return Err("an ACL entry without its user or group");
            }
            needs_mask |= named;
            next = match (entry.tag, next) {
                (USER_OBJ, USER_OBJ) | (USER, USER) => USER,
                (GROUP_OBJ, USER) | (GROUP, GROUP) => GROUP,
                (MASK, GROUP) => OTHER,
                (OTHER, OTHER) => 0,
                (OTHER, GROUP) if !needs_mask => 0,
                _ => return Err("ACL entries that are missing, or out of order"),
            };
        }
        if next == 0 { Ok(()) } else { Err("an ACL without entries that it needs") }
    }
}

impl Entry {
    fn read(bytes: &[u8; ENTRY]) -> Self {
        let [t0, t1, p0, p1, id @ ..] = *bytes;
        let tag = u16::from_le_bytes([t0, t1]);
        let id = if matches!(tag, USER | GROUP) { u32::from_le_bytes(id) } else { NO_ID };
        Self { tag, perm: u16::from_le_bytes([p0, p1]).into(), id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u32, u32)]) -> Result<Option<Acl>, Code> {
        let entries = entries.iter().map(|&(tag, perm, id)| Entry { tag, perm, id }).collect();
        Acl::parse(&Acl { entries }.encode()).map_err(|status| status.code)
    }

    fn user(uid: u32, gid: u32, groups: &[u32]) -> pb::Credentials {
        pb::Credentials { uid, gid, groups: groups.to_vec() }
    }

    /// User 7 may rw, group 8 r, group 9 w; the mask cuts to what it says.
    fn sample(mask: u32) -> Acl {
        let entries = [
            (USER_OBJ, 7, NO_ID),
            (USER, 6, 7),
            (GROUP_OBJ, 1, NO_ID),
            (GROUP, 4, 8),
            (GROUP, 2, 9),
            (MASK, mask, NO_ID),
            (OTHER, 5, NO_ID),
        ];
        list(&entries).unwrap().unwrap()
    }

    #[test]
    fn lists_that_make_no_sense_are_refused() {
        let plain = [(USER_OBJ, 6, NO_ID), (GROUP_OBJ, 4, NO_ID), (OTHER, 0, NO_ID)];
        assert!(list(&plain).unwrap().is_some());
        assert_eq!(list(&[]), Ok(None));
        let bad: [&[(u16, u32, u32)]; 7] = [
            &plain[..2],
            &[plain[1], plain[0], plain[2]],
            &[plain[0], plain[1], plain[1], plain[2]],
            &[plain[0], (USER, 6, 7), plain[1], plain[2]],
            &[plain[0], (USER, 6, NO_ID), plain[1], (MASK, 7, NO_ID), plain[2]],
            &[(USER_OBJ, 8, NO_ID), plain[1], plain[2]],
            &[plain[0], plain[1], plain[2], (0x40, 1, NO_ID)],
        ];
        for entries in bad {
            assert_eq!(list(entries), Err(Code::InvalidArgument), "{entries:?}");
        }
        let code = |bytes: &[u8]| Acl::parse(bytes).unwrap_err().code;
        assert_eq!(code(&[2, 0]), Code::InvalidArgument);
        assert_eq!(code(&[1, 0, 0, 0]), Code::Unsupported);
        assert_eq!(code(&[2, 0, 0, 0, 1]), Code::InvalidArgument);
        let long = [[2, 0, 0, 0].to_vec(), vec![0; ENTRY * (limits::ACL_ENTRIES_MAX + 1)]].concat();
        assert_eq!(code(&long), Code::ValueTooBig);
    }

    #[test]
    fn the_first_entry_that_fits_decides_and_the_mask_cuts() {
        let acl = sample(7);
        let gid = 20;
        assert!(acl.allows(&user(7, 20, &[8]), gid, 6), "as user, whatever the groups");
        assert!(!acl.allows(&user(7, 20, &[]), gid, 1));
        assert!(acl.allows(&user(1, 8, &[]), gid, 4));
        assert!(acl.allows(&user(1, 8, &[9]), gid, 2));
        assert!(!acl.allows(&user(1, 8, &[9]), gid, 6), "no single group has both");
        assert!(!acl.allows(&user(1, 20, &[]), gid, 4), "a member is no other");
        assert!(acl.allows(&user(1, 21, &[]), gid, 5));
        let masked = sample(4);
        assert!(!masked.allows(&user(7, 0, &[]), gid, 2));
        assert!(masked.allows(&user(7, 0, &[]), gid, 4));
        assert!(!masked.allows(&user(1, 9, &[]), gid, 2));
        assert!(masked.allows(&user(1, 21, &[]), gid, 1), "others are not masked");
    }

    #[test]
    fn the_mode_shows_the_mask_and_sets_it() {
        let mut acl = sample(6);
        assert_eq!(acl.mode(), (0o765, false));
        acl.set_mode(0o4640);
        assert_eq!(acl.mode(), (0o640, false));
        assert_eq!(acl.entries[2].perm, 1, "the group's own entry stays");
        let plain = [(USER_OBJ, 6, NO_ID), (GROUP_OBJ, 4, NO_ID), (OTHER, 0, NO_ID)];
        let mut plain = list(&plain).unwrap().unwrap();
        assert_eq!(plain.mode(), (0o640, true));
        plain.set_mode(0o751);
        assert_eq!(plain.mode(), (0o751, true));
    }

    #[test]
    fn what_is_made_in_a_directory_gets_what_both_allow() {
        let (mode, access) = sample(7).inherited(0o2664);
        assert_eq!(mode, 0o2664);
        let access = access.unwrap();
        assert_eq!(access.mode(), (0o664, false));
        assert!(access.allows(&user(7, 0, &[]), 20, 6));
        let (mode, access) = sample(7).inherited(0o600);
        assert_eq!(mode, 0o600);
        assert!(!access.unwrap().allows(&user(7, 0, &[]), 20, 4), "the mask is empty");
        let plain = [(USER_OBJ, 7, NO_ID), (GROUP_OBJ, 5, NO_ID), (OTHER, 1, NO_ID)];
        let (mode, access) = list(&plain).unwrap().unwrap().inherited(0o1666);
        assert_eq!((mode, access), (0o1640, None));
    }

    #[test]
    fn stored_lists_come_back() {
        let acl = sample(5);
        assert_eq!(Acl::stored(&acl.encode()).unwrap(), Some(acl));
        assert_eq!(Acl::stored(b"").unwrap(), None);
        assert_eq!(Acl::stored(b"junk").unwrap_err().code, Code::Corrupt);
    }
}
