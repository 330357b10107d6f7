//! Memory of ours that a transfer moves bytes from or to: a buffer of a pool, or what somebody lends.

use std::{any::Any, fmt, ops::Deref, ptr::NonNull, sync::Arc};

use crate::{Buffer, Domain, Error, Shared};

/// What a device uses as long as a transfer lasts.
#[derive(Debug)]
pub enum Local {
    Buffer(Buffer),
    Lent(Lent),
}

/// Bytes that a device may be lent, by value.
///
/// # Safety
/// [`Lendable::bytes`] are the same wherever the value is moved, and mapped as long as it lives. Nobody writes them
/// meanwhile, and nobody else reads them either if they are `EXCLUSIVE`.
pub unsafe trait Lendable: Any + Send {
    /// Whether a device may write them.
    const EXCLUSIVE: bool;

    fn bytes(&self) -> NonNull<[u8]>;
}

/// Bytes within registered memory, with their owner.
pub struct Lent {
    // Before the memory that it is a part of.
    owner: Box<dyn Any + Send>,
    bytes: NonNull<[u8]>,
    exclusive: bool,
    shared: Arc<Shared>,
}

// SAFETY: an address range, and its owner, who may be sent.
unsafe impl Send for Lent {}

impl Shared {
    /// Lends some of this memory to a transfer.
    ///
    /// # Errors
    /// Gives the owner back if not all of the bytes are within it.
    pub fn lend<T: Lendable>(self: &Arc<Self>, owner: T) -> Result<Lent, T> {
        let bytes = owner.bytes();
        if !self.holds(bytes) || u32::try_from(bytes.len()).is_err() {
            return Err(owner);
        }
        let (owner, exclusive) = (Box::new(owner), T::EXCLUSIVE);
        Ok(Lent { owner, bytes, exclusive, shared: self.clone() })
    }
}

impl Lent {
    /// Gives the owner back; `None` if it is of another type.
    pub fn into_owner<T: Lendable>(self) -> Option<T> {
        self.owner.downcast().ok().map(|owner| *owner)
    }
}

impl Local {
    /// The buffer; `None` if it is lent memory.
    pub fn into_buffer(self) -> Option<Buffer> {
        match self {
            Self::Buffer(buffer) => Some(buffer),
            Self::Lent(_) => None,
        }
    }

    /// The owner of lent memory; `None` if there is none of this type.
    pub fn into_owner<T: Lendable>(self) -> Option<T> {
        match self {
            Self::Buffer(_) => None,
            Self::Lent(lent) => lent.into_owner(),
        }
    }

    /// Whether a device may write it.
    pub(crate) fn is_exclusive(&self) -> bool {
        match self {
            Self::Buffer(_) => true,
            Self::Lent(lent) => lent.exclusive,
        }
    }

    /// For a work request: address, length and local key.
    pub(crate) fn piece(&self, domain: &Arc<Domain>) -> Result<(u64, u32, u32), Error> {
        match self {
            Self::Buffer(buffer) => buffer.local(domain),
            Self::Lent(Lent { bytes, shared, .. }) => {
                let len = u32::try_from(bytes.len()).expect("looked at when it was lent");
                Ok((bytes.cast::<u8>().as_ptr().addr() as u64, len, shared.local_key(domain)?))
            }
        }
    }
}

impl From<Buffer> for Local {
    fn from(buffer: Buffer) -> Self {
        Self::Buffer(buffer)
    }
}

impl From<Lent> for Local {
    fn from(lent: Lent) -> Self {
        Self::Lent(lent)
    }
}

impl Deref for Local {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Buffer(buffer) => buffer,
            // SAFETY: mapped and written by nobody as long as the owner lives, who is here; what a device writes is
            // owned by its transfer, where nobody can reach it.
            Self::Lent(lent) => unsafe { lent.bytes.as_ref() },
        }
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lent({} bytes)", self.bytes.len())
    }
}
