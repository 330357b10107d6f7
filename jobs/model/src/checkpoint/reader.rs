//! Bytes of one file, for a thread that goes through it from front to back: with a handle of its own, so that file
//! systems see that, and read ahead.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use crate::ModelError;

/// Reads past the page cache begin and end at multiples of it, in the file and in memory.
pub(super) const PAGE: usize = 4096;

#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    plain: File,
    /// Past the page cache, which would copy what nobody reads twice. None: the file system cannot.
    direct: Option<File>,
    /// Memory for reads, used again.
    buffer: Vec<u8>,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let plain =
            File::open(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
        let flags = OFlags::DIRECT.bits().cast_signed();
        let direct = OpenOptions::new().read(true).custom_flags(flags).open(path).ok();
        Ok(Self { path: path.to_owned(), plain, direct, buffer: Vec::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn read(&mut self, begin: u64, len: usize) -> Result<&[u8], ModelError> {
        let start = begin / PAGE as u64 * PAGE as u64;
        let skipped = usize::try_from(begin - start).expect("less than a page");
        let wanted = skipped + len;
        let room = wanted.next_multiple_of(PAGE);
        if self.buffer.len() < room + PAGE {
            self.buffer.resize(room + PAGE, 0);
        }
        let aligned = self.buffer.as_ptr().align_offset(PAGE);
        let room = &mut self.buffer[aligned..aligned + room];
        let mut known = 0;
        while known < wanted {
            let got = match &self.direct {
                Some(direct) => direct.read_at(&mut room[known..], start + known as u64),
                None => self.plain.read_at(&mut room[known..], start + known as u64),
            };
            known += match got {
                // Some file systems only say when it comes to reading that they cannot.
                Err(error) if error.kind() == ErrorKind::InvalidInput && self.direct.is_some() => {
                    self.direct = None;
                    0
                }
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
}
