//! Event files for TensorBoard: records of protocol buffers, framed as TensorFlow frames them (the public formats of
//! `tfrecord` and `event.proto`).

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use crc_fast::crc32_iscsi;
use prost::Message;

use super::Record;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    /// 1: a session starts; readers drop what earlier ones told of this step and later ones.
    #[prost(int32, tag = "1")]
    status: i32,
}

const SESSION_STARTS: i32 = 1;
const VERSION: &str = "brain.Event:2";

#[derive(Debug)]
pub(super) struct TensorBoard {
    path: PathBuf,
    file: File,
}

impl TensorBoard {
    /// A new file in `folder`/tensorboard, of a run that goes on behind `step`.
    pub(super) fn create(folder: &Path, step: u64) -> Result<Self> {
        let folder = folder.join("tensorboard");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Readers go through the files in the order of their names.
        let name = format!("events.out.tfevents.{}.{:09}.ff2", now.as_secs(), now.subsec_nanos());
        let path = folder.join(name);
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let mut board = Self { path, file };
        let wall_time = now.as_secs_f64();
        let file_version = Some(VERSION.to_owned());
        board.write(&Event { wall_time, file_version, ..Event::default() })?;
        let session_log = Some(SessionLog { status: SESSION_STARTS });
        let step = step as i64 + 1;
        board.write(&Event { wall_time, step, session_log, ..Event::default() })?;
        Ok(board)
    }

    pub(super) fn append(&mut self, record: &Record) -> Result<()> {
        let heldout = record.heldout;
        let scalars = [
            ("loss/train", record.loss),
            ("loss/mtp", record.mtp_loss),
            ("loss/heldout", heldout.map(|score| score.loss)),
            ("loss/heldout_bits_per_byte", heldout.map(|score| score.bits_per_byte)),
            ("optimizer/learning_rate", Some(record.learning_rate)),
            ("optimizer/gradient_norm", record.grad_norm),
            ("speed/tokens_per_second", Some(record.tokens_per_second)),
            ("speed/mfu", Some(record.mfu)),
            ("experts/max_violation", record.expert_max_violation),
        ];
        let value = scalars.into_iter().filter_map(|(tag, value)| {
            value.map(|value| Value { tag: tag.to_owned(), simple_value: Some(value as f32) })
        });
        self.write(&Event {
            wall_time: record.time,
            step: record.step as i64,
            summary: Some(Summary { value: value.collect() }),
            ..Event::default()
        })
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        let written = self.file.write_all(&frame(&event.encode_to_vec()));
        written.with_context(|| format!("write {}", self.path.display()))
    }
}

/// Length, its checksum, bytes, their checksum.
fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut framed = length.to_vec();
    framed.extend(masked(&length).to_le_bytes());
    framed.extend(bytes);
    framed.extend(masked(bytes).to_le_bytes());
    framed
}

/// CRC32C, turned and shifted so that the checksum of bytes that have checksums in them stays a good one.
fn masked(bytes: &[u8]) -> u32 {
    crc32_iscsi(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::watch::record::example;

    /// The first record as TensorFlow 2 writes it (24 bytes of length and checksum, `brain.Event:2` behind a time).
    #[test]
    fn frames_are_those_of_the_public_format() {
        let event =
            Event { file_version: Some(VERSION.to_owned()), wall_time: 0.5, ..Event::default() };
        let bytes = event.encode_to_vec();
        let mut expected = vec![9];
        expected.extend(0.5f64.to_le_bytes());
        expected.extend([0x1a, 13]);
        expected.extend(VERSION.as_bytes());
        assert_eq!(bytes, expected);
        let framed = frame(&bytes);
        assert_eq!(framed[..8], 24u64.to_le_bytes());
        assert_eq!(framed.len(), 24 + 16);
        // CRC32C of "123456789" is 0xe3069283.
        let turned = 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(masked(b"123456789"), turned);
    }

    #[test]
    fn steps_come_back_as_they_were_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::create(folder.path(), 6).unwrap();
        board.append(&example(7)).unwrap();
        board.append(&Record { loss: None, ..example(8) }).unwrap();
        let bytes = fs::read(&board.path).unwrap();
        let (mut at, mut events) = (0, Vec::new());
        while at < bytes.len() {
            let len = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            let event = &bytes[at + 12..at + 12 + len];
            assert_eq!(bytes[at..at + 16 + len], frame(event));
            events.push(Event::decode(event).unwrap());
            at += 16 + len;
        }
        assert_eq!(events[0].file_version.as_deref(), Some(VERSION));
        assert_eq!((events[1].step, events[1].session_log.as_ref().unwrap().status), (7, 1));
        let tags = |event: &Event| -> Vec<String> {
            event.summary.as_ref().unwrap().value.iter().map(|v| v.tag.clone()).collect()
        };
        assert_eq!((events[2].step, tags(&events[2]).len()), (7, 7));
        assert!(!tags(&events[3]).contains(&"loss/train".to_owned()));
    }
}
