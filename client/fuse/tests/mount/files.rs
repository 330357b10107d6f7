//! Files through the mount: what programs do with them.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
};

use crate::{pattern, shell, world};

#[test]
fn files_and_names() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let bytes = pattern(3_000_001, 1);
    fs::write(mount.at("a"), &bytes).unwrap();
    assert!(fs::read(mount.at("a")).unwrap() == bytes);
    assert_eq!(fs::metadata(mount.at("a")).unwrap().len(), bytes.len() as u64);

    fs::create_dir(mount.at("d")).unwrap();
    fs::rename(mount.at("a"), mount.at("d/b")).unwrap();
    assert!(!mount.at("a").exists());
    symlink("d/b", mount.at("link")).unwrap();
    assert_eq!(fs::read_link(mount.at("link")).unwrap().to_str(), Some("d/b"));
    assert!(fs::read(mount.at("link")).unwrap() == bytes);
    fs::hard_link(mount.at("d/b"), mount.at("c")).unwrap();
    assert_eq!(fs::metadata(mount.at("c")).unwrap().nlink(), 2);
    assert_eq!(
        fs::metadata(mount.at("c")).unwrap().ino(),
        fs::metadata(mount.at("d/b")).unwrap().ino()
    );
    let refused = fs::remove_dir(mount.at("d")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ENOTEMPTY));
    fs::remove_file(mount.at("d/b")).unwrap();
    fs::remove_dir(mount.at("d")).unwrap();
    assert!(fs::read(mount.at("c")).unwrap() == bytes);
    fs::set_permissions(mount.at("c"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(fs::metadata(mount.at("c")).unwrap().mode() & 0o7777, 0o600);
    let missing = fs::read(mount.at("missing")).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
    fs::write(mount.at("missing"), "no longer").unwrap();
    assert_eq!(fs::read_to_string(mount.at("missing")).unwrap(), "no longer");
    let long = fs::write(mount.at("n".repeat(256)), "").unwrap_err();
    assert_eq!(long.raw_os_error(), Some(libc::ENAMETOOLONG));
    mount.stop();
}

#[test]
fn offsets_holes_and_cuts() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let path = mount.at("f");
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    file.write_all_at(b"tail", 1_000_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1_000_004);
    let mut start = [1; 64];
    file.read_exact_at(&mut start, 999_000).unwrap();
    assert_eq!(start, [0; 64]);
    file.set_len(500_000).unwrap();
    file.set_len(600_000).unwrap();
    file.seek(SeekFrom::Start(499_990)).unwrap();
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert!(rest.len() == 100_010 && rest.iter().all(|byte| *byte == 0));
    drop(file);
    let file = OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 0);
    drop(file);
    let created = OpenOptions::new().write(true).create_new(true).open(&path).unwrap_err();
    assert_eq!(created.raw_os_error(), Some(libc::EEXIST));
    mount.stop();
}

#[test]
fn appends_and_direct_io() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let path = mount.at("log");
    let open = || OpenOptions::new().append(true).create(true).open(&path).unwrap();
    let (mut a, mut b) = (open(), open());
    for line in 0..100 {
        let file = if line % 2 == 0 { &mut a } else { &mut b };
        writeln!(file, "line {line:03}").unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    let expected: String = (0..100).map(|line| format!("line {line:03}\n")).collect();
    assert_eq!(text, expected);

    let bytes = pattern(1 << 20, 3);
    let direct = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(mount.at("direct"))
        .unwrap();
    direct.write_all_at(&bytes, 0).unwrap();
    assert!(fs::read(mount.at("direct")).unwrap() == bytes, "cached reads see direct writes");
    direct.write_all_at(&bytes[..4096], 8192).unwrap();
    assert!(fs::read(mount.at("direct")).unwrap()[8192..12288] == bytes[..4096]);
    let mut back = vec![0; 1 << 20];
    direct.read_exact_at(&mut back, 0).unwrap();
    assert!(back[8192..12288] == bytes[..4096] && back[12288..] == bytes[12288..]);
    mount.stop();
}

#[test]
fn an_unlinked_file_works_until_it_is_closed() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let bytes = pattern(300_000, 4);
    fs::write(mount.at("f"), &bytes).unwrap();
    let mut file = OpenOptions::new().read(true).write(true).open(mount.at("f")).unwrap();
    fs::remove_file(mount.at("f")).unwrap();
    file.write_all_at(b"after", 300_000).unwrap();
    let mut back = Vec::new();
    file.read_to_end(&mut back).unwrap();
    assert!(back[..300_000] == bytes && &back[300_000..] == b"after");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    drop(file);
    mount.stop();
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let mut file = File::create(mount.at("f")).unwrap();
    file.write_all(b"x").unwrap();
    let when = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_007, 123_456_789);
    file.set_modified(when).unwrap();
    drop(file);
    assert_eq!(fs::metadata(mount.at("f")).unwrap().modified().unwrap(), when);
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(5);
    fs::write(mount.at("f"), "again").unwrap();
    assert!(fs::metadata(mount.at("f")).unwrap().modified().unwrap() > before);
    mount.stop();
}

#[test]
fn a_tree_is_copied_and_compared_by_ordinary_tools() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    shell(&mount.path, &format!("cp -a {source} tree && diff -r {source} tree"));
    shell(&mount.path, "tar cf all.tar tree && mkdir again && tar xf all.tar -C again");
    shell(&mount.path, "diff -r tree again/tree && rm -r tree again && sync all.tar");
    shell(&mount.path, "dd if=/dev/zero of=zeros bs=1M count=20 conv=fsync status=none");
    assert_eq!(shell(&mount.path, "wc -c < zeros").trim(), "20971520");
    shell(&mount.path, "cp /bin/true . && ./true && chmod 0711 true && ./true");
    let space = shell(&mount.path, "df -P . | tail -1");
    assert!(space.starts_with("ff2"), "{space}");
    mount.stop();
}

#[test]
fn reads_change_access_times_unless_the_mount_says_no() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    fs::create_dir(mount.at("d")).unwrap();
    for name in ["cached", "direct", "d/unread"] {
        fs::write(mount.at(name), pattern(20_000, 1)).unwrap();
    }
    symlink("cached", mount.at("link")).unwrap();
    let names = ["cached", "direct", "d", "link", "d/unread"];
    let times = |mount: &crate::Mount| {
        names.map(|name| fs::symlink_metadata(mount.at(name)).unwrap().accessed().unwrap())
    };
    mount.stop();

    let read_all = |mount: &crate::Mount| {
        fs::read(mount.at("cached")).unwrap();
        let mut direct = OpenOptions::new();
        let direct =
            direct.read(true).custom_flags(libc::O_DIRECT).open(mount.at("direct")).unwrap();
        direct.read_exact_at(&mut [0; 4096], 0).unwrap();
        assert_eq!(fs::read_dir(mount.at("d")).unwrap().count(), 1);
        fs::read_link(mount.at("link")).unwrap();
    };
    let silent = world.mount_with("m", "noatime = true");
    let made = times(&silent);
    read_all(&silent);
    assert_eq!(times(&silent), made, "nothing that was read");
    silent.stop();
    let mount = world.mount("m");
    assert_eq!(times(&mount), made, "nor did anybody hear of it");
    read_all(&mount);
    let read = times(&mount);
    for (name, (made, read)) in names.iter().zip(made.iter().zip(&read)) {
        assert_eq!(read > made, *name != "d/unread", "{name}: seen at once");
    }
    read_all(&mount);
    assert_eq!(times(&mount), read, "once is enough");
    mount.stop();
    let mount = world.mount("m");
    assert_eq!(times(&mount), read, "the namespace knows");
    mount.stop();
}
