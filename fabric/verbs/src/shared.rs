//! Memory that somebody else mapped, for peers to reach or for transfers of ours.

use std::{fmt, ptr::NonNull, sync::Arc};

use crate::{Access, Domain, Error, Remote, memory::Region};

/// Memory that may be registered as a whole.
///
/// # Safety
/// The range is mapped, readable and writable, and stays so as long as the value lives. Whoever reads or writes it
/// bears that a peer who was told of a part does so too.
pub unsafe trait Memory: Send + Sync + 'static {
    /// Where it begins, and its bytes.
    fn range(&self) -> (NonNull<u8>, usize);
}

/// Memory that connections of a domain can use for as long as this lives, and let their peers use if they may.
pub struct Shared {
    // Before the memory: what is registered must be mapped.
    region: Region,
    memory: Arc<dyn Memory>,
}

impl Shared {
    pub fn new(
        domain: &Arc<Domain>,
        memory: Arc<dyn Memory>,
        access: Access,
    ) -> Result<Self, Error> {
        let (begin, len) = memory.range();
        // SAFETY: the memory says that it is mapped as long as it lives, and is dropped after the region.
        let region = unsafe { Region::register(domain, begin, len, access) }?;
        Ok(Self { region, memory })
    }

    /// Whether all of these bytes are within it.
    pub(crate) fn holds(&self, bytes: NonNull<[u8]>) -> bool {
        let (begin, len) = self.memory.range();
        let from = bytes.cast::<u8>().as_ptr().addr().checked_sub(begin.as_ptr().addr());
        from.and_then(|from| from.checked_add(bytes.len())).is_some_and(|end| end <= len)
    }

    pub(crate) fn local_key(&self, domain: &Arc<Domain>) -> Result<u32, Error> {
        if self.region.is_of(domain) {
            Ok(self.region.local_key())
        } else {
            Err(Error::ForeignBuffer)
        }
    }

    /// All of it, for the peer, which reaches nothing where access is local. What is above 4 GiB is out of its reach.
    pub fn remote(&self) -> Remote {
        let (begin, len) = self.memory.range();
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        Remote { address: begin.as_ptr().addr() as u64, key: self.region.remote_key(), len }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({} bytes)", self.memory.range().1)
    }
}
