//! pjdfstest on a mount, as root and as a user without privileges. What fails by intention is a row of
//! the exceptions in `docs/SEMANTICS.md`; one that begins to pass must leave the table.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

use ff2_cluster_tests::{
    Cluster,
    suite::{SMALL, program},
};

/// Cases of pjdfstest 0.2.2: fewer would mean that some are not run.
const CASES: u32 = 398;
/// Of them, those that ran. The others need a remount, a limit of links that the kernel tells, or, for a
/// user, privileges.
const RAN_AS_ROOT: u32 = 384;
const RAN_AS_USER: u32 = 250;
const NOBODY: u32 = 65_534;

#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    failed: u32,
    skipped: u32,
    passed: u32,
    expected_failures: u32,
    total: u32,
}

#[test]
fn a_mount_is_a_posix_file_system() {
    let Some(program) = program("pjdfstest") else { return };
    // Before the cluster: it is removed after the mount in it is gone.
    let folder = tempfile::Builder::new().prefix("pjd").tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let cluster = Cluster::start_with(&SMALL).unwrap();
    let exceptions = exceptions();
    // A short path: names of sockets have 107 bytes at most.
    let mount = folder.path().join("m");
    cluster.ctl(&["mount", mount.to_str().unwrap()]).unwrap();
    // Where a user can read and run it.
    let own = folder.path().join("pjdfstest");
    fs::copy(program, &own).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
    let config = folder.path().join("config.toml");
    fs::write(&config, configuration(&exceptions)).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let beside = folder.path().join("beside");
    fs::create_dir(&beside).unwrap();

    let place = mount.join("root");
    fs::create_dir(&place).unwrap();
    let mut command = Command::new(&own);
    let summary = run(command.arg("-s").arg(&beside), &config, &place);
    assert_eq!(summary.total, CASES);
    assert_eq!(summary.expected_failures as usize, exceptions.len(), "{summary:?}");
    assert!(summary.passed + summary.expected_failures >= RAN_AS_ROOT, "{summary:?}");

    let place = mount.join("user");
    fs::create_dir(&place).unwrap();
    chown(&place, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = Command::new(&own);
    let summary = run(command.uid(NOBODY).gid(NOBODY), &config, &place);
    assert!(summary.passed >= RAN_AS_USER, "{summary:?}");
}

fn run(command: &mut Command, config: &Path, place: &Path) -> Summary {
    let output = command.arg("-c").arg(config).arg("-p").arg(place).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let summary = summary(&text).unwrap_or_else(|| panic!("no summary: {text}{errors}"));
    assert!(output.status.success(), "{summary:?}\n{}", failures(&text));
    assert_eq!(summary.failed, 0);
    eprintln!("{}: {summary:?}", place.display());
    summary
}

/// The last line without its colours: `Summary: 0 failed, 14 skipped, ...`.
fn summary(text: &str) -> Option<Summary> {
    let plain = plain(text);
    let line = plain.lines().find_map(|line| line.strip_prefix("Summary: "))?;
    let mut summary = Summary::default();
    for part in line.split(", ") {
        let (number, what) = part.split_once(' ')?;
        let number = number.parse().ok()?;
        match what {
            "failed" => summary.failed = number,
            "skipped" => summary.skipped = number,
            "passed" => summary.passed = number,
            "expected failures" => summary.expected_failures = number,
            "total" => summary.total = number,
            _ => return None,
        }
    }
    Some(summary)
}

fn failures(text: &str) -> String {
    let plain = plain(text);
    let lines: Vec<&str> = plain.lines().collect();
    let failed = lines
        .windows(2)
        .filter(|pair| pair[0].contains("FAILED") || pair[0].contains("PASSED UNEXPECTEDLY"));
    failed.map(|pair| pair.join("\n")).collect::<Vec<_>>().join("\n")
}

fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut pieces = text.split("\u{1b}[");
    plain.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        plain.push_str(piece.split_once('m').map_or("", |(_, rest)| rest));
    }
    plain
}

fn configuration(exceptions: &[String]) -> String {
    let cases: Vec<String> = exceptions.iter().map(|case| format!("{case:?}")).collect();
    format!(
        "[features]\nposix_fallocate = {{}}\nrename_ctime = {{}}\nutime_now = {{}}\n\
         utimensat = {{}}\nstat_st_birthtime = {{}}\n\
         [settings]\nnaptime = 0.01\nallow_remount = false\nexpected_failures = [{}]\n\
         [dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]\n",
        cases.join(", ")
    )
}

/// The cases in the table of exceptions: rows that begin with a name of pjdfstest.
fn exceptions() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/SEMANTICS.md");
    let text = fs::read_to_string(page).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| pjdfstest `"));
    rows.map(|row| row.split('`').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_summary_is_read() {
    let text = "x ok\n\u{1b}[1;32mSummary\u{1b}[0m: 0 \u{1b}[31mfailed\u{1b}[0m, 14 skipped, \
                384 passed, 2 expected failures, 400 total\n";
    let expected =
        Summary { failed: 0, skipped: 14, passed: 384, expected_failures: 2, total: 400 };
    assert_eq!(summary(text), Some(expected));
}
