//! Links that are cut: to a server that still reaches everybody, and between servers that all run.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::{Cluster, SMALLEST, Site, is_root, load::Load, network::Network};

const CUT: Duration = Duration::from_secs(8);
/// For an update to be under way; two servers that lie apart take one for eight.
const STUCK: Duration = Duration::from_secs(1);
const APART: Duration = Duration::from_secs(40);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Six seconds, and what it takes on a busy machine to say so.
const GIVEN_UP: Duration = Duration::from_secs(20);

/// Half-open: what the victim sends arrives, so it counts as alive; nothing reaches it.
#[test]
fn servers_that_nobody_reaches_are_waited_for_or_replaced() {
    if !is_root() {
        return;
    }
    let network = Network::make().unwrap();
    let site = Site { network: Some(&network), ..Site::default() };
    // By TCP: what goes through shared memory cannot be cut.
    let shape = [&SMALLEST[..], &["--tcp"]].concat();
    let cluster = Cluster::start_at(&site, &shape).unwrap();
    let load = Load::start(&cluster.mount().join("load"), 4).unwrap();
    thread::sleep(Duration::from_secs(2));
    let mut victims = vec![vec!["storaged/1".to_owned()]];
    victims.push(vec![cluster.leader(1).unwrap()]);
    victims.push(vec![cluster.leader(0).unwrap(), "storaged/2".to_owned()]);
    for victims in victims {
        let ports: Vec<u64> =
            victims.iter().flat_map(|victim| cluster.ports(victim).unwrap()).collect();
        network.cut(&ports).unwrap();
        thread::sleep(CUT);
        network.heal().unwrap();
        cluster.wait_healthy(Duration::from_secs(90)).unwrap();
    }
    cluster.ensure_kept(load, PAUSE_MAX).unwrap();
}

/// A cluster under load, in which two storage servers do not reach each other any more.
fn with_two_servers_apart(network: &Network) -> (Cluster, Load) {
    let site = Site { network: Some(network), ..Site::default() };
    let shape = [&SMALLEST[..], &["--tcp"]].concat();
    let cluster = Cluster::start_at(&site, &shape).unwrap();
    let users = [("storaged/1", 61_001), ("storaged/2", 61_002)];
    for (server, user) in users {
        cluster.restart_as(server, user).unwrap();
        cluster.wait_healthy(Duration::from_secs(90)).unwrap();
    }
    let load = Load::start(&cluster.mount().join("load"), 4).unwrap();
    thread::sleep(Duration::from_secs(2));
    let [(one, one_user), (other, other_user)] = users;
    let links =
        [(one_user, cluster.ports(other).unwrap()), (other_user, cluster.ports(one).unwrap())];
    network.cut_from(&links).unwrap();
    (cluster, load)
}

/// Updates that had begun do not end before a server gives way, which takes longer than a snapshot holds up the others.
#[test]
fn a_snapshot_that_cannot_be_taken_in_its_time_is_given_up_and_nothing_hangs() {
    if !is_root() {
        return;
    }
    let network = Network::make().unwrap();
    let (cluster, load) = with_two_servers_apart(&network);
    // Of all chains, so of those that wait: on a busy machine the load may be between two updates.
    let stuck = format!("of={}", cluster.mount().join("stuck").display());
    let dd = ["if=/dev/zero", &stuck, "bs=1M", "count=16", "conv=fsync", "status=none"];
    let mut stuck = Command::new("dd").args(dd).spawn().unwrap();
    thread::sleep(STUCK);
    assert!(stuck.try_wait().unwrap().is_none(), "no update waits");
    let begun = Instant::now();
    let early = cluster.ctl_output(&["snapshot", "create", "early"]).unwrap();
    let told = String::from_utf8_lossy(&early.stderr);
    assert!(!early.status.success() && told.contains("given up"), "{told}");
    assert!(begun.elapsed() < GIVEN_UP, "it took {:?}", begun.elapsed());
    network.heal().unwrap();
    cluster.wait_healthy(Duration::from_secs(90)).unwrap();
    // Nothing of it is left, updates go on, and the next one is made.
    assert_eq!(cluster.json(&["snapshot", "list"]).unwrap().as_array().unwrap().len(), 0);
    assert!(!cluster.mount().join(".snapshots/early").exists());
    assert!(stuck.wait().unwrap().success(), "its update was lost");
    cluster.ctl(&["snapshot", "create", "later"]).unwrap();
    assert!(cluster.mount().join(".snapshots/later/load").exists());
    cluster.ctl(&["snapshot", "remove", "later"]).unwrap();
    cluster.ensure_kept(load, PAUSE_MAX).unwrap();
    cluster.fsck().unwrap();
}

/// Two storage servers that do not reach each other, and are reached by all others: neither is dead, so of each
/// chain of both one gives way, until they do.
#[test]
fn of_servers_that_do_not_reach_each_other_one_gives_way() {
    if !is_root() {
        return;
    }
    let network = Network::make().unwrap();
    let (cluster, load) = with_two_servers_apart(&network);
    thread::sleep(Duration::from_secs(1));
    // Writes that had begun do not end before one has given way. A snapshot holds up all others for so long at most.
    let early = cluster.ctl_output(&["snapshot", "create", "early"]).unwrap();
    let told = String::from_utf8_lossy(&early.stderr);
    assert!(early.status.success() || told.contains("given up"), "{told}");
    thread::sleep(APART);
    let status = cluster.json(&["status"]).unwrap();
    let told = status["problems"].to_string();
    assert!(told.contains("does not reach node"), "nobody says what is wrong: {told}");
    network.heal().unwrap();
    cluster.wait_healthy(Duration::from_secs(90)).unwrap();
    cluster.ctl(&["snapshot", "create", "later"]).unwrap();
    // Writes went on long before the servers reached each other.
    cluster.ensure_kept(load, APART / 2).unwrap();
}
