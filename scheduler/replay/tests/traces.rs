//! Small traces whose outcome is known, and one that shows what each policy is good for.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use ff2_sched_core::Policy;
use ff2_sched_replay::{
    Report, Setting, cluster, plot, replay,
    trace::{TraceJob, csv},
};
use ff2_topology::{Topology, lingjun};

const HOUR: u64 = 3_600_000;

fn run(gpus: u32, trace: &[TraceJob], policy: Policy) -> Report {
    let setting = Setting { checks: true, ..Setting::new(policy) };
    replay(&cluster(gpus, 15), trace, &setting).unwrap()
}

fn job(submit: u64, gpus: u32, hours: u64) -> TraceJob {
    TraceJob { submit_ms: submit * HOUR, gpus, duration_ms: hours * HOUR }
}

/// Three in four are short and small; some take two nodes. A function of its numbers alone.
fn mixed() -> Vec<TraceJob> {
    let mut state = 1u64;
    let mut below = |n: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut at = 0;
    (0..400)
        .map(|_| {
            at += below(13) * HOUR / 10;
            let gpus = [1, 1, 1, 2, 4, 4, 8, 16][below(8) as usize];
            let minutes = if below(4) > 0 { 1 + below(120) } else { 600 + below(4_000) };
            TraceJob { submit_ms: at, gpus, duration_ms: minutes * 60_000 }
        })
        .collect()
}

#[test]
fn in_order_the_times_are_those_by_hand() {
    // Eight GPUs: the second waits for the first, and the third, though it would fit, for the second.
    let report = run(8, &[job(0, 4, 10), job(1, 8, 5), job(2, 4, 1)], Policy::Fifo);
    let jct = report.jct_hours;
    assert_eq!((jct.mean, jct.p50, jct.max), ((10.0 + 14.0 + 14.0) / 3.0, 14.0, 14.0));
    assert_eq!(report.makespan_days, 16.0 / 24.0);
    // One or two wait from the first hour to the fifteenth: half of it is used, then all.
    let used = 9.0 * 4.0 + 5.0 * 8.0;
    assert!((report.occupancy - used / (14.0 * 8.0)).abs() < 1e-9, "{report:?}");
    assert!((report.queueing_hours.mean - (9.0 + 13.0) / 3.0).abs() < 1e-9, "{report:?}");
}

#[test]
fn with_exact_limits_the_short_one_goes_ahead() {
    let report = run(8, &[job(0, 4, 10), job(1, 8, 5), job(2, 4, 1)], Policy::Easy);
    assert!((report.jct_hours.mean - (10.0 + 14.0 + 1.0) / 3.0).abs() < 1e-9, "{report:?}");
}

#[test]
fn a_preemption_costs_what_the_setting_says() {
    // The first has had sixteen GPU-hours when the other comes; that waits for its patience.
    let trace = [job(0, 8, 10), job(2, 8, 1)];
    let report = run(8, &trace, Policy::ff2());
    assert_eq!((report.preemptions, report.moves), (1, 0));
    let lost = 65.0 * 8.0 / 3_600.0;
    assert!((report.gpu_hours_lost - lost).abs() < 1e-9, "{report:?}");
    assert!((report.makespan_days * 24.0 - 11.0 - 65.0 / 3_600.0).abs() < 1e-6, "{report:?}");
    assert!(report.jct_hours.p50 < 1.2, "the short one waits for minutes: {report:?}");
}

#[test]
fn what_each_policy_is_good_for() {
    let trace = mixed();
    let of = |policy| run(64, &trace, policy);
    let (fifo, easy) = (of(Policy::Fifo), of(Policy::Easy));
    let (las, ff2) = (of(Policy::las()), of(Policy::ff2()));
    let mean = |report: &Report| report.jct_hours.mean;
    let told = format!(
        "mean JCT {:?} h, occupancy {:?}",
        [&fifo, &easy, &las, &ff2].map(mean),
        [&fifo, &easy, &las, &ff2].map(|report| report.occupancy)
    );
    assert!(mean(&easy) < mean(&fifo), "{told}");
    assert!(ff2.queueing_hours.mean < easy.queueing_hours.mean / 2.0, "{told}");
    assert!(mean(&ff2) < mean(&las) * 1.05, "{told}");
    assert!(ff2.occupancy > las.occupancy, "{told}");
    assert!(ff2.preemptions + ff2.moves < 400, "fewer than one for each job: {told}");
    // The same again is the same, to the last moment.
    assert_eq!(of(Policy::ff2()), ff2);
    let json = serde_json::to_value(&ff2).unwrap();
    assert!(json["jct_hours"]["p99"].is_f64() && json["makespan_days"].is_f64(), "{json}");
}

#[test]
fn a_gang_of_the_trace_takes_whole_nodes() {
    let report = run(32, &[job(0, 1, 1), job(0, 12, 1), job(0, 16, 1)], Policy::Fifo);
    // Twelve GPUs are two nodes, so the last waits.
    assert_eq!(report.jct_hours.max, 2.0);
    assert!((report.allreduce_gb_per_s - 12.5).abs() < 1e-9);
}

#[test]
fn what_can_never_run_is_named_by_its_line() {
    let trace = csv("num_gpu,submit_time,duration\n1,0,5\n64,1,5\n", 1).unwrap();
    let stuck = replay(&cluster(32, 15), &trace, &Setting::new(Policy::ff2())).unwrap_err();
    assert!(stuck.to_string().starts_with("job 2 of the trace was refused: 8 tasks"), "{stuck}");
}

#[test]
fn a_ragged_network_will_do() {
    let mut text = "ip,DSW,PSW,ASW\n".to_owned();
    for (leaf, hosts) in [1, 11, 3, 7, 2].into_iter().enumerate() {
        (0..hosts).for_each(|host| text += &format!("h{leaf}-{host},G1,P{},S{leaf}\n", leaf % 2));
    }
    let topology = Topology::new(&lingjun::describe(&text, 8, 400).unwrap()).unwrap();
    let trace: Vec<_> =
        mixed().into_iter().map(|job| TraceJob { gpus: job.gpus * 4, ..job }).collect();
    let setting = Setting { checks: true, ..Setting::new(Policy::ff2()) };
    let report = replay(&topology, &trace, &setting).unwrap();
    assert_eq!((report.jobs, report.gpus), (400, 24 * 8));
    assert!(report.leaves_spanned < 3.0, "{report:?}");
}

#[test]
fn a_picture_shows_both_lines() {
    let report = run(64, &mixed()[..50], Policy::ff2());
    let svg = plot(&report, "a < b");
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("a &lt; b"));
    assert_eq!(svg.matches("<polyline").count(), 2);
}
