//! How much of what jobs want to read is in this node's page cache: of the mount as of any file system.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Instant,
};

use ff2_node::page_cache;
use ff2_proto::pb::{DataAsk, DataHeld};
use ff2_task::{User, as_user};

use crate::limits;

/// What was answered last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) number: u64,
    pub(crate) data: Vec<DataHeld>,
}

/// Looks at what is asked for, for at most [`limits::DATA_TIME`] in all. Of a folder the first files count that are
/// found. What its asker may not open counts as not there.
pub(crate) fn look(number: u64, asked: &[DataAsk], is_root: bool) -> Answer {
    let until = Instant::now() + limits::DATA_TIME;
    let held = |ask: &DataAsk| {
        let user = is_root.then_some(User { uid: ask.uid, gid: ask.gid });
        let permille = permille(Path::new(&ask.path), user, until);
        DataHeld { path: ask.path.clone(), permille }
    };
    Answer { number, data: asked.iter().map(held).collect() }
}

fn permille(path: &Path, user: Option<User>, until: Instant) -> u32 {
    let (mut cached, mut size) = (0, 0);
    let mut files = 0;
    let mut folders = vec![path.to_path_buf()];
    while let Some(path) = folders.pop() {
        if files >= limits::DATA_FILES || Instant::now() >= until {
            break;
        }
        match as_user(user, || open(&path)) {
            Ok(Found::File(file, about)) => {
                files += 1;
                size += about.len();
                // A page is counted whole, of which the file may have a part.
                cached += page_cache::cached_bytes(&file).unwrap_or(0).min(about.len());
            }
            Ok(Found::Folder(entries)) => folders.extend(entries),
            Ok(Found::Other) | Err(_) => {}
        }
    }
    u32::try_from(cached * 1_000 / size.max(1)).unwrap_or(1_000)
}

enum Found {
    File(File, Metadata),
    Folder(Vec<PathBuf>),
    Other,
}

/// Nothing but files and folders is opened, and no link is followed: what opens a device may set it going.
fn open(path: &Path) -> io::Result<Found> {
    let about = fs::symlink_metadata(path)?;
    if about.is_dir() {
        let entries = fs::read_dir(path)?.take(limits::DATA_FILES);
        let mut entries: Vec<PathBuf> = entries.filter_map(|one| Some(one.ok()?.path())).collect();
        entries.sort_unstable_by(|a, b| b.cmp(a));
        return Ok(Found::Folder(entries));
    }
    if !about.is_file() {
        return Ok(Found::Other);
    }
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    Ok(Found::File(file, about))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::io::Write;

    use rustix::fs::{Advice, fadvise};

    use super::*;

    fn ask(path: &Path) -> u32 {
        let path = path.to_str().unwrap().to_owned();
        let answer = look(1, &[DataAsk { path, uid: 0, gid: 0 }], false);
        answer.data[0].permille
    }

    #[test]
    fn of_a_folder_all_files_count() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        let mut files = Vec::new();
        for (path, mib) in [(folder.path().join("x"), 1), (below.join("y"), 3)] {
            let mut file = File::create(path).unwrap();
            file.write_all(&vec![1; mib << 20]).unwrap();
            file.sync_all().unwrap();
            files.push(file);
        }
        if page_cache::cached_bytes(&files[0]).is_err() {
            // An older kernel: nothing is known to be cached.
            return assert_eq!(ask(folder.path()), 0);
        }
        assert_eq!(ask(folder.path()), 1_000);
        fadvise(&files[1], 0, None, Advice::DontNeed).unwrap();
        let held = ask(folder.path());
        assert!((250..1_000).contains(&held), "{held}");
        assert!(ask(&below.join("y")) < 1_000);
        assert_eq!(ask(&folder.path().join("none")), 0);
    }

    #[test]
    fn links_and_pipes_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, 0o600.into(), 0).unwrap();
        let file = folder.path().join("file");
        fs::write(&file, vec![1; 8_192]).unwrap();
        std::os::unix::fs::symlink(&file, folder.path().join("link")).unwrap();
        assert_eq!((ask(&pipe), ask(&folder.path().join("link"))), (0, 0));
    }
}
