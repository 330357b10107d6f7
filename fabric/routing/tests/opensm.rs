//! Our tables beside those of the real OpenSM (engine ftree), which manages the same network simulated by ibsim.
//!
//! Needs the packages opensm and ibsim-utils; no root, no device.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use ff2_routing::{
    Graph, Policy, Tables, credit_loop, largest, loads as loads_of_links, read_dump, shift,
};
use ff2_topology::{Network, Role, Tree, ibnetdiscover};

const BRING_UP_MAX: Duration = Duration::from_secs(30);

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the library is that lets OpenSM talk to ibsim; `None`, loudly, where a test may be left out.
fn simulator() -> Option<PathBuf> {
    let found = installed();
    if found.is_none() {
        let allowed = std::env::var("FF2_TEST_ALLOW_SKIP").unwrap_or_default();
        let allowed = allowed.split(',').any(|name| name == "opensm" || name == "1");
        let missing = "opensm and ibsim-utils are not installed (deploy/install-packages.sh)";
        assert!(allowed, "{missing}; FF2_TEST_ALLOW_SKIP=opensm leaves this out");
        eprintln!("SKIPPED: {missing}");
    }
    found
}

fn installed() -> Option<PathBuf> {
    let libraries = fs::read_dir("/usr/lib").ok()?;
    let library = libraries
        .filter_map(|folder| Some(folder.ok()?.path().join("umad2sim/libumad2sim.so")))
        .find(|path| path.exists())?;
    let programs = ["/usr/sbin/opensm", "/usr/bin/ibsim"];
    programs.iter().all(|program| Path::new(program).exists()).then_some(library)
}

/// What OpenSM writes once it has configured all switches.
struct Managed {
    tables: String,
    virtual_lanes: String,
    said: String,
}

/// `config`: what its configuration says beside what all have.
fn opensm(network: &Network, library: &Path, config: &str) -> Managed {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("net"), ibnetdiscover::write(network)).unwrap();
    fs::write(at("osm.conf"), format!("force_log_flush TRUE\n{config}")).unwrap();
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let name = format!("ff2-{}-{run}", std::process::id());
    let host = format!("H-{}-1", network.hosts[0].name);
    let command = |program: &str| {
        let mut command = Command::new(program);
        command.current_dir(folder.path()).env("IBSIM_SOCKNAME", &name).env("SIM_HOST", &host);
        command.env("OSM_TMP_DIR", folder.path()).env("OSM_CACHE_DIR", folder.path());
        command
    };
    let log = |name: &str| Stdio::from(fs::File::create(at(name)).unwrap());
    let wait_for = |file: &str, word: &str| {
        let until = Instant::now() + BRING_UP_MAX;
        while !fs::read_to_string(at(file)).is_ok_and(|text| text.contains(word)) {
            let told = || fs::read_to_string(at(file)).unwrap_or_default();
            assert!(Instant::now() < until, "{file} does not say {word:?}: {}", told());
            thread::sleep(Duration::from_millis(50));
        }
    };
    let mut ibsim = command("/usr/bin/ibsim");
    // It ends when nobody can type any more: its input stays open.
    ibsim.args(["-s", "net"]).stdin(Stdio::piped()).stdout(log("sim.out")).stderr(log("sim.err"));
    let _ibsim = Running(ibsim.spawn().unwrap());
    wait_for("sim.out", "simulator ready");
    let mut opensm = command("/usr/sbin/opensm");
    opensm.env("LD_PRELOAD", library).args(["-R", "ftree", "-D", "0x43", "-f"]).arg(at("osm.log"));
    opensm.arg("-F").arg(at("osm.conf")).stdout(log("osm.out")).stderr(log("osm.err"));
    let _opensm = Running(opensm.spawn().unwrap());
    wait_for("osm.log", "SUBNET UP");
    let read = |name: &str| fs::read_to_string(at(name)).unwrap();
    // That one is written only with service levels.
    let virtual_lanes = fs::read_to_string(at("opensm-sl2vl.dump")).unwrap_or_default();
    Managed { tables: read("opensm-lfts.dump"), virtual_lanes, said: read("osm.out") }
}

/// The most flows on one link: of a few shifts, and the mean of a hundred random permutations.
fn loads(graph: &Graph, tables: &Tables) -> (u32, f64) {
    let count = graph.endpoints().len();
    let most = |pairs: &[_]| largest(graph, tables, pairs).unwrap();
    let shifts = SHIFTS.iter().map(|by| most(&shift(count, by % count))).max().unwrap();
    // One permutation is luck: their mean is not.
    let sum: u32 = (1..=100).map(|seed| most(&permutation(count, seed))).sum();
    (shifts, f64::from(sum) / 100.0)
}

/// The same permutations on every run.
fn permutation(count: usize, seed: u64) -> Vec<(usize, usize)> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut targets: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        targets.swap(at, usize::try_from(state % (at as u64 + 1)).unwrap());
    }
    (0..count).zip(targets).filter(|(from, to)| from != to).collect()
}

const SHIFTS: [usize; 7] = [1, 19, 20, 21, 137, 400, 799];

/// How many flows of a shift meet that would not by d-mod-k: that is what it costs to have no residue trap. Tables
/// without any have the same remainders at each leaf, so what is always in the same ports shares them.
fn meet(policy: Policy) -> u32 {
    match policy {
        Policy::DModK => 0,
        Policy::Balanced => 1,
    }
}

#[test]
fn ours_reach_the_same_and_load_no_link_more() {
    let Some(library) = simulator() else { return };
    let network = Tree { zones: 1, storage: 180, ..Tree::default() }.build().unwrap();
    let graph = Graph::new(&network).unwrap();
    let theirs = read_dump(&network, &graph, &opensm(&network, &library, "").tables).unwrap();
    let count = graph.endpoints().len();
    assert_eq!(count, 800);
    let (their_shifts, their_mean) = loads(&graph, &theirs);
    for policy in [Policy::DModK, Policy::Balanced] {
        let ours = Tables::build(&graph, policy);
        assert_eq!(credit_loop(&graph, &ours), None);
        for from in (0..count).step_by(20) {
            for to in 0..count {
                let lengths = [&ours, &theirs].map(|t| t.path(&graph, from, to).map(|p| p.len()));
                assert_eq!(lengths[0], lengths[1], "{from} to {to}");
            }
        }
        let (shifts, mean) = loads(&graph, &ours);
        eprintln!(
            "{policy:?}: shifts {shifts}, OpenSM {their_shifts}; permutations {mean:.2}, {their_mean:.2}"
        );
        assert!(
            shifts <= their_shifts + meet(policy),
            "{policy:?}: {shifts}, OpenSM {their_shifts}"
        );
        // Three standard errors of the mean.
        assert!(mean <= their_mean + 0.25, "{policy:?}: {mean} against {their_mean}");
    }
    let ours = Tables::build(&graph, Policy::DModK);
    for by in SHIFTS {
        let most = |tables| largest(&graph, tables, &shift(count, by)).unwrap();
        assert!(most(&ours) <= most(&theirs), "shift by {by}");
    }
}

/// 16 leaves of 8 hosts, and 8 spines.
fn small() -> Network {
    let tree = Tree {
        zones: 1,
        leaves: 16,
        spines: 8,
        uplinks: 8,
        ports: 16,
        storage: 32,
        ..Tree::default()
    };
    tree.build().unwrap()
}

/// Storage in the first port of each leaf has one remainder: OpenSM does not know who is who, and sends all that four
/// nodes of each leaf write by one spine.
#[test]
fn balanced_tables_spread_storage_where_opensm_does_not() {
    let Some(library) = simulator() else { return };
    let mut network = small();
    let graph = Graph::new(&network).unwrap();
    let theirs = read_dump(&network, &graph, &opensm(&network, &library, "").tables).unwrap();
    for (number, endpoint) in graph.endpoints().iter().enumerate() {
        let role = if number % 8 == 0 { Role::Storage } else { Role::Compute { gpus: 8 } };
        network.hosts[endpoint.host].role = role;
    }
    let ours = Tables::build(&Graph::new(&network).unwrap(), Policy::Balanced);
    let writers = (0..graph.endpoints().len()).filter(|at| at % 8 >= 4);
    let pairs: Vec<(usize, usize)> =
        writers.map(|from| (from, (from / 8 + 1 + from % 8) % 16 * 8)).collect();
    let plugged: BTreeSet<usize> =
        graph.endpoints().iter().map(|endpoint| endpoint.sends / 2).collect();
    // A leaf's uplinks, which are described from the leaf: down from a spine, what goes to one host is together always.
    let is_up = |channel: usize| channel.is_multiple_of(2) && !plugged.contains(&(channel / 2));
    let most = |tables: &Tables| {
        let all = loads_of_links(&graph, tables, &pairs).unwrap().into_iter().enumerate();
        all.filter(|(channel, _)| is_up(*channel)).map(|(_, load)| load).max().unwrap()
    };
    let (our, their) = (most(&ours), most(&theirs));
    eprintln!("writes to storage in the same ports: balanced {our}, OpenSM {their}");
    assert!(our < their, "{our}, OpenSM {their}");
}

/// Ours are repaired, with few changes; OpenSM makes its tables anew for what is left of the network.
#[test]
fn repaired_tables_are_no_worse_than_those_of_opensm() {
    let Some(library) = simulator() else { return };
    let network = small();
    let graph = Graph::new(&network).unwrap();
    let number =
        |name: &str| network.switches.iter().position(|switch| switch.name == name).unwrap();
    let uplink = |name: &str| {
        let links = network.links.iter().enumerate();
        let end = links.filter(|(_, link)| link.a.node == name || link.b.node == name);
        *end.map(|(at, _)| at).collect::<Vec<_>>().first().unwrap()
    };
    let links = BTreeSet::from([uplink("z0-leaf03"), uplink("z0-spine05")]);
    let spine = graph.links_of(number("z0-spine02"));
    let of_leaf: BTreeSet<usize> = graph.links_of(number("z0-leaf09"));
    let plugged: BTreeSet<usize> =
        graph.endpoints().iter().map(|endpoint| endpoint.sends / 2).collect();
    let uplinks: BTreeSet<usize> = of_leaf.difference(&plugged).take(4).copied().collect();
    for (what, failed) in
        [("two links", links), ("a spine", spine), ("half a leaf's uplinks", uplinks)]
    {
        assert!(failed.is_disjoint(&plugged));
        let mut left = network.clone();
        let mut at = 0..;
        left.links.retain(|_| !failed.contains(&at.next().unwrap()));
        let theirs = read_dump(&network, &graph, &opensm(&left, &library, "").tables).unwrap();
        let (their_shifts, their_mean) = loads(&graph, &theirs);
        for policy in [Policy::DModK, Policy::Balanced] {
            let ours = Tables::build(&graph, policy).repair(&graph, &failed);
            assert_eq!(credit_loop(&graph, &ours), None, "{what}");
            let count = graph.endpoints().len();
            for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
                let (our, their) = (ours.path(&graph, from, to), theirs.path(&graph, from, to));
                let (our, their) = (our.unwrap(), their.unwrap());
                assert!(our.iter().all(|channel| !failed.contains(&(channel / 2))), "{what}");
                assert!(our.len() <= their.len(), "{what}: {from} to {to}");
            }
            let (shifts, mean) = loads(&graph, &ours);
            eprintln!(
                "{what}, {policy:?}: shifts {shifts}, OpenSM {their_shifts}; permutations {mean:.2}, {their_mean:.2}"
            );
            assert!(
                shifts <= their_shifts + meet(policy),
                "{what}, {policy:?}: {shifts}, OpenSM {their_shifts}"
            );
            assert!(mean <= their_mean + 0.25, "{what}, {policy:?}: {mean}, OpenSM {their_mean}");
        }
    }
}

/// The lines of docs/FABRIC.md on service levels, taken from there.
#[test]
fn opensm_takes_the_service_levels_of_the_document() {
    let Some(library) = simulator() else { return };
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/FABRIC.md");
    let document = fs::read_to_string(document).unwrap();
    let lines: Vec<&str> =
        document.lines().map(str::trim).filter(|line| line.starts_with("qos")).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    let tree = Tree {
        zones: 1,
        leaves: 4,
        spines: 2,
        uplinks: 2,
        ports: 4,
        storage: 2,
        ..Tree::default()
    };
    let managed = opensm(&tree.build().unwrap(), &library, &(lines.join("\n") + "\n"));
    for line in lines {
        let (key, value) = line.split('#').next().unwrap().trim().split_once(' ').unwrap();
        assert!(managed.said.contains(&format!("{key} = {value}")), "{}", managed.said);
    }
    // "in out : 0 1 2 ...": the virtual lane of each service level, from each port of a switch to each other.
    let rows = managed.virtual_lanes.lines().filter_map(|line| {
        let (ports, lanes) = line.split_once(':')?;
        ports
            .trim()
            .starts_with(|first: char| first.is_ascii_digit())
            .then(|| lanes.split_whitespace().collect())
    });
    let rows: Vec<Vec<&str>> = rows.collect();
    assert!(rows.len() >= 6 * 2, "{}", managed.virtual_lanes);
    for lanes in rows {
        assert_eq!((&lanes[..3], &lanes[3..]), (&["0", "1", "2"][..], &["15"; 13][..]));
    }
}
