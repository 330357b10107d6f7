//! Other users: their rights are checked with all their groups.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    process::Command,
};

use crate::world;

/// Runs a shell command as uid 4242 with these groups.
pub(crate) fn as_user(command: &str, groups: &str) -> bool {
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", "4242", "--regid", "4242", "--groups", groups]);
    setpriv.args(["sh", "-ec", command]).status().unwrap().success()
}

#[test]
fn users_have_the_rights_of_their_groups() {
    let Some(world) = world() else { return };
    let mount = world.mount_with("m", "allow_other = true\ncache_ms = 0");
    let place = |name| mount.at(name).display().to_string();
    fs::create_dir(mount.at("team")).unwrap();
    chown(mount.at("team"), Some(0), Some(5555)).unwrap();
    fs::set_permissions(mount.at("team"), fs::Permissions::from_mode(0o2770)).unwrap();
    let write = format!("echo x > {}/f", place("team"));
    assert!(!as_user(&write, "4242"), "not of the team");
    assert!(as_user(&write, "4242,5555"));
    let made = fs::metadata(mount.at("team/f")).unwrap();
    assert_eq!((made.uid(), made.gid()), (4242, 5555), "the directory hands its group on");
    assert!(!as_user(&format!("chown 0 {}/f", place("team")), "5555"));
    assert!(!as_user(&format!("rm -r {}", place("team")), "4242"));
    assert!(as_user(&format!("rm {}/f", place("team")), "5555"));
    mount.stop();
}

#[test]
fn without_allow_other_nobody_else_gets_in() {
    let Some(world) = world() else { return };
    let mount = world.mount("m");
    assert!(!as_user(&format!("ls {}", mount.path.display()), "4242"));
    mount.stop();
}

#[test]
fn a_read_only_mount_writes_nothing() {
    let Some(world) = world() else { return };
    let writer = world.mount("w");
    fs::write(writer.at("f"), "x").unwrap();
    let mount = world.mount_with("m", "read_only = true");
    assert_eq!(fs::read_to_string(mount.at("f")).unwrap(), "x");
    let refused = fs::write(mount.at("g"), "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    mount.stop();
    writer.stop();
}
