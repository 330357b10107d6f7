//! Jobs on a cluster with agents: what people do with them, and what may fail meanwhile.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ff2_cluster_tests::{Cluster, SMALLEST, image::Image, is_root, may_skip, throttle::Throttle};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longer than a node's lease and the margin behind it, an election, and a start.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(agents: &str) -> Cluster {
    let shape = [&SMALLEST[..], &["--agents", agents, "--fake-gpus", "8"]].concat();
    Cluster::start_with(&shape).unwrap()
}

fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/train.py");
    path.canonicalize().unwrap().display().to_string()
}

fn submit(cluster: &Cluster, words: &[&str]) -> u64 {
    let line = [&["job", "submit"], words].concat();
    // `--json` would be taken for a word of the job.
    let told = cluster.ctl(&line).unwrap();
    told.trim().strip_prefix("job ").unwrap_or_else(|| panic!("{told}")).parse().unwrap()
}

fn show(cluster: &Cluster, job: u64) -> Value {
    cluster.json(&["job", "show", &job.to_string()]).unwrap()
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn wait_state(cluster: &Cluster, job: u64, state: &str) -> Value {
    let mut last = Value::Null;
    wait_for(&format!("job {job} {state}"), || {
        last = show(cluster, job);
        let is = last["state"].as_str().unwrap();
        let over = last["ended_ms"].is_u64();
        assert!(!over || is == state, "job {job} is {is}: {last}");
        is == state
    });
    last
}

fn log(cluster: &Cluster, job: u64, rank: u32) -> PathBuf {
    cluster.mount().join(format!("jobs/{job}/logs/rank-{rank}.log"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What the environment of all processes of a job has, and that of no other cluster's.
fn mark_of(cluster: &Cluster, job: u64) -> String {
    format!("FF2_STATE={}", cluster.mount().join(format!("jobs/{job}/state")).display())
}

/// All whose environment has this.
fn marked(mark: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        })
        .collect()
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// The keepers of a job's runs, by the folder that their ranks are told.
fn keepers(cluster: &Cluster, job: u64) -> Vec<i32> {
    let below = cluster.dir().display().to_string();
    let pids = fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let is_keeper = words.get(1) == Some(&&b"--keep"[..]);
            let folder = words.get(2).map(|word| String::from_utf8_lossy(word)).unwrap_or_default();
            is_keeper && folder.starts_with(&below) && folder.contains(&format!("/runs/{job}-"))
        })
        .collect()
}

/// A job of two nodes is suspended for a more important one, and comes to the same end as if it had not been.
#[test]
fn a_job_makes_room_and_goes_on_where_it_was() {
    let cluster = start("2");
    let script = cluster.mount().join("train.sh");
    fs::write(
        &script,
        format!(
            "#!/bin/bash\n#SBATCH -J train -N 2 --gpus-per-node=8 --time=10\nexport STEPS=1500\nexec python3 {}\n",
            example()
        ),
    )
    .unwrap();
    let low = submit(&cluster, &[script.to_str().unwrap()]);
    wait_for("the first step", || read(&log(&cluster, low, 1)).contains("starts at step 0"));
    let running = show(&cluster, low);
    assert_eq!(running["nodes"].as_array().unwrap().len(), 2);
    let high = submit(&cluster, &["--priority=high", "-G", "8", "-t", "1", "--", "sleep", "1"]);
    wait_state(&cluster, high, "succeeded");
    let done = wait_state(&cluster, low, "succeeded");
    assert!(done["attempt"].as_u64().unwrap() >= 2 && done["preemptions"].as_u64().unwrap() >= 1);
    let text = read(&log(&cluster, low, 0));
    assert!(text.contains("attempt 2") && !text.contains("step 0, attempt 2"), "{text}");
    assert!(text.contains("rank 0 is done: y = 3.000000 x + 1.000000"), "{text}");
    let first = &done["runs"].as_array().unwrap()[1];
    assert_eq!(first["end"], format!("made room for job {high}"), "{done}");
    // What it asked for is told in a form that can be handed in again.
    let yaml = cluster.ctl(&["job", "show", "--yaml", &low.to_string()]).unwrap();
    let again = cluster.mount().join("again.yaml");
    fs::write(&again, &yaml).unwrap();
    let twin = submit(&cluster, &[again.to_str().unwrap()]);
    assert_eq!(cluster.ctl(&["job", "show", "--yaml", &twin.to_string()]).unwrap(), yaml);
    cluster.ctl(&["job", "cancel", &twin.to_string()]).unwrap();
    wait_state(&cluster, twin, "cancelled");
}

/// A job writes who it is, again and again.
const TICKS: &str =
    "while :; do echo \"$FF2_ATTEMPT $(date +%s%N)\" >> $FF2_CHECKPOINT/ticks; sleep 0.05; done";

/// Of each attempt, when it wrote first and last.
fn spans(ticks: &str) -> Vec<(u64, u64, u64)> {
    let mut spans: Vec<(u64, u64, u64)> = Vec::new();
    for line in ticks.lines() {
        let Some((attempt, at)) = line.split_once(' ') else { continue };
        let (attempt, at) = (attempt.parse().unwrap(), at.parse().unwrap());
        match spans.iter_mut().find(|span| span.0 == attempt) {
            Some(span) => span.2 = span.2.max(at),
            None => spans.push((attempt, at, at)),
        }
    }
    spans
}

/// The agent's process dies and stays away: its run ends before it is started elsewhere, and not a moment later both
/// would run.
#[test]
fn a_job_moves_when_its_node_is_lost_and_never_runs_twice() {
    let cluster = start("2");
    let job = submit(&cluster, &["-G", "8", "--", "bash", "-c", TICKS]);
    let ticks = cluster.mount().join(format!("jobs/{job}/checkpoint/ticks"));
    wait_for("ticks", || read(&ticks).lines().count() > 10);
    let node = show(&cluster, job)["nodes"][0].as_str().unwrap().to_owned();
    let index = node.strip_prefix("node-").unwrap();
    cluster.signal(&format!("agentd/{index}"), Signal::KILL).unwrap();
    wait_for("another attempt", || {
        read(&ticks).lines().last().is_some_and(|l| l.starts_with("2 "))
    });
    let moved = show(&cluster, job);
    assert_ne!(moved["nodes"][0], node.as_str());
    let nodes = cluster.json(&["node", "list"]).unwrap();
    let lost = nodes.as_array().unwrap().iter().find(|of| of["name"] == node.as_str()).unwrap();
    assert_eq!(lost["state"], "down");
    assert!(lost["why"].as_str().unwrap().contains("silent"), "{lost}");
    // When the agent is back, so is its node.
    cluster.up().unwrap();
    wait_for("the node", || {
        let nodes = cluster.json(&["node", "list"]).unwrap();
        nodes
            .as_array()
            .unwrap()
            .iter()
            .any(|of| of["name"] == node.as_str() && of["state"] == "up")
    });
    cluster.ctl(&["job", "cancel", &job.to_string()]).unwrap();
    wait_state(&cluster, job, "cancelled");
    let spans = spans(&read(&ticks));
    assert_eq!(spans.len(), 2, "{spans:?}");
    assert!(spans[0].2 < spans[1].1, "two attempts wrote at the same time: {spans:?}");
}

/// The agent and the leader of the scheduler are killed: nothing happens to what runs, and submissions go on.
#[test]
fn what_runs_outlives_its_agent_and_the_leader() {
    let cluster = start("2");
    let job = submit(&cluster, &["-N", "2", "--gpus-per-node=4", "--", "bash", "-c", TICKS]);
    let ticks = cluster.mount().join(format!("jobs/{job}/checkpoint/ticks"));
    wait_for("ticks", || read(&ticks).lines().count() > 10);
    let mark = mark_of(&cluster, job);
    let before = marked(&mark);
    assert!(before.len() >= 2, "{before:?}");
    for agent in ["agentd/0", "agentd/1"] {
        cluster.signal(agent, Signal::KILL).unwrap();
    }
    cluster.up().unwrap();
    let leader = |cluster: &Cluster| {
        (0..3).find(|index| {
            let dump = cluster.json(&["admin", "dump", &format!("schedd/{index}")]).unwrap();
            let group = &dump["status"]["group"];
            group["leader"] == index + 1
        })
    };
    let first = leader(&cluster).expect("somebody leads");
    cluster.signal(&format!("schedd/{first}"), Signal::KILL).unwrap();
    let other = submit(&cluster, &["-G", "2", "-t", "1", "--", "true"]);
    wait_state(&cluster, other, "succeeded");
    let still = show(&cluster, job);
    assert_eq!((still["state"].as_str(), still["attempt"].as_u64()), (Some("running"), Some(1)));
    let longest = Duration::from_secs(20);
    std::thread::sleep(longest);
    let now = show(&cluster, job);
    assert_eq!((now["state"].as_str(), now["attempt"].as_u64()), (Some("running"), Some(1)));
    // The shells are the same ones.
    let after = marked(&mark);
    assert!(before.iter().filter(|pid| after.contains(pid)).count() >= 2, "{before:?} {after:?}");
    cluster.up().unwrap();
    cluster.ctl(&["job", "cancel", &job.to_string()]).unwrap();
    wait_state(&cluster, job, "cancelled");
    assert_eq!(marked(&mark), [0; 0]);
}

/// Daemons of a job that left its process group and session, and that ignore signals, are gone after it.
#[test]
fn nothing_is_left_of_a_job_whatever_it_did() {
    let cluster = start("1");
    let script = "trap '' TERM USR1; (setsid bash -c 'trap \"\" TERM; while :; do sleep 1; done' &); \
                  (nohup setsid sleep 1000 >/dev/null 2>&1 &); echo up; while :; do sleep 0.1; done";
    let words = ["-G", "1", "--signal=USR1", "--grace=5", "--requeue", "--", "bash", "-c", script];
    let job = submit(&cluster, &words);
    let mark = mark_of(&cluster, job);
    wait_for("the job's words", || read(&log(&cluster, job, 0)).contains("up"));
    assert!(marked(&mark).len() >= 3, "{:?}", marked(&mark));

    // It ignores the request to make room: after its grace it is ended.
    let began = Instant::now();
    cluster.ctl(&["job", "suspend", &job.to_string()]).unwrap();
    wait_state(&cluster, job, "held");
    assert!(began.elapsed() >= Duration::from_secs(5), "it had its grace");
    assert_eq!(marked(&mark), [0; 0]);
    let why = cluster.json(&["job", "why", &job.to_string()]).unwrap();
    assert!(why["why"].as_str().unwrap().contains("job resume"), "{why}");
    cluster.ctl(&["job", "resume", &job.to_string()]).unwrap();
    wait_for("a second attempt", || marked(&mark).len() >= 3);

    // Its keeper is killed, as with all of a node's process groups: that is no failure of the job.
    for keeper in keepers(&cluster, job) {
        kill(keeper);
    }
    wait_for("a third attempt", || {
        let shown = show(&cluster, job);
        shown["attempt"] == 3 && shown["state"] == "running"
    });
    let end = show(&cluster, job)["runs"][1]["end"].as_str().unwrap().to_owned();
    assert!(end.contains("cut off") && end.contains("keeper"), "{end}");

    // One of its ranks is killed: that is. It said that it may be started again.
    wait_for("the third attempt's processes", || marked(&mark).len() >= 3);
    let rank = marked(&mark).into_iter().min().unwrap();
    kill(rank);
    wait_for("a fourth attempt", || show(&cluster, job)["attempt"] == 4);
    let end = show(&cluster, job)["runs"][1]["end"].as_str().unwrap().to_owned();
    assert!(end.contains("failed") && end.contains("rank 0 was ended by signal 9"), "{end}");

    cluster.ctl(&["job", "cancel", &job.to_string()]).unwrap();
    wait_state(&cluster, job, "cancelled");
    assert_eq!(marked(&mark), [0; 0]);

    // One that says nothing has failed with its rank.
    let other = submit(&cluster, &["-G", "1", "--", "bash", "-c", "exit 3"]);
    let failed = wait_state(&cluster, other, "failed");
    assert!(failed["why"].as_str().unwrap().contains("rank 0 ended with 3"), "{failed}");
}

/// A log that cannot be written stops no job.
#[test]
fn a_full_disk_for_logs_stops_no_job() {
    let cluster = start("1");
    cluster.ctl(&["quota", "set", "/jobs", "--bytes", "1MiB"]).unwrap();
    let script = "head -c 3000000 /dev/zero | tr '\\0' 'x'; echo; echo end";
    let job = submit(&cluster, &["-G", "1", "--", "bash", "-c", script]);
    wait_state(&cluster, job, "succeeded");
    let size = fs::metadata(log(&cluster, job, 0)).unwrap().len();
    assert!(size <= 1 << 20, "{size} bytes");
    // The next one runs as well, and can write again when there is room.
    cluster.ctl(&["quota", "remove", "/jobs"]).unwrap();
    let next = submit(&cluster, &["-G", "1", "--", "echo", "room"]);
    wait_state(&cluster, next, "succeeded");
    assert_eq!(read(&log(&cluster, next, 0)), "room\n");
}

/// Jobs are their submitter's: who runs them, who may end them.
#[test]
fn a_job_is_its_submitters() {
    let cluster = start("1");
    let tokens = tempfile::tempdir().unwrap();
    let token = |name: &str, role: &str| {
        let path = tokens.path().join(format!("{name}-{role}"));
        let path = path.display().to_string();
        cluster.ctl(&["user", "token", name, "--role", role, "--out", &path]).unwrap();
        path
    };
    for (name, uid) in [("ann", "4242"), ("bob", "4243")] {
        cluster.ctl(&["user", "add", name, "--uid", uid]).unwrap();
    }
    let (ann, bob) = (token("ann", "user"), token("bob", "user"));
    let operator = token("bob", "operator");
    let as_who = |token: &str, words: &[&str]| {
        cluster.ctl_output(&[&["--token", token], words].concat()).unwrap()
    };
    let script = "id -u; id -G; pwd; sleep 100";
    let words =
        ["job", "submit", "-D", "/", "-G", "1", "--export=NONE", "--", "bash", "-c", script];
    let told = as_who(&ann, &words);
    let told = String::from_utf8(told.stdout).unwrap();
    let job: u64 = told.trim().strip_prefix("job ").unwrap().parse().unwrap();
    wait_for("its words", || read(&log(&cluster, job, 0)).lines().count() >= 3);
    assert_eq!(read(&log(&cluster, job, 0)), "4242\n4242\n/\n");
    let shown = show(&cluster, job);
    assert_eq!((shown["user"].as_str(), shown["group"].as_str()), (Some("ann"), Some("ann")));
    let folder = fs::metadata(cluster.mount().join(format!("jobs/{job}"))).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&folder), 4_242);

    let number = job.to_string();
    let refused = as_who(&bob, &["job", "cancel", &number]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("ann's"), "{why}");
    let refused = as_who(&operator, &words);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("opens no files"), "{why}");
    let refused = as_who(&ann, &["queue", "set", "normal", "--gpus", "1"]);
    assert!(!refused.status.success(), "who runs jobs changes no limits");
    let refused = as_who(&ann, &["job", "submit", "--priority=extreme", "-G", "1", "--", "true"]);
    assert!(!refused.status.success(), "extreme is for operators");

    // An operator ends everybody's; and a limit says why a job waits.
    assert!(as_who(&operator, &["quota", "gpus", "1", "--user", "ann"]).status.success());
    let told = as_who(&ann, &["job", "submit", "-G", "1", "--", "true"]);
    let next: u64 = String::from_utf8(told.stdout).unwrap().trim()["job ".len()..].parse().unwrap();
    let why = cluster.json(&["job", "why", &next.to_string()]).unwrap();
    assert!(why["why"].as_str().unwrap().starts_with("quota: user ann"), "{why}");
    assert!(as_who(&operator, &["job", "cancel", &number]).status.success());
    wait_state(&cluster, job, "cancelled");
    wait_state(&cluster, next, "succeeded");
    // A token that was revoked is refused here too.
    let id = cluster.json(&["user", "list"]).unwrap();
    let ids = id.as_array().unwrap().iter().find(|user| user["name"] == "ann").unwrap();
    for id in ids["tokens"].as_array().or(ids["token_ids"].as_array()).unwrap() {
        cluster.ctl(&["user", "revoke", &id.to_string()]).unwrap();
    }
    wait_for("the revocation", || !as_who(&ann, &["job", "list"]).status.success());
}

/// A node whose disk has become slow says so, and gets no jobs until somebody resumes it. Jobs hear of their slots.
#[test]
fn a_node_that_fails_when_it_looks_at_itself_gets_no_jobs() {
    if !is_root() {
        return;
    }
    if !Throttle::is_possible() {
        assert!(may_skip("blkio throttle"), "there is no /sys/fs/cgroup/blkio");
        return;
    }
    let cluster = start("2");
    let node = |name: &str| {
        let nodes = cluster.json(&["node", "list"]).unwrap();
        nodes.as_array().unwrap().iter().find(|of| of["name"] == name).unwrap().clone()
    };
    let report = cluster.json(&["node", "validate", "node-1"]).unwrap();
    let checks = report["checks"].as_array().unwrap();
    for part in ["cpu.rate", "memory.bandwidth", "disk.write", "fs.read", "network.receive"] {
        let check = checks.iter().find(|check| check["name"] == part).unwrap();
        assert!(check["figure"].as_f64().unwrap() > 0.0, "{check}");
    }
    assert_eq!(node("node-1")["state"], "up", "{report}");

    // The disk of the other one is not what it was.
    cluster.ctl(&["kill", "agentd/0"]).unwrap();
    let own = cluster.dir().join("agentd-0/data");
    fs::remove_dir_all(&own).unwrap();
    let disk = Image::make_at(&own).unwrap();
    cluster.up().unwrap();
    let throttle = Throttle::put(cluster.pid("agentd/0").unwrap(), &disk, 4).unwrap();
    let report = cluster.json(&["node", "validate", "node-0"]).unwrap();
    assert_eq!(report["verdict"], "failed", "{report}");
    wait_for("the quarantine", || node("node-0")["state"] == "quarantined");
    let why = node("node-0")["why"].as_str().unwrap().to_owned();
    assert!(why.contains("disk"), "{why}");

    let words =
        ["-G", "8", "--checkpoint=5,40G,1s", "--", "bash", "-c", "cat $FF2_SLOT; sleep 100"];
    let first = submit(&cluster, &words);
    let second = submit(&cluster, &["-G", "8", "--", "true"]);
    wait_state(&cluster, first, "running");
    assert_eq!(show(&cluster, first)["nodes"][0], "node-1");
    assert_eq!(show(&cluster, second)["state"], "pending");
    let slot = cluster.mount().join(format!("jobs/{first}/slot-1"));
    wait_for("the slot", || slot.exists());
    let numbers: Vec<u64> = read(&slot).split_whitespace().map(|n| n.parse().unwrap()).collect();
    let [every, phase, length, rate] = numbers[..] else { panic!("{numbers:?}") };
    assert!(every <= 300_000 && phase < every && length <= every, "{numbers:?}");
    assert!(rate * length / 1_000 >= 40 << 30, "it has the time for all of it: {numbers:?}");

    drop(throttle);
    cluster.ctl(&["node", "resume", "node-0"]).unwrap();
    wait_state(&cluster, second, "succeeded");
    assert_eq!(show(&cluster, second)["runs"][0]["nodes"][0], "node-0");
    cluster.ctl(&["job", "cancel", &first.to_string()]).unwrap();
    wait_state(&cluster, first, "cancelled");
    cluster.ctl(&["kill", "agentd/0"]).unwrap();
}

/// An agent that sees the volume through a mount of its own. It ends with this.
struct Apart(std::process::Child);

impl Apart {
    /// Instead of the cluster's own `agentd/INDEX`, which is killed.
    fn start(cluster: &Cluster, index: u32, mount: &Path) -> Self {
        cluster.ctl(&["kill", &format!("agentd/{index}")]).unwrap();
        let config = cluster.dir().join(format!("agentd-{index}/agent.toml"));
        let mut agent = std::process::Command::new("unshare");
        agent.args([
            "--mount",
            "sh",
            "-c",
            "mount --bind \"$0\" \"$1\" && exec \"$2\" --config \"$3\"",
        ]);
        agent.arg(mount).arg(cluster.mount()).arg(cluster.program("ff2-agentd")).arg(config);
        Self(agent.stdin(std::process::Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tags decide where a job may lie, and of nodes that are equally good the one is taken that has its data in memory.
#[test]
fn a_job_goes_where_its_tags_and_its_data_are() {
    if !is_root() {
        return;
    }
    let cluster = start("2");
    let nodes_of = |job: u64| {
        let nodes = show(&cluster, job)["runs"][0]["nodes"].clone();
        nodes[0].as_str().unwrap().to_owned()
    };
    let first = submit(&cluster, &["-J", "a", "-G", "8", "--", "false"]);
    wait_state(&cluster, first, "failed");
    // Of two that are alike that one is taken which joined first.
    let usual = nodes_of(first);
    let (other, index) = if usual == "node-0" { ("node-1", 1) } else { ("node-0", 0) };
    cluster.ctl(&["node", "tag", other, "big", "nvlink"]).unwrap();
    let tags = cluster.json(&["node", "tag", other, "--remove", "nvlink"]).unwrap();
    assert_eq!(tags["tags"], serde_json::json!(["big"]));
    let after = format!("afternotok:{first}");
    let tagged = submit(&cluster, &["-C", "big", "-G", "8", "-d", &after, "--", "true"]);
    wait_state(&cluster, tagged, "succeeded");
    assert_eq!(nodes_of(tagged), other);
    let refused = cluster.ctl(&["job", "submit", "-C", "nvlink&small", "--", "true"]).unwrap_err();
    assert!(refused.to_string().contains("\"small\""), "{refused}");

    // Both talk over this machine's loopback.
    wait_for("bytes on the ports", || {
        let top = cluster.json(&["fabric", "top"]).unwrap();
        let of = |name| {
            let links = top["links"].as_array().unwrap();
            links.iter().find(|link| link["node"] == name && link["port"] == "lo").cloned()
        };
        let sends = |link: serde_json::Value| link["sent_bytes_per_s"].as_u64().unwrap() > 0;
        of("node-0").is_some_and(sends) && of("node-1").is_some_and(sends)
    });

    // What the other node reads it reads through another mount, which alone has the data in memory.
    let data = cluster.mount().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("corpus"), vec![7; 8 << 20]).unwrap();
    let second = cluster.mount_beside("second").unwrap();
    let _agent = Apart::start(&cluster, index, &second);
    let started = Instant::now();
    assert_eq!(fs::read(second.join("data/corpus")).unwrap().len(), 8 << 20);
    let here = fs::File::open(data.join("corpus")).unwrap();
    here.sync_all().unwrap();
    rustix::fs::fadvise(&here, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    wait_for("the agent to be back", || {
        let nodes = cluster.json(&["node", "list"]).unwrap();
        let node = nodes.as_array().unwrap().iter().find(|node| node["name"] == other).unwrap();
        let heard = Duration::from_millis(node["heard_ms"].as_u64().unwrap());
        node["state"] == "up" && heard < started.elapsed()
    });
    let path = data.to_str().unwrap();
    let near = submit(&cluster, &["--data", path, "-G", "8", "--", "sleep", "3"]);
    let told = wait_state(&cluster, near, "running");
    assert_eq!(told["nodes"], serde_json::json!([other]), "{told}");
    let expected = serde_json::json!([{ "path": path, "cached_on": [other] }]);
    assert_eq!(told["data"], expected, "{told}");
    let else_where = submit(&cluster, &["-G", "8", "--", "true"]);
    wait_state(&cluster, else_where, "succeeded");
    assert_eq!(nodes_of(else_where), usual);
    wait_state(&cluster, near, "succeeded");
    let status = cluster.json(&["status"]).unwrap();
    assert_eq!(status["scheduler"]["nodes_up"], 2, "{status}");
}
