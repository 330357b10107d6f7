//! stress-ng: many kinds of system calls at once, on two mounts, each with its own checks.

use std::{fs, path::Path, process::Command, thread};

use ff2_cluster_tests::{
    Cluster,
    suite::{SMALL, inodes, program, rounds, run, wait_collected},
};

const SECONDS: u64 = 8;

const NAMES: &[&str] = &[
    "dentry", "dir", "dirdeep", "rename", "link", "symlink", "xattr", "chmod", "chown", "utime",
    "touch", "getdent", "filename", "mknod", "fstat",
];
const DATA: &[&str] = &[
    "copy-file",
    "fallocate",
    "seek",
    "flock",
    "lockf",
    "locka",
    "lockofd",
    "hdd",
    "iomix",
    "aiol",
    "sync-file",
    "sendfile",
    "open",
    "readahead",
    "revio",
];

#[test]
fn nothing_fails_and_nothing_is_left() {
    let Some(program) = program("stress-ng") else { return };
    let cluster = Cluster::start_with(&SMALL).unwrap();
    let (here, there) = (cluster.mount(), cluster.mount_beside("beside").unwrap());
    let folders = inodes(&here).unwrap() + 2;
    fs::create_dir(here.join("names")).unwrap();
    fs::create_dir(here.join("data")).unwrap();
    thread::scope(|scope| {
        let names = scope.spawn(|| stress(&program, &there.join("names"), NAMES));
        stress(&program, &here.join("data"), DATA);
        names.join().unwrap();
    });
    for mount in [&here, &there] {
        for folder in ["names", "data"] {
            let left: Vec<_> = fs::read_dir(mount.join(folder)).unwrap().collect();
            assert!(left.is_empty(), "{folder} as {} sees it: {left:?}", mount.display());
        }
    }
    wait_collected(&here, folders).unwrap();
    assert_eq!(cluster.fsck().unwrap(), 0, "what is left of files that are gone");
    fs::write(there.join("names/afterwards"), b"x").unwrap();
    assert_eq!(fs::read(here.join("names/afterwards")).unwrap(), b"x");
}

fn stress(program: &Path, folder: &Path, stressors: &[&str]) {
    let mut command = Command::new(program);
    command.args(["--verify", "--timeout", &(SECONDS * rounds()).to_string()]);
    command.arg("--temp-path").arg(folder);
    for stressor in stressors {
        command.arg(format!("--{stressor}")).arg("1");
    }
    let text = run(command.args(["--hdd-bytes", "16m", "--iomix-bytes", "16m"])).unwrap();
    // A failed check is told, but is no failure of the program.
    assert!(!text.contains("fail:"), "{text}");
    assert!(text.contains("successful run completed"), "{text}");
}
