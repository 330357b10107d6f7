//! `ff2ctl serve --sched`: from a host that knows the scheduler's address, an authority and a token, and has no folder
//! of the cluster.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use ff2_cluster_tests::{Cluster, is_root};
use serde_json::{Value, json};

use super::{
    service::{SHAPE, write_model},
    wait_for,
};

/// Such a host.
struct Host<'a> {
    cluster: &'a Cluster,
    /// Where it keeps what it was given; a folder of a cluster it has not.
    folder: tempfile::TempDir,
    sched: String,
}

impl<'a> Host<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ca.pem", "root.token"] {
            fs::copy(cluster.dir().join("security").join(name), folder.path().join(name)).unwrap();
        }
        let processes = cluster.processes().unwrap();
        let scheds = processes.iter().filter(|process| process["role"] == "schedd");
        let sched: Vec<_> =
            scheds.map(|it| it["addresses"]["admin"].as_str().unwrap().to_owned()).collect();
        Self { cluster, folder, sched: sched.join(",") }
    }

    fn given(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `ff2ctl`, without a token.
    fn command(&self) -> Command {
        let mut command = Command::new(self.cluster.program("ff2ctl"));
        command.arg("--dir").arg(self.given("none")).args(["--sched", &self.sched, "--json"]);
        command.arg("--ca").arg(self.given("ca.pem"));
        command
    }

    fn json(&self, words: &[&str]) -> Value {
        let token = self.given("root.token");
        let ran = self.command().arg("--token").arg(token).args(words).output().unwrap();
        assert!(ran.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ran.stderr));
        serde_json::from_slice(&ran.stdout).unwrap()
    }
}

#[test]
fn a_service_is_started_updated_and_ended_by_the_schedulers_address() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::start_with(&SHAPE).unwrap();
    let model = write_model(&cluster);
    let host = Host::new(&cluster);
    let serve = ["serve", &model, "--port", "0", "--run-options", "--kv-mib 16 --threads 1"];
    let refused = host.command().args(serve).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("--token names another"), "{told}");

    let start = |more: &[&str]| host.json(&[&serve[..], more, &["--", "-G", "1"]].concat());
    let made = start(&["--routers", "1"]);
    let first = made["job"].as_u64().unwrap();
    let service = || host.json(&["serve", "list"])["services"].clone();
    assert_eq!(service()[0]["report"]["ready"], json!({first.to_string(): 1}));
    let folder = PathBuf::from(made["folder"].as_str().unwrap());
    let mode = fs::metadata(folder.join("scheduler-token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else reads the token");

    // The router tells the scheduler by what lies in the service's folder: this host's own files may be gone.
    let next = start(&["--update"])["job"].as_u64().unwrap();
    let scheduler = service()[0]["plan"]["scheduler"].clone();
    let words: Vec<&str> = scheduler.as_array().unwrap().iter().flat_map(Value::as_str).collect();
    assert!(words.contains(&host.sched.as_str()), "{words:?}");
    assert!(!words.iter().any(|word| word.starts_with(host.folder.path().to_str().unwrap())));
    let state = |job: u64| host.json(&["job", "show", &job.to_string()])["state"].clone();
    wait_for("the router ended the old one", || state(first) == "cancelled");
    assert_eq!(service()[0]["report"]["ready"], json!({next.to_string(): 1}));

    let name = made["name"].as_str().unwrap();
    host.json(&["serve", "stop", name]);
    wait_for("all has ended", || state(next) == "cancelled");
    assert_eq!(service(), json!([]));
}
