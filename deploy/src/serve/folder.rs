//! The folder that a service's router and replicas share (`ff2-serve` has the other side of it).

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::connect::Access;

/// How many replicas there should be, of which jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) min: u32,
    pub(super) max: u32,
    /// The last one's replicas are wanted; those before it are to be replaced.
    pub(super) jobs: Vec<u64>,
    /// How the router tells the scheduler things: the begin of a command line.
    pub(super) scheduler: Vec<String>,
}

/// What the router says of the service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    /// Of the router that leads.
    pub(super) url: String,
    /// Of all routers.
    #[serde(default)]
    pub(super) urls: Vec<String>,
    /// Replicas that take requests, by job.
    pub(super) ready: std::collections::BTreeMap<u64, u32>,
    pub(super) wanted: u32,
    pub(super) requests: u64,
    pub(super) in_flight: i64,
    pub(super) tokens_per_second: f64,
    /// 0 to 1.
    pub(super) cached: f64,
    /// Unix time, s.
    pub(super) at: u64,
}

#[derive(Clone, Debug)]
pub(super) struct ServiceFolder(PathBuf);

impl ServiceFolder {
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn make(path: PathBuf) -> Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The first API key, if the service has none yet; it is shown this once.
    pub(super) fn first_key(&self, serve: &str) -> Result<Option<String>> {
        let keys = self.0.join("keys.json");
        if keys.exists() {
            return Ok(None);
        }
        let mut command = Command::new(serve);
        let made = command.arg("key").arg("--keys").arg(&keys).args(["add", "first"]).output();
        let made = made.with_context(|| format!("start {serve}"))?;
        ensure!(
            made.status.success(),
            "{serve} made no key: {}",
            String::from_utf8_lossy(&made.stderr).trim()
        );
        Ok(Some(String::from_utf8_lossy(&made.stdout).trim().to_owned()))
    }

    /// The begin of a command line by which the router finds the scheduler. Of a cluster elsewhere it gets copies of
    /// what proves who asks: its node may not have the originals.
    pub(super) fn scheduler(&self, access: &Access, program: String) -> Result<Vec<String>> {
        if let Some(dir) = access.local_dir() {
            let dir = fs::canonicalize(dir).context("find the folder of the cluster")?;
            return Ok(vec![program, "--dir".into(), dir.display().to_string()]);
        }
        let (ca, token) = (self.0.join("scheduler-ca.pem"), self.0.join("scheduler-token"));
        put(&ca, &fs::read(access.authority()).context("read the certificate authority")?)?;
        let given = access.given_token().context("name your token: --token FILE")?;
        put(&token, &fs::read(given).with_context(|| format!("read {}", given.display()))?)?;
        let shown = |path: PathBuf| path.display().to_string();
        Ok(vec![
            program,
            "--sched".into(),
            access.scheds().join(","),
            "--ca".into(),
            shown(ca),
            "--token".into(),
            shown(token),
        ])
    }

    pub(super) fn plan(&self) -> Result<Option<Plan>> {
        get(&self.0.join("service.json"))
    }

    pub(super) fn set_plan(&self, plan: &Plan) -> Result<()> {
        put(&self.0.join("service.json"), &serde_json::to_vec_pretty(plan)?)
    }

    pub(super) fn report(&self) -> Result<Option<Report>> {
        get(&self.0.join("router.json"))
    }

    /// What the router says now; of one that does not answer, what it wrote last.
    pub(super) fn fresh_report(&self, serve: &str) -> Result<Option<Report>> {
        let asked = Command::new(serve).arg("report").arg(&self.0).output();
        let said = asked.ok().filter(|ran| ran.status.success());
        match said.and_then(|ran| serde_json::from_slice(&ran.stdout).ok()) {
            Some(report) => Ok(Some(report)),
            None => self.report(),
        }
    }

    /// Of a router before.
    pub(super) fn forget_report(&self) -> Result<()> {
        match fs::remove_file(self.0.join("router.json")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context("remove what an earlier router said")
            }
            _ => Ok(()),
        }
    }
}

/// The one beside this program, if there is one; else whichever the nodes have.
pub(super) fn program(name: &str) -> String {
    let beside: Option<PathBuf> =
        env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    let beside = beside.filter(|path| path.exists());
    beside.map_or_else(|| name.into(), |path| path.display().to_string())
}

fn get<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let read = || format!("read {}", path.display());
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => Ok(Some(serde_json::from_slice(&bytes.with_context(read)?).with_context(read)?)),
    }
}

/// Whole or not at all, for its owner alone.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let write = || {
        io::Write::write_all(&mut options.open(&new)?, bytes)?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}
