//! A service's addresses outlive the node of the router that leads: clients that were told all of them go on.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::{Cluster, is_root};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

use super::{
    service::{SHAPE, write_model},
    wait_for,
};

/// From the death of a node to an answer. On a machine at rest it is about four.
const AWAY_MAX: Duration = Duration::from_secs(15);

/// Asks the addresses in turn until one answers, as a client does that has a list.
fn ask(urls: &[String], key: &str, at: &mut usize) -> Option<Value> {
    for _ in urls {
        if let Some(answer) = ask_one(&urls[*at], key) {
            return Some(answer);
        }
        *at = (*at + 1) % urls.len();
    }
    None
}

fn ask_one(url: &str, key: &str) -> Option<Value> {
    let body =
        json!({"model": "pair", "prompt": "The GNU General", "max_tokens": 8, "ignore_eos": true})
            .to_string();
    let mut stream = TcpStream::connect(url.strip_prefix("http://")?).ok()?;
    let len = body.len();
    let head = format!(
        "POST /v1/completions HTTP/1.0\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {len}\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| serde_json::from_str(body).ok())?
}

/// The agent and all that it runs, with what these started.
fn processes_of(cluster: &Cluster, agent: &str) -> Vec<Pid> {
    let mut parents = Vec::new();
    let mut of_node = BTreeSet::from([cluster.pid(agent).unwrap().as_raw_nonzero().get()]);
    let folder = format!("{}/{}", cluster.dir().display(), agent.replace('/', "-"));
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let is_keeper = words.nth(1).as_deref() == Some("--keep");
        if is_keeper && words.next().is_some_and(|run| run.starts_with(&folder)) {
            of_node.insert(pid);
        }
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent =
            stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<i32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    loop {
        let found =
            parents.iter().filter(|(_, parent)| of_node.contains(parent)).map(|(pid, _)| *pid);
        let more = &of_node | &found.collect();
        if more == of_node {
            return of_node.into_iter().filter_map(Pid::from_raw).collect();
        }
        of_node = more;
    }
}

/// One may be gone with the one that started it.
fn kill(pids: &[Pid]) {
    for pid in pids {
        let _ = kill_process(*pid, Signal::KILL);
    }
    wait_for("all of the node is dead", || pids.iter().all(|pid| test_kill_process(*pid).is_err()));
}

#[test]
fn a_service_outlives_the_node_of_its_address() {
    if !is_root() {
        return;
    }
    // A node more than the service needs.
    let shape = [&SHAPE[..10], &["--agents", "3", "--fake-gpus", "2"]].concat();
    let cluster = Cluster::start_with(&shape).unwrap();
    let model = write_model(&cluster);
    #[rustfmt::skip]
    let line = [
        "serve", &model, "--name", "pair", "--replicas", "2", "--port", "0", "--json",
        "--run-options", "--kv-mib 16 --threads 1", "--", "-G", "2",
    ];
    let made: Value = serde_json::from_str(&cluster.ctl(&line).unwrap()).unwrap();
    let urls: Vec<String> = serde_json::from_value(made["urls"].clone()).unwrap();
    assert_eq!(urls.len(), 2, "several nodes, two routers: {made}");
    let (key, router) =
        (made["key"].as_str().unwrap().to_owned(), made["router"].as_u64().unwrap());
    let job = |job: u64| cluster.json(&["job", "show", &job.to_string()]).unwrap();
    let mut nodes =
        [router, router + 1].map(|it| job(it)["nodes"][0].as_str().unwrap_or_default().to_owned());
    nodes.sort();
    assert!(nodes[0] != nodes[1], "each router on a node of its own: {nodes:?}");
    let leads = |it: u64| job(it)["why"].as_str().unwrap_or_default().contains("of 2 replicas");
    let mut leader = None;
    wait_for("one of them leads", || {
        leader = [router, router + 1].into_iter().find(|it| leads(*it));
        leader.is_some()
    });
    let leader = leader.unwrap();
    let node = job(leader)["nodes"][0].as_str().unwrap().to_owned();
    // The one that leads first.
    let told = || {
        let listed = cluster.json(&["serve", "list"]).unwrap();
        let urls = listed["services"][0]["report"]["urls"].clone();
        serde_json::from_value::<Vec<String>>(urls).unwrap()
    };
    let [lost, left] = told().try_into().unwrap();

    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let client = thread::spawn({
        let (stop, done, key) = (stop.clone(), done.clone(), key.clone());
        move || {
            let (mut at, mut last, mut longest) = (0, Instant::now(), Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                if ask(&urls, &key, &mut at).is_some() {
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
            longest.max(last.elapsed())
        }
    });
    let go_on = |answers: usize| {
        let until = done.load(Ordering::Relaxed) + answers;
        wait_for("answers come", || done.load(Ordering::Relaxed) >= until);
    };
    go_on(4);
    let agent = format!("agentd/{}", node.strip_prefix("node-").unwrap());
    kill(&processes_of(&cluster, &agent));
    go_on(8);
    stop.store(true, Ordering::Relaxed);
    let longest = client.join().unwrap();
    eprintln!("the service was away for {longest:.1?}");
    assert!(longest < AWAY_MAX, "the service was away for {longest:?}");

    // The dead router's address is told to nobody any more. It comes again on another node, at another address, which
    // is told from then on and answers.
    assert_eq!(told(), [left.as_str()]);
    wait_for("the lost router is back", || told().len() == 2);
    assert_ne!(job(leader)["nodes"][0].as_str(), Some(&node[..]));
    let [first, new] = told().try_into().unwrap();
    assert!(first == left && new != lost, "{first}, {new} after {lost}");
    assert!(ask_one(&new, &key).is_some() && ask_one(&left, &key).is_some());
}
