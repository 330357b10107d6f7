//! Reads a backup, and believes nothing that its checksums do not say.

use std::io::{self, Read};

use bytes::Bytes;
use ff2_proto::pb;
use prost::Message;

use super::{
    Amount, BODY_BYTES_MAX, FORMAT, GROUP, GROUP_END, GroupBegin, HEADER, Header, MAGIC, PAIRS,
    Pairs, TRAILER, Trailer, head, whole,
};

/// Why a file is no backup that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("it is no backup of ff2: it does not begin as one")]
    NoBackup,
    #[error("it has format {found}, this release reads {FORMAT}: use the release that made it")]
    UnknownFormat { found: u32 },
    #[error(
        "it ends after {at} bytes, in the middle: it was cut off, or the backup did not end well"
    )]
    CutOff { at: u64 },
    #[error("it is damaged at byte {at}: {what}")]
    Damaged { at: u64, what: &'static str },
    #[error("read it")]
    Io(#[source] io::Error),
}

/// What comes next.
#[derive(Debug, PartialEq)]
pub enum Piece {
    Group(GroupBegin),
    Pairs(Vec<pb::KeyValue>),
    GroupEnd(Amount),
    /// The file was whole: this much in all.
    End(Amount),
}

#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    header: Header,
    whole: crc_fast::Digest,
    /// Bytes read.
    at: u64,
    groups: u32,
    group: Option<Amount>,
    all: Amount,
    last_key: Bytes,
    ended: bool,
}

impl<R: Read> Reader<R> {
    pub fn new(from: R) -> Result<Self, ArchiveError> {
        let mut reader = Self {
            from,
            header: Header::default(),
            whole: whole(),
            at: 0,
            groups: 0,
            group: None,
            all: Amount::default(),
            last_key: Bytes::new(),
            ended: false,
        };
        let mut magic = [0; MAGIC.len()];
        match reader.exact(&mut magic) {
            Ok(()) if magic == MAGIC => {}
            Ok(()) | Err(ArchiveError::CutOff { .. }) => return Err(ArchiveError::NoBackup),
            Err(error) => return Err(error),
        }
        reader.whole.update(&magic);
        let (kind, body) = reader.frame()?;
        if kind != HEADER {
            return Err(reader.damaged("it has no header"));
        }
        reader.header = reader.decode(&body)?;
        if reader.header.format != FORMAT {
            return Err(ArchiveError::UnknownFormat { found: reader.header.format });
        }
        Ok(reader)
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of the file that were read.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next piece. What came before [`Piece::End`] is known to be complete only then.
    pub fn next_piece(&mut self) -> Result<Piece, ArchiveError> {
        assert!(!self.ended, "nothing comes after the end");
        let before = self.whole;
        let (kind, body) = self.frame()?;
        match (kind, self.group) {
            (GROUP, None) => {
                self.groups += 1;
                self.group = Some(Amount::default());
                self.last_key = Bytes::new();
                Ok(Piece::Group(self.decode(&body)?))
            }
            (PAIRS, Some(mut group)) => {
                let Pairs { pairs } = self.decode(&body)?;
                for pair in &pairs {
                    if group.pairs > 0 && pair.key <= self.last_key || pair.key.is_empty() {
                        return Err(self.damaged("its keys are not in order"));
                    }
                    self.last_key = pair.key.clone();
                    group.add(std::slice::from_ref(pair));
                }
                self.all.add(&pairs);
                self.group = Some(group);
                Ok(Piece::Pairs(pairs))
            }
            (GROUP_END, Some(group)) => {
                if self.decode::<Amount>(&body)? != group {
                    return Err(self.damaged("a part of a group is missing"));
                }
                self.group = None;
                Ok(Piece::GroupEnd(group))
            }
            (TRAILER, None) => {
                let trailer: Trailer = self.decode(&body)?;
                if (trailer.groups, trailer.amount) != (self.groups, self.all) {
                    return Err(self.damaged("a group is missing"));
                }
                if trailer.checksum != before.finalize() {
                    return Err(self.damaged("the checksum of the whole does not match"));
                }
                match self.exact(&mut [0]) {
                    Err(ArchiveError::CutOff { .. }) => {}
                    Ok(()) => return Err(self.damaged("something follows its end")),
                    Err(error) => return Err(error),
                }
                self.ended = true;
                Ok(Piece::End(self.all))
            }
            _ => Err(self.damaged("its parts are in a wrong order")),
        }
    }

    fn frame(&mut self) -> Result<(u8, Bytes), ArchiveError> {
        let mut bytes = [0; 9];
        self.exact(&mut bytes)?;
        let length = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
        if length > BODY_BYTES_MAX {
            return Err(self.damaged("a length cannot be"));
        }
        let mut body = Vec::new();
        let read = self.from.by_ref().take(length as u64).read_to_end(&mut body);
        self.at += read.map_err(ArchiveError::Io)? as u64;
        if body.len() < length {
            return Err(ArchiveError::CutOff { at: self.at });
        }
        if bytes != head(bytes[0], &body) {
            return Err(self.damaged("a checksum does not match"));
        }
        self.whole.update(&bytes);
        self.whole.update(&body);
        Ok((bytes[0], body.into()))
    }

    fn exact(&mut self, bytes: &mut [u8]) -> Result<(), ArchiveError> {
        match self.from.read_exact(bytes) {
            Ok(()) => {
                self.at += bytes.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(ArchiveError::CutOff { at: self.at })
            }
            Err(error) => Err(ArchiveError::Io(error)),
        }
    }

    fn decode<M: Message + Default>(&self, body: &Bytes) -> Result<M, ArchiveError> {
        M::decode(body.clone()).map_err(|_| self.damaged("a record cannot be read"))
    }

    fn damaged(&self, what: &'static str) -> ArchiveError {
        ArchiveError::Damaged { at: self.at, what }
    }
}
