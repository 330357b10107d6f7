//! The first exchange: which protocol, which sizes, which abilities.

use std::io;

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::{
    abi::{self, InHeader, InitIn, InitOut, init, opcode},
    device::Device,
    reply::{Errno, Reply},
};

/// What a file system wants of the kernel; it gets what the kernel has.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Of [`crate::init`]. Over io_uring or not is asked elsewhere.
    pub flags: u64,
    /// Bytes of the largest write, and of the largest read.
    pub write_bytes_max: u32,
    pub read_ahead_bytes: u32,
    /// Requests of the kernel's own (read-ahead, direct I/O without waiting) in flight.
    pub background_max: u16,
}

/// What both sides agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub minor: u32,
    pub flags: u64,
    pub write_bytes_max: u32,
}

/// The kernel's first message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    unique: u64,
    init: InitIn,
}

/// Without its own number the kernel allows this many pages.
const PAGES_WITHOUT_FLAG: u32 = 32;
const PAGE_BYTES: u32 = 4096;

impl Offer {
    /// Waits for the message, which the kernel sends when it has mounted.
    pub(crate) fn read(device: &Device) -> io::Result<Self> {
        let mut message = vec![0; 16 << 10];
        let len = device.read_whole(&mut message)?;
        let offer = Self::parse(&message[..len])?;
        if offer.init.major != abi::MAJOR || offer.init.minor < abi::MINOR_MIN {
            device.answer(offer.unique, &Reply::error(Errno(libc::EPROTO)));
            let (major, minor) = (offer.init.major, offer.init.minor);
            return Err(io::Error::other(format!(
                "this kernel speaks FUSE {major}.{minor}; {}.{} (Linux 5.2) or later is needed",
                abi::MAJOR,
                abi::MINOR_MIN
            )));
        }
        Ok(offer)
    }

    fn parse(message: &[u8]) -> io::Result<Self> {
        let odd = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let (header, rest) = InHeader::read_from_prefix(message)
            .map_err(|_| odd("the kernel's first message has no header"))?;
        if header.opcode != opcode::INIT || rest.len() < 16 {
            return Err(odd("the kernel's first message is not INIT"));
        }
        // Older kernels send less; what they lack is zero.
        let mut init = InitIn::new_zeroed();
        let len = rest.len().min(size_of::<InitIn>());
        init.as_mut_bytes()[..len].copy_from_slice(&rest[..len]);
        Ok(Self { unique: header.unique, init })
    }

    fn flags(&self) -> u64 {
        let low = u64::from(self.init.flags);
        let has_high = low & init::INIT_EXT != 0;
        low | if has_high { u64::from(self.init.flags_high) << 32 } else { 0 }
    }

    pub(crate) fn has_io_uring(&self) -> bool {
        self.flags() & init::OVER_IO_URING != 0
    }

    /// What is agreed, with io_uring if the caller is ready for it.
    pub(crate) fn agree(&self, wanted: &Wanted, io_uring: bool) -> Agreed {
        let offered = self.flags();
        let own = init::BIG_WRITES | init::MAX_PAGES | init::INIT_EXT | init::SETXATTR_EXT;
        let ring = if io_uring { init::OVER_IO_URING } else { 0 };
        let flags = (wanted.flags | own | ring) & offered;
        let pages = if flags & init::MAX_PAGES == 0 { PAGES_WITHOUT_FLAG } else { u32::MAX };
        let write_bytes_max = wanted.write_bytes_max.min(pages.saturating_mul(PAGE_BYTES));
        Agreed { minor: self.init.minor.min(abi::MINOR), flags, write_bytes_max }
    }

    pub(crate) fn accept(&self, device: &Device, wanted: &Wanted, agreed: &Agreed) {
        let pages = agreed.write_bytes_max.div_ceil(PAGE_BYTES);
        let out = InitOut {
            major: abi::MAJOR,
            minor: agreed.minor,
            max_readahead: wanted.read_ahead_bytes.min(self.init.max_readahead),
            flags: (agreed.flags & u64::from(u32::MAX)) as u32,
            max_background: wanted.background_max,
            // Where the kernel begins to hold back: as libfuse has it.
            congestion_threshold: wanted.background_max / 4 * 3,
            max_write: agreed.write_bytes_max,
            time_granularity_ns: 1,
            max_pages: u16::try_from(pages).unwrap_or(u16::MAX),
            map_alignment: 0,
            flags_high: (agreed.flags >> 32) as u32,
            max_stack_depth: 0,
            request_timeout_s: 0,
            unused: [0; 11],
        };
        device.answer(self.unique, &Reply::bytes(out.as_bytes().to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize, major: u32, minor: u32, flags: u64) -> Vec<u8> {
        let mut init = InitIn::new_zeroed();
        (init.major, init.minor, init.max_readahead) = (major, minor, 128 << 10);
        (init.flags, init.flags_high) = (flags as u32, (flags >> 32) as u32);
        let mut header = InHeader::new_zeroed();
        (header.opcode, header.unique, header.len) = (opcode::INIT, 2, 40 + bytes as u32);
        [header.as_bytes(), &init.as_bytes()[..bytes]].concat()
    }

    const WANTED: Wanted = Wanted {
        flags: init::ASYNC_READ | init::DIRECT_IO_ALLOW_MMAP,
        write_bytes_max: 1 << 20,
        read_ahead_bytes: 1 << 20,
        background_max: 128,
    };

    #[test]
    fn what_both_have_is_agreed() {
        let flags =
            init::ASYNC_READ | init::MAX_PAGES | init::INIT_EXT | init::DIRECT_IO_ALLOW_MMAP;
        let offer = Offer::parse(&message(64, 7, 46, flags | init::OVER_IO_URING)).unwrap();
        assert!(offer.has_io_uring());
        let agreed = offer.agree(&WANTED, false);
        assert_eq!(agreed, Agreed { minor: 45, flags, write_bytes_max: 1 << 20 });
        assert_eq!(offer.agree(&WANTED, true).flags, flags | init::OVER_IO_URING);
    }

    #[test]
    fn an_old_kernel_gets_what_it_understands() {
        let offer = Offer::parse(&message(16, 7, 31, init::ASYNC_READ)).unwrap();
        let agreed = offer.agree(&WANTED, true);
        let expected = Agreed { minor: 31, flags: init::ASYNC_READ, write_bytes_max: 128 << 10 };
        assert_eq!(agreed, expected);
    }

    #[test]
    fn another_first_message_is_refused() {
        for len in [0, 39, 40, 55] {
            Offer::parse(&message(64, 7, 45, 0)[..len]).unwrap_err();
        }
        let mut other = message(64, 7, 45, 0);
        other[4] = 1;
        Offer::parse(&other).unwrap_err();
    }

    fn offers() -> Vec<Vec<u8>> {
        vec![message(64, 7, 45, u64::MAX), message(16, 7, 31, init::ASYNC_READ)]
    }

    #[test]
    fn damaged_offers() {
        ff2_fuzz::target!(offers(), |bytes| {
            let Ok(offer) = ff2_fuzz::bounded(bytes, || Offer::parse(bytes)) else { return };
            for io_uring in [false, true] {
                let agreed = offer.agree(&WANTED, io_uring);
                assert_eq!(agreed.flags & !offer.flags(), 0, "nothing that was not offered");
                assert!(agreed.minor <= abi::MINOR);
                assert!(agreed.write_bytes_max <= WANTED.write_bytes_max);
            }
        });
    }
}
