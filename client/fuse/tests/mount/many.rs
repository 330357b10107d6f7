//! Many entries, many threads, several mounts.

use std::{
    fs,
    os::unix::fs::FileExt,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{pattern, until, world};

/// For how long a mount may go by what it knew (`cache_ms`).
const PROMISED: Duration = Duration::from_secs(1);
/// For a look at another mount to be scheduled and answered on a busy machine.
const SLACK: Duration = Duration::from_millis(200);

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
    fs::write(a.at("f"), "one").unwrap();
    assert_eq!(fs::read_to_string(b.at("f")).unwrap(), "one");
    let held = fs::File::open(b.at("f")).unwrap();
    fs::write(a.at("f"), "two").unwrap();
    assert_eq!(fs::read_to_string(b.at("f")).unwrap(), "two", "who opens after the close sees it");
    let seen_in_time = |what: &str, is: &mut dyn FnMut() -> bool| {
        let begun = Instant::now();
        until(what, is);
        assert!(begun.elapsed() < PROMISED + SLACK, "{what}: {:?}", begun.elapsed());
    };
    seen_in_time("the change of an open file", &mut || {
        let mut text = [0; 3];
        held.read_exact_at(&mut text, 0).is_ok() && &text == b"two"
    });
    fs::remove_file(a.at("f")).unwrap();
    seen_in_time("the removal", &mut || !b.at("f").exists());
    assert_eq!(fs::read_dir(b.at("")).unwrap().count(), 0);
    drop(held);
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
