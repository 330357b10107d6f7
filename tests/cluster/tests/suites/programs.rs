//! Programs that users run, each with what it must leave behind.

use std::{fs, path::Path, process::Command};

use ff2_cluster_tests::{
    Cluster,
    suite::{SMALL, ensure_same_tree, program, run},
};

#[test]
fn users_find_what_they_left() {
    for name in ["rsync", "setfattr", "setfacl", "python3", "cargo"] {
        if program(name).is_none() {
            return;
        }
    }
    let cluster = Cluster::start_with(&SMALL).unwrap();
    let (here, there) = (cluster.mount(), cluster.mount_beside("beside").unwrap());
    for (what, check) in [
        ("rsync", rsync as fn(&Path, &Path)),
        ("tar", tar),
        ("sparse", sparse),
        ("find", find),
        ("flock", flock),
        ("mmap", mmap),
        ("cargo", cargo),
    ] {
        eprintln!("-- {what}");
        fs::create_dir(here.join(what)).unwrap();
        check(&here.join(what), &there.join(what));
    }
}

/// Runs lines of a shell, which ends with the first that fails.
fn shell(place: &Path, lines: &str) -> String {
    run(Command::new("bash").args(["-euo", "pipefail", "-c", lines]).current_dir(place)).unwrap()
}

/// Copies the sources of these tests; a second time there is nothing to do, on either mount.
fn rsync(here: &Path, there: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = |place: &Path, options: &[&str]| {
        let mut command = Command::new("rsync");
        command.arg("--archive").args(options).arg(format!("{}/", source.display()));
        run(command.arg(place)).unwrap()
    };
    copy(here, &[]);
    assert_eq!(copy(here, &["--itemize-changes"]), "");
    assert_eq!(copy(there, &["--itemize-changes", "--checksum"]), "");
    assert_eq!(run(Command::new("diff").arg("-r").arg(source).arg(there)).unwrap(), "");
    ensure_same_tree(here, there).unwrap();
}

/// Links, pipes, attributes and ACLs go into an archive and come out of it.
fn tar(here: &Path, there: &Path) {
    shell(
        here,
        "mkdir a; echo hello > a/file; ln a/file a/second; ln -s file a/symlink; mkfifo a/pipe
         setfattr -n user.colour -v blue a/file; setfacl -m u:daemon:r a/file; chmod 2750 a
         head -c 3000000 /dev/urandom > a/large
         tar --xattrs --acls -cf a.tar a; mkdir out; tar --xattrs --acls -xpf a.tar -C out",
    );
    let told =
        "getfattr -d -R . ; getfacl -R . ; stat -c '%n %F %a %h %s %Y' *; cat file large | md5sum";
    assert_eq!(shell(&here.join("a"), told), shell(&there.join("out/a"), told));
}

/// Holes stay holes to who copies: zeros, with the length that they had.
fn sparse(here: &Path, there: &Path) {
    shell(
        here,
        "truncate -s 64M a; printf x | dd of=a bs=1 seek=33554432 conv=notrunc status=none
         cp --sparse=always a b; cp --reflink=auto a c; cmp a b; cmp a c",
    );
    assert_eq!(shell(there, "cmp a b && cmp a c && stat -c %s a b c"), "67108864\n".repeat(3));
}

fn find(here: &Path, there: &Path) {
    shell(here, "mkdir -p a/{1,2,3}/{x,y}; touch a/{1,2,3}/{x,y}/{k,l}; echo text > a/2/y/k");
    for place in [here, there] {
        assert_eq!(shell(place, "find a -type f | wc -l"), "12\n");
        assert_eq!(shell(place, "find a -type f -size +0 -newer a/1 -printf '%P'"), "2/y/k");
    }
    shell(there, "find a -name l -delete; find a -depth -type d -name x -exec rm -r {} +");
    assert_eq!(shell(here, "find a -type f | sort | tr '\\n' ' '"), "a/1/y/k a/2/y/k a/3/y/k ");
}

/// A lock that is held on one mount is seen on the other, and is free when its holder ended.
fn flock(here: &Path, there: &Path) {
    let there = there.display();
    let lines = format!(
        "exec 9> lock; flock 9
         flock --nonblock {there}/lock true && exit 9 || echo held
         flock {there}/lock echo second & sleep 0.3; echo first; exec 9>&-; wait"
    );
    // The program in the background has the descriptor too, and must not hold the lock by it.
    let lines = lines.replace("echo second &", "echo second 9>&- &");
    assert_eq!(shell(here, &lines), "held\nfirst\nsecond\n");
}

fn mmap(here: &Path, there: &Path) {
    let script = format!(
        r#"
import mmap
path, other = "{}/file", "{}/file"
with open(path, "w+b") as file:
    file.truncate(1 << 20)
    with mmap.mmap(file.fileno(), 0) as view:
        view[5:10] = b"hello"
        view[-3:] = b"end"
        view.flush()
        assert file.read(10) == b"\0" * 5 + b"hello"
        with open(other, "rb") as seen:
            assert seen.read(10) == b"\0" * 5 + b"hello"
        view[:5] = b"again"
        view.resize(2 << 20)
        view[-1:] = b"!"
with open(other, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
    assert view[:10] == b"againhello" and view[-1:] == b"!" and len(view) == 2 << 20
"#,
        here.display(),
        there.display()
    );
    run(Command::new("python3").arg("-c").arg(script)).unwrap();
}

/// A program is built and run on the mount; a change is seen, and nothing is built twice.
fn cargo(here: &Path, there: &Path) {
    fs::create_dir(here.join("src")).unwrap();
    let manifest =
        "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
    fs::write(here.join("Cargo.toml"), manifest).unwrap();
    let program = |text: &str| format!("fn main() {{ println!(\"{text}\"); }}\n");
    fs::write(here.join("src/main.rs"), program("hello")).unwrap();
    let cargo = |place: &Path| {
        let mut command = Command::new("cargo");
        command.args(["run", "--offline"]).current_dir(place).env_remove("CARGO_TARGET_DIR");
        run(&mut command).unwrap()
    };
    let built = cargo(here);
    assert!(built.contains("hello\n") && built.contains("Compiling"), "{built}");
    let again = cargo(here);
    assert!(again.contains("hello\n") && !again.contains("Compiling"), "{again}");
    fs::write(there.join("src/main.rs"), program("changed")).unwrap();
    let changed = cargo(here);
    assert!(changed.contains("changed\n") && changed.contains("Compiling"), "{changed}");
    assert_eq!(shell(there, "target/debug/hello"), "changed\n");
}
