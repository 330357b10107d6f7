use super::*;
use crate::{Depth, Plan, budget::Budget, judge::tests::judge as judge_of};

fn course() -> Course {
    Course {
        plan: Plan { nvml: Some("/nowhere.so".into()), ..Plan::default() },
        judge: judge_of(&[]),
        budget: Budget::of(Depth::Quick),
        hardware: ff2_node::Hardware::look().unwrap(),
    }
}

fn well() -> Health {
    Health {
        ecc_uncorrected: Some(0),
        retired_pages: None,
        is_repair_pending: Some(false),
        has_repair_failed: Some(false),
        temperature: Some(40),
        slowdown_temperature: Some(87),
        pcie_width: Some(16),
        pcie_width_max: Some(16),
        ..Health::default()
    }
}

/// The verdict of the only figure that is not well.
fn fault(health: &Health) -> (String, Verdict) {
    let checks = of_health(&course(), health);
    let mut faults = checks.into_iter().filter(|check| check.verdict != Verdict::Ok);
    let fault = faults.next().unwrap();
    assert_eq!(faults.next(), None);
    (fault.name, fault.verdict)
}

#[test]
fn each_fault_is_seen() {
    assert!(of_health(&course(), &well()).iter().all(|check| check.verdict == Verdict::Ok));
    let told = |name: &str, verdict| (format!("gpu.0.{name}"), verdict);
    let health = Health { ecc_uncorrected: Some(1), ..well() };
    assert_eq!(fault(&health), told("ecc_uncorrected", Verdict::Failed));
    let health = Health { is_repair_pending: Some(true), ..well() };
    assert_eq!(fault(&health), told("repair_pending", Verdict::Suspect));
    let health = Health { has_repair_failed: Some(true), ..well() };
    assert_eq!(fault(&health), told("repair_failed", Verdict::Failed));
    let health = Health { retired_pages: Some(31), ..well() };
    assert_eq!(fault(&health), told("retired_pages", Verdict::Suspect));
    let health = Health { temperature: Some(84), ..well() };
    assert_eq!(fault(&health), told("temperature", Verdict::Suspect));
    let health = Health { temperature: Some(88), ..well() };
    assert_eq!(fault(&health), told("temperature", Verdict::Failed));
    let health = Health { pcie_width: Some(8), ..well() };
    assert_eq!(fault(&health), told("pcie_width", Verdict::Failed));
}

#[test]
fn what_a_model_cannot_tell_is_left_out() {
    assert_eq!(of_health(&course(), &Health::default()), []);
}

#[test]
fn a_node_without_a_driver_fails_only_if_it_should_have_gpus() {
    let mut course = course();
    assert_eq!(check(&course)[0].verdict, Verdict::NotTried);
    course.plan.gpus = Some(8);
    let checks = check(&course);
    assert_eq!(checks[0].verdict, Verdict::Failed);
    assert!(checks[0].why.starts_with("8 GPUs are expected"), "{}", checks[0].why);
}

#[test]
fn the_log_counts_from_the_last_repair() {
    let xid = |code, last_s| Xid { pci: "0000:3b:00".into(), code, count: 2, last_s };
    let mut course = course();
    let verdict = |course: &Course, xids: &[Xid]| of_log(course, xids)[0].verdict;
    assert_eq!(verdict(&course, &[]), Verdict::Ok);
    assert_eq!(verdict(&course, &[xid(31, 9), xid(43, 9)]), Verdict::Ok, "programs' errors");
    assert_eq!(verdict(&course, &[xid(74, 9)]), Verdict::Suspect);
    let fatal = [xid(74, 9), xid(79, 9)];
    assert_eq!(verdict(&course, &fatal), Verdict::Failed);
    let why = &of_log(&course, &fatal)[0].why;
    assert!(why.contains("Xid 79 at 0000:3b:00, 2 times"), "{why}");
    course.plan.gpus_repaired_s = 10;
    assert_eq!(verdict(&course, &fatal), Verdict::Ok);
}
