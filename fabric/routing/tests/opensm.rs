//! Our tables beside those of the real OpenSM (engine ftree), which manages the same network simulated by ibsim.
//!
//! Needs the packages opensm and ibsim-utils; no root, no device.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use ff2_routing::{Graph, Policy, Tables, credit_loop, largest, read_dump, shift};
use ff2_topology::{Network, Tree, ibnetdiscover};

const BRING_UP_MAX: Duration = Duration::from_secs(30);

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn simulator() -> Option<PathBuf> {
    let libraries = fs::read_dir("/usr/lib").ok()?;
    let library = libraries
        .filter_map(|folder| Some(folder.ok()?.path().join("umad2sim/libumad2sim.so")))
        .find(|path| path.exists())?;
    let programs = ["/usr/sbin/opensm", "/usr/bin/ibsim"];
    programs.iter().all(|program| Path::new(program).exists()).then_some(library)
}

/// What OpenSM writes once it has configured all switches.
fn dump_of_opensm(network: &Network, library: &Path) -> String {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("net"), ibnetdiscover::write(network)).unwrap();
    fs::write(at("osm.conf"), "force_log_flush TRUE\n").unwrap();
    let name = format!("ff2-{}", std::process::id());
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
    fs::read_to_string(at("opensm-lfts.dump")).unwrap()
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

#[test]
fn ours_reach_the_same_and_load_no_link_more() {
    let Some(library) = simulator() else {
        let allowed = std::env::var("FF2_TEST_ALLOW_SKIP").unwrap_or_default();
        let allowed = allowed.split(',').any(|name| name == "opensm" || name == "1");
        let missing = "opensm and ibsim-utils are not installed (deploy/install-packages.sh)";
        assert!(allowed, "{missing}; FF2_TEST_ALLOW_SKIP=opensm leaves this out");
        eprintln!("SKIPPED: {missing}");
        return;
    };
    let network = Tree { zones: 1, storage: 180, ..Tree::default() }.build().unwrap();
    let graph = Graph::new(&network).unwrap();
    let theirs = read_dump(&network, &graph, &dump_of_opensm(&network, &library)).unwrap();
    let count = graph.endpoints().len();
    assert_eq!(count, 800);
    for policy in [Policy::DModK, Policy::Balanced] {
        let ours = Tables::build(&graph, policy);
        assert_eq!(credit_loop(&graph, &ours), None);
        for from in (0..count).step_by(20) {
            for to in 0..count {
                let lengths = [&ours, &theirs].map(|t| t.path(&graph, from, to).map(|p| p.len()));
                assert_eq!(lengths[0], lengths[1], "{from} to {to}");
            }
        }
    }
    let ours = Tables::build(&graph, Policy::DModK);
    let most = |tables: &Tables, pairs: &[_]| largest(&graph, tables, pairs).unwrap();
    let mut shifts = (0, 0);
    for by in [1, 19, 20, 21, 137, 400, 799] {
        let pairs = shift(count, by);
        let (our, their) = (most(&ours, &pairs), most(&theirs, &pairs));
        assert!(our <= their, "shift by {by}: {our}, OpenSM {their}");
        shifts = (shifts.0.max(our), shifts.1.max(their));
    }
    // One permutation is luck: their mean is not. The margin is three standard errors of it.
    let sums: Vec<(u32, u32)> = (1..=100)
        .map(|seed| permutation(count, seed))
        .map(|pairs| (most(&ours, &pairs), most(&theirs, &pairs)))
        .collect();
    let mean = |of: fn(&(u32, u32)) -> u32| sums.iter().map(of).sum::<u32>() as f64 / 100.0;
    let (our, their) = (mean(|s| s.0), mean(|s| s.1));
    eprintln!("shifts {} and {}, permutations {our:.2} and {their:.2}", shifts.0, shifts.1);
    assert!(our <= their + 0.25, "{our} against {their}");
}
