//! The one table from status code to errno and retry class.

use std::fmt;

use crate::pb;
pub use crate::pb::Code;

/// What a caller does about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The answer is final.
    Never,
    /// Take the newer routing (it may be in the refusal), then ask again at once.
    RefreshRouting,
    /// Ask the leader that the refusal names, or find it.
    FindLeader,
    /// Ask another replica at once; if there is none, as `BackOff`.
    OtherTarget,
    /// Wait a little (growing, jittered), then ask the same again with the same id.
    BackOff,
}

/// A failure as it travels: a code, a sentence for people, and hints for the retry.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub code: Code,
    pub detail: String,
    /// With [`Code::StaleRouting`]: the chain as the answering node knows it.
    pub chain: Option<Box<pb::Chain>>,
    /// With [`Code::NotLeader`]: where the leader was last seen.
    pub leader_address: Option<String>,
}

impl Status {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), chain: None, leader_address: None }
    }

    pub fn stale_routing(chain: Option<pb::Chain>, detail: impl Into<String>) -> Self {
        Self { chain: chain.map(Box::new), ..Self::new(Code::StaleRouting, detail) }
    }

    pub fn not_leader(leader_address: Option<String>) -> Self {
        Self {
            leader_address,
            ..Self::new(Code::NotLeader, "this replica does not lead the group")
        }
    }

    pub fn errno(&self) -> i32 {
        row(self.code).errno
    }

    pub fn retry(&self) -> Retry {
        row(self.code).retry
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            f.write_str(self.code.as_str_name())
        } else {
            write!(f, "{}: {}", self.code.as_str_name(), self.detail)
        }
    }
}

impl std::error::Error for Status {}

impl From<Code> for Status {
    fn from(code: Code) -> Self {
        Self::new(code, "")
    }
}

impl From<Status> for pb::Status {
    fn from(status: Status) -> Self {
        Self {
            code: status.code.into(),
            detail: status.detail,
            chain: status.chain.map(|chain| *chain),
            leader_address: status.leader_address.unwrap_or_default(),
        }
    }
}

impl From<pb::Status> for Status {
    fn from(status: pb::Status) -> Self {
        Self {
            // A code of a newer release is a failure that this one cannot name.
            code: Code::try_from(status.code).unwrap_or(Code::Internal),
            detail: status.detail,
            chain: status.chain.map(Box::new),
            leader_address: Some(status.leader_address).filter(|address| !address.is_empty()),
        }
    }
}

/// `Ok(())` for an absent or OK status of a reply, else the failure.
pub fn check(status: Option<pb::Status>) -> Result<(), Status> {
    match status {
        Some(status) if status.code != Code::Ok as i32 => Err(status.into()),
        _ => Ok(()),
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Linux errno; 0 for OK.
    pub errno: i32,
    pub retry: Retry,
}

/// The table, which `docs/SEMANTICS.md` points to.
pub const fn row(code: Code) -> Row {
    use Retry::{BackOff, FindLeader, Never, OtherTarget, RefreshRouting};
    const EPERM: i32 = 1;
    const EIO: i32 = 5;
    const EAGAIN: i32 = 11;
    let (errno, retry) = match code {
        Code::Ok => (0, Never),
        Code::NotFound => (2, Never),
        Code::Exists => (17, Never),
        Code::NotDirectory => (20, Never),
        Code::IsDirectory => (21, Never),
        Code::NotEmpty => (39, Never),
        Code::AccessDenied => (13, Never),
        Code::NotPermitted => (EPERM, Never),
        Code::NameTooLong => (36, Never),
        Code::InvalidArgument => (22, Never),
        Code::CrossVolume => (18, Never),
        Code::TooManyLinks => (31, Never),
        Code::SymlinkLoop => (40, Never),
        Code::NoSpace => (28, Never),
        Code::QuotaExceeded => (122, Never),
        Code::FileTooBig => (27, Never),
        Code::StaleInode => (116, Never),
        Code::ReadOnly => (30, Never),
        Code::Unsupported => (95, Never),
        Code::BadHandle => (9, Never),
        Code::NoAttribute => (61, Never),
        Code::Range => (34, Never),
        Code::WouldBlock => (EAGAIN, Never),
        Code::ValueTooBig => (7, Never),
        Code::Deadlock => (35, Never),
        Code::NoLocks => (37, Never),

        Code::StaleRouting => (EIO, RefreshRouting),
        Code::NotLeader => (EIO, FindLeader),
        Code::NotServing | Code::NoSuchTarget => (EIO, RefreshRouting),
        Code::Fenced => (EIO, OtherTarget),

        Code::Busy => (EAGAIN, BackOff),
        Code::Timeout => (110, OtherTarget),
        Code::Unreachable => (EIO, OtherTarget),
        Code::UnknownOutcome => (EIO, BackOff),
        Code::PendingVersion => (EAGAIN, OtherTarget),
        Code::ShuttingDown => (EIO, OtherTarget),

        Code::Unauthenticated | Code::Forbidden => (EPERM, Never),
        Code::GrantExpired => (13, Never),
        Code::SessionExpired => (116, Never),
        Code::StaleUpdate => (EIO, Never),
        Code::MissingUpdate => (EIO, BackOff),
        Code::ChecksumMismatch => (EIO, BackOff),
        Code::Corrupt => (EIO, OtherTarget),
        Code::BadFrame | Code::BadProtocolVersion | Code::WrongCluster => (EIO, Never),
        Code::DiskFailed => (EIO, OtherTarget),
        Code::Internal => (EIO, Never),
        Code::NotInline => (EIO, Never),
    };
    Row { errno, retry }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_an_errno_and_survives_the_wire() {
        let mut codes = 0;
        for number in 0..200 {
            let Ok(code) = Code::try_from(number) else { continue };
            codes += 1;
            assert_eq!(row(code).errno == 0, code == Code::Ok, "{code:?}");
            let status = Status::new(code, "why");
            assert_eq!(Status::from(pb::Status::from(status.clone())), status);
        }
        assert!(codes >= 40, "the table lost codes: {codes}");
    }

    #[test]
    fn an_unknown_code_is_a_failure() {
        let status = Status::from(pb::Status { code: 9_999, ..Default::default() });
        assert_eq!(status.code, Code::Internal);
        assert!(check(Some(status.into())).is_err());
    }

    #[test]
    fn final_answers_are_never_retried() {
        for code in [Code::NotFound, Code::NoSpace, Code::AccessDenied, Code::StaleInode] {
            assert_eq!(row(code).retry, Retry::Never, "{code:?}");
        }
    }
}
