//! A cable that is pulled again and again, for real: one end of a veth pair in a network of its own.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use ff2_sched_machine::Links;

use super::*;

/// Makes a pair of interfaces, then pulls the far end once for each line that it reads.
const SCRIPT: &str = "set -e
    mount -t sysfs none /sys
    ip link add near type veth peer name far
    ip link set near up
    ip link set far up
    echo ready
    while read -r line; do
        ip link set far down
        ip link set far up
        echo pulled
    done";

/// Ends with the test, and its network with it.
struct Network(Child);

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_port_whose_cable_is_pulled_again_and_again_flaps() {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", SCRIPT]);
    unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut network = Network(unshare.spawn().unwrap());
    let mut cable = network.0.stdin.take().unwrap();
    let mut said = BufReader::new(network.0.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    if line != "ready\n" {
        let mut why = String::new();
        BufReader::new(network.0.stderr.take().unwrap()).read_line(&mut why).unwrap();
        let allowed = std::env::var("FF2_TEST_ALLOW_SKIP").unwrap_or_default();
        let allowed = allowed.split(',').any(|name| name == "netns" || name == "1");
        let missing = format!("no network of its own can be made: {why}");
        assert!(allowed, "{missing}; FF2_TEST_ALLOW_SKIP=netns leaves this out");
        eprintln!("SKIPPED: {missing}");
        return;
    }
    // What is mounted there is seen through the process.
    let sys = PathBuf::from(format!("/proc/{}/root/sys", network.0.id()));
    let mut links = Links::default();
    let storage =
        pb::AgentNode { name: "storage-1".into(), ports_only: true, ..Default::default() };
    let mut look = |now_ms: u64| {
        let links_at_ms = now_ms;
        let readings = super::look(&sys, &["near".into()]);
        let request = pb::AgentSyncRequest { links: readings, links_at_ms, ..Default::default() };
        assert!(links.watch(now_ms, &storage, &request));
        let ports: Vec<_> = links.watched().map(|(_, port)| port.clone()).collect();
        let near = ports.iter().find(|port| port.reading().name == "near").unwrap();
        (near.flaps(now_ms), near.faults(now_ms).0)
    };
    assert_eq!(look(1_000), (false, 0));
    for pulled in 1..=3 {
        cable.write_all(b"pull\n").unwrap();
        line.clear();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "pulled\n");
        let (flaps, downs) = look(1_000 + 2_000 * pulled);
        assert_eq!((flaps, downs), (pulled == 3, pulled));
    }
}
