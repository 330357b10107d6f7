//! Errors of GPUs in the kernel's log. The driver writes `NVRM: Xid (PCI:0000:3b:00): 79, ...`; NVML does not tell
//! past ones.

use std::{collections::BTreeMap, fs::File, io, os::fd::AsFd, time::Instant};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::limits;

/// Errors of one kind of one GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Xid {
    /// As in [`Health::pci`](super::Health::pci).
    pub pci: String,
    pub code: u32,
    pub count: u64,
    /// The last one, in seconds since the start of the machine.
    pub last_s: u64,
}

/// What an error says of the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A program did something wrong, or the driver reports what is no fault.
    Program,
    /// It may be the hardware: look again.
    Hardware,
    /// Nobody should compute on it until it is reset or exchanged.
    Fatal,
}

impl Xid {
    /// By NVIDIA's catalogue "XID Errors" (docs.nvidia.com/deploy/xid-errors).
    pub fn severity(&self) -> Severity {
        match self.code {
            // Double bit error; micro-controller halted; row or page could not be replaced; off the bus; memory
            // error that was not contained; system processor silent or in error; unrecovered memory error; no start.
            48 | 62 | 64 | 79 | 95 | 119 | 120 | 140 | 143 => Severity::Fatal,
            // Row or page to be replaced; NVLink; many single-bit errors; contained memory error; chip-to-chip link.
            63 | 74 | 92 | 94 | 121 => Severity::Hardware,
            _ => Severity::Program,
        }
    }
}

/// All that the kernel's log holds; it forgets old ones when it is full, and all at a restart.
///
/// # Errors
/// The log may not be read: it is root's on most machines.
pub fn logged() -> io::Result<Vec<Xid>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let log = File::from(rustix::fs::open("/dev/kmsg", flags, Mode::empty())?);
    let until = Instant::now() + limits::LOG_TIME_MAX;
    let mut found = BTreeMap::new();
    // One record a read; 8 KiB is the kernel's own bound.
    let mut record = [0u8; 8_192];
    for _ in 0..limits::LOG_RECORDS_MAX {
        match rustix::io::read(log.as_fd(), &mut record[..]) {
            Ok(length) => {
                if let Some((pci, code, at_s)) = parse(&String::from_utf8_lossy(&record[..length]))
                {
                    let (count, last_s) = found.entry((pci, code)).or_insert((0, at_s));
                    *count += 1;
                    *last_s = at_s;
                }
            }
            Err(Errno::AGAIN) => break,
            // The oldest ones were overwritten meanwhile: the next read goes on behind them.
            Err(Errno::PIPE | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= until {
            break;
        }
    }
    let xid = |((pci, code), (count, last_s))| Xid { pci, code, count, last_s };
    Ok(found.into_iter().map(xid).collect())
}

/// Place, code and second of a record, `PRIORITY,NUMBER,MICROSECONDS,...;TEXT` (the kernel's document dev-kmsg), if
/// it is of such an error.
fn parse(record: &str) -> Option<(String, u32, u64)> {
    let (head, text) = record.split_once(';')?;
    let at_us: u64 = head.split(',').nth(2)?.parse().ok()?;
    let (place, rest) = text.split_once("NVRM: Xid (PCI:")?.1.split_once("): ")?;
    let digits = rest.split(|other: char| !other.is_ascii_digit()).next()?;
    let place = place.split('.').next()?.to_ascii_lowercase();
    Some((place, digits.parse().ok()?, at_us / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_read_from_a_record() {
        let record =
            "4,1234,98765432,-;NVRM: Xid (PCI:0000:3B:00): 79, pid=1, GPU has fallen off the bus.";
        assert_eq!(parse(record), Some(("0000:3b:00".into(), 79, 98)));
        assert_eq!(parse("4,1,2,-;NVRM: Xid (PCI:0000:3b:00): what"), None);
        assert_eq!(parse("6,1,2,-;NVRM: loading"), None);
    }

    #[test]
    fn errors_of_programs_are_not_the_gpus() {
        let severity = |code| Xid { pci: String::new(), code, count: 1, last_s: 0 }.severity();
        assert_eq!([13, 31, 43, 45].map(severity), [Severity::Program; 4]);
        assert_eq!([74, 63, 94].map(severity), [Severity::Hardware; 3]);
        assert_eq!([48, 79, 95].map(severity), [Severity::Fatal; 3]);
    }
}
