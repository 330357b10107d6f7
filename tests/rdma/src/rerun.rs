//! Runs a test binary once more where what it needs is there.

use std::{env, path::Path, time::Duration};

use crate::{Job, missing, run};

/// Runs all tests of the calling test binary but `caller` in a machine, one after another, with nothing that they may
/// leave out. Panics with their output unless all pass. What is to be there is said by the tests themselves, which
/// fail or are left out elsewhere.
///
/// Without the programs that a machine needs it fails as well, unless `FF2_TEST_ALLOW_SKIP` is 1 or names `qemu`.
pub fn rerun_tests(caller: &str) {
    rerun(caller, &[], |job| job);
}

/// As [`rerun_tests`], in a machine that has more: `shape` changes what it is asked for.
pub fn rerun_tests_in<'a>(caller: &str, shape: impl FnOnce(Job<'a>) -> Job<'a>) {
    rerun(caller, &[], shape);
}

/// As [`rerun_tests`], of those alone that have `part` in their names.
pub fn rerun_tests_named(caller: &str, part: &str) {
    rerun(caller, &[part], |job| job);
}

#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn rerun<'a>(caller: &str, parts: &[&str], shape: impl FnOnce(Job<'a>) -> Job<'a>) {
    let missing = missing();
    if !missing.is_empty() {
        let value = env::var("FF2_TEST_ALLOW_SKIP").unwrap_or_default();
        let allowed = value.split(',').any(|word| ["1", "qemu"].contains(&word));
        assert!(allowed, "{missing:?} are missing; FF2_TEST_ALLOW_SKIP=qemu leaves this out");
        return eprintln!("SKIPPED: no machine can be made without {missing:?}");
    }
    let program = env::current_exe().expect("a running program has a path");
    let arguments = [&["--test-threads=1", "--nocapture", "--skip", caller], parts].concat();
    let shaped = shape(Job { time_max: Duration::from_secs(240), ..Job::new(Path::new("")) });
    let job = Job {
        program: &program,
        arguments: &arguments,
        environment: &[("FF2_TEST_IN_VM", "1"), ("RUST_BACKTRACE", "1")],
        ..shaped
    };
    let ended = match run(&job) {
        Ok(ended) => ended,
        Err(error) => panic!("{error:#}"),
    };
    let all = &ended.output;
    assert!(ended.status == 0, "status {}\n{all}\nconsole:\n{}", ended.status, ended.console);
    assert!(!all.contains("SKIPPED"), "something is missing in the machine\n{all}");
    assert!(all.contains("test result: ok.") && !all.contains("running 0 tests"), "{all}");
    let wrong = ["BUG:", "Oops:", "WARNING:", "hung task"];
    let kernel = wrong.iter().find(|word| ended.console.contains(**word));
    assert!(kernel.is_none(), "the machine's kernel complains:\n{}", ended.console);
    eprintln!("{all}");
}
