//! Servers that stop for longer than their leases and then go on as if nothing had been: they must not
//! serve what others have changed since.

use std::{thread, time::Duration};

use ff2_cluster_tests::{Cluster, load::Load};
use rustix::process::Signal;

/// Longer than leases, elections and the judgement of deaths take together.
const STOPPED: Duration = Duration::from_secs(8);
const PAUSE_MAX: Duration = Duration::from_secs(20);

#[test]
fn servers_that_stop_and_go_on_do_no_harm() {
    let cluster = Cluster::start().unwrap();
    let load = Load::start(&cluster.mount().join("load"), 4).unwrap();
    thread::sleep(Duration::from_secs(2));
    let mut victims = vec!["storaged/2".to_owned()];
    victims.push(cluster.leader(1).unwrap());
    victims.push(cluster.leader(0).unwrap());
    for victim in victims {
        cluster.signal(&victim, Signal::STOP).unwrap();
        thread::sleep(STOPPED);
        cluster.signal(&victim, Signal::CONT).unwrap();
        cluster.wait_healthy(Duration::from_secs(90)).unwrap();
    }
    cluster.ensure_kept(load, PAUSE_MAX).unwrap();
}
