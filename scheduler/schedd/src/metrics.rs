//! Figures of the jobs and nodes as this replica knows them, beside the latencies of its calls.

use ff2_daemon::Metrics;
use ff2_sched_core::{NodeState, State as Of};
use ff2_sched_machine::State;
use prometheus_client::metrics::gauge::Gauge;

#[derive(Debug)]
pub(crate) struct Gauges {
    running: Gauge,
    stopping: Gauge,
    waiting: Gauge,
    held: Gauge,
    gpus: Gauge,
    gpus_used: Gauge,
    nodes: Gauge,
    nodes_away: Gauge,
}

impl Gauges {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let gauge = |name: &str, help: &str| metrics.gauge(name, help);
        Self {
            running: gauge("jobs_running", "Jobs that run"),
            stopping: gauge("jobs_stopping", "Jobs that were told to make room or to end"),
            waiting: gauge("jobs_waiting", "Jobs that wait for their turn or for chosen nodes"),
            held: gauge("jobs_held", "Jobs that are held, or wait for other jobs"),
            gpus: gauge("gpus", "GPUs of all compute nodes"),
            gpus_used: gauge("gpus_used", "GPUs that jobs have"),
            nodes: gauge("compute_nodes", "Compute nodes that ever joined"),
            nodes_away: gauge("compute_nodes_away", "Compute nodes that get no new jobs"),
        }
    }

    pub(crate) fn show(&self, state: &State) {
        let scheduler = state.scheduler();
        let [mut running, mut stopping, mut waiting, mut held] = [0; 4];
        for job in scheduler.jobs() {
            match &job.state {
                Of::Held => held += 1,
                Of::Pending | Of::Claiming => waiting += 1,
                Of::Running { .. } => running += 1,
                Of::Stopping { .. } => stopping += 1,
            }
        }
        self.running.set(running);
        self.stopping.set(stopping);
        self.waiting.set(waiting);
        self.held.set(held);
        let [mut gpus, mut used, mut nodes, mut away] = [0; 4];
        for (id, _) in state.topology().nodes() {
            let (has, uses) = scheduler.size_of(id);
            (gpus, used, nodes) =
                (gpus + i64::from(has.gpus), used + i64::from(uses.gpus), nodes + 1);
            away += i64::from(scheduler.node_state(id) != Some(NodeState::Up));
        }
        self.gpus.set(gpus);
        self.gpus_used.set(used);
        self.nodes.set(nodes);
        self.nodes_away.set(away);
    }
}
