//! The status page of a live cluster: its JSON, and what a browser makes of it.
//!
//! The rendering needs `chromium` (the Debian package of that name).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use ff2_cluster_tests::{Cluster, SMALLEST, may_skip};
use serde_json::Value;

/// The body of `GET path`, which must be found.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
    body.to_owned()
}

/// `http` addresses of the processes of a role.
fn addresses(cluster: &Cluster, role: &str) -> Vec<String> {
    let processes = cluster.processes().unwrap();
    let of_role = processes.iter().filter(|process| process["role"] == role);
    of_role.map(|process| process["addresses"]["http"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_page_shows_nodes_disks_and_chains() {
    let cluster = Cluster::start().unwrap();
    std::fs::write(cluster.mount().join("file"), vec![1; 1 << 20]).unwrap();
    let metads = addresses(&cluster, "metad");
    assert_eq!(metads.len(), 3);
    for address in &metads {
        // Also those that do not lead: they ask the leader.
        let shown: Value = serde_json::from_str(&get(address, "/api/cluster.json")).unwrap();
        let count = |key: &str| shown[key].as_array().unwrap().len();
        assert_eq!(count("nodes"), 7, "{shown}");
        assert_eq!(count("groups"), 2, "{shown}");
        assert_eq!(shown["healthy"], true, "{shown}");
        assert!(get(address, "/").contains("<title>"), "there is a page");
        every_metric_is_explained(&get(address, "/metrics"));
        render(address, &shown);
    }
    for address in addresses(&cluster, "storaged") {
        every_metric_is_explained(&get(&address, "/metrics"));
    }
    operations_are_timed(&cluster);
    the_dashboard_asks_for_figures_that_there_are(&cluster);
}

fn every_metric_is_explained(text: &str) {
    assert!(text.contains("# TYPE ff2_"), "there are metrics: {text}");
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        let help = text.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
        assert!(help.is_some_and(|help| help.len() > 10), "{name} is not explained");
    }
}

/// What the cluster just did is in somebody's histograms.
fn operations_are_timed(cluster: &Cluster) {
    let all = |role| addresses(cluster, role).iter().map(|at| get(at, "/metrics")).collect();
    let (metads, storageds): (String, String) = (all("metad"), all("storaged"));
    let measured = |text: &str, series: &str| {
        let counts = text.lines().filter_map(|line| line.strip_prefix(series));
        let total: u64 = counts.map(|count| count.trim().parse::<u64>().unwrap()).sum();
        assert!(total > 0, "nothing was measured: {series}");
    };
    for op in ["join", "heartbeat", "watch_routing", "lookup", "admin_cluster_status"] {
        measured(&metads, &format!("ff2_metad_op_latency_seconds_count{{op=\"{op}\"}}"));
    }
    for group in ["0", "1"] {
        for of in ["propose_latency_seconds", "log_sync_latency_seconds", "sync_entries"] {
            measured(&metads, &format!("ff2_metad_raft_{of}_count{{group=\"{group}\"}}"));
        }
    }
    for op in ["update", "forward", "settle"] {
        measured(&storageds, &format!("ff2_storaged_op_latency_seconds_count{{op=\"{op}\"}}"));
    }
    for op in ["prepare", "commit"] {
        measured(&storageds, &format!("ff2_storaged_store_latency_seconds_count{{op=\"{op}\"}}"));
    }
}

/// deploy/grafana/ff2.json names nothing that no daemon has.
fn the_dashboard_asks_for_figures_that_there_are(cluster: &Cluster) {
    let all = ["metad/0", "metad/1", "metad/2", "storaged/0", "fuse/0"];
    let shown = all.map(|name| cluster.ctl(&["admin", "metrics", name]).unwrap()).concat();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/grafana/ff2.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let mut asked = 0;
    for target in panels.flat_map(|panel| panel["targets"].as_array().unwrap()) {
        let expression = target["expr"].as_str().unwrap();
        let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for name in words.filter(|word| word.starts_with("ff2_")) {
            asked += 1;
            // Registered with the latencies, but without a line until something fails.
            let measured = name.replace("op_failures_total", "op_latency_seconds_count");
            let is_there = |line: &str| {
                line.strip_prefix(&*measured).is_some_and(|rest| rest.starts_with(['{', ' ']))
            };
            assert!(shown.lines().any(is_there), "no daemon has {name}, for {expression}");
        }
    }
    assert!(asked > 40, "the dashboard asks for {asked} figures only");
}

/// What a browser shows of a page after its scripts ran: without the scripts' own text. None: there is no browser,
/// and that may be so.
fn rendered(address: &str) -> Option<String> {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("http://{address}/"))
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            let missing = format!("chromium does not start, the page is not rendered: {error}");
            assert!(may_skip(&missing), "{missing}; FF2_TEST_ALLOW_SKIP=chromium leaves this out");
            return None;
        }
    };
    let dom = String::from_utf8_lossy(&output.stdout);
    let (_, body) = dom.split_once("<body").unwrap();
    body.split("<script>").next().map(str::to_owned)
}

fn render(address: &str, shown: &Value) {
    let Some(body) = rendered(address) else { return };
    let has = |what: &str| assert!(body.contains(what), "{what} is not shown: {body}");
    for node in shown["nodes"].as_array().unwrap() {
        has(&format!(">node {}<", node["id"]));
        has(node["address"].as_str().unwrap());
        for disk in node["disks"].as_array().unwrap() {
            has(disk["path"].as_str().unwrap());
        }
    }
    for chain in shown["chains"].as_array().unwrap() {
        has(&format!("chain {}, version {}", chain["id"], chain["version"]));
    }
    has(shown["cluster_id"].as_str().unwrap());
    has(">healthy<");
}

/// The leader has those of all nodes: the loopback, over which all of a local cluster talk.
fn ports_are_shown(shown: &Value) {
    if shown["leads"] != true {
        return assert!(shown["links"].is_null(), "{shown}");
    }
    let links = shown["links"].as_array().unwrap();
    for node in 0..5 {
        let name = format!("node-{node}");
        let lo = links.iter().find(|link| link["node"] == name.as_str() && link["port"] == "lo");
        assert_eq!(lo.map(|lo| &lo["up"]), Some(&Value::Bool(true)), "{name}: {links:?}");
    }
}

/// The scheduler's page: the queue, the nodes by leaf, who ran where. Replicas that do not lead show it too.
#[test]
fn the_page_shows_jobs_and_where_they_ran() {
    let agents = ["--agents", "5", "--fake-gpus", "8"];
    let cluster = Cluster::start_with(&[&SMALLEST[..], &agents].concat()).unwrap();
    let run = |words: &[&str]| cluster.ctl(&[&["job", "submit"], words].concat()).unwrap();
    run(&["-J", "broken", "-G", "1", "--", "false"]);
    run(&["-J", "long", "-N", "2", "--gpus-per-node=8", "--", "sleep", "100"]);
    run(&["-J", "wide", "-N", "5", "--gpus-per-node=8", "--", "true"]);
    let says = r#"{"x":"step","until":9,"lines":[{"name":"loss","points":[[1,5.5],[2,3.25]]}]}"#;
    let tell = format!("printf '%s\\n' 'step 2 of 9' '{says}' > $FF2_STATUS; sleep 100");
    run(&["-J", "learns", "--", "sh", "-c", &tell]);
    // One that nothing runs on: its GPUs are free, and count for nobody.
    let used = cluster.json(&["job", "show", "2"]).unwrap()["nodes"].to_string();
    let free = (0..5).map(|node| format!("node-{node}")).find(|node| !used.contains(node)).unwrap();
    cluster.ctl(&["node", "cordon", &free, "--why", "a loud fan"]).unwrap();
    let schedds = addresses(&cluster, "schedd");
    assert_eq!(schedds.len(), 3);
    for address in &schedds {
        every_metric_is_explained(&get(address, "/metrics"));
        // One that does not lead hears of a commit with the next heartbeat.
        let mut shown = Value::Null;
        for _ in 0..100 {
            shown = serde_json::from_str(&get(address, "/api/sched.json")).unwrap();
            let jobs = shown["jobs"].as_array().unwrap();
            let state = |name: &str| jobs.iter().find(|j| j["name"] == name).map(|j| &j["state"]);
            let is_cordoned = shown["nodes"].to_string().contains("cordoned");
            let is_told = shown["leads"] != true || shown["charts"]["4"].is_object();
            if state("broken").is_some_and(|is| is == "failed")
                && state("long").is_some_and(|is| is == "running")
                && state("wide").is_some_and(|is| is == "pending")
                && is_cordoned
                && is_told
            {
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        ports_are_shown(&shown);
        let Some(body) = rendered(address) else { continue };
        let has = |what: &str| assert!(body.contains(what), "{what} is not shown: {shown} {body}");
        has(if shown["leads"] == true {
            ">lo<"
        } else {
            "Only the leader knows of network ports."
        });
        for node in 0..5 {
            has(&format!(">node-{node}<"));
        }
        has("local / leaf-0");
        has("local / leaf-1");
        has("a loud fan");
        for (name, state) in [("broken", "failed"), ("long", "running"), ("wide", "pending")] {
            has(&format!(">{name}<"));
            has(&format!("class=\"state {state}\""));
        }
        has("rank 0 ended with 1");
        has("needs 40 GPUs, 16 are free");
        has("16 of 40");
        has("2 long");
        // Agents tell the leader alone what jobs say.
        if shown["leads"] == true {
            has("step 2 of 9");
            has("Curves of running jobs");
            has(">4 learns<");
            has("loss 3.25");
            let drawn = body.split("<svg").nth(1).unwrap();
            assert!(
                drawn.contains("L") && drawn.contains(">5.5<") && drawn.contains(">9<"),
                "{drawn}"
            );
        }
    }
    let listed = cluster.ctl(&["job", "list"]).unwrap();
    assert!(listed.contains("step 2 of 9") && !listed.contains("points"), "{listed}");
    cluster.ctl(&["job", "cancel", "2"]).unwrap();
    cluster.ctl(&["job", "cancel", "4"]).unwrap();
}
