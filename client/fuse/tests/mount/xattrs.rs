//! Extended attributes and ACLs through the kernel.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        net::UnixStream,
    },
    process::Command,
};

use rustix::{
    fs::{
        XattrFlags, getxattr, getxattr_query, lgetxattr, listxattr, lsetxattr, removexattr,
        setxattr,
    },
    io::Errno,
};

use crate::{Mount, World, shell, users::as_user, world};

fn get(path: &std::path::Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 64 << 10];
    let length = getxattr(path, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

fn list(path: &std::path::Path) -> BTreeSet<String> {
    let mut names = vec![0; 64 << 10];
    let length = listxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect()
}

#[test]
fn extended_attributes_are_those_of_linux() {
    let Some(world) = world() else { return };
    let (mount, other) = (world.mount("m"), world.mount("o"));
    let file = mount.at("f");
    fs::write(&file, "x").unwrap();
    let set = |name: &str, value: &[u8], flags| setxattr(&file, name, value, flags);
    let any = XattrFlags::empty();
    assert_eq!(get(&file, "user.a"), Err(Errno::NODATA));
    set("user.a", b"one", any).unwrap();
    assert_eq!(get(&file, "user.a").unwrap(), b"one");
    assert_eq!(get(&other.at("f"), "user.a").unwrap(), b"one", "on another mount");
    set("user.empty", b"", XattrFlags::CREATE).unwrap();
    assert_eq!(get(&file, "user.empty").unwrap(), b"");
    assert_eq!(set("user.a", b"", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(set("user.b", b"", XattrFlags::REPLACE), Err(Errno::NODATA));
    set("user.a", b"two", XattrFlags::REPLACE).unwrap();
    assert_eq!(get(&file, "user.a").unwrap(), b"two");
    // A size of 0 asks how much there is; too little is refused.
    assert_eq!(getxattr_query(&file, "user.a"), Ok(3));
    assert_eq!(getxattr(&file, "user.a", &mut [0_u8; 2][..]), Err(Errno::RANGE));
    assert_eq!(listxattr(&file, &mut [0_u8; 3][..]), Err(Errno::RANGE));
    let big = vec![7; 64 << 10];
    set("user.big", &big, any).unwrap();
    assert!(get(&file, "user.big").unwrap() == big);
    assert_eq!(set("user.big", &[&big[..], b"x"].concat(), any), Err(Errno::TOOBIG));
    assert_eq!(set(&format!("user.{}", "n".repeat(251)), b"", any), Err(Errno::RANGE));
    set(&format!("user.{}", "n".repeat(250)), b"", any).unwrap();
    removexattr(&file, format!("user.{}", "n".repeat(250))).unwrap();
    set("trusted.t", b"t", any).unwrap();
    set("security.s", b"s", any).unwrap();
    let names = ["security.s", "trusted.t", "user.a", "user.big", "user.empty"];
    assert_eq!(list(&file), names.map(str::to_owned).into());
    removexattr(&file, "user.a").unwrap();
    assert_eq!(removexattr(&file, "user.a"), Err(Errno::NODATA));
    assert_eq!(set("other.a", b"", any), Err(Errno::OPNOTSUPP));
    // Not for symlinks.
    symlink("f", mount.at("s")).unwrap();
    assert_eq!(lsetxattr(mount.at("s"), "user.a", b"", any), Err(Errno::PERM));
    assert_eq!(lgetxattr(mount.at("s"), "user.a", &mut [0_u8; 9][..]), Err(Errno::NODATA));
    lsetxattr(mount.at("s"), "trusted.a", b"t", any).unwrap();
    // ctime tells of it.
    let before = fs::metadata(&file).unwrap();
    set("user.c", b"", any).unwrap();
    let after = fs::metadata(&file).unwrap();
    assert_eq!(after.mtime_nsec(), before.mtime_nsec());
    assert!((after.ctime(), after.ctime_nsec()) > (before.ctime(), before.ctime_nsec()));
    mount.stop();
    other.stop();
}

#[test]
fn users_see_and_set_what_they_may() {
    let Some(world) = world() else { return };
    let mount = world.mount_with("m", "allow_other = true");
    let file = mount.at("f");
    fs::write(&file, "x").unwrap();
    setxattr(&file, "trusted.t", b"t", XattrFlags::empty()).unwrap();
    setxattr(&file, "user.u", b"u", XattrFlags::empty()).unwrap();
    let python = |line: &str| {
        let script = format!("import os\npath = {:?}\n{line}", file.display().to_string());
        as_user(&format!("python3 -c '{script}'"), "4242")
    };
    assert!(python("assert os.listxattr(path) == [\"user.u\"], os.listxattr(path)"));
    assert!(python("assert os.getxattr(path, \"user.u\") == b\"u\""));
    assert!(!python("os.getxattr(path, \"trusted.t\")"));
    assert!(!python("os.setxattr(path, \"user.u\", b\"v\")"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(python("os.setxattr(path, \"user.u\", b\"v\")"));
    assert_eq!(get(&file, "user.u").unwrap(), b"v");
    mount.stop();
}

/// What lends privileges goes when somebody without them writes: by the mode, and by capabilities.
#[test]
fn writers_take_privileges_away() {
    let Some(world) = world() else { return };
    let mount = world.mount_with("m", "allow_other = true");
    let file = mount.at("f");
    // VFS_CAP_REVISION_2 with CAP_NET_RAW.
    let caps = [&[0, 0, 0, 2, 0, 0x20, 0, 0][..], &[0; 12]].concat();
    for (command, what) in [
        (format!("printf y >> {}", file.display()), "an append"),
        (format!("printf y | dd of={} conv=notrunc status=none", file.display()), "a write"),
        (format!(": > {}", file.display()), "a truncating open"),
        (format!("truncate -s 100 {}", file.display()), "an extension"),
    ] {
        fs::write(&file, "xxxx").unwrap();
        setxattr(&file, "security.capability", &caps[..], XattrFlags::empty()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o6777)).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o6777);
        assert!(as_user(&command, "4242"), "{what}");
        assert_eq!(get(&file, "security.capability"), Err(Errno::NODATA), "{what}");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o777, "{what}");
    }
    // Root keeps the mode's, as everywhere; capabilities go even then.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
    setxattr(&file, "security.capability", &caps[..], XattrFlags::empty()).unwrap();
    fs::write(&file, "root").unwrap();
    assert_eq!(get(&file, "security.capability"), Err(Errno::NODATA));
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o4755);
    mount.stop();
}

fn acl_tools() -> bool {
    let there = Command::new("setfacl").arg("--version").output().is_ok();
    if !there {
        let allowed = std::env::var("FF2_TEST_ALLOW_SKIP")
            .is_ok_and(|value| value.split(',').any(|word| word == "1" || word == "setfacl"));
        assert!(allowed, "setfacl is missing: install the package acl, or set FF2_TEST_ALLOW_SKIP");
        eprintln!("skipped: setfacl is missing");
    }
    there
}

#[test]
fn acls_let_in_whom_they_name() {
    let Some(world) = world() else { return };
    if !acl_tools() {
        return;
    }
    let mount = world.mount_with("m", "allow_other = true");
    let at = |name: &str| mount.at(name).display().to_string();
    fs::write(mount.at("f"), "secret").unwrap();
    fs::set_permissions(mount.at("f"), fs::Permissions::from_mode(0o600)).unwrap();
    let read = format!("cat {} > /dev/null", at("f"));
    assert!(!as_user(&read, "4242"));
    shell(&mount.path, "setfacl -m u:4242:r f");
    assert!(as_user(&read, "4242"), "whom the list names");
    assert!(!as_user(&format!("echo >> {}", at("f")), "4242"));
    let shown = shell(&mount.path, "getfacl -cpn f");
    assert_eq!(shown, "user::rw-\nuser:4242:r--\ngroup::---\nmask::r--\nother::---\n\n");
    assert_eq!(fs::metadata(mount.at("f")).unwrap().mode() & 0o7777, 0o640, "the mask");
    assert_eq!(shell(&mount.path, "ls -l f").split(' ').next(), Some("-rw-r-----+"));
    shell(&mount.path, "chmod g= f");
    assert!(!as_user(&read, "4242"), "masked");
    shell(&mount.path, "chmod g=r f && setfacl -x u:4242 f");
    assert!(!as_user(&read, "4242"));
    shell(&mount.path, "setfacl -b f");
    assert_eq!(shell(&mount.path, "getfacl -cp f"), "user::rw-\ngroup::---\nother::---\n\n");
    assert!(!as_user(&format!("setfacl -m u:4242:rw {}", at("f")), "4242"), "not its owner");
    // A group, by supplementary membership.
    shell(&mount.path, "setfacl -m g:5555:r f");
    assert!(as_user(&read, "5555") && !as_user(&read, "5556"));
    mount.stop();
}

#[test]
fn default_acls_are_inherited_instead_of_the_umask() {
    let Some(world) = world() else { return };
    if !acl_tools() {
        return;
    }
    let (mount, other) = (world.mount_with("m", "allow_other = true"), world.mount("o"));
    let mode = |name: &str| fs::metadata(mount.at(name)).unwrap().mode() & 0o7777;
    shell(&mount.path, "umask 027; mkdir plain; touch plain/f; mkfifo plain/p; mkdir plain/d");
    assert_eq!(
        [mode("plain"), mode("plain/f"), mode("plain/p"), mode("plain/d")],
        [0o750, 0o640, 0o640, 0o750]
    );
    shell(&mount.path, "mkdir team && chmod 755 team && setfacl -d -m u:4242:rwx,g::rx,o::- team");
    shell(&mount.path, "umask 077; touch team/f; mkdir team/d; touch team/d/g; mkfifo team/p");
    assert_eq!(
        [mode("team/f"), mode("team/d"), mode("team/d/g"), mode("team/p")],
        [0o660, 0o770, 0o660, 0o660]
    );
    let shown = shell(&other.path, "getfacl -cpn team/d");
    let access = "user::rwx\nuser:4242:rwx\ngroup::r-x\nmask::rwx\nother::---\n";
    let default = access.lines().map(|line| format!("default:{line}\n")).collect::<String>();
    assert_eq!(shown, format!("{access}{default}\n"), "seen from another mount");
    let place = mount.at("team/d/g").display().to_string();
    assert!(as_user(&format!("echo x >> {place}"), "4242"));
    let copied = shell(&mount.path, "cp -a team copy && getfacl -cpn copy/d");
    assert_eq!(copied, shown, "tools copy them");
    mount.stop();
    other.stop();
}

/// The kernel asks of each file that it meets whether it has an ACL, and of each file that is written
/// whether it has capabilities: that costs the namespace nothing.
#[test]
fn what_nobody_set_is_not_asked_for() {
    let Some(world) = world() else { return };
    let mount = world.mount_with("m", "allow_other = true\ncache_ms = 60000");
    // A mount that has just begun caches nothing.
    crate::until("the namespace promises something", || {
        let before = asked(&world);
        fs::write(mount.at("first"), "x").unwrap();
        asked(&world) == before
    });
    fs::create_dir(mount.at("d")).unwrap();
    fs::set_permissions(mount.at("d"), fs::Permissions::from_mode(0o775)).unwrap();
    let before = asked(&world);
    for number in 0..10 {
        fs::write(mount.at(format!("d/{number}")), "made and written").unwrap();
    }
    fs::write(mount.at("d/f"), "x").unwrap();
    let place = mount.at("d/f").display().to_string();
    let script =
        format!("for n in 1 2 3 4 5 6 7 8; do cat {place}; ls -l {place}; done > /dev/null");
    assert!(as_user(&script, "4242"));
    let mut file = fs::OpenOptions::new().append(true).open(mount.at("d/f")).unwrap();
    for _ in 0..50 {
        file.write_all(b"y").unwrap();
    }
    drop(file);
    assert_eq!(asked(&world), before, "questions for extended attributes");
    // Nor does the kernel ask the mount before each write.
    let before = kernel_asked(&mount);
    let write = format!("dd if=/dev/zero of={place} bs=100 count=200 status=none");
    fs::set_permissions(mount.at("d/f"), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(as_user(&write, "4242"));
    let count = kernel_asked(&mount) - before;
    assert!(count < 20, "{count} questions for 200 writes");
    mount.stop();
}

/// How often the kernel asked for an extended attribute, by the metrics of the mount.
fn kernel_asked(mount: &Mount) -> u64 {
    let mut socket = UnixStream::connect(mount.data_dir.join("admin.sock")).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let name = "ff2_fuse_op_latency_seconds_count{op=\"getxattr\"} ";
    let count = text.lines().find_map(|line| line.strip_prefix(name));
    count.map_or(0, |count| count.trim().parse().unwrap())
}

fn asked(world: &World) -> u32 {
    world.fake.state.xattr_reads.load(std::sync::atomic::Ordering::SeqCst)
}
