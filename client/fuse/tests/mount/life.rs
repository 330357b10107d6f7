//! Beginning and end of a mount, and servers that fail under it.

use std::{fs, sync::atomic::Ordering::SeqCst, thread, time::Duration};

use crate::{is_mounted, pattern, until, world};

#[test]
fn what_was_written_is_there_at_the_next_mount() {
    let Some(world) = world() else { return };
    let bytes = pattern(2_000_000, 1);
    let mount = world.mount("m");
    fs::write(mount.at("f"), &bytes).unwrap();
    mount.stop();
    let mount = world.mount("m");
    assert!(fs::read(mount.at("f")).unwrap() == bytes);
    mount.stop();
}

#[test]
fn a_killed_mount_leaves_nothing_behind() {
    let Some(world) = world() else { return };
    let mut mount = world.mount("m");
    fs::write(mount.at("f"), "kept").unwrap();
    mount.process.kill().unwrap();
    mount.process.wait().unwrap();
    until("the guard's work", || !is_mounted(&mount.path));
    assert_eq!(fs::read_dir(&mount.path).unwrap().count(), 0, "the folder beneath");
    drop(mount);
    let mount = world.mount("m");
    assert_eq!(fs::read_to_string(mount.at("f")).unwrap(), "kept");
    mount.stop();
}

#[test]
fn a_mount_in_use_can_be_stopped() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let path = mount.path.clone();
    let file = fs::File::create(mount.at("busy")).unwrap();
    mount.stop();
    assert!(!is_mounted(&path));
    drop(file);
}

#[test]
fn an_unmount_from_outside_ends_the_process() {
    let Some(world) = world() else { return };
    let mut mount = world.mount("m");
    crate::shell(world.folder.path(), &format!("umount {}", mount.path.display()));
    assert!(mount.process.wait().unwrap().success());
}

#[test]
fn failed_servers_are_a_pause() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let bytes = pattern(1_000_000, 2);
    fs::write(mount.at("before"), &bytes).unwrap();
    world.fake.state.down.store(0b110, SeqCst);
    let (path, copy) = (mount.at("during"), bytes.clone());
    let writer = thread::spawn(move || fs::write(path, copy));
    thread::sleep(Duration::from_millis(700));
    assert!(!writer.is_finished(), "nobody serves, so it waits");
    assert_eq!(fs::metadata(mount.at("before")).unwrap().len(), 1_000_000, "names go on");
    world.fake.state.down.store(0, SeqCst);
    writer.join().unwrap().unwrap();
    assert!(fs::read(mount.at("during")).unwrap() == bytes);
    mount.stop();
}

#[test]
fn a_process_that_waits_for_servers_can_be_killed() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    fs::write(mount.at("f"), pattern(100_000, 3)).unwrap();
    world.fake.state.down.store(0b110, SeqCst);
    let mut reader = std::process::Command::new("dd")
        .arg(format!("if={}", mount.at("f").display()))
        .args(["of=/dev/null", "iflag=direct", "status=none"])
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(reader.try_wait().unwrap().is_none(), "it waits");
    reader.kill().unwrap();
    until("the end of the killed process", || reader.try_wait().unwrap().is_some());
    world.fake.state.down.store(0, SeqCst);
    assert!(fs::read(mount.at("f")).unwrap() == pattern(100_000, 3));
    mount.stop();
}

#[test]
fn the_mount_point_can_be_looked_at_while_the_namespace_is_silent() {
    let Some(world) = world() else { return };
    let mount = world.mount_with("m", "cache_ms = 0");
    fs::write(mount.at("f"), "x").unwrap();
    crate::shell(&mount.path, "df . > /dev/null");
    world.fake.state.silent.store(true, SeqCst);
    assert!(fs::metadata(&mount.path).unwrap().is_dir());
    assert!(crate::shell(world.folder.path(), "df m").contains("ff2"));
    world.fake.state.silent.store(false, SeqCst);
    assert_eq!(fs::read_to_string(mount.at("f")).unwrap(), "x");
    mount.stop();
}
