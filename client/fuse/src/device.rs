//! Notices to the kernel, written to the device of the mount: what it is to drop from its caches.
//!
//! Some wait for locks of the kernel: see [`crate::coherence`] for who may call them.

use std::{
    fs::File,
    io::{self, IoSlice, Write},
    os::fd::BorrowedFd,
};

use fuser::INodeNo;

/// `fuse_notify_code` of `linux/fuse.h`.
const INVAL_INODE: i32 = 2;
const INVAL_ENTRY: i32 = 3;
/// Since Linux 6.16.
const INC_EPOCH: i32 = 8;

/// Bytes of `fuse_out_header`: length, error or code, the request's number (0: a notice).
const HEADER_BYTES: usize = 16;

#[derive(Debug)]
pub(crate) struct Device(File);

impl Device {
    pub(crate) fn new(device: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self(device.try_clone_to_owned()?.into()))
    }

    /// The attributes (and ACLs) of an inode. Waits for nobody.
    pub(crate) fn drop_attr(&self, inode: INodeNo) -> io::Result<()> {
        self.inval_inode(inode, -1)
    }

    /// Also its pages. Waits for those that are being read or written.
    pub(crate) fn drop_pages(&self, inode: INodeNo) -> io::Result<()> {
        self.inval_inode(inode, 0)
    }

    /// A negative offset means: no pages.
    fn inval_inode(&self, inode: INodeNo, offset: i64) -> io::Result<()> {
        let all = 0_i64;
        let body = [inode.0.to_ne_bytes(), offset.to_ne_bytes(), all.to_ne_bytes()];
        self.send(INVAL_INODE, &[body.as_flattened()])
    }

    /// What a name leads to, or that it leads nowhere. Waits for operations in the directory.
    pub(crate) fn drop_entry(&self, parent: INodeNo, name: &[u8]) -> io::Result<()> {
        let length = u32::try_from(name.len()).map_err(io::Error::other)?;
        let flags = 0_u32;
        let parent = parent.0.to_ne_bytes();
        let numbers = [length.to_ne_bytes(), flags.to_ne_bytes()];
        self.send(INVAL_ENTRY, &[&parent, numbers.as_flattened(), name, &[0]])
    }

    /// All entries of the mount: each is looked up when it is used again. Waits for nobody, and counts
    /// for answers on their way too.
    pub(crate) fn drop_entries(&self) -> io::Result<()> {
        self.send(INC_EPOCH, &[])
    }

    fn send(&self, code: i32, body: &[&[u8]]) -> io::Result<()> {
        let length = HEADER_BYTES + body.iter().map(|part| part.len()).sum::<usize>();
        let length = u32::try_from(length).map_err(io::Error::other)?;
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&length.to_ne_bytes());
        header[4..8].copy_from_slice(&code.to_ne_bytes());
        let parts: Vec<IoSlice<'_>> =
            [&header[..]].iter().chain(body).map(|part| IoSlice::new(part)).collect();
        // The device takes a notice as a whole.
        (&self.0).write_vectored(&parts).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::fd::AsFd};

    use super::*;

    #[test]
    fn notices_have_the_layout_of_the_kernel() {
        let (mut reader, writer) = io::pipe().unwrap();
        let device = Device::new(writer.as_fd()).unwrap();
        let mut read = |length: usize| {
            let mut bytes = vec![0; length];
            reader.read_exact(&mut bytes).unwrap();
            bytes
        };
        device.drop_entry(INodeNo(7), b"ab").unwrap();
        let mut expected =
            [35_u32, 3, 0, 0, 7, 0, 2, 0].map(u32::to_ne_bytes).as_flattened().to_vec();
        expected.extend(b"ab\0");
        if cfg!(target_endian = "little") {
            assert_eq!(read(35), expected);
        }
        device.drop_attr(INodeNo(9)).unwrap();
        let bytes = read(40);
        assert_eq!(bytes[24..32], (-1_i64).to_ne_bytes());
        device.drop_entries().unwrap();
        assert_eq!(read(16)[4..8], 8_i32.to_ne_bytes());
    }
}
