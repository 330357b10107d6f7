//! What lies where in the memory that a program and the mount's process share.
//!
//! ```text
//! byte 0      magic and version (8), entries (4), nothing (52)
//!      64     submission tail   operations pushed so far            written by the program
//!      128    completion tail   completions posted so far           written by the mount
//!      192    completion head   completions reaped so far           written by the program
//!      256    mount sleeps      1: ring its bell after a push       written by both
//!      320    program waits for completions; 0: does not wait       written by both
//!      384    closed by         errno why the mount left the ring   written by the mount
//!      512    submissions, 64 bytes each
//!      512 + 64 * entries       completions, 16 bytes each
//! ```
//!
//! Counters wrap at 2^32; slot `n` of a queue is counter `n` modulo the entries. Each operation has one
//! completion, and at most `entries` are between push and reap: so no queue overflows, and no slot is
//! written before its last reader is done with it. Numbers have the machine's byte order: nothing here
//! leaves it.

/// Of this layout and of the control messages: both sides must have the same.
pub const VERSION: u32 = 1;

pub(crate) const MAGIC: u64 = 0x6666_3272_696e_6700 | VERSION as u64;
pub(crate) const ENTRIES_AT: usize = 8;
pub(crate) const SUBMISSIONS_AT: usize = 512;
pub(crate) const SUBMISSION_WORDS: usize = 8;
pub(crate) const COMPLETION_WORDS: usize = 2;

/// A counter or flag; each has a cache line of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    SubmissionTail = 1,
    CompletionTail = 2,
    CompletionHead = 3,
    MountSleeps = 4,
    ProgramWaitsFor = 5,
    ClosedBy = 6,
}

impl Line {
    pub(crate) const fn at(self) -> usize {
        self as usize * 64
    }
}

/// Bytes of a ring's memory.
pub fn ring_bytes(entries: u32) -> usize {
    completions_at(entries) + entries as usize * COMPLETION_WORDS * 8
}

pub(crate) fn completions_at(entries: u32) -> usize {
    SUBMISSIONS_AT + entries as usize * SUBMISSION_WORDS * 8
}

/// An operation as it lies in the ring. Any bytes are one: what they mean is checked by who carries it
/// out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Submission {
    /// [`READ`], [`WRITE`] or [`FSYNC`].
    pub op: u8,
    /// [`HIGH`] or [`LOW`].
    pub class: u8,
    /// Of a registered file.
    pub file: u32,
    /// Of a registered region; FSYNC: 0, as what follows.
    pub region: u32,
    /// Bytes.
    pub region_offset: u64,
    /// Bytes.
    pub file_offset: u64,
    /// Bytes.
    pub length: u64,
    /// Comes back with the completion.
    pub user_data: u64,
}

pub const READ: u8 = 1;
pub const WRITE: u8 = 2;
pub const FSYNC: u8 = 3;

/// Goes first.
pub const HIGH: u8 = 0;
/// Goes when no high one waits, and now and then before one.
pub const LOW: u8 = 1;

/// The outcome of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completed {
    pub user_data: u64,
    /// Bytes that moved, or the negative errno.
    pub result: i64,
}

impl Submission {
    pub(crate) fn to_words(self) -> [u64; SUBMISSION_WORDS] {
        let first = u64::from(self.op) | u64::from(self.class) << 8 | u64::from(self.file) << 32;
        let Self { region, region_offset, file_offset, length, user_data, .. } = self;
        [first, u64::from(region), region_offset, file_offset, length, user_data, 0, 0]
    }

    pub(crate) fn from_words(words: [u64; SUBMISSION_WORDS]) -> Self {
        let [first, region, region_offset, file_offset, length, user_data, _, _] = words;
        Self {
            op: first as u8,
            class: (first >> 8) as u8,
            file: (first >> 32) as u32,
            region: region as u32,
            region_offset,
            file_offset,
            length,
            user_data,
        }
    }
}

impl Completed {
    pub(crate) fn to_words(self) -> [u64; COMPLETION_WORDS] {
        [self.user_data, self.result.cast_unsigned()]
    }

    pub(crate) fn from_words([user_data, result]: [u64; COMPLETION_WORDS]) -> Self {
        Self { user_data, result: result.cast_signed() }
    }
}

const _: () = assert!(Line::ClosedBy.at() + 64 <= SUBMISSIONS_AT);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_lie_where_the_picture_says() {
        assert_eq!(Line::SubmissionTail.at(), 64);
        assert_eq!(Line::ClosedBy.at(), 384);
        assert_eq!(ring_bytes(1), 512 + 64 + 16);
        assert_eq!(completions_at(4096) % 64, 0);
        let submission = Submission {
            op: WRITE,
            class: LOW,
            file: 0x0102_0304,
            region: 5,
            region_offset: 6,
            file_offset: 7,
            length: 8,
            user_data: 9,
        };
        assert_eq!(submission.to_words(), [0x0102_0304_0000_0102, 5, 6, 7, 8, 9, 0, 0]);
        assert_eq!(Submission::from_words(submission.to_words()), submission);
        let completed = Completed { user_data: 9, result: -5 };
        assert_eq!(completed.to_words(), [9, 5_u64.wrapping_neg()]);
        assert_eq!(Completed::from_words(completed.to_words()), completed);
    }

    #[test]
    fn any_bytes_are_an_entry() {
        let wild = Submission::from_words([u64::MAX; SUBMISSION_WORDS]);
        assert_eq!((wild.op, wild.class, wild.file, wild.length), (255, 255, u32::MAX, u64::MAX));
    }

    fn slots() -> Vec<Vec<u8>> {
        let submission = Submission { op: READ, file: 3, length: 4096, ..Submission::default() };
        let far = Submission { region_offset: u64::MAX, length: u64::MAX, ..submission };
        [submission, far].map(|one| one.to_words().map(u64::to_ne_bytes).concat()).to_vec()
    }

    /// A slot may hold anything; what is taken out of it lies inside of memory only if all of it does.
    #[test]
    fn damaged_slots() {
        ff2_fuzz::target!(slots(), |bytes| {
            let (words, _) = bytes.as_chunks::<8>();
            let Some(words) = words.first_chunk::<SUBMISSION_WORDS>() else { return };
            let words = words.map(u64::from_ne_bytes);
            let submission = Submission::from_words(words);
            assert_eq!(Submission::from_words(submission.to_words()), submission);
            let completed = Completed::from_words([words[0], words[1]]);
            assert_eq!(completed.to_words(), [words[0], words[1]]);
        });
    }
}
