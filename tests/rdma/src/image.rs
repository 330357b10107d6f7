//! The machine's file system: an initramfs of busybox, a few programs with their libraries, and what is to be run.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    kernel::Kernel,
    machine::{Disk, Job},
};

/// Programs of the host that set up the devices there, and that tests take them away with.
const PROGRAMS: [&str; 2] = ["rdma", "ip"];
/// As there is no other library path: where Debian has them.
const PROVIDERS: &str = "/usr/lib/x86_64-linux-gnu/libibverbs";
/// A test may load them itself, so no `ldd` names them.
const LOADED: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/libibverbs.so.1", "/lib/x86_64-linux-gnu/libgcc_s.so.1"];

/// Writes the image of a machine that runs `job` to a new file of `work`.
pub(crate) fn build(job: &Job<'_>, kernel: &Kernel, work: &Path) -> Result<PathBuf> {
    let root = work.join("root");
    for folder in
        ["bin", "dev", "proc", "sys", "tmp", "root", "modules", "work", "etc/libibverbs.d"]
    {
        fs::create_dir_all(root.join(folder))?;
    }
    let busybox = find("busybox").context("busybox is missing")?;
    put(&root, &busybox, Path::new("/bin/busybox"))?;
    for name in PROGRAMS {
        let program = find(name).with_context(|| format!("{name} is missing: install iproute2"))?;
        put(&root, &program, &Path::new("/usr/bin").join(name))?;
    }
    for library in LOADED.map(Path::new) {
        put(&root, library, library)?;
    }
    for entry in fs::read_dir(PROVIDERS).context("ibverbs-providers is missing")? {
        let path = entry?.path();
        if path.to_string_lossy().contains("librxe") {
            put(&root, &path, &path)?;
        }
    }
    let more = job.disk.as_ref().map_or(&[][..], |_| &kernel.disk_modules);
    for (place, module) in kernel.modules.iter().chain(more).enumerate() {
        let name = module.file_name().context("a module has a name")?.to_string_lossy();
        fs::copy(module, root.join(format!("modules/{place:02}-{name}")))?;
    }
    fs::write(root.join("etc/libibverbs.d/rxe.driver"), "driver rxe\n")?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
    put_program(&root, job.program, Path::new(job.place))?;
    for (from, to) in job.files {
        put_program(&root, from, Path::new(to))?;
    }
    if let Some(disk) = &job.disk {
        fs::create_dir_all(root.join(disk.mount_point.trim_start_matches('/')))?;
    }
    fs::write(root.join("work/run.sh"), script(job))?;
    fs::write(root.join("init"), include_str!("init.sh"))?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    pack(&root, &work.join("image"))
}

/// How the program is started.
fn script(job: &Job<'_>) -> String {
    let mut script = String::from("cd /work\n");
    if let Some(Disk { mount_point, .. }) = &job.disk {
        script += &format!("mount -t ext4 /dev/vda {} || exit 125\n", quoted(mount_point));
    }
    for (name, value) in job.environment {
        script += &format!("export {name}={}\n", quoted(value));
    }
    script += &format!("exec {}", quoted(job.place));
    for argument in job.arguments {
        script += &format!(" {}", quoted(argument));
    }
    script + "\n"
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A program or library, with every library that it is linked to.
fn put(root: &Path, from: &Path, to: &Path) -> Result<()> {
    copy(root, from, to)?;
    // Fails for programs that are not dynamic.
    let linked = Command::new("ldd").arg(from).output().context("start ldd")?;
    for word in String::from_utf8_lossy(&linked.stdout).split_whitespace() {
        let library = Path::new(word);
        if library.is_absolute() && library.exists() {
            copy(root, library, library)?;
        }
    }
    Ok(())
}

/// A program of a build, without what only debuggers read: that is most of it, and the image lies in memory.
fn put_program(root: &Path, from: &Path, to: &Path) -> Result<()> {
    put(root, from, to)?;
    let placed = root.join(to.strip_prefix("/").context("places there are absolute")?);
    // Scripts have nothing to take out.
    let _failed = output(Command::new("strip").arg("--strip-debug").arg(placed));
    Ok(())
}

fn copy(root: &Path, from: &Path, to: &Path) -> Result<()> {
    let target = root.join(to.strip_prefix("/").context("places there are absolute")?);
    if !target.exists() {
        fs::create_dir_all(target.parent().context("a file is in a folder")?)?;
        fs::copy(from, &target).with_context(|| format!("copy {}", from.display()))?;
    }
    Ok(())
}

fn pack(root: &Path, image: &Path) -> Result<PathBuf> {
    let names = output(Command::new("find").arg(".").current_dir(root))?;
    let mut command = Command::new("cpio");
    command.args(["--quiet", "-o", "-H", "newc", "-R", "0:0"]).current_dir(root);
    let mut child = command.stdin(Stdio::piped()).stdout(fs::File::create(image)?).spawn()?;
    child.stdin.take().context("was asked for")?.write_all(names.as_bytes())?;
    ensure!(child.wait()?.success(), "cpio cannot pack {}", root.display());
    Ok(image.to_owned())
}

/// Where a program is, also those of an administrator, which are not in everybody's PATH.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|folder| folder.join(name)).find(|at| at.is_file())
}

/// What a program printed, if it ended well.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.output().with_context(|| format!("start {name}"))?;
    let error = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{name} failed: {}", error.trim());
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn words_reach_the_program_as_they_are() {
        let job = Job {
            arguments: &["it's", "$HOME `id` \\", ""],
            environment: &[("A", "b c")],
            ..Job::new(Path::new("/bin/true"))
        };
        let script =
            script(&job).replace("'/work/program'", "printf '%s|'").replace("cd /work", "");
        let out = output(Command::new("sh").args(["-c", &script])).unwrap();
        assert_eq!(out, "it's|$HOME `id` \\||");
        let shown = script.replace("exec printf '%s|'", "echo \"$A\" #");
        assert_eq!(output(Command::new("sh").args(["-c", &shown])).unwrap(), "b c\n");
    }

    #[test]
    fn programs_are_found() {
        assert!(find("sh").unwrap().is_absolute());
        assert_eq!(find("no-such-program"), None);
    }
}
