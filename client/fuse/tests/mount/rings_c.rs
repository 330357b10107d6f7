//! The ring's C library: its test program, compiled as a user would, on a mount, as an ordinary user.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{pattern, users::as_user, world};

/// Where cargo puts the library of this build: beside the programs of the tests.
fn library_folder() -> PathBuf {
    let program = env::current_exe().unwrap();
    let folder = program.parent().unwrap().to_owned();
    assert!(folder.join("libff2_ring.so").exists(), "no libff2_ring.so in {}", folder.display());
    folder
}

/// With all warnings as errors.
fn compile(program: &Path) {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ring");
    let library = library_folder();
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    cc.arg("-I").arg(crate_folder.join("include")).arg(crate_folder.join("tests/ring.c"));
    cc.arg("-o").arg(program).arg("-L").arg(&library).arg("-lff2_ring");
    cc.arg(format!("-Wl,-rpath,{}", library.display()));
    assert!(cc.status().unwrap().success(), "the C program does not compile");
}

#[test]
fn the_c_library_does_what_its_header_says() {
    let Some(world) = world() else { return };
    let mount = world.mount_with("m", "allow_other = true");
    let program = world.folder.path().join("ring");
    compile(&program);
    fs::write(mount.at("f"), pattern(100_000, 1)).unwrap();
    fs::set_permissions(mount.at("f"), fs::Permissions::from_mode(0o666)).unwrap();
    let command = format!("{} {}", program.display(), mount.at("f").display());
    assert!(as_user(&command, "4242"));
    assert!(fs::read(mount.at("f")).unwrap()[500..1500].iter().all(|byte| *byte == b'w'));
    mount.stop();
}
