//! SQLite: several processes on one database, of which one is killed; a storage server dies; two mounts.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::Duration,
};

use ff2_cluster_tests::{
    Cluster,
    suite::{program, rounds, run},
};

const SECONDS: u64 = 5;
const WORKERS: u64 = 4;

#[test]
fn transactions_are_whole_and_those_told_are_there() {
    let Some(python) = program("python3") else { return };
    let cluster = Cluster::start().unwrap();
    let (here, there) = (cluster.mount(), cluster.mount_beside("beside").unwrap());
    let beside = tempfile::tempdir().unwrap();
    for round in 0..rounds() {
        // What a log in shared memory says is for one host alone: two mounts need the other mode.
        for (number, (mode, mounts, victim)) in
            [("wal", [&here, &here], "storaged/1"), ("delete", [&here, &there], "storaged/2")]
                .into_iter()
                .enumerate()
        {
            let name = format!("{mode}-{round}-{number}.db");
            let bank = Bank { python: &python, told: beside.path().join("told"), name };
            fs::write(&bank.told, "").unwrap();
            bank.trade(mode, mounts, || drop(cluster.ctl(&["kill", victim]).unwrap()));
            bank.check(mounts);
            fs::remove_file(mounts[0].join(&bank.name)).unwrap();
            cluster.up().unwrap();
            cluster.wait_healthy(Duration::from_secs(90)).unwrap();
        }
    }
}

struct Bank<'a> {
    python: &'a Path,
    /// What the workers were told to be done.
    told: PathBuf,
    name: String,
}

impl Bank<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(self.python);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suites");
        command.arg(folder.join("bank.py"));
        command
    }

    fn start(&self, mount: &Path, worker: u64) -> Child {
        let told = File::options().append(true).open(&self.told).unwrap();
        let mut command = self.command();
        command.arg("work").arg(mount.join(&self.name));
        command.args([worker.to_string(), SECONDS.to_string()]).stdout(told).spawn().unwrap()
    }

    /// Lets the workers work on mounts in turn; in the middle one is killed, and something else happens.
    fn trade(&self, mode: &str, mounts: [&PathBuf; 2], happens: impl FnOnce()) {
        run(self.command().args(["make", mode]).arg(mounts[0].join(&self.name))).unwrap();
        let of = |worker: u64| mounts[worker as usize % 2];
        let mut workers: Vec<Child> =
            (0..WORKERS).map(|worker| self.start(of(worker), worker)).collect();
        thread::sleep(Duration::from_secs(SECONDS / 2));
        let mut killed = workers.remove(0);
        killed.kill().unwrap();
        killed.wait().unwrap();
        happens();
        workers.push(self.start(of(WORKERS), WORKERS));
        for mut worker in workers {
            assert!(worker.wait().unwrap().success(), "{mode}: a worker failed");
        }
    }

    fn check(&self, mounts: [&PathBuf; 2]) {
        let told = fs::read_to_string(&self.told).unwrap();
        let told: BTreeSet<&str> = told.lines().collect();
        for mount in mounts {
            let found = run(self.command().arg("check").arg(mount.join(&self.name))).unwrap();
            let found: BTreeSet<&str> = found.lines().collect();
            let lost: Vec<_> = told.difference(&found).collect();
            assert!(lost.is_empty(), "{}: {lost:?}", mount.display());
            assert!(!told.is_empty());
            eprintln!("{}: {} transactions, {} told", self.name, found.len(), told.len());
        }
    }
}
