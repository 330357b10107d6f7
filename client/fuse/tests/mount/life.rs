//! Beginning and end of a mount, and servers that fail under it.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    sync::atomic::Ordering::SeqCst,
    thread,
    time::Duration,
};

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
    fs::File::open(mount.at("f")).unwrap().sync_all().unwrap();
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
fn dirsync_waits_for_the_namespace() {
    let Some(world) = world() else { return };
    let mount = world.mount_with("m", "dirsync = true");
    fs::create_dir(mount.at("d")).unwrap();
    for number in 0..20 {
        fs::write(mount.at(format!("d/{number}")), "x").unwrap();
        fs::set_permissions(mount.at(format!("d/{number}")), PermissionsExt::from_mode(0o600))
            .unwrap();
    }
    assert_eq!(world.fake.state.batches.load(SeqCst), 0);
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
    for over in ["yes", "no"] {
        let mut mount = world.mount_with(over, &format!("io_uring = {over:?}"));
        crate::shell(world.folder.path(), &format!("umount {}", mount.path.display()));
        assert!(mount.process.wait().unwrap().success());
    }
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
    let mut reader = Command::new("dd")
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
fn a_writer_that_waits_for_servers_can_be_killed() {
    let Some(world) = world() else { return };
    let (mount, other) = (world.mount("m"), world.mount("other"));
    let bytes = pattern(128 << 10, 4);
    let mut writer = Command::new("dd")
        .args(["bs=64k", "iflag=fullblock", "status=none"])
        .arg(format!("of={}", mount.at("f").display()))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = writer.stdin.take().unwrap();
    input.write_all(&bytes[..64 << 10]).unwrap();
    until("its first write", || world.fake.state.updates.load(SeqCst) > 0);
    world.fake.state.down.store(0b110, SeqCst);
    input.write_all(&bytes[64 << 10..]).unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(writer.try_wait().unwrap().is_none(), "it waits");
    writer.kill().unwrap();
    // Its last words wait for its write; it waits for neither.
    until("the end of the killed process", || writer.try_wait().unwrap().is_some());
    world.fake.state.down.store(0, SeqCst);
    let length = bytes.len() as u64;
    until("the end of its write", || fs::metadata(other.at("f")).unwrap().len() == length);
    assert!(fs::read(mount.at("f")).unwrap() == bytes);
    until("the close of its file", || mount.status().unwrap()["mount"]["open_files"] == 0);
    mount.stop();
    other.stop();
}

#[test]
fn a_create_whose_process_was_killed_leaves_no_handle() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    world.fake.state.silent.store(true, SeqCst);
    let mut maker =
        Command::new("sh").args(["-c", "> \"$0\""]).arg(mount.at("new")).spawn().unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(maker.try_wait().unwrap().is_none(), "it waits");
    maker.kill().unwrap();
    until("the end of the killed process", || maker.try_wait().unwrap().is_some());
    world.fake.state.silent.store(false, SeqCst);
    fs::write(mount.at("new"), "there").unwrap();
    until("the close of all files", || mount.status().unwrap()["mount"]["open_files"] == 0);
    mount.stop();
}

#[test]
fn space_that_was_never_known_is_waited_for() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    world.fake.state.silent.store(true, SeqCst);
    let mut df = Command::new("df").arg(&mount.path).stdout(Stdio::null()).spawn().unwrap();
    thread::sleep(Duration::from_millis(1500));
    assert!(df.try_wait().unwrap().is_none(), "it waits");
    world.fake.state.silent.store(false, SeqCst);
    assert!(df.wait().unwrap().success());
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
