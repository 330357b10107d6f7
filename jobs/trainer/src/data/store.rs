//! Where a dataset is: in a folder of this machine or a mount, or in a volume that this process reads itself.

use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    DataError,
    manifest::{FILES, FILES_MAYBE},
    volume::{Volume, VolumeFile},
};

/// Before VOLUME/PATH.
const SCHEME: &str = "ff2://";

#[derive(Debug, Clone)]
pub(crate) enum Store {
    Folder(PathBuf),
    Volume {
        volume: Arc<Volume>,
        folder: String,
        /// Where copies of the small files are.
        copies: PathBuf,
    },
}

impl Store {
    /// Opens what `data.folder` names. `mount_config` tells how a volume is reached, `copies` is a folder for copies of
    /// what lies beside its shards.
    ///
    /// # Errors
    /// A volume that cannot be reached, or a folder in it that is no dataset.
    pub(crate) fn open(
        folder: &Path,
        mount_config: &Path,
        copies: PathBuf,
    ) -> Result<Self, DataError> {
        let Some(address) = folder.to_str().and_then(|name| name.strip_prefix(SCHEME)) else {
            return Ok(Self::Folder(folder.to_owned()));
        };
        let (name, path) = address.split_once('/').unwrap_or((address, ""));
        let volume = Arc::new(Volume::connect(name, mount_config)?);
        fs::create_dir_all(&copies)
            .map_err(|source| DataError::Io { path: copies.clone(), source })?;
        let folder = format!("/{}", path.trim_matches('/'));
        let store = Self::Volume { volume, folder, copies };
        for file in FILES.into_iter().chain(FILES_MAYBE) {
            let io = |source| DataError::Io { path: store.path(file), source };
            let bytes = match store.file(file) {
                Ok(found) => found.len().and_then(|len| found.read(0..len)).map_err(io)?,
                Err(error) if FILES_MAYBE.contains(&file) && is_missing(&error) => continue,
                Err(error) => return Err(io(error)),
            };
            let path = store.local().join(file);
            fs::write(&path, bytes).map_err(|source| DataError::Io { path, source })?;
        }
        Ok(store)
    }

    /// A folder of the manifest and the tokenizer, which others read by their paths.
    pub(crate) fn local(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder,
            Self::Volume { copies, .. } => copies,
        }
    }

    /// As people are told.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(file),
            Self::Volume { volume, folder, .. } => {
                format!("{SCHEME}{}{folder}/{file}", volume.name()).into()
            }
        }
    }

    pub(super) fn file(&self, file: &str) -> io::Result<Bytes> {
        match self {
            Self::Folder(folder) => File::open(folder.join(file)).map(Bytes::File),
            Self::Volume { volume, folder, .. } => {
                volume.open(&format!("{folder}/{file}")).map(Bytes::Volume)
            }
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// A file's bytes, read at any place.
#[derive(Debug)]
pub(super) enum Bytes {
    File(File),
    Volume(VolumeFile),
}

impl Bytes {
    pub(super) fn len(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => file.metadata().map(|metadata| metadata.len()),
            Self::Volume(file) => file.len(),
        }
    }

    /// All of the range.
    pub(super) fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        Ok(self.read_all(&[range])?.pop().unwrap_or_default())
    }

    /// All of each range. Of a volume in one call to each server.
    pub(super) fn read_all(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Vec<u8>>> {
        match self {
            Self::File(file) => {
                let read = |range: &Range<u64>| {
                    let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
                    let mut bytes = vec![0; len];
                    file.read_exact_at(&mut bytes, range.start)?;
                    Ok(bytes)
                };
                ranges.iter().map(read).collect()
            }
            Self::Volume(file) => file.read_all(ranges),
        }
    }
}
