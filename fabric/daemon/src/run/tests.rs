use std::path::{Path, PathBuf};

use serde::Serialize;

use super::*;
use crate::{
    admin_get,
    config::{LogConfig, Validate},
};

#[derive(Serialize)]
struct Config {
    data_dir: PathBuf,
    log: LogConfig,
    good: bool,
}

impl Validate for Config {
    fn validate(&self, problems: &mut Problems) {
        problems.require(self.good, "good", "say true");
    }
}

impl DaemonConfig for Config {
    fn data_dir(&self) -> &Path {
        &self.data_dir
    }
    fn http_listen(&self) -> Option<&str> {
        None
    }
    fn log(&self) -> &LogConfig {
        &self.log
    }
    fn threads(&self) -> usize {
        1
    }
}

fn config(folder: &Path) -> Config {
    Config { data_dir: folder.into(), log: LogConfig::default(), good: true }
}

#[test]
fn a_daemon_is_reachable_while_it_starts_and_when_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    start("ff2-test", "1", config(folder.path()), |config, runtime| async move {
        let status = admin_get(&config.data_dir, "/status").await?;
        assert_eq!(status["ready"], false);
        runtime.admin.set_ready(true);
        assert_eq!(admin_get(&config.data_dir, "/status").await?["ready"], true);
        let again = PidFile::lock(&config.data_dir).unwrap_err();
        assert!(again.to_string().contains("is in use by process"));
        let stopped = runtime.stop.clone();
        runtime.tasks.spawn(async move { stopped.cancelled().await });
        Ok(())
    })
    .unwrap();
    assert_eq!(PidFile::running(folder.path()), None, "the lock ended with the daemon");
}

#[test]
fn failures_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let bad = Config { good: false, ..config(folder.path()) };
    let error = start("ff2-test", "1", bad, |_, _| async { Ok(()) }).unwrap_err();
    assert!(error.to_string().contains("good: say true"), "{error}");
    let failing = |_, _| async { anyhow::bail!("no disk") };
    let error = start("ff2-test", "1", config(folder.path()), failing).unwrap_err();
    assert_eq!(error.to_string(), "no disk");
}
