//! git: a repository cloned, checked out and packed on one mount, while another reads it.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use ff2_cluster_tests::{
    Cluster,
    suite::{SMALL, ensure_same_tree, program, rounds, run},
};

const COMMITS: u64 = 12;

#[test]
fn a_repository_lives_on_a_mount_while_another_reads_it() {
    let Some(git) = program("git") else { return };
    let git = Git { program: git };
    let cluster = Cluster::start_with(&SMALL).unwrap();
    let (here, there) = (cluster.mount(), cluster.mount_beside("beside").unwrap());
    let beside = tempfile::tempdir().unwrap();
    let origin = beside.path().join("origin");
    git.make(&origin);

    let url = format!("file://{}", origin.display());
    git.run(&here, &["clone", "--quiet", &url, "clone"]);
    let (clone, seen) = (here.join("clone"), there.join("clone"));
    git.run(&clone, &["fsck", "--full", "--strict"]);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looks = 0;
            while looks == 0 || !is_over.load(Relaxed) {
                git.run(&seen, &["cat-file", "--batch-all-objects", "--batch-check"]);
                // Not fsck: it looks at the names after the objects, and takes a commit between for damage.
                git.run(&seen, &["rev-list", "--objects", "--all"]);
                looks += 1;
            }
        });
        for round in 0..rounds() {
            for commit in (1..COMMITS).step_by(3) {
                git.run(&clone, &["checkout", "--quiet", &format!("origin/branch{commit}")]);
                git.ensure_clean(&clone);
                let name = format!("work{round}-{commit}");
                git.run(&clone, &["checkout", "--quiet", "-b", &name]);
                fs::write(clone.join("own"), format!("{round} {commit}")).unwrap();
                git.run(&clone, &["add", "own"]);
                git.run(&clone, &["commit", "--quiet", "-m", &name]);
            }
            git.run(&clone, &["checkout", "--quiet", "-B", "main", "origin/main"]);
        }
        is_over.store(true, Relaxed);
        reader.join().unwrap();
    });
    git.run(&clone, &["gc", "--quiet", "--prune=now"]);
    for place in [&clone, &seen] {
        git.run(place, &["fsck", "--full", "--strict"]);
        git.ensure_clean(place);
    }
    ensure_same_tree(&clone, &seen).unwrap();
    fs::remove_dir_all(clone.join(".git")).unwrap();
    fs::remove_dir_all(origin.join(".git")).unwrap();
    assert_eq!(run(Command::new("diff").arg("-r").arg(&origin).arg(&seen)).unwrap(), "");
}

struct Git {
    program: std::path::PathBuf,
}

impl Git {
    /// As nobody in particular: what a person has configured is not looked at.
    fn run(&self, place: &Path, args: &[&str]) -> String {
        let mut command = Command::new(&self.program);
        command.current_dir(place).args(["-c", "safe.directory=*", "-c", "gc.auto=0"]);
        for (name, value) in [
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            // Who only looks writes nothing.
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@example.com"),
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@example.com"),
        ] {
            command.env(name, value);
        }
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            command.env_remove(name);
        }
        run(command.args(args)).unwrap()
    }

    fn ensure_clean(&self, place: &Path) {
        assert_eq!(self.run(place, &["status", "--porcelain"]), "", "{}", place.display());
    }

    /// A history of files small and large, with a branch at each commit.
    fn make(&self, origin: &Path) {
        fs::create_dir(origin).unwrap();
        self.run(origin, &["init", "--quiet", "--initial-branch=main"]);
        for commit in 1..=COMMITS {
            for file in 0..20 {
                let folder = origin.join(format!("folder{}", file % 5));
                fs::create_dir_all(&folder).unwrap();
                let lines = (0..=(commit * file * 97) % 4000).map(|line| line * (commit + file));
                let text: String = lines.map(|line| format!("{line}\n")).collect();
                fs::write(folder.join(format!("file{file}")), text).unwrap();
            }
            self.run(origin, &["add", "--all"]);
            self.run(origin, &["commit", "--quiet", "-m", &format!("commit {commit}")]);
            self.run(origin, &["branch", &format!("branch{commit}")]);
        }
    }
}
