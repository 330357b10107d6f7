//! Writes a backup.

use std::io::{self, Write};

use ff2_proto::pb;
use prost::Message;

use super::{
    Amount, BODY_BYTES_MAX, FORMAT, GROUP, GROUP_END, GroupBegin, HEADER, Header, MAGIC, PAIRS,
    Pairs, TRAILER, Trailer, head, whole,
};

/// Call [`Writer::group`], [`Writer::pairs`] and [`Writer::end_group`] for each group, then [`Writer::finish`].
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    whole: crc_fast::Digest,
    groups: u32,
    group: Amount,
    all: Amount,
}

impl<W: Write> Writer<W> {
    /// Begins a backup of this cluster; `release` made it.
    pub fn new(out: W, cluster_id: &str, taken_at_s: u64, release: &str) -> io::Result<Self> {
        let (group, all) = (Amount::default(), Amount::default());
        let mut writer = Self { out, whole: whole(), groups: 0, group, all };
        writer.bytes(&MAGIC)?;
        let (cluster_id, release) = (cluster_id.to_owned(), release.to_owned());
        writer.frame(HEADER, &Header { format: FORMAT, cluster_id, taken_at_s, release })?;
        Ok(writer)
    }

    pub fn group(&mut self, begin: GroupBegin) -> io::Result<()> {
        self.groups += 1;
        self.group = Amount::default();
        self.frame(GROUP, &begin)
    }

    /// The next pairs of the group, in the order of their keys.
    pub fn pairs(&mut self, pairs: Vec<pb::KeyValue>) -> io::Result<()> {
        self.group.add(&pairs);
        self.all.add(&pairs);
        self.frame(PAIRS, &Pairs { pairs })
    }

    pub fn end_group(&mut self) -> io::Result<Amount> {
        let group = self.group;
        self.frame(GROUP_END, &group)?;
        Ok(group)
    }

    /// Returns what was written, flushed but not synced.
    pub fn finish(mut self) -> io::Result<(W, Amount)> {
        let checksum = self.whole.finalize();
        let (groups, amount) = (self.groups, self.all);
        self.frame(TRAILER, &Trailer { groups, amount, checksum })?;
        self.out.flush()?;
        Ok((self.out, amount))
    }

    fn frame(&mut self, kind: u8, message: &impl Message) -> io::Result<()> {
        let body = message.encode_to_vec();
        if body.len() > BODY_BYTES_MAX {
            let what = format!("a frame of {} bytes", body.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        self.bytes(&head(kind, &body))?;
        self.bytes(&body)
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.whole.update(bytes);
        self.out.write_all(bytes)
    }
}
