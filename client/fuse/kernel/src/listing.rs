//! A page of a directory, in the kernel's form: as many names as it has room for.

use zerocopy::IntoBytes;

use crate::{abi, reply::Entry};

/// Names begin at multiples of it.
const ALIGN: usize = 8;

/// Names so far.
#[derive(Debug)]
pub struct Listing {
    bytes: Vec<u8>,
    room: usize,
}

impl Listing {
    /// For a request that has room for so many bytes.
    pub fn new(room: u32) -> Self {
        Self { bytes: Vec::new(), room: room as usize }
    }

    /// Adds a name, behind which the listing goes on at `offset`. `mode`: its kind as in `st_mode`.
    /// False: there is no room for it.
    #[must_use]
    pub fn add(&mut self, inode: u64, offset: u64, mode: u32, name: &[u8]) -> bool {
        self.put(&[], inode, offset, mode, name)
    }

    /// As [`Listing::add`], with attributes. The kernel then has a reference to the inode, unless the
    /// name is `.` or `..`.
    #[must_use]
    pub fn add_with_attributes(&mut self, entry: &Entry, offset: u64, name: &[u8]) -> bool {
        let attr = &entry.attr;
        self.put(entry.record().as_bytes(), attr.inode, offset, attr.mode, name)
    }

    fn put(&mut self, lead: &[u8], inode: u64, offset: u64, mode: u32, name: &[u8]) -> bool {
        let kind = (mode & libc::S_IFMT) >> 12;
        let Ok(name_bytes) = u32::try_from(name.len()) else { return false };
        let entry = abi::DirEntry { inode, offset, name_bytes, kind };
        let needed = (lead.len() + size_of_val(&entry) + name.len()).next_multiple_of(ALIGN);
        let end = self.bytes.len() + needed;
        if end > self.room {
            return false;
        }
        self.bytes.extend_from_slice(lead);
        self.bytes.extend_from_slice(entry.as_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.resize(end, 0);
        true
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;

    #[test]
    fn names_are_aligned_and_fit() {
        let mut listing = Listing::new(24 + 8 + 24 + 8);
        assert!(listing.add(5, 1, libc::S_IFDIR, b"abc"));
        assert!(!listing.add(6, 2, libc::S_IFREG, b"123456789"));
        assert!(listing.add(6, 2, libc::S_IFREG, b"12345678"));
        assert!(!listing.add(7, 3, libc::S_IFREG, b""));
        let bytes = listing.into_bytes();
        assert_eq!(bytes.len(), 64);
        assert_eq!(bytes[16..32], *b"\x03\0\0\0\x04\0\0\0abc\0\0\0\0\0", "length, kind, name");
        assert_eq!(bytes[32..40], 6_u64.to_ne_bytes());
    }

    #[test]
    fn attributes_come_before_the_name() {
        let attr = Attr { inode: 9, mode: libc::S_IFREG | 0o600, ..Attr::default() };
        let entry = Entry { attr, generation: 1, ..Entry::default() };
        let mut listing = Listing::new(160);
        assert!(listing.add_with_attributes(&entry, 3, b"f"));
        let bytes = listing.into_bytes();
        assert_eq!(bytes.len(), 128 + 32);
        assert_eq!((&bytes[..8], &bytes[128..136]), (&9_u64.to_ne_bytes()[..], &bytes[..8]));
    }
}
