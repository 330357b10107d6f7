//! What several ranks print, in whole lines on one terminal.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use ff2_task::Echo;

/// A line that is longer is shown in parts.
const LINE_MAX: usize = 16 << 10;

/// Shows each line, with its rank if there are several.
pub(super) fn shown(is_one: bool) -> Echo {
    let lines: Mutex<BTreeMap<u32, Vec<u8>>> = Mutex::default();
    Arc::new(move |rank, bytes| {
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry(rank).or_default();
        let text = whole_lines(line, bytes, (!is_one).then_some(rank));
        // Whoever reads it may have gone; the log has it all.
        let _ = io::stdout().write_all(&text);
    })
}

/// Takes `bytes` behind what is there of a line, and returns what can be shown.
fn whole_lines(line: &mut Vec<u8>, bytes: &[u8], rank: Option<u32>) -> Vec<u8> {
    let mut text = Vec::new();
    for part in bytes.split_inclusive(|byte| *byte == b'\n') {
        line.extend(part);
        if line.last() == Some(&b'\n') || line.len() > LINE_MAX {
            if let Some(rank) = rank {
                text.extend(format!("[{rank}] ").into_bytes());
            }
            text.append(line);
            if text.last() != Some(&b'\n') {
                text.push(b'\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_with_their_rank() {
        let mut line = Vec::new();
        assert_eq!(whole_lines(&mut line, b"one\ntw", Some(3)), b"[3] one\n");
        assert_eq!(whole_lines(&mut line, b"o\n", Some(3)), b"[3] two\n");
        assert_eq!(whole_lines(&mut line, b"three\n", None), b"three\n");
        let long = vec![b'x'; LINE_MAX + 1];
        assert_eq!(whole_lines(&mut line, &long, None).len(), LINE_MAX + 2);
    }
}
