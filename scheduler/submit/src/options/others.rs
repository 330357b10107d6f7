//! Options of Slurm that we do not have.

use crate::options::{
    Known,
    Means::{Missing, NoMatter},
    Takes,
};

const fn missing(long: &'static str, short: Option<char>, instead: &'static str) -> Known {
    Known { long, short, takes: Takes::Value, means: Missing(instead) }
}

const fn missing_flag(long: &'static str, short: Option<char>, instead: &'static str) -> Known {
    Known { long, short, takes: Takes::Nothing, means: Missing(instead) }
}

const fn no_matter(long: &'static str, short: Option<char>, why: &'static str) -> Known {
    Known { long, short, takes: Takes::Value, means: NoMatter(why) }
}

const fn no_matter_flag(long: &'static str, short: Option<char>, why: &'static str) -> Known {
    Known { long, short, takes: Takes::Nothing, means: NoMatter(why) }
}

const LEAVE_OUT: &str = "leave it out";
const BY_NODE: &str = "ask for memory of each node with --mem";
const BY_COUNT: &str = "ask with --nodes, --ntasks-per-node and --gpus-per-node";
const PLACED: &str = "nodes are chosen by where they hang in the network";
const NODES: &str = "nodes cannot be chosen by hand";
const BOUND: &str = "ranks are bound to cores and GPUs in their order";
const MAIL: &str = "no mail is sent";
const ACCOUNTS: &str = "usage is accounted without it";

pub(super) static OPTIONS: [Known; 78] = [
    missing("batch", None, NODES),
    missing("bb", None, "name what the job reads with --data in an #FF2 line"),
    missing("bbf", None, "name what the job reads with --data in an #FF2 line"),
    missing("begin", Some('b'), "submit the job when it may begin"),
    missing("cluster-constraint", None, LEAVE_OUT),
    missing("clusters", Some('M'), "submit to the cluster that is meant"),
    missing("container", None, "start the container in the script"),
    missing("container-id", None, "start the container in the script"),
    missing("core-spec", Some('S'), LEAVE_OUT),
    missing("cores-per-socket", None, BY_COUNT),
    missing("cpus-per-gpu", None, "ask for cores of each rank with --cpus-per-task"),
    missing("deadline", None, "give a time limit with --time"),
    missing("exclude", Some('x'), NODES),
    missing("export-file", None, "set variables with --export"),
    missing("extra-node-info", Some('B'), BY_COUNT),
    missing("gid", None, "submit as that group"),
    missing("gpus-per-socket", None, "use --gpus-per-node"),
    missing_flag("hold", Some('H'), "submit the job when it may begin"),
    missing("input", Some('i'), "redirect the input in the script"),
    missing("licenses", Some('L'), LEAVE_OUT),
    missing("mem-per-cpu", None, BY_NODE),
    missing("mem-per-gpu", None, BY_NODE),
    missing("mincpus", None, "ask for cores of each rank with --cpus-per-task"),
    missing("nodefile", Some('F'), NODES),
    missing("nodelist", Some('w'), NODES),
    missing("ntasks-per-core", None, "use --ntasks-per-node"),
    missing("ntasks-per-gpu", None, "use --gpus-per-task"),
    missing("ntasks-per-socket", None, "use --ntasks-per-node"),
    missing_flag("overcommit", Some('O'), "ask for as many cores as are needed"),
    missing_flag(
        "oversubscribe",
        Some('s'),
        "nodes are shared unless --exclusive is said; cores are not",
    ),
    missing("prefer", None, "name tags that nodes must have (--constraint)"),
    Known {
        long: "propagate",
        short: None,
        takes: Takes::Maybe,
        means: Missing("set limits in the script"),
    },
    missing_flag("reboot", None, LEAVE_OUT),
    missing("reservation", None, LEAVE_OUT),
    missing("sockets-per-node", None, BY_COUNT),
    missing_flag("test-only", None, LEAVE_OUT),
    missing("thread-spec", None, LEAVE_OUT),
    missing("threads-per-core", None, "ask for cores of each rank with --cpus-per-task"),
    missing("time-min", None, "give one limit with --time"),
    missing("tmp", None, LEAVE_OUT),
    missing("tres-per-task", None, "use --gpus-per-task and --cpus-per-task"),
    missing("uid", None, "submit as that user"),
    missing("wrap", None, "hand the command over instead of a script"),
    no_matter("acctg-freq", None, ACCOUNTS),
    no_matter_flag("consolidate-segments", None, PLACED),
    no_matter_flag("contiguous", None, PLACED),
    no_matter("cpu-freq", None, "nobody changes the speed of processors"),
    no_matter("delay-boot", None, "nodes are not booted for jobs"),
    no_matter("distribution", Some('m'), "ranks follow the network, so that neighbours are near"),
    Known {
        long: "get-user-env",
        short: None,
        takes: Takes::Maybe,
        means: NoMatter("--export chooses the variables"),
    },
    no_matter("gpu-bind", None, BOUND),
    no_matter("gpu-freq", None, "nobody changes the speed of GPUs"),
    no_matter("gres-flags", None, BOUND),
    no_matter("hint", None, BOUND),
    no_matter_flag("ignore-pbs", None, "lines of PBS are never read"),
    no_matter("kill-on-invalid-dep", None, "a job whose dependency cannot be met ends"),
    no_matter("mail-type", None, MAIL),
    no_matter("mail-user", None, MAIL),
    no_matter("mcs-label", None, ACCOUNTS),
    no_matter("mem-bind", None, BOUND),
    no_matter("network", None, PLACED),
    Known {
        long: "no-kill",
        short: Some('k'),
        takes: Takes::Maybe,
        means: NoMatter("a job that loses a node is started again"),
    },
    no_matter("open-mode", None, "output is appended when a job starts again"),
    no_matter_flag("parsable", None, "it is about what sbatch prints"),
    no_matter("power", None, "nothing is decided by power"),
    no_matter("profile", None, ACCOUNTS),
    no_matter_flag("quiet", Some('Q'), "it is about what sbatch prints"),
    no_matter("segment", None, PLACED),
    no_matter_flag("spread-job", None, PLACED),
    no_matter_flag("spread-segments", None, PLACED),
    no_matter_flag("stepmgr", None, "there are no steps"),
    no_matter("switches", None, PLACED),
    no_matter("tres-bind", None, BOUND),
    no_matter_flag("use-min-nodes", None, "the number of nodes is fixed"),
    no_matter_flag("verbose", Some('v'), "it is about what sbatch prints"),
    no_matter_flag("wait", Some('W'), "it is about what sbatch prints"),
    no_matter("wait-all-nodes", None, "a job begins on all of its nodes at once"),
    no_matter("wckey", None, ACCOUNTS),
];
