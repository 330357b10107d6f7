//! Is a disk, or a mount, fast, and does it give back what was written?
//!
//! A file is written from its begin by a few streams, read again the same way and compared. It has no name from the
//! moment it is open, so nothing stays whatever happens. The page cache is passed by (O_DIRECT); where a file system
//! cannot do that, what was written is synced and dropped from it before it is read.

mod file;

use std::{io, path::Path};

use crate::{
    Check, Verdict,
    judge::{Bound, Measured},
    validate::Course,
};

/// What is written to.
struct Place<'a> {
    /// Of its checks.
    name: &'static str,
    /// In sentences.
    what: &'static str,
    folder: Option<&'a Path>,
    bound: Bound,
    /// If nothing can be written or read at all.
    broken: Verdict,
}

pub(crate) fn check_disk(course: &Course) -> Vec<Check> {
    let (folder, bound) = (course.plan.disk.as_deref(), course.judge.limits.disk_mib_s);
    check(course, &Place { name: "disk", what: "the disk", folder, bound, broken: Verdict::Failed })
}

/// If it does not answer at all, that may be anybody's fault.
pub(crate) fn check_file_system(course: &Course) -> Vec<Check> {
    let (name, what, broken) = ("fs", "the file system", Verdict::Suspect);
    let (folder, bound) =
        (course.plan.file_system.as_deref(), course.judge.limits.file_system_mib_s);
    check(course, &Place { name, what, folder, bound, broken })
}

fn check(course: &Course, place: &Place<'_>) -> Vec<Check> {
    let Place { name, what, broken, .. } = *place;
    let Some(folder) = place.folder else {
        return vec![Check::not_tried(name, format!("no folder was given for {what}"))];
    };
    match file::measure(folder, course.budget.disk_bytes, course.budget.disk) {
        Ok(found) => judge(course, place, &found),
        Err(error) => {
            let is_full = error.kind() == io::ErrorKind::StorageFull;
            let verdict = if is_full { Verdict::Suspect } else { broken };
            let why = format!("{what} cannot be used in {}: {error}", folder.display());
            vec![Check::without_figure(name, verdict, why)]
        }
    }
}

fn judge(course: &Course, place: &Place<'_>, found: &file::Found) -> Vec<Check> {
    let Place { name, what, bound, .. } = *place;
    let way = if found.is_direct { "" } else { " (through the page cache)" };
    let rate = |verb: &str, figure| {
        let (name, what) = (format!("{name}.{verb}"), format!("{what} {verb}s{way}"));
        let measured = Measured { name: &name, figure, unit: "MiB/s", what: &what };
        course.judge.at_least(measured, Some(bound))
    };
    let mib = found.bytes >> 20;
    let what = format!("pages of 4 KiB, of {mib} MiB, that {what} did not give back as written");
    let (name, figure) = (format!("{name}.wrong_pages"), found.wrong_pages as f64);
    let wrong = Measured { name: &name, figure, unit: "", what: &what };
    vec![
        rate("write", found.write_mib_s),
        rate("read", found.read_mib_s),
        course.judge.none_of(wrong, Verdict::Failed),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Depth, Limits, Plan, budget::Budget, judge::tests::judge as judge_of};

    fn course(limits: Limits) -> Course {
        let mut judge = judge_of(&[]);
        judge.limits = limits;
        Course {
            plan: Plan::default(),
            judge,
            budget: Budget { disk_bytes: 16 << 20, ..Budget::of(Depth::Quick) },
            hardware: ff2_node::Hardware::look().unwrap(),
        }
    }

    #[test]
    fn a_disk_that_is_slower_than_its_limit_fails() {
        let folder = tempfile::tempdir().unwrap();
        let mut course =
            course(Limits { disk_mib_s: Bound { suspect: 1e9, failed: 1e8 }, ..Limits::default() });
        course.plan.disk = Some(folder.path().into());
        let checks = check_disk(&course);
        let verdict = |name: &str| checks.iter().find(|check| check.name == name).unwrap().verdict;
        assert_eq!(verdict("disk.write"), Verdict::Failed);
        assert_eq!(verdict("disk.read"), Verdict::Failed);
        assert_eq!(verdict("disk.wrong_pages"), Verdict::Ok);
    }

    #[test]
    fn without_a_folder_nothing_is_tried_and_a_missing_one_is_a_fault() {
        let mut course = course(Limits::default());
        assert_eq!(check_file_system(&course)[0].verdict, Verdict::NotTried);
        course.plan.file_system = Some("/nowhere/at/all".into());
        let checks = check_file_system(&course);
        assert_eq!(checks[0].verdict, Verdict::Suspect);
        course.plan.disk = course.plan.file_system.clone();
        assert_eq!(check_disk(&course)[0].verdict, Verdict::Failed);
        assert!(checks[0].why.contains("/nowhere/at/all"), "{}", checks[0].why);
    }
}
