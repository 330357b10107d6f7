//! One file of weights, by its header, which says where its tensors lie.

use std::{
    collections::BTreeSet,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use safetensors::{
    SafeTensorError,
    tensor::{Metadata, TensorInfo},
};

use crate::ModelError;

/// The most that a header may have, as in the reference.
const HEADER_BYTES_MAX: u64 = 100_000_000;

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) path: PathBuf,
    /// Where the tensors' bytes begin.
    pub(super) data_at: u64,
    tensors: Metadata,
}

impl Shard {
    /// Reads the header and checks it against the length of the file.
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let broken = |source| ModelError::Safetensors { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let mut header_len = [0; 8];
        if len < 8 {
            return Err(broken(SafeTensorError::HeaderTooSmall));
        }
        file.read_exact_at(&mut header_len, 0).map_err(io)?;
        let header_len = u64::from_le_bytes(header_len);
        if header_len > HEADER_BYTES_MAX {
            return Err(broken(SafeTensorError::HeaderTooLarge));
        }
        let data_at = 8 + header_len;
        if data_at > len {
            return Err(broken(SafeTensorError::InvalidHeaderLength));
        }
        let mut header = vec![0; usize::try_from(header_len).expect("at most 100 MB")];
        file.read_exact_at(&mut header, 8).map_err(io)?;
        // Reading it checks that the tensors lie one behind the other and are as long as their shapes say.
        let tensors: Metadata = serde_json::from_slice(&header)
            .map_err(|error| broken(SafeTensorError::InvalidHeaderDeserialization(error)))?;
        if data_at.checked_add(tensors.data_len() as u64) != Some(len) {
            return Err(broken(SafeTensorError::MetadataIncompleteBuffer));
        }
        Ok(Self { path: path.to_owned(), data_at, tensors })
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
}
