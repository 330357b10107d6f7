//! Operations and their outcomes, as a program sees them.

use std::{io, ops::Range};

use crate::{
    Error, Region, Result,
    layout::{self, Completed, Submission},
    limits::OPERATION_BYTES_MAX,
};

/// A file that was registered with a ring, open as the descriptor was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RingFile(pub(crate) u32);

impl RingFile {
    /// Its number in submissions.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// Which of several waiting operations goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    #[default]
    High,
    /// After those of the high class; but it is not held up for ever.
    Low,
}

/// One operation. Operations of a ring have no order but what the program makes by waiting: an fsync
/// covers the writes whose completions were reaped before it was pushed.
#[derive(Clone, Copy, Debug)]
pub struct Op(Submission);

impl Op {
    /// Reads file bytes from `file_offset` on into this range of the region. The completion tells how many;
    /// fewer only at the end of the file.
    pub fn read(
        file: RingFile,
        file_offset: u64,
        region: &Region,
        into: Range<usize>,
    ) -> Result<Self> {
        Self::transfer(layout::READ, file, file_offset, region, into)
    }

    /// Writes this range of the region to the file, at `file_offset`, or at the end if the file was opened
    /// with `O_APPEND`. The bytes must stay until the completion.
    pub fn write(
        file: RingFile,
        file_offset: u64,
        region: &Region,
        from: Range<usize>,
    ) -> Result<Self> {
        Self::transfer(layout::WRITE, file, file_offset, region, from)
    }

    /// As `fsync(2)`, of what was complete before it was pushed.
    pub fn fsync(file: RingFile) -> Self {
        Self(Submission { op: layout::FSYNC, file: file.0, ..Submission::default() })
    }

    fn transfer(
        op: u8,
        file: RingFile,
        file_offset: u64,
        region: &Region,
        range: Range<usize>,
    ) -> Result<Self> {
        let (start, length) = (range.start as u64, range.len() as u64);
        if range.start > range.end || range.end > region.len() {
            let len = region.len();
            return Err(Error::Invalid(format!(
                "{range:?} is no range of a region of {len} bytes"
            )));
        }
        if length > OPERATION_BYTES_MAX {
            let most = OPERATION_BYTES_MAX;
            return Err(Error::Invalid(format!(
                "an operation moves at most {most} bytes, not {length}: push several"
            )));
        }
        Ok(Self(Submission {
            op,
            file: file.0,
            region: region.number(),
            region_offset: start,
            file_offset,
            length,
            ..Submission::default()
        }))
    }

    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        self.0.class = match class {
            Class::High => layout::HIGH,
            Class::Low => layout::LOW,
        };
        self
    }

    /// Comes back with the completion.
    #[must_use]
    pub fn user_data(mut self, user_data: u64) -> Self {
        self.0.user_data = user_data;
        self
    }

    pub(crate) fn submission(self) -> Submission {
        self.0
    }
}

/// The outcome of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion(pub(crate) Completed);

impl Completion {
    pub fn user_data(&self) -> u64 {
        self.0.user_data
    }

    /// Bytes that moved, 0 for an fsync.
    pub fn result(&self) -> io::Result<usize> {
        let errno = || i32::try_from(-self.0.result).unwrap_or(libc::EIO);
        usize::try_from(self.0.result).map_err(|_| io::Error::from_raw_os_error(errno()))
    }

    /// Bytes, or the negative errno.
    pub fn raw(&self) -> i64 {
        self.0.result
    }
}
