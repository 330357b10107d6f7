//! `metrics.jsonl`: a line for each step, across suspensions and restarts.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::Record;

const FILE: &str = "metrics.jsonl";

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    records: Vec<Record>,
}

impl Journal {
    /// Goes on behind `step`. What an earlier attempt did beyond it, and a line that it left half, is dropped.
    pub(super) fn open(folder: &Path, step: u64) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let path = folder.join(FILE);
        let records = match File::open(&path) {
            Ok(file) => BufReader::new(file)
                .lines()
                .map_while(Result::ok)
                .map_while(|line| serde_json::from_str(&line).ok())
                .take_while(|record: &Record| record.step <= step)
                .collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let draft = folder.join(format!(".{FILE}"));
        let text: String = records.iter().map(line).collect();
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("write {}", path.display()))?;
        let file = File::options()
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        Ok(Self { path, file, records })
    }

    pub(super) fn append(&mut self, record: Record) -> Result<()> {
        self.file
            .write_all(line(&record).as_bytes())
            .with_context(|| format!("write {}", self.path.display()))?;
        self.records.push(record);
        Ok(())
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }
}

fn line(record: &Record) -> String {
    serde_json::to_string(record).expect("plain fields") + "\n"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::watch::record::example;

    #[test]
    fn a_run_that_goes_on_drops_what_it_does_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), 0).unwrap();
        (1..=5).for_each(|step| journal.append(example(step)).unwrap());
        let path = folder.path().join(FILE);
        File::options().append(true).open(&path).unwrap().write_all(b"{\"step\": 6, \"ti").unwrap();
        let mut again = Journal::open(folder.path(), 3).unwrap();
        again.append(Record { loss: None, ..example(4) }).unwrap();
        let third = Journal::open(folder.path(), 9).unwrap();
        assert_eq!(third.records().len(), 4);
        assert_eq!(third.records()[2], example(3));
        assert_eq!(third.records()[3].loss, None);
    }
}
