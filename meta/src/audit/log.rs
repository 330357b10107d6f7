//! Lines in files that are only appended to: a new one when the last is full, the oldest gone beyond a bound.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Bounds of a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) file_bytes: u64,
    pub(crate) files: usize,
}

#[derive(Debug)]
pub(super) struct Log {
    folder: PathBuf,
    bounds: Bounds,
    number: u64,
    file: File,
    bytes: u64,
    /// The file's last line may be cut off.
    torn: bool,
}

/// Some lines, and where the next are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) lines: Vec<String>,
    pub(crate) file: u64,
    pub(crate) offset: u64,
    pub(crate) more: bool,
}

impl Log {
    pub(super) fn open(folder: PathBuf, bounds: Bounds) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let number = numbers(&folder)?.last().copied().unwrap_or(1);
        let mut file = open(&folder, number)?;
        let bytes = file.seek(SeekFrom::End(0))?;
        let torn = bytes > 0 && !ends(&mut file)?;
        Ok(Self { folder, bounds, number, file, bytes, torn })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// On the disk when it returns.
    pub(super) fn append(&mut self, line: &str) -> io::Result<()> {
        if self.bytes >= self.bounds.file_bytes {
            self.rotate()?;
        }
        let end = if self.torn { "\n" } else { "" };
        let text = format!("{end}{line}\n");
        // Until all of it is there.
        self.torn = true;
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()?;
        self.torn = false;
        self.bytes += text.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = open(&self.folder, self.number + 1)?;
        self.number += 1;
        (self.bytes, self.torn) = (0, false);
        let numbers = numbers(&self.folder)?;
        let surplus = numbers.len().saturating_sub(self.bounds.files);
        for number in &numbers[..surplus] {
            fs::remove_file(path(&self.folder, *number))?;
        }
        Ok(())
    }
}

/// Whole lines from a place on, up to about so many bytes. A file that is gone: from the oldest that is there.
pub(super) fn read(folder: &Path, file: u64, offset: u64, bytes_max: usize) -> io::Result<Page> {
    let mut page = Page { file, offset, ..Page::default() };
    let mut bytes = 0;
    let numbers: Vec<u64> = numbers(folder)?.into_iter().filter(|n| *n >= file).collect();
    for number in &numbers {
        if *number != page.file {
            (page.file, page.offset) = (*number, 0);
        }
        let mut reader = BufReader::new(File::open(path(folder, *number))?);
        reader.seek(SeekFrom::Start(page.offset))?;
        loop {
            let mut line = Vec::new();
            reader.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                // The end, or what is being written.
                break;
            }
            page.offset += line.len() as u64;
            bytes += line.len();
            line.pop();
            if !line.is_empty() {
                page.lines.push(String::from_utf8_lossy(&line).into_owned());
            }
            if bytes >= bytes_max {
                page.more = true;
                return Ok(page);
            }
        }
    }
    Ok(page)
}

/// The files that are there, oldest first.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let number = name.strip_prefix("audit-").and_then(|name| name.strip_suffix(".jsonl"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn open(folder: &Path, number: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).append(true).create(true).mode(0o600);
    let file = options.open(path(folder, number))?;
    // Its name is as durable as what it says.
    File::open(folder)?.sync_all()?;
    Ok(file)
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("audit-{number:08}.jsonl"))
}

/// Whether the last byte ends a line.
fn ends(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Bounds = Bounds { file_bytes: 100, files: 3 };

    fn lines(folder: &Path) -> Vec<String> {
        read(folder, 0, 0, usize::MAX).unwrap().lines
    }

    #[test]
    fn files_turn_over_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path().into(), SMALL).unwrap();
        for number in 0..100 {
            log.append(&format!("line {number:03}")).unwrap();
        }
        let kept = lines(dir.path());
        assert_eq!(kept.last().unwrap(), "line 099");
        assert!((25..=36).contains(&kept.len()), "{kept:?}");
        let mut seen = Vec::new();
        let mut page = read(dir.path(), 1, 500, 25).unwrap();
        loop {
            seen.append(&mut page.lines);
            if !page.more {
                break;
            }
            page = read(dir.path(), page.file, page.offset, 25).unwrap();
        }
        assert_eq!(seen, kept, "from a file that is gone, page by page");
        log.append("one more").unwrap();
        assert_eq!(read(dir.path(), page.file, page.offset, 25).unwrap().lines, ["one more"]);
    }

    #[test]
    fn a_line_that_was_cut_off_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        Log::open(dir.path().into(), SMALL).unwrap().append("first").unwrap();
        let mut file = open(dir.path(), 1).unwrap();
        file.write_all(b"hal").unwrap();
        assert_eq!(lines(dir.path()), ["first"], "what has no end is not told");
        let mut log = Log::open(dir.path().into(), SMALL).unwrap();
        log.append("second").unwrap();
        assert_eq!(lines(dir.path()), ["first", "hal", "second"]);
    }
}
