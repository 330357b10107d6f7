//! What a job says of itself: the first line of a file in its folder, and its chart, the second. The folder is its
//! user's, so whatever lies there is looked at with care: this process may be root, and what it reads is shown to
//! anybody.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use ff2_task::{JobFolder, RunSpec};
use rustix::fs::{Mode, OFlags};

use crate::limits;

/// Where the line of a run is, and whose it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatusLine {
    path: PathBuf,
    uid: u32,
}

impl StatusLine {
    /// None: another node tells.
    pub(crate) fn of(spec: &RunSpec) -> Option<Self> {
        let own = || rustix::process::geteuid().as_raw();
        let uid = spec.user.map_or_else(own, |user| user.uid);
        let path = JobFolder::new(&spec.folder, spec.attempt).status();
        (spec.node_rank == 0).then_some(Self { path, uid })
    }

    /// A line, and behind a line break a chart if there is one. Empty where there is none.
    pub(crate) fn read(&self) -> String {
        read(&self.path, self.uid).unwrap_or_default()
    }
}

fn read(path: &Path, uid: u32) -> Option<String> {
    // A link could name a file of somebody else, and a pipe would be waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let found = file.metadata().ok()?;
    if !found.is_file() || found.uid() != uid {
        return None;
    }
    let mut bytes = Vec::new();
    let most = limits::NOTE_BYTES_MAX + limits::CHART_BYTES_MAX;
    file.take(most as u64).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    let plain = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
    let mut told = plain(lines.next()?);
    told.truncate(told.floor_char_boundary(limits::NOTE_BYTES_MAX));
    // A part of a chart is none.
    if let Some(chart) = lines.next().filter(|_| bytes.len() < most) {
        told = told + "\n" + &plain(chart);
    }
    Some(told)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_line_is_read_and_nothing_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status");
        let own = rustix::process::geteuid().as_raw();
        let of = |uid| StatusLine { path: path.clone(), uid }.read();
        assert_eq!(of(own), "");
        fs::write(&path, "step 7 of 9\x1b[2J, loss 1.5").unwrap();
        assert_eq!(of(own), "step 7 of 9[2J, loss 1.5");
        fs::write(&path, "step 7 of 9\n{\"x\":\t\"step\"}\nmore").unwrap();
        assert_eq!(of(own), "step 7 of 9\n{\"x\":\"step\"}");
        let long = limits::NOTE_BYTES_MAX + limits::CHART_BYTES_MAX;
        fs::write(&path, format!("step 7 of 9\n{}", "x".repeat(long))).unwrap();
        assert_eq!(of(own), "step 7 of 9", "half a chart is none");
        assert_eq!(of(own + 1), "", "a link to a file of somebody else");
        fs::write(&path, "x".repeat(10_000)).unwrap();
        assert_eq!(of(own).len(), limits::NOTE_BYTES_MAX);
        let other = dir.path().join("other");
        fs::rename(&path, &other).unwrap();
        symlink(&other, &path).unwrap();
        assert_eq!(of(own), "");
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        assert_eq!(of(own), "", "and nobody waits for it");
    }
}
