//! Mounts of a part of the volume, mounts that write nothing, and `mount -t ff2`.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use ff2_client::pb;
use rustix::{
    fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr},
    io::Errno,
};

use crate::{fake::CLUSTER_ID, is_mounted, until, world};

#[test]
fn a_folder_of_the_volume_is_mounted() {
    let Some(world) = world() else { return };
    let whole = world.mount_with("whole", "cache_ms = 0");
    fs::create_dir_all(whole.at("projects/one/in")).unwrap();
    fs::write(whole.at("projects/one/f"), "one").unwrap();
    fs::write(whole.at("secret"), "no").unwrap();
    let part = world.mount_with("part", "subdir = \"/projects/one\"\ncache_ms = 0");
    assert_eq!(fs::read_to_string(part.at("f")).unwrap(), "one");
    assert_eq!(fs::read_dir(&part.path).unwrap().count(), 2);
    assert_eq!(fs::metadata(&part.path).unwrap().ino(), 1, "the kernel's root");
    assert_eq!(fs::read_dir(part.at("..")).unwrap().count(), {
        fs::read_dir(part.path.parent().unwrap()).unwrap().count()
    });
    fs::write(part.at("in/g"), "two").unwrap();
    assert_eq!(fs::read_to_string(whole.at("projects/one/in/g")).unwrap(), "two");
    fs::rename(part.at("in/g"), part.at("h")).unwrap();
    fs::set_permissions(&part.path, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(fs::metadata(whole.at("projects/one")).unwrap().mode() & 0o777, 0o700);
    // It goes on under another name.
    fs::rename(whole.at("projects/one"), whole.at("moved")).unwrap();
    fs::write(part.at("late"), "x").unwrap();
    assert_eq!(fs::read_to_string(whole.at("moved/late")).unwrap(), "x");
    part.stop();
    whole.stop();
}

/// The token decides, not the mount: with it nothing else can be mounted either.
#[test]
fn a_token_for_a_folder_opens_nothing_else() {
    let Some(world) = world() else { return };
    let whole = world.mount("whole");
    fs::create_dir_all(whole.at("team/in")).unwrap();
    fs::write(whole.at("team/f"), "f").unwrap();
    fs::write(whole.at("secret"), "no").unwrap();
    symlink("/in", whole.at("team/link")).unwrap();
    let folder = fs::metadata(whole.at("team")).unwrap().ino();
    let token = world.fake.issue(pb::UserClaims {
        name: "team".into(),
        root: true,
        subtree: folder,
        subtree_volume: 1,
        ..Default::default()
    });
    let file = world.folder.path().join("team.token");
    token.save(&file).unwrap();
    let part = world.mount_as("part", &file, "");
    assert_eq!(fs::read_to_string(part.at("f")).unwrap(), "f");
    fs::write(part.at("in/g"), "g").unwrap();
    assert_eq!(fs::read_to_string(whole.at("team/in/g")).unwrap(), "g");
    assert_eq!(fs::read_dir(&part.path).unwrap().count(), 3);
    let inner = world.mount_as("inner", &file, "subdir = \"/in\"");
    assert_eq!(fs::read_to_string(inner.at("g")).unwrap(), "g");
    // A path is walked from the folder that the token is for.
    for subdir in ["/..", "/../..", "/in/../.."] {
        let up = world.mount_as("up", &file, &format!("subdir = {subdir:?}"));
        assert_eq!(fs::read_to_string(up.at("f")).unwrap(), "f", "{subdir} leads no further");
        up.stop();
    }
    for mount in [part, inner, whole] {
        mount.stop();
    }
}

/// Each call that changes something fails, and by EROFS.
#[test]
fn a_read_only_mount_refuses_every_change() {
    let Some(world) = world() else { return };
    let writer = world.mount("w");
    fs::write(writer.at("f"), "x").unwrap();
    fs::create_dir(writer.at("d")).unwrap();
    let mount = world.mount_with("m", "read_only = true");
    let at = |name: &str| mount.at(name);
    let code = |outcome: std::io::Result<()>| outcome.map_err(|e| e.raw_os_error().unwrap());
    let std = |outcome: Result<(), Errno>| outcome.map_err(Errno::raw_os_error);
    let open = |options: &mut fs::OpenOptions, name| code(options.open(at(name)).map(drop));
    let mode = Mode::from_raw_mode(0o644);
    let now = fs::FileTimes::new().set_modified(std::time::SystemTime::now());
    for (what, outcome) in [
        ("open to write", open(fs::OpenOptions::new().write(true), "f")),
        ("open to cut", open(fs::OpenOptions::new().write(true).truncate(true), "f")),
        ("create", open(fs::OpenOptions::new().write(true).create(true), "g")),
        ("mkdir", code(fs::create_dir(at("g")))),
        ("mkfifo", std(mknodat(CWD, at("g"), FileType::Fifo, mode, 0))),
        ("mknod", std(mknodat(CWD, at("g"), FileType::CharacterDevice, mode, 1))),
        ("symlink", code(symlink("f", at("g")))),
        ("link", code(fs::hard_link(at("f"), at("g")))),
        ("rename", code(fs::rename(at("f"), at("g")))),
        ("unlink", code(fs::remove_file(at("f")))),
        ("rmdir", code(fs::remove_dir(at("d")))),
        ("chmod", code(fs::set_permissions(at("f"), fs::Permissions::from_mode(0o600)))),
        ("chown", code(std::os::unix::fs::chown(at("f"), Some(7), None))),
        ("utimens", code(fs::File::open(at("f")).and_then(|file| file.set_times(now)))),
        ("setxattr", std(setxattr(at("f"), "user.a", b"", XattrFlags::empty()))),
    ] {
        assert_eq!(outcome, Err(libc::EROFS), "{what}");
    }
    assert_eq!(fs::read_to_string(at("f")).unwrap(), "x");
    // A reader may keep others out, as on any file system.
    fs::File::open(at("f")).unwrap().lock().unwrap();
    mount.stop();
    writer.stop();
}

#[test]
fn the_helper_of_mount_mounts_and_says_what_is_wrong() {
    let Some(world) = world() else { return };
    let whole = world.mount("whole");
    fs::create_dir_all(whole.at("a/b")).unwrap();
    fs::write(whole.at("a/b/f"), "f").unwrap();
    whole.stop();
    let folder = world.folder.path();
    let helper = folder.join("mount.ff2");
    symlink(env!("CARGO_BIN_EXE_ff2-fuse"), &helper).unwrap();
    let (place, data) = (folder.join("by-helper"), folder.join("helper.data"));
    fs::create_dir(&place).unwrap();
    let config = folder.join("helper.toml");
    let text = format!(
        "cluster_id = {CLUSTER_ID:?}\nmetads = {:?}\ntoken_file = {:?}\n\
         mount_point = \"/nowhere\"\ndata_dir = {data:?}\n",
        world.fake.metads(),
        folder.join("token"),
    );
    fs::write(&config, text).unwrap();
    let run = |place: &Path, options: &str| {
        let mut mount = Command::new(&helper);
        let output = mount.arg(&config).arg(place).args(["-o", options]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&place, "rw,subdir=/a/missing");
    assert_eq!(code, Some(32), "{said}");
    assert!(said.contains("/a/missing"), "{said}");
    assert_eq!(run(&place, "dev").0, Some(1));
    assert_eq!(run(&folder.join("missing"), "rw").0, Some(32));
    assert!(!is_mounted(&place));
    let _away = Away(&place);
    let (code, said) = run(&place, "ro,allow_other,subdir=/a,noauto,_netdev");
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(fs::read_to_string(place.join("b/f")).unwrap(), "f");
    let refused = fs::write(place.join("b/g"), "").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    // As umount(8) does.
    let output = Command::new("umount").arg(&place).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    until("the end of the mount", || !is_mounted(&place));
    let data = fs::read_dir(&data).unwrap().next().unwrap().unwrap().path();
    until("the end of its process", || ff2_gone(&data));
}

/// Whatever fails, the mount is taken away.
struct Away<'a>(&'a Path);

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if is_mounted(self.0) {
            let _ = Command::new("umount").arg("-l").arg(self.0).status();
        }
    }
}

/// Whether nothing answers on the admin socket any more.
fn ff2_gone(data_dir: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(data_dir.join("admin.sock")).is_err()
}
