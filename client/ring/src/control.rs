//! What a program and the mount say to each other beside the ring: one message a question, one an answer,
//! on a socket that keeps their borders. Descriptors travel with them.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::{Errno, Result, retry_on_intr},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};

use crate::{
    layout::VERSION,
    limits::{DESCRIPTORS_MAX, TEXT_BYTES_MAX},
};

/// The extended attribute by which each file of a mount that serves rings tells the socket.
pub const ATTRIBUTE: &str = "user.ff2.ring";

/// What a program asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The first: serve a ring of so many entries; with its memory. The answer brings the bell.
    Serve {
        entries: u32,
    },
    /// With the memory of a region of so many bytes. The answer is its number.
    AddRegion {
        bytes: u64,
    },
    RemoveRegion {
        region: u32,
    },
    /// With an open file. The answer is its number.
    AddFile,
    RemoveFile {
        file: u32,
    },
}

/// What the mount answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 0, or an errno: then the sentence says what was wrong.
    pub errno: i32,
    pub number: u32,
    pub text: String,
}

const QUESTION_BYTES: usize = 16;
const ANSWER_BYTES: usize = 8;

impl Question {
    fn to_bytes(self) -> [u8; QUESTION_BYTES] {
        let (op, number): (u32, u64) = match self {
            Self::Serve { entries } => (1, entries.into()),
            Self::AddRegion { bytes } => (2, bytes),
            Self::RemoveRegion { region } => (3, region.into()),
            Self::AddFile => (4, 0),
            Self::RemoveFile { file } => (5, file.into()),
        };
        let mut bytes = [0; QUESTION_BYTES];
        bytes[..4].copy_from_slice(&VERSION.to_ne_bytes());
        bytes[4..8].copy_from_slice(&op.to_ne_bytes());
        bytes[8..].copy_from_slice(&number.to_ne_bytes());
        bytes
    }

    /// `Err`: what is wrong with it, for people.
    pub fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        let Ok(bytes) = <[u8; QUESTION_BYTES]>::try_from(bytes) else {
            return Err(format!("a question has {QUESTION_BYTES} bytes, this one {}", bytes.len()));
        };
        let [a, b, c, d, op @ ..] = bytes;
        let version = u32::from_ne_bytes([a, b, c, d]);
        if version != VERSION {
            let ours = VERSION;
            return Err(format!(
                "the program speaks version {version} of the ring and the mount {ours}: bring \
                 both to one release"
            ));
        }
        let [a, b, c, d, number @ ..] = op;
        let number = u64::from_ne_bytes(number);
        let small = || u32::try_from(number).map_err(|_| format!("{number} is no number here"));
        match u32::from_ne_bytes([a, b, c, d]) {
            1 => Ok(Self::Serve { entries: small()? }),
            2 => Ok(Self::AddRegion { bytes: number }),
            3 => Ok(Self::RemoveRegion { region: small()? }),
            4 => Ok(Self::AddFile),
            5 => Ok(Self::RemoveFile { file: small()? }),
            op => Err(format!("there is no question {op}")),
        }
    }
}

impl Answer {
    pub fn done(number: u32) -> Self {
        Self { errno: 0, number, text: String::new() }
    }

    pub fn refusal(errno: i32, text: impl Into<String>) -> Self {
        Self { errno, number: 0, text: text.into() }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.errno.to_ne_bytes().to_vec();
        bytes.extend(self.number.to_ne_bytes());
        bytes.extend(self.text.bytes().take(TEXT_BYTES_MAX));
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (errno, rest) = bytes.split_first_chunk()?;
        let (number, text) = rest.split_first_chunk()?;
        let text = String::from_utf8_lossy(text).into_owned();
        Some(Self { errno: i32::from_ne_bytes(*errno), number: u32::from_ne_bytes(*number), text })
    }
}

/// Sends a question, with a descriptor, and waits for its answer, with a descriptor.
pub fn ask(
    socket: BorrowedFd<'_>,
    question: Question,
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<(Answer, Option<OwnedFd>)> {
    match send(socket, &question.to_bytes(), descriptor) {
        // A refusal may have come before the question.
        Ok(()) | Err(Errno::PIPE) => {}
        Err(errno) => return Err(errno),
    }
    let mut bytes = [0; ANSWER_BYTES + TEXT_BYTES_MAX];
    let (length, mut descriptors) = match receive(socket, &mut bytes) {
        // The refusal is behind it.
        Err(Errno::CONNRESET) => receive(socket, &mut bytes)?,
        received => received?,
    };
    if length == 0 {
        return Err(Errno::CONNRESET);
    }
    let answer = Answer::parse(&bytes[..length]).ok_or(Errno::PROTO)?;
    Ok((answer, descriptors.pop()))
}

/// Waits for a question; `None`: the program is gone.
#[expect(clippy::type_complexity, reason = "named where it is used")]
pub fn next_question(
    socket: BorrowedFd<'_>,
) -> Result<Option<(std::result::Result<Question, String>, Vec<OwnedFd>)>> {
    // One byte more, so that a longer one is seen as such.
    let mut bytes = [0; QUESTION_BYTES + 1];
    let (length, descriptors) = receive(socket, &mut bytes)?;
    Ok((length > 0).then(|| (Question::parse(&bytes[..length]), descriptors)))
}

pub fn answer(
    socket: BorrowedFd<'_>,
    answer: &Answer,
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<()> {
    send(socket, &answer.to_bytes(), descriptor)
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        assert!(
            beside.push(SendAncillaryMessage::ScmRights(&descriptors)),
            "there is room for one"
        );
    }
    retry_on_intr(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Descriptors beyond the bound are closed by the kernel.
fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received =
        retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut beside, flags))?;
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    let whole = !received.flags.contains(ReturnFlags::TRUNC);
    Ok((if whole { received.bytes } else { bytes.len() }, descriptors))
}

/// The bell of a sleeping side: a byte on a socket, which also tells when the other side is gone. Each end
/// has flags of its own, so that neither side can make the other wait.
pub fn ring_bell(bell: impl AsFd) {
    // Full: it has enough to wake up from. Gone: whoever waits is told otherwise.
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = rustix::net::send(bell, &[1], flags);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn questions_and_answers_arrive_with_their_descriptors() {
        let (program, mount) = pair();
        let serving = std::thread::spawn(move || {
            let (question, descriptors) = next_question(mount.as_fd()).unwrap().unwrap();
            assert_eq!((question, descriptors.len()), (Ok(Question::Serve { entries: 64 }), 1));
            answer(mount.as_fd(), &Answer::done(5), Some(descriptors[0].as_fd())).unwrap();
            let (question, descriptors) = next_question(mount.as_fd()).unwrap().unwrap();
            assert_eq!((question, descriptors.len()), (Ok(Question::RemoveFile { file: 7 }), 0));
            let why = "é".repeat(TEXT_BYTES_MAX);
            answer(mount.as_fd(), &Answer::refusal(libc::ENOENT, why), None).unwrap();
            assert!(next_question(mount.as_fd()).unwrap().is_none(), "gone");
        });
        let file = std::fs::File::open("/dev/null").unwrap();
        let question = Question::Serve { entries: 64 };
        let (done, bell) = ask(program.as_fd(), question, Some(file.as_fd())).unwrap();
        assert_eq!((done, bell.is_some()), (Answer::done(5), true));
        let (refusal, none) = ask(program.as_fd(), Question::RemoveFile { file: 7 }, None).unwrap();
        assert!(refusal.errno == libc::ENOENT && refusal.text.len() >= TEXT_BYTES_MAX);
        assert!(none.is_none());
        drop(program);
        serving.join().unwrap();
    }

    #[test]
    fn what_is_no_question_is_named() {
        assert!(Question::parse(&[0; 3]).unwrap_err().contains("16 bytes"));
        let mut bytes = Question::AddFile.to_bytes();
        bytes[0] ^= 0x40;
        assert!(Question::parse(&bytes).unwrap_err().contains("one release"));
        let mut bytes = Question::RemoveFile { file: 1 }.to_bytes();
        bytes[15] = 1;
        assert!(Question::parse(&bytes).is_err(), "beyond 32 bits");
        bytes = [0; QUESTION_BYTES];
        bytes[..4].copy_from_slice(&VERSION.to_ne_bytes());
        assert!(Question::parse(&bytes).unwrap_err().contains("no question 0"));
        let (program, mount) = pair();
        send(program.as_fd(), &[1; 100], None).unwrap();
        let (question, _) = next_question(mount.as_fd()).unwrap().unwrap();
        assert!(question.is_err(), "longer than any");
    }

    fn questions() -> Vec<Vec<u8>> {
        [
            Question::Serve { entries: 64 },
            Question::AddRegion { bytes: 1 << 40 },
            Question::RemoveRegion { region: 3 },
            Question::AddFile,
            Question::RemoveFile { file: 7 },
        ]
        .map(|question| question.to_bytes().to_vec())
        .to_vec()
    }

    #[test]
    fn damaged_questions() {
        ff2_fuzz::target!(questions(), |bytes| {
            match ff2_fuzz::bounded(bytes, || Question::parse(bytes)) {
                Ok(question) => assert_eq!(Question::parse(&question.to_bytes()), Ok(question)),
                Err(why) => assert!(!why.is_empty()),
            }
        });
    }

    fn answers() -> Vec<Vec<u8>> {
        let refusal = Answer::refusal(libc::ENOENT, "é".repeat(20));
        vec![Answer::done(5).to_bytes(), refusal.to_bytes()]
    }

    #[test]
    fn damaged_answers() {
        ff2_fuzz::target!(answers(), |bytes| {
            let answer = ff2_fuzz::bounded(bytes, || Answer::parse(bytes));
            assert_eq!(answer.is_some(), bytes.len() >= ANSWER_BYTES);
            if let Some(answer) = answer {
                let again = Answer::parse(&answer.to_bytes()).unwrap();
                assert_eq!((again.errno, again.number), (answer.errno, answer.number));
            }
        });
    }
}
