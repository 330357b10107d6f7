//! One file of weights: its header, which says where its tensors lie, and bytes of it.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use safetensors::{
    SafeTensorError,
    tensor::{Metadata, TensorInfo},
};

use crate::ModelError;

/// Reads past the page cache begin and end at multiples of it, in the file and in memory.
pub(super) const PAGE: usize = 4096;

/// The most that a header may have, as in the reference.
const HEADER_BYTES_MAX: u64 = 100_000_000;

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) path: PathBuf,
    plain: File,
    /// Past the page cache, which would copy what nobody reads twice. None: the file system cannot.
    direct: Option<File>,
    /// Where the tensors' bytes begin.
    pub(super) data_at: u64,
    tensors: Metadata,
}

impl Shard {
    /// Reads the header and checks it against the length of the file.
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let broken = |source| ModelError::Safetensors { path: path.to_owned(), source };
        let plain = File::open(path).map_err(io)?;
        let len = plain.metadata().map_err(io)?.len();
        let mut header_len = [0; 8];
        if len < 8 {
            return Err(broken(SafeTensorError::HeaderTooSmall));
        }
        plain.read_exact_at(&mut header_len, 0).map_err(io)?;
        let header_len = u64::from_le_bytes(header_len);
        if header_len > HEADER_BYTES_MAX {
            return Err(broken(SafeTensorError::HeaderTooLarge));
        }
        let data_at = 8 + header_len;
        if data_at > len {
            return Err(broken(SafeTensorError::InvalidHeaderLength));
        }
        let mut header = vec![0; usize::try_from(header_len).expect("at most 100 MB")];
        plain.read_exact_at(&mut header, 8).map_err(io)?;
        // Reading it checks that the tensors lie one behind the other and are as long as their shapes say.
        let tensors: Metadata = serde_json::from_slice(&header)
            .map_err(|error| broken(SafeTensorError::InvalidHeaderDeserialization(error)))?;
        if data_at.checked_add(tensors.data_len() as u64) != Some(len) {
            return Err(broken(SafeTensorError::MetadataIncompleteBuffer));
        }
        let flags = OFlags::DIRECT.bits().cast_signed();
        let direct = OpenOptions::new().read(true).custom_flags(flags).open(path).ok();
        Ok(Self { path: path.to_owned(), plain, direct, data_at, tensors })
    }

    /// Names and places, in the order in which they lie in the file.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (String, &TensorInfo)> {
        let place = |name: String| self.tensors.info(&name).map(|info| (name, info));
        self.tensors.offset_keys().into_iter().filter_map(place)
    }

    /// The first of those promised that is not there.
    pub(super) fn lacks<'a>(&self, promised: &'a BTreeSet<String>) -> Option<&'a String> {
        promised.iter().find(|name| self.tensors.info(name).is_none())
    }

    /// Bytes of the file.
    pub(super) fn read<'b>(
        &self,
        buffer: &'b mut Buffer,
        begin: u64,
        len: usize,
    ) -> Result<&'b [u8], ModelError> {
        let start = begin / PAGE as u64 * PAGE as u64;
        let skipped = usize::try_from(begin - start).expect("less than a page");
        let wanted = skipped + len;
        let room = buffer.aligned(wanted.next_multiple_of(PAGE));
        let mut known = 0;
        while known < wanted {
            known += match self.read_at(&mut room[known..], start + known as u64) {
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                Err(source) => return Err(ModelError::Io { path: self.path.clone(), source }),
                Ok(got) if known + got >= wanted => got,
                // Where a read ends early the next begins at a page again.
                Ok(got) if got >= PAGE => got / PAGE * PAGE,
                Ok(_) => {
                    let source = io::Error::from(ErrorKind::UnexpectedEof);
                    return Err(ModelError::Io { path: self.path.clone(), source });
                }
            };
        }
        Ok(&room[skipped..wanted])
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        match self.direct.as_ref().map(|file| file.read_at(into, at)) {
            // Some file systems only say when it comes to reading that they cannot.
            Some(Err(error)) if error.kind() == ErrorKind::InvalidInput => {
                self.plain.read_at(into, at)
            }
            Some(outcome) => outcome,
            None => self.plain.read_at(into, at),
        }
    }
}

/// Memory for reads, used again.
#[derive(Debug, Default)]
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    /// So many bytes that begin at a page.
    fn aligned(&mut self, len: usize) -> &mut [u8] {
        if self.0.len() < len + PAGE {
            self.0.resize(len + PAGE, 0);
        }
        let from = self.0.as_ptr().align_offset(PAGE);
        &mut self.0[from..from + len]
    }
}
