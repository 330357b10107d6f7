//! Do the GPUs say that they are well?
//!
//! What the driver and the kernel's log tell. Nothing is computed: that needs CUDA, which is not there where this is
//! built, so the report says that it was not tried.

use std::path::Path;

use ff2_node::gpus::{self, Health, Severity, Xid};

use crate::{
    Check, Verdict,
    judge::{Bound, Measured},
    validate::Course,
};

pub(crate) fn check(course: &Course) -> Vec<Check> {
    let named = course.plan.nvml.as_deref().map(|path| [path]);
    let libraries: Option<&[&Path]> = named.as_ref().map(<[_; 1]>::as_slice);
    let expected = course.plan.gpus;
    let (healths, silent) = match gpus::health(libraries) {
        Ok(answers) => answers,
        Err(why) if expected.unwrap_or(0) == 0 => return vec![Check::not_tried("gpu", why)],
        Err(why) => {
            let why = format!("{} GPUs are expected: {why}", expected.unwrap_or(0));
            return vec![Check::without_figure("gpu", Verdict::Failed, why)];
        }
    };
    let count = healths.len() as f64;
    let what = "GPUs that answer";
    let wanted = expected.map_or(healths.len() + silent.len(), |count| count as usize) as f64;
    let bound = Bound { suspect: wanted, failed: wanted };
    let measured = Measured { name: "gpu.count", figure: count, unit: "", what };
    let mut checks = vec![course.judge.at_least(measured, Some(bound))];
    checks.extend(silent.into_iter().map(|why| Check::without_figure("gpu", Verdict::Failed, why)));
    checks.extend(healths.iter().flat_map(|health| of_health(course, health)));
    checks.extend(match gpus::logged() {
        Ok(xids) => of_log(course, &xids),
        Err(error) => {
            vec![Check::not_tried("gpu.xid", format!("the kernel's log may not be read: {error}"))]
        }
    });
    let why = "computing on GPUs needs CUDA, which this program was built without";
    checks.push(Check::not_tried("gpu.compute", why));
    checks
}

fn of_health(course: &Course, health: &Health) -> Vec<Check> {
    let (judge, limits) = (&course.judge, &course.judge.limits);
    let (index, mut checks) = (health.index, Vec::new());
    let name = |figure: &str| format!("gpu.{index}.{figure}");
    let mut none_of = |figure: &str, count: Option<u64>, what: &str, worst| {
        let Some(count) = count else { return };
        let (name, what) = (name(figure), format!("GPU {index}'s {what}"));
        let measured = Measured { name: &name, figure: count as f64, unit: "", what: &what };
        checks.push(judge.none_of(measured, worst));
    };
    let what = "uncorrected memory errors";
    none_of("ecc_uncorrected", health.ecc_uncorrected, what, Verdict::Failed);
    let what = "rows of memory that wait for a reset to be replaced";
    none_of("repair_pending", health.is_repair_pending.map(u64::from), what, Verdict::Suspect);
    let what = "rows of memory that cannot be replaced";
    none_of("repair_failed", health.has_repair_failed.map(u64::from), what, Verdict::Failed);
    if let Some(pages) = health.retired_pages {
        let (name, what) = (name("retired_pages"), format!("GPU {index}'s pages out of use"));
        let measured = Measured { name: &name, figure: pages as f64, unit: "", what: &what };
        checks.push(judge.at_most(measured, Some(limits.gpu_retired_pages)));
    }
    if let Some(celsius) = health.temperature {
        let slowdown = health.slowdown_temperature.map_or(f64::INFINITY, f64::from);
        let Bound { suspect, failed } = limits.gpu_celsius;
        let bound = Bound { suspect: suspect.min(slowdown), failed: failed.min(slowdown) };
        let (name, what) = (name("temperature"), format!("GPU {index}'s temperature"));
        let figure = f64::from(celsius);
        let measured = Measured { name: &name, figure, unit: "°C", what: &what };
        checks.push(judge.at_most(measured, Some(bound)));
    }
    if let (Some(width), Some(most @ 1..)) = (health.pcie_width, health.pcie_width_max) {
        let what = format!("GPU {index}'s link has {width} of {most} lanes");
        let (name, figure) = (name("pcie_width"), f64::from(width) / f64::from(most));
        let measured = Measured { name: &name, figure, unit: "", what: &what };
        checks.push(judge.at_least(measured, Some(limits.gpu_pcie)));
    }
    checks
}

/// By place on the bus: a GPU that fell off it has no index any more.
fn of_log(course: &Course, xids: &[Xid]) -> Vec<Check> {
    let is_new = |xid: &&Xid| {
        xid.last_s >= course.plan.gpus_repaired_s && xid.severity() > Severity::Program
    };
    let found: Vec<&Xid> = xids.iter().filter(is_new).collect();
    let worst = match found.iter().map(|xid| xid.severity()).max() {
        Some(Severity::Fatal) => Verdict::Failed,
        _ => Verdict::Suspect,
    };
    let listed =
        found.iter().map(|xid| format!("Xid {} at {}, {} times", xid.code, xid.pci, xid.count));
    let listed = listed.collect::<Vec<_>>().join("; ");
    let what = match listed.as_str() {
        "" => "errors of GPUs in the kernel's log".to_owned(),
        listed => format!("errors of GPUs in the kernel's log ({listed})"),
    };
    let figure = found.iter().map(|xid| xid.count).sum::<u64>() as f64;
    let measured = Measured { name: "gpu.xid", figure, unit: "", what: &what };
    vec![course.judge.none_of(measured, worst)]
}

#[cfg(test)]
mod tests;
