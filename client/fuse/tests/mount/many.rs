//! Many entries, many threads, several mounts.

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    sync::{Arc, atomic::Ordering::SeqCst},
    thread,
};

use crate::{pattern, until, world};

#[test]
fn large_directories_are_listed_completely() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    fs::create_dir(mount.at("d")).unwrap();
    for n in 0..1500 {
        fs::write(mount.at(format!("d/file-with-a-longer-name-{n:05}")), "").unwrap();
    }
    for round in 0..2 {
        let mut names: Vec<_> = fs::read_dir(mount.at("d"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names.len(), 1500, "round {round}");
        names.dedup();
        assert_eq!(names.len(), 1500);
    }
    // Removing while reading loses nobody.
    for entry in fs::read_dir(mount.at("d")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(fs::read_dir(mount.at("d")).unwrap().count(), 0);
    fs::remove_dir(mount.at("d")).unwrap();
    mount.stop();
}

#[test]
fn threads_write_one_file_and_many() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let bytes = Arc::new(pattern(4 << 20, 11));
    let shared = Arc::new(fs::File::create(mount.at("shared")).unwrap());
    let threads: Vec<_> = (0..8usize)
        .map(|n| {
            let (bytes, shared, own) = (bytes.clone(), shared.clone(), mount.at(format!("own{n}")));
            thread::spawn(move || {
                let part = (4 << 20) / 8;
                for at in (n * part..(n + 1) * part).step_by(10_000) {
                    let end = (at + 10_000).min((n + 1) * part);
                    shared.write_all_at(&bytes[at..end], at as u64).unwrap();
                }
                fs::write(&own, &bytes[n..]).unwrap();
                assert!(fs::read(&own).unwrap() == bytes[n..]);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    drop(shared);
    assert!(fs::read(mount.at("shared")).unwrap() == bytes[..]);
    mount.stop();
}

#[test]
fn a_closed_change_is_seen_by_the_other_mount() {
    let Some(world) = world() else { return };
    let (a, b) = (world.mount("a"), world.mount("b"));
    for round in 0..50 {
        let (one, two) = (format!("one {round}"), format!("two {round}"));
        assert!(!b.at("f").exists(), "that it is not there is remembered now");
        fs::write(a.at("f"), &one).unwrap();
        assert_eq!(fs::read_to_string(b.at("f")).unwrap(), one);
        let held = fs::File::open(b.at("f")).unwrap();
        let mut text = vec![0; two.len()];
        held.read_exact_at(&mut text, 0).unwrap();
        fs::write(a.at("f"), &two).unwrap();
        assert_eq!(fs::metadata(b.at("f")).unwrap().len(), two.len() as u64);
        held.read_exact_at(&mut text, 0).unwrap();
        assert_eq!(text, two.as_bytes(), "who has it open reads what was closed");
        fs::set_permissions(a.at("f"), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(fs::metadata(b.at("f")).unwrap().permissions().mode() & 0o777, 0o640);
        fs::rename(a.at("f"), a.at("g")).unwrap();
        assert!(!b.at("f").exists());
        assert_eq!(fs::read(b.at("g")).unwrap(), two.as_bytes());
        fs::create_dir(a.at("d")).unwrap();
        assert_eq!(fs::read_dir(b.at("d")).unwrap().count(), 0);
        fs::remove_dir(b.at("d")).unwrap();
        assert!(!a.at("d").exists());
        fs::remove_file(b.at("g")).unwrap();
        assert!(!a.at("g").exists());
    }
    a.stop();
    b.stop();
}

/// What is looked at again and again is answered by the kernel, while nobody else changes it.
#[test]
fn what_nobody_changes_is_asked_once() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    fs::create_dir(mount.at("d")).unwrap();
    fs::write(mount.at("d/f"), "text").unwrap();
    let asked = || world.fake.state.questions.load(SeqCst);
    let look = || {
        assert_eq!(fs::metadata(mount.at("d/f")).unwrap().len(), 4);
        assert!(!mount.at("d/g").exists());
    };
    until("it is promised to be told of changes", || {
        let before = asked();
        look();
        asked() == before
    });
    let before = asked();
    (0..1_000).for_each(|_| look());
    let asked = asked() - before;
    assert!(asked < 100, "{asked} questions for three names");
    mount.stop();
}

/// Its kernel still has what it was told, and the process cannot take it back: the change of another
/// mount waits for the end of the lease, and then nothing old is shown.
#[test]
fn a_mount_that_stands_still_shows_nothing_old() {
    let Some(world) = world() else { return };
    let (a, b) = (world.mount("a"), world.mount("b"));
    fs::write(a.at("f"), "one").unwrap();
    assert_eq!(fs::metadata(b.at("f")).unwrap().len(), 3);
    b.stand_still();
    fs::write(a.at("f"), "one and two").unwrap();
    // The kernel asks a process that stands still: the answer comes when it goes on.
    let stat = thread::spawn({
        let path = b.at("f");
        move || fs::metadata(path).unwrap().len()
    });
    thread::sleep(std::time::Duration::from_millis(100));
    assert!(!stat.is_finished());
    b.signal(libc::SIGCONT);
    assert_eq!(stat.join().unwrap(), 11);
    a.stop();
    b.stop();
}

#[test]
fn a_cache_of_no_time_hides_nothing() {
    let Some(world) = world() else { return };
    let (a, b) = (world.mount("a"), world.mount_with("b", "cache_ms = 0"));
    for round in 0..20 {
        fs::write(a.at("f"), format!("round {round}")).unwrap();
        assert_eq!(fs::read_to_string(b.at("f")).unwrap(), format!("round {round}"));
        fs::remove_file(a.at("f")).unwrap();
        assert!(!b.at("f").exists());
    }
    a.stop();
    b.stop();
}

#[test]
fn who_opens_after_a_close_sees_its_length() {
    let Some(world) = world() else { return };
    let (a, b) = (world.mount("a"), world.mount("b"));
    let mut text = String::new();
    for round in 0..30 {
        text.push_str(&format!("round {round}\n"));
        fs::write(a.at("f"), &text).unwrap();
        // Its attributes are cached here from the round before.
        assert_eq!(fs::read_to_string(b.at("f")).unwrap(), text);
    }
    a.stop();
    b.stop();
}

#[test]
fn another_mount_sees_access_times_later() {
    let Some(world) = world() else { return };
    let (one, two) = (world.mount("one"), world.mount_with("two", "cache_ms = 500"));
    fs::write(one.at("f"), "read by one").unwrap();
    let accessed = |mount: &crate::Mount| fs::metadata(mount.at("f")).unwrap().accessed().unwrap();
    let made = accessed(&two);
    fs::read(one.at("f")).unwrap();
    let read = accessed(&one);
    assert!(read > made);
    until("the news", || accessed(&two) == read);
    one.stop();
    two.stop();
}
