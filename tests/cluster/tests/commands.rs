//! What a person types: each command that only looks, against a cluster that lives. What `--json` says is
//! true, what is printed for people is there and fits a terminal, and a mistake is told with the way out.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::Duration,
};

use ff2_cluster_tests::{Cluster, may_skip};
use serde_json::{Value, json};

const COLUMNS: usize = 120;
const FILE_BYTES: usize = (9 << 20) + 1;

#[test]
fn commands_say_what_is() {
    let cluster = Cluster::start().unwrap();
    let folder = cluster.mount().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), vec![7; FILE_BYTES]).unwrap();
    fs::write(folder.join("small"), b"x").unwrap();
    for (what, check) in [
        ("objects", objects as fn(&Cluster)),
        ("planned", planned),
        ("files", files),
        ("users", users),
        ("why", why),
        ("processes", processes),
        ("texts", texts),
        ("tables", tables_fit_a_terminal),
        ("mistakes", mistakes),
        ("security", security),
        ("extend", extend),
        ("create", create),
        ("restart", restart),
    ] {
        eprintln!("-- {what}");
        check(&cluster);
    }
}

/// What a command prints as JSON; it must also print something for people.
fn both(cluster: &Cluster, args: &[&str]) -> Value {
    let text = cluster.ctl(args).unwrap();
    assert!(!text.trim().is_empty(), "{args:?} prints nothing");
    cluster.json(args).unwrap()
}

fn list(cluster: &Cluster, args: &[&str], count: usize) -> Vec<Value> {
    let list = both(cluster, args).as_array().unwrap().clone();
    assert_eq!(list.len(), count, "{args:?}: {list:?}");
    list
}

/// The same object, alone: what the list says of it is said there, but for figures that move.
fn show(cluster: &Cluster, kind: &str, key: &str, entry: &Value) {
    let name = match &entry[key] {
        Value::String(name) => name.clone(),
        number => number.to_string(),
    };
    let shown = both(cluster, &[kind, "show", &name]);
    for (field, value) in entry.as_object().unwrap() {
        if !["load", "used_bytes", "disks"].contains(&field.as_str()) {
            assert_eq!(&shown[field], value, "{field} of {kind} {name}");
        }
    }
}

fn objects(cluster: &Cluster) {
    let nodes = list(cluster, &["node", "list"], 7);
    let storage = nodes.iter().filter(|node| node["role"] == "storaged");
    assert_eq!(storage.map(|node| node["disks"].as_array().unwrap().len()).sum::<usize>(), 4);
    assert!(nodes.iter().all(|node| node["state"] == "alive"), "{nodes:?}");
    nodes.iter().for_each(|node| show(cluster, "node", "id", node));

    let status = cluster.json(&["status"]).unwrap();
    let counted = |what: &str| status[what].as_array().unwrap().len();
    let chains = list(cluster, &["chain", "list"], counted("chains"));
    let targets = list(cluster, &["target", "list"], 3 * chains.len());
    assert!(targets.iter().all(|target| target["state"] == "serving"), "{targets:?}");
    show(cluster, "chain", "id", &chains[0]);
    show(cluster, "target", "id", &targets[0]);
    let tables = list(cluster, &["table", "list"], 1);
    assert_eq!(tables[0]["chains"].as_array().unwrap().len(), chains.len());
    assert_eq!(tables[0]["replicas"], 3);
    show(cluster, "table", "id", &tables[0]);
    let volumes = list(cluster, &["volume", "list"], 1);
    assert_eq!(volumes[0]["name"], "default");
    show(cluster, "volume", "name", &volumes[0]);
    let space = both(cluster, &["volume", "show", "default"]);
    assert!(space["available_bytes"].as_u64().unwrap() > 1 << 30, "{space}");

    let sessions = list(cluster, &["session", "list"], 1);
    let who = sessions[0]["description"].as_str().unwrap();
    assert!(who.contains(cluster.mount().to_str().unwrap()), "{who}");
    let groups = list(cluster, &["metad", "list"], 2);
    for group in &groups {
        let members = group["members"].as_array().unwrap();
        assert!(members.len() == 3 && members.iter().all(|m| m["voter"] == true), "{group}");
    }
    let drained = both(cluster, &["node", "drain", "101"]);
    assert_eq!(drained["draining"], true);
    assert_eq!(cluster.json(&["node", "show", "101"]).unwrap()["state"], "draining");
    assert_eq!(both(cluster, &["node", "undrain", "101"])["draining"], false);
}

fn files(cluster: &Cluster) {
    let names = list(cluster, &["fs", "ls", "/folder"], 2);
    let mut names: Vec<_> = names.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["file", "small"]);
    let stat = both(cluster, &["fs", "stat", "/folder/file"]);
    assert_eq!((&stat["size"], &stat["links"]), (&json!(FILE_BYTES), &json!(1)));
    let meta = fs::metadata(cluster.mount().join("folder/file")).unwrap();
    assert_eq!(stat["inode"], std::os::unix::fs::MetadataExt::ino(&meta));
    let layout = both(cluster, &["fs", "layout", "/folder/file"]);
    assert!(layout["chunk_size"].as_u64().unwrap() >= 1 << 16, "{layout}");
    let chains = layout["chains"].as_array().unwrap();
    assert!(!chains.is_empty(), "{layout}");
    assert!(chains.iter().all(|chain| chain["nodes"].as_array().unwrap().len() == 3), "{layout}");
    let sum = both(cluster, &["fs", "du", "/folder"]);
    let expected = json!({ "path": "/folder", "files": 2, "folders": 1, "bytes": FILE_BYTES + 1 });
    assert_eq!(sum, expected);

    let local = cluster.dir().join("copy");
    let local = local.to_str().unwrap();
    cluster.ctl(&["fs", "mkdir", "/made/deep"]).unwrap();
    fs::write(local, b"put").unwrap();
    assert_eq!(cluster.json(&["fs", "put", local, "/made/deep/f"]).unwrap()["bytes"], 3);
    fs::remove_file(local).unwrap();
    assert_eq!(cluster.json(&["fs", "get", "/folder/file", local]).unwrap()["bytes"], FILE_BYTES);
    assert!(fs::read(local).unwrap() == vec![7; FILE_BYTES]);
    assert_eq!(cluster.json(&["fs", "rm", "/made/deep/f"]).unwrap()["removed"], "/made/deep/f");
    cluster.ctl(&["fs", "rm", "/made/deep"]).unwrap();
}

fn users(cluster: &Cluster) {
    let add = ["user", "add", "ann", "--uid", "4321", "--groups", "5,6"];
    let ann = both(cluster, &add);
    assert_eq!((&ann["uid"], &ann["gid"]), (&json!(4321), &json!(4321)));
    assert_eq!(ann["groups"], json!([5, 6]));
    let file = cluster.dir().join("ann.token");
    let made =
        cluster.json(&["user", "token", "ann", "--days", "1", "--out", file.to_str().unwrap()]);
    let id = made.unwrap()["token_id"].clone();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let known = |name: &str| {
        let users = list(cluster, &["user", "list"], 2);
        users.into_iter().find(|user| user["name"] == name).unwrap()
    };
    assert_eq!(known("root")["root"], true);
    assert_eq!(known("ann")["token_ids"], json!([id]));

    // The token opens the files, and nothing that is an administrator's.
    let as_ann = |args: &[&str]| {
        let token = file.to_str().unwrap();
        cluster.ctl_output(&[args, &["--token", token]].concat()).unwrap()
    };
    assert!(as_ann(&["fs", "ls", "/folder"]).status.success());
    // Of a user that changes, tokens that are out keep what they say.
    cluster.ctl(&["user", "add", "ann", "--uid", "4321", "--root"]).unwrap();
    assert_eq!(known("ann")["token_ids"], json!([id]));
    let kept = as_ann(&["fs", "layout", "/folder/file"]);
    let said = String::from_utf8_lossy(&kept.stderr).into_owned();
    assert!(!kept.status.success() && said.contains("is for files"), "{said}");

    assert_eq!(both(cluster, &["user", "revoke", &id.to_string()])["revoked"], id);
    assert_eq!(known("ann")["token_ids"], json!([]));
    let begun = std::time::Instant::now();
    while as_ann(&["fs", "ls", "/folder"]).status.success() {
        assert!(begun.elapsed() < Duration::from_secs(5), "the token still opens the files");
    }
    let refused = String::from_utf8_lossy(&as_ann(&["fs", "ls", "/folder"]).stderr).into_owned();
    assert!(refused.contains("was revoked"), "{refused}");
    a_token_for_a_folder(cluster);
}

/// Nothing outside of the folder exists for it, though its user is root.
fn a_token_for_a_folder(cluster: &Cluster) {
    let file = cluster.dir().join("folder.token");
    let out = ["--subtree", "/folder", "--out", file.to_str().unwrap()];
    cluster.ctl(&[&["user", "token", "ann"], &out[..]].concat()).unwrap();
    let with_it = |args: &[&str]| {
        let token = file.to_str().unwrap();
        let output = cluster.ctl_output(&[args, &["--token", token, "--json"]].concat()).unwrap();
        output.status.success().then(|| serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    for path in ["/", "/..", "/../.."] {
        let listed = with_it(&["fs", "ls", path]).unwrap();
        let names: Vec<_> = listed.as_array().unwrap().iter().map(|e| &e["name"]).collect();
        assert_eq!(names.len(), 2, "{path}: {names:?}");
    }
    assert_eq!(with_it(&["fs", "stat", "/file"]).unwrap()["size"], json!(FILE_BYTES));
    assert!(with_it(&["fs", "stat", "/folder/file"]).is_none());
    let open_to_all = fs::Permissions::from_mode(0o777);
    fs::set_permissions(cluster.mount().join("folder"), open_to_all).unwrap();
    assert!(with_it(&["fs", "mkdir", "/inner"]).is_some());
    cluster.ctl(&["fs", "rm", "/folder/inner"]).unwrap();
    assert!(
        with_it(&["fs", "layout", "/file"]).is_none(),
        "which asks an administrator's question"
    );
    let wrong = ["user", "token", "ann", "--subtree", "/folder/file"];
    assert!(!cluster.ctl_output(&wrong).unwrap().status.success());
}

fn why(cluster: &Cluster) {
    let target = cluster.json(&["target", "list"]).unwrap()[0]["id"].to_string();
    let path = cluster.mount().join("folder/file");
    for what in [&target[..], path.to_str().unwrap(), "/folder/file"] {
        let told = both(cluster, &["why", what]);
        assert_eq!(told["of"], what);
        let reasons = told["reasons"].as_array().unwrap();
        assert!(!reasons.is_empty(), "{told}");
    }
    let told = cluster.json(&["why", "/folder/file"]).unwrap()["reasons"].to_string();
    assert!(told.contains(&format!("{FILE_BYTES} bytes")), "{told}");
    assert!(told.contains("nothing keeps it"), "{told}");
}

fn processes(cluster: &Cluster) {
    let processes = list(cluster, &["ps"], 8);
    assert!(processes.iter().all(|process| process["state"] == "running"), "{processes:?}");
    for name in ["metad/0", "storaged/0", "fuse/0"] {
        for page in ["dump", "status", "config", "inflight"] {
            let value = both(cluster, &["admin", page, name]);
            assert!(value.is_object() || value.is_array(), "{page} of {name}: {value}");
        }
        assert_eq!(cluster.json(&["admin", "status", name]).unwrap()["ready"], true);
        let metrics = cluster.ctl(&["admin", "metrics", name]).unwrap();
        assert!(metrics.contains("# HELP ff2_"), "{metrics}");
    }
}

fn texts(cluster: &Cluster) {
    for shell in ["bash", "zsh", "fish"] {
        let script = cluster.ctl(&["completion", shell]).unwrap();
        assert!(script.contains("ff2ctl") && script.contains("umount"), "{script}");
    }
    for daemon in ["metad", "storaged", "mount"] {
        let sample = cluster.ctl(&["config", "sample", daemon]).unwrap();
        assert!(sample.contains("cluster_id = "), "{sample}");
        assert_eq!(cluster.json(&["config", "sample", daemon]).unwrap()["toml"], sample);
    }
    assert!(cluster.ctl(&["status"]).unwrap().contains(": healthy"));
    assert!(cluster.ctl(&["help"]).unwrap().contains("demo"));
}

fn tables_fit_a_terminal(cluster: &Cluster) {
    let target = cluster.json(&["target", "list"]).unwrap()[0]["id"].to_string();
    for command in [
        "status",
        "ps",
        "node list",
        "node show 101",
        "target list",
        "chain list",
        "table list",
        "volume list",
        "session list",
        "metad list",
        "user list",
        "fs ls /folder",
        "table show 1",
        "chain show 1",
        "fs layout /folder/file",
    ] {
        on_terminal(cluster, command);
    }
    on_terminal(cluster, &format!("target show {target}"));
}

/// Runs a command on a terminal of its own, so wide.
fn on_terminal(cluster: &Cluster, command: &str) {
    let (program, dir) = (cluster.program("ff2ctl"), cluster.dir());
    let line = format!(
        "stty cols {COLUMNS} rows 50; exec '{}' --dir '{}' {command}",
        program.display(),
        dir.display()
    );
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("SHELL", "/bin/sh").stdin(Stdio::null());
    let output = match script.output() {
        Ok(output) => output,
        Err(error) => {
            let missing = format!("script does not start: {error}");
            return assert!(may_skip(&missing), "{missing}; FF2_TEST_ALLOW_SKIP=script");
        }
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.lines().count() > 1, "{command}: {text}");
    for line in text.lines() {
        let columns = line.trim_end().chars().count();
        assert!(columns <= COLUMNS, "{command} prints {columns} columns: {line}");
    }
}

fn mistakes(cluster: &Cluster) {
    for (line, advice) in [
        ("restart storaged/9", "it has metad/0"),
        ("kill storage/0", "storaged/2"),
        ("why 999999", "there is no target 999999"),
        ("why /folder/missing", "NOT_FOUND"),
        ("fs ls /missing", "/missing"),
        ("fs stat /folder/missing", "/folder/missing"),
        ("fs layout /folder", "has no layout"),
        ("fs du /missing", "/missing"),
        ("fs ls", "<PATH>"),
        ("node show 99", "ff2ctl node list"),
        ("target show 999999", "ff2ctl target list"),
        ("chain show 999999", "ff2ctl chain list"),
        ("table show 99", "ff2ctl table list"),
        ("volume show missing", "ff2ctl volume list"),
        ("volume create second", "each namespace group holds one volume"),
        ("chain revive 1 --from 1", "--accept-data-loss"),
        ("chain revive 1 --from 1 --accept-data-loss", "there is nothing to revive"),
        ("chain revive 999999 --from 1 --accept-data-loss", "there is no chain 999999"),
        ("table extend 99", "there is no chain table 99"),
        ("table extend 1", "add disks or nodes first"),
        ("table create --replicas 7", "add nodes, or ask for fewer replicas"),
        ("user add bob", "--uid"),
        ("user token nobody", "ff2ctl user add nobody"),
        ("user revoke 999999", "was never issued"),
        ("session lst", "list"),
        ("metad add 9 --wait 0", "ff2-metad"),
        ("target replace 999999 --disk 0", "there is no target 999999"),
        ("admin dump storaged/9", "it has metad/0"),
        ("completion tcsh", "bash"),
        ("config sample nothing", "storaged"),
        ("mount /proc", "type proc"),
        ("umount /nowhere", "no mount of this cluster"),
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let output = cluster.ctl_output(&args).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let code = output.status.code();
        assert!(matches!(code, Some(1 | 2)), "{line} ends with {code:?}: {said}");
        assert!(said.contains(advice), "{line} does not name {advice}: {said}");
        assert!(output.stdout.is_empty(), "{line} prints to its output");
        // What the command line itself forbids is told by the parser, as text.
        if code == Some(1) {
            let output = cluster.ctl_output(&[&args[..], &["--json"]].concat()).unwrap();
            let said: Value = serde_json::from_slice(&output.stderr).unwrap();
            assert!(said["error"].as_str().unwrap().contains(advice), "{line}: {said}");
        }
    }
    let unknown = cluster.ctl_output(&["stauts"]).unwrap();
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("status"));
}

/// Keys and certificates of a cluster on real hosts: for their owner's eyes only, and never made over.
fn security(cluster: &Cluster) {
    let folder = cluster.dir().join("keys");
    let place = folder.to_str().unwrap();
    cluster.ctl(&["security", "init", place]).unwrap();
    let made = cluster.json(&["security", "certificate", place, "host-1", "10.0.0.1"]).unwrap();
    for file in ["certificate", "key"] {
        assert!(fs::metadata(made[file].as_str().unwrap()).unwrap().len() > 0, "{made}");
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        let is_public = entry.path().extension().is_some_and(|kind| kind == "pem");
        let mode = entry.metadata().unwrap().permissions().mode();
        assert!(is_public || mode & 0o077 == 0, "{:?} has mode {mode:o}", entry.path());
    }
    let again = cluster.ctl_output(&["security", "init", place]).unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists already"));
    fs::remove_dir_all(&folder).unwrap();
}

/// The nodes of each chain of a table, sorted.
fn nodes_of_chains(cluster: &Cluster, table: &str) -> Vec<Vec<u64>> {
    let chains = cluster.json(&["chain", "list"]).unwrap();
    let of_table = cluster.json(&["table", "show", table]).unwrap()["chains"].clone();
    let nodes = |id: &Value| {
        let chain = chains.as_array().unwrap().iter().find(|chain| chain["id"] == *id).unwrap();
        let members = chain["members"].as_array().unwrap();
        let mut nodes: Vec<u64> = members.iter().map(|m| m["node"].as_u64().unwrap()).collect();
        nodes.sort_unstable();
        nodes
    };
    of_table.as_array().unwrap().iter().map(nodes).collect()
}

/// The table that the cluster began with is the one that is planned for such nodes.
fn planned(cluster: &Cluster) {
    let nodes = cluster.json(&["node", "list"]).unwrap();
    let disks = |node: &Value| node["disks"].as_array().map_or(0, Vec::len);
    let storage: Vec<&Value> = nodes.as_array().unwrap().iter().filter(|n| disks(n) > 0).collect();
    let (count, each) = (storage.len().to_string(), disks(storage[0]).to_string());
    let plan = cluster.json(&["table", "plan", "--nodes", &count, "--disks", &each]).unwrap();
    // Nodes are planned for by number from 1.
    let mut ids: Vec<u64> = storage.iter().map(|node| node["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    let named = |chain: &Value| {
        let members =
            chain.as_array().unwrap().iter().map(|at| ids[at.as_u64().unwrap() as usize - 1]);
        let mut members: Vec<u64> = members.collect();
        members.sort_unstable();
        members
    };
    let expected: Vec<Vec<u64>> = plan["chains"].as_array().unwrap().iter().map(named).collect();
    assert_eq!(nodes_of_chains(cluster, "1"), expected);
}

/// What it says of its pairs is so.
fn create(cluster: &Cluster) {
    let made = cluster.json(&["table", "create", "--chains", "10"]).unwrap();
    cluster.wait_healthy(Duration::from_secs(60)).unwrap();
    let chains = nodes_of_chains(cluster, &made["table"].to_string());
    assert_eq!((chains.len(), &made["chains_at_one_leaf"]), (10, &json!(0)));
    let mut pairs = std::collections::BTreeMap::new();
    for chain in &chains {
        for (at, a) in chain.iter().enumerate() {
            chain[at + 1..].iter().for_each(|b| *pairs.entry((*a, *b)).or_insert(0_u64) += 1);
        }
    }
    assert_eq!(made["worst_pair"].as_u64(), pairs.values().max().copied(), "{made} {pairs:?}");
    let ideal = made["ideal_pair"].as_f64().unwrap();
    assert!(
        made["least_pair"].as_f64().unwrap() <= ideal
            && ideal <= made["worst_pair"].as_f64().unwrap()
    );
}

/// What is there stays on its chains; what comes uses the new ones too.
fn extend(cluster: &Cluster) {
    let before = both(cluster, &["table", "show", "1"]);
    let extended = cluster.json(&["table", "extend", "1", "--chains", "3"]).unwrap();
    assert_eq!(extended, json!({ "table": 1, "version": 2, "chains": 3 }));
    cluster.wait_healthy(Duration::from_secs(60)).unwrap();
    let chains = |table: &Value| table["chains"].as_array().unwrap().clone();
    let after = both(cluster, &["table", "show", "1"]);
    let (old, new) = (chains(&before), chains(&after));
    assert_eq!((new.len(), &new[..old.len()]), (old.len() + 3, &old[..]));
    let uses_new = |name: &str| {
        fs::write(cluster.mount().join(name), vec![3; FILE_BYTES]).unwrap();
        let layout = both(cluster, &["fs", "layout", &format!("/{name}")]);
        assert_eq!(layout["table_version"], 2);
        chains(&layout).iter().any(|chain| new[old.len()..].contains(&chain["chain"]))
    };
    // Each takes some of the chains by chance.
    assert!((0..40).any(|number| uses_new(&format!("new-{number}"))));
    assert_eq!(both(cluster, &["fs", "layout", "/folder/file"])["table_version"], 1);
}

fn restart(cluster: &Cluster) {
    for name in ["storaged/0", "metad/1", "fuse/0"] {
        let pid = |list: Vec<Value>| {
            let is = |p: &Value| format!("{}/{}", p["role"].as_str().unwrap(), p["index"]) == name;
            list.into_iter().find(is).unwrap()["pid"].as_u64().unwrap()
        };
        let before = pid(cluster.processes().unwrap());
        assert_eq!(cluster.json(&["restart", name]).unwrap()["restarted"], name);
        assert_ne!(pid(cluster.processes().unwrap()), before, "{name}");
        cluster.wait_healthy(Duration::from_secs(60)).unwrap();
    }
    assert!(cluster.ctl(&["restart", "storaged/0"]).unwrap().contains("restarted storaged/0"));
    cluster.wait_healthy(Duration::from_secs(60)).unwrap();
    let file = cluster.mount().join("folder/file");
    assert!(fs::read(file).unwrap() == vec![7; FILE_BYTES]);
}
