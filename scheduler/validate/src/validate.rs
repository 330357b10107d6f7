//! All parts, one after another: they would only measure each other otherwise.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use ff2_node::Hardware;

use crate::{
    Check, Plan, Report, Verdict, budget::Budget, cpu, disk, gpu, judge::Judge, memory, network,
    report::overall, threads,
};

/// What each part is given.
pub(crate) struct Course {
    pub(crate) plan: Plan,
    pub(crate) judge: Judge,
    pub(crate) budget: Budget,
    pub(crate) hardware: Hardware,
}

struct Part {
    name: &'static str,
    aim: Duration,
    check: fn(&Course) -> Vec<Check>,
    /// What it means if it does not end. Where others have their part in it, that the node is to blame is not said.
    hanging: Verdict,
}

/// Tries all that the plan has inputs for. Takes at most [`QUICK_MAX`](crate::limits::QUICK_MAX) or
/// [`FULL_MAX`](crate::limits::FULL_MAX); needs the node for itself, or its figures are those of who runs beside it.
pub fn validate(plan: &Plan) -> Report {
    validate_within(plan, Budget::of(plan.depth))
}

fn validate_within(plan: &Plan, budget: Budget) -> Report {
    let (begun, clock) = (SystemTime::now(), Instant::now());
    let (hostname, checks) = match Hardware::look() {
        Ok(hardware) => {
            let judge = Judge { limits: plan.limits, peers: plan.peers.clone() };
            let hostname = hardware.hostname.clone();
            let course = Course { plan: plan.clone(), judge, budget, hardware };
            (hostname, try_all(&Arc::new(course), clock))
        }
        Err(error) => {
            let why = format!("the machine does not say what it has: {error}");
            (String::new(), vec![Check::without_figure("hardware", Verdict::Failed, why)])
        }
    };
    let since = begun.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Report {
        hostname,
        begun_s: since.as_secs(),
        took_ms: clock.elapsed().as_millis() as u64,
        depth: plan.depth,
        verdict: overall(&checks),
        checks,
    }
}

fn try_all(course: &Arc<Course>, clock: Instant) -> Vec<Check> {
    let budget = &course.budget;
    let own = |name, aim, check| Part { name, aim, check, hanging: Verdict::Failed };
    let shared = |name, aim, check| Part { name, aim, check, hanging: Verdict::Suspect };
    let parts = [
        own("cpu", budget.cpu, cpu::check as fn(&Course) -> Vec<Check>),
        own("memory.bandwidth", budget.triad, memory::bandwidth::check),
        own("memory.pattern", budget.pattern, memory::pattern::check),
        own("disk", 2 * budget.disk, disk::check_disk),
        shared("fs", 2 * budget.disk, disk::check_file_system),
        shared("network", 3 * budget.network, network::check),
        own("gpu", budget.gpu, gpu::check),
    ];
    let mut checks = Vec::new();
    for Part { name, aim, check, hanging } in parts {
        let left = budget.total.saturating_sub(clock.elapsed());
        if left < aim {
            let why = format!("other parts took so long that no time was left for {name}");
            checks.push(Check::not_tried(name, why));
            continue;
        }
        let course = Arc::clone(course);
        let time = left.min(2 * aim + budget.slack);
        checks.extend(threads::within(name, time, hanging, move || check(&course)));
    }
    checks
}

#[cfg(test)]
mod tests;
