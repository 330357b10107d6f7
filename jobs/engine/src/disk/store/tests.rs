use std::{env, process::Command, thread, time::Instant};

use super::*;

fn options(folder: &Path, bytes_max: u64) -> DiskOptions {
    DiskOptions { folder: folder.to_owned(), bytes_max }
}

fn key(number: u8) -> Key {
    Key([number; 32])
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn what_was_saved_is_there_after_a_restart_and_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&options(folder.path(), 1 << 20), key(0)).unwrap();
    let other = Store::open(&options(folder.path(), 1 << 20), key(0)).unwrap();
    store.save(&key(1), &[5; 100], 0.1).unwrap();
    assert_eq!(store.load(&key(1)), Some(vec![5; 100]));
    assert_eq!(other.load(&key(1)), Some(vec![5; 100]));
    assert_eq!(other.load(&key(2)), None);
    let again = Store::open(&options(folder.path(), 1 << 20), key(0)).unwrap();
    assert_eq!(again.load(&key(1)), Some(vec![5; 100]));
    // Another model has other latents for the same tokens.
    let stranger = Store::open(&options(folder.path(), 1 << 20), key(9)).unwrap();
    assert_eq!(stranger.load(&key(1)), None);
}

#[test]
fn damaged_blocks_are_removed_and_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&options(folder.path(), 1 << 20), key(0)).unwrap();
    for (number, len) in [(1, 0), (2, 50), (3, 150)] {
        store.save(&key(number), &[5; 100], 0.1).unwrap();
        let path = store.path(&key(number));
        File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        assert_eq!(store.load(&key(number)), None);
        assert!(!path.exists());
    }
}

#[test]
fn the_limit_holds_over_restarts_and_the_used_stay() {
    let folder = tempfile::tempdir().unwrap();
    let block = (100 + format::HEAD) as u64;
    let store = Store::open(&options(folder.path(), 3 * block), key(0)).unwrap();
    for number in 1..=3 {
        store.save(&key(number), &[number; 100], 0.1).unwrap();
    }
    store.load(&key(1)).unwrap();
    store.save(&key(4), &[4; 100], 0.1).unwrap();
    assert_eq!(files(folder.path()).len(), 3);
    assert!(store.load(&key(1)).is_some() && store.load(&key(2)).is_none());
    let smaller = Store::open(&options(folder.path(), block), key(0)).unwrap();
    assert_eq!(files(folder.path()).len(), 1);
    // The last one used.
    assert!(smaller.load(&key(1)).is_some());
}

#[test]
fn looking_through_the_folder_forgets_no_worth() {
    let folder = tempfile::tempdir().unwrap();
    let block = (100 + format::HEAD) as u64;
    let store = Store::open(&options(folder.path(), 3 * block), key(0)).unwrap();
    let other = Store::open(&options(folder.path(), 3 * block), key(0)).unwrap();
    store.save(&key(1), &[1; 100], 9.0).unwrap();
    store.save(&key(2), &[2; 100], 0.1).unwrap();
    fs::remove_file(store.path(&key(2))).unwrap();
    other.save(&key(3), &[3; 100], 0.1).unwrap();
    store.scan().unwrap();
    assert_eq!(store.eviction.lock().bytes(), 2 * block);
    store.save(&key(4), &[4; 100], 0.1).unwrap();
    store.save(&key(5), &[5; 100], 0.1).unwrap();
    // The oldest is the dearest, and stays; that of the other process goes.
    let there = (1..=5).filter(|number| store.path(&key(*number)).exists());
    assert_eq!(there.collect::<Vec<_>>(), [1, 4, 5]);
}

const WRITE_TO: &str = "FF2_ENGINE_TEST_WRITE_TO";

/// In the process that is killed this writes until then; the test starts itself for it.
#[test]
fn a_killed_writer_leaves_no_block_that_lies() {
    let body = |number: u8| vec![number; 300_000];
    if let Ok(folder) = env::var(WRITE_TO) {
        let store = Store::open(&options(Path::new(&folder), 1 << 30), key(0)).unwrap();
        for number in 1..=250 {
            store.save(&key(number), &body(number), 0.1).unwrap();
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut whole = 0;
    for _ in 0..5 {
        let mut writer = Command::new(env::current_exe().unwrap())
            .args(["--exact", "disk::store::tests::a_killed_writer_leaves_no_block_that_lies"])
            .env(WRITE_TO, folder.path())
            .stdout(process::Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        let count = files(folder.path()).len();
        while files(folder.path()).len() < count + 3 && start.elapsed().as_secs() < 20 {
            thread::sleep(Duration::from_millis(1));
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        let store = Store::open(&options(folder.path(), 1 << 30), key(0)).unwrap();
        let found: Vec<u8> = (1..=250).filter(|n| store.path(&key(*n)).exists()).collect();
        for number in &found {
            assert_eq!(store.load(&key(*number)), Some(body(*number)), "block {number}");
        }
        assert!(found.len() > whole, "the writer wrote nothing");
        whole = found.len();
        for number in found.iter().step_by(2) {
            fs::remove_file(store.path(&key(*number))).unwrap();
        }
        whole -= found.iter().step_by(2).count();
    }
}
